"""Random models and random rewrites of them, each a function of one seed.

The models hold what an editor gets wrong: If and Loop with captures, nested ones, bodies that hand a captured value
out, nodes with several outputs, some left out, optional inputs, shared, overridable and inner initializers, outputs
that are read as well.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

import numpy as np
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from optimizer.core.edit import Editor
from optimizer.core.form import Decline
from optimizer.core.graph import Graph, Model, Value, body_names

ROWS, COLUMNS, HALF = 3, 4, 2
WIDE, NARROW, BOOL, INDEX = "wide", "narrow", "bool", "index"  # float[n, 4], float[n, 2], bool[], int64[n, 2]
_SHAPES = {WIDE: ["n", COLUMNS], NARROW: ["n", HALF], BOOL: [], INDEX: ["n", HALF]}
_TYPES = {WIDE: TensorProto.FLOAT, NARROW: TensorProto.FLOAT, BOOL: TensorProto.BOOL, INDEX: TensorProto.INT64}


@dataclass
class _Scope:
    """What a graph under construction can read: values by kind, outer ones first."""

    values: dict[str, list[str]]
    nodes: list[NodeProto] = field(default_factory=list)
    constants: list[TensorProto] = field(default_factory=list)

    def inner(self) -> _Scope:
        return _Scope({k: list(v) for k, v in self.values.items()})


class _Maker:
    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.count = 0

    def name(self, stem: str) -> str:
        self.count += 1
        return f"{stem}{self.count}"

    def pick(self, s: _Scope, kind: str = WIDE) -> str:
        return self.random.choice(s.values[kind])

    def node(self, s: _Scope, op: str, inputs: list[str], kinds: list[str], **attributes: object) -> list[str]:
        outputs = [self.name("v") if k else "" for k in kinds]
        s.nodes.append(helper.make_node(op, inputs, outputs, name=self.name("n"), **attributes))
        for o, k in zip(outputs, kinds):
            if o:
                s.values[k].append(o)
        return outputs

    def constant(self, s: _Scope, kind: str = WIDE) -> str:
        shape = [ROWS if d == "n" else d for d in _SHAPES[kind]]
        array = np.asarray(self.random.random() < 0.5) if kind == BOOL else self.array(shape)
        s.constants.append(numpy_helper.from_array(array, self.name("c")))
        return s.constants[-1].name

    def array(self, shape: list[int]) -> np.ndarray:
        return np.asarray([self.random.uniform(-2, 2) for _ in range(int(np.prod(shape)))], "f").reshape(shape)

    def step(self, s: _Scope, depth: int) -> None:
        r = self.random
        kind = r.choice(
            ["unary"] * 4
            + ["binary"] * 4
            + ["clip", "split", "concat", "dropout", "topk", "not"]
            + ["if", "loop"] * (depth < 2)
        )
        if kind == "unary":
            self.node(s, r.choice(["Relu", "Neg", "Abs", "Identity", "Tanh"]), [self.pick(s)], [WIDE])
        elif kind == "binary":
            a, b = self.pick(s), self.pick(s)
            self.node(s, r.choice(["Add", "Sub", "Max", "Min"]), [a, a if r.random() < 0.2 else b], [WIDE])
        elif kind == "clip":
            low = self.name("c")
            s.constants.append(numpy_helper.from_array(np.asarray(-1, "f"), low))
            self.node(s, "Clip", r.choice([[self.pick(s), low], [self.pick(s), "", low], [self.pick(s)]]), [WIDE])
        elif kind == "split":
            self.node(s, "Split", [self.pick(s)], [NARROW, NARROW], axis=1, num_outputs=2)
        elif kind == "concat" and s.values[NARROW]:
            self.node(s, "Concat", [self.pick(s, NARROW), self.pick(s, NARROW)], [WIDE], axis=1)
        elif kind == "dropout":
            self.node(s, "Dropout", [self.pick(s)], r.choice([[WIDE], [WIDE, ""]]))
        elif kind == "topk":
            k = self.name("c")
            s.constants.append(numpy_helper.from_array(np.asarray([HALF]), k))
            self.node(s, "TopK", [self.pick(s), k], [NARROW, INDEX], axis=1)
        elif kind == "not":
            self.node(s, "Not", [self.pick(s, BOOL)], [BOOL])
        elif kind == "if":
            kinds = [r.choice([WIDE, WIDE, NARROW]) for _ in range(r.randint(1, 2))]
            kinds = [k if s.values[k] else WIDE for k in kinds]
            branches = [self.body(s, kinds, [], depth) for _ in range(2)]
            self.node(s, "If", [self.pick(s, BOOL)], kinds, then_branch=branches[0], else_branch=branches[1])
        elif kind == "loop":
            trips = self.name("c")
            s.constants.append(numpy_helper.from_array(np.asarray(r.randint(0, 2)), trips))
            body = self.body(s, [WIDE], [WIDE], depth, loop=True)
            self.node(s, "Loop", [trips, "", self.pick(s)], [WIDE], body=body)

    def body(self, outer: _Scope, kinds: list[str], taken: list[str], depth: int, loop: bool = False) -> GraphProto:
        """A body that gives values of these kinds; a loop's takes iteration, condition and the carried value."""
        r, s = self.random, outer.inner()
        inputs, outputs = [], []
        if loop:
            names = [self.name("b") for _ in range(3)]
            inputs = [_info(names[0], INDEX, []), _info(names[1], BOOL), _info(names[2], WIDE)]
            s.values[BOOL].append(names[1])
            s.values[WIDE] += [names[2]] * 3
            (going,) = self.node(s, "Identity", [names[1]], [BOOL])
            outputs.append(_info(going, BOOL))
        if r.random() < 0.5:
            s.values[WIDE].append(self.constant(s))
        for _ in range(r.randint(0, 4)):
            self.step(s, depth + 1)
        mine = {o for n in s.nodes for o in n.output}
        for k in kinds:
            v = self.pick(s, k)
            used = {o.name for o in outputs}
            if not loop and r.random() < 0.15 and outer.values[k]:
                v = self.pick(outer, k)  # ONNX Runtime refuses it, files have it
            elif v not in mine or v in used:
                (v,) = self.node(s, "Identity", [v], [k])
            outputs.append(_info(v, k))
        return helper.make_graph(s.nodes, self.name("g"), inputs, outputs, s.constants)


