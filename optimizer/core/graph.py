"""Model, Graph, Node, Value: the graph is what this project is about, so it is our own, small one.

A node keeps its NodeProto until something changes it: what is untouched is copied back by C, byte for byte. Order is an
intrusive list with integer labels, so "a before b" is one comparison. Values know their readers, those in bodies as
themselves. Only `core.edit.Editor` changes a graph that is in use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, TypeProto, defs, helper

from optimizer.core.dims import Dim, Dims, is_unknown, named, unknown
from optimizer.core.errors import BadInput
from optimizer.core.region import Buffer, MappedFile, Region
from optimizer.core.tensor import Array, Tensor, misfit
from optimizer.core.text import safe
from optimizer.core.wire import field_of

GAP = 1 << 20

Attribute = Any  # int | float | str | bytes | list of these | Tensor | AttributeProto (graphs, types, sparse tensors)


class Value:
    """One value of one graph: made by a node, or an input, or an initializer.

    `dtype` is the ONNX element type (0: unknown or no tensor), `dims` the shape if the rank is known, `known` the value
    of a small integer tensor as far as it is known (an object array of dims), `type` the declared type of a non-tensor.
    """

    __slots__ = (
        "dims",
        "dtype",
        "graph",
        "is_input",
        "is_output",
        "known",
        "name",
        "producer",
        "tensor",
        "type",
        "uses",
    )

    def __init__(self, name: str, producer: Node | None = None, graph: Graph | None = None) -> None:
        self.name = name
        self.producer = producer
        self.graph = graph
        self.uses: dict[Node, int] = {}
        self.tensor: Tensor | None = None
        self.type: TypeProto | None = None
        self.dtype = 0
        self.dims: Dims | None = None
        self.known: Array | None = None
        self.is_input = self.is_output = False

    @property
    def const(self) -> Array | None:
        """The array of a constant; None for anything else, an overridable initializer included."""
        t = self.tensor
        return None if t is None or self.is_input else t.numpy()

    @property
    def is_const(self) -> bool:
        return self.tensor is not None and not self.is_input

    @property
    def rank(self) -> int | None:
        return None if self.dims is None else len(self.dims)

    def __repr__(self) -> str:
        return f"%{self.name}"


class Node:
    """One operation. `inputs` holds None where an optional input is left out; `bodies` are its subgraphs, in order."""

    __slots__ = (
        "_attributes", "bodies", "dirty", "domain", "graph", "inputs", "name", "next", "op", "outputs", "pos", "prev",
        "proto",
    )  # fmt: skip

    def __init__(self, op: str, domain: str, name: str, proto: NodeProto | None) -> None:
        self.op, self.domain, self.name, self.proto = op, domain, name, proto
        self.dirty = False
        self._attributes: dict[str, Attribute] | None = None
        self.inputs: list[Value | None] = []
        self.outputs: list[Value] = []
        self.bodies: tuple[Graph, ...] = ()
        self.graph: Graph | None = None
        self.prev: Any = None
        self.next: Any = None
        self.pos = 0

    @property
    def attributes(self) -> dict[str, Attribute]:
        """Attributes that the node spells out, as Python values; read only (a change is a new node)."""
        a = self._attributes
        if a is None:
            protos = self.proto.attribute if self.proto is not None else ()
            a = self._attributes = {x.name: attribute_value(x) for x in protos} if protos else {}
        return a

    def set_attributes(self, attributes: dict[str, Attribute]) -> None:
        """For nodes not yet in a graph."""
        self._attributes = attributes

    @property
    def output(self) -> Value:
        return self.outputs[0]

    def reads(self) -> Iterator[Value]:
        """Every value this node reads, those that its bodies capture included."""
        for v in self.inputs:
            if v is not None:
                yield v
        for b in self.bodies:
            yield from b.captures()

    def __repr__(self) -> str:
        return f"{self.op}({', '.join(map(repr, self.inputs))})→{self.outputs}"


class Graph:
    """Nodes in topological order, with inputs, outputs and initializers; a body knows the node it belongs to."""

    __slots__ = (
        "count", "dead", "graph", "infos", "initializers", "inputs", "model", "next", "outputs", "owner", "owners",
        "pos", "prev", "proto", "touched",
    )  # fmt: skip

    def __init__(self, model: Model, owner: Node | None, proto: GraphProto) -> None:
        self.model, self.owner, self.proto = model, owner, proto
        self.prev: Any = self
        self.next: Any = self
        self.graph = None
        self.pos = self.count = 0
        self.inputs: list[Value] = []
        self.outputs: list[Value] = []
        self.initializers: dict[Value, None] = {}
        # initializers no longer read: marked, never removed, so that undo keeps their order
        self.dead: set[Value] = set()
        self.owners: dict[Node, None] = {}  # nodes with bodies
        self.infos: dict[str, Any] = {}  # declared value_info by name; parsed only when someone needs it
        self.touched = False  # a body whose proto is no longer what the graph says

    def __iter__(self) -> Iterator[Node]:
        """Nodes in order; safe while the node at hand, or others, are removed or inserted."""
        n = self.next
        while n is not self:
            if n.graph is self:
                yield n
            n = n.next

    def __reversed__(self) -> Iterator[Node]:
        n = self.prev
        while n is not self:
            if n.graph is self:
                yield n
            n = n.prev

    def __len__(self) -> int:
        return self.count

    def __bool__(self) -> bool:
        return True

    @property
    def opset(self) -> int:
        return self.model.opsets.get("", 0)

    def captures(self) -> Iterator[Value]:
        """Values of outer graphs that this body reads, one a reading."""
        inside: set[Graph] = {self}
        yield from _captures(self, inside)

    def link(self, node: Node, after: Node | Graph) -> None:
        """Insert `node` behind `after` (the graph itself: at the front), in O(1)."""
        node.graph = self
        if node.bodies:
            self.owners[node] = None
        q = after.next
        node.prev, node.next = after, q
        after.next = q.prev = node
        self.count += 1
        low = after.pos
        node.pos = (low + q.pos) >> 1 if q is not self else low + GAP
        if node.pos <= low:
            n, i = self.next, GAP
            while n is not self:
                n.pos = i
                i += GAP
                n = n.next

    def unlink(self, node: Node) -> None:
        """Take `node` out; it keeps its own links, so that a walk standing on it goes on."""
        node.prev.next, node.next.prev = node.next, node.prev
        node.graph = None
        if node.bodies:
            del self.owners[node]
        self.count -= 1

    def constants(self) -> Iterator[Value]:
        """Living initializers."""
        return (v for v in self.initializers if v not in self.dead)

    def path(self) -> list[str]:
        """Where a body lies: one `/node.attribute` an owner, outermost first."""
        out: list[str] = []
        g = self
        while g.owner is not None:
            at = g.owner.bodies.index(g)
            out.append(f"{g.owner.name or g.owner.op}.{body_names(g.owner)[at]}")
            assert g.owner.graph is not None
            g = g.owner.graph
        return out[::-1]


@dataclass(frozen=True, slots=True)
class Source:
    """Where a model came from; as long as it lives, so do the buffers that its weights lie in.

    `path` is None for bytes and protos, `size` is bytes of the model without the data that lies in `external` files.
    """

    path: Path | None
    size: int
    buffers: tuple[Buffer, ...]
    external: tuple[MappedFile, ...] = ()


class Model:
    """A graph with what a file holds around it; `proto` is the model without its graph, `source` where it came from."""

    __slots__ = ("fresh", "functions", "graph", "names", "node_names", "opsets", "proto", "source", "warnings")

    def __init__(self, proto: ModelProto, source: Source | None = None) -> None:
        """`proto` without its graph: headers, opsets, functions, metadata."""
        self.proto, self.source = proto, source
        self.opsets = {"" if o.domain == "ai.onnx" else o.domain: o.version for o in proto.opset_import}
        self.functions: dict[tuple[str, str], FunctionProto] = {(f.domain, f.name): f for f in proto.functions}
        self.names: set[str] = set()  # of values, in all graphs
        self.node_names: set[str] = set()
        self.fresh: dict[str, int] = {}
        self.warnings: list[str] = []
        self.graph: Graph

    def graphs(self) -> Iterator[Graph]:
        """The main graph and every body, outer ones first."""
        return _graphs(self.graph)

    def nodes(self) -> Iterator[Node]:
        """Every node, those in bodies included."""
        return all_nodes(self.graph)

    def fresh_name(self, stem: str) -> str:
        """A value name that no graph of the model uses; taken from now on."""
        i = self.fresh.get(stem, 0)
        while True:
            i += 1
            if (s := f"{stem}_{i}") not in self.names:
                self.fresh[stem] = i
                self.names.add(s)
                return s

    def forget_name(self, name: str) -> None:
        """Give back the name that `fresh_name` gave last for its stem."""
        stem, _, i = name.rpartition("_")
        self.names.discard(name)
        self.fresh[stem] = int(i) - 1


def _graphs(graph: Graph) -> Iterator[Graph]:
    yield graph
    for n in sorted(graph.owners, key=lambda n: n.pos):
        for b in n.bodies:
            yield from _graphs(b)


def all_nodes(graph: Graph) -> Iterator[Node]:
    for n in graph:
        yield n
        for b in n.bodies:
            yield from all_nodes(b)


def _captures(graph: Graph, inside: set[Graph]) -> Iterator[Value]:
    for n in graph:
        for v in n.inputs:
            if v is not None and v.graph not in inside:
                yield v
        for b in n.bodies:
            inside.add(b)
            yield from _captures(b, inside)
    for v in graph.outputs:
        if v.graph not in inside:
            yield v


def anchor(node: Node | None, graph: Graph) -> Node | None:
    """The node of `graph` in which `node` lies: itself, or the If, Loop or Scan around it; None if elsewhere."""
    while node is not None and node.graph is not graph:
        node = node.graph.owner if node.graph is not None else None
    return node


def encloses(outer: Graph, inner: Graph | None) -> bool:
    """Whether a node in `inner` may read a value of `outer`."""
    while inner is not None:
        if inner is outer:
            return True
        inner = inner.owner.graph if inner.owner is not None else None
    return False


def use(v: Value | None, node: Node, count: int = 1) -> None:
    """Count `node` as a reader of `v` so many times more (or less)."""
    if v is None:
        return
    n = v.uses.get(node, 0) + count
    if n:
        v.uses[node] = n
    else:
        del v.uses[node]


def attach(node: Node, count: int = 1) -> None:
    """Count the node, and all in its bodies, as readers (−1: no longer)."""
    for v in node.inputs:
        use(v, node, count)
    for b in node.bodies:
        for n in b:
            attach(n, count)
        for v in b.outputs:  # a body may hand out a captured value as it is: its owner reads it
            if v.graph is not b:
                use(v, node, count)


def copy_node(node: Node, mapping: dict[Value, Value]) -> Node:
    """A copy outside any graph, bodies included, reading what `mapping` says; its outputs are added to `mapping`.

    The copy keeps the values' names: it is meant to take the original's place.
    """
    new = Node(node.op, node.domain, node.name, None)
    new.set_attributes(node.attributes)
    new.inputs = [None if v is None else mapping.get(v, v) for v in node.inputs]
    for v in node.outputs:
        mapping[v] = _copy_value(v, new, None)
    new.outputs = [mapping[v] for v in node.outputs]
    new.bodies = tuple(_copy_body(b, new, mapping) for b in node.bodies)
    return new


def _copy_body(body: Graph, owner: Node, mapping: dict[Value, Value]) -> Graph:
    g = Graph(body.model, owner, body.proto)
    g.touched, g.infos = True, body.infos
    for v in (*body.inputs, *body.initializers):
        if v not in mapping:
            mapping[v] = _copy_value(v, None, g)
    g.inputs = [mapping[v] for v in body.inputs]
    g.initializers = {mapping[v]: None for v in body.initializers}
    g.dead = {mapping[v] for v in body.dead}
    for n in body:
        new = copy_node(n, mapping)
        for v in new.outputs:
            v.graph = g
        g.link(new, g.prev)
    g.outputs = [mapping.get(v, v) for v in body.outputs]
    for v in g.outputs:
        v.is_output = v.is_output or v.graph is g
    return g


def _copy_value(v: Value, producer: Node | None, graph: Graph | None) -> Value:
    new = Value(v.name, producer, graph)
    new.tensor, new.type, new.dtype, new.dims, new.known = v.tensor, v.type, v.dtype, v.dims, v.known
    new.is_input, new.is_output = v.is_input, graph is not None and v.is_output
    return new


# ── attributes ────────────────────────────────────────────────────────────────────────────────────────────────────────


def attribute_value(a: AttributeProto) -> Attribute:
    """An AttributeProto as a Python value; graphs, types, sparse tensors and references stay protos."""
    if a.ref_attr_name:
        return a
    value = _VALUE_OF.get(a.type)
    return a if value is None else value(a)


def _decode(s: bytes) -> str | bytes:
    try:
        return s.decode()
    except UnicodeDecodeError:
        return s


_VALUE_OF: dict[int, Callable[[AttributeProto], Attribute]] = {
    AttributeProto.INT: lambda a: a.i,
    AttributeProto.INTS: lambda a: a.ints[:],
    AttributeProto.FLOAT: lambda a: a.f,
    AttributeProto.FLOATS: lambda a: a.floats[:],
    AttributeProto.STRING: lambda a: _decode(a.s),
    AttributeProto.STRINGS: lambda a: [_decode(s) for s in a.strings],
    AttributeProto.TENSOR: lambda a: Tensor(a.t, Region.of(a.t)),
}


def attribute_proto(name: str, value: Attribute) -> AttributeProto:
    if isinstance(value, AttributeProto):
        return value
    if isinstance(value, Tensor):
        own = value.proto.name if value.proto is not None else ""
        return AttributeProto(name=name, type=AttributeProto.TENSOR, t=value.to_proto(own))
    if isinstance(value, (list, tuple)) and not value:
        return AttributeProto(name=name, type=_list_types().get(name, AttributeProto.INTS))
    return helper.make_attribute(name, value)


@lru_cache(None)
def _list_types() -> dict[str, Any]:
    """The element types of list attributes, by name: an empty list does not tell its own."""
    out: dict[str, Any] = {}
    for s in defs.get_all_schemas():
        for name, a in s.attributes.items():
            if a.type in (a.type.FLOATS, a.type.STRINGS):
                out[name] = AttributeProto.FLOATS if a.type == a.type.FLOATS else AttributeProto.STRINGS
    return out


def body_names(node: Node) -> list[str]:
    assert node.proto is not None or node.bodies
    attributes = node.proto.attribute if node.proto is not None else (
        a for a in node.attributes.values() if isinstance(a, AttributeProto)
    )  # fmt: skip
    out: list[str] = []
    for a in attributes:
        if a.type == AttributeProto.GRAPH:
            out.append(a.name)
        elif a.type == AttributeProto.GRAPHS:
            out += [f"{a.name}[{i}]" for i in range(len(a.graphs))]
    return out


# ── from and to protos ────────────────────────────────────────────────────────────────────────────────────────────────


def lift(proto: ModelProto, source: Source | None = None) -> Model:
    """The graph of a model whose large weights were left in their files.

    Raises:
        BadInput: a value is read that nothing makes, a name is made twice, the nodes form a cycle.
    """
    head = ModelProto()
    for f, x in proto.ListFields():
        if f.name != "graph":
            set_field(head, f.name, x)
    model = Model(head, source)
    model.graph = lift_graph(model, proto.graph, None, ())
    for g in model.graphs():
        _declare(g)
    return model


def lift_graph(model: Model, proto: GraphProto, owner: Node | None, outer: tuple[dict[str, Value], ...]) -> Graph:
    g = Graph(model, owner, proto)
    values: dict[str, Value] = {}
    for i in proto.input:
        if i.name in values:
            raise BadInput(
                f"two inputs are called {i.name!r}", at=f"graph {proto.name!r}", fix="give each input a name of its own"
            )
        v = values[i.name] = Value(i.name, None, g)
        v.is_input = True
        set_type(v, i.type)
        g.inputs.append(v)
    for t in proto.initializer[:]:
        v = values.get(t.name)
        if v is None:
            v = values[t.name] = Value(t.name, None, g)
        if v.tensor is not None:
            raise BadInput(
                f"two initializers are called {t.name!r}", at=f"graph {proto.name!r}", fix="remove one of them"
            )
        if why := misfit(t):
            raise _misfit(why, f"initializer {t.name!r}")
        v.tensor = Tensor(t, Region.of(t))
        v.dtype = v.tensor.dtype
        if not v.is_input:
            v.dims = v.tensor.shape
        g.initializers[v] = None
    for s in proto.sparse_initializer:
        if why := misfit(s.values) or misfit(s.indices):
            raise _misfit(why, f"sparse initializer {s.values.name!r}")
        if s.values.name not in values:
            v = values[s.values.name] = Value(s.values.name, None, g)
            v.dtype, v.dims, v.is_input = s.values.data_type, tuple(s.dims), True  # never folded: it stays as it is
    g.infos = {i.name: i for i in proto.value_info[:]}
    nodes: list[Node] = []
    protos = proto.node[:]  # of a repeated field, a slice is thrice as fast as iterating
    node_names = model.node_names
    for p in protos:
        n = Node(p.op_type, "" if p.domain == "ai.onnx" else p.domain, p.name, p)
        node_names.add(n.name)
        for o in p.output[:]:
            v = Value(o, n, g)
            n.outputs.append(v)
            if o:
                if o in values:
                    raise BadInput(
                        f"the value {o!r} is made twice",
                        at=_at(n),
                        fix="every value needs one maker; rename one of them",
                    )
                values[o] = v
        nodes.append(n)
    model.names.update(values)
    get = values.get
    prev: Any = g
    pos = 0
    sorted_ = True
    for n in nodes:
        pos += GAP
        n.pos, n.prev, n.graph = pos, prev, g
        prev.next = prev = n
        p = n.proto
        assert p is not None
        ins = n.inputs
        for x in p.input[:]:
            if not x:
                ins.append(None)
                continue
            v = get(x)
            if v is None:
                v = _outer(x, outer, n)
            elif v.producer is not None and (v.producer.pos == 0 or v.producer is n):
                sorted_ = False  # made further down, or by the node itself
            u = v.uses
            u[n] = u[n] + 1 if n in u else 1
            ins.append(v)
        for a in p.attribute[:]:
            if a.type == AttributeProto.TENSOR:
                if why := misfit(a.t):
                    raise _misfit(why, f"attribute {a.name!r} of {_at(n)}")
                if Region.of(a.t) is not None:
                    n.attributes  # noqa: B018 - a tensor that is opened keeps the buffer it lies in alive
            elif a.type == AttributeProto.GRAPH:
                n.bodies += (lift_graph(model, a.g, n, (*outer, values)),)
            elif a.type == AttributeProto.GRAPHS:
                n.bodies += tuple(lift_graph(model, s, n, (*outer, values)) for s in a.graphs)
    prev.next, g.prev, g.count = g, prev, len(nodes)
    g.owners = {n: None for n in nodes if n.bodies}
    for i in proto.output:
        v = get(i.name)
        if v is None:
            if owner is None:
                raise BadInput(
                    f"nothing makes the graph's output {i.name!r}",
                    at=f"graph {proto.name!r}",
                    fix="an output must be made by a node, or be an input or initializer",
                )
            v = _outer(i.name, outer, owner)
            use(v, owner)
        if v.graph is g:
            v.is_output = True
        g.outputs.append(v)
    if not sorted_ or any(b for n in nodes for b in n.bodies):
        _sort(g, nodes)
    return g


def _at(n: Node) -> str:
    return f"node {n.name!r} ({safe(n.op)})"


def _misfit(why: str, at: str) -> BadInput:
    return BadInput(f"a constant {why}", at=at, fix="the file is damaged: export it again")


def _outer(name: str, outer: tuple[dict[str, Value], ...], node: Node) -> Value:
    for s in reversed(outer):
        if name in s:
            return s[name]
    raise BadInput(
        f"the value {name!r} is read but nothing makes it",
        at=_at(node),
        fix="the file is damaged or was cut wrongly: export it again",
    )


def _sort(g: Graph, nodes: list[Node]) -> None:
    """Bring the nodes into topological order if they are not (stable), and say so."""
    if all(v.producer is None or v.graph is not g or v.producer.pos < n.pos for n in nodes for v in n.reads()):
        return
    state: dict[Node, int] = {}
    order: list[Node] = []
    for root in nodes:
        stack: list[tuple[Node, Iterator[Value]]] = []
        if root not in state:
            state[root] = 1
            stack.append((root, root.reads()))
        while stack:
            n, it = stack[-1]
            for v in it:
                p = v.producer
                if p is None or p.graph is not g:
                    continue
                seen = state.get(p)
                if seen == 1:
                    raise BadInput(
                        "the graph has a cycle",
                        at=f"{_at(p)}, value {v.name!r}",
                        fix="an ONNX graph must be acyclic; export it again",
                    )
                if seen is None:
                    state[p] = 1
                    stack.append((p, p.reads()))
                    break
            else:
                state[n] = 2
                order.append(n)
                stack.pop()
    prev: Any = g
    for i, n in enumerate(order):
        n.pos, n.prev = (i + 1) * GAP, prev
        prev.next = prev = n
    prev.next, g.prev = g, prev
    g.touched = True
    if "nodes were not in topological order: sorted" not in g.model.warnings:
        g.model.warnings.append("nodes were not in topological order: sorted")


def _declare(g: Graph) -> None:
    """Types of outputs as the file declares them (inputs and initializers have theirs already)."""
    for v, i in zip(g.outputs, g.proto.output):
        if v.producer is not None and v.graph is g:
            g.infos.setdefault(v.name, i)


def set_type(v: Value, t: TypeProto) -> None:
    """Take over a declared type; an unnamed dim gets a name of its own, so that it equals nothing but itself."""
    if not t.HasField("tensor_type"):
        v.type = t if t.ByteSize() else None
        return
    tt = t.tensor_type
    v.dtype = tt.elem_type
    if tt.HasField("shape"):
        v.dims = tuple(_dim(d, v) for d in tt.shape.dim)


def _dim(d: Any, v: Value) -> Dim:
    if d.HasField("dim_value"):
        if d.dim_value < 0:
            return unknown(v.name)
        return d.dim_value
    return named(str(d.dim_param)) if d.dim_param else unknown(v.name)


def type_proto(v: Value) -> TypeProto:
    """The type of a value as ONNX writes it; a polynomial is written as the text of its dim_param."""
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
            elif not is_unknown(d):
                x.dim_param = str(d)
    return t


def set_field(target: Any, field: str, x: Any) -> None:
    """Copy one protobuf field, whatever its kind."""
    if hasattr(x, "DESCRIPTOR"):
        getattr(target, field).CopyFrom(x)
    elif hasattr(x, "extend") or hasattr(x, "append"):
        getattr(target, field).extend(x)
    elif isinstance(x, bytes) and field != "raw_data":
        number = target.DESCRIPTOR.fields_by_name[field].number
        target.MergeFromString(field_of(number, x))  # text that is not UTF-8 comes as bytes, which no setter takes
    else:
        setattr(target, field, x)


_BLANK = NodeProto()
_OWN = {"node", "initializer", "value_info"}


def lower(model: Model) -> ModelProto:
    """The model as a proto; data that lies in files stays there as references (`core.model.write` fetches it)."""
    q = ModelProto()
    q.CopyFrom(model.proto)
    left = dict(model.opsets)
    for o in q.opset_import:
        o.version = left.pop("" if o.domain == "ai.onnx" else o.domain, o.version)
    for domain, version in left.items():
        q.opset_import.add(domain=domain, version=version)
    lower_graph(model.graph, q.graph)
    return q


def lower_graph(g: Graph, q: GraphProto) -> None:
    for f, x in g.proto.ListFields():
        if f.name not in _OWN:
            set_field(q, f.name, x)
    if len(g.inputs) != len(q.input):
        kept = {v.name for v in g.inputs}
        inputs = [i for i in q.input if i.name in kept]
        del q.input[:]
        q.input.extend(inputs)
    for v, i in zip((*g.inputs, *g.outputs), (*q.input, *q.output)):
        if i.name != v.name:
            i.name = v.name
    q.initializer.extend(
        [v.tensor.to_proto(v.name) for v in g.initializers if v not in g.dead and v.tensor is not None]
    )
    nodes = list(g)
    q.node.extend([n.proto if n.proto is not None else _BLANK for n in nodes])
    for i, n in enumerate(nodes):
        if n.proto is None:
            _write(n, q.node[i])
        elif n.dirty:
            x = q.node[i]
            x.input[:] = [v.name if v is not None else "" for v in n.inputs]
            x.output[:] = [v.name for v in n.outputs]
        if n.bodies and any(_changed(b) for b in n.bodies):
            _write_bodies(n, q.node[i])
    made = {v.name for n in nodes for v in n.outputs} if len(g.proto.value_info) else set[str]()
    outputs = {v.name for v in g.outputs}
    keep = made | {v.name for v in g.inputs} | {v.name for v in g.initializers if v not in g.dead}
    declared = {i.name for i in g.proto.output}
    q.value_info.extend(
        [i for i in g.proto.value_info if i.name in keep and (i.name not in outputs or i.name in declared)]
    )


def _changed(b: Graph) -> bool:
    return b.touched or any(_changed(c) for n in b for c in n.bodies)


def _write_bodies(n: Node, p: NodeProto) -> None:
    it = iter(n.bodies)
    for a in p.attribute:
        if a.type == AttributeProto.GRAPH:
            a.g.Clear()
            lower_graph(next(it), a.g)
        elif a.type == AttributeProto.GRAPHS:
            for s in a.graphs:
                s.Clear()
                lower_graph(next(it), s)


def _write(n: Node, p: NodeProto) -> None:
    p.op_type = n.op
    if n.domain:
        p.domain = n.domain
    if n.name:
        p.name = n.name
    p.input.extend([v.name if v is not None else "" for v in n.inputs])
    p.output.extend([v.name for v in n.outputs])
    p.attribute.extend([attribute_proto(k, v) for k, v in n.attributes.items()])


def check(model: Model) -> None:
    """Assert every invariant of the graphs; slow, for tests and `-v`."""
    uses: dict[Value, dict[Node, int]] = {}
    for g in model.graphs():
        for n in g:
            for v in (*n.inputs, *(x for b in n.bodies for x in b.outputs if x.graph is not b)):
                if v is not None:
                    readers = uses.setdefault(v, {})
                    readers[n] = readers.get(n, 0) + 1
    for g in model.graphs():
        _check_order(g)
        for n in g:
            for v in n.reads():
                assert v.graph is not None and encloses(v.graph, g), f"{n.op} reads {v}, which is in no graph around it"
                assert v not in v.graph.dead, f"{n.op} reads {v}, an initializer marked dead"
                if v.producer is None:
                    assert v.is_input or v.tensor is not None, f"{n.op} reads {v}, which nothing makes"
                elif v.graph is g:
                    assert v.producer.graph is g and v.producer.pos < n.pos, f"{n.op} reads {v} of no earlier node"
        made = [o for n in g for o in n.outputs if o.name]
        mine = {*g.inputs, *g.initializers, *made}
        names = [v.name for v in mine if v not in g.dead]
        assert len(set(names)) == len(names), f"a name twice: {sorted(x for x in names if names.count(x) > 1)}"
        assert set(names) <= model.names, f"names not taken: {set(names) - model.names}"
        for v in mine:
            assert v.graph is g, f"graph of {v}"
            assert v.uses == uses.get(v, {}), f"readers of {v}: {v.uses}, in truth {uses.get(v)}"
            assert v.is_output == any(v is o for o in g.outputs), f"{v} is an output, or is not"
        for v in g.outputs:
            assert v in mine or v.graph is not g, f"output {v} is not there"
        for v in g.initializers:
            assert v.producer is None and v.tensor is not None, f"initializer {v}"
        if g.owner is None:
            for v, declared in zip(g.outputs, g.proto.output, strict=True):
                assert v.name == declared.name, f"output {declared.name!r} is called {v.name!r}"


def _check_order(g: Graph) -> None:
    before: Node | Graph = g
    for n in g:
        assert n.prev is before and before.next is n, f"links at {n}"
        assert n.pos > before.pos, f"order labels at {n}"
        assert all(o.producer is n for o in n.outputs), f"maker of the outputs of {n}"
        assert all(b.owner is n for b in n.bodies), f"owner of the bodies of {n}"
        before = n
    assert g.prev is before and before.next is g, "links at the end"
    assert len(list(g)) == g.count, "count"
    assert set(g.owners) == {n for n in g if n.bodies}, "owners"


def array_of(values: Iterable[Dim]) -> Array:
    """Dims as the object array that `Value.known` is."""
    xs = list(values)
    a = np.empty(len(xs), object)
    a[:] = xs
    return a
