"""`graphwright quantize`: int8 QDQ for the target's integer kernels, calibrated, by a plan that the receipt keeps."""

from __future__ import annotations

import os
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optimizer.core import model as file_edge
from optimizer.core.edit import Editor
from optimizer.core.errors import BadInput, EnvironmentNotAsAsked
from optimizer.core.model import ModelLike
from optimizer.core.propagate import propagate
from optimizer.core.text import safe
from optimizer.driver import pipeline, recipe
from optimizer.driver.build import Given, Request, Rewritten, api, build
from optimizer.driver.pipeline import Phase
from optimizer.driver.presets import QUANTIZE
from optimizer.driver.result import Result
from optimizer.runtime import session
from optimizer.runtime.card import Card
from optimizer.runtime.feeds import feeds_source
from passes.quantize import emit
from passes.quantize import plan as planning
from passes.quantize.kernels import kernel_of
from passes.quantize.opset import raise_opset
from passes.quantize.plan import QuantPlan

if TYPE_CHECKING:
    from optimizer.measure.standing import Standing
    from optimizer.runtime.observe import Observation

FLOOR_DB = 10.0  # without a task: noise of a tenth of the signal's power is not a small loss any more
_REASONS = 3  # on the screen
TASK_LOSS = 0.01  # with one: this share of the score, or the card's own noise


def quantize(
    model: ModelLike,
    *,
    feeds: Any = None,
    samples: int = 128,
    ignore: Sequence[str] = (),
    target: str = "cpu",
    validate: bool = True,
    bench: bool = False,
    expect: Sequence[str] = (),
    seed: int = 0,
) -> Result:
    """float32 → int8 where the target's runtime has integer kernels, by QuantizeLinear and DequantizeLinear.

    Args:
        model: a path, a card, bytes, a ModelProto, an onnx_ir.Model or a torch.onnx.ONNXProgram; never changed.
        feeds: what to calibrate on: FILE.npz, a folder of them, FILE.py:FN, batches {input: array}, or "random";
            None: the card's own.
        samples: how many batches at most.
        ignore: globs of names of nodes that stay float.
        target: the row; "cpu" asks the host.
        validate, bench, expect, seed: as in `optimize`; accuracy is reported, and judged only by `expect`.

    Raises:
        BadInput: the model or an argument is not acceptable, no feeds, a glob matches nothing.
        ValidationFailed: an expectation does not hold; `.result` holds the result.
        EnvironmentNotAsAsked: no runtime is installed to calibrate with.
    """
    return api(
        run(
            model, feeds=feeds, samples=samples, ignore=ignore, target=target, validate=validate, bench=bench,
            expect=expect, seed=seed,
        )
    )  # fmt: skip


def run(
    model: ModelLike,
    out: Path | None = None,
    *,
    feeds: Any = None,
    samples: int = 128,
    ignore: Sequence[str] = (),
    target: str = "cpu",
    **request: Any,
) -> Result:
    """`quantize` with an output file; a negative verdict is in `Result.exit_code`. `request`: fields of `Request`."""
    if session.available() is None:
        raise EnvironmentNotAsAsked("no runtime is installed to calibrate with", fix="pip install 'graphwright[cpu]'")
    if feeds is not None and not isinstance(feeds, (str, os.PathLike, Mapping)):
        feeds = list(feeds)  # read more than once
    if target == "portable":
        raise BadInput("quantization is for a place to run: 'portable' is none", fix="--target cpu")

    def rewrite(editor: Editor, given: Given) -> Rewritten:
        with tempfile.TemporaryDirectory(prefix="graphwright-") as folder:
            source = _feeds_of(given, Path(folder))
            return _Quantizer(editor, given, Path(folder), source, samples, ignore).run()

    wanted = Request(
        verb="quantize",
        level="quantize",
        passes=QUANTIZE,
        target=target,
        lossy=True,
        feeds=feeds,
        out=Path(out) if out is not None else None,
        **request,
    )
    return build(model, wanted, rewrite)


def _feeds_of(given: Given, folder: Path) -> str:
    """FEEDS for a child.

    Raises:
        BadInput: none were given, and the card has none.
    """
    batches = folder / "feeds"
    batches.mkdir()
    feeds = feeds_source(given.request.feeds, batches)
    if feeds is not None:
        return feeds
    if given.card is None or given.card.feeds is None:
        raise BadInput(
            "quantization needs data to calibrate on, and there is none",
            fix="--feeds FILE.npz, a folder of them, or FILE.py:FN; --feeds random draws numbers",
        )
    return "card"


