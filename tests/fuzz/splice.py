"""Seeds put among other operators: before, behind, side by side, into a branch, a loop, a function."""

from __future__ import annotations

from random import Random

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from .mutate import FLOATS

SAME = ("Relu", "Neg", "Abs", "Identity", "Tanh", "Sigmoid")  # same type and shape, of floats


def complete(model: ModelProto) -> bool:
    """Types of outputs that have none, by onnx's inference; False if it does not know one."""
    for o in model.graph.output:
        if o.type.WhichOneof("value") is None or not o.type.tensor_type.HasField("shape"):
            break
    else:
        return True
    try:
        g = onnx.shape_inference.infer_shapes(model).graph
    except Exception:  # illegal: whoever made it tries again
        return False
    known = {i.name: i.type for i in (*g.value_info, *g.output, *g.input)}
    for k, o in enumerate(model.graph.output):
        t = known.get(o.name)
        if t is None or not t.HasField("tensor_type") or not t.tensor_type.HasField("shape"):
            return False
        o.type.CopyFrom(t)
        for i, d in enumerate(o.type.tensor_type.shape.dim):
            if not d.HasField("dim_value") and not d.dim_param:
                d.dim_param = f"u{k}_{i}"
    return True


def splice(seeds: list[ModelProto], random: Random) -> ModelProto:
    """One model of all seeds, which have one opset; their dim names are shared, their values' names are not."""
    host = Host(seeds[0], random)
    for k, seed in enumerate(seeds):
        host.add(seed, f"s{k}_")
    return host.model()


def wrap(model: ModelProto, random: Random) -> ModelProto:
    """The whole graph in a branch, in a loop, or in a function."""
    return random.choice((_in_branch, _in_branch, _in_loop, _in_function))(model, random)


class Host:
    """The graph that grows around the seeds."""

    def __init__(self, first: ModelProto, random: Random) -> None:
        self.random = random
        self.first = first
        self.inputs: list[ValueInfoProto] = []
        self.outputs: list[ValueInfoProto] = []
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self.free: list[ValueInfoProto] = []  # values that later seeds may read
        self.count = 0

    def name(self, stem: str) -> str:
        self.count += 1
        return f"{stem}{self.count}"

    def add(self, seed: ModelProto, prefix: str) -> None:
        g = onnx.compose.add_prefix_graph(seed.graph, prefix)
        r = self.random
        given = {t.name for t in g.initializer}
        renamed: dict[str, str] = {}
        for i in g.input:
            if i.name in given:
                self.inputs.append(i)
                continue
            near = [v for v in self.free if _same_type(v, i)]
            if near and r.random() < 0.5:
                renamed[i.name] = r.choice(near).name
            elif r.random() < 0.4 and i.type.tensor_type.elem_type in FLOATS:
                renamed[i.name] = self._before(i)
            else:
                self.inputs.append(i)
                self.free.append(i)
        for n in g.node:
            _rename(n, renamed)
        self.nodes += g.node
        self.constants += g.initializer
        for o in g.output:
            o.name = renamed.get(o.name, o.name)
            self.free.append(o)
            if o.type.tensor_type.elem_type in FLOATS and r.random() < 0.4:
                o = self._behind(o)
            if all(p.name != o.name for p in self.outputs):
                self.outputs.append(o)

    def _before(self, i: ValueInfoProto) -> str:
        """A value of i's type made of a new input."""
        r, x = self.random, _like(i, self.name("x"))
        self.inputs.append(x)
        self.free.append(x)
        v, out = x.name, self.name("p")
        kind = r.choice((*SAME, "Mul", "Add", "Cast", "Transpose"))
        rank = len(i.type.tensor_type.shape.dim)
        if kind in SAME:
            self.nodes.append(helper.make_node(kind, [v], [out]))
        elif kind == "Cast":
            wide = self.name("c")
            self.nodes.append(helper.make_node("Cast", [v], [wide], to=TensorProto.DOUBLE))
            self.nodes.append(helper.make_node("Cast", [wide], [out], to=i.type.tensor_type.elem_type))
        elif kind == "Transpose" and rank:
            perm = list(range(rank))
            r.shuffle(perm)
            t = self.name("t")
            self.nodes.append(helper.make_node("Transpose", [v], [t], perm=perm))
            back = [perm.index(k) for k in range(rank)]
            self.nodes.append(helper.make_node("Transpose", [t], [out], perm=back))
        else:
            self._scaled("Mul" if kind == "Transpose" else kind, v, out, i.type.tensor_type.elem_type)
        return out

    def _scaled(self, op: str, v: str, out: str, elem_type: int) -> None:
        c = self.name("k")
        x = np.asarray(self.random.choice((0.5, 2.0, 1.0, 0.0, -1.0)), helper.tensor_dtype_to_np_dtype(elem_type))
        self.constants.append(numpy_helper.from_array(x, c))
        self.nodes.append(helper.make_node(op, [v, c], [out]))

    def _behind(self, o: ValueInfoProto) -> ValueInfoProto:
        """A value of o's type made of it."""
        out = _like(o, self.name("q"))
        kind = self.random.choice((*SAME, "Mul", "Add"))
        if kind in SAME:
            self.nodes.append(helper.make_node(kind, [o.name], [out.name]))
        else:
            self._scaled(kind, o.name, out.name, o.type.tensor_type.elem_type)
        return out

    def model(self) -> ModelProto:
        graph = helper.make_graph(self.nodes, "fuzz", self.inputs, self.outputs, self.constants)
        made = helper.make_model(graph, ir_version=self.first.ir_version, opset_imports=list(self.first.opset_import))
        made.functions.extend(self.first.functions)
        return made


