"""A window: what an edit replaces and what it puts there, as two small models over one frontier.

The frontier is what both sides stand on: the leaves of the new side, and whatever else the old side reads. A float
there may be anything, so it is drawn; integers and bools (indices, shapes, masks) may not, so their makers are pulled
in, up to a Shape or an input. Constants keep their values, because a rule may have looked at them: γ = 1 is what makes
`x · γ → x` right. A look that is too short can only accuse, never acquit: `deeper` pulls in what makes the frontier,
and adds what reads the old values as a witness, because a rule may take for granted that the model runs to its end.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, numpy_helper

from optimizer.core import facts, form
from optimizer.core.dims import Dim, Poly, evaluate
from optimizer.core.edit import Fidelity, Proposal
from optimizer.core.graph import Graph, Node, Value, anchor, copy_node, lower_graph, type_proto
from optimizer.core.region import Region
from optimizer.core.tensor import Tensor, numpy_dtype, onnx_dtype

if TYPE_CHECKING:
    from optimizer.core.graph import Model
    from optimizer.core.tensor import Array

BY_VALUE = 64  # elements up to which a constant is part of what makes two windows one
STORED = 4096  # elements up to which a constant lies in the model; a larger one is fed
REACH = 24  # nodes that the way from the old values to a leaf may be long
AHEAD = 4  # readers of readers that each step deeper adds to the witness
WITNESSES = 64  # nodes of it
LARGEST = 400  # nodes of a window
_LARGEST_FEED = 1 << 22  # numbers of a feed
FLOATS = frozenset(
    (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)
)  # what the algebra is checked in double for
_DRAWN = frozenset((*FLOATS, TensorProto.STRING, TensorProto.COMPLEX64, TensorProto.COMPLEX128))
_COARSE = ("float64", "float32", "float16", "bfloat16")
BEFORE, AFTER, WITNESS = 0, 1, 2


class CannotCut(Exception):
    """No two models can be made of an edit; the text says why."""


@dataclass(frozen=True, slots=True)
class Port:
    """An input of both sides; `dims` are sizes or polynomials over the window's symbols."""

    name: str
    dtype: int
    dims: tuple[Dim, ...]


@dataclass(frozen=True)
class Window:
    """Two models with the same inputs, whose outputs are claimed equal, one by one.

    `sides` are the old and the new one, and where it is deep the old one with what reads it, which says by running that
    the data is some that the model takes; `precision` is the coarsest float of the old one, and `narrows` says that the
    new one has a coarser; `fed` are constants too large to lie in them, by the input's name; `key` is
    equal for windows of one structure, dtypes, dims, attributes and small constants; `names` says what each value is
    called in the model that the window was cut from; `integers` are those computed that are no floats.
    """

    rule: str
    fidelity: Fidelity
    sides: tuple[ModelProto, ...]
    ports: tuple[Port, ...]
    fed: Mapping[str, Array]
    symbols: tuple[str, ...]
    precision: str
    narrows: bool
    key: bytes
    names: Mapping[str, str]
    integers: frozenset[str]
    is_random: bool

    @property
    def outputs(self) -> list[str]:
        return [o.name for o in self.sides[BEFORE].graph.output]

    def numbers(self, binding: Mapping[str, int]) -> int:
        """How many numbers go into one run: what decides how often it is run."""
        sizes = (math.prod(evaluate(d, binding.__getitem__) for d in p.dims) for p in self.ports)
        return sum(sizes) + sum(x.size for x in self.fed.values())

    def stored(self, side: int) -> ModelProto:
        """One side as a model of its own, with all its constants and no node that only names an output."""
        m = ModelProto()
        m.CopyFrom(self.sides[side])
        kept = [i for i in m.graph.input if i.name not in self.fed]
        del m.graph.input[:]
        m.graph.input.extend(kept)
        read = {name for n in m.graph.node for name in _mentions(n)}
        m.graph.initializer.extend(numpy_helper.from_array(x, k) for k, x in self.fed.items() if k in read)
        _drop_names(m.graph)
        return m

    def given(self, name: str, value: Array) -> Window:
        """The window in which what makes a value is left out: it is an input of this dtype and shape.

        Raises:
            KeyError: no node of the old side makes it.
        """
        port = Port(name, onnx_dtype(value.dtype), value.shape)
        sides = [_given(m, port) for m in self.sides[:WITNESS]]
        if sides[BEFORE] is None:
            raise KeyError(name)
        used = {i for m in sides if m is not None for n in m.graph.node for i in _mentions(n)}
        ports = tuple(p for p in (*self.ports, port) if p.name in used)
        for m in sides:
            assert m is not None
            inputs = [i for i in m.graph.input if i.name in used and i.name not in {p.name for p in ports}]
            del m.graph.input[:]
            m.graph.input.extend([*(_info(p.name, p.dtype, p.dims) for p in ports), *inputs])
        fed = {k: x for k, x in self.fed.items() if k in used}
        return replace(self, sides=tuple(m for m in sides if m is not None), ports=ports, fed=fed)


