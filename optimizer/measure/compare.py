"""error = max |a − b| / max |a|: how far one output is from another, as one number.

Computed in float64 and absolute where `a` is all zero. Shape, dtype, NaN and ±inf must agree, else the error is inf.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
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


@dataclass(slots=True)
class Agreement:
    """How alike the answers of two models are, for what is approximate on purpose; summed over batches.

    Rows are those along the last axis, where it has at least two values. Logits or probabilities: the divergence is
    that of the softmax of a row, or of the row itself where it sums to one.

    Fields:
        dot, original, result: Σ a·b, Σ a², Σ b².
        rows: how many rows were compared.
        top1, top5: Σ over rows: whether the largest value is at the same place; the share of the five largest (of all
            but one where there are fewer than six) that are among the five largest of the other.
        divergence: Σ over rows of KL(a ‖ b), in nats.
        margin: the largest lead, as a share of the row's spread, that the original's first had in a row that flipped.
    """

    dot: float = 0.0
    original: float = 0.0
    result: float = 0.0
    rows: int = 0
    top1: float = 0.0
    top5: float = 0.0
    divergence: float = 0.0
    margin: float = 0.0

    def add(self, a: Datum, b: Datum) -> None:
        """Another batch; what is not two floating tensors of one shape is left out, so are rows that are not finite."""
        if not isinstance(a, np.ndarray) or not isinstance(b, np.ndarray) or a.shape != b.shape or not a.size:
            return
        if a.dtype.kind not in "fV":
            return
        x, y = a.astype(np.float64), b.astype(np.float64)
        both = np.isfinite(x) & np.isfinite(y)
        u, v = np.where(both, x, 0.0), np.where(both, y, 0.0)
        self.dot += float(np.sum(u * v))
        self.original += float(np.sum(u * u))
        self.result += float(np.sum(v * v))
        if x.ndim == 0 or x.shape[-1] < 2:
            return
        whole = both.reshape(-1, x.shape[-1]).all(1)
        x, y = (z.reshape(-1, z.shape[-1])[whole] for z in (x, y))
        if not len(x):
            return
        k = min(5, x.shape[-1] - 1)
        first, second = np.argmax(x, 1), np.argmax(y, 1)
        best, other = (np.argpartition(-z, k - 1, 1)[:, :k] for z in (x, y))
        self.rows += len(x)
        self.top1 += float(np.sum(first == second))
        self.top5 += float(np.mean((best[:, :, None] == other[:, None, :]).any(2), 1).sum())
        p, q = _probabilities(x), _probabilities(y)
        tiny = np.finfo(np.float64).tiny
        self.divergence += float(np.sum(np.where(p > 0, p * np.log(np.maximum(p, tiny) / np.maximum(q, tiny)), 0.0)))
        flipped = first != second
        if flipped.any():
            ordered = np.partition(x[flipped], -2, 1)
            spread = np.maximum(ordered.max(1) - ordered.min(1), tiny)
            self.margin = max(self.margin, float(np.max((ordered[:, -1] - ordered[:, -2]) / spread)))

    def to_dict(self) -> dict[str, float | None]:
        """cosine, and kl, top1, top5, margin as means over rows (margin: the worst); None where there are no rows."""
        norm = math.sqrt(self.original * self.result)
        cosine = self.dot / norm if norm else float(self.original == self.result)
        if not self.rows:
            return {"cosine": cosine, "kl": None, "top1": None, "top5": None, "margin": None}
        means = {"kl": max(self.divergence, 0.0), "top1": self.top1, "top5": self.top5}
        return {"cosine": cosine, **{key: total / self.rows for key, total in means.items()}, "margin": self.margin}


@dataclass(slots=True)
class Histogram:
    """How many values have an error of which decade: |a − b| as a share of max |a|, summed over batches.

    Fields:
        decades: exponent n → how many errors lie in [10ⁿ, 10ⁿ⁺¹); from −17 (and below) to 0 (and above).
        equal: how many values are equal; apart: how many are not finite on one side only.
    """

    decades: Counter[int] = field(default_factory=Counter[int])
    equal: int = 0
    apart: int = 0

    def add(self, a: Datum, b: Datum) -> None:
        """Another batch; what is not two tensors of numbers of one shape is left out."""
        if not isinstance(a, np.ndarray) or not isinstance(b, np.ndarray) or a.shape != b.shape:
            return
        if not a.size or a.dtype.kind not in "fViub":
            return
        x, y = a.astype(np.float64), b.astype(np.float64)
        same = (x == y) | (np.isnan(x) & np.isnan(y))
        finite = np.isfinite(x) & np.isfinite(y)
        self.equal += int(same.sum())
        self.apart += int((~finite & ~same).sum())
        scale = float(np.max(np.abs(x), where=np.isfinite(x), initial=0.0)) or 1.0
        errors = np.abs(x - y, where=finite & ~same, out=np.zeros_like(x))[finite & ~same] / scale
        levels = np.clip(np.floor(np.log10(np.maximum(errors, 1e-300))), -17, 0).astype(int)
        self.decades.update(levels.tolist())

    def to_dict(self) -> dict[str, Any]:
        """equal, apart, and decades with its exponents as text."""
        return {
            "equal": self.equal,
            "apart": self.apart,
            "decades": {str(n): self.decades[n] for n in sorted(self.decades)},
        }


def _probabilities(rows: Array) -> Array:
    """Each row as it is where it is a distribution, else its softmax."""
    if (rows >= 0).all() and np.allclose(rows.sum(1), 1, atol=1e-2):
        return rows
    e = np.exp(rows - rows.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


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
