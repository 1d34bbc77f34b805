"""What a model promises to its callers, and the three ways to change it on purpose: freeze, extract, rename.

They work in place on a model that was just read, before the optimizer and its editor see it.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from onnx import AttributeProto, TensorProto, TensorShapeProto, TypeProto, ValueInfoProto, shape_inference

from optimizer.core import wire
from optimizer.core.errors import BadInput
from optimizer.core.graph import Graph, Model, Node, Value, attach, lower, set_type, type_proto, use
from optimizer.core.tensor import BITS
from optimizer.core.text import did_you_mean, safe

# ── the interface ─────────────────────────────────────────────────────────────────────────────────────────────────────

Size = int | str | None  # of a dimension: fixed, named, or neither


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output: element type (or the serialized type of what is no tensor) and dims (None: any rank)."""

    name: str
    dtype: int
    dims: tuple[Size, ...] | None
    other: bytes = b""

    def __str__(self) -> str:
        if self.dtype == 0:
            return f"{self.name!r} of a type that is no tensor"
        dims = "any shape" if self.dims is None else f"[{', '.join('?' if d is None else str(d) for d in self.dims)}]"
        dtype = TensorProto.DataType.Name(self.dtype).lower() if self.dtype in BITS else f"of type {self.dtype}"
        return f"{self.name!r} {dtype} {dims}"


@dataclass(frozen=True, slots=True)
class Interface:
    """Inputs that a caller must give, those it may override (IR ≥ 4: inputs with an initializer), and outputs."""

    required: tuple[Port, ...]
    overridable: tuple[Port, ...]
    outputs: tuple[Port, ...]

    @staticmethod
    def of(model: Model) -> Interface:
        g = model.graph
        inputs = {i.name: i for i in g.proto.input}
        required = [_port(inputs[v.name]) for v in g.inputs if v.tensor is None]
        given = [_port(inputs[v.name]) for v in g.inputs if v.tensor is not None]
        overridable = given if model.proto.ir_version >= 4 else []
        return Interface(tuple(required), tuple(overridable), tuple(_port(o) for o in g.proto.output))


def _port(i: ValueInfoProto) -> Port:
    if not i.type.HasField("tensor_type"):
        return Port(i.name, 0, None, i.type.SerializeToString(deterministic=True))
    t = i.type.tensor_type
    dims = tuple(_size(d) for d in t.shape.dim) if t.HasField("shape") else None
    return Port(i.name, t.elem_type, dims)


def _size(d: Any) -> Size:
    return d.dim_value if d.HasField("dim_value") else d.dim_param or None


def same(a: Interface, b: Interface) -> str | None:
    """The first difference between two interfaces in words, None if there is none; the order of ports counts."""
    for kind, xs, ys in (
        ("input", a.required, b.required),
        ("overridable input", a.overridable, b.overridable),
        ("output", a.outputs, b.outputs),
    ):
        left, right = {p.name: p for p in xs}, {p.name: p for p in ys}
        for p in xs:
            if p.name not in right:
                return f"the {kind} {p} is gone"
            if right[p.name] != p:
                return f"the {kind} {p} became {right[p.name]}"
        for p in ys:
            if p.name not in left:
                return f"the {kind} {p} is new"
        if [p.name for p in xs] != [p.name for p in ys]:
            return f"the {kind}s come in another order: {', '.join(repr(p.name) for p in ys)}"
    return None