def cut(model: Model, p: Proposal, fidelity: Fidelity, deeper: int = 0) -> Window:
    """The window of an edit that is not committed yet; nothing is changed.

    Args:
        deeper: how many times the makers of what would be drawn are pulled in, and readers added.

    Raises:
        CannotCut: it is too large, or stands on something that cannot be drawn.
    """
    return draft(model, p, fidelity, deeper).window()


def draft(model: Model, p: Proposal, fidelity: Fidelity, deeper: int = 0) -> Draft:
    """As `cut`, but for the models themselves: the key tells whether they are needed."""
    try:
        return Draft(model, p, fidelity, _region(p, deeper, readers(p, AHEAD * deeper)))
    except CannotCut:
        if not deeper:
            raise
        return Draft(model, p, fidelity, _region(p, deeper, ()))


def _region(p: Proposal, deeper: int, witnesses: Sequence[Node]) -> _Region:
    region = _Region(p, witnesses)
    for _ in range(deeper + 1):
        region.grow()
    return region


# ── which nodes ───────────────────────────────────────────────────────────────────────────────────────────────────────


class _Region:
    """Nodes of the graph that the window holds, in order, and the values it stands on."""

    def __init__(self, p: Proposal, witnesses: Sequence[Node]) -> None:
        self.proposal, self.witnesses = p, dict.fromkeys(witnesses)
        self.ends = [v for n in witnesses for v in n.outputs if v.name]
        self.roots = [a for a, _ in p.equal]
        self.gone = set(p.gone)
        self.front = {v for v in p.leaves if _is_drawn(v) and v not in self.roots}
        self.forced: set[Value] = set()  # of the frontier, what is computed after all
        self.nodes: dict[Node, None] = {}
        self.free: dict[Value, None] = {}
        self._low = 0
        self._reaching: dict[Node, bool] = {}

    def grow(self) -> None:
        """Walk, the first time from what the edit says; each further time from one step behind the frontier."""
        if self.nodes or self.free:
            made = [v for v in self.free if v.producer is not None and v.producer.graph is not None]
            if not made:
                return
            self.forced.update(made)
        self._walk()
        # a leaf that the old side does not come across is no variable: something else makes the two sides equal
        lone = self.front - self.forced - self._seen_from(self.roots)
        lone = {v for v in lone if v.producer is not None and v.producer.graph is not None}
        if lone:
            self.forced |= lone
            self._walk()

    def _walk(self) -> None:
        self.nodes, self.free = {}, {}
        front = self.front - self.forced
        below = [v.producer.pos for v in front if v.producer is not None and v.producer.graph is self.proposal.graph]
        self._low = min(below, default=0) if len(below) == len(front) else 0
        self._reaching = {}
        state: set[Node] = set()
        for v in (*self.roots, *self.proposal.leaves, *self.ends):
            if not self._is_inside(v, front):
                self._leave(v)
                continue
            assert v.producer is not None
            stack: list[tuple[Node, Iterator[Value]]] = []
            if v.producer not in state:
                state.add(v.producer)
                stack.append((v.producer, v.producer.reads()))
            while stack:
                n, reads = stack[-1]
                for x in reads:
                    q = x.producer
                    if not self._is_inside(x, front):
                        self._leave(x)
                    elif q is not None and q not in state:
                        state.add(q)
                        stack.append((q, q.reads()))
                        break
                else:
                    self.nodes[n] = None
                    stack.pop()
            if len(self.nodes) > LARGEST:
                raise CannotCut(f"the window has more than {LARGEST} nodes")

    def _leave(self, v: Value) -> None:
        self.free[v] = None

    def _is_inside(self, v: Value, front: set[Value]) -> bool:
        n = v.producer
        if n is None or n.graph is None or v.tensor is not None:
            return False
        if v in self.roots or v in self.forced or n in self.witnesses:
            return True
        return v not in front and (n in self.gone or not _is_drawn(v) or self._reaches(v, front, REACH))

    def _reaches(self, v: Value, front: set[Value], far: int) -> bool:
        """Whether a leaf takes part in v."""
        if v in front:
            return True
        n = v.producer
        if not far or not front or n is None or n.graph is not self.proposal.graph or n.pos < self._low:
            return False
        if n not in self._reaching:
            self._reaching[n] = False
            self._reaching[n] = any(self._reaches(x, front, far - 1) for x in n.reads())
        return self._reaching[n]

    def _seen_from(self, roots: Sequence[Value]) -> set[Value]:
        seen: set[Value] = set()
        todo = list(roots)
        while todo:
            v = todo.pop()
            if v not in seen:
                seen.add(v)
                if v.producer is not None and v.producer in self.nodes:
                    todo += v.producer.reads()
        return seen


