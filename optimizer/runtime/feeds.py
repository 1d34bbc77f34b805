"""Seeded data that a model takes and that shows a change: signed, sparse, wide, large, and within its tables.

Positive numbers of one magnitude, which most tools draw, cannot tell Relu from Abs or from nothing. Each regime below
catches what the others miss; a model is run under all of them.
"""

from __future__ import annotations

import ast
import difflib
import itertools
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from optimizer.core.errors import BadInput
from optimizer.runtime.card import Card, load_function

if TYPE_CHECKING:
    import numpy as np

    from optimizer.core.feeds import Array, Binding, Feed, Feeds
    from optimizer.runtime.interface import InputSpec, Interface

REGIMES = ("normal", "unit", "wide", "uniform", "zeros", "large", "grid")
"""normal N(0,1) · unit U[0,1) · wide ±10^U(-4,2) or 0 · uniform U[-1,1) · zeros · large 100·N(0,1) · grid ½·{-8…8}"""
STRESS = frozenset(("wide", "zeros", "large", "grid", "nonfinite"))
"""Regimes in which a model may leave its domain, so that NaN or infinity out of the original says nothing."""

_WORDS = ("", "a", "Graph", "wright", "ONNX", "½", "the quick brown fox", "0")


def regimes(interface: Interface) -> tuple[str, ...]:
    """The regimes that say something about this model: NaN and infinity only for one that asks for them."""
    return (*REGIMES, "nonfinite") if interface.guards else REGIMES


def draw(interface: Interface, binding: Binding, rng: np.random.Generator, regime: str = "normal") -> dict[str, Any]:
    """One batch for a model, at one binding of its free dimensions.

    Overridable float initializers are fed too in the wide regime: a pass must not take them for constants.

    Raises:
        BadInput: an input that cannot be drawn (a map, an unknown rank), or a dimension that the binding leaves open.
    """
    feed: dict[str, Any] = {}
    for spec in interface.inputs:
        if spec.has_default:
            if regime == "wide" and spec.default is not None and spec.dtype.startswith("float"):
                feed[spec.name] = (spec.default * rng.uniform(0.5, 1.5, spec.default.shape)).astype(spec.default.dtype)
        elif spec.container != "optional":
            feed[spec.name] = _draw_input(spec, binding, rng, regime)
    return feed


def _draw_input(spec: InputSpec, binding: Binding, rng: np.random.Generator, regime: str) -> Any:
    if spec.container == "map" or spec.dims is None or spec.dtype == "undefined":
        raise BadInput(
            f"input {spec.name!r} cannot be drawn: its type is not a tensor of known rank", fix="give --feeds"
        )
    shape = tuple(size_of(dim, binding) for dim in spec.dims)
    if spec.container == "sequence":
        return [_draw_tensor(spec, shape, binding, rng, regime) for _ in range(2)]
    return _draw_tensor(spec, shape, binding, rng, regime)


def _draw_tensor(
    spec: InputSpec, shape: tuple[int, ...], binding: Binding, rng: np.random.Generator, regime: str
) -> Array:
    import ml_dtypes  # registers bfloat16 and the float8 types by name
    import numpy as np

    if spec.dtype == "string":
        return np.array(rng.choice(_WORDS, shape), dtype=object)
    dtype = np.dtype(spec.dtype)
    words = set(re.split(r"[^a-z]+", spec.name.lower()))
    if dtype.kind == "b" or (dtype.kind in "iu" and _is_mask(spec)):
        bits = _mask(shape, rng) if _is_mask(spec) else rng.integers(0, 2, shape)
        return np.asarray(bits, dtype)
    if dtype.kind in "iu":
        longest = max((n for n in (*binding.values(), *shape)), default=1)
        is_length = bool(words & {"len", "lens", "length", "lengths", "seqlen", "seqlens"})
        return np.asarray(_draw_integers(spec, shape, binding, rng, regime, longest if is_length else None), dtype)
    if dtype.kind == "c":
        return np.asarray(_draw_floats(shape, rng, regime) + 1j * _draw_floats(shape, rng, regime), dtype)
    largest = float(ml_dtypes.finfo(dtype).max)
    floats = _draw_floats(shape, rng, regime)
    return np.asarray(np.where(np.isfinite(floats), np.clip(floats, -largest, largest), floats), dtype)