# ── freeze ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def freeze(
    model: Model, dims: Mapping[str, int] | None = None, shapes: Mapping[str, Sequence[int]] | None = None
) -> None:
    """Give named dimensions, and the dimensions of inputs, fixed sizes wherever the model declares them.

    Args:
        dims: size by name; a declared expression in it (`2*s+1`) is computed once all of its names are fixed.
        shapes: whole shape by input; it fixes the names that the input's dims have.

    Raises:
        BadInput: nothing is called so, or two sizes contradict each other.
    """
    sizes = dict(dims or {})
    types = list(_types(model))
    names = {d.dim_param for t in types for d in _dimensions(t) if d.dim_param}
    known = names | {x for n in names for x in _names_in(n)}
    for name, n in sizes.items():
        if name not in known:
            listed = f"the model's dimensions are {', '.join(sorted(map(safe, known)))}" if known else "it names none"
            raise BadInput(f"no dimension is called {name!r}", fix=did_you_mean(name, known) or listed)
        _check_size(n, f"dimension {name!r}")
    for name, shape in (shapes or {}).items():
        _fix_input(_input(model, name), name, shape, sizes)
    for name, n in sizes.items():
        if _evaluate(name, sizes) not in (None, n):
            raise BadInput(f"the dimension {name!r} cannot be {n} with these sizes", fix="give sizes that agree")
    for t in types:
        for d in _dimensions(t):
            n = sizes.get(d.dim_param, _evaluate(d.dim_param, sizes)) if d.dim_param else None
            if n is not None:
                d.dim_value = n
    for g in model.graphs():
        inputs = {i.name: i.type for i in g.proto.input}
        for v in g.inputs:
            if v.name in inputs:
                set_type(v, inputs[v.name])
                if v.tensor is not None and v.dims is not None:
                    _check_default(v)


def _input(model: Model, name: str) -> ValueInfoProto:
    inputs = {i.name: i for i in model.graph.proto.input}
    if name not in inputs:
        listed = f"the inputs are {', '.join(map(safe, inputs))}"
        raise BadInput(f"no input is called {name!r}", fix=did_you_mean(name, inputs) or listed)
    return inputs[name]


def _fix_input(i: ValueInfoProto, name: str, shape: Sequence[int], sizes: dict[str, int]) -> None:
    if not i.type.HasField("tensor_type"):
        raise BadInput(f"the input {name!r} is no tensor, so it has no shape", fix="leave it out")
    t = i.type.tensor_type
    if not t.HasField("shape"):
        t.shape.SetInParent()
        t.shape.dim.extend(TensorShapeProto.Dimension() for _ in shape)
    if len(t.shape.dim) != len(shape):
        raise BadInput(
            f"the input {name!r} has {len(t.shape.dim)} dimensions, {len(shape)} were given",
            fix="give one size a dimension",
        )
    for k, (d, n) in enumerate(zip(t.shape.dim, shape)):
        _check_size(n, f"dimension {k} of input {name!r}")
        fixed = d.dim_value if d.HasField("dim_value") and d.dim_value >= 0 else sizes.get(d.dim_param, n)
        if fixed != n:
            raise BadInput(
                f"dimension {k} of input {name!r} is {fixed}, so it cannot be {n}", fix="give sizes that agree"
            )
        if d.dim_param:
            sizes[d.dim_param] = n
        else:
            d.dim_value = n


def _check_size(n: int, what: str) -> None:
    if n < 0:
        raise BadInput(f"{what} cannot have the size {n}", fix="give 0 or more")


def _check_default(v: Value) -> None:
    assert v.tensor is not None and v.dims is not None
    have = v.tensor.shape
    if len(have) != len(v.dims) or any(isinstance(d, int) and d != n for d, n in zip(v.dims, have)):
        raise BadInput(f"the input {v.name!r} has a default of shape {list(have)}", fix="give it that shape")


def _types(model: Model) -> Iterator[TypeProto]:
    """Every declared type: of values in all graphs and functions, and those that attributes hold."""
    for g in model.graphs():
        for infos in (g.proto.input, g.proto.output, g.proto.value_info):
            yield from (i.type for i in infos)
        for n in g:
            if n.proto is not None:
                yield from (a.tp for a in n.proto.attribute if a.type == AttributeProto.TYPE_PROTO)
    for f in model.proto.functions:
        yield from (i.type for i in f.value_info)


