"""One spelling for what files spell in many ways: calls are inlined, constants are initializers, names are unique."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from onnx import AttributeProto, ModelProto, NodeProto

from optimizer.core.edit import Editor, Fidelity
from optimizer.core.graph import Graph, Node, lower
from optimizer.core.rule import Pass, procedure
from optimizer.core.tensor import Tensor
from passes.cleanup import dead_code

_CONSTANT = {
    "value_int": np.int64,
    "value_ints": np.int64,
    "value_float": np.float32,
    "value_floats": np.float32,
}


@procedure(fidelity=Fidelity.EXACT)
def inline_function(editor: Editor, graph: Graph) -> None:
    """a call of a local function → its body; a function of another opset than the model's stays a call"""
    model = editor.model
    if graph.owner is not None or not model.functions:
        return
    calls = [n for n in model.nodes() if (n.domain, n.op) in model.functions]
    if not calls:
        return
    from onnx.inliner import inline_local_functions

    proto = lower(model)
    if not _spell_defaults(proto):
        editor.no("a function hands on an attribute that it may not have")
        return
    _spell_outputs(proto)
    inlined = inline_local_functions(proto)
    if len(inlined.functions) < len(model.functions):
        editor.adopt(inlined, f"{len(calls)} calls", gone=calls)


def _spell_defaults(proto: ModelProto) -> bool:
    """Calls spell out the attributes that they leave to the function's defaults, which inlining forgets.

    False where whether a default holds would depend on the call around the call.
    """
    defaults = {(f.domain, f.name): {a.name: a for a in f.attribute_proto} for f in proto.functions}
    for nodes, optional in [(proto.graph.node, ()), *((f.node, f.attribute) for f in proto.functions)]:
        for n in _with_bodies(nodes):
            own = defaults.get((n.domain, n.op_type), {})
            if any(a.name in own and a.ref_attr_name in optional for a in n.attribute):
                return False
            have = {a.name for a in n.attribute}
            n.attribute.extend(a for name, a in own.items() if name not in have)
    return True


def _spell_outputs(proto: ModelProto) -> None:
    """What a body in a function hands out is made by a node: onnx's inliner renames constants but not where they go."""
    for f in proto.functions:
        for n in _with_bodies(f.node):
            for g in (a.g for a in n.attribute if a.type == AttributeProto.GRAPH):
                made = {o for m in g.node for o in m.output}
                for k, o in enumerate(o for o in g.output if o.name not in made):
                    g.node.add(op_type="Identity", input=[o.name], output=[f"{n.output[0]}.{g.name}.{k}"])
                    o.name = g.node[-1].output[0]


def _with_bodies(nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
    for n in nodes:
        yield n
        for a in n.attribute:
            for g in (a.g, *a.graphs):
                yield from _with_bodies(g.node)


@procedure(fidelity=Fidelity.EXACT)
def unique_names(editor: Editor, graph: Graph) -> None:
    """a body's value that is called like another graph's → a name of its own"""
    if graph.owner is not None or not graph.owners:
        return  # without bodies, names are unique already
    seen: set[str] = set()
    for g in editor.model.graphs():
        names = [
            *g.inputs,
            *(v for v in g.initializers if not v.is_input),
            *(o for n in g for o in n.outputs if o.name),
        ]
        again = [v for v in names if v.name in seen]
        if g.owner is not None and again:
            editor.rename(again)
        seen.update(v.name for v in names)


@procedure(fidelity=Fidelity.EXACT)
def constant(editor: Editor, graph: Graph) -> None:
    """Constant(value) → an initializer"""
    for n in graph:
        if n.op == "Constant" and not n.domain and not n.output.is_output and (t := _value(n)) is not None:
            editor.replace([n.output], [t], shape="the constant itself")


def _value(n: Node) -> Tensor | None:
    for name, x in n.attributes.items():
        if name == "value":
            return x if isinstance(x, Tensor) else None
        if name in _CONSTANT:
            return Tensor.of(np.asarray(x, _CONSTANT[name]))
        if name in ("value_string", "value_strings"):
            return Tensor.of(np.asarray(x, object))
    return None


@procedure(fidelity=Fidelity.EXACT)
def fixed_initializer(editor: Editor, graph: Graph) -> None:
    """at IR 3 an initializer that is listed among the inputs cannot be overridden → it leaves the inputs"""
    if editor.model.proto.ir_version < 4:
        editor.fix_initializers(graph)


# what nobody reads goes before anything is matched: an inner value that a dead node reads hides an idiom
NORMALIZE = Pass("normalize", (inline_function, dead_code, unique_names, fixed_initializer, constant))
