"""What an operation does to dtype, dims and known values: a transfer row an op, onnx's own C++ inference for the rest.

A row gives the dims of the first output in the newest form of the op; `None` for a dim that it cannot say, which then
gets a name of its own. Being defined is a proof: in `a + b`, dims s and min(s, 512) are equal wherever the model runs.
Sources: shape inference sections of the ONNX operators.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TypeProto

from optimizer.core import dims as D
from optimizer.core import form
from optimizer.core.dims import Dim, Dims, Poly
from optimizer.core.facts import BROADCAST, PREDICATE, UNARY
from optimizer.core.form import Decline, attribute
from optimizer.core.graph import Node, Value, array_of, attribute_proto
from optimizer.core.tensor import Array, Tensor

Loose = Sequence[Dim | None]
Row = Callable[[Node, "list[Value | None]"], "Loose | None"]

BOOL, INT64, INT32, UINT8, FLOAT = 9, 7, 6, 2, 1
KNOWN_LIMIT = 64
_WHOLE = {INT64: 1 << 63, INT32: 1 << 31, BOOL: 2}  # dtypes whose values are followed, and their bounds

_DIMS: dict[str, Row] = {}
_VALUES: dict[str, Callable[[Node, list[Value | None]], Any]] = {}  # an object array, or one element, or None
_MANY: dict[str, Callable[[Node, list[Value | None]], list[tuple[int, Loose]] | None]] = {}
# onnx's own inference is wrong on these: what has no row here stays unknown
_NOT_TO_TRUST = frozenset(["Attention", "STFT"])
_FAILED = (TypeError, IndexError, AttributeError, ValueError, ArithmeticError, KeyError, StopIteration)


def _row(*ops: str) -> Callable[[Row], Row]:
    def keep(f: Row) -> Row:
        for op in ops:
            _DIMS[op] = f
        return f

    return keep


def infer(node: Node, opsets: dict[str, int], *, staged: bool = True) -> None:
    """Types of a node's outputs from those of its inputs, in place; facts only get better.

    Raises:
        Decline: the op's own inference says that it cannot be applied (staged nodes only).
    """
    if node.domain or not node.outputs:
        _by_onnx(node, opsets, staged)  # of other domains onnx knows some
        return
    op, outputs = node.op, node.outputs
    out = outputs[0]
    ins: list[Value | None] = node.inputs
    covered = False
    try:
        if op in form.MOVED:
            ins = form.operands(node)
        if op in _MANY and (every := _MANY[op](node, ins)) is not None:
            for o, (dtype, dims) in zip(outputs, every):
                o.dtype = dtype or o.dtype
                improve(o, dims)
            covered = all(o.dtype for o in outputs)
        elif op in _DIMS:
            dtype = _dtype(node, ins)
            found = _DIMS[op](node, ins)
            out.dtype = dtype or out.dtype
            if found is not None:
                improve(out, found)
                covered = out.dtype != 0 and (len(outputs) == 1 or not any(o.name or staged for o in outputs[1:]))
    except _FAILED as e:  # an operand is missing or malformed
        if staged:
            raise Decline(f"{op}: inference failed ({e or type(e).__name__})") from None
    if not covered and op not in _NOT_TO_TRUST:
        _by_onnx(node, opsets, staged)
    if out.dtype in _WHOLE and op in _VALUES and (out.known is None or _partial(out.known)):
        try:
            known = _VALUES[op](node, ins)
        except _FAILED:
            return
        if not isinstance(known, np.ndarray):  # numpy unwraps object arrays without dims
            known = _scalar(known)
        if known is None or known.size > KNOWN_LIMIT or not all(_holds(x, out.dtype) for x in known.ravel()):
            return
        if out.known is None or _fewer_unknown(known, out.known):
            out.known = known


def _partial(known: Array) -> bool:
    return any(x is None or isinstance(x, Poly) for x in known.ravel())


def _fewer_unknown(new: Array, old: Array) -> bool:
    """Whether `new` says more: more integers, else more elements, else dims by better names."""
    if new.shape != old.shape:
        return False
    a, b = ([(isinstance(x, int), x is not None and not D.is_unknown(x)) for x in k.ravel()] for k in (new, old))
    return sum(map(sum, a)) > sum(map(sum, b))


def _holds(x: Any, dtype: int) -> bool:
    """Whether the integer type holds x; a size always fits."""
    return not isinstance(x, int) or -_WHOLE[dtype] <= x < _WHOLE[dtype]


def improve(v: Value, found: Loose) -> None:
    """Take over what is better than what is known; a dim that nobody knows gets a name of its own."""
    have = v.dims
    if have is None or len(have) != len(found):
        v.dims = tuple([D.unknown(v.name) if d is None else d for d in found])
    elif have != tuple(found):
        v.dims = tuple([_better(h, d) for h, d in zip(have, found)])


def _better(have: Dim, found: Dim | None) -> Dim:
    if found is None or isinstance(have, int):
        return have
    return have if D.is_unknown(found) and not D.is_unknown(have) else found


# ── dtype ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

_FIXED = {
    "Shape": INT64,
    "Size": INT64,
    "NonZero": INT64,
    "ArgMax": INT64,
    "ArgMin": INT64,
    "MatMulInteger": INT32,
    **dict.fromkeys(PREDICATE, BOOL),
}
_FROM = {"Where": 1, "CastLike": 1, "OneHot": 2}


def _dtype(n: Node, ins: list[Value | None]) -> int:
    """The element type of the first output; 0 where it is not known."""
    op = n.op
    if op in _FIXED:
        return _FIXED[op]
    if op in _DTYPES:
        return _DTYPES[op](n, ins)
    at = _FROM.get(op, 0)
    v = ins[at] if len(ins) > at else None
    return v.dtype if v is not None else 0


def _of_value(n: Node, ins: list[Value | None]) -> int:
    t = n.attributes.get("value")
    return t.dtype if isinstance(t, Tensor) else FLOAT if n.op == "ConstantOfShape" else 0


def _of_zero_point(n: Node, ins: list[Value | None]) -> int:
    z = ins[2] if len(ins) > 2 else None
    return z.dtype if z is not None else int(n.attributes.get("output_dtype", 0)) or UINT8


def _of_scale(n: Node, ins: list[Value | None]) -> int:
    return int(n.attributes.get("output_dtype", 0)) or (ins[1].dtype if ins[1] is not None else 0)


def _of_window(n: Node, ins: list[Value | None]) -> int:
    return int(n.attributes.get("output_datatype", FLOAT))


def _asked(n: Node, ins: list[Value | None]) -> int:
    return int(n.attributes.get("dtype", 0)) or (ins[0].dtype if ins[0] is not None else 0)


_DTYPES: dict[str, Callable[[Node, list[Value | None]], int]] = {
    "Cast": lambda n, ins: int(n.attributes.get("to", 0)),
    "Constant": _of_value,
    "ConstantOfShape": _of_value,
    "QuantizeLinear": _of_zero_point,
    "DequantizeLinear": _of_scale,
    **dict.fromkeys(("BlackmanWindow", "HannWindow", "HammingWindow"), _of_window),
    **dict.fromkeys(("EyeLike", "Bernoulli", "RandomNormalLike", "RandomUniformLike"), _asked),
}


# ── dims ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def broadcast(shapes: Iterable[Loose | None]) -> list[Dim | None] | None:
    """The numpy broadcast of shapes, as far as it is provable where the run is defined."""
    xs = list(shapes)
    for s in xs:
        if s is None:
            return None
    if len(xs) == 2 and xs[0] == xs[1] and xs[0] is not None and None not in xs[0]:
        return list(xs[0])
    rank = max((len(s) for s in xs if s is not None), default=0)
    out: list[Dim | None] = []
    for i in range(rank):
        d: Dim | None = 1
        for s in xs:
            assert s is not None
            j = i - rank + len(s)
            if j >= 0:
                d = _meet(d, s[j])
        out.append(d)
    return out


def _axis(a: int, rank: int) -> int:
    """The axis, counted from the front."""
    if not -rank <= a < rank:
        raise ValueError(f"axis {a} of {rank}")
    return a % rank


def _agree(a: Dim | None, b: Dim | None) -> None:
    """Refuse two sizes that the operation wants equal and that never are."""
    if isinstance(a, int) and isinstance(b, int) and a != b:
        raise ValueError(f"sizes {a} and {b} differ")


def _meet(a: Dim | None, b: Dim | None) -> Dim | None:
    if a == 1 and isinstance(a, int):
        return b
    if (b == 1 and isinstance(b, int)) or (a == b and a is not None):
        return a
    if isinstance(a, int):
        if isinstance(b, int):
            raise ValueError(f"{a} and {b} do not broadcast")
        return a  # b is 1 or a
    if isinstance(b, int):
        return b
    if a is None or b is None:
        return None
    if D.mentions(b, "min", a):  # s against min(s, c): only defined where they are equal
        return a
    if D.mentions(a, "min", b):
        return b
    return None


def _same(n: Node, ins: list[Value | None]) -> Loose | None:
    x = ins[0]
    return None if x is None else x.dims


for _op in (
    *UNARY,
    *[
        "Softmax",
        "LogSoftmax",
        "Hardmax",
        "LayerNormalization",
        "RMSNormalization",
        "BatchNormalization",
        "InstanceNormalization",
        "GroupNormalization",
        "LRN",
        "LpNormalization",
        "MeanVarianceNormalization",
        "CumSum",
        "CumProd",
        "QuantizeLinear",
        "DequantizeLinear",
        "Trilu",
        "ScatterElements",
        "ScatterND",
        "Scatter",
        "ReverseSequence",
        "RotaryEmbedding",
        "Bernoulli",
        "RandomNormalLike",
        "RandomUniformLike",
        "EyeLike",
    ],
):
    _DIMS[_op] = _same


@_row(*BROADCAST)
def _broadcast(n: Node, ins: list[Value | None]) -> Loose | None:
    if n.attributes and "axis" in n.attributes:
        return _dims(ins[0])  # opset 6 and older: one-sided broadcasting
    return broadcast([None if v is None else v.dims for v in ins])


@_row("Reshape")
def _reshape(n: Node, ins: list[Value | None]) -> Loose | None:
    x, target = _dims(ins[0]), known(ins[1])
    if target is None:
        length = _dims(ins[1])
        return [None] * length[0] if length is not None and isinstance(length[0], int) else None
    want: list[Dim | None] = list(target.ravel())
    zero_is_zero = bool(n.attributes.get("allowzero", 0))
    out: list[Dim | None] = list(want)
    if not zero_is_zero:
        for i, d in enumerate(want):
            if d == 0:
                out[i] = x[i] if x is not None and i < len(x) else None
            elif not _is_its_size(i, want, x):
                out[i] = None
    holes = [i for i, d in enumerate(out) if d is None or d == -1]
    if len(holes) == 1 and want[holes[0]] == -1 and x is not None:
        rest = D.product(d for d in out if d is not None and d != -1)
        q = D.quotient(D.product(x), rest)
        out[holes[0]] = D.apply("floordiv", D.product(x), rest) if q is None and D.never_zero(rest) else q
    return [None if d == -1 else d for d in out]


def _is_its_size(i: int, want: list[Dim | None], x: Dims | None) -> bool:
    """Whether entry i of a Reshape's target is the size of the result there, though a computed 0 copies x's dim.

    It is where it is never 0, where x's dim is 0 whenever it is, and where no run is defined in which it is 0 alone.
    """
    d = want[i]
    if d is None or isinstance(d, int) or D.never_zero(d):
        return True
    if x is None:
        return False
    if i >= len(x) or D.vanishes_with(x[i], d):
        return True
    others = [e for k, e in enumerate(want) if k != i and e is not None]
    return len(others) == len(want) - 1 and all(map(D.never_zero, others)) and D.product(x) == D.product([d, *others])


@_row("Flatten")
def _flatten(n: Node, ins: list[Value | None]) -> Loose | None:
    x = _dims(ins[0])
    if x is None:
        return None
    a = int(attribute(n, "axis") or 0)
    a += len(x) if a < 0 else 0
    return [_product(x[:a]), _product(x[a:])]


def _product(xs: Loose) -> Dim | None:
    return None if any(d is None for d in xs) else D.product(d for d in xs if d is not None)


@_row("Transpose")
def _transpose(n: Node, ins: list[Value | None]) -> Loose | None:
    x = _dims(ins[0])
    if x is None:
        return None
    perm = n.attributes.get("perm") or range(len(x))[::-1]
    return [x[i] for i in perm]


@_row("Shape")
def _shape(n: Node, ins: list[Value | None]) -> Loose | None:
    x = _dims(ins[0])
    return [None] if x is None else [len(x[_start_end(n, len(x))])]


def _start_end(n: Node, rank: int) -> slice:
    end = n.attributes.get("end")
    return slice(*slice(n.attributes.get("start", 0), end).indices(rank))


@_row("Size")
def _size(n: Node, ins: list[Value | None]) -> Loose | None:
    return []


@_row("MatMul", "MatMulInteger")
def _matmul(n: Node, ins: list[Value | None]) -> Loose | None:
    a, b = _dims(ins[0]), _dims(ins[1])
    if a is None or b is None or not a or not b:
        return None
    _agree(a[-1], b[-2:][0])
    batch = broadcast([a[:-2], b[:-2]]) or []
    return [*batch, *([a[-2]] if len(a) > 1 else []), *([b[-1]] if len(b) > 1 else [])]


@_row("Gemm")
def _gemm(n: Node, ins: list[Value | None]) -> Loose | None:
    a, b = _dims(ins[0]), _dims(ins[1])
    if a is None or b is None or len(a) != 2 or len(b) != 2:
        return [None, None]
    _agree(a[0] if n.attributes.get("transA") else a[1], b[1] if n.attributes.get("transB") else b[0])
    return [a[1] if n.attributes.get("transA") else a[0], b[0] if n.attributes.get("transB") else b[1]]


@_row("Squeeze")
def _squeeze(n: Node, ins: list[Value | None]) -> Loose | None:
    x = _dims(ins[0])
    if x is None:
        return None
    if len(ins) < 2 or ins[1] is None:
        return [d for d in x if d != 1] if all(isinstance(d, int) for d in x) else None
    axes = ints(ins[1])
    if not axes:  # unknown, or empty: which runtimes read differently
        return None
    gone = {_axis(a, len(x)) for a in axes}
    return [d for i, d in enumerate(x) if i not in gone]


@_row("Unsqueeze")
def _unsqueeze(n: Node, ins: list[Value | None]) -> Loose | None:
    x, axes = _dims(ins[0]), ints(ins[1])
    if x is None or axes is None:
        return None
    rank = len(x) + len(axes)
    ones = {_axis(a, rank) for a in axes}
    it = iter(x)
    return [1 if i in ones else next(it) for i in range(rank)]


@_row("Gather")
def _gather(n: Node, ins: list[Value | None]) -> Loose | None:
    x, i = _dims(ins[0]), _dims(ins[1])
    if x is None or i is None:
        return None
    a = _axis(n.attributes.get("axis", 0), len(x))
    return [*x[:a], *i, *x[a + 1 :]]


@_row("GatherElements")
def _gather_elements(n: Node, ins: list[Value | None]) -> Loose | None:
    return _dims(ins[1])


@_row("GatherND")
def _gather_nd(n: Node, ins: list[Value | None]) -> Loose | None:
    x, i = _dims(ins[0]), _dims(ins[1])
    batch = int(n.attributes.get("batch_dims", 0))
    if x is None or i is None or not isinstance(i[-1], int):
        return None
    return [*i[:-1], *x[batch + i[-1] :]]


@_row("Concat")
def _concat(n: Node, ins: list[Value | None]) -> Loose | None:
    xs = [_dims(v) for v in ins]
    some = next((x for x in xs if x is not None), None)
    if some is None or any(x is not None and len(x) != len(some) for x in xs):
        return None
    a = _axis(n.attributes.get("axis", 1), len(some))
    out: list[Dim | None] = []
    for i in range(len(some)):
        column = [d for x in xs if x is not None for d in x[i : i + 1]]
        if i == a:
            out.append(sum(column[1:], column[0]) if len(column) == len(xs) else None)
        else:  # all equal where the run is defined: an int if any is
            out.append(next((d for d in column if isinstance(d, int)), column[0]))
            for d in column:
                _agree(d, out[-1])
    return out


@_row("Expand")
def _expand(n: Node, ins: list[Value | None]) -> Loose | None:
    x, target = _dims(ins[0]), known(ins[1])
    if x is None:
        return None
    if target is None:
        length = _dims(ins[1])
        if length is None or not isinstance(length[0], int):
            return None
        pad = [None] * max(0, length[0] - len(x))
        return [*pad, *(d if isinstance(d, int) and d != 1 else None for d in x)]
    return broadcast([x, [None if isinstance(d, int) and d < 0 else d for d in target.ravel()]])


@_row("Tile")
def _tile(n: Node, ins: list[Value | None]) -> Loose | None:
    x, k = _dims(ins[0]), known(ins[1])
    if len(ins) > 2:  # opset 1: one count, one axis
        return None
    if x is None or k is None:
        return [None] * len(x) if x is not None else None
    return [None if r is None else d * r for d, r in zip(x, k.ravel())]


@_row("Pad")
def _pad(n: Node, ins: list[Value | None]) -> Loose | None:
    x, pads = _dims(ins[0]), known(ins[1])
    if x is None or pads is None:
        return [None] * len(x) if x is not None else None
    given = ins[3] if len(ins) > 3 else None
    axes = ints(given) if given is not None else list(range(len(x)))
    if axes is None:
        return [None] * len(x)
    out: list[Dim | None] = list(x)
    p = list(pads.ravel())
    for k, a in enumerate(axes):
        d, low, high = out[a], p[k], p[k + len(axes)]
        out[a] = None if d is None or low is None or high is None else d + low + high
    return out


@_row("Slice")
def _slice(n: Node, ins: list[Value | None]) -> Loose | None:
    x = _dims(ins[0])
    if x is None:
        return None
    starts, ends = known(ins[1]), known(ins[2])
    given = ins[3] if len(ins) > 3 else None
    axes = ints(given) if given is not None else None
    if starts is None or ends is None or (given is not None and axes is None):
        hit = {_axis(a, len(x)) for a in axes} if axes is not None else set(range(len(x)))
        return [None if i in hit else d for i, d in enumerate(x)]
    if axes is None:
        axes = list(range(starts.size))
    step_value = ins[4] if len(ins) > 4 else None
    steps: list[int] | None = [1] * len(axes) if step_value is None else ints(step_value)
    out: list[Dim | None] = list(x)
    for k, a in enumerate(axes):
        a %= len(x)
        out[a] = None if steps is None else _sliced(out[a], starts.ravel()[k], ends.ravel()[k], steps[k])
    return out


_TO_THE_END = ((1 << 31) - 1, (1 << 63) - 1)  # of a forward slice; backwards, the runtime and the text disagree


def _sliced(d: Dim | None, start: Dim | None, end: Dim | None, step: int) -> Dim | None:
    """The length of x[start:end:step] where x has length d."""
    if d is None or start is None or end is None or (step < 0 and end in _TO_THE_END):
        return None
    if isinstance(d, int) and isinstance(start, int) and isinstance(end, int):
        return len(range(d)[max(start, -d) if step < 0 else start : end : step])
    huge = isinstance(end, int) and end >= 2**31 - 1
    if step != 1:  # backwards through all of it
        return d if (step, start) == (-1, -1) and isinstance(end, int) and end < -(2**31) + 2 else None
    if isinstance(start, int) and start < 0:
        # the last −start: all of a dim that is no longer than that
        return D.apply("min", d, -start) if huge else None
    if not D.never_negative(start):
        return None
    if isinstance(end, int) and end < 0:
        stop: Dim | None = d + end
    elif not D.never_negative(end):
        return None
    else:
        stop = d if huge or end == d else D.apply("min", d, end)
    if stop is d and start == 0:  # a size is never negative
        return d
    return None if stop is None else D.apply("max", stop - start, 0)


def _split(n: Node, ins: list[Value | None]) -> list[tuple[int, Loose]] | None:
    x = _dims(ins[0])
    if x is None or ins[0] is None:
        return None
    a = _axis(n.attributes.get("axis", 0), len(x))
    d, k = x[a], int(n.attributes.get("num_outputs", len(n.outputs)))
    given = ins[1] if len(ins) > 1 else None
    if given is not None:
        asked = known(given)
        parts: Loose = [None] * k if asked is None else list(asked.ravel())
        _agree(d, sum(parts) if all(isinstance(p, int) for p in parts) else None)  # type: ignore[arg-type]
    elif isinstance(d, int):
        size = -(-d // k)
        parts = [size] * (k - 1) + [d - size * (k - 1)]
        if parts[-1] < 0:
            raise ValueError(f"{d} does not split into {k}")
    else:
        parts = [D.quotient(d, k)] * k
    return [(ins[0].dtype, [*x[:a], p, *x[a + 1 :]]) for p in parts]


def _attention(n: Node, ins: list[Value | None]) -> list[tuple[int, Loose]] | None:
    """q·kᵀ·v over heads: rank 4 is (batch, heads, length, size), rank 3 (batch, length, heads·size)."""
    q, k, v = (_heads(_dims(x), n.attributes.get(h, 0)) for x, h in zip(ins, ("q_num_heads", *["kv_num_heads"] * 2)))
    past = ins[4] if len(ins) > 4 else None
    if q is None or k is None or v is None or ins[0] is None or ins[2] is None:
        return None
    before: Dim | None = 0 if past is None else None if past.dims is None else past.dims[2]
    length = None if before is None or k[2] is None else before + k[2]
    flat = v[3] * q[1]
    if q[1] == v[1] and (given := _dims(ins[2])) is not None and len(given) == 3:
        flat = given[2]
    y = [*q[:3], v[3]] if ins[0].rank == 4 else [q[0], q[2], flat]
    dtype, value = ins[0].dtype, ins[2].dtype
    return [
        (dtype, y), (dtype, [*k[:2], length, k[3]]), (value, [*v[:2], length, v[3]]), (dtype, [*q[:3], length]),
    ]  # fmt: skip


def _heads(x: Dims | None, heads: int) -> list[Any] | None:
    if x is None or len(x) == 4:
        return None if x is None else list(x)
    return [x[0], heads, x[1], D.apply("floordiv", x[2], heads)]


def _top_k(n: Node, ins: list[Value | None]) -> list[tuple[int, Loose]] | None:
    x, k = _dims(ins[0]), known(ins[1])
    if x is None or ins[0] is None:
        return None
    out: list[Dim | None] = list(x)
    out[int(n.attributes.get("axis", -1))] = None if k is None else k.ravel()[0]
    return [(ins[0].dtype, out), (INT64, out)]


def _dropout(n: Node, ins: list[Value | None]) -> list[tuple[int, Loose]] | None:
    x = _dims(ins[0])
    if x is None or ins[0] is None:
        return None
    out: list[tuple[int, Loose]] = [(ins[0].dtype, x), (0, x)]  # before opset 10, the mask was no bool
    return out[: len(n.outputs)]


_MANY.update(Split=_split, Attention=_attention, TopK=_top_k, Dropout=_dropout)


_REDUCTIONS = [op for op in form.MOVED if op.startswith("Reduce")]


@_row(*_REDUCTIONS)
def _reduce(n: Node, ins: list[Value | None]) -> Loose | None:
    x = _dims(ins[0])
    if x is None:
        return None
    keep = bool(n.attributes.get("keepdims", 1))
    given = ins[1] if len(ins) > 1 else None
    axes = ints(given) if given is not None else []
    if axes is None:
        return [None] * len(x) if keep else None
    if not axes:
        if n.attributes.get("noop_with_empty_axes", 0):
            return x
        axes = list(range(len(x)))
    hit = {_axis(a, len(x)) for a in axes} if x else set[int]()
    return [1 if i in hit else d for i, d in enumerate(x) if keep or i not in hit]


@_row("ArgMax", "ArgMin")
def _arg(n: Node, ins: list[Value | None]) -> Loose | None:
    x = _dims(ins[0])
    if x is None:
        return None
    a = _axis(n.attributes.get("axis", 0), len(x))
    keep = bool(n.attributes.get("keepdims", 1))
    return [1 if i == a else d for i, d in enumerate(x) if keep or i != a]


@_row("Range")
def _range(n: Node, ins: list[Value | None]) -> Loose | None:
    start, limit, delta = (known(v) for v in ins)
    if start is None or limit is None or delta is None:
        return [None]
    a, b, c = start.ravel()[0], limit.ravel()[0], delta.ravel()[0]
    if isinstance(a, int) and isinstance(b, int) and isinstance(c, int) and c:
        return [max(0, -(-(b - a) // c))]
    return [D.apply("max", b - a, 0)] if c == 1 and a is not None and b is not None else [None]


@_row("BlackmanWindow", "HammingWindow", "HannWindow")
def _window(n: Node, ins: list[Value | None]) -> Loose | None:
    size = known(ins[0])
    return [None if size is None else size.ravel()[0]]


@_row("ConstantOfShape")
def _constant_of_shape(n: Node, ins: list[Value | None]) -> Loose | None:
    target = known(ins[0])
    if target is not None:
        return list(target.ravel())
    length = _dims(ins[0])
    return [None] * length[0] if length is not None and isinstance(length[0], int) else None


@_row("NonZero")
def _nonzero(n: Node, ins: list[Value | None]) -> Loose | None:
    x = _dims(ins[0])
    return None if x is None else [len(x) or None, None]


@_row("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
def _global_pool(n: Node, ins: list[Value | None]) -> Loose | None:
    x = _dims(ins[0])
    return None if x is None else [*x[:2], *[1] * (len(x) - 2)]


@_row("Conv", "AveragePool", "MaxPool", "LpPool")
def _conv(n: Node, ins: list[Value | None]) -> Loose | None:
    x = _dims(ins[0])
    if x is None:
        return None
    a = n.attributes
    spatial = len(x) - 2
    channels: Dim | None = x[1]
    kernel = a.get("kernel_shape")
    if n.op == "Conv":
        w = _dims(ins[1])
        if w is None:
            return [x[0], *[None] * (spatial + 1)]
        channels = w[0]
        kernel = kernel or list(w[2:])
    if a.get("ceil_mode", 0) or not kernel or len(kernel) != spatial:
        return None
    strides, dilations = a.get("strides") or [1] * spatial, a.get("dilations") or [1] * spatial
    pads, auto = a.get("pads") or [0] * (2 * spatial), a.get("auto_pad", "NOTSET")
    out: list[Dim | None] = [x[0], channels]
    for i in range(spatial):
        d, k = x[2 + i], kernel[i]
        if not isinstance(k, int):
            out.append(None)
            continue
        if auto in ("SAME_UPPER", "SAME_LOWER"):
            q = D.apply("floordiv", d + (strides[i] - 1), strides[i])
            if n.op != "Conv" and dilations[i] != 1:  # where the runtime pads for less than the dilated window
                q = None
        else:
            p = 0 if auto == "VALID" else pads[i] + pads[i + spatial]
            q = D.apply("floordiv", d + (p - dilations[i] * (k - 1) - 1), strides[i])
            q = None if q is None else q + 1
        out.append(q)
    return out


@_row("ConvTranspose")
def _conv_transpose(n: Node, ins: list[Value | None]) -> Loose | None:
    x, w = _dims(ins[0]), _dims(ins[1])
    if x is None or w is None:
        return None
    a = n.attributes
    spatial = len(x) - 2
    strides, dilations = a.get("strides") or [1] * spatial, a.get("dilations") or [1] * spatial
    pads, extra = a.get("pads") or [0] * (2 * spatial), a.get("output_padding") or [0] * spatial
    auto, asked = a.get("auto_pad", "NOTSET"), a.get("output_shape")
    out: list[Dim | None] = [x[0], w[1] * int(a.get("group", 1))]
    for i in range(spatial):
        if asked:
            out.append(asked[i - spatial])
            continue
        window = (w[2 + i] - 1) * dilations[i] + 1 + extra[i]
        if auto in ("SAME_UPPER", "SAME_LOWER"):  # by cutting off, never by padding with zeros
            out.append(x[2 + i] * strides[i] if D.never_negative(window - strides[i]) else None)
        else:
            p = 0 if auto == "VALID" else pads[i] + pads[i + spatial]
            out.append((x[2 + i] - 1) * strides[i] + window - p)
    return out


@_row("Resize", "Upsample")
def _resize(n: Node, ins: list[Value | None]) -> Loose | None:
    x = _dims(ins[0])
    scales = ins[1] if len(ins) == 2 else ins[2] if len(ins) > 2 else None
    sizes = known(ins[3]) if len(ins) > 3 else None
    if x is None or n.attributes.get("coordinate_transformation_mode") == "tf_crop_and_resize":
        return None
    axes = [_axis(a, len(x)) for a in n.attributes.get("axes") or range(len(x))]
    out: list[Dim | None] = list(x)
    if sizes is not None and n.attributes.get("keep_aspect_ratio_policy", "stretch") == "stretch":
        for a, size in zip(axes, sizes.ravel()):
            out[a] = size
        return out
    factors = scales.const if scales is not None else None
    if factors is None or factors.size != len(axes) or any(f != int(f) for f in factors.tolist()):
        return None
    for a, f in zip(axes, factors.tolist()):
        out[a] = x[a] * int(f)
    return out


@_row("OneHot")
def _one_hot(n: Node, ins: list[Value | None]) -> Loose | None:
    x, depth = _dims(ins[0]), known(ins[1])
    if x is None:
        return None
    a = _axis(n.attributes.get("axis", -1), len(x) + 1)
    return [*x[:a], None if depth is None else depth.ravel()[0], *x[a:]]


@_row("DepthToSpace", "SpaceToDepth")
def _depth_to_space(n: Node, ins: list[Value | None]) -> Loose | None:
    x, b = _dims(ins[0]), int(n.attributes["blocksize"])
    if x is None or len(x) != 4:
        return None
    if n.op == "DepthToSpace":
        return [x[0], D.apply("floordiv", x[1], b * b), x[2] * b, x[3] * b]
    return [x[0], x[1] * (b * b), D.apply("floordiv", x[2], b), D.apply("floordiv", x[3], b)]


@_row("STFT")
def _stft(n: Node, ins: list[Value | None]) -> Loose | None:
    x, step, window = _dims(ins[0]), known(ins[1]), _dims(ins[2]) if len(ins) > 2 else None
    given = known(ins[3]) if len(ins) > 3 else None
    length = given.ravel()[0] if given is not None else window[0] if window else None
    if x is None or length is None or step is None:
        return None if x is None else [x[0], None, None, 2]
    bins = D.apply("floordiv", length, 2)
    frames = D.apply("floordiv", x[1] - length, step.ravel()[0])
    half = None if bins is None else bins + 1
    whole = None if frames is None else frames + 1
    return [x[0], whole, half if n.attributes.get("onesided", 1) else length, 2]


@_row("Constant")
def _constant(n: Node, ins: list[Value | None]) -> Loose | None:
    t = n.attributes.get("value")
    return t.shape if isinstance(t, Tensor) else None


# ── values of small integer tensors ───────────────────────────────────────────────────────────────────────────────────


def known(v: Value | None) -> Array | None:
    """The partial value of a small integer tensor: an object array of ints, bools, polynomials and Nones."""
    if v is None:
        return None
    if (
        v.known is None
        and v.is_const
        and v.dtype in (INT64, INT32, BOOL, 2, 3)
        and v.tensor is not None
        and v.tensor.size <= KNOWN_LIMIT
    ):
        v.known = v.tensor.numpy().astype(object)
    return v.known


def ints(v: Value | None) -> list[int] | None:
    """The whole value as plain integers, or None."""
    k = known(v)
    if k is None:
        return None
    xs = list(k.ravel())
    return [int(x) for x in xs] if all(isinstance(x, (int, np.integer)) for x in xs) else None


def _value(*ops: str) -> Callable[[Any], Any]:
    def keep(f: Any) -> Any:
        for op in ops:
            _VALUES[op] = f
        return f

    return keep


@_value("Shape")
def _shape_value(n: Node, ins: list[Value | None]) -> Array | None:
    x = _dims(ins[0])
    return None if x is None else array_of(x[_start_end(n, len(x))])  # type: ignore[arg-type]


@_value("Size")
def _size_value(n: Node, ins: list[Value | None]) -> Any:
    x = _dims(ins[0])
    return None if x is None else _product(x)


def _scalar(x: Any) -> Array | None:
    if x is None:
        return None
    a = np.empty((), object)
    a[()] = x
    return a


@_value("ConstantOfShape")
def _filled(n: Node, ins: list[Value | None]) -> Array | None:
    shape = ints(ins[0])
    if shape is None or np.prod(shape, dtype=int) > KNOWN_LIMIT:
        return None
    t = n.attributes.get("value")
    return np.full(shape, t.numpy().ravel()[0].item(), object) if isinstance(t, Tensor) else None


@_value("Constant")
def _constant_value(n: Node, ins: list[Value | None]) -> Array | None:
    for name in ("value_int", "value_ints"):
        if name in n.attributes:
            return np.asarray(n.attributes[name], object)
    t = n.attributes.get("value")
    return t.numpy().astype(object) if isinstance(t, Tensor) and t.size <= KNOWN_LIMIT else None


@_value("Identity")
def _identity_value(n: Node, ins: list[Value | None]) -> Array | None:
    return known(ins[0])


@_value("Cast")
def _cast_value(n: Node, ins: list[Value | None]) -> Any:
    k, to = known(ins[0]), n.attributes.get("to")
    if k is None or ins[0] is None:
        return None
    if to == BOOL:
        truth: Any = np.frompyfunc(
            lambda x: bool(x) if isinstance(x, int) else (x is not None and D.never_zero(x)) or None, 1, 1
        )
        return truth(k)
    if to not in (INT64, INT32) or ins[0].dtype not in _WHOLE:
        return None
    f: Any = np.frompyfunc(lambda x: int(x) if isinstance(x, bool) else x, 1, 1)
    return f(k)


@_value("Squeeze", "Unsqueeze", "Reshape", "Flatten")
def _reshaped(n: Node, ins: list[Value | None]) -> Array | None:
    k, d = known(ins[0]), n.outputs[0].dims
    if k is None or d is None or not all(isinstance(x, int) for x in d):
        return None
    return k.reshape(d)  # type: ignore[arg-type]


@_value("Concat")
def _concat_value(n: Node, ins: list[Value | None]) -> Array | None:
    ks = [known(v) for v in ins]
    if all(k is not None for k in ks):
        return np.concatenate(ks, n.attributes["axis"])  # type: ignore[arg-type]
    if n.outputs[0].dims is None or len(n.outputs[0].dims) != 1:
        return None
    parts: list[Array] = []
    for k, v in zip(ks, ins):  # a vector of known length and unknown content is a run of Nones
        d = _dims(v)
        if k is None and (d is None or not isinstance(d[0], int) or d[0] > KNOWN_LIMIT):
            return None
        parts.append(k if k is not None else np.full(d[0], None, object))  # type: ignore[index]
    return np.concatenate(parts)


@_value("Gather")
def _gather_value(n: Node, ins: list[Value | None]) -> Any:
    k, i = known(ins[0]), ints(ins[1])
    if k is None or i is None or ins[1] is None:
        return None
    at = np.asarray(i, int).reshape([d for d in ins[1].dims or () if isinstance(d, int)])
    return np.take(k, at, int(n.attributes.get("axis", 0)))


@_value("Slice")
def _slice_value(n: Node, ins: list[Value | None]) -> Array | None:
    k = known(ins[0])
    starts, ends = ints(ins[1]), ints(ins[2])
    if k is None or starts is None or ends is None:
        return None
    axes = ints(ins[3]) if len(ins) > 3 and ins[3] is not None else list(range(len(starts)))
    steps = ints(ins[4]) if len(ins) > 4 and ins[4] is not None else [1] * len(starts)
    if axes is None or steps is None:
        return None
    cut = [slice(None)] * k.ndim
    for a, s, e, t in zip(axes, starts, ends, steps):
        size = k.shape[a]
        if t < 0 and e in _TO_THE_END:
            return None
        if t < 0:  # a start before the first element is the first one, which numpy sees otherwise
            s, e = max(s, -size), None if e < -size else e
        cut[a] = slice(s, e, t)
    return k[tuple(cut)]


@_value("Transpose")
def _transpose_value(n: Node, ins: list[Value | None]) -> Array | None:
    k = known(ins[0])
    return None if k is None else np.transpose(k, n.attributes.get("perm"))


@_value("Expand")
def _expand_value(n: Node, ins: list[Value | None]) -> Array | None:
    k, d = known(ins[0]), n.outputs[0].dims
    if k is None or d is None or not all(isinstance(x, int) for x in d) or np.prod(d, dtype=int) > KNOWN_LIMIT:  # type: ignore[arg-type]
        return None
    return np.broadcast_to(k, d)  # type: ignore[arg-type]


def _elementwise(f: Callable[..., Any]) -> Callable[[Node, list[Value | None]], Any]:
    """f over numpy-broadcast operands; an unknown operand gives an unknown element."""

    def g(n: Node, ins: list[Value | None]) -> Any:
        ks = [k for v in ins if (k := known(v)) is not None]
        if len(ks) < len(ins):
            return None
        each: Any = np.frompyfunc(lambda *xs: None if any(x is None for x in xs) else f(*xs), len(ks), 1)
        return each(*ks)

    return g


def _divide(a: Dim, b: Dim) -> Dim | None:
    """Integer division as ONNX has it: towards zero."""
    if isinstance(a, int) and isinstance(b, int):
        return None if b == 0 else -(-a // b) if (a < 0) != (b < 0) else a // b
    return D.apply("floordiv", a, b) if D.never_negative(a) and D.never_zero(b) else D.quotient(a, b)


def _equal(a: Dim, b: Dim) -> bool | None:
    d = a - b
    if isinstance(d, int):
        return d == 0
    return False if D.never_zero(d) or D.never_zero(d * -1) else None


def _less(a: Dim, b: Dim) -> bool | None:
    if D.never_zero(b - a):
        return True
    return False if D.never_negative(a - b) else None


for _name, _f in {
    "Add": lambda a, b: a + b,
    "Sub": lambda a, b: a - b,
    "Mul": lambda a, b: a * b,
    "Div": _divide,
    "Min": lambda *xs: _fold("min", xs),
    "Max": lambda *xs: _fold("max", xs),
    "Neg": lambda a: a * -1,
    "Equal": _equal,
    "Less": _less,
    "Greater": lambda a, b: _less(b, a),
    "LessOrEqual": lambda a, b: None if (x := _less(b, a)) is None else not x,
    "GreaterOrEqual": lambda a, b: None if (x := _less(a, b)) is None else not x,
    "Not": lambda a: not a,
    "And": lambda a, b: a and b,
    "Or": lambda a, b: a or b,
    "Abs": lambda a: abs(a) if isinstance(a, int) else a if D.never_negative(a) else None,
}.items():
    _VALUES[_name] = _elementwise(_f)


def _fold(name: str, xs: Sequence[Dim]) -> Dim | None:
    out: Dim | None = xs[0]
    for x in xs[1:]:
        out = None if out is None else D.apply(name, out, x)
    return out


@_value("Mod")
def _mod_value(n: Node, ins: list[Value | None]) -> Any:
    if n.attributes.get("fmod", 0):
        return None
    return _elementwise(lambda a, b: D.apply("mod", a, b) if D.never_zero(b) and D.never_negative(a) else None)(n, ins)


@_value("Where")
def _where_value(n: Node, ins: list[Value | None]) -> Any:
    c, x, y = known(ins[0]), known(ins[1]), known(ins[2])
    if c is None or x is None or y is None:
        return None
    choose: Any = np.frompyfunc(
        lambda p, a, b: (a if p else b) if p is not None else a if a is not None and a == b else None, 3, 1
    )
    return choose(c, x, y)


@_value("ReduceProd")
def _reduce_prod(n: Node, ins: list[Value | None]) -> Array | None:
    k, d = known(ins[0]), n.outputs[0].dims
    if k is None or d is None or any(x != 1 for x in d) or any(x is None for x in k.ravel()):
        return None
    return np.full([1] * len(d), D.product(k.ravel()), object)


@_value("Range")
def _range_value(n: Node, ins: list[Value | None]) -> Array | None:
    xs = [ints(v) for v in ins]
    if any(x is None for x in xs):
        return None
    a, b, c = (x[0] for x in xs if x is not None)
    return np.arange(a, b, c).astype(object) if c and abs((b - a) // c) <= KNOWN_LIMIT else None


def _dims(v: Value | None) -> Dims | None:
    return None if v is None else v.dims


# ── onnx's own inference ──────────────────────────────────────────────────────────────────────────────────────────────


def _by_onnx(node: Node, opsets: dict[str, int], staged: bool) -> None:
    """One C++ `infer_node_outputs` (about 60 µs); dims that are no numbers go out and come back under short names."""
    opset = opsets.get(node.domain, 0)
    s = form.schema(node.op, opset, node.domain)
    if s is None or node.bodies:
        return
    p = NodeProto(op_type=node.op, domain=node.domain)
    types: dict[str, TypeProto] = {}
    data: dict[str, Any] = {}
    names: dict[Dim, str] = {}
    for i, v in enumerate(node.inputs):
        p.input.append(f"i{i}" if v is not None else "")
        if v is None:
            continue
        types[f"i{i}"] = _type(v, names)
        if v.is_const and v.tensor is not None and v.tensor.size <= KNOWN_LIMIT:
            data[f"i{i}"] = v.tensor.to_proto(f"i{i}")
    p.output.extend(f"o{i}" if o.name or staged or i == 0 else "" for i, o in enumerate(node.outputs))
    p.attribute.extend(attribute_proto(k, a) for k, a in node.attributes.items())
    try:
        found = onnx.shape_inference.infer_node_outputs(
            s, p, types, data, opset_imports=[onnx.helper.make_opsetid(d, v) for d, v in opsets.items()]
        )
    except Exception as e:  # onnx raises a plain C++ error of its own type
        if staged:
            raise Decline(
                f"{node.op}: inference failed ({str(e).splitlines()[0][:80] if str(e) else type(e).__name__})"
            ) from None
        return
    for i, o in enumerate(node.outputs):
        t = found.get(f"o{i}")
        if t is None:
            continue
        if not t.HasField("tensor_type"):
            o.type = o.type or t
            continue
        o.dtype = t.tensor_type.elem_type or o.dtype
        if t.tensor_type.HasField("shape"):
            back = {name: d for d, name in names.items()}
            improve(o, [_back(d, back) for d in t.tensor_type.shape.dim])


def _type(v: Value, names: dict[Dim, str]) -> TypeProto:
    """The type of v, each polynomial under a name of its own."""
    if v.type is not None:
        return v.type
    t = TypeProto()
    t.tensor_type.elem_type = v.dtype
    if v.dims is not None:
        t.tensor_type.shape.SetInParent()
        for d in v.dims:
            x = t.tensor_type.shape.dim.add()
            if isinstance(d, int):
                x.dim_value = d
            else:
                x.dim_param = names.setdefault(d, f"d{len(names)}")
    return t


def _back(d: Any, names: dict[str, Dim]) -> Dim | None:
    if d.HasField("dim_value"):
        return d.dim_value if d.dim_value >= 0 else None
    return names.get(d.dim_param)
