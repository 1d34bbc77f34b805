"""What a model asks for and gives: names, types and sizes, and what its integers are used for.

Drawing data blindly finds nothing: an index beyond its table stops the model, a mask of 17s masks nothing. So each
integer input is followed, through whatever keeps or shifts its values and into If, Loop and Scan bodies, to the tables
it indexes, the constants it is compared with, and the shapes it decides.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from optimizer.core.errors import BadInput

if TYPE_CHECKING:
    from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TypeProto

    from optimizer.core.feeds import Array, Binding

    Dims = tuple[int | str, ...]

COARSENESS = ("float64", "float32", "float16", "bfloat16")

_NAMELESS = ("", "?", "-1", "None")  # what exporters write for a size they do not know
_KEEPS = {  # op → the operands whose values its first outputs hold unchanged
    **dict.fromkeys(("Cast", "Identity", "Reshape", "Unsqueeze", "Squeeze", "Transpose", "Flatten", "Expand"), (0,)),
    **dict.fromkeys(("Tile", "Slice", "Split", "Gather", "GatherElements", "GatherND", "Pad"), (0,)),
    "Concat": range(1 << 10),
    "Where": (1, 2),
    "ScatterElements": (0, 2),
    "ScatterND": (0, 2),
}
_COMPUTES = (  # op whose output is an integer computed from its operands
    *("Add", "Sub", "Mul", "Div", "Mod", "Neg", "Abs", "Min", "Max", "Clip", "Sign", "Pow", "BitShift"),
    *("CumSum", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd"),
)
_COMPARES = ("Equal", "Greater", "Less", "GreaterOrEqual", "LessOrEqual")
_INDEXES = {  # op → operand that holds indices, operand that is the table
    ("", "Gather"): ((1, 0),),
    ("", "GatherElements"): ((1, 0),),
    ("", "GatherND"): ((1, 0),),
    ("", "ScatterElements"): ((1, 0),),
    ("", "ScatterND"): ((1, 0),),
    ("", "RotaryEmbedding"): ((3, 1), (3, 2)),
    ("com.microsoft", "RotaryEmbedding"): ((1, 2), (1, 3)),
    ("com.microsoft", "GatherBlockQuantized"): ((1, 0),),
    ("com.microsoft", "EmbedLayerNormalization"): ((0, 2), (1, 4), (7, 3)),
}
_OVERFLOWS = 1e14  # constants from here on stand for infinity: data like that overflows in one order of a sum only
_WRAPS = ("Gather", "GatherElements", "GatherND", "ScatterElements", "ScatterND")  # −1 is the last row
_SHAPES = {  # op → operands that decide a shape or a number of steps
    **dict.fromkeys(("Reshape", "Expand", "Tile", "TopK", "Split", "Unsqueeze", "Squeeze", "Trilu", "OneHot"), (1,)),
    **dict.fromkeys(("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "CumSum", "SequenceAt"), (1,)),
    "Slice": (1, 2, 3, 4),
    "Pad": (1, 3),
    "Range": (0, 1, 2),
    "Resize": (3,),
    "NonMaxSuppression": (2,),
    "ConstantOfShape": (0,),
    "Loop": (0,),
}


@dataclass(frozen=True, slots=True)
class InputSpec:
    """One input.

    Fields:
        dtype: numpy's or ml_dtypes' name; "string" for text.
        dims: a name for each free dimension, its own or "x[0]"; None if not even the rank is known.
        container: "tensor", "sequence", "optional" or "map".
        has_default: an initializer stands in for it when it is not fed.
        default: that initializer where it can be overridden (IR 4 on) and is small.
        below: its values index dimensions of these sizes.
        wraps: they may also be negative, counted from the end.
        tables: those tables that are constants: name, axis, and what is added to the index.
        constants: the numbers the model compares it with.
        decides_shape: its values reach a shape, an index of unknown bounds, or a number of steps.
    """

    name: str
    dtype: str
    dims: Dims | None
    container: str = "tensor"
    has_default: bool = False
    default: Array | None = field(default=None, compare=False)
    below: Dims = ()
    wraps: bool = False
    tables: tuple[tuple[str, int, int], ...] = ()
    constants: tuple[int | float, ...] = ()
    decides_shape: bool = False


@dataclass(frozen=True, slots=True)
class OutputSpec:
    """One output; `precision` is the coarsest floating type computed on the way to it."""

    name: str
    dtype: str
    dims: Dims | None
    container: str = "tensor"
    precision: str = "float32"


@dataclass(frozen=True, slots=True)
class Interface:
    """Inputs and outputs in the model's order.

    Fields:
        guards: the model asks for NaN or infinity itself.
        numbers: its own floating constants, of up to four elements each: what it compares, clips and divides by.
    """

    inputs: tuple[InputSpec, ...]
    outputs: tuple[OutputSpec, ...]
    ir_version: int
    guards: bool
    numbers: tuple[float, ...] = ()

    @property
    def required(self) -> tuple[InputSpec, ...]:
        return tuple(spec for spec in self.inputs if not spec.has_default)


def read_interface(path: str | os.PathLike[str]) -> Interface:
    """Read a model's interface; weights stay unread.

    Raises:
        BadInput: the file is not an ONNX model.
    """
    from google.protobuf.message import DecodeError
    from onnx import ModelProto

    from optimizer.core.region import MappedFile
    from optimizer.core.wire import split

    try:
        model = ModelProto.FromString(split(MappedFile(Path(path))))
    except (OSError, ValueError, DecodeError, BadInput) as error:
        raise BadInput(f"not an ONNX model: {error}", at=os.fspath(path)) from error
    return _Reading(model).interface()


def changed_rows(original: str | os.PathLike[str], result: str | os.PathLike[str]) -> dict[str, Array]:
    """Input → the indices at which the constant tables it reads differ between two models: where a row was spoilt.

    Tables are paired in the order in which they are read; what cannot be paired, or read, is left out.
    """
    import numpy as np

    from optimizer.core.model import read

    sides = [{spec.name: spec for spec in read_interface(path).inputs if spec.tables} for path in (original, result)]
    shared = sides[0].keys() & sides[1].keys()
    if not shared:
        return {}
    try:
        weights = [{v.name: v for g in read(path).graphs() for v in g.initializers} for path in (original, result)]
    except BadInput:
        return {}
    found: dict[str, Array] = {}
    for name in sorted(shared):
        rows: list[Array] = []
        for (mine, axis, shift), (yours, other, _) in zip(sides[0][name].tables, sides[1][name].tables):
            a, b = (w[n].const if n in w else None for w, n in zip(weights, (mine, yours)))
            if a is None or b is None or a is b or a.shape != b.shape or axis != other or a.dtype != b.dtype:
                continue
            unequal = (a != b) if a.dtype.kind not in "f" else (a != b) & ~((a != a) & (b != b))
            apart = np.flatnonzero(np.moveaxis(unequal, axis, 0).reshape(a.shape[axis], -1).any(1))
            rows.append(apart - shift)
        merged = np.unique(np.concatenate(rows)) if rows else np.empty(0, np.int64)
        if merged.size:
            found[name] = merged
    return found


class _Reading:
    """A model flattened over its bodies: value → its readers, its type, its constant."""

    def __init__(self, model: ModelProto) -> None:
        self.model = _with_types(model)
        self.readers: defaultdict[str, list[tuple[NodeProto, int]]] = defaultdict(list)
        self.carried: defaultdict[str, list[str]] = defaultdict(list)  # into bodies and out of them
        self.dims: dict[str, Dims] = {}
        self.dtypes: dict[str, str] = {}
        self.constants: dict[str, Array] = {}
        self.nodes: list[NodeProto] = []
        self._walk(self.model.graph)

    def interface(self) -> Interface:
        graph = self.model.graph
        initializers = {tensor.name for tensor in graph.initializer}
        overridable = self.model.ir_version >= 4
        inputs: list[InputSpec] = []
        for value in graph.input:
            dtype, dims, container = _type(value.type)
            uses = self._uses(value.name) if dtype.startswith(("int", "uint")) else _Uses()
            dims = dims and tuple(d if d not in _NAMELESS else f"{value.name}[{i}]" for i, d in enumerate(dims))
            has_default = value.name in initializers
            default = self.constants.get(value.name) if has_default and overridable else None
            inputs.append(
                InputSpec(
                    value.name,
                    dtype,
                    dims,
                    container,
                    has_default,
                    default,
                    tuple(dict.fromkeys(uses.below)),
                    bool(uses.below) and uses.wraps,
                    tuple(dict.fromkeys(uses.tables)),
                    tuple(sorted(set(uses.constants))),
                    uses.decides_shape,
                )
            )
        coarse = self._coarseness()
        outputs = tuple(
            OutputSpec(value.name, *_type(value.type), precision=COARSENESS[coarse.get(value.name, 1)])
            for value in graph.output
        )
        guards = any(n.op_type in ("IsNaN", "IsInf") or _compares_with_itself(n) for n in self.nodes)
        return Interface(tuple(inputs), outputs, self.model.ir_version, guards, self._small_floats())

    def _small_floats(self) -> tuple[float, ...]:
        import numpy as np

        few = (a for a in self.constants.values() if a.size <= 4 and a.dtype.kind == "f")
        return tuple(sorted({float(x) for a in few for x in a.ravel() if np.abs(x) < _OVERFLOWS}))

    def _walk(self, graph: GraphProto) -> None:
        from onnx import numpy_helper

        for tensor in graph.initializer:
            self.dims[tensor.name] = tuple(tensor.dims)
            self.dtypes[tensor.name] = _dtype(tensor.data_type)
            if tensor.data_location != tensor.EXTERNAL:
                self.constants[tensor.name] = numpy_helper.to_array(tensor)
        for value in (*graph.input, *graph.value_info, *graph.output):
            dtype, dims, _ = _type(value.type)
            self.dtypes.setdefault(value.name, dtype)
            if dims is not None:
                self.dims.setdefault(value.name, dims)
        for node in graph.node:
            self.nodes.append(node)
            for slot, name in enumerate(node.input):
                self.readers[name].append((node, slot))
            for attribute in node.attribute:
                if node.op_type == "Constant":
                    self._constant(node.output[0], attribute)
                for body in _bodies(attribute):
                    self._walk(body)
                    self._carry(node, body)

    def _constant(self, name: str, attribute: AttributeProto) -> None:
        import numpy as np
        from onnx import helper, numpy_helper

        if attribute.name == "value":
            self.dims[name] = tuple(attribute.t.dims)
            if attribute.t.data_location != attribute.t.EXTERNAL:
                self.constants[name] = numpy_helper.to_array(attribute.t)
        elif attribute.name in ("value_int", "value_ints", "value_float", "value_floats"):
            self.constants[name] = np.asarray(helper.get_attribute_value(attribute))

    def _carry(self, node: NodeProto, body: GraphProto) -> None:
        """Join the values that a Loop, Scan or If hands to its body and takes from it."""
        into = {"Loop": 0, "Scan": 0}.get(node.op_type)
        if into is not None:
            for outer, inner in zip(node.input, body.input):
                self.carried[outer].append(inner.name)
        skip = 1 if node.op_type == "Loop" else 0  # the condition
        for inner, outer in zip(list(body.output)[skip:], node.output):
            self.carried[inner.name].append(outer)

    def _uses(self, name: str) -> _Uses:
        """What the values of an integer input are used for: they are followed with the constant added to them."""
        import numpy as np

        uses = _Uses()
        todo: list[tuple[str, int | None]] = [(name, 0)]  # value, what was added to it; None: computed otherwise
        seen: set[tuple[str, int | None]] = set()
        while todo:
            at = value, shift = todo.pop()
            if at in seen or len(seen) > 10_000:
                continue
            seen.add(at)
            todo += [(inner, shift) for inner in self.carried[value]]
            for node, slot in self.readers[value]:
                op = node.op_type
                for index, table in _INDEXES.get((node.domain if node.domain != "ai.onnx" else "", op), ()):
                    if slot == index and len(node.input) > table:
                        sizes = self._table(node, node.input[table])
                        if shift is None or sizes is None or (shift and not all(isinstance(n, int) for n in sizes)):
                            uses.decides_shape = True
                        else:
                            uses.below += [n - shift if isinstance(n, int) else n for n in sizes]
                            uses.wraps &= op in _WRAPS and shift >= 0
                            if op == "Gather" and node.input[table] in self.dims:
                                uses.tables.append((node.input[table], self._axis(node), shift))
                if slot in _SHAPES.get(op, ()):
                    uses.decides_shape = True
                if op in _COMPARES and shift == 0:
                    for number in self._numbers(node.input[1 - slot]):
                        uses.constants.append(number)
                if slot in _KEEPS.get(op, ()):
                    if op == "Cast" and not _dtype(node.attribute[0].i).startswith(("int", "uint")):
                        continue
                    todo += [(out, shift) for out in node.output]
                elif op in _COMPUTES:
                    moved = None
                    if op in ("Add", "Sub") and shift is not None and (op == "Add" or slot == 0):
                        other = self.constants.get(node.input[1 - slot])
                        if other is not None and other.size == 1 and np.issubdtype(other.dtype, np.integer):
                            moved = shift + (int(other.item()) if op == "Add" else -int(other.item()))
                    todo.append((node.output[0], moved))
        return uses

    def _numbers(self, name: str) -> list[int | float]:
        value = self.constants.get(name)
        return value.ravel().tolist() if value is not None and value.size <= 8 and value.dtype.kind in "iuf" else []

    def _axis(self, node: NodeProto) -> int:
        return next((a.i for a in node.attribute if a.name == "axis"), 0)

    def _table(self, node: NodeProto, table: str) -> Dims | None:
        """The sizes that an index operand of `node` must stay below."""
        dims = self.dims.get(table)
        if not dims:
            return None
        if node.op_type in ("GatherND", "ScatterND"):
            depth = (self.dims.get(node.input[1]) or ("",))[-1]
            sizes = dims[:depth] if isinstance(depth, int) else dims
        else:
            axis = self._axis(node)
            sizes = (dims[axis],) if -len(dims) <= axis < len(dims) else ("",)
        return None if "" in sizes else sizes

    def _coarseness(self) -> dict[str, int]:
        """Value → index into COARSENESS of the coarsest floating type on the way to it (float32 if none)."""
        own = {name: COARSENESS.index(dtype) for name, dtype in self.dtypes.items() if dtype in COARSENESS}
        found: dict[str, int] = dict(own)
        for node in self.nodes:  # bodies come right after their owner: their results are joined through `carried`
            reached = [found[name] for name in node.input if name in found]
            for attribute in node.attribute:
                if attribute.name == "to" and _dtype(attribute.i) in COARSENESS:
                    reached.append(COARSENESS.index(_dtype(attribute.i)))
                for body in _bodies(attribute):
                    reached += [own[v.name] for v in body.output if v.name in own]
            for out in node.output:
                levels = [*reached, *([own[out]] if out in own else [])]
                if levels:
                    found[out] = max(levels)
                    for outer in self.carried[out]:
                        found[outer] = max(found.get(outer, 0), found[out])
        return found


@dataclass(slots=True)
class _Uses:
    below: list[int | str] = field(default_factory=list["int | str"])
    wraps: bool = True
    tables: list[tuple[str, int, int]] = field(default_factory=list[tuple[str, int, int]])
    constants: list[int | float] = field(default_factory=list["int | float"])
    decides_shape: bool = False


def _with_types(model: ModelProto) -> ModelProto:
    """The model with inlined functions and inferred types."""
    import onnx
    from onnx.inliner import inline_local_functions

    if model.functions:
        model = inline_local_functions(model)
    try:
        return onnx.shape_inference.infer_shapes(model, strict_mode=False)
    except Exception:  # what cannot be inferred is unknown; whether the model is valid is asked of the runtime
        return model


def _type(proto: TypeProto) -> tuple[str, Dims | None, str]:
    """dtype, dims ("" where nameless) and container of a type."""
    container = {"sequence_type": "sequence", "optional_type": "optional", "map_type": "map"}.get(
        proto.WhichOneof("value") or "", "tensor"
    )
    while proto.WhichOneof("value") in ("sequence_type", "optional_type"):
        proto = proto.sequence_type.elem_type if proto.HasField("sequence_type") else proto.optional_type.elem_type
    tensor = proto.tensor_type
    if not tensor.HasField("shape"):
        return _dtype(tensor.elem_type), None, container
    dims = tuple(d.dim_value if d.HasField("dim_value") and d.dim_value >= 0 else d.dim_param for d in tensor.shape.dim)
    return _dtype(tensor.elem_type), dims, container


def _dtype(element: int) -> str:
    from onnx import TensorProto, helper

    if element == TensorProto.STRING:
        return "string"
    return str(helper.tensor_dtype_to_np_dtype(element)) if element else "undefined"


def _bodies(attribute: AttributeProto) -> Iterator[GraphProto]:
    if attribute.HasField("g"):
        yield attribute.g
    yield from attribute.graphs


def _compares_with_itself(node: NodeProto) -> bool:
    return node.op_type == "Equal" and node.input[0] == node.input[1]  # x = x: false for NaN alone


def differences(original: Interface, result: Interface, dims: Binding) -> list[str]:
    """What a caller of `original` would notice in `result`, a sentence each; sizes fixed on purpose are in `dims`.

    Initializers among the inputs can be overridden from IR 4 on; before, they are no part of the interface.
    """
    found: list[str] = []
    theirs = {spec.name: spec for spec in result.inputs}
    for spec in original.inputs:
        other = theirs.get(spec.name)
        if other is None or (other.has_default and not spec.has_default):
            if not spec.has_default or original.ir_version >= 4:
                found.append(f"input {spec.name!r} is gone")
            continue
        if spec.has_default and not other.has_default:
            found.append(f"input {spec.name!r} has lost its default")
        found += _type_difference("input", spec, other, dims)
    known = {spec.name for spec in original.inputs}
    found += [f"input {spec.name!r} is new" for spec in result.inputs if spec.name not in known]
    order, new_order = ([s.name for s in side.required if s.name in theirs] for side in (original, result))
    if not found and order != new_order:
        found.append(f"inputs are ordered {', '.join(new_order)} instead of {', '.join(order)}")
    outputs, new_outputs = ([spec.name for spec in side.outputs] for side in (original, result))
    if outputs != new_outputs:
        found.append(f"outputs are {', '.join(new_outputs)} instead of {', '.join(outputs)}")
    else:
        for spec, other in zip(original.outputs, result.outputs):
            found += _type_difference("output", spec, other, dims)
    return found


def _type_difference(
    kind: str, spec: InputSpec | OutputSpec, other: InputSpec | OutputSpec, dims: Binding
) -> list[str]:
    """A dtype, container, rank or size that is not the same; an output's free sizes may have become known."""
    if (spec.dtype, spec.container) != (other.dtype, other.container):
        return [f"{kind} {spec.name!r} is {other.dtype} {other.container} instead of {spec.dtype} {spec.container}"]
    mine, yours = spec.dims, other.dims
    if mine is None or yours is None:
        return [f"{kind} {spec.name!r} has lost its rank"] if yours is None and mine is not None else []

    def same(mine: int | str, yours: int | str) -> bool:
        if isinstance(mine, str) and mine in dims:
            return dims[mine] == yours or mine == yours
        return mine == yours or (kind == "output" and isinstance(mine, str))

    if len(mine) == len(yours) and all(map(same, mine, yours)):
        return []
    return [f"{kind} {spec.name!r} is {list(yours)} instead of {list(mine)}"]
