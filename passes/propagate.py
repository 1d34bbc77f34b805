"""dtype, dims and known values of every value, as far as they can be proven; later rounds look only at what changed."""

from __future__ import annotations

from optimizer.core.edit import Editor, Fidelity
from optimizer.core.graph import Graph
from optimizer.core.propagate import propagate
from optimizer.core.rule import Pass, procedure


@procedure(fidelity=Fidelity.EXACT)
def analysis(editor: Editor, graph: Graph) -> None:
    """facts get better; the graph stays as it is"""
    if graph.owner is None:
        propagate(editor.model, editor.touched, editor.mark("propagate"))


PROPAGATE = Pass("propagate", (analysis,))
