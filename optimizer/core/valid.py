"""What a model must be before anything touches it; each refusal says what to do."""

from __future__ import annotations

import re
from functools import cache

import onnx
from onnx import ModelProto, defs

from optimizer.core.errors import BadInput
from optimizer.core.graph import Model, Node
from optimizer.core.tensor import BITS

MIN_IR, MIN_OPSET = 3, 7
_NEWEST = {"": defs.onnx_opset_version(), "ai.onnx.ml": defs.onnx_ml_opset_version()}
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")

# Ops that onnx never had, but ONNX Runtime keeps in its domain and its own tools write: opaque, like any custom op.
_RUNTIME_OPS = {
    "SimplifiedLayerNormalization",
    "Affine",
    "Crop",
    "ImageScaler",
    "ParametricSoftplus",
    "Scale",
    "ScaledTanh",
}


def check_head(proto: ModelProto) -> None:
    """Versions that we can handle, and a graph.

    Raises:
        BadInput: no graph, IR < 3, opset < 7, no opset, or newer than the installed onnx.
    """
    if not proto.HasField("graph"):
        raise BadInput("this is not an ONNX model: it holds no graph", fix="name an .onnx file")
    if proto.ir_version > onnx.IR_VERSION:
        raise BadInput(
            f"the model has IR version {proto.ir_version}, the installed onnx {onnx.__version__} knows up to {onnx.IR_VERSION}",
            fix="pip install --upgrade onnx",
        )
    if proto.ir_version < MIN_IR:
        raise BadInput(
            f"the model has IR version {proto.ir_version}, the oldest one supported is {MIN_IR}", fix="export it again"
        )
    if not proto.opset_import:
        raise BadInput("the model does not say which opset it uses", fix="export it again, or add opset_import")
    seen: dict[str, int] = {}
    for o in proto.opset_import:
        domain = "" if o.domain == "ai.onnx" else o.domain
        if seen.setdefault(domain, o.version) != o.version:
            raise BadInput(
                f"the model imports two opsets of {domain or 'ai.onnx'!r}: {seen[domain]} and {o.version}",
                fix="keep one of them",
            )
        newest = _NEWEST.get(domain)
        if newest is not None and o.version > newest:
            raise BadInput(
                f"the model uses opset {o.version} of {domain or 'ai.onnx'}, the installed onnx {onnx.__version__} knows up to {newest}",
                fix="pip install --upgrade onnx",
            )
    if seen.get("", MIN_OPSET) < MIN_OPSET:
        raise BadInput(
            f"the model uses opset {seen['']}, the oldest one supported is {MIN_OPSET}",
            fix="raise it with onnx.version_converter.convert_version",
        )


def check_model(model: Model) -> None:
    """Names, operators and types of inputs; what constants hold was compared when they were lifted.

    Raises:
        BadInput: whatever later code could not make sense of.
    """
    _check_names(model)
    first: dict[tuple[str, str], Node] = {}
    for n in model.nodes():
        first.setdefault((n.op, n.domain), n)
    opset = model.opsets.get("")
    for (op, domain), n in first.items():
        if not (domain or (domain, op) in model.functions or ("ai.onnx", op) in model.functions):
            _check_op(op, opset, n)
    for v in model.graph.inputs:
        if v.type is None and v.dtype not in BITS:
            raise BadInput(
                f"the input {v.name!r} has no element type that onnx {onnx.__version__} knows: {v.dtype}",
                fix="export the model again",
            )


def _check_names(model: Model) -> None:
    for kind, names in (("value", model.names), ("node", model.node_names)):
        try:
            hit = _CONTROL.search("".join(names))
        except TypeError:
            bad = next(n for n in names if not isinstance(n, str))
            raise BadInput(f"the name of a {kind} is not UTF-8 text: {bad!r}", fix="export the model again") from None
        if hit:
            bad = next(n for n in names if _CONTROL.search(n))
            raise BadInput(f"the name of a {kind} holds control characters: {bad!r}", fix="rename it")


def _check_op(op: str, opset: int | None, node: Node) -> None:
    at = f"node {node.name!r} ({op})"
    if opset is None:
        raise BadInput(
            "the model has nodes of ai.onnx, but does not say which opset it uses",
            at=at,
            fix="add ai.onnx to opset_import",
        )
    if op in _RUNTIME_OPS or _known(op, opset):
        return
    versions = sorted(s.since_version for s in defs.get_all_schemas_with_history() if (s.domain, s.name) == ("", op))
    if not versions:
        raise BadInput(f"ai.onnx has no operator {op!r}", at=at, fix="a custom operator needs a domain of its own")
    raise BadInput(
        f"ai.onnx has no operator {op} at opset {opset}: it came or changed with {', '.join(map(str, versions))}",
        at=at,
        fix="export the model again, at an opset that has it",
    )


@cache
def _known(op: str, opset: int) -> bool:
    try:
        return not defs.get_schema(op, opset, "").deprecated
    except defs.SchemaError:
        return False


