"""What a model must be before anything touches it; each refusal says what to do."""

from __future__ import annotations

import re
from functools import cache
from graphlib import CycleError, TopologicalSorter

import onnx
from onnx import ModelProto, defs

from optimizer.core.errors import BadInput
from optimizer.core.graph import Model
from optimizer.core.tensor import BITS
from optimizer.core.text import safe

MIN_IR, MIN_OPSET = 3, 7
_NEWEST = {"": defs.onnx_opset_version(), "ai.onnx.ml": defs.onnx_ml_opset_version()}
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")

# Ops that onnx never had, but ONNX Runtime keeps in onnx's domain and its own tools write: opaque, as custom ops are.
_RUNTIME_OPS = {"SimplifiedLayerNormalization", "Affine", "Crop", "ImageScaler", "ParametricSoftplus", "ScaledTanh"}


def check_head(proto: ModelProto) -> None:
    """Versions that we can handle, and a graph.

    Raises:
        BadInput: no graph, IR < 3, opset < 7, no opset, or newer than the installed onnx.
    """
    installed = f"the installed onnx {onnx.__version__} knows up to"
    if not proto.HasField("graph"):
        raise BadInput("this is not an ONNX model: it holds no graph", fix="name an .onnx file")
    ir = proto.ir_version
    if ir > onnx.IR_VERSION:
        raise BadInput(
            f"the model has IR version {ir}, {installed} {onnx.IR_VERSION}", fix="pip install --upgrade onnx"
        )
    if ir < MIN_IR:
        raise BadInput(f"the model has IR version {ir}, the oldest one supported is {MIN_IR}", fix="export it again")
    if not proto.opset_import:
        raise BadInput("the model does not say which opset it uses", fix="export it again, or add opset_import")
    opsets: dict[str, int] = {}
    for o in proto.opset_import:
        domain, shown = ("", "ai.onnx") if o.domain in ("", "ai.onnx") else (o.domain, repr(o.domain))
        if o.version < 1:
            raise BadInput(f"the model imports {shown} without a version", fix="export the model again")
        if opsets.setdefault(domain, o.version) != o.version:
            raise BadInput(
                f"the model imports two opsets of {shown}: {opsets[domain]} and {o.version}", fix="keep one of them"
            )
        if o.version > _NEWEST.get(domain, o.version):
            raise BadInput(
                f"the model uses opset {o.version} of {shown}, {installed} {_NEWEST[domain]}",
                fix="pip install --upgrade onnx",
            )
    if opsets.get("", MIN_OPSET) < MIN_OPSET:
        raise BadInput(
            f"the model uses opset {opsets['']}, the oldest one supported is {MIN_OPSET}",
            fix="raise it with onnx.version_converter.convert_version",
        )


def check_model(model: Model) -> None:
    """Names, operators, functions and the types of inputs; what constants hold was compared when they were lifted.

    Raises:
        BadInput: whatever later code could not make sense of.
    """
    _check_names("value", model.names)
    _check_names("node", model.node_names)
    if "" in model.names:
        raise BadInput("an input or initializer has no name", fix="export the model again")
    known: set[tuple[str, str]] = set()
    for n in model.nodes():
        if (n.domain, n.op) not in known:
            known.add((n.domain, n.op))
            _check_op(model, n.domain, n.op, model.opsets.get(""), f"node {n.name!r} ({safe(n.op)})")
    _check_functions(model)
    for v in model.graph.inputs:
        if v.type is None and v.dtype not in BITS:
            raise BadInput(
                f"the input {v.name!r} has no element type that onnx {onnx.__version__} knows: {v.dtype}",
                fix="export the model again",
            )


def _check_names(kind: str, names: set[str]) -> None:
    """Protobuf hands out text that is not UTF-8 as bytes; no name is that, and none moves the cursor of a terminal."""
    bad = next((n for n in names if not _is_text(n)), None)
    if bad is None and _CONTROL.search("".join(names)):
        bad = next(n for n in names if _CONTROL.search(n))
    if bad is not None:
        raise BadInput(
            f"the name of a {kind} is no printable text: {bad!r}", fix="rename it, or export the model again"
        )


def _is_text(name: object) -> bool:
    return isinstance(name, str)


def _check_op(model: Model, domain: str, op: str, opset: int | None, at: str) -> None:
    _check_names("operator", {op, domain})
    if domain or (domain, op) in model.functions or ("ai.onnx", op) in model.functions:
        return
    if opset is None:
        raise BadInput(
            "the model has nodes of ai.onnx, but does not say which opset it uses",
            at=at,
            fix="add ai.onnx to opset_import",
        )
    if op in _RUNTIME_OPS or _has_schema(op, opset):
        return
    versions = sorted(s.since_version for s in defs.get_all_schemas_with_history() if (s.domain, s.name) == ("", op))
    if not versions:
        raise BadInput(f"ai.onnx has no operator {op!r}", at=at, fix="a custom operator needs a domain of its own")
    raise BadInput(
        f"ai.onnx has no operator {safe(op)} at opset {opset}: it came or changed with {', '.join(map(str, versions))}",
        at=at,
        fix="export the model again, at an opset that has it",
    )


@cache
def _has_schema(op: str, opset: int) -> bool:
    try:
        return not defs.get_schema(op, opset, "").deprecated
    except defs.SchemaError:
        return False


def _check_functions(model: Model) -> None:
    """Operators that exist, and no function that calls itself, through others or not."""
    calls: dict[tuple[str, str], set[tuple[str, str]]] = {}
    for key, f in model.functions.items():
        opset = next((o.version for o in f.opset_import if o.domain in ("", "ai.onnx")), None)
        calls[key] = {(n.domain, n.op_type) for n in f.node}
        for domain, op in calls[key]:
            _check_op(model, "" if domain == "ai.onnx" else domain, op, opset, f"function {f.name!r} ({safe(op)})")
    try:
        TopologicalSorter({k: c & calls.keys() for k, c in calls.items()}).prepare()
    except CycleError as e:
        names = " → ".join(repr(name) for _, name in e.args[1])
        raise BadInput(f"functions of the model call each other in a circle: {names}", fix="export it again") from e