def _draw_floats(shape: tuple[int, ...], rng: np.random.Generator, regime: str) -> Array:
    import numpy as np

    match regime:
        case "unit":
            return rng.random(shape)
        case "uniform":
            return rng.uniform(-1, 1, shape)
        case "zeros":
            return np.zeros(shape)
        case "large":
            return 100 * rng.standard_normal(shape)
        case "wide":
            wide = rng.choice((-1.0, 1.0), shape) * 10 ** rng.uniform(-4, 2, shape)
            return np.where(rng.integers(0, 8, shape) == 0, 0.0, wide)
        case "grid":  # ties: where Round, Floor and Ceil part ways, and where values are equal
            return rng.integers(-8, 8, shape, endpoint=True) / 2
        case "nonfinite":
            special = rng.choice((np.nan, np.inf, -np.inf), shape)
            drawn = np.where(rng.random(shape) < 0.2, special, rng.standard_normal(shape))
            if drawn.size:
                drawn.flat[rng.integers(drawn.size)] = np.nan
            return drawn
        case _:
            return rng.standard_normal(shape)


def _draw_integers(
    spec: InputSpec,
    shape: tuple[int, ...],
    binding: Binding,
    rng: np.random.Generator,
    regime: str,
    longest: int | None,
) -> Array:
    """Integers that make sense where they go: table indices, options, lengths, sizes, or plain numbers."""
    import numpy as np

    info = np.iinfo(spec.dtype)
    if spec.below:
        bound = min(size_of(dim, binding) for dim in spec.below)
        drawn = np.asarray(rng.integers(0, max(bound, 1), shape))
        if drawn.size > 1 and regime != "zeros":
            drawn.flat[rng.choice(drawn.size, 2, replace=False)] = 0, max(bound - 1, 0)  # the ends of the table
        return drawn if regime != "zeros" else np.zeros_like(drawn)
    if spec.constants and not spec.decides_shape:
        near = [n for c in spec.constants if float(c).is_integer() for n in (c, c - 1, c + 1)]
        if near:  # an option: in half of the regimes as the model knows it, else also beside it
            return np.clip(
                rng.choice(near[::3] if regime in ("normal", "wide", "zeros") else near, shape), info.min, info.max
            )
    if longest is not None:
        return rng.integers(1, longest + 1, shape)
    if spec.decides_shape:
        return rng.integers(1, 4, shape)
    if info.bits == 8:
        return rng.integers(info.min, info.max, shape, endpoint=True)
    reach = {"wide": 1 << 20, "large": 1 << 40, "zeros": 0, "unit": 1}.get(regime, 8)
    return rng.integers(max(info.min, -reach), min(info.max, reach), shape, endpoint=True)


def _is_mask(spec: InputSpec) -> bool:
    return "mask" in spec.name.lower() and not spec.below


def _mask(shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Ones up to a random length in the last axis, at least one: the padding of a batch."""
    import numpy as np

    if not shape:
        return np.ones(shape, np.int64)
    lengths = rng.integers(1, max(shape[-1], 1), shape[:-1], endpoint=True)
    return (np.arange(shape[-1]) < lengths[..., None]).astype(np.int64)


# --- sizes -----------------------------------------------------------------------------------------------------------


def free_dims(interface: Interface) -> dict[str, int]:
    """The names of the free dimensions of the required inputs → the first axis each appears at."""
    found: dict[str, int] = {}
    for spec in interface.required:
        for axis, dim in enumerate(spec.dims or ()):
            for name in () if isinstance(dim, int) or spec.container == "optional" else _names(dim):
                found[name] = min(axis, found.get(name, axis))
    return found


def size_of(dim: int | str, binding: Binding) -> int:
    """The size of a dimension; its name may be arithmetic, as in "past_sequence_length + sequence_length".

    Raises:
        BadInput: the binding leaves it open.
    """
    if isinstance(dim, int):
        return dim
    if dim in binding:
        return binding[dim]
    try:
        return _evaluate(ast.parse(dim, mode="eval").body, binding)
    except (KeyError, SyntaxError, ValueError, ZeroDivisionError):
        raise BadInput(f"dimension {dim!r} has no size", fix=f"--dim '{dim}=N'") from None


def _names(dim: str) -> list[str]:
    """The names in a dimension's expression; all of it where it is not arithmetic."""
    try:
        tree = ast.parse(dim, mode="eval").body
        names = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name)]
        _evaluate(tree, dict.fromkeys(names, 1))
    except (SyntaxError, ValueError, ZeroDivisionError):
        return [dim]
    return names or [dim]


