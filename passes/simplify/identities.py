"""Operations that change nothing, alone or together with the one before them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from optimizer.core import facts
from optimizer.core.edit import Editor, Fidelity
from optimizer.core.graph import Graph, Node, Value
from optimizer.core.pattern import Pattern, const, op, optional, values
from optimizer.core.rule import Step, decline, procedure, rule
from passes.simplify.views import view

EXACT = Fidelity.EXACT
(x, a, b) = values("x a b")


@rule(op.Identity(x), fidelity=EXACT, shape="identity")
def identity(op: Any, x: Any) -> Any:
    """Identity(x) → x"""
    return x


@rule(
    op.Dropout(x, optional(a), optional(b), name="node"),
    fidelity=EXACT,
    where=lambda node: facts.pure(node),
    shape="inference",
)
def dropout(op: Any, x: Any) -> Any:
    """Dropout(x) in inference → x"""
    return x


FLOAT8E5M2 = 19  # a Cast to it saturates, so that an infinity does not come through


@rule(
    op.Cast(x, name="cast"),
    fidelity=EXACT,
    where=lambda x, cast: cast.attributes["to"] == x.dtype != FLOAT8E5M2,
    shape="cast",
)
def cast_to_same(op: Any, x: Any) -> Any:
    """Cast(x, to = dtype of x) → x"""
    return x


STRING = 8
# every value of the first survives in the second: ONNX element types by number
_INTEGERS = {  # bits, signed
    3: (8, True),
    2: (8, False),
    5: (16, True),
    4: (16, False),
    6: (32, True),
    12: (32, False),
    7: (64, True),
    13: (64, False),
}
_MANTISSA = {10: 11, 16: 8, 1: 24, 11: 53}
_WIDER_FLOAT = {10: (1, 11), 16: (1, 11), 1: (11,)}


def lossless(source: int, to: int) -> bool:
    """Whether Cast(source → to) keeps every value."""
    if source == to != FLOAT8E5M2 or to in _WIDER_FLOAT.get(source, ()):
        return True
    if source == 9:
        return to in _INTEGERS or to in _MANTISSA
    if source not in _INTEGERS:
        return False
    bits, signed = _INTEGERS[source]
    if to in _INTEGERS:
        wider, also = _INTEGERS[to]
        return wider > bits and (also or not signed)
    return to in _MANTISSA and bits - signed <= _MANTISSA[to]


@rule(
    op.Cast(op.Cast(x, name="inner"), name="outer"),
    fidelity=EXACT,
    where=lambda x, inner, outer: lossless(x.dtype, inner.attributes["to"]) and outer.attributes["to"] != STRING,
    keep=True,
    shape="cast",
)
def cast_twice(op: Any, x: Any, outer: Any) -> Any:
    """Cast(Cast(x, t), u) → Cast(x, u), where t holds every value of x and u is no text"""
    to = outer.attributes["to"]
    return x if to == x.dtype else op.Cast(x, **outer.attributes)


def _perm(node: Node) -> list[int] | None:
    v = node.inputs[0]
    if "perm" in node.attributes:
        return list(node.attributes["perm"])
    return None if v is None or v.dims is None else list(range(len(v.dims)))[::-1]


def _in_order(perm: list[int] | None) -> bool:
    return perm is not None and perm == sorted(perm)


@rule(
    op.Transpose(x, name="t"),
    fidelity=EXACT,
    where=lambda t: (p := _perm(t)) == list(range(len(p or ()))),
    shape="as it was",
)
def transpose_nothing(op: Any, x: Any) -> Any:
    """Transpose(x, 0 1 2 …) → x"""
    return x


@rule(op.Transpose(op.Transpose(x, name="inner"), name="outer"), fidelity=EXACT, keep=True, shape="composed")
def transpose_twice(op: Any, x: Any, inner: Any, outer: Any) -> Any:
    """Transpose(Transpose(x, p), q) → Transpose(x, p∘q)"""
    p, q = _perm(inner), _perm(outer)
    if p is None or q is None:
        return decline("rank unknown")
    both = [p[i] for i in q]
    return x if _in_order(both) else op.Transpose(x, perm=both)


def _same_shape(x: Value, root: Value) -> bool:
    return x.dims is not None and x.dims == root.dims


@rule(view(x, a), fidelity=EXACT, where=_same_shape)
def reshape_nothing(op: Any, x: Any) -> Any:
    """Reshape, Squeeze, Unsqueeze or Flatten to the shape that x has → x"""
    return x


@rule(view(view(x, a), b), fidelity=EXACT, where=_same_shape, keep=True)
def reshape_back(op: Any, x: Any) -> Any:
    """two reshapes that lead back to the shape of x → x"""
    return x


@rule(
    op.Reshape(view(x, a), const("target")),
    fidelity=EXACT,
    where=lambda target: bool((target != 0).all()),
    keep=True,
    shape="the same elements in the same order, to the same target",
)
def reshape_twice(op: Any, x: Any, target: Any) -> Any:
    """Reshape(Reshape(x, s), t) → Reshape(x, t), where t copies no dim"""
    return op.Reshape(x, target)


@rule(op.Concat(x, name="node") | op.Sum(x) | op.Mean(x) | op.Max(x) | op.Min(x), fidelity=EXACT, shape="one operand")
def only_operand(op: Any, x: Any) -> Any:
    """Concat, Sum, Mean, Max or Min of one operand → it"""
    return x


@rule(op.Neg(op.Neg(x)) | op.Not(op.Not(x)), fidelity=EXACT, keep=True, shape="elementwise")
def twice_negated(op: Any, x: Any) -> Any:
    """−(−x), ¬¬x → x"""
    return x


@rule(op.Relu(op.Relu(x)), fidelity=EXACT, shape="elementwise", keep=True)
def relu_twice(op: Any, x: Any) -> Any:
    """relu(relu(x)) → relu(x)"""
    return op.Relu(x)


@rule(
    op.Add(x, 0.0) | op.Sub(x, 0.0) | op.Mul(x, 1.0) | op.Div(x, 1.0) | op.Pow(x, 1.0),
    fidelity=EXACT,
    domain="up to the sign of zero",
)
def neutral_operand(op: Any, x: Any) -> Any:
    """x + 0, x − 0, x · 1, x / 1, x¹ → x"""
    return x


@rule(
    op.Pad(x, const("pads"), optional(a), optional(b)),
    fidelity=EXACT,
    where=lambda pads: not pads.any(),
    shape="no pads",
)
def pad_nothing(op: Any, x: Any) -> Any:
    """Pad(x, 0 everywhere) → x"""
    return x


def _reduced(reduce: Callable[..., Pattern]) -> Pattern:
    return reduce(x, optional(a), noop_with_empty_axes=...)


@rule(
    _reduced(op.ReduceSum)
    | _reduced(op.ReduceMean)
    | _reduced(op.ReduceMax)
    | _reduced(op.ReduceMin)
    | _reduced(op.ReduceProd),
    fidelity=EXACT,
    where=_same_shape,
)
def reduce_nothing(op: Any, x: Any) -> Any:
    """a reduction over no axes, or over such of size 1 that are kept → x"""
    return x


@rule(op.Where(a, x, x), fidelity=EXACT)
def where_same(op: Any, x: Any) -> Any:
    """Where(c, x, x) → x"""
    return x


@rule(
    op.Split(x, optional(a), name="node"), fidelity=EXACT, where=lambda node: len(node.outputs) == 1, shape="one part"
)
def split_nothing(op: Any, x: Any) -> Any:
    """Split(x) into one part → x"""
    return x


@rule(op.Where(op.Not(a), x, b), fidelity=EXACT, keep=True)
def where_not(op: Any, a: Any, x: Any, b: Any) -> Any:
    """Where(¬c, x, y) → Where(c, y, x)"""
    return op.Where(a, b, x)


@procedure(fidelity=EXACT, domain="up to the sign of zero")
def zero_bias(editor: Editor, graph: Graph) -> None:
    """Conv, ConvTranspose or Gemm with a bias of zeros → without"""
    for n in editor.news("identities.zero_bias", graph, ("Conv", "ConvTranspose", "Gemm")):
        b = n.inputs[2] if len(n.inputs) == 3 else None
        if b is None or not b.is_const or b.tensor is None or b.tensor.numpy().any():
            continue
        if n.op == "Gemm" and graph.opset < 11:  # where it has one
            continue
        made = editor.stage_like(n, n.inputs[:2], **({"beta": None} if n.op == "Gemm" else {}))
        editor.replace(n.outputs, made, must_go=[n], shape="nothing is added")


STEPS: tuple[Step, ...] = (
    identity, dropout, cast_to_same, cast_twice, transpose_nothing, transpose_twice, reshape_nothing, reshape_back,
    reshape_twice, only_operand, twice_negated, relu_twice, neutral_operand, pad_nothing, reduce_nothing, where_same,
    where_not, zero_bias, split_nothing,
)  # fmt: skip
