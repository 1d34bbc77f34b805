"""What a model must be before anything touches it; each refusal says what to do."""

from __future__ import annotations

import math
import re
from functools import cache

import onnx
from onnx import AttributeProto, ModelProto, TensorProto, defs

from optimizer.core.errors import BadInput
from optimizer.core.graph import Graph, Model, Node
from optimizer.core.tensor import TYPES, bits, data_bytes

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
    """Names, operators, types and the sizes of constants.

    Raises:
        BadInput: whatever later code could not make sense of.
    """
    _check_names(model)
    nodes = list(model.nodes())
    opset = model.opsets.get("")
    first: dict[tuple[str, str], Node] = {}
    for n in nodes:
        first.setdefault((n.op, n.domain), n)
    for (op, domain), n in first.items():
        _check_op(model, op, domain, opset, n)
    for v in model.graph.inputs:
        if v.type is None and v.dtype not in TYPES:
            raise BadInput(
                f"the input {v.name!r} has no element type that onnx {onnx.__version__} knows: {v.dtype}",
                fix="give it a type",
            )
    for g in model.graphs():
        _check_constants(g)
    for n in nodes:
        if n.proto is not None:
            for a in n.proto.attribute:
                if a.type == AttributeProto.TENSOR:
                    check_tensor(a.t, f"attribute {a.name!r} of node {n.name!r} ({n.op})")
                elif a.type == AttributeProto.TENSORS:
                    for t in a.tensors:
                        check_tensor(t, f"attribute {a.name!r} of node {n.name!r} ({n.op})")


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


def _check_op(model: Model, op: str, domain: str, opset: int | None, node: Node) -> None:
    if domain or ("", op) in model.functions or ("ai.onnx", op) in model.functions:
        return
    at = f"node {node.name!r} ({op})"
    if opset is None:
        raise BadInput(
            "the model has nodes of ai.onnx, but does not say which opset it uses",
            at=at,
            fix="add ai.onnx to opset_import",
        )
    if op in _RUNTIME_OPS or _known(op, opset):
        return
    versions = [s.since_version for s in defs.get_all_schemas_with_history() if s.domain == "" and s.name == op]
    if not versions:
        raise BadInput(f"ai.onnx has no operator {op!r}", at=at, fix="a custom operator needs a domain of its own")
    raise BadInput(
        f"ai.onnx has no operator {op} at opset {opset}: it came or changed with {', '.join(map(str, sorted(versions)))}",
        at=at,
        fix="export the model again, at an opset that has it",
    )


@cache
def _known(op: str, opset: int) -> bool:
    try:
        return not defs.get_schema(op, opset, "").deprecated
    except defs.SchemaError:
        return False


def _check_constants(g: Graph) -> None:
    for v in g.initializers:
        if v.tensor is not None and v.tensor.proto is not None:
            check_tensor(v.tensor.proto, f"initializer {v.name!r}")
    for s in g.proto.sparse_initializer:
        at = f"sparse initializer {s.values.name!r}"
        check_tensor(s.values, at)
        check_tensor(s.indices, at)


def check_tensor(t: TensorProto, at: str) -> None:
    """The data of a tensor is what its type and dims need.

    Raises:
        BadInput: an unknown type, negative dims, too few or too many bytes.
    """
    if t.data_type not in TYPES:
        raise BadInput(
            f"the element type {t.data_type} is none that onnx {onnx.__version__} knows",
            at=at,
            fix="export the model again",
        )
    if any(d < 0 for d in t.dims):
        raise BadInput(f"a constant has negative dims: {list(t.dims)}", at=at, fix="export the model again")
    if t.data_location == TensorProto.EXTERNAL:
        return  # its length was compared when it was found
    count = math.prod(t.dims)
    if t.data_type == TensorProto.STRING:
        have, need = len(t.string_data), count
    elif t.HasField("raw_data"):
        have, need = len(t.raw_data), data_bytes(t)
    else:
        field, need = _typed(t.data_type, count)
        have = len(getattr(t, field))
    if have != need:
        raise BadInput(
            f"a constant of dims {list(t.dims)} needs {need} {'bytes' if t.HasField('raw_data') else 'elements'}, the file has {have}",
            at=at,
            fix="export the model again",
        )


_DOUBLE = {TensorProto.DOUBLE: 1, TensorProto.COMPLEX128: 2}
_FLOAT = {TensorProto.FLOAT: 1, TensorProto.COMPLEX64: 2}


def _typed(dtype: int, count: int) -> tuple[str, int]:
    """The field that holds the elements one by one, and how many entries it needs."""
    if dtype in _FLOAT:
        return "float_data", count * _FLOAT[dtype]
    if dtype in _DOUBLE:
        return "double_data", count * _DOUBLE[dtype]
    if dtype == TensorProto.INT64:
        return "int64_data", count
    if dtype in (TensorProto.UINT32, TensorProto.UINT64):
        return "uint64_data", count
    per = 8 // bits(dtype) if bits(dtype) in (2, 4) else 1
    return "int32_data", -(-count // per)