def _evaluate(node: ast.expr, binding: Binding) -> int:
    match node:
        case ast.Name(name):
            return binding[name]
        case ast.Constant(int(value)):
            return value
        case ast.BinOp(left, operator, right):
            a, b = _evaluate(left, binding), _evaluate(right, binding)
            match operator:
                case ast.Add():
                    return a + b
                case ast.Sub():
                    return a - b
                case ast.Mult():
                    return a * b
                case ast.Div() | ast.FloorDiv():
                    return a // b
                case _:
                    raise ValueError("not a dimension")
        case _:
            raise ValueError("not a dimension")


_BATCHES = (2, 1, 3)
_SIZES = (5, 7, 16, 3, 2, 1, 33, 8, 32, 64, 96, 128, 160, 224, 256, 320, 512, 576, 640, 1024, 4000, 16000)
_LARGEST = 1 << 23  # elements of all inputs together: a trial must not exhaust the machine


def find_bindings(
    interface: Interface,
    runs: Callable[[Binding], bool],
    given: Mapping[str, int] | None = None,
    *,
    count: int = 3,
    tries: int = 160,
) -> list[dict[str, int]]:
    """Up to `count` bindings of the free dimensions, as different as the model allows; found by running it.

    A model without free dimensions, or with all of them given, has exactly one. The search is deterministic.

    Args:
        runs: whether the original runs at a binding.
        given: sizes that are fixed.
        tries: how often `runs` is asked at most.
    """
    given = dict(given or {})
    free = {name: axis for name, axis in free_dims(interface).items() if name not in given}
    if not free:
        return [given]
    asked: dict[tuple[int, ...], bool] = {}

    def works(sizes: Mapping[str, int]) -> bool:
        key = tuple(sizes[name] for name in free)
        if key not in asked and len(asked) < tries:
            whole = {**given, **sizes}
            asked[key] = _elements(interface, whole) <= _LARGEST and runs(whole)
        return asked.get(key, False)

    base = next(filter(works, _first_guesses(free)), None)
    if base is None:
        return []
    options: dict[tuple[str, ...], list[int]] = {}  # dimensions that may move together → other sizes
    for together in _units(free):
        if any(set(together) & set(done) for done in options):
            continue
        others = _BATCHES if all(free[name] == 0 for name in together) else (1, *_SIZES)
        here = base[together[0]]
        sizes = sorted({*others} - {here}, key=lambda n: (n != 1, abs(math.log(n / here)), n))  # 1, then the nearest
        working = (n for n in sizes[:8] if works({**base, **dict.fromkeys(together, n)}))
        if accepted := list(itertools.islice(working, count - 1)):
            options[together] = accepted
    found = [base]
    for turn in range(count - 1):
        mixed = dict(base)
        for step, (together, sizes) in enumerate(options.items()):
            mixed |= dict.fromkeys(together, sizes[(turn + step) % len(sizes)])
        singles = ({**base, **dict.fromkeys(together, n)} for together, sizes in options.items() for n in sizes)
        found += itertools.islice((b for b in (mixed, *singles) if b not in found and works(b)), 1)
    return [{**given, **binding} for binding in found]


def _first_guesses(free: Mapping[str, int]) -> Iterator[dict[str, int]]:
    """Bindings to begin with: the batch small, the others first all different, then one the sum of two,
    then alike, then one alone above 1, then all alike."""
    rest = [name for name, axis in free.items() if axis]
    batch = [name for name, axis in free.items() if not axis]
    distinct = dict(zip(rest, itertools.count(5, 2)))
    yield {**dict.fromkeys(batch, 2), **distinct}
    if 2 < len(rest) < 5:
        for total, a, b in itertools.permutations(rest, 3):
            if a < b:
                yield {**dict.fromkeys(batch, 2), **distinct, total: distinct[a] + distinct[b]}
    for size in _SIZES if rest else (1,):
        for some in _BATCHES:
            yield {**dict.fromkeys(batch, some), **dict.fromkeys(rest, size)}
    for size, name in itertools.product(_SIZES if len(rest) > 1 else (), rest):
        yield {**dict.fromkeys(free, 1), name: size}
    for size in _SIZES:
        yield dict.fromkeys(free, size)


