"""error = max |a − b| / max |a|: how far one output is from another, as one number.

Computed in float64 and absolute where `a` is all zero. Shape, dtype, NaN and ±inf must agree, else the error is inf.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

if TYPE_CHECKING:
    from optimizer.core.feeds import Array, Datum


@dataclass(slots=True)
class Difference:
    """How far a result `b` is from the original `a`.

    Fields:
        error: max |a − b| / max |a|; inf where they cannot be compared.
        what: why they cannot be compared, or "".
        index: of the first value beyond the limit, else of the worst; below a list or map its position comes first.
        original, result: the two values there, None if there are none.
        beyond: how many values are beyond the limit.
        signal, noise: Σ a² and Σ (a − b)² over all values that are finite in both.
    """

    error: float = 0.0
    what: str = ""
    index: tuple[Any, ...] = ()
    original: Any = None
    result: Any = None
    beyond: int = 0
    signal: float = 0.0
    noise: float = 0.0


def compare(a: Datum, b: Datum, limit: float = 0.0, *, finite_only: bool = False) -> Difference:
    """The difference of two outputs.

    Args:
        limit: the error up to which values count as equal.
        finite_only: judge only where `a` is finite; what it overflowed to, or NaN, may then be anything.
    """
    if a is None or b is None:
        return Difference() if a is b else Difference(math.inf, "an absent optional")
    if isinstance(a, list) or isinstance(b, list):
        if not isinstance(a, list) or not isinstance(b, list) or len(a) != len(b):
            return Difference(math.inf, f"sequence of {_length(a)} against {_length(b)}")
        return _worst([(i, compare(x, y, limit, finite_only=finite_only)) for i, (x, y) in enumerate(zip(a, b))])
    if isinstance(a, dict) or isinstance(b, dict):
        if not isinstance(a, dict) or not isinstance(b, dict) or a.keys() != b.keys():
            return Difference(math.inf, f"map of {_length(a)} against {_length(b)}, or other keys")
        return _worst([(k, compare(a[k], b[k], limit, finite_only=finite_only)) for k in a])
    return _compare_arrays(np.asarray(a), np.asarray(b), limit, finite_only)


def sqnr_db(signal: float, noise: float) -> float:
    """10·log₁₀(Σa² / Σ(a−b)²); inf where there is no noise."""
    return math.inf if noise == 0 else -math.inf if signal == 0 else 10 * math.log10(signal / noise)


def _compare_arrays(a: Array, b: Array, limit: float, finite_only: bool) -> Difference:
    if a.dtype != b.dtype:
        return Difference(math.inf, f"dtype {b.dtype} instead of {a.dtype}")
    if a.shape != b.shape:
        return Difference(math.inf, f"shape {list(b.shape)} instead of {list(a.shape)}")
    if a.size == 0:
        return Difference()
    if a.dtype.kind in "OUS":
        return _at(np.asarray(a != b), a, b, math.inf, "other text") if (a != b).any() else Difference()
    if a.dtype.kind == "c":
        parts = f"f{a.itemsize // 2}"
        a, b = (np.ascontiguousarray(z)[..., None].view(parts) for z in (a, b))
    unequal = a != b
    if a.dtype.kind in "iub":  # exact where float64 is not: 2⁵³ + 1
        x, y = a.astype(np.float64), b.astype(np.float64)
        distance = np.where(unequal, np.maximum(np.abs(x - y), 1.0), 0.0)
    else:
        x, y = a.astype(np.float64), b.astype(np.float64)
        finite_a, finite_b = np.isfinite(x), np.isfinite(y)
        apart = ~(finite_a & finite_b) & ~((x == y) | (np.isnan(x) & np.isnan(y)))
        if finite_only:
            apart &= finite_a
        if apart.any():
            return _at(apart, a, b, math.inf, "NaN or infinity on one side")
        both = finite_a & finite_b
        x, y = np.where(both, x, 0.0), np.where(both, y, 0.0)
        distance = np.abs(x - y)
    scale = float(np.max(np.abs(x)))
    worst = float(np.max(distance))
    error = worst / scale if scale else worst
    beyond = distance > limit * (scale or 1.0)
    found = _at(beyond if error > limit else distance == worst, a, b, error, "")
    found.beyond = int(np.count_nonzero(beyond))
    found.signal, found.noise = float(np.sum(x * x)), float(np.sum(distance * distance))
    return found


def _at(where: Array, a: Array, b: Array, error: float, what: str) -> Difference:
    """A difference at the first index that `where` marks."""
    index = tuple(int(i) for i in np.unravel_index(int(np.argmax(where)), where.shape))
    return Difference(error, what, index, _plain(a[index]), _plain(b[index]))


def _plain(value: Any) -> Any:
    """A number or text that JSON knows; ml_dtypes' scalars become floats."""
    return value.item() if isinstance(value, np.generic) and value.dtype.kind in "biufO" else _number_or_text(value)


def _number_or_text(value: Any) -> Any:
    try:
        return float(value)
    except (TypeError, ValueError):
        return str(value)


def _worst(parts: list[tuple[Any, Difference]]) -> Difference:
    """The worst of an output's parts, the sums over all of them."""
    whole = Difference()
    for key, part in parts:
        if part.error > whole.error:
            whole.error, whole.what, whole.index = part.error, part.what, (key, *part.index)
            whole.original, whole.result = part.original, part.result
        whole.beyond += part.beyond
        whole.signal += part.signal
        whole.noise += part.noise
    return whole


def _length(x: Datum) -> str:
    return str(len(cast("Any", x))) if isinstance(x, (list, dict)) else "a tensor"
