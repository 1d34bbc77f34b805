"""Equal nodes and equal constants are kept once."""

from __future__ import annotations

from collections.abc import Iterator

from onnx import TensorProto

from optimizer.core import facts
from optimizer.core.edit import Editor, Fidelity
from optimizer.core.graph import Graph, Node, Value, attribute_proto
from optimizer.core.rule import procedure
from optimizer.core.tensor import Tensor

WHOLE = 4096  # bytes: constants up to this size are compared by content at once


@procedure(fidelity=Fidelity.EXACT)
def equal_nodes(editor: Editor, graph: Graph) -> None:
    """f(x), f(x) → one f(x), for every deterministic f"""
    seen: dict[tuple[object, ...], Node] = editor.notes("twins.equal_nodes", graph)
    for n in editor.news("twins.equal_nodes", graph):
        if n.domain or n.bodies or n.op == "Constant" or not facts.pure(n):
            continue
        key = _key(n)
        first = seen.setdefault(key, n)
        if first is n:
            continue
        if first.graph is not graph or _key(first) != key:  # it has changed since
            seen[key] = n
            continue
        if first.pos > n.pos:
            seen[key], first, n = n, n, first
        pairs = [(a, b) for a, b in zip(n.outputs, first.outputs) if a.uses or a.is_output]
        if pairs and all(b.name for _, b in pairs):
            editor.replace([a for a, _ in pairs], [b for _, b in pairs], shape="the same operation")


def _key(n: Node) -> tuple[object, ...]:
    return (n.op, *map(id, n.inputs), len(n.outputs), attributes_key(n))


def attributes_key(n: Node) -> tuple[bytes, ...]:
    protos = n.proto.attribute if n.proto is not None else [attribute_proto(k, a) for k, a in n.attributes.items()]
    return tuple(sorted(a.SerializeToString(deterministic=True) for a in protos)) if len(protos) else ()


@procedure(fidelity=Fidelity.EXACT)
def equal_constants(editor: Editor, graph: Graph) -> None:
    """two initializers of the same type and content → one"""
    alike: dict[tuple[object, ...], list[Value]] = editor.notes("twins.equal_constants", graph)
    met: dict[Value, None] = editor.notes("twins.constants met", graph)
    for v in list(graph.initializers):
        if v in met or v in graph.dead:
            continue
        met[v] = None
        t = v.tensor
        if t is None or v.is_input or v.is_output:
            continue
        key: tuple[object, ...] = (t.dtype, t.shape, *_sample(t))
        group = alike.setdefault(key, [])
        twin = next(
            (
                w
                for w in group
                if w not in graph.dead and w.tensor is not None and (t.nbytes <= WHOLE or _equal(t, w.tensor))
            ),
            None,
        )
        if twin is None:
            group.append(v)
        else:
            editor.replace([v], [twin], shape="the same constant")


def _sample(t: Tensor) -> Iterator[bytes]:
    """All of a small constant, and of text; both ends of a large one, so that few are ever read whole."""
    r = t.region
    if t.dtype == TensorProto.STRING:  # text is not raw data
        yield repr(t.numpy().tolist()).encode()
    elif r is None or r.length <= WHOLE:
        whole = b"".join(bytes(b) for b in t.blocks())
        yield whole if len(whole) <= WHOLE else whole[:WHOLE] + whole[-WHOLE:]
    else:
        yield bytes(next(r.buffer.blocks(r.offset, WHOLE)))
        yield bytes(next(r.buffer.blocks(r.offset + r.length - WHOLE, WHOLE)))


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.nbytes == b.nbytes and all(x == y for x, y in zip(a.blocks(), b.blocks()))


STEPS = (equal_constants, equal_nodes)
