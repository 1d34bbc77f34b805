"""What constant folding computes: numpy for the common ops, onnx.reference for the rest; never the runtime.

Floating-point arithmetic is done in float64 and rounded once to the op's own dtype, so that a folded constant is the
correctly rounded result of the equation. Sources: the ONNX operators' definitions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import onnx

from optimizer.core import form
from optimizer.core.form import attribute
from optimizer.core.graph import Node, Value, attribute_proto
from optimizer.core.tensor import PLAIN, Array, Tensor, numpy_dtype

Arrays = list[Array | None]
Kernel = Callable[[Node, Arrays], Array | list[Array] | None]
_KERNELS: dict[str, Kernel] = {}


class _Undefined(Exception):
    """The specification leaves the result to the runtime, so nothing here computes it."""


# what numpy casts into each other as ONNX does; float8 saturates, and bfloat16 is no integer's neighbour
_FLOATS = frozenset(map(np.dtype, (np.float16, ml_dtypes.bfloat16, np.float32, np.float64)))
_NAN = frozenset(d for d in PLAIN.values() if "float" in d.name)
_NUMPY = frozenset(map(np.dtype, ("?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")))

# ops of which onnx.reference departs from the specification or from every runtime: left as they are
DISTRUSTED = frozenset(
    ["BatchNormalization", "DFT", "Resize", "Upsample", "CastLike", "ImageDecoder", "Multinomial", "TfIdfVectorizer"]
)

# what onnx.reference computes number by number in Python: seconds, where a constant image goes through one
SLOW = frozenset(
    ["AveragePool", "Col2Im", "ConvTranspose", "DeformConv", "GridSample", "LpPool", "MaxPool", "MaxUnpool", "RoiAlign"]
)
LARGE = 1 << 20  # elements: beyond, its indexing ops take seconds as well


def evaluate(node: Node, array: Callable[[Value], Array | None]) -> list[Array] | None:
    """The outputs of `node` where its inputs have these arrays; None where nothing here is trusted to compute them.

    A runtime's answer would differ by CPU; numpy's and the reference's do not.
    """
    kernel = _KERNELS.get(node.op)
    with np.errstate(all="ignore"):
        if kernel is not None:
            operands = [None if v is None else v.const if v.graph is None else array(v) for v in form.operands(node)]
            if all(x is None or x.dtype.kind in "fiubV" for x in operands):
                try:
                    out = kernel(node, operands)
                except _Undefined:
                    return None
                except (ValueError, IndexError, TypeError, KeyError):
                    out = None
                if out is not None:
                    return [_one_nan(x) for x in out] if isinstance(out, list) else [_one_nan(out)]
        return _by_reference(node, array)


def _one_nan(x: Array) -> Array:
    """x with one spelling of NaN: the sign that the CPU gives 0/0 would make the file depend on it."""
    if x.dtype not in _NAN or not (nan := np.isnan(x)).any():
        return x
    return np.where(nan, np.asarray(np.nan, x.dtype), x)


def _by_reference(node: Node, array: Callable[[Value], Array | None]) -> list[Array] | None:
    """One onnx.reference run of the node as it is spelled (about .4 ms)."""
    arrays = [None if v is None else array(v) for v in node.inputs]
    large = sum(x.size for x in arrays if x is not None) > LARGE
    if large or node.op in DISTRUSTED or node.op in SLOW or node.graph is None:
        return None
    from onnx.reference import ReferenceEvaluator  # a tenth of a second, which most models never need

    p = onnx.NodeProto(op_type=node.op, domain=node.domain)
    feeds: dict[str, Any] = {}
    for i, x in enumerate(arrays):
        p.input.append(f"i{i}" if x is not None else "")
        if x is not None:
            feeds[f"i{i}"] = x
    p.output.extend(f"o{i}" for i, _ in enumerate(node.outputs))
    p.attribute.extend(attribute_proto(k, a) for k, a in node.attributes.items())
    inputs = [onnx.helper.make_value_info(k, onnx.TypeProto()) for k in feeds]
    outputs = [onnx.helper.make_value_info(o, onnx.TypeProto()) for o in p.output]
    model = onnx.helper.make_model(
        onnx.helper.make_graph([p], "fold", inputs, outputs),
        opset_imports=[onnx.helper.make_opsetid("", node.graph.opset)],
    )
    try:
        out = ReferenceEvaluator(model).run(None, feeds)
    except Exception:  # the reference implementation raises whatever numpy raises; an op it cannot run is not folded
        return None
    return [_one_nan(np.asarray(x)) for x in out] if all(isinstance(x, (np.ndarray, np.generic)) for x in out) else None


def _kernel(*ops: str) -> Callable[[Kernel], Kernel]:
    def keep(f: Kernel) -> Kernel:
        for op in ops:
            _KERNELS[op] = f
        return f

    return keep


def _wide(x: Array) -> Array:
    """Floats as float64: the equation is computed once, then rounded once."""
    return x.astype(np.float64) if x.dtype.kind in "fV" else x


def _elementwise(f: Callable[..., Array]) -> Kernel:
    def g(n: Node, xs: Arrays) -> Array:
        given = [x for x in xs if x is not None]
        dtype = given[0].dtype
        out = f(*map(_wide, given))
        return np.asarray(out).astype(dtype) if dtype.kind in "fV" else np.asarray(out, dtype)

    return g


def _truncated(a: Array, b: Array) -> Array:
    if a.dtype.kind == "f":
        return a / b
    if not b.all():
        raise _Undefined
    q = np.floor_divide(a, b)
    return q + ((q < 0) & (q * b != a)).astype(a.dtype)  # towards zero


def _power(n: Node, xs: Arrays) -> Array | None:
    a, b = xs[0], xs[1]
    assert a is not None and b is not None
    if a.dtype.kind in "iu" and (b.dtype.kind not in "iu" or (b < 0).any()):
        raise _Undefined
    return np.power(_wide(a), _wide(b)).astype(a.dtype)


_KERNELS["Pow"] = _power
for _op, _f in {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": _truncated,
    "Neg": np.negative,
    "Abs": np.abs,
    "Sqrt": np.sqrt,
    "Reciprocal": lambda x: 1.0 / x,
    "Exp": np.exp,
    "Log": np.log,
    "Floor": np.floor,
    "Ceil": np.ceil,
    "Sin": np.sin,
    "Cos": np.cos,
    "Tanh": np.tanh,
    "Sigmoid": lambda x: 1.0 / (1.0 + np.exp(-x)),
    "Relu": lambda x: np.maximum(x, 0),
    "Max": lambda *xs: _many(np.maximum, xs),
    "Min": lambda *xs: _many(np.minimum, xs),
    "Sum": lambda *xs: _many(np.add, xs),
}.items():
    _KERNELS[_op] = _elementwise(_f)


def _many(f: Callable[[Array, Array], Array], xs: tuple[Array, ...]) -> Array:
    out = xs[0]
    for x in xs[1:]:
        out = f(out, x)
    return out


_PREDICATES: dict[str, Any] = {
    "Equal": np.equal,
    "Greater": np.greater,
    "Less": np.less,
    "GreaterOrEqual": np.greater_equal,
    "LessOrEqual": np.less_equal,
    "And": np.logical_and,
    "Or": np.logical_or,
    "Xor": np.logical_xor,
    "Not": np.logical_not,
    "IsNaN": np.isnan,
}


@_kernel(*_PREDICATES)
def _predicate(n: Node, xs: Arrays) -> Array:
    return np.asarray(_PREDICATES[n.op](*xs))


@_kernel("Identity")
def _identity(n: Node, xs: Arrays) -> Array | None:
    return xs[0]


@_kernel("Cast")
def _cast(n: Node, xs: Arrays) -> Array | None:
    x, to = xs[0], numpy_dtype(n.attributes["to"])
    assert x is not None
    if "float" in x.dtype.name and "int" in to.name and not _fits(np.trunc(x.astype(np.float64)), to):
        raise _Undefined
    if {x.dtype, to} <= _NUMPY or {x.dtype, to} <= _FLOATS:
        return x.astype(to)
    return None


def _fits(x: Array, to: np.dtype[Any]) -> bool:
    """Whether an integer type holds these whole numbers; NaN it does not."""
    limits = ml_dtypes.iinfo(to)
    return bool(((x >= float(limits.min)) & (x < float(limits.max) + 1)).all())


@_kernel("Where")
def _where(n: Node, xs: Arrays) -> Array:
    return np.where(*xs)  # type: ignore[arg-type]


@_kernel("Shape")
def _shape(n: Node, xs: Arrays) -> Array | None:
    assert xs[0] is not None
    return np.asarray(xs[0].shape[slice(n.attributes.get("start", 0), n.attributes.get("end"))], np.int64)


@_kernel("Reshape", "Squeeze", "Unsqueeze", "Flatten")
def _reshape(n: Node, xs: Arrays) -> Array | None:
    x, d = xs[0], n.outputs[0].dims
    if x is None or d is None or not all(isinstance(i, int) for i in d):
        return None
    return x.reshape(d)  # type: ignore[arg-type]


@_kernel("Transpose")
def _transpose(n: Node, xs: Arrays) -> Array:
    assert xs[0] is not None
    return np.ascontiguousarray(np.transpose(xs[0], n.attributes.get("perm")))


@_kernel("Concat")
def _concat(n: Node, xs: Arrays) -> Array:
    return np.concatenate(xs, attribute(n, "axis"))  # type: ignore[arg-type]


@_kernel("Gather")
def _gather(n: Node, xs: Arrays) -> Array:
    assert xs[0] is not None and xs[1] is not None
    return np.asarray(np.take(xs[0], xs[1], n.attributes.get("axis", 0)))


@_kernel("Slice")
def _slice(n: Node, xs: Arrays) -> Array | None:
    x, starts, ends = xs[0], xs[1], xs[2]
    if x is None or starts is None or ends is None:
        return None
    axes = xs[3].tolist() if len(xs) > 3 and xs[3] is not None else list(range(starts.size))
    steps = xs[4].tolist() if len(xs) > 4 and xs[4] is not None else [1] * starts.size
    cut = [slice(None)] * x.ndim
    for a, s, e, t in zip(axes, starts.tolist(), ends.tolist(), steps):
        size = x.shape[a]
        if t < 0:  # a start before the first element is the first one, which numpy sees otherwise
            s, e = max(s, -size), None if e < -size else e
        cut[a] = slice(s, e, t)
    return np.ascontiguousarray(x[tuple(cut)])


@_kernel("Expand")
def _expand(n: Node, xs: Arrays) -> Array:
    assert xs[0] is not None and xs[1] is not None
    return np.ascontiguousarray(np.broadcast_to(xs[0], np.broadcast_shapes(xs[0].shape, tuple(xs[1].tolist()))))


@_kernel("ConstantOfShape")
def _constant_of_shape(n: Node, xs: Arrays) -> Array:
    assert xs[0] is not None
    t = n.attributes.get("value")
    fill = t.numpy().ravel()[0] if isinstance(t, Tensor) else np.float32(0)
    return np.full(xs[0].tolist(), fill)


@_kernel("Range")
def _range(n: Node, xs: Arrays) -> Array | None:
    start, limit, delta = xs
    if start is None or limit is None or delta is None or start.dtype.kind != "i" or not delta:
        return None
    return np.arange(int(start), int(limit), int(delta)).astype(start.dtype)


@_kernel("MatMul")
def _matmul(n: Node, xs: Arrays) -> Array:
    assert xs[0] is not None and xs[1] is not None
    return np.matmul(_wide(xs[0]), _wide(xs[1])).astype(xs[0].dtype)


def _reduction(f: Callable[..., Array]) -> Kernel:
    def g(n: Node, xs: Arrays) -> Array | None:
        x = xs[0]
        assert x is not None
        axes = tuple(xs[1].tolist()) if len(xs) > 1 and xs[1] is not None else ()
        if not axes and n.attributes.get("noop_with_empty_axes", 0):
            return x
        out = f(_wide(x), axis=axes or None, keepdims=bool(n.attributes.get("keepdims", 1)))
        return np.asarray(out).astype(x.dtype)

    return g


def _mean(x: Array, **how: Any) -> Array:
    if x.dtype.kind != "f":
        raise _Undefined  # the mean of integers: every runtime rounds in its own way
    return np.mean(x, **how)


for _op, _f in {"ReduceSum": np.sum, "ReduceMax": np.max, "ReduceMin": np.min, "ReduceProd": np.prod}.items():
    _KERNELS[_op] = _reduction(_f)
_KERNELS["ReduceMean"] = _reduction(_mean)