def _dimensions(t: TypeProto) -> Iterator[Any]:
    """The dims of a type, however deep they lie in sequences, optionals and maps."""
    kind = t.WhichOneof("value")
    if kind in ("tensor_type", "sparse_tensor_type"):
        yield from getattr(t, kind).shape.dim
    elif kind in ("sequence_type", "optional_type"):
        yield from _dimensions(getattr(t, kind).elem_type)
    elif kind == "map_type":
        yield from _dimensions(t.map_type.value_type)


def _parse(text: str) -> ast.expr | None:
    """The expression that exporters write as a dim, `2*s+1` say; a longer text is only a name."""
    try:
        return ast.parse(text, mode="eval").body if len(text) <= 200 else None
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _names_in(text: str) -> set[str]:
    """The names that an expression computes with."""
    e = _parse(text)
    if e is None or _number(e, lambda _: 1) is None:
        return set()
    return {x.id for x in ast.walk(e) if isinstance(x, ast.Name)} - _CALLS.keys()


def _evaluate(text: str, sizes: Mapping[str, int]) -> int | None:
    """The size that an expression has; None while some of its names are free."""
    e = _parse(text)
    n = _number(e, sizes.get) if e is not None else None
    return n if n is None or n >= 0 else None


_BINARY: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.FloorDiv: lambda a, b: a // b,
    ast.Mod: lambda a, b: a % b,
}
_CALLS: dict[str, Callable[..., int]] = {
    "min": min,
    "max": max,
    "floordiv": lambda a, b: a // b,
    "mod": lambda a, b: a % b,
}


def _number(e: ast.expr, size: Callable[[str], int | None]) -> int | None:
    """The value of an expression over sizes; None where it has another operator, a free name, or no value."""
    if isinstance(e, ast.Constant):
        return e.value if type(e.value) is int else None
    if isinstance(e, ast.Name):
        return size(e.id)
    if isinstance(e, ast.UnaryOp) and isinstance(e.op, ast.USub):
        x = _number(e.operand, size)
        return None if x is None else -x
    if isinstance(e, ast.BinOp):
        parts, f = [e.left, e.right], _BINARY.get(type(e.op))
    elif isinstance(e, ast.Call) and isinstance(e.func, ast.Name) and len(e.args) == 2 and not e.keywords:
        parts, f = e.args, _CALLS.get(e.func.id)
    else:
        return None
    a, b = (_number(x, size) for x in parts)
    if a is None or b is None or f is None:
        return None
    try:
        return f(a, b)
    except ZeroDivisionError:
        return None


# ── extract ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def extract(model: Model, inputs: Sequence[str] | None = None, outputs: Sequence[str] | None = None) -> None:
    """Keep the part of the main graph that computes `outputs` from `inputs`, values named anywhere in it.

    Args:
        inputs: become the inputs, in this order; None: those of the present ones that the outputs still need.
        outputs: become the outputs, in this order; None: the present ones.

    Raises:
        BadInput: there is no such value, its type is unknown, or the outputs need an input that is not listed.
    """
    g = model.graph
    known = {v.name: v for v in _values(g) if v.name}
    results = [_find(known, o) for o in outputs] if outputs is not None else list(g.outputs)
    cut = [_find(known, i) for i in inputs] if inputs is not None else list(g.inputs)
    for kind, listed in (("input", inputs), ("output", outputs)):
        if len(set(listed or ())) != len(listed or ()):
            raise BadInput(f"an {kind} is listed twice", fix="list each once")
    types = _Types(model)
    ports = {v.name: types.of(v) for v in (*cut, *results)}
    needed, sources = _needed(g, results, set(cut))
    defaults = [v for v in g.inputs if v.tensor is not None and v in sources and v not in cut]
    if inputs is None:
        cut = [v for v in cut if v in sources]
    elif missing := [v.name for v in g.inputs if v in sources and v not in cut and v not in defaults]:
        names = ", ".join(map(safe, missing))
        raise BadInput(f"the outputs also need {names}", fix=f"list {names} among the inputs, or cut further down")
    ports |= {v.name: types.of(v) for v in defaults}
    for n in reversed(g):
        if n not in needed:
            attach(n, -1)
            g.unlink(n)
    for v in g.outputs:
        v.is_output = False
    for i, v in enumerate(cut):
        if v.producer is not None and v.producer.graph is g:
            cut[i] = _split_off(model, v, results)
        elif v.tensor is not None and v not in g.inputs:
            v.tensor = None  # a constant that was asked for as an input
        cut[i].producer = None
    cut += defaults
    for v in (*g.inputs, *cut):
        v.is_input = v in cut
    for v in list(g.initializers):
        if v.tensor is None or (v not in cut and v not in sources and v not in results):
            del g.initializers[v]
    g.inputs[:], g.outputs[:] = cut, results
    for v in results:
        v.is_output = True
    _declare(g, ports)
    _drop(g, sources)
    model.names = {v.name for b in model.graphs() for v in _values(b) if v.name}