def _like(i: ValueInfoProto, name: str) -> ValueInfoProto:
    out = ValueInfoProto(name=name)
    out.type.CopyFrom(i.type)
    return out


def _same_type(a: ValueInfoProto, b: ValueInfoProto) -> bool:
    return a.type.SerializeToString(deterministic=True) == b.type.SerializeToString(deterministic=True)


def _rename(n: NodeProto, names: dict[str, str]) -> None:
    n.input[:] = [names.get(i, i) for i in n.input]
    for a in n.attribute:
        if a.HasField("g"):
            for m in a.g.node:
                _rename(m, names)
            for o in a.g.output:
                o.name = names.get(o.name, o.name)


# ── bodies ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _inner(g: GraphProto) -> tuple[list[NodeProto], list[TensorProto], list[ValueInfoProto], list[TensorProto]]:
    """Nodes and constants of a body, its outputs (each made by a node of its own), and the defaults that stay outside."""
    may = {i.name for i in g.input}
    inside = [t for t in g.initializer if t.name not in may]
    nodes = list(g.node)
    outputs = []
    for k, o in enumerate(g.output):
        name = f"inner{k}"
        nodes.append(helper.make_node("Identity", [o.name], [name]))
        outputs.append(_like(o, name))
    return nodes, inside, outputs, [t for t in g.initializer if t.name in may]


def _around(
    model: ModelProto, nodes: list[NodeProto], constants: list[TensorProto], more: list[ValueInfoProto]
) -> ModelProto:
    g = model.graph
    graph = helper.make_graph(nodes, "fuzz", [*g.input, *more], list(g.output), constants)
    out = helper.make_model(graph, ir_version=model.ir_version, opset_imports=list(model.opset_import))
    out.functions.extend(model.functions)
    return out


def _in_branch(model: ModelProto, random: Random) -> ModelProto:
    nodes, inside, outputs, defaults = _inner(model.graph)
    body = helper.make_graph(nodes, "then", [], outputs, inside)
    other = onnx.compose.add_prefix_graph(body, "e_", inplace=False)
    captured = {i.name for i in model.graph.input}
    for n in other.node:
        _rename(n, {f"e_{c}": c for c in captured})
    for n in other.node:
        if n.op_type in ("Relu", "Neg", "Abs", "Tanh") and random.random() < 0.5:
            n.op_type = random.choice(("Relu", "Neg", "Abs", "Tanh"))
    branches = (body, other) if random.random() < 0.5 else (other, body)
    cond: list[ValueInfoProto] = []
    constants = list(defaults)
    if random.random() < 0.7:
        cond.append(helper.make_tensor_value_info("cond", TensorProto.BOOL, []))
    else:
        constants.append(numpy_helper.from_array(np.asarray(random.random() < 0.5), "cond"))
    node = helper.make_node(
        "If", ["cond"], [o.name for o in model.graph.output], then_branch=branches[0], else_branch=branches[1]
    )
    return _around(model, [node], constants, cond)


def _in_loop(model: ModelProto, random: Random) -> ModelProto:
    """One trip or more, each handing out what the graph computes; the outputs get an axis for the trips."""
    nodes, inside, outputs, defaults = _inner(model.graph)
    nodes = [*nodes, helper.make_node("Identity", ["going"], ["on"])]
    taken = [
        helper.make_tensor_value_info("i", TensorProto.INT64, []),
        helper.make_tensor_value_info("going", TensorProto.BOOL, []),
    ]
    body = helper.make_graph(
        nodes, "body", taken, [helper.make_tensor_value_info("on", TensorProto.BOOL, []), *outputs], inside
    )
    constants = [
        *defaults,
        numpy_helper.from_array(np.asarray(random.choice((0, 1, 2, 3)), np.int64), "trips"),
        numpy_helper.from_array(np.asarray(True), "start"),
    ]
    node = helper.make_node("Loop", ["trips", "start"], [o.name for o in model.graph.output], body=body)
    out = _around(model, [node], constants, [])
    for k, o in enumerate(out.graph.output):
        dims = o.type.tensor_type.shape.dim
        old = [d.dim_value if d.HasField("dim_value") else d.dim_param for d in dims]
        del dims[:]
        dims.add(dim_param=f"trips{k}")
        for d in old:
            dims.add(dim_value=d) if isinstance(d, int) else dims.add(dim_param=d)
    return out


def _in_function(model: ModelProto, random: Random) -> ModelProto:
    """A call, or two calls one of which nobody reads."""
    g = model.graph
    may = {t.name for t in g.initializer} & {i.name for i in g.input}
    nodes = [helper.make_node("Constant", [], [t.name], value=t) for t in g.initializer if t.name not in may]
    made = {o for n in g.node for o in n.output}
    nodes += g.node
    names = []
    for k, o in enumerate(g.output):
        if o.name not in made:
            nodes.append(helper.make_node("Identity", [o.name], [f"handed{k}"]))
        names.append(o.name if o.name in made else f"handed{k}")
    f = helper.make_function("local", "f", [i.name for i in g.input], names, nodes, list(model.opset_import))
    calls = [helper.make_node("f", [i.name for i in g.input], [o.name for o in g.output], domain="local")]
    if random.random() < 0.3:
        calls.append(
            helper.make_node("f", [i.name for i in g.input], [f"spare{k}" for k in range(len(names))], domain="local")
        )
    out = _around(model, calls, [t for t in g.initializer if t.name in may], [])
    out.opset_import.append(helper.make_opsetid("local", 1))
    out.functions.append(f)
    return out
