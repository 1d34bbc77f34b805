"""`graphwright optimize`: a smaller model, proved to be the same one."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from optimizer.core.edit import Editor
from optimizer.core.errors import BadInput
from optimizer.core.model import ModelLike
from optimizer.driver import catalog, pipeline, recipe
from optimizer.driver.build import Given, Request, Rewritten, api, build
from optimizer.driver.presets import LEVELS
from optimizer.driver.result import Result


def optimize(
    model: ModelLike,
    *,
    level: int = 2,
    passes: str | None = None,
    target: str = "portable",
    dims: Mapping[str, int] | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    inputs: Sequence[str] | None = None,
    outputs: Sequence[str] | None = None,
    rename: Mapping[str, str] | None = None,
    without: Sequence[str] = (),
    graphsurgeon: str | None = None,
    keep_functions: bool = False,
    feeds: Any = None,
    custom_ops: Sequence[str | os.PathLike[str]] = (),
    validate: bool = True,
    bench: bool = False,
    expect: Sequence[str] = (),
    verify: str = "off",
    refused: str | os.PathLike[str] | None = None,
    seed: int = 0,
) -> Result:
    """The same model in fewer nodes and bytes, with the account of every rewrite and the proof.

    Args:
        model: a path, a card, bytes, a ModelProto, an onnx_ir.Model or a torch.onnx.ONNXProgram; never changed.
        level: 0 nothing, 1 exact rewrites, 2 exact and rounding ones.
        passes: a recipe instead of the level's, `'normalize (propagate fold simplify)* cleanup'`.
        target: the row the result must be legal on.
        dims, shapes: freeze free dimensions by name, or inputs' shapes.
        inputs, outputs: extract the subgraph between these values.
        rename: old name → new name.
        without: rules not to apply.
        graphsurgeon: `FILE.py:FN`, run first as a guest.
        keep_functions: local functions stay calls.
        feeds, custom_ops, seed: what validation draws and loads.
        validate, bench, expect: judge the result; `KEY OP VALUE` gates it.
        verify: "each" runs every edit on its window before it is committed, and refuses it where it does not hold.
        refused: a folder for the reproducers of refused edits.

    Raises:
        BadInput: the model or an argument is not acceptable.
        ValidationFailed: the verdict is negative; `.result` holds the result.
        EnvironmentNotAsAsked: what an expectation needs cannot run here.
    """
    return api(
        run(
            model, level=level, passes=passes, target=target, dims=dims, shapes=shapes, inputs=inputs, outputs=outputs,
            rename=rename, without=without, graphsurgeon=graphsurgeon, keep_functions=keep_functions, feeds=feeds,
            custom_ops=custom_ops, validate=validate, bench=bench, expect=expect, verify=verify,
            refused=Path(refused) if refused is not None else None, seed=seed,
        )
    )  # fmt: skip


def run(
    model: ModelLike,
    out: Path | None = None,
    *,
    level: int = 2,
    passes: str | None = None,
    target: str = "portable",
    dims: Mapping[str, int] | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    rename: Mapping[str, str] | None = None,
    without: Sequence[str] = (),
    graphsurgeon: str | None = None,
    keep_functions: bool = False,
    **request: Any,
) -> Result:
    """`optimize` with an output file; a negative verdict is in `Result.exit_code`. `request`: fields of `Request`."""
    if level not in LEVELS:
        raise BadInput(f"there is no level {level}", fix=f"choose one of {', '.join(f'-O{n}' for n in LEVELS)}")
    text = LEVELS[level] if passes is None else passes
    steps = recipe.parse(text)
    skip = {catalog.check_rule(name) for name in without} | ({"inline_function"} if keep_functions else set[str]())

    def rewrite(editor: Editor, given: Given) -> Rewritten:
        phases: list[pipeline.Phase] = []
        if graphsurgeon is not None:
            from optimizer.driver import guests

            guests.graphsurgeon(editor, graphsurgeon)
            phases.append(pipeline.Phase("guest", Counter(e.rule for e in editor.log)))
        phases += pipeline.run(editor, steps, without=skip, progress=given.request.progress)
        return Rewritten(phases)

    return build(
        model,
        Request(
            verb="optimize",
            level=f"-O{level}" if passes is None else "--passes",
            passes=text,
            target=target,
            dims=dims or {},
            shapes=shapes or {},
            rename=rename or {},
            out=Path(out) if out is not None else None,
            **request,
        ),
        rewrite,
    )
