"""`graphwright prune`: the smallest weights become zero, by a plan that the receipt keeps."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from optimizer.core.edit import Editor
from optimizer.core.model import ModelLike
from optimizer.driver import pipeline, recipe
from optimizer.driver.build import Given, Request, Rewritten, api, build
from optimizer.driver.presets import PRUNE
from optimizer.driver.result import Result
from passes.prune import magnitude
from passes.prune.magnitude import PrunePlan, Scope


def prune(
    model: ModelLike,
    *,
    threshold: float | None = None,
    sparsity: float | None = None,
    scope: Scope = "tensor",
    ignore: Sequence[str] = (),
    target: str = "portable",
    feeds: Any = None,
    validate: bool = True,
    expect: Sequence[str] = (),
    seed: int = 0,
) -> Result:
    """w → 0 where |w| is small: weights of Conv, ConvTranspose, Gemm and MatMul.

    Args:
        model: a path, a card, bytes, a ModelProto, an onnx_ir.Model or a torch.onnx.ONNXProgram; never changed.
        threshold: |w| < threshold → 0.
        sparsity: this share of the weights, the smallest, → 0; either this or a threshold.
        scope: whether the share is of each tensor or of all weights together.
        ignore: globs of node names whose weights stay.
        target: the row the result must be legal on.
        feeds, validate, expect, seed: as in `optimize`; the result is judged by whether it is finite, not equal.

    Raises:
        BadInput: the model or an argument is not acceptable, a glob matches nothing.
        ValidationFailed: an expectation does not hold; `.result` holds the result.
        EnvironmentNotAsAsked: what an expectation needs cannot run here.
    """
    return api(
        run(
            model, threshold=threshold, sparsity=sparsity, scope=scope, ignore=ignore, target=target, feeds=feeds,
            validate=validate, expect=expect, seed=seed,
        )
    )  # fmt: skip


def run(
    model: ModelLike,
    out: Path | None = None,
    *,
    threshold: float | None = None,
    sparsity: float | None = None,
    scope: Scope = "tensor",
    ignore: Sequence[str] = (),
    **request: Any,
) -> Result:
    """`prune` with an output file; a negative verdict is in `Result.exit_code`. `request`: fields of `Request`."""
    before, _, after = PRUNE.partition(" prune ")

    def rewrite(editor: Editor, given: Given) -> Rewritten:
        progress = given.request.progress
        phases = pipeline.run(editor, recipe.parse(before), progress=progress)
        began, start = time.perf_counter(), len(editor.log)
        editor.phase = "prune"
        plan = magnitude.plan(
            editor.model, threshold=threshold, sparsity=sparsity, scope=scope, ignore=ignore, log=editor.log
        )
        magnitude.apply(editor, plan)
        rules = Counter(e.rule for e in editor.log[start:])
        phases.append(pipeline.Phase("prune", rules, time.perf_counter() - began))
        phases += pipeline.run(editor, recipe.parse(after), progress=progress)
        return Rewritten(phases, plan.to_dict(), lambda validation, bench: [describe(plan)])

    wanted = Request(
        verb="prune", level="prune", passes=PRUNE, lossy=True, out=Path(out) if out is not None else None, **request
    )
    return build(model, wanted, rewrite)


def describe(plan: PrunePlan) -> str:
    """The screen's line of a plan."""
    total = sum(w.size for w in plan.weights)
    why = Counter(plan.left.values())
    left = "".join(f"   left {n} ({reason})" for reason, n in why.items())
    return f"pruned     {100 * plan.sparsity:.1f} % of {total:,} weights in {len(plan.weights)} tensors are 0{left}"
