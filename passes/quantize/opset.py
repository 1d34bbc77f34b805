"""The same model at opset 13, where a scale can be one number a channel: only spellings change, never a meaning.

Source: the changelog of onnx.defs between opsets 7 and 13.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from optimizer.core import form
from optimizer.core.edit import Editor, Fidelity
from optimizer.core.errors import BadInput
from optimizer.core.form import Decline, attribute, operands
from optimizer.core.graph import Attribute, Node, Value
from optimizer.core.rule import planned

PER_CHANNEL = 13
_GAINED = frozenset(  # ops that only gained attributes, whose defaults are what they did before
    ["ArgMax", "ArgMin", "AveragePool", "Constant", "DepthToSpace", "MaxPool"]
)
_FLATTENS = frozenset(["Hardmax", "LogSoftmax", "Softmax"])  # before 13 all axes from `axis` on, since then only one


@dataclass(frozen=True, slots=True)
class _Spelling:
    """A node as the new opset writes it, operands in the newest form."""

    op: str
    inputs: list[Value | None]
    attributes: dict[str, Attribute]


@planned("raise_opset", fidelity=Fidelity.EXACT, domain="no node means something else there")
def raise_opset(editor: Editor, to: int = PER_CHANNEL) -> bool:
    """a node of an opset before 13 → the same in the spelling of 13, where a scale can be one number a channel

    Returns whether the model was older than opset `to`; every respelled node is one edit.

    Raises:
        BadInput: a node means something else there; nothing was changed.
    """
    model = editor.model
    if model.opsets.get("", to) >= to:
        return False
    if model.functions:
        raise BadInput("local functions have opsets of their own", fix="leave out --keep-functions")
    opset = model.opsets[""]
    changed = [n for n in model.nodes() if _respelled(n, opset, to) is not None]
    began = len(editor.log)
    editor.set_opset(to)
    for n in changed:
        s = _respelled(n, opset, to)  # anew: what it reads may have been replaced just now
        assert s is not None
        try:
            new = editor.stage(s.op, s.inputs, s.attributes, len(n.outputs))
            news = [new] if len(n.outputs) == 1 else new
            read = [(o, x) for o, x in zip(n.outputs, news) if o.uses or o.is_output]
            done = editor.replace(*zip(*read), shape="only the spelling changes") if read else editor.remove([n])
            why = editor.why
        except Decline as declined:
            done, why = False, str(declined)
        if not done:
            editor.undo(began)
            raise _cannot(n, opset, to, why)
    return True


def _respelled(node: Node, opset: int, to: int) -> _Spelling | None:
    """The node's new spelling; None where the old one still stands.

    Raises:
        BadInput: its meaning changes.
    """
    if node.domain:
        return None
    old, new = form.schema(node.op, opset), form.schema(node.op, to)
    if old is None or (new is not None and old.since_version == new.since_version):
        return None
    if node.op in ("Resize", "Upsample") and opset < 11:
        return _as_resize(node)
    if new is None:
        raise _cannot(node, opset, to, f"opset {to} has no {node.op}")
    if node.op in _FLATTENS:
        return _along_one_axis(node, opset, to)
    moved = [name for _, name, since in form.MOVED.get(node.op, ()) if opset < since <= to]
    if moved:
        kept = {k: a for k, a in node.attributes.items() if k not in moved}
        return _Spelling(node.op, list(operands(node)), kept)
    if _operands(old) == _operands(new) and (node.op in _GAINED or _defaults(old) == _defaults(new)):
        return None
    if not set(node.attributes) - set(new.attributes) and node.op == "BatchNormalization":
        return None  # `spatial` was left out, so it was 1, the only thing that is meant today
    raise _cannot(node, opset, to, f"{node.op} changed its operands or attributes")


def _along_one_axis(node: Node, opset: int, to: int) -> _Spelling:
    """Equal where nothing but ones follows the axis."""
    x = node.inputs[0]
    axis = int(node.attributes.get("axis", 1))
    if x is None or x.dims is None:
        raise _cannot(node, opset, to, "the rank of its input is not known")
    axis += len(x.dims) if axis < 0 else 0
    if any(not isinstance(d, int) or d != 1 for d in x.dims[axis + 1 :]):
        raise _cannot(node, opset, to, f"it runs over several axes at once, opset {to} only over one")
    return _Spelling(node.op, list(node.inputs), {"axis": axis})


def _as_resize(node: Node) -> _Spelling:
    """Until 11 an output pixel took its coordinates as they were, rounded down."""
    x, scales = operands(node)[:2]
    attributes: dict[str, Any] = {
        "mode": attribute(node, "mode"),
        "coordinate_transformation_mode": "asymmetric",
        "nearest_mode": "floor",
    }
    return _Spelling("Resize", [x, None, scales], attributes)


def _operands(schema: Any) -> list[str]:
    return [p.name for p in schema.inputs]


def _defaults(schema: Any) -> dict[str, bytes]:
    return {name: a.default_value.SerializeToString() for name, a in schema.attributes.items()}


def _cannot(node: Node, opset: int, to: int, why: str) -> BadInput:
    return BadInput(
        f"per-channel quantization needs opset {to}, the model has {opset} and cannot be raised: {why}",
        at=f"node {node.name!r} ({node.op})",
        fix=f"export the model at opset {to} or later",
    )