def _find(known: Mapping[str, Value], name: str) -> Value:
    if name not in known:
        raise BadInput(f"no value of the main graph is called {name!r}", fix=did_you_mean(name, known))
    return known[name]


def _needed(g: Graph, results: Iterable[Value], cut: set[Value]) -> tuple[set[Node], set[Value]]:
    """Nodes between the cut and the results, and all values without a maker that these read."""
    needed: set[Node] = set()
    sources: set[Value] = set()
    stack = list(results)
    seen: set[Value] = set()
    while stack:
        v = stack.pop()
        if v in seen:
            continue
        seen.add(v)
        if v in cut or v.producer is None:
            sources.add(v)
        elif v.producer not in needed and v.producer.graph is g:
            needed.add(v.producer)
            stack += [x for x in v.producer.reads() if x.graph is g]
    return needed, sources


def _split_off(model: Model, v: Value, results: list[Value]) -> Value:
    """An input in the place of a value whose maker stays for its other outputs; the maker's value gets a fresh name."""
    g, maker = model.graph, v.producer
    assert maker is not None
    new = Value(v.name, None, g)
    v.name = model.fresh_name(v.name)
    maker.dirty = True
    for r, count in list(v.uses.items()):  # what they read is called as before, so their protos stay true
        r.inputs = [new if x is v else x for x in r.inputs]
        for b in r.bodies:
            b.outputs[:] = [new if x is v else x for x in b.outputs]
        use(v, r, -count)
        use(new, r, count)
    results[:] = [new if x is v else x for x in results]
    return new


class _Types:
    """Declared types, inferred ones where a value has none; onnx's inference runs once, on a lifted, valid graph."""

    def __init__(self, model: Model) -> None:
        g = model.graph
        self.model = model
        self.declared = {i.name: i.type for i in (*g.proto.value_info, *g.proto.output, *g.proto.input)}
        self.inferred: dict[str, TypeProto] | None = None

    def of(self, v: Value) -> TypeProto:
        t = self.declared.get(v.name)
        if t is None and v.tensor is not None:
            v.dims = v.tensor.shape
            t = type_proto(v)
        if t is None or not _complete(t):
            if self.inferred is None:
                self.inferred = _inferred(self.model)
            t = self.inferred.get(v.name, t)
        if t is None or not _complete(t):
            raise BadInput(
                f"the type of {v.name!r} is neither declared nor can it be inferred",
                fix="cut at another value, or declare its type in value_info",
            )
        return t


def _complete(t: TypeProto) -> bool:
    return t.tensor_type.elem_type in BITS if t.HasField("tensor_type") else t.WhichOneof("value") is not None


def _inferred(model: Model) -> dict[str, TypeProto]:
    """Types of the main graph's values by onnx's own inference; weights stay where they lie."""
    bare = wire.gather(wire.replace(lower(model).SerializeToString(), wire.small))
    try:
        g = shape_inference.infer_shapes(bare).graph
    except (shape_inference.InferenceError, RuntimeError, ValueError):
        return {}
    return {i.name: i.type for i in (*g.value_info, *g.output)}


