"""What nobody reads goes."""

from __future__ import annotations

from collections.abc import Mapping

from optimizer.core.edit import Editor, Fidelity
from optimizer.core.graph import Graph, Node, anchor
from optimizer.core.rule import Pass, procedure


@procedure(fidelity=Fidelity.EXACT)
def dead_code(editor: Editor, graph: Graph) -> None:
    """a node whose outputs nobody reads → nothing"""
    gone: dict[Node, None] = {}
    for n in reversed(graph):
        if not _is_read(n, graph, gone):
            gone[n] = None
    if gone:
        editor.remove(list(gone))


def _is_read(n: Node, graph: Graph, gone: Mapping[Node, None]) -> bool:
    for o in n.outputs:
        if o.is_output:
            return True
        for u in o.uses:
            if (u if u.graph is graph else anchor(u, graph)) not in gone:
                return True
    return False


@procedure(fidelity=Fidelity.EXACT)
def unused_initializer(editor: Editor, graph: Graph) -> None:
    """an initializer that nobody reads, and nobody may override → nothing"""
    unused = [v for v in graph.constants() if not v.uses and not v.is_input and not v.is_output]
    if unused:
        editor.remove([], initializers=unused)


CLEANUP = Pass("cleanup", (dead_code, unused_initializer))
