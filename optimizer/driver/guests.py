"""Guests mutate freely: the driver hands them a copy and logs what comes back as one opaque edit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from optimizer.core import model as file_edge
from optimizer.core.edit import Editor, Evidence, Fidelity
from optimizer.core.errors import BadInput
from optimizer.runtime.card import load_function


def graphsurgeon(editor: Editor, where: str) -> None:
    """Run `FILE.py:FN` on the model as an onnx-graphsurgeon Graph: `FN(graph)` changes it, or returns another one.

    Raises:
        BadInput: there is no such file or function, it fails, or what it leaves is no valid graph.
        ToolFailure: the model exceeds the 2 GiB that onnx-graphsurgeon can be handed.
    """
    file, _, name = where.rpartition(":")
    if not file:
        raise BadInput(f"{where!r} names no function", fix="write FILE.py:FUNCTION")
    function = load_function(Path(file), name)
    import onnx_graphsurgeon as gs

    graph: Any = gs.import_onnx(file_edge.to_proto(editor.model))
    try:
        graph = function(graph) or graph
        proto = gs.export_onnx(graph)
    except Exception as e:  # whatever the user's code raises
        raise BadInput(
            f"the graphsurgeon function failed: {type(e).__name__}: {e}", at=where, fix="see it with -v"
        ) from e
    adopted = file_edge.read(proto)
    with editor.under(f"graphsurgeon:{name}", Fidelity.ROUNDING, Evidence.NONE):
        editor.phase = "guest"
        editor.adopt(file_edge.lower(adopted), where)