def readers(p: Proposal, far: int) -> list[Node]:
    """What reads the old values, and what reads that, in the graph they are in."""
    found: dict[Node, None] = {}
    edge = [a for a, _ in p.equal]
    for _ in range(far):
        nodes = [n for v in edge for u in v.uses if (n := anchor(u, p.graph)) is not None and n not in found]
        found |= dict.fromkeys(nodes)
        if not nodes or len(found) > WITNESSES:
            break
        edge = [v for n in nodes for v in n.outputs]
    return list(found)[:WITNESSES]


def _is_drawn(v: Value) -> bool:
    """Whether v may be anything of its type: a float, text, or a number that is no index."""
    return v.dtype in _DRAWN and v.tensor is None


# ── as models ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class Draft:
    """The nodes of a region and those staged, copied under names that do not depend on where they lay.

    `key` is that of the window.
    """

    def __init__(self, model: Model, p: Proposal, fidelity: Fidelity, region: _Region) -> None:
        self.model, self.proposal, self.fidelity, self.region = model, p, fidelity, region
        self.mapping: dict[Value, Value] = {}
        self.names: dict[str, str] = {}
        self.symbols: dict[str, str] = {}
        self.ports: list[Port] = []
        self.constants: dict[str, Tensor] = {}
        self.nodes = [*region.nodes, *p.new]
        self.leaves = dict.fromkeys((*region.free, *(v for v in p.leaves if v.producer is None or v.tensor)))
        self.body = self._copied()
        outs = [[a for a, _ in p.equal], [b for _, b in p.equal], *([region.ends] if region.ends else [])]
        self.outs = [[self.mapping[v] for v in side] for side in outs]
        self.key = self._key()

    def _copied(self) -> GraphProto:
        p, graph = self.proposal, Graph(self.model, None, GraphProto())
        for v in self.leaves:
            name = self._map(v, Value("", None, graph)).name
            if v.tensor is not None and not v.is_input:
                self.constants[name] = v.tensor
            else:
                self.ports.append(self._port(v, name))
        read = {b for _, b in p.equal} | {v for n in p.new for v in n.reads()}
        for n in self.nodes:
            copy = copy_node(n, self.mapping)
            copy.name = ""
            opset = self.model.opsets.get(n.domain, 0)
            for k, (was, o) in enumerate(zip(n.outputs, copy.outputs)):
                o.graph = graph
                if was.name or was in read or not form.optional_output(n.op, opset, n.domain, k):
                    self._name(was, o)
            graph.link(copy, graph.prev)
        body = GraphProto()
        lower_graph(graph, body)
        for n in body.node:
            materialize(n)
        return body

    def window(self) -> Window:
        """The window itself."""
        p = self.proposal
        values = [v for n in self.region.nodes for v in n.outputs]
        precision = _coarsest([v.dtype for v in (*values, *self.leaves)])  # of the old side
        made = _coarsest([v.dtype for n in p.new for v in n.outputs])
        return Window(
            rule=p.rule,
            fidelity=self.fidelity,
            sides=tuple(map(self._side, self.outs)),
            ports=tuple(self.ports),
            fed={k: t.numpy() for k, t in self.constants.items() if t.size > STORED},
            symbols=tuple(self.symbols.values()),
            precision=precision,
            narrows=_COARSE.index(made) > _COARSE.index(precision),
            key=self.key,
            names=self.names | {f"y{k}": a.name for k, (a, _) in enumerate(p.equal)},
            integers=frozenset(self.mapping[v].name for v in values if v.dtype and v.dtype not in _DRAWN),
            is_random=any(n.op in facts.RANDOM or _trains(n) for n in self.nodes),
        )

    def _map(self, v: Value, copy: Value) -> Value:
        self.mapping[v] = copy
        copy.dtype, copy.type = v.dtype, v.type
        self._name(v, copy)
        return copy

    def _name(self, v: Value, copy: Value) -> None:
        copy.name = f"v{len(self.names)}"
        self.names[copy.name] = v.name

    def _port(self, v: Value, name: str) -> Port:
        if not v.dtype or v.dims is None:
            raise CannotCut(f"the value {v.name!r} has no known shape, so it cannot be drawn")
        return Port(name, v.dtype, tuple(_renamed(d, self.symbols) for d in v.dims))

    def _side(self, outs: Sequence[Value]) -> ModelProto:
        """The nodes that these outputs need, under the header of the model."""
        m = ModelProto()
        m.CopyFrom(self.model.proto)
        del m.metadata_props[:]
        del m.opset_import[:]
        for domain, version in self.model.opsets.items():
            m.opset_import.add(domain=domain, version=version)
        g = m.graph
        g.name = "window"
        wanted = {v.name for v in outs}
        kept: list[NodeProto] = []
        for n in reversed(self.body.node):
            if any(o in wanted for o in n.output):
                kept.append(n)
                wanted.update(_mentions(n))
        g.node.extend(reversed(kept))
        for k, v in enumerate(outs):
            g.node.add(op_type="Identity", input=[v.name], output=[f"y{k}"])
        g.input.extend(_info(p.name, p.dtype, p.dims) for p in self.ports)
        for k, t in self.constants.items():
            if t.size > STORED:
                g.input.append(_info(k, t.dtype, t.shape))
            elif k in wanted:
                g.initializer.append(stored_tensor(t, k))
        g.output.extend(ValueInfoProto(name=f"y{k}", type=_type_of(v)) for k, v in enumerate(outs))
        return m

    def _key(self) -> bytes:
        key = hashlib.blake2b(digest_size=16)
        key.update(f"{self.proposal.rule} {self.fidelity} {sorted(self.model.opsets.items())} {self.ports}".encode())
        key.update(repr([[v.name for v in side] for side in self.outs]).encode())
        for n in self.body.node:
            key.update(n.SerializeToString(deterministic=True))
        for k, t in self.constants.items():
            key.update(f"{k} {t.dtype} {t.shape}".encode())
            key.update(t.numpy().tobytes() if t.size <= BY_VALUE and t.dtype != TensorProto.STRING else _gist(t))
        return key.digest()


