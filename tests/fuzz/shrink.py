"""A failing model made small: as long as it fails in the same way, parts of it go."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import onnx
from onnx import GraphProto, ModelProto, NodeProto

from .mutate import graphs

Fails = Callable[[ModelProto], bool]


def shrink(model: ModelProto, fails: Fails, *, tries: int = 2000) -> ModelProto:
    """A small model that `fails`, as `model` does; at most so many are tried."""
    left = tries
    while True:
        for smaller in _smaller(model):
            left -= 1
            if left < 0:
                return model
            if _size(smaller) < _size(model) and fails(smaller):
                model = smaller
                break
        else:
            return model


def _size(model: ModelProto) -> tuple[int, int]:
    """Nodes, those in bodies included, and bytes."""
    return sum(len(g.node) for g in graphs(model.graph)) + sum(len(f.node) for f in model.functions), model.ByteSize()


def _copy(model: ModelProto) -> ModelProto:
    return ModelProto.FromString(model.SerializeToString())


def _smaller(model: ModelProto) -> Iterator[ModelProto]:
    """Models with one thing less, the most at once first."""
    if model.functions:
        yield from _inlined(model)
    for at, n in enumerate(model.graph.node):
        for a in n.attribute:
            if a.HasField("g") and n.op_type == "If":
                m = _copy(model)
                _open(m.graph, at, a.g)
                yield _swept(m)
    for k in range(len(model.graph.output)):
        if len(model.graph.output) > 1:
            m = _copy(model)
            del m.graph.output[k]
            yield _swept(m)
    for k in range(len(model.graph.node)):
        yield from _without_node(model, k)
    for g_at, g in enumerate(graphs(model.graph)):
        for k, n in enumerate(g.node):
            for i in [i for i in n.input if i]:
                if g_at and len(n.output) == 1:
                    m = _copy(model)
                    body = list(graphs(m.graph))[g_at]
                    _bypass(body, k, i)
                    yield _swept(m)


def _inlined(model: ModelProto) -> Iterator[ModelProto]:
    try:
        yield onnx.inliner.inline_local_functions(_copy(model))
    except Exception:  # what cannot be inlined stays
        return


def _open(g: GraphProto, at: int, body: GraphProto) -> None:
    """The nodes of a branch in the place of the If."""
    outputs = dict(zip((o.name for o in body.output), g.node[at].output))
    nodes = [NodeProto.FromString(n.SerializeToString()) for n in g.node]
    inner = [NodeProto.FromString(n.SerializeToString()) for n in body.node]
    for n in inner:
        n.output[:] = [outputs.get(o, o) for o in n.output]
        n.input[:] = [outputs.get(i, i) for i in n.input]
    g.initializer.extend(body.initializer)
    nodes[at : at + 1] = inner
    del g.node[:]
    g.node.extend(nodes)


def _without_node(model: ModelProto, at: int) -> Iterator[ModelProto]:
    """One node of the main graph less: its reader reads what it reads, or its output is an input."""
    n = model.graph.node[at]
    if len(n.output) == 1:
        for i in dict.fromkeys(i for i in n.input if i):
            m = _copy(model)
            _bypass(m.graph, at, i)
            yield _swept(m)
    try:
        known = onnx.shape_inference.infer_shapes(model).graph
    except Exception:  # illegal anyway
        return
    types = {v.name: v for v in (*known.value_info, *known.output)}
    if n.input and all(not o or o in types for o in n.output):
        m = _copy(model)
        outputs = {o.name for o in m.graph.output}
        if any(o in outputs for o in n.output):
            return
        m.graph.input.extend(types[o] for o in n.output if o)
        del m.graph.node[at]
        for v in m.graph.input:
            for k, d in enumerate(v.type.tensor_type.shape.dim):
                if not d.HasField("dim_value") and not d.dim_param:
                    d.dim_param = f"d{k}"
        yield _swept(m)


def _bypass(g: GraphProto, at: int, by: str) -> None:
    """Whoever reads the node's output reads one of its operands."""
    old = g.node[at].output[0]
    nodes = [NodeProto.FromString(n.SerializeToString()) for n in g.node]
    del nodes[at]
    for n in nodes:
        n.input[:] = [by if i == old else i for i in n.input]
        for a in n.attribute:
            if a.HasField("g"):
                for inner in graphs(a.g):
                    for m in inner.node:
                        m.input[:] = [by if i == old else i for i in m.input]
    del g.node[:]
    g.node.extend(nodes)
    made = {o for n in g.node for o in n.output} - {o.name for o in g.output}
    for o in (o for o in g.output if o.name == old):
        if by in made:
            o.name = by
        else:
            g.node.add(op_type="Identity", input=[by], output=[old])


def _swept(model: ModelProto) -> ModelProto:
    """Without nodes, constants and inputs that nobody reads."""
    g = model.graph
    while True:
        read = {o.name for o in g.output}
        read |= {i for inner in graphs(g) for n in inner.node for i in n.input}
        read |= {o.name for inner in graphs(g) for o in inner.output}
        dead = [k for k, n in enumerate(g.node) if not any(o in read for o in n.output)]
        if not dead:
            break
        for k in reversed(dead):
            del g.node[k]
    for entries in (g.initializer, g.input):
        for k in reversed(range(len(entries))):
            if entries[k].name not in read:
                del entries[k]
    return model