@dataclass(slots=True)
class _Quantizer:
    """One run: -O2, calibrate, plan, apply, look; where accuracy is lost, leave the costliest products in float."""

    editor: Editor
    given: Given
    folder: Path
    feeds: str
    samples: int
    ignore: Sequence[str]

    def run(self) -> Rewritten:
        editor = self.editor
        opset = editor.model.opsets.get("", 0)
        phases = self._optimize(raised=True)
        began, start = time.perf_counter(), len(editor.log)
        editor.phase = "quantize"
        propagate(editor.model)
        plan, seen, standing, warning = self._settle()
        spent = time.perf_counter() - began
        if plan.units:
            phases.append(Phase("quantize", Counter(e.rule for e in editor.log[start:]), spent))
            phases += self._run(QUANTIZE.partition(" quantize ")[2])
        else:  # then the opset was raised for nothing
            editor.undo()
            phases = self._optimize(raised=False)
            warning = "nothing was quantized: no product is faster in integers here"
        if warning:
            editor.model.warnings.append(warning)
        lines = self._lines(plan, seen, standing, opset)
        return Rewritten(phases, plan.to_dict(), lambda validation, bench: lines)

    def _optimize(self, *, raised: bool) -> list[Phase]:
        """-O2, at an opset that has scales of each channel."""
        first, _, rest = QUANTIZE.partition(" quantize ")[0].partition(" ")
        phases = self._run(first)
        weighted = any(k.weighted for n in self.editor.model.nodes() if (k := kernel_of(n)) is not None)
        if raised and weighted:
            began, self.editor.phase, start = time.perf_counter(), "opset", len(self.editor.log)
            propagate(self.editor.model)
            if raise_opset(self.editor):
                rules = Counter(e.rule for e in self.editor.log[start:])
                phases.append(Phase("opset", rules, time.perf_counter() - began))
        return phases + self._run(rest)

    def _run(self, passes: str) -> list[Phase]:
        return pipeline.run(self.editor, recipe.parse(passes), progress=self.given.request.progress)

    def _settle(self) -> tuple[QuantPlan, Observation, Standing, str]:
        """The plan that is applied, and how it stands."""
        from optimizer.runtime.observe import observe

        editor, request = self.editor, self.given.request
        original = self._write("float.onnx")
        self._say("calibrate")
        seen = observe(
            original, planning.watched(editor.model), feeds=self.feeds, samples=self.samples, card=self.given.card,
            seed=request.seed,
        )  # fmt: skip
        start = len(editor.log)

        def attempt(keep: Mapping[str, str], *, whole: bool = True) -> tuple[QuantPlan, Standing]:
            editor.undo(start)
            plan = planning.plan(
                editor.model, seen.ranges, editor.target, ignore=self.ignore, log=editor.log, keep=keep
            )
            emit.apply(editor, plan)
            return plan, self._look(original, whole=whole)

        plan, standing = attempt({})
        if self._is_good(standing):
            return plan, seen, standing, ""
        products = [unit.nodes[0] for unit in plan.units if unit.multiplies]
        self._say("rank products")
        alone = {}  # SQNR with this product alone in integers
        for product in products:
            others = {p: "being ranked" for p in products if p != product}
            alone[product] = attempt(others, whole=False)[1].worst
        ranked = sorted(products, key=lambda p: alone[p])
        count = 1
        while count <= len(products) // 2:
            keep = {p: f"costs accuracy: {alone[p]:.1f} dB alone" for p in ranked[:count]}
            better, stands = attempt(keep)
            if self._is_good(stands):
                return better, seen, stands, ""
            count *= 2
        plan, standing = attempt({})
        why = f"leaving half of the products in float does not help: SQNR {standing.worst:.1f} dB"
        return plan, seen, standing, why

    def _is_good(self, standing: Standing) -> bool:
        if standing.task is None:
            return standing.worst >= FLOOR_DB
        original, result = standing.task
        noise = self.given.card.task_noise if self.given.card is not None else 0.0
        return result >= original - max(noise, TASK_LOSS * abs(original))

    def _look(self, original: Path, *, whole: bool) -> Standing:
        from optimizer.measure.standing import look

        result = self._write("integer.onnx")
        samples = 8 if whole else 2  # a rank needs no more
        return look(
            original, result, feeds=self.feeds, card=self.given.card, samples=samples, whole=whole,
            seed=self.given.request.seed,
        )  # fmt: skip

    def _say(self, what: str) -> None:
        if self.given.request.progress is not None:
            self.given.request.progress(what)

    def _write(self, name: str) -> Path:
        path = self.folder / name
        file_edge.write(self.editor.model, path, force=True)
        return path

    def _lines(self, plan: QuantPlan, seen: Observation, standing: Standing, opset: int) -> list[str]:
        row, now = self.editor.target, self.editor.model.opsets.get("", 0)
        kept = f"opset {now} kept" if now == opset else f"opset {opset} → {now}, for scales of each channel"
        bits = f" ({row.weight_bits}-bit weights)" if row.weight_bits < 8 else ""
        samples = f"{seen.batches} sample{'s' * (seen.batches != 1)} from {_source(seen.source, self.given.card)}"
        share = 100 * standing.integer / standing.total if standing.total else 0.0
        kernels = f"{share:.1f} % of {_amount(standing.total)} MACs in integer kernels, from the runtime's own graph"
        return [
            f"quantized  int8 QDQ  {row.name}{bits}  {samples}   {kept}",
            f"kernels    {kernels}" + (f"   fp32 left: {describe_left(plan.left)}" if plan.left else ""),
        ]


def describe_left(left: Mapping[str, str]) -> str:
    """The screen's account of the products that stay float, node → why: the first of each reason, and how many.

    Of reasons that differ only behind a colon the first speaks for all; the receipt's plan has every node.
    """
    kinds: dict[str, list[str]] = {}
    for name, why in left.items():
        kinds.setdefault(why.partition(":")[0], []).append(name)
    most = sorted(kinds.values(), key=len, reverse=True)  # stable: else in the model's order
    told = [f"{safe(names[0])} ({safe(left[names[0]])})" + f" × {len(names)}" * (len(names) > 1) for names in most]
    more = sum(map(len, most[_REASONS:]))
    rest = f", … {more} more for other reasons (the receipt's plan has all)" if more else ""
    return ", ".join(told[:_REASONS]) + rest


def _source(feeds: str, card: Card | None) -> str:
    if feeds == "card" and card is not None:
        return card.feeds or "card"
    return "random numbers" if feeds == "random" else Path(feeds).name


def _amount(n: int) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if n >= size:
            return f"{n / size:.2f} {unit}"
    return str(n)