def _renamed(d: Dim, symbols: dict[str, str]) -> Dim:
    """The dim over symbols that are numbered as they are met."""
    if isinstance(d, int):
        return d
    out: Dim = 0
    for atoms, factor in d.terms.items():
        term: Dim = factor
        for a in atoms:
            if isinstance(a, str):
                term = Poly({(symbols.setdefault(a, f"d{len(symbols)}"),): 1}) * term
            else:
                inner = type(a)(a.name, _renamed(a.a, symbols), _renamed(a.b, symbols))
                term = Poly({(inner,): 1}) * term
        out = term + out
    return out


def _gist(t: Tensor) -> bytes:
    """What a rule may have seen of a large constant: that it is one number all over."""
    if t.dtype == TensorProto.STRING or not t.size:
        return b""
    flat = t.numpy().reshape(-1)
    if flat[0] != flat[-1] or (flat[: 1 << 10] != flat[0]).any() or (flat != flat[0]).any():
        return b"varied"
    return b"uniform" + flat[:1].tobytes()


def _coarsest(dtypes: Sequence[int]) -> str:
    names = {numpy_dtype(t).name for t in dtypes if t in FLOATS}
    return max(names, key=_COARSE.index, default="float32")


def _trains(n: Node) -> bool:
    """Whether a node is in training mode; one with bodies is as random as what is in them."""
    if n.bodies:
        return any(m.op in facts.RANDOM or _trains(m) for b in n.bodies for m in b)
    return n.op in ("Dropout", "BatchNormalization") and not facts.pure(n)


