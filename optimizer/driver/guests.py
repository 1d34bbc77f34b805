"""Guests mutate freely: the driver hands them a copy and logs what comes back as one opaque edit."""

from __future__ import annotations

import io
from collections.abc import Generator
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

from optimizer.core import model as file_edge
from optimizer.core.edit import Editor, Evidence, Fidelity
from optimizer.core.errors import BadInput, GraphwrightError
from optimizer.core.graph import Model
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
    with _quiet():
        function = load_function(Path(file), name)
        import onnx_graphsurgeon as gs

        said = io.StringIO()
        with redirect_stdout(said):
            graph: Any = gs.import_onnx(file_edge.to_proto(editor.model))
        try:
            graph = function(graph) or graph
            with redirect_stdout(said):
                proto = gs.export_onnx(graph)
        except GraphwrightError:
            raise
        except Exception as e:  # whatever the user's code raises
            why = " ".join(f"{type(e).__name__}: {e}".split())
            raise BadInput(f"the graphsurgeon function failed: {why}", at=where, fix="see it with -v") from e
    try:
        adopted = file_edge.read(proto)
    except BadInput as e:
        raise BadInput(
            f"what the graphsurgeon function left is no valid model: {e.what}",
            at=f"{where}: {e.at}" if e.at else where,
            fix="call graph.cleanup().toposort() at its end, and check what it changed there",
        ) from e
    with editor.under(f"graphsurgeon:{name}", Fidelity.ROUNDING, Evidence.NONE):
        editor.phase = "guest"
        editor.adopt(file_edge.lower(adopted), where)
    _hold(editor.model, adopted)
    lines = dict.fromkeys(said.getvalue().splitlines())  # what it could not take over, above all
    editor.model.warnings += [f"onnx-graphsurgeon: {line.removeprefix('[W] ')}" for line in lines]


def _hold(model: Model, adopted: Model) -> None:
    """The weights of `adopted` live as long as `model`: sparse ones and those of functions only name their buffer."""
    if model.source is not None and adopted.source is not None:
        model.source = replace(model.source, buffers=(*model.source.buffers, *adopted.source.buffers))


@contextmanager
def _quiet() -> Generator[None]:
    """graphsurgeon prints remarks to stdout: no more than warnings, unless the user's code asks for more."""
    from onnx_graphsurgeon.logger import G_LOGGER

    logger: Any = G_LOGGER
    was = logger.severity, logger.colors
    logger.severity, logger.colors = logger.WARNING, False
    try:
        yield
    finally:
        logger.severity, logger.colors = was
