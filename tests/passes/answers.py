"""What a model answers, and whether two answers are equal: our own feeds and comparison, apart from the judges'.

A model runs in ONNX Runtime with optimizations off, which is op by op, or on; where it has no kernel for the original,
in onnx.reference.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, ValueInfoProto, helper
from onnx.reference import ReferenceEvaluator

Array = NDArray[Any]
Feeds = dict[str, Array]
OFF = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
ON = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
REGIMES = ("signed", "zeros", "large", "special", "positive")
SIZES = (3, 1, 0, 2)  # of the first dimension name; the next ones take the primes after them
_PRIMES = (3, 5, 7, 11, 13, 2, 17, 19)


EXOTIC = re.compile(r"bfloat16|float8|float4|int4|int2|complex")


class CannotRun(Exception):
    """Nothing here runs this model."""


# ── feeds ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def required(model: ModelProto) -> list[ValueInfoProto]:
    """The inputs that a caller must give."""
    given = {t.name for t in model.graph.initializer}
    return [i for i in model.graph.input if i.name not in given]


def bindings(model: ModelProto) -> Iterator[dict[str, int]]:
    """Sizes for the dimension names: different odd ones, then all 1, all 0, all 2."""
    names = dict.fromkeys(
        d.dim_param for i in model.graph.input for d in i.type.tensor_type.shape.dim if not d.HasField("dim_value")
    )
    yield {n: _PRIMES[k % len(_PRIMES)] for k, n in enumerate(names)}
    if names:
        for size in SIZES[1:]:
            yield dict.fromkeys(names, size)


def feeds(model: ModelProto, sizes: dict[str, int], regime: str, seed: int) -> Feeds:
    """Random inputs of one regime of values."""
    random = np.random.default_rng(seed)
    out: Feeds = {}
    for i in required(model):
        t = i.type.tensor_type
        if not i.type.HasField("tensor_type"):
            raise CannotRun(f"input {i.name!r} is no tensor")
        shape = [d.dim_value if d.HasField("dim_value") else sizes[d.dim_param] for d in t.shape.dim]
        out[i.name] = draw(helper.tensor_dtype_to_np_dtype(t.elem_type), shape, regime, random)
    return out


def draw(dtype: np.dtype[Any], shape: list[int] | tuple[int, ...], regime: str, random: np.random.Generator) -> Array:
    """Values of one regime; integers stay small, so that as indices and divisors they mean something."""
    return np.asarray(_draw(dtype, shape, regime, random))


def _draw(dtype: np.dtype[Any], shape: list[int] | tuple[int, ...], regime: str, random: np.random.Generator) -> Any:
    kind = dtype.kind
    if kind in "OUS":
        return random.choice(np.asarray(["", "a", "bc"], object), shape)
    if kind == "b":
        return random.random(shape) < (0.0 if regime == "zeros" else 0.5)
    if regime == "zeros":
        return np.zeros(shape, dtype)
    if "int" in dtype.name:
        low, high = (-120, 120) if regime == "large" else (-3, 4)
        if regime == "positive" or dtype.name.startswith("u"):
            low = 0
        return np.asarray(random.integers(low, high, shape)).astype(dtype)
    x = np.asarray(random.standard_normal(shape))
    if regime == "positive":
        x = np.abs(x) + 0.1
    elif regime == "large":
        x = x * float(np.sqrt(float(ml_dtypes.finfo(dtype).max))) * 4
    elif regime == "special":
        x = np.where(
            random.random(shape) < 0.5, random.choice([np.nan, np.inf, -np.inf, -0.0, 0.0, 1.0, 1e-40], shape), x
        )
    return x.astype(dtype)


# ── running ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def session(model: ModelProto, level: Any = OFF) -> onnxruntime.InferenceSession:
    o = onnxruntime.SessionOptions()
    o.graph_optimization_level = level
    o.log_severity_level = 4
    o.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), o, providers=["CPUExecutionProvider"])


class Runner:
    """A model ready to run; with `may_refer` by onnx.reference where the runtime has no kernel, or hands out no array.

    Raises:
        CannotRun: nothing here loads it.
    """

    def __init__(self, model: ModelProto, level: Any = OFF, *, may_refer: bool = False) -> None:
        self._reference: ReferenceEvaluator | None = None
        try:
            self._session = session(model, level)
            ports = (*self._session.get_inputs(), *self._session.get_outputs())
            exotic = next((p.type for p in ports if EXOTIC.search(p.type)), "")
            if exotic and may_refer:
                raise CannotRun(f"{exotic} is no numpy array")
            self._plain = not exotic
        except Exception as e:  # the runtime's own error types share no base
            if not may_refer or not ("NOT_IMPLEMENTED" in str(e) or isinstance(e, CannotRun)):
                raise CannotRun(str(e).strip().splitlines()[0][:200]) from e
            self._reference = ReferenceEvaluator(model)

    @property
    def by_reference(self) -> bool:
        return self._reference is not None

    def __call__(self, given: Feeds) -> list[Any]:
        try:
            if self._reference is not None:
                with np.errstate(all="ignore"):
                    return list(self._reference.run(None, given))
            return self._run(given)
        except Exception as e:
            raise CannotRun(str(e).strip().splitlines()[0][:200]) from e

    def _run(self, given: Feeds) -> list[Any]:
        s = self._session
        if self._plain:
            return s.run(None, given)
        values = {k: _ort_value(x) for k, x in given.items()}
        made = s.run_with_ort_values([o.name for o in s.get_outputs()], values)
        return [_array(v) for v in made]


# what the runtime takes and gives as plain numpy arrays
_NATIVE = {np.dtype(t) for t in (bool, "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", object)}


def _ort_value(x: Array) -> Any:
    if x.dtype in _NATIVE:
        return onnxruntime.OrtValue.ortvalue_from_numpy(x)
    if "float" not in x.dtype.name:
        raise CannotRun(f"the runtime takes no array of {x.dtype.name}")
    return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(x, helper.np_dtype_to_tensor_dtype(x.dtype))


def _array(v: Any) -> Any:
    if not v.is_tensor():
        return v.numpy()
    kind = v.element_type()
    if helper.tensor_dtype_to_np_dtype(kind) in _NATIVE:
        return v.numpy()
    raise CannotRun(f"the runtime hands out no array of type {TensorProto.DataType.Name(kind)}")


# ── comparing ─────────────────────────────────────────────────────────────────────────────────────────────────────────

_EPS = {np.dtype(np.float64): 2.0**-52, np.dtype(np.float32): 2.0**-23, np.dtype(np.float16): 2.0**-10}


def differ(a: Any, b: Any, ulps: float = 0.0, *, finite_only: bool = False) -> str:
    """How b is not a, or nothing; NaN equals NaN and −0 equals 0.

    Args:
        ulps: how far floats may be apart, in last places of the largest value.
        finite_only: where a is NaN or infinite, b may be anything.
    """
    if isinstance(a, (list, dict)) or a is None:
        if type(a) is not type(b) or (a is not None and len(a) != len(b)):
            return f"{_kind(b)} instead of {_kind(a)}"
        pairs = [] if a is None else zip(a, b) if isinstance(a, list) else [(a[k], b.get(k)) for k in a]
        return next((why for x, y in pairs if (why := differ(x, y, ulps, finite_only=finite_only))), "")
    a, b = np.asarray(a), np.asarray(b)
    if a.dtype != b.dtype or a.shape != b.shape:
        return f"{b.dtype}{list(b.shape)} instead of {a.dtype}{list(a.shape)}"
    if "float" not in a.dtype.name:
        return "" if np.array_equal(a, b) else f"{b.ravel()[:8]} instead of {a.ravel()[:8]}"
    with np.errstate(invalid="ignore"):  # a signalling NaN of bfloat16
        x, y = a.astype(np.float64), b.astype(np.float64)
    eps = _EPS.get(a.dtype) or float(ml_dtypes.finfo(a.dtype).eps)
    finite = np.isfinite(x)
    scale = float(np.abs(x[finite]).max(initial=0.0))
    with np.errstate(all="ignore"):
        same = (x == y) | (np.isnan(x) & np.isnan(y)) | (np.abs(x - y) <= ulps * eps * scale)
    if finite_only:
        same |= ~finite
    if same.all():
        return ""
    at = tuple(int(i) for i in np.unravel_index(int(np.argmin(same)), same.shape))
    return f"{y[at]!r} instead of {x[at]!r} at {list(at)} of {list(a.shape)}"


def _kind(x: Any) -> str:
    return f"a {type(x).__name__}" + (f" of {len(x)}" if isinstance(x, (list, dict)) else "")


def differ_all(want: list[Any], got: list[Any], ulps: float = 0.0, *, finite_only: bool = False) -> str:
    if len(want) != len(got):
        return f"{len(got)} outputs instead of {len(want)}"
    each = (differ(a, b, ulps, finite_only=finite_only) for a, b in zip(want, got))
    return next((f"output {i}: {why}" for i, why in enumerate(each) if why), "")


# ── the interface ─────────────────────────────────────────────────────────────────────────────────────────────────────


def interface(model: ModelProto) -> list[list[bytes]]:
    """Inputs that must be given, those that may be overridden (IR ≥ 4), and outputs, as the file spells them."""
    must = {i.name for i in required(model)}
    may = [i for i in model.graph.input if i.name not in must and model.ir_version >= 4]
    sides = ([i for i in model.graph.input if i.name in must], may, list(model.graph.output))
    return [[i.SerializeToString(deterministic=True) for i in side] for side in sides]


def exposing(model: ModelProto, name: str, dtype: int) -> ModelProto:
    """The model with one value of its main graph as its only output; as float where numpy has no such type."""
    m = ModelProto()
    m.CopyFrom(model)
    del m.graph.output[:]
    if dtype and helper.tensor_dtype_to_np_dtype(dtype) not in _NATIVE:
        m.graph.node.add(op_type="Cast", input=[name], output=["exposed"]).attribute.append(
            helper.make_attribute("to", TensorProto.FLOAT)
        )
        name = "exposed"
    m.graph.output.add(name=name)
    return m