def _given(m: ModelProto, port: Port) -> ModelProto | None:
    """The model without what makes the port's value, and without what only that needed; None if nothing makes it."""
    out = ModelProto()
    out.CopyFrom(m)
    makers = [n for n in m.graph.node if port.name in n.output]
    wanted = {n.output[0] for n in m.graph.node if n.output[0] in {o.name for o in m.graph.output}}
    kept: list[NodeProto] = []
    for n in reversed(m.graph.node):
        if n not in makers and any(o in wanted for o in n.output):
            kept.append(n)
            wanted.update(_mentions(n))
    del out.graph.node[:], out.graph.initializer[:]
    out.graph.node.extend(reversed(kept))
    out.graph.initializer.extend(t for t in m.graph.initializer if t.name in wanted)
    return out if makers or port.name not in {x for n in m.graph.node for x in _mentions(n)} else None


def _drop_names(g: GraphProto) -> None:
    """An Identity that gives an output its name goes, where the node before it can."""
    makers = {o: n for n in g.node for o in n.output}
    for n in list(g.node):
        v, name = (n.input[0], n.output[0]) if n.op_type == "Identity" else ("", "")
        inside = {
            x for m in g.node for a in m.attribute for b in (a.g, *a.graphs) for k in b.node for x in _mentions(k)
        }
        if v not in makers or makers[v].op_type == "Identity" or v in inside or name not in {o.name for o in g.output}:
            continue
        for m in g.node:
            m.input[:] = [name if x == v else x for x in m.input]
        makers[v].output[:] = [name if x == v else x for x in makers[v].output]
        g.node.remove(n)


def _mentions(n: NodeProto) -> Iterator[str]:
    """Every name that a node or its bodies mention; more than it captures, never less."""
    yield from n.input
    for a in n.attribute:
        for g in (a.g, *a.graphs):
            for m in g.node:
                yield from _mentions(m)
            for o in g.output:
                yield o.name


def materialize(n: NodeProto) -> None:
    """Data that the node's tensors left in files comes into the proto."""
    for a in n.attribute:
        for t in (a.t, *a.tensors):
            _fetch(t)
        for g in (a.g, *a.graphs):
            for t in g.initializer:
                _fetch(t)
            for m in g.node:
                materialize(m)


def _fetch(t: TensorProto) -> None:
    region = Region.of(t)
    if region is not None:
        for field in ("external_data", "data_location"):
            t.ClearField(field)
        t.raw_data = bytes(region.view())


def stored_tensor(t: Tensor, name: str) -> TensorProto:
    """The tensor as a proto that holds its data."""
    p = TensorProto()
    p.CopyFrom(t.to_proto(name))
    _fetch(p)
    return p


