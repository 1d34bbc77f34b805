"""Seeded data that a model takes and that shows a change: signed, sparse, wide, large, and within its tables.

Positive numbers of one magnitude, which most tools draw, cannot tell Relu from Abs or from nothing. Each regime below
catches what the others miss; a model is run under all of them.
"""

from __future__ import annotations

import ast
import difflib
import itertools
import json
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
EXTREMES = ("huge", "small", "denormal", "constants")
"""huge ±10^U(4,14) · small 10⁻⁴·N(0,1) · denormal: below the smallest normal number · constants: the model's own"""
STRESS = frozenset(("wide", "zeros", "large", "grid", "nonfinite", *EXTREMES))
"""Regimes in which a model may leave its domain, so that NaN or infinity out of the original says nothing."""
TIES = frozenset(("grid", "constants"))
"""Regimes of values that equal each other or a threshold, where an output jumps when its inputs move at all."""

_WORDS = ("", "a", "Graph", "wright", "ONNX", "½", "the quick brown fox", "0")


def regimes(interface: Interface) -> tuple[str, ...]:
    """The regimes that say something about this model: NaN and infinity only for one that asks for them, extreme
    numbers and its own constants only where a floating input takes them."""
    floats = any(spec.dtype.startswith(("float", "bfloat", "complex")) for spec in interface.required)
    extremes = [name for name in EXTREMES if floats and (name != "constants" or interface.numbers)]
    return (*REGIMES, *(["nonfinite"] if interface.guards else []), *extremes)


