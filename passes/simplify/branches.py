"""Branches of If that are no choice: one of them stops the run, or both are the same."""

from __future__ import annotations

import numpy as np

from optimizer.core.edit import Editor, Fidelity
from optimizer.core.graph import Graph, Node
from optimizer.core.propagate import impossible
from optimizer.core.rule import procedure


@procedure(fidelity=Fidelity.EXACT, domain="wherever the model runs to its end")
def only_branch(editor: Editor, graph: Graph) -> None:
    """If(c) of which one branch stops what follows → c is known

    A squeeze of a dim whose size the exporter did not know is such an If: its branches differ in rank, and the layer
    behind it takes only one of them.
    """
    waiting: dict[Node, None] = editor.notes("branches.only_branch", graph)
    waiting |= dict.fromkeys(editor.news("branches.only_branch", graph, ("If",)))
    for n in list(waiting):
        c = n.inputs[0]
        if n.graph is not graph or c is None or c.is_const:
            del waiting[n]
        elif c.graph is graph and c.dims is not None and all(d == 1 for d in c.dims) and _ranks_differ(n):
            neither = [impossible(n, taken) for taken in (True, False)]
            if sum(neither) == 1:
                editor.replace([c], [np.full([1] * len(c.dims), neither[1])], shape="one truth value")


def _ranks_differ(n: Node) -> bool:
    return len(n.bodies) == 2 and any(
        a.rank is not None and b.rank is not None and a.rank != b.rank
        for a, b in zip(n.bodies[0].outputs, n.bodies[1].outputs)
    )


STEPS = (only_branch,)