def _info(name: str, dtype: int, dims: Sequence[Dim]) -> ValueInfoProto:
    i = ValueInfoProto(name=name)
    i.type.tensor_type.elem_type = dtype
    i.type.tensor_type.shape.SetInParent()
    for d in dims:
        x = i.type.tensor_type.shape.dim.add()
        if isinstance(d, int):
            x.dim_value = d
        else:
            x.dim_param = str(d)
    return i


def _type_of(v: Value) -> Any:
    """The type without its sizes: a window may be fed others than the model is."""
    t = type_proto(v)
    if not v.dtype and v.type is None:
        return type(t)()
    if t.HasField("tensor_type"):
        u = type(t)()
        u.tensor_type.elem_type = t.tensor_type.elem_type
        return u
    return t


# ── in double ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def doubled(model: ModelProto) -> ModelProto:
    """The model with every float a double: what it computes over the reals, nearly."""
    m = ModelProto()
    m.CopyFrom(model)
    _double_graph(m.graph)
    for f in m.functions:
        for n in f.node:
            _double_node(n)
    return m


def _double_graph(g: GraphProto) -> None:
    for i in (*g.input, *g.output, *g.value_info):
        if i.type.tensor_type.elem_type in FLOATS:
            i.type.tensor_type.elem_type = TensorProto.DOUBLE
    for t in g.initializer:
        _double_tensor(t)
    for n in g.node:
        _double_node(n)


def _double_node(n: NodeProto) -> None:
    for a in n.attribute:
        if a.name in ("to", "dtype", "stash_type", "output_dtype") and a.i in FLOATS:
            a.i = TensorProto.DOUBLE
        elif a.type == AttributeProto.TENSOR:
            _double_tensor(a.t)
        elif n.op_type == "Constant" and a.name in ("value_float", "value_floats"):
            data = np.asarray(a.f if a.name == "value_float" else list(a.floats), np.float64)
            a.Clear()
            a.name, a.type = "value", AttributeProto.TENSOR
            a.t.CopyFrom(numpy_helper.from_array(data))
        for g in (a.g, *a.graphs):
            _double_graph(g)
    if n.op_type == "ConstantOfShape" and not n.attribute:
        n.attribute.add(name="value", type=AttributeProto.TENSOR).t.CopyFrom(numpy_helper.from_array(np.zeros(1)))


def _double_tensor(t: TensorProto) -> None:
    if t.data_type in FLOATS:
        t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(t).astype(np.float64), t.name))


def as_double(x: Any) -> Any:
    """An array as `doubled` takes it."""
    return x.astype(np.float64) if isinstance(x, np.ndarray) and x.dtype in _HALVES else x


_HALVES = {np.dtype(t) for t in (np.float16, np.float32, ml_dtypes.bfloat16)}


# ── data ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

REGIMES = ("normal", "negative", "sparse", "wide", "zeros", "large", "tiny", "grid", "huge")
"""normal N(0,1) · negative −|N|−.01 · sparse N or ±0 · wide ±10^U(−4,2) · zeros · large 1000·N · tiny N/10⁵ ·
grid ½·{−8…8} · huge N·√max/8. A mistake that only one kind of number shows is drowned by the others, so that each is a
run of its own."""
SPECIAL = "special"  # NaN, ±inf, −0 and denormals among N(0,1): only where the bits are claimed equal
STRESS = frozenset(("huge", "large", "wide", SPECIAL))
_SIZES = (3, 5, 7, 2, 11, 4, 13)
_SCANNED = 1 << 10
_LARGE = (40, 520, 4000)  # where what is small does not run: a kernel is larger, a size would be negative


def bindings(window: Window) -> list[dict[str, int]]:
    """Sizes of the window's symbols: all different and mostly odd, all 1, all 2, and every second one 1."""
    symbols = window.symbols
    if not symbols:
        return [{}]
    different = {s: _SIZES[k % len(_SIZES)] for k, s in enumerate(symbols)}
    mixed = {s: 1 if k % 2 else 4 for k, s in enumerate(symbols)}
    found = [different, dict.fromkeys(symbols, 1), dict.fromkeys(symbols, 2), mixed]
    return [b for k, b in enumerate(found) if b not in found[:k] and _fits(window, b)]