def _info(name: str, kind: str, shape: list[object] | None = None) -> object:
    return helper.make_tensor_value_info(name, _TYPES[kind], _SHAPES[kind] if shape is None else shape)


def random_model(seed: int) -> tuple[ModelProto, dict[str, np.ndarray]]:
    """A model, and inputs for it."""
    m = _Maker(seed)
    r = m.random
    s = _Scope({WIDE: ["x", "y"], NARROW: [], BOOL: ["p"], INDEX: []})
    inputs = [_info("x", WIDE), _info("y", WIDE), _info("p", BOOL)]
    for _ in range(r.randint(0, 2)):
        s.values[WIDE].append(m.constant(s))
    if r.random() < 0.4:
        s.values[WIDE].append(m.constant(s))
        inputs.append(helper.make_tensor_value_info(s.constants[-1].name, TensorProto.FLOAT, [ROWS, COLUMNS]))
    if r.random() < 0.3:
        s.values[BOOL].append(m.constant(s, BOOL))
    m.node(s, "Add", ["x", "y"], [WIDE])
    for _ in range(r.randint(1, 12)):
        m.step(s, 0)
    made = {o: k for n in s.nodes for o in n.output for k in s.values if o in s.values[k]}
    outputs = r.sample(sorted(made), min(len(made), r.randint(1, 3)))
    graph = helper.make_graph(s.nodes, "random", inputs, [_info(o, made[o]) for o in outputs], s.constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    feeds = {"x": m.array([ROWS, COLUMNS]), "y": m.array([ROWS, COLUMNS]), "p": np.asarray(r.random() < 0.5)}
    return model, feeds


# ── rewrites ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Rewrite:
    """One proposal: old values, what shall replace them, and how it is asked."""

    text: str
    old: list[Value]
    new: list[Value | np.ndarray]
    options: dict[str, object]
    inlines: bool = False  # copies nodes of a body, bodies and all: more than `naive` can write

    @property
    def naive(self) -> bool:
        """Whether `naive` can write it: no value is replaced twice, or by itself."""
        return (
            not self.inlines
            and len(set(self.old)) == len(self.old)
            and not any(a is b for a, b in zip(self.old, self.new))
        )


def values_of(graph: Graph) -> list[Value]:
    return [*graph.inputs, *graph.constants(), *(o for n in graph for o in n.outputs if o.name)]


def random_rewrite(editor: Editor, random: Random, *, equal: bool = False) -> Rewrite | None:
    """A rewrite of any graph of the model, right or wrong; with `equal` one whose two sides are equal numbers."""
    graphs = list(editor.model.graphs())
    g = random.choice([editor.model.graph, *graphs])
    mine = [v for v in values_of(g) if v.dtype in (1, 9) and (not v.is_input or random.random() < 0.1)]
    every = [v for h in graphs for v in values_of(h)]
    if not mine:
        return None
    if random.random() < 0.15 and (inlined := _inlined(editor, random, g, equal)):
        return inlined
    old, new, text = [], [], []
    try:
        for a in random.sample(mine, min(len(mine), random.choice([1, 1, 1, 1, 2, 3]))):
            say, b = _equal_side(editor, random, a) if equal else _new_side(editor, random, a, mine, every)
            old.append(a)
            new.append(b)
            text.append(f"{a.name} := {say}")
    except Decline:
        return None
    options: dict[str, object] = {}
    if equal or (all(map(_truly_alike, old, new)) and random.random() < 0.7):
        options["shape"] = "test"
    if not equal and random.random() < 0.1:
        options["must_go"] = [random.choice(list(g))] if len(g) else []
    return Rewrite(f"{'/'.join(g.path()) or 'main'}: {', '.join(text)} {options}", old, new, options)


def _inlined(editor: Editor, random: Random, g: Graph, equal: bool) -> Rewrite | None:
    """An If := one of its branches, the one that is taken if the two sides shall be equal."""
    ifs = [n for n in g if n.op == "If" and (not equal or (n.inputs[0] is not None and n.inputs[0].const is not None))]
    if not ifs:
        return None
    n = random.choice(ifs)
    condition = n.inputs[0].const if n.inputs[0] is not None else None
    taken = "else_branch" if condition is not None and not condition else "then_branch"
    body = n.bodies[body_names(n).index(taken)]
    some = n.outputs if equal else random.sample(n.outputs, random.randint(1, len(n.outputs)))
    staged = dict(zip(n.outputs, editor.stage_body(body)))
    new: list[Value | np.ndarray] = [staged[o] for o in some]
    return Rewrite(f"inline {n}", list(some), new, {"shape": "test"}, inlines=True)


def _truly_alike(a: Value, b: Value | np.ndarray) -> bool:
    """Whether the shapes are the same at run time: n is ROWS, so the columns tell."""
    x, y = a.dims, b.dims if isinstance(b, Value) else b.shape
    return (
        x is not None
        and y is not None
        and x[-1:] == y[-1:]
        and len(x) == len(y)
        and all(isinstance(d, int) for d in x[-1:])
    )


def _equal_side(editor: Editor, random: Random, a: Value) -> tuple[str, Value | np.ndarray]:
    op = editor.op
    if a.dtype == TensorProto.BOOL:
        return "not not", op.Not(op.Not(a))
    p = a.producer
    kind = random.choice(["identity", "negated", "max", "above", "swapped", "copy"])
    if kind == "above" and p is not None and p.op == "Identity":
        return "its operand", p.inputs[0]
    if kind == "swapped" and p is not None and p.op in ("Add", "Max", "Min"):
        return "operands swapped", getattr(op, p.op)(p.inputs[1], p.inputs[0])
    if kind == "copy" and a.const is not None:
        return "a copy", np.array(a.const)
    if kind == "negated":
        return "-(-a)", op.Neg(op.Neg(a))
    return ("max(a, a)", op.Max(a, a)) if kind == "max" else ("identity", op.Identity(a))


def _new_side(
    editor: Editor, random: Random, a: Value, mine: list[Value], every: list[Value]
) -> tuple[str, Value | np.ndarray]:
    op = editor.op
    kind = random.choice(["value", "value", "staged", "staged", "staged", "wrap", "constant", "outer", "equal"])
    if kind == "equal":
        return _equal_side(editor, random, a)
    near = [v for v in mine if v.dtype == a.dtype and (v.dims == a.dims or random.random() < 0.05)] or [a]
    far = [v for v in every if v.dtype == a.dtype and (v.dims == a.dims or random.random() < 0.05)] or [a]
    if kind == "value":
        b = random.choice(near)
        return b.name, b
    if kind == "outer":
        b = random.choice(far)
        return b.name, b
    if kind == "constant":
        shape = [d if isinstance(d, int) else ROWS for d in a.dims or ()]
        return "constant", np.ones(shape, bool) if a.dtype == TensorProto.BOOL else np.ones(shape, "f")
    x = a if kind == "wrap" else random.choice(near + far)
    say = x.name
    for _ in range(1 if kind == "wrap" else random.randint(1, 3)):
        if a.dtype == TensorProto.BOOL:
            x, say = op.Not(x), f"Not({say})"
        elif random.random() < 0.5:
            f = random.choice(["Abs", "Neg", "Tanh"])
            x, say = getattr(op, f)(x), f"{f}({say})"
        elif random.random() < 0.3:
            left, right = op.Split(x, np.asarray([HALF, HALF]), axis=1, outputs=2)
            x, say = op.Concat(right, left, axis=1), f"Rotate({say})"
        else:
            y = random.choice([*near, *far, a])
            x, say = op.Add(x, y), f"Add({say}, {y.name})"
    return say, x


# ── what a rewrite means, written naively ─────────────────────────────────────────────────────────────────────────────


def naive(model: Model, lowered: ModelProto, rewrite: Rewrite) -> ModelProto:
    """The rewrite done on the proto without liveness, order or naming; nodes may be out of order.

    Old values go by another name, and an Identity of the new side takes over the old one.
    """
    out = ModelProto()
    out.CopyFrom(lowered)
    g = rewrite.old[0].graph
    assert g is not None
    proto = _find(model.graph, out.graph, g)
    assert proto is not None
    olds = {a: f"{a.name}__old" for a in rewrite.old}
    for n in proto.node:
        n.output[:] = [next((t for a, t in olds.items() if a.name == o), o) for o in n.output]
    for t in proto.initializer:
        t.name = next((s for a, s in olds.items() if a.name == t.name), t.name)
    names: dict[Value, str] = {}

    def write(v: Value) -> str:
        if v in olds:
            return olds[v]
        if v.name or v in names:
            return v.name or names[v]
        if v.producer is None:
            assert v.tensor is not None
            names[v] = f"new__{len(names)}"
            proto.initializer.append(v.tensor.to_proto(names[v]))
            return names[v]
        p = v.producer
        inputs = [write(i) if i is not None else "" for i in p.inputs]
        for o in p.outputs:
            names[o] = f"new__{len(names)}"
        proto.node.append(helper.make_node(p.op, inputs, [names[o] for o in p.outputs], **p.attributes))
        return names[v]

    for k, (a, b) in enumerate(zip(rewrite.old, rewrite.new)):
        if isinstance(b, Value):
            source = write(b)
        else:
            source = f"array__{k}"
            proto.initializer.append(numpy_helper.from_array(b, source))
        proto.node.append(helper.make_node("Identity", [source], [a.name]))
    return out


def _find(g: Graph, proto: GraphProto, wanted: Graph) -> GraphProto | None:
    if g is wanted:
        return proto
    for n, p in zip(g, proto.node):
        bodies = iter(n.bodies)
        for a in p.attribute:
            if a.type == AttributeProto.GRAPH and (found := _find(next(bodies), a.g, wanted)) is not None:
                return found
    return None


def runnable(model: ModelProto) -> ModelProto:
    """The model for ONNX Runtime, which wants an Identity where a body hands out a value that it captured."""
    out = ModelProto()
    out.CopyFrom(model)
    todo = [a.g for n in out.graph.node for a in n.attribute if a.type == AttributeProto.GRAPH]
    while todo:
        body = todo.pop()
        todo += [a.g for n in body.node for a in n.attribute if a.type == AttributeProto.GRAPH]
        mine = {o for n in body.node for o in n.output} | {i.name for i in (*body.input, *body.initializer)}
        for k, o in enumerate(body.output):
            if o.name not in mine:
                body.node.append(helper.make_node("Identity", [o.name], [f"{body.name}__{k}"]))
                o.name = body.node[-1].output[0]
    return out
