"""One form, many opsets: rules read operands and defaults of the newest opset, whatever the graph's own is.

Operands that some opset turned from attributes into inputs are inputs (`operands`); constant axes are taken modulo
rank; an absent attribute has its opset's default, or the newest one's where that opset has none (`attribute`); `spell`
writes an operation back as the graph's own opset wants it. Source: onnx.defs changelog.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, defs

from optimizer.core.graph import Attribute, Node, Value, attribute_value
from optimizer.core.tensor import Tensor, numpy_dtype


class Decline(Exception):
    """A rule or the editor says no; the message is the reason."""


_REDUCE = [
    "ReduceMean",
    "ReduceMax",
    "ReduceMin",
    "ReduceProd",
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceSumSquare",
]
# op → ((input index, attribute name, first opset that has it as an input), …)
MOVED: dict[str, tuple[tuple[int, str, int], ...]] = {
    "Squeeze": ((1, "axes", 13),),
    "Unsqueeze": ((1, "axes", 13),),
    "ReduceSum": ((1, "axes", 13),),
    **dict.fromkeys(_REDUCE, ((1, "axes", 18),)),
    "Split": ((1, "split", 13),),
    "Pad": ((1, "pads", 11), (2, "value", 11)),
    "Clip": ((1, "min", 11), (2, "max", 11)),
    "Slice": ((1, "starts", 10), (2, "ends", 10), (3, "axes", 10)),
    "TopK": ((1, "k", 10),),
    "Dropout": ((1, "ratio", 12),),
    "Upsample": ((1, "scales", 9),),
    "DFT": ((2, "axis", 20),),
}
FLATTENS = frozenset(["Softmax", "LogSoftmax", "Hardmax"])  # before opset 13, over all axes from `axis` on at once
_OF_DATA = {"value", "min", "max"}  # operands of the data's own type
_FLOAT_OPERANDS = {*_OF_DATA, "ratio", "scales"}


@lru_cache(None)
def schema(op: str, opset: int, domain: str = "") -> defs.OpSchema | None:
    """The schema in force at this opset; None where the op does not exist, or no longer."""
    try:
        s = defs.get_schema(op, opset, domain)
    except defs.SchemaError:
        return None
    return None if s.deprecated else s


@lru_cache(None)
def optional_output(op: str, opset: int, domain: str, index: int) -> bool:
    """Whether the op may leave this output out."""
    s = schema(op, opset, domain)
    return s is not None and index < len(s.outputs) and s.outputs[index].option == s.outputs[index].option.Optional


def newest() -> int:
    """The newest opset of the installed onnx."""
    return defs.onnx_opset_version()


@lru_cache(None)
def defaults(op: str, opset: int, domain: str) -> dict[str, Attribute]:
    """Attributes' defaults at this opset, and the newest one's where it has none."""
    out: dict[str, Attribute] = {}
    for version in (newest(), opset) if domain == "" else (opset,):
        s = schema(op, version, domain)
        for name, a in s.attributes.items() if s is not None else ():
            if a.default_value.type != onnx.AttributeProto.UNDEFINED:
                out[name] = attribute_value(a.default_value)
    return out


def attribute(node: Node, name: str) -> Attribute | None:
    """The attribute's value, its default where the node does not spell it, None where it has none."""
    x = node.attributes.get(name)
    if x is not None:
        return x
    model = node.graph.model if node.graph is not None else None
    opset = newest() if model is None else model.opsets.get(node.domain, newest())
    return defaults(node.op, opset, node.domain).get(name)


def constant(array: Any) -> Value:
    """A constant value that is in no graph (yet)."""
    v = Value("")
    t = v.tensor = array if isinstance(array, Tensor) else Tensor.of(array)
    v.dtype, v.dims = t.dtype, t.shape
    if t.size <= 64 and t.dtype in (6, 7, 9, 2, 3):
        v.known = t.numpy().astype(object)
    return v


def operands(node: Node) -> list[Value | None]:
    """The node's inputs in the newest form; an attribute that became an input shows as a constant outside the graph."""
    moved = MOVED.get(node.op)
    if moved is None or node.domain:
        return node.inputs
    ins = list(node.inputs)
    attributes = node.attributes
    for i, name, _ in moved:
        x = attributes.get(name)
        if x is not None:
            while len(ins) <= i:
                ins.append(None)
            ins[i] = constant(np.asarray([x] if name == "k" else x).astype(_moved_dtype(name, ins[0])))
        if name == "axes" and len(ins) > i and (a := ins[i]) is not None and (c := a.const) is not None:
            rank = _axes_rank(node, c.size)
            if rank is not None and (c < 0).any() and ((-rank <= c) & (c < rank)).all():
                ins[i] = constant(c % rank)
    return ins


def _moved_dtype(name: str, data: Value | None) -> np.dtype[Any]:
    if name not in _FLOAT_OPERANDS:
        return np.dtype(np.int64)
    return numpy_dtype(data.dtype if data is not None and data.dtype and name in _OF_DATA else TensorProto.FLOAT)


def _axes_rank(node: Node, count: int) -> int | None:
    """The rank that the axes of this node count in: the input's, for Unsqueeze the output's."""
    x = node.inputs[0]
    if x is None or x.dims is None:
        return None
    return len(x.dims) + (count if node.op == "Unsqueeze" else 0) or None


def spell(op: str, inputs: list[Value | None], attributes: dict[str, Attribute], opset: int) -> None:
    """Write operands of the newest form as this opset wants them, in place.

    Raises:
        Decline: a computed operand would have to become an attribute, or this opset has no such operation.
    """
    if op in FLATTENS and opset < 13:
        rank = inputs[0].rank if inputs and inputs[0] is not None else None
        axis = attributes.get("axis", -1)
        if axis != -1 and axis + 1 != rank:
            raise Decline(f"{op} along an inner axis does not exist at opset {opset}")
        attributes["axis"] = -1 if rank is None else rank - 1
    for i, name, since in reversed(MOVED.get(op, ())):
        if opset >= since or len(inputs) <= i:
            continue
        x = inputs.pop(i)
        if x is None:
            continue
        c = x.const
        if c is None:
            raise Decline(f"{op}: {name} is computed, and an attribute at opset {opset}")
        value = c.tolist()
        attributes[name] = value if name != "k" or not isinstance(value, list) else value[0]
    while inputs and inputs[-1] is None:
        inputs.pop()