def _units(free: Mapping[str, int]) -> Iterator[tuple[str, ...]]:
    """Sets of dimensions to move together: each alone, two, all of one axis, all but the batch, all."""
    yield from ((name,) for name in free)
    yield from itertools.combinations(free, 2)
    for axis in sorted(set(free.values())):
        yield tuple(name for name in free if free[name] == axis)
    if rest := tuple(name for name in free if free[name]):
        yield rest
    yield tuple(free)


def _elements(interface: Interface, binding: Binding) -> int:
    total = 0
    for spec in interface.required:
        size = 1
        for dim in spec.dims or ():
            size *= size_of(dim, binding)
        total += size
    return total


# --- the user's own --------------------------------------------------------------------------------------------------


def open_feeds(source: str | os.PathLike[str], card: Card | None = None) -> Feeds:
    """The batches named by FEEDS: `FILE.npz`, a folder of them, `FILE.py:FN`, or `card`. Only in a child: runs FN.

    Raises:
        BadInput: no such file, or one that holds no plain arrays.
    """
    text = os.fspath(source)
    if text == "card" and card is not None:
        return card.load_feeds()
    file, _, function = text.rpartition(":")
    if file.endswith(".py"):
        return load_function(Path(file), function)
    path = Path(text)
    files = sorted(path.glob("*.npz")) if path.is_dir() else [path]
    if not files or not all(file.is_file() for file in files):
        raise BadInput(f"no feeds at {text}", fix="FILE.npz, a folder of them, or FILE.py:FUNCTION")
    return lambda seed: map(_read_npz, files)


def _read_npz(path: Path) -> Feed:
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, AttributeError) as error:
        raise BadInput(f"not an .npz of plain arrays: {error}", at=str(path)) from error


def feeds_source(feeds: Any, folder: Path) -> str | None:
    """FEEDS as a child understands it: a text or path as it is, a caller's own batches written to `folder`.

    Args:
        feeds: None, "random", a path, FILE.py:FN, one batch {input: array}, or batches.
    """
    import numpy as np

    if feeds is None or isinstance(feeds, (str, os.PathLike)):
        return None if feeds is None else os.fspath(cast("str", feeds))
    batches = [feeds] if isinstance(feeds, Mapping) else feeds
    for i, batch in enumerate(cast("Iterable[Feed]", batches)):
        arrays: dict[str, Any] = {name: np.asarray(value) for name, value in batch.items()}
        np.savez(folder / f"{i:06d}.npz", **arrays)
    return str(folder)


def binding_of(feed: Feed, interface: Interface) -> dict[str, int]:
    """The sizes of the free dimensions that a feed brings."""
    import numpy as np

    found: dict[str, int] = {}
    for spec in interface.required:
        value: Any = feed.get(spec.name)
        shape = np.shape(value) if spec.container == "tensor" else ()
        found |= {dim: size for dim, size in zip(spec.dims or (), shape) if isinstance(dim, str)}
    return found


def check_dims(interface: Interface, given: Mapping[str, int], at: str) -> None:
    """Raise BadInput for a name that is no free dimension of the model's inputs."""
    free = free_dims(interface)
    for name in given:
        if name not in free:
            near = difflib.get_close_matches(name, free, 1)
            fix = f"did you mean {near[0]!r}?" if near else f"its free dimensions are {', '.join(free) or 'none'}"
            raise BadInput(f"the model has no free dimension {name!r}", at=at, fix=fix)


def check_feed(feed: Feed, interface: Interface) -> Feed:
    """The feed, if its names are the model's.

    Raises:
        BadInput: a name the model lacks, or an input that is not fed.
    """
    known = [spec.name for spec in interface.inputs]
    for name in feed:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            raise BadInput(
                f"the feeds hold {name!r}, which is no input of the model",
                fix=f"did you mean {near[0]!r}?" if near else f"the inputs are {', '.join(known)}",
            )
    missing: Sequence[str] = [s.name for s in interface.required if s.name not in feed and s.container != "optional"]
    if missing:
        raise BadInput(f"the feeds lack the input {missing[0]!r}", fix="name every array after an input")
    return feed