def larger(window: Window) -> list[dict[str, int]]:
    """Sizes for a window that runs at none of `bindings`: where computed dims become 1, 2, …; then large ones."""
    symbols = window.symbols
    found: list[dict[str, int]] = []
    computed = [d for p in window.ports for d in p.dims if isinstance(d, Poly) and str(d) not in symbols]
    for s in symbols:  # the others stay small
        seen: set[tuple[int, ...]] = set()
        for n in range(1, _SCANNED) if computed else ():
            b = {**dict.fromkeys(symbols, 1), s: n}
            sizes = tuple(evaluate(d, b.__getitem__) for d in computed)
            if min(sizes) > 0 and sizes not in seen and len(seen) < 3:
                seen.add(sizes)
                found.append(b)
    found += [{s: n + k * step for k, s in enumerate(symbols)} for n in _LARGE for step in (0, 3)]
    return [b for k, b in enumerate(found) if b not in found[:k] and _fits(window, b)]


def _fits(window: Window, binding: Mapping[str, int]) -> bool:
    """Whether no dimension is negative, and none of the inputs too large to draw."""
    sizes = [[evaluate(d, binding.__getitem__) for d in p.dims] for p in window.ports]
    return all(n >= 0 for shape in sizes for n in shape) and sum(map(math.prod, sizes)) < _LARGEST_FEED


def draw(window: Window, binding: Mapping[str, int], regime: str, seed: int = 0) -> dict[str, Array]:
    """One feed, at one of `bindings`; the large constants are not among it (`Window.fed`)."""
    rng = np.random.default_rng([seed, sum(regime.encode()), *binding.values()])
    feed: dict[str, Array] = {}
    for p in window.ports:
        shape = tuple(evaluate(d, binding.__getitem__) for d in p.dims)
        feed[p.name] = _draw(numpy_dtype(p.dtype), shape, regime, rng)
    return feed


def _draw(dtype: np.dtype[Any], shape: tuple[int, ...], regime: str, rng: np.random.Generator) -> Array:
    if dtype.kind in "OUS":
        return np.asarray(rng.choice(["", "a", "bc"], shape), object)
    if dtype.kind == "b":
        return np.asarray(rng.random(shape) < (0.0 if regime == "zeros" else 0.5))
    if dtype.kind in "iu":
        low, high = {"zeros": (0, 1), "large": (-100, 101), "huge": (-(1 << 20), 1 << 20)}.get(regime, (-3, 4))
        if regime in ("normal", "wide", "sparse") or dtype.kind == "u":
            low = 0
        info = np.iinfo(dtype)
        return np.asarray(rng.integers(max(low, info.min), min(high, int(info.max) + 1), shape)).astype(dtype)
    if dtype.kind == "c":
        return (_floats(np.dtype(np.float64), shape, regime, rng) * (1 + 0.5j)).astype(dtype)
    return _floats(dtype, shape, regime, rng)


def _floats(dtype: np.dtype[Any], shape: tuple[int, ...], regime: str, rng: np.random.Generator) -> Array:
    x = np.asarray(rng.standard_normal(shape))
    largest = float(ml_dtypes.finfo(dtype).max)
    match regime:
        case "negative":
            x = -np.abs(x) - 0.01
        case "sparse":
            x = np.where(rng.random(shape) < 0.5, rng.choice([0.0, -0.0], shape), x)
        case "wide":
            x = np.sign(x) * 10 ** rng.uniform(-4, 2, shape)
        case "zeros":
            x = np.zeros(shape)
        case "large":
            x = x * 1000
        case "tiny":
            x = x * 1e-5
        case "grid":
            x = rng.integers(-8, 8, shape, endpoint=True) / 2
        case "huge":
            x = x * (np.sqrt(largest) / 8)
        case "special":
            odd = rng.choice([np.nan, np.inf, -np.inf, -0.0, 0.0, 1e-40], shape)
            x = np.where(rng.random(shape) < 0.5, odd, x)
        case _:
            pass
    return np.asarray(np.where(np.isfinite(x), np.clip(x, -largest, largest), x)).astype(dtype)
