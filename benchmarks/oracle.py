"""Do two models differ on any legal feed? Searched harder than a validator may, and with other code and other data.

Legal is what the original runs on, and answers with finite numbers unless it guards against others itself. Different is
an error of more than ten times the noise floor of that feed: the original against itself with the runtime's
optimizations on, and with its inputs moved in their last place.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

FACTOR = 10
_EPS = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}
_SIZES = (1, 2, 3, 4, 5, 6, 7, 8, 11, 13, 16, 17, 31, 33, 48, 64, 65, 96)
_SEED = 977_000  # far from a validator's 0, 1, 2

PLAIN = ("normal", "unit", "uniform", "tenth")
SPECIAL = (
    *("zeros", "ones", "minus", "large", "larger", "huge", "wide", "small", "tiny", "denormal", "halves", "integers"),
    *("constants", "equal", "sparse", "one hot", "mixed", "ramp", "nonfinite"),
)


@dataclass(frozen=True, slots=True)
class Found:
    """Where two models differ; `group` is plain, size or special, by what the feed must have for them to."""

    group: str
    regime: str
    binding: dict[str, int]
    error: float
    floor: float
    feed: dict[str, Any] = field(repr=False)


@dataclass(slots=True)
class _Case:
    group: str
    regime: str
    binding: dict[str, int]
    feed: dict[str, Any]
    answers: list[Any]
    floors: list[float]


def open_session(model: str | Path, *, optimize: bool = False) -> Any:
    options = onnxruntime.SessionOptions()
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimize else levels.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


class Oracle:
    """One original, the legal feeds that were found for it, and what it answers to them.

    Args:
        feeds: a card's own batches, legal at once; their sizes are those that the model is known to run at.
        base: the binding that a rewrite may have been made at; others: more that the model is known to run at.
        seconds: how long feeds are collected.
    """

    def __init__(
        self,
        path: Path,
        *,
        base: dict[str, int],
        feeds: list[dict[str, Any]] | None = None,
        others: list[dict[str, int]] | None = None,
        seconds: float = 20,
    ) -> None:
        self.path, self.base, self.others = path, base, others or []
        self.model = onnx.load(path, load_external_data=False)
        self.plain, self.fused = open_session(path), open_session(path, optimize=True)
        defaults = {tensor.name for tensor in self.model.graph.initializer}
        self.inputs = [value for value in self.model.graph.input if value.name not in defaults]
        self.guards = any(
            node.op_type in ("IsNaN", "IsInf") or (node.op_type == "Equal" and node.input[0] == node.input[1])
            for node in _nodes(self.model.graph)
        )
        self.numbers = _numbers(self.model.graph)
        self.integers: dict[str, list[tuple[int, int]]] = {}
        self.cases: list[_Case] = []
        deadline = time.monotonic() + seconds
        self.overridden = {
            tensor.name: onnx.numpy_helper.to_array(tensor)
            for tensor in self.model.graph.initializer
            if self.model.ir_version >= 4 and tensor.name in {value.name for value in self.model.graph.input}
        }
        for feed in feeds or []:
            self._add("plain", "given", {}, feed)
        self._collect(deadline)

    def difference(self, other: Path, *, seconds: float = 30) -> Found | None:
        """The first feed on which `other` differs, plain ones first; one that it refuses counts. None: not found."""
        session, deadline = open_session(other), time.monotonic() + seconds
        for case in self.cases:
            try:
                answers = session.run(None, case.feed)
            except Exception:
                return Found(case.group, case.regime, case.binding, np.inf, 0, case.feed)
            for expected, got, floor in zip(case.answers, answers, case.floors, strict=True):
                error = distance(expected, got, nonfinite=case.regime == "nonfinite")
                if error > FACTOR * floor:
                    return Found(case.group, case.regime, case.binding, error, floor, case.feed)
            if time.monotonic() > deadline:
                break
        return None

    # --- feeds ---

    def _collect(self, deadline: float) -> None:
        named = (d for v in self.inputs for d in _dims(v) if isinstance(d, str))
        dims = list(dict.fromkeys(d for d in named if not set(d) & set("+-*/ ")))
        base = {d: self.base.get(d, 2) for d in dims}
        for regime, seed in itertools.product(PLAIN, range(2)):
            self._try("plain", regime, base, seed)
        bindings = [*self.others, *self._bindings(dims, base, deadline)]
        for binding, regime in itertools.product(bindings, PLAIN[:2]):
            self._try("size", regime, binding, 3)
        special = [regime for regime in SPECIAL if regime != "nonfinite" or self.guards]
        for seed, regime, binding in itertools.product(range(3), special, [base, *bindings[:1]]):
            if time.monotonic() > deadline and seed:
                break
            self._try("special", regime, binding, seed)
        for name, default in self.overridden.items():  # a default is no constant
            if default.dtype.kind == "f" and (case := next(iter(self.cases), None)) is not None:
                self._add("plain", "default", case.binding, {**case.feed, name: (default * 1.5).astype(default.dtype)})

    def _bindings(self, dims: list[str], base: dict[str, int], deadline: float) -> Iterator[dict[str, int]]:
        """Other sizes at which the original runs: of one dimension, of two together, of all at random."""
        rng = np.random.default_rng(_SEED)
        units = [(d,) for d in dims] + list(itertools.combinations(dims, 2)) + ([tuple(dims)] if len(dims) > 2 else [])
        tried: list[dict[str, int]] = [base]
        count = 0
        for size in (1, 3, 8, 17, 2, 33, 64, 7, 4, 16, 50, 96, 32):
            for unit in units:
                binding = {**base, **dict.fromkeys(unit, size)}
                if binding in tried or count >= 24 or time.monotonic() > deadline:
                    continue
                tried.append(binding)
                if self._runs(binding):
                    count += 1
                    yield binding
        for _ in range(20 if dims else 0):
            binding = {d: int(rng.choice(_SIZES)) for d in dims}
            if count < 30 and binding not in tried and time.monotonic() < deadline and self._runs(binding):
                tried.append(binding)
                count += 1
                yield binding

    def _runs(self, binding: dict[str, int]) -> bool:
        elements = sum(int(np.prod([_size(d, binding) for d in _dims(v)])) for v in self.inputs)
        return elements < 1 << 22 and self._run(self._draw("unit", binding, np.random.default_rng(_SEED))) is not None

    def _try(self, group: str, regime: str, binding: dict[str, int], seed: int) -> None:
        for attempt in range(4):  # an integer may have been illegal
            rng = np.random.default_rng([_SEED, seed, attempt, (PLAIN + SPECIAL).index(regime)])
            if self._add(group, regime, binding, self._draw(regime, binding, rng)):
                return

    def _add(self, group: str, regime: str, binding: dict[str, int], feed: dict[str, Any]) -> bool:
        answers = self._run(feed)
        if answers is None or (regime != "nonfinite" and not all(map(_finite_somewhere, answers))):
            return False
        floors = [_EPS.get(str(getattr(a, "dtype", "")), 0.0) for a in answers]
        rng = np.random.default_rng(_SEED)
        others = [self._run({k: _nudge(v, rng) for k, v in feed.items()}) for _ in range(3)]
        try:
            fused = self.fused.run(None, feed)
        except Exception:
            fused = None
        for answer in (*others, fused):
            for i, (a, b) in enumerate(zip(answers, answer or (), strict=False)):
                error = distance(a, b)
                discrete = np.asarray(a).dtype.kind not in "fV" and answer is not fused  # a tie that moved is no tie
                if np.isfinite(error) and not discrete and (answer is not fused or error < 1e-2):
                    floors[i] = max(floors[i], error)
        self.cases.append(_Case(group, regime, binding, feed, answers, floors))
        return True

    def _run(self, feed: dict[str, Any]) -> list[Any] | None:
        try:
            return self.plain.run(None, feed)
        except Exception:
            return None

    def _draw(self, regime: str, binding: dict[str, int], rng: np.random.Generator) -> dict[str, Any]:
        feed: dict[str, Any] = {}
        for value in self.inputs:
            shape = tuple(_size(d, binding) for d in _dims(value))
            element = value.type.tensor_type.elem_type
            if element == onnx.TensorProto.STRING:
                feed[value.name] = np.array(rng.choice(["", "a", "Bc", "The Cat"], shape), object)
                continue
            dtype = onnx.helper.tensor_dtype_to_np_dtype(element)
            if dtype.kind == "b":
                feed[value.name] = rng.integers(0, 2, shape).astype(dtype)
            elif dtype.kind in "iu":
                feed[value.name] = self._integers(value.name, shape, dtype, regime, binding, rng)
            else:
                with np.errstate(all="ignore"):
                    drawn = np.asarray(self._floats(regime, shape, rng))
                    if "mask" in value.name.lower() and rng.random() < 0.5:  # an additive mask
                        drawn = np.where(rng.random(shape) < 0.3, -1e4, 0.0)
                    info = np.finfo(np.float32 if dtype == np.float32 else dtype) if dtype.kind == "f" else None
                    if info is not None and regime != "nonfinite":
                        drawn = np.clip(drawn, float(info.min), float(info.max))
                    feed[value.name] = drawn.astype(dtype)
        return feed

    def _floats(self, regime: str, shape: tuple[int, ...], rng: np.random.Generator) -> Any:
        normal, sign = rng.standard_normal(shape), rng.choice([-1.0, 1.0], shape)
        match regime:
            case "unit":
                return rng.random(shape)
            case "uniform":
                return rng.uniform(-2, 2, shape)
            case "tenth":
                return normal / 10
            case "zeros":
                return np.zeros(shape)
            case "ones" | "minus":
                return np.full(shape, 1.0 if regime == "ones" else -1.0)
            case "large":
                return 100 * normal
            case "larger":
                return 3e3 * normal
            case "huge":
                return sign * 10 ** rng.uniform(4, 30, shape)
            case "wide":
                return np.where(rng.random(shape) < 0.2, 0, sign * 10 ** rng.uniform(-6, 4, shape))
            case "small":
                return 1e-4 * normal
            case "tiny":
                return sign * 10 ** rng.uniform(-30, -6, (*shape[:1], *(1 for _ in shape[1:])))
            case "denormal":
                return 1e-39 * normal
            case "halves":
                return rng.integers(-12, 13, shape) / 2
            case "integers":
                return rng.integers(-4, 5, shape).astype(float)
            case "constants":
                return rng.choice(self.numbers or [0.0], shape)
            case "equal":
                return np.full(shape, rng.standard_normal())
            case "sparse":
                return np.where(rng.random(shape) < 0.8, 0, normal)
            case "one hot":
                drawn = np.zeros(shape)
                if drawn.size:
                    drawn.flat[rng.integers(drawn.size)] = rng.choice([1.0, -1.0, 1e3])
                return drawn
            case "mixed":
                pool = [0, 1, -1, 0.5, 1e-5, -1e-5, 30, -30, 80, -90, 1e3, *self.numbers]
                return np.where(rng.random(shape) < 0.5, normal, rng.choice(pool, shape))
            case "ramp":
                return np.linspace(-8, 8, max(normal.size, 1))[: normal.size].reshape(shape)
            case "nonfinite":
                return np.where(rng.random(shape) < 0.4, rng.choice([np.nan, np.inf, -np.inf], shape), normal)
            case _:
                return normal

    def _integers(
        self,
        name: str,
        shape: tuple[int, ...],
        dtype: Any,
        regime: str,
        binding: dict[str, int],
        rng: np.random.Generator,
    ) -> Any:
        """Integers of the widest ranges that the original took for this input; what they are for is not asked."""
        info = np.iinfo(dtype)
        if name not in self.integers:
            self.integers[name] = [(0, 1), (0, 2)]  # while the ranges of the others are being tried
            found: list[tuple[int, int]] = []
            for low, high in (
                *((0, n) for n in (1 << 40, 1 << 31, 1 << 16, 60_000, 30_522, 10_000, 2000, 1000, 500, 300, 200, 100)),
                *((0, n) for n in (50, 30, 20, 10, 5, 3, 2)), (-5, 0), (-100, 100), (1, 9),
                (int(info.min), int(info.max)),
            ):  # fmt: skip
                low, high = max(low, int(info.min)), min(high, int(info.max))
                probe = self._draw("unit", binding, np.random.default_rng(1))
                good = True
                for seed in range(3):
                    trial = np.random.default_rng(seed).integers(low, max(high, low + 1), shape).astype(dtype)
                    if trial.size:
                        trial.flat[0] = high - 1 if high > low else low
                    good &= self._run({**probe, name: trial}) is not None
                if good:
                    found.append((low, high))
            numbers = [int(n) for n in self.numbers if float(n).is_integer() and info.min <= n <= info.max]
            for number in numbers[:20]:
                probe = self._draw("unit", binding, np.random.default_rng(1))
                if self._run({**probe, name: np.full(shape, number, dtype)}) is not None:
                    found.append((number, number + 1))
            self.integers[name] = found or [(0, 1)]
        ranges = self.integers[name]
        if regime == "zeros":
            low, high = (0, 1) if any(a <= 0 < b for a, b in ranges) else ranges[0]
        elif regime in PLAIN:
            low, high = ranges[0] if regime == "normal" else ranges[int(rng.integers(len(ranges)))]
        else:
            low, high = ranges[int(rng.integers(len(ranges)))]
        if "mask" in name.lower() and regime != "mixed":
            if shape and regime not in ("zeros", "sparse"):
                lengths = rng.integers(1, max(shape[-1], 1) + 1, (*shape[:-1], 1))
                return (np.arange(shape[-1]) < lengths).astype(dtype)
            return rng.integers(0, 1 if regime == "zeros" else 2, shape).astype(dtype)
        if high - low > 1 << 32 and regime not in PLAIN[1:]:
            return rng.integers(low, high, shape, dtype=np.int64 if low < 0 else np.uint64).astype(dtype)
        return rng.integers(low, max(high, low + 1), shape, dtype=np.uint64 if high > 1 << 63 else np.int64).astype(
            dtype
        )


def reference_differs(a: onnx.ModelProto, b: onnx.ModelProto, found: Found) -> bool | None:
    """Whether onnx.reference sees the difference too; None where it cannot run one of them."""
    from onnx.reference import ReferenceEvaluator

    try:
        with np.errstate(all="ignore"):
            expected = ReferenceEvaluator(a).run(None, found.feed)
    except Exception:
        return None
    try:
        with np.errstate(all="ignore"):
            answers = ReferenceEvaluator(b).run(None, found.feed)
    except Exception:
        return True
    nonfinite = found.regime == "nonfinite"
    return any(
        distance(x, y, nonfinite=nonfinite) > 0.3 * min(found.error, 1.0)
        for x, y in zip(expected, answers, strict=True)
    )


def distance(a: Any, b: Any, *, nonfinite: bool = False) -> float:
    """max |a − b| / max |a| where `a` is finite; inf for another shape or type, or what is no longer finite."""
    if isinstance(a, list):
        if not isinstance(b, list) or len(a) != len(b):
            return np.inf
        return max((distance(x, y, nonfinite=nonfinite) for x, y in zip(a, b, strict=True)), default=0.0)
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape or a.dtype != b.dtype:
        return np.inf
    if a.dtype.kind not in "fV":
        return float(np.any(a != b)) if a.size else 0.0
    with np.errstate(all="ignore"):
        x, y = a.astype(np.float64), b.astype(np.float64)
        finite = np.isfinite(x)
        if nonfinite and not np.array_equal(np.where(finite, 0, x), np.where(np.isfinite(y), 0, y), equal_nan=True):
            return np.inf
        if not np.isfinite(y[finite]).all():
            return np.inf
        scale = np.abs(x[finite]).max(initial=0) or 1.0
        return float(np.abs(x[finite] - y[finite]).max(initial=0) / scale)


def _finite_somewhere(answer: Any) -> bool:
    array = np.asarray(answer) if not isinstance(answer, list) else np.zeros(1)
    return array.dtype.kind != "f" or not array.size or bool(np.isfinite(array).all())


def _nudge(value: Any, rng: np.random.Generator) -> Any:
    if value.dtype.kind != "f":
        return value
    with np.errstate(all="ignore"):
        moved = np.nextafter(value, rng.choice([-np.inf, np.inf], value.shape).astype(value.dtype))
        return np.where(rng.integers(0, 3, value.shape) == 0, value, moved)


def _dims(value: onnx.ValueInfoProto) -> list[int | str]:
    dims = value.type.tensor_type.shape.dim
    return [
        d.dim_value
        if d.HasField("dim_value") and d.dim_value >= 0
        else (d.dim_param if d.dim_param not in ("", "?") else f"{value.name}[{i}]")
        for i, d in enumerate(dims)
    ]


def _size(dim: int | str, binding: dict[str, int]) -> int:
    if isinstance(dim, int) or dim in binding:
        return dim if isinstance(dim, int) else binding[dim]
    return int(eval(dim, {"__builtins__": {}}, dict(binding)))  # "past + now": a card's own model


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for body in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield from _nodes(body)


def _numbers(graph: onnx.GraphProto) -> list[float]:
    """The model's own small constants, and their neighbours: where comparisons part."""
    tensors = list(graph.initializer)
    for node in _nodes(graph):
        for attribute in node.attribute:
            if attribute.HasField("t"):
                tensors.append(attribute.t)
            for body in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                tensors += body.initializer
    found: set[float] = set()
    for tensor in tensors:
        if np.prod(tensor.dims) <= 4 and tensor.data_location != tensor.EXTERNAL:
            array = onnx.numpy_helper.to_array(tensor)
            if array.dtype.kind in "iuf":
                found.update(float(n) for n in array.ravel() if np.isfinite(n))
    return sorted(found)[:200]