def draw(
    interface: Interface,
    binding: Binding,
    rng: np.random.Generator,
    regime: str = "normal",
    aimed: Mapping[str, Array] | None = None,
) -> dict[str, Any]:
    """One batch for a model, at one binding of its free dimensions.

    Overridable float initializers are fed too in the wide regime: a pass must not take them for constants.

    Args:
        aimed: indices that an integer input should hold some of.

    Raises:
        BadInput: an input that cannot be drawn (a map, an unknown rank), or a dimension that the binding leaves open.
    """
    feed: dict[str, Any] = {}
    for spec in interface.inputs:
        if spec.has_default:
            if regime == "wide" and spec.default is not None and spec.dtype.startswith("float"):
                feed[spec.name] = (spec.default * rng.uniform(0.5, 1.5, spec.default.shape)).astype(spec.default.dtype)
        elif spec.container != "optional":
            feed[spec.name] = drawn = _draw_input(spec, binding, rng, regime, interface.numbers)
            targets = (aimed or {}).get(spec.name)
            if targets is not None and targets.size and spec.container == "tensor" and drawn.size > 1:
                places = rng.permutation(drawn.size)[: max(1, min(drawn.size // 2, targets.size))]
                drawn.flat[places] = rng.permutation(targets)[: len(places)]
    return feed


def _draw_input(
    spec: InputSpec, binding: Binding, rng: np.random.Generator, regime: str, numbers: Sequence[float]
) -> Any:
    if spec.container == "map" or spec.dims is None or spec.dtype == "undefined":
        raise BadInput(
            f"input {spec.name!r} cannot be drawn: its type is not a tensor of known rank", fix="give --feeds"
        )
    shape = tuple(size_of(dim, binding) for dim in spec.dims)
    if spec.container == "sequence":
        return [_draw_tensor(spec, shape, binding, rng, regime, numbers) for _ in range(2)]
    return _draw_tensor(spec, shape, binding, rng, regime, numbers)


def _draw_tensor(
    spec: InputSpec,
    shape: tuple[int, ...],
    binding: Binding,
    rng: np.random.Generator,
    regime: str,
    numbers: Sequence[float],
) -> Array:
    import ml_dtypes  # registers bfloat16 and the float8 types by name
    import numpy as np

    if spec.dtype == "string":
        return np.array(rng.choice(_WORDS, shape), dtype=object)
    dtype = np.dtype(spec.dtype)
    words = set(re.split(r"[^a-z]+", spec.name.lower()))
    if dtype.kind == "b" or (dtype.kind in "iu" and _is_mask(spec)):
        if regime == "zeros":  # a row that nothing is let through
            return np.zeros(shape, dtype)
        bits = _mask(shape, rng) if _is_mask(spec) else rng.integers(0, 2, shape)
        return np.asarray(bits, dtype)
    if dtype.kind in "iu":
        longest = max((n for n in (*binding.values(), *shape)), default=1)
        is_length = bool(words & {"len", "lens", "length", "lengths", "seqlen", "seqlens"})
        return np.asarray(_draw_integers(spec, shape, binding, rng, regime, longest if is_length else None), dtype)
    if dtype.kind == "c":
        real, imaginary = (_draw_floats(shape, rng, regime, numbers) for _ in range(2))
        return np.asarray(real + 1j * imaginary, dtype)
    info = ml_dtypes.finfo(dtype)
    largest = float(info.max)
    if _is_mask(spec) and regime in ("unit", "wide"):  # added to scores: let through, or not
        return np.asarray((_mask(shape, rng) - 1) * min(1e4, largest), dtype)
    floats = _draw_floats(shape, rng, regime, numbers)
    if regime == "denormal":
        floats = floats * (float(info.smallest_normal) / 16)
    return np.asarray(np.where(np.isfinite(floats), np.clip(floats, -largest, largest), floats), dtype)


def _draw_floats(shape: tuple[int, ...], rng: np.random.Generator, regime: str, numbers: Sequence[float] = ()) -> Array:
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
            kinds = (np.nan, np.inf, -np.inf)[: drawn.size]
            drawn.flat[rng.choice(drawn.size, len(kinds), replace=False)] = kinds
            return drawn
        case "huge":
            return rng.choice((-1.0, 1.0), shape) * 10 ** rng.uniform(4, 14, shape)
        case "small":
            return 1e-4 * rng.standard_normal(shape)
        case "constants":
            return np.where(rng.random(shape) < 0.2, rng.standard_normal(shape), rng.choice(numbers or (0.0,), shape))
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
        if spec.wraps and regime == "grid" and info.min < 0:
            drawn = np.where(rng.integers(0, 2, shape) == 0, drawn - max(bound, 1), drawn)
        elif drawn.size > 1 and regime != "zeros":
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
    reach = {"wide": 1 << 20, "large": 1 << 62, "zeros": 0, "unit": 1}.get(regime, 8)
    if info.bits == 8 and regime != "zeros":
        reach = 1 << 8
    low, high = max(info.min, -reach), min(info.max, reach)
    drawn = np.asarray(rng.integers(low, high, shape, endpoint=True))
    if drawn.size > 1 and (info.bits == 8 or regime == "large"):
        drawn.flat[rng.choice(drawn.size, 2, replace=False)] = low, high  # the ends, where arithmetic wraps
    return drawn


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
_NEAR, _FAR, _MODEST = 3, (64, 96, 128, 48), 1 << 17  # sizes near the first; far off, where they bring so few elements
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

    def working(together: Iterable[str], sizes: Iterable[int]) -> Iterator[int]:
        for n in sizes:
            binding = {**base, **dict.fromkeys(together, n)}
            if (n not in _FAR or _elements(interface, {**given, **binding}) <= _MODEST) and works(binding):
                yield n

    base = next(filter(works, _first_guesses(free)), {})
    if not base:
        return []
    options: dict[tuple[str, ...], list[int]] = {}  # dimensions that may move together → other sizes
    for together in _units(free):
        if any(set(together) & set(done) for done in options):
            continue
        others = _BATCHES if all(free[name] == 0 for name in together) else (1, *_SIZES)
        here = base[together[0]]
        sizes = sorted({*others} - {here}, key=lambda n: (n != 1, abs(math.log(n / here)), n))  # 1, then the nearest
        accepted = list(itertools.islice(working(together, sizes[:8]), min(count - 1, _NEAR)))
        if count - 1 > _NEAR and others is not _BATCHES:
            accepted += itertools.islice(working(together, (n for n in _FAR if n > 4 * here)), 1)
        if accepted:
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


def open_feeds(source: str | os.PathLike[str], card: Card | None = None, names: Sequence[str] = ()) -> Feeds:
    """The batches named by FEEDS; only in a child, for a FILE.py is run.

    Args:
        source: `FILE.npz`, a folder of them or of ONNX's test_data_set folders, `FILE.py:FN`, `FILE.jsonl:FILE.py:FN`
            (FN makes a batch of the object in each line), or `card`.
        names: of the model's inputs, for data sets that do not name their tensors.

    Raises:
        BadInput: no such file, or one that holds no plain arrays.
    """
    text = os.fspath(source)
    if text == "card" and card is not None:
        return card.load_feeds()
    if lines := re.fullmatch(r"(.+\.jsonl):(.+\.py):(\w+)", text):
        return _of_lines(Path(lines[1]), load_function(Path(lines[2]), lines[3]))
    file, _, function = text.rpartition(":")
    if file.endswith(".py"):
        return load_function(Path(file), function)
    path = Path(text)
    if data_sets(path):
        return lambda seed: (feed for feed, _ in read_data_sets(path, names))
    files = sorted(path.glob("*.npz")) if path.is_dir() else [path]
    if not files or not all(file.is_file() for file in files):
        fix = "FILE.npz, a folder of them or of test_data_set_N, FILE.py:FUNCTION, or FILE.jsonl:FILE.py:FUNCTION"
        raise BadInput(f"no feeds at {text}", fix=fix)
    return lambda seed: map(_read_npz, files)


def _of_lines(path: Path, make: Callable[[Any], Feed]) -> Feeds:
    """A batch of each line of a file of JSON, made by the user's function."""
    if not path.is_file():
        raise BadInput(f"no feeds at {path}")

    def feeds(seed: int) -> Iterator[Feed]:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    try:
                        record = json.loads(line)
                    except ValueError as error:
                        raise BadInput(f"not a line of JSON: {error}", at=f"{path}:{number}") from error
                    yield make(record)

    return feeds


def data_sets(path: Path) -> list[Path]:
    """The folders `test_data_set_N` in a folder by N, or the folder itself if it is one (`input_0.pb`, …)."""
    if (path / "input_0.pb").is_file():
        return [path]
    found = [folder for folder in path.glob("test_data_set_*") if folder.is_dir()] if path.is_dir() else []
    return sorted(found, key=lambda folder: [int(n) for n in re.findall(r"\d+", folder.name)])


def read_data_sets(
    path: Path, inputs: Sequence[str] = (), outputs: Sequence[str] = ()
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """ONNX's test data: the inputs of each `test_data_set_N`, and the outputs that are expected of them.

    Args:
        inputs, outputs: the model's names, for tensors that have none of their own.

    Raises:
        BadInput: there is no data set, or a file in one is no tensor.
    """
    folders = data_sets(path)
    if not folders:
        raise BadInput(f"no test_data_set_N at {path}", fix="a folder that `validate --save-feeds` wrote")
    for folder in folders:
        yield _read_tensors(folder, "input", inputs), _read_tensors(folder, "output", outputs)


def _read_tensors(folder: Path, kind: str, names: Sequence[str]) -> dict[str, Any]:
    from google.protobuf.message import DecodeError
    from onnx import TensorProto, numpy_helper

    found: dict[str, Any] = {}
    for i in itertools.count():
        path = folder / f"{kind}_{i}.pb"
        if not path.is_file():
            break
        try:
            tensor = TensorProto.FromString(path.read_bytes())
            if not tensor.data_type or tensor.data_location == TensorProto.EXTERNAL:
                raise ValueError("it holds no tensor with its data")
            value = numpy_helper.to_array(tensor)
        except (OSError, ValueError, TypeError, DecodeError) as error:
            raise BadInput(f"not a serialized tensor: {error}", at=str(path)) from error
        name = tensor.name if tensor.name in names or i >= len(names) else names[i]
        found[name] = value.astype(object) if value.dtype.kind in "OSU" else value
    return found


def write_data_set(folder: Path, feed: Feed, outputs: Mapping[str, Any]) -> None:
    """Write inputs and expected outputs as one of ONNX's `test_data_set_N` folders, tensors named.

    Raises:
        BadInput: a value is not a tensor.
    """
    import numpy as np
    from onnx import numpy_helper

    folder.mkdir(parents=True, exist_ok=True)
    for kind, values in (("input", feed), ("output", outputs)):
        for i, (name, value) in enumerate(values.items()):
            if isinstance(value, (list, dict)) or value is None:
                raise BadInput(f"{kind} {name!r} is not a tensor, and cannot be saved", at=str(folder))
            tensor = numpy_helper.from_array(np.asarray(value), name)
            (folder / f"{kind}_{i}.pb").write_bytes(tensor.SerializeToString())


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