def _declare(g: Graph, ports: Mapping[str, TypeProto]) -> None:
    """Write what the graph's inputs and outputs are now into its proto; what value_info said of them goes."""
    for field, values in ((g.proto.input, g.inputs), (g.proto.output, g.outputs)):
        old = {i.name: i for i in field}
        new: list[ValueInfoProto] = []
        for v in values:
            i = ValueInfoProto(name=v.name)
            i.CopyFrom(old.get(v.name, i))  # an entry that stays keeps its documentation
            i.type.CopyFrom(ports[v.name])
            new.append(i)
        del field[:]
        field.extend(new)
    infos = [i for i in g.proto.value_info if i.name not in ports]
    kept = [ValueInfoProto.FromString(i.SerializeToString()) for i in infos]
    del g.proto.value_info[:]
    g.proto.value_info.extend(kept)
    g.infos = {i.name: i for i in (*g.proto.output, *g.proto.value_info)}
    for v, i in zip(g.inputs, g.proto.input):
        set_type(v, i.type)


def _drop(g: Graph, sources: set[Value]) -> None:
    """Sparse initializers and quantization notes of values that are no longer there."""
    read = {v.name for v in sources}
    gone = [i for i, s in enumerate(g.proto.sparse_initializer) if s.values.name not in read]
    for i in reversed(gone):
        del g.proto.sparse_initializer[i]
    names = {v.name for n in g for v in (*n.inputs, *n.outputs) if v is not None} | {v.name for v in g.inputs}
    gone = [i for i, q in enumerate(g.proto.quantization_annotation) if q.tensor_name not in names]
    for i in reversed(gone):
        del g.proto.quantization_annotation[i]


# ── rename ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def rename(model: Model, names: Mapping[str, str]) -> None:
    """Rename values, all at once: inputs, outputs, inner ones, those in bodies, and wherever they are read.

    Raises:
        BadInput: nothing is called so, the new name is taken, or it is no name.
    """
    for old, new in names.items():
        if old not in model.names:
            raise BadInput(f"no value is called {old!r}", fix=did_you_mean(old, model.names))
        if not new or not new.isprintable():
            raise BadInput(f"{new!r} is no name for a value", fix="give it printable text")
    taken = (model.names - names.keys()) | {s for s in names.values() if list(names.values()).count(s) > 1}
    for old, new in names.items():
        if new in taken:
            raise BadInput(f"{old!r} cannot be called {new!r}: another value is", fix="choose another name")
    for g in model.graphs():
        for v in _values(g):
            if v.name in names:
                _rename(v, names[v.name])
        _rename_declared(g, names)
    model.names -= names.keys()
    model.names.update(names.values())


def _values(g: Graph) -> list[Value]:
    """The values that belong to this graph, each once."""
    made = (v for n in g for v in n.outputs)
    read = (v for n in g for v in n.reads() if v.graph is g)  # a sparse initializer is in no list
    return list(dict.fromkeys((*g.inputs, *g.initializers, *made, *read)))


def _rename(v: Value, name: str) -> None:
    v.name = name
    for n in (*v.uses, *([v.producer] if v.producer is not None else [])):
        n.dirty = True
        g = n.graph
        while g is not None and g.owner is not None:
            g.touched = True  # its proto is no longer what its nodes say
            g = g.owner.graph


def _rename_declared(g: Graph, names: Mapping[str, str]) -> None:
    """The same names where the graph's proto says something about values."""
    for infos in (g.proto.input, g.proto.output, g.proto.value_info):
        for i in infos:
            i.name = names.get(i.name, i.name)
    for s in g.proto.sparse_initializer:
        s.values.name = names.get(s.values.name, s.values.name)
    for q in g.proto.quantization_annotation:
        q.tensor_name = names.get(q.tensor_name, q.tensor_name)
        for p in q.quant_parameter_tensor_names:
            p.value = names.get(p.value, p.value)
    g.infos = {names.get(k, k): i for k, i in g.infos.items()}
