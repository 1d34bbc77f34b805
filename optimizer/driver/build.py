"""One run: read, change the interface as asked, rewrite, write beside the target, judge, and only then publish.

`optimize`, `prune` and `quantize` differ in what they rewrite; everything around it is here, once.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optimizer.core import model as file_edge
from optimizer.core.edit import Editor
from optimizer.core.errors import BadInput, EnvironmentNotAsAsked, ValidationFailed
from optimizer.core.graph import Model
from optimizer.core.model import Lowered
from optimizer.core.staging import check_targets, terminate_as_exit
from optimizer.core.target import target as find_target
from optimizer.driver import receipt as receipts
from optimizer.driver.pipeline import Phase
from optimizer.driver.result import Result
from optimizer.measure import expect as expectation
from optimizer.measure.size import count_ops
from optimizer.runtime import session
from optimizer.runtime.card import Card, Source, called, resolve

if TYPE_CHECKING:
    from optimizer.measure.accuracy import Validation
    from optimizer.measure.speed import Bench
    from optimizer.measure.verify import Verifier


@dataclass(frozen=True, eq=False, kw_only=True)
class Request:
    """What every rewriting verb takes; see the command line's help for each field."""

    verb: str
    level: str
    passes: str
    target: str = "portable"
    lossy: bool = False
    dims: Mapping[str, int] = field(default_factory=dict[str, int])
    shapes: Mapping[str, Sequence[int]] = field(default_factory=dict[str, "Sequence[int]"])
    inputs: Sequence[str] | None = None
    outputs: Sequence[str] | None = None
    rename: Mapping[str, str] = field(default_factory=dict[str, str])
    feeds: Any = None
    custom_ops: Sequence[str | os.PathLike[str]] = ()
    validate: bool = True
    bench: bool = False
    expect: Sequence[str] = ()
    verify: str = "off"
    refused: Path | None = None
    seed: int = 0
    out: Path | None = None
    force: bool = False
    dry_run: bool = False
    keep_failed: bool = False
    hash_full: bool = False
    argv: Sequence[str] = ()
    progress: Callable[[str], None] | None = None


@dataclass(frozen=True, slots=True)
class Rewritten:
    """What a verb's own rewriting hands back."""

    phases: Sequence[Phase]
    plan: Any = None
    lines: Callable[[Validation | None, Bench | None], Sequence[str]] = lambda v, b: ()


Rewrite = Callable[[Editor, "Given"], Rewritten]


@dataclass(frozen=True, slots=True)
class Given:
    """What a rewriting may look at besides the graph."""

    request: Request
    source: Path
    card: Card | None


def build(model: Any, request: Request, rewrite: Rewrite) -> Result:
    """The whole run. The caller's model is never changed, and nothing is left behind unless the result is published.

    Raises:
        BadInput: the model, the request or the output's place is not acceptable.
        EnvironmentNotAsAsked: an expectation needs a runtime and there is none.
        ToolFailure: the tool itself failed.
    """
    wanted = [expectation.parse(text) for text in request.expect]
    with ExitStack() as stack:
        stack.enter_context(terminate_as_exit())
        stack.enter_context(file_edge.no_collection())  # a graph is one large cycle that lives to the end
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="graphwright-")))
        is_file = isinstance(model, (str, os.PathLike))
        given = resolve(model) if is_file else None
        m = file_edge.read(given.path if given is not None else model)
        card = given.card if given is not None else None
        if request.out is not None and not request.dry_run:
            check_targets(m, [request.out], request.force)
        before = dict(count_ops(m))
        source = given.path if given is not None else scratch / "original.onnx"
        if given is None:
            file_edge.write(m, source)
        facts = receipts.input_facts(m, given.path if given is not None else None, full=request.hash_full)
        facts["bytes"] = source.stat().st_size + sum(f.size for f in (m.source.external if m.source else ()))
        changed = _change_interface(m, request)
        if changed:
            source = scratch / "as_asked" / (called(given) if given is not None else source.name)
            source.parent.mkdir()
            file_edge.write(m, source)

        row = find_target(request.target)
        verifier = _verifier(request)
        editor = Editor(m, target=row, gate=verifier)
        done = rewrite(editor, Given(request, source, card))
        if verifier is not None:
            verifier.stamp(editor)

        place = scratch
        if request.out is not None and not request.dry_run:
            place = Path(stack.enter_context(_beside(request.out)))
        name = request.out.name if request.out is not None else source.name
        result = place / "result" / name
        lowered = Lowered(m)
        files: list[Path] = []
        if request.out is not None or request.validate or request.bench or wanted:  # else nobody looks at a file
            result.parent.mkdir()
            files = lowered.write(result)
        size = sum(f.stat().st_size for f in files) if files else None

        judged = None
        why = ""
        needs = {e.key for e in wanted} & {"task", "sqnr", "speed"}
        if request.dry_run or not request.validate:
            why = "dry run" if request.dry_run else "--no-validate"
        elif session.available() is None:
            if needs:
                raise EnvironmentNotAsAsked(
                    "no runtime is installed to measure with", fix="pip install 'graphwright[cpu]'"
                )
            why = "no runtime is installed: pip install 'graphwright[cpu]'"
        else:
            if request.progress is not None:
                request.progress("validate")
            from optimizer.measure.accuracy import validate  # the judges load only where they judge

            def judge(card: Card | None) -> Validation:
                return validate(
                    source, result, feeds=request.feeds, custom_ops=request.custom_ops, lossy=request.lossy,
                    seed=request.seed, card=card,
                )  # fmt: skip

            try:
                judged = judge(card)
            except BadInput as misfit:  # a card speaks of the model as it was
                if not changed or card is None or request.feeds is not None:
                    raise
                judged = judge(None)
                why_not = misfit.what if len(misfit.what) < 100 else f"{misfit.what[:100]}…"
                m.warnings.append(f"the card does not fit the interface that was asked for, and is left out: {why_not}")
        timed = None
        if not request.dry_run and (request.bench or "speed" in needs) and session.available() is not None:
            if request.progress is not None:
                request.progress("bench")
            from optimizer.measure.speed import bench

            timed = bench(
                source, result, dims={} if changed else _bench_dims(card), seed=request.seed,
                card=None if changed else card,
            )  # fmt: skip

        after = dict(count_ops(m))
        measured = _measured(facts["bytes"], size, before, after, judged, timed)
        outcomes = expectation.check_all(wanted, measured)
        code = _exit_code(judged, outcomes, declined=not request.validate or request.dry_run)
        published = code != 1 and request.out is not None and not request.dry_run

        receipt: dict[str, Any] = {
            "schema": receipts.SCHEMA,
            "graphwright": receipts.own_version(),
            "argv": list(request.argv) or [request.verb],
            "level": request.level,
            "versions": receipts.versions(),
            "target": {"asked": request.target, "row": row.name},
            "passes": request.passes,
            "seed": request.seed,
            "input": facts,
            "output": {},
            "nodes": {"before": before, "after": after},
            "phases": [receipts.phase_row(p) for p in done.phases],
            "plan": done.plan,
            "verified": verifier.to_dict() if verifier is not None else None,
            "validation": _validation(judged, why, request.lossy),
            "bench": timed.to_dict() if timed is not None else None,
            "expect": outcomes,
            "warnings": [
                *m.warnings,
                *(map(str, verifier.refused) if verifier is not None else ()),
                *(w for w in (judged.warnings if judged is not None else ()) if w),
            ],
        }
        receipt["output"] = {
            **receipts.output_facts(lowered, None, full=request.hash_full),
            "path": str(request.out) if published else None,
            "bytes": size,
        }
        outcome = Result(
            lowered, receipt, editor.log, validation=judged, bench=timed, lines=done.lines(judged, timed),
            name=called(Source(source, card)), exit_code=code,
        )  # fmt: skip
        if published and request.out is not None:
            _publish(outcome, files, request.out, place)
        elif code == 1 and request.keep_failed and request.out is not None:
            failed = request.out.with_name(f"{request.out.stem}.failed.onnx")
            receipt["output"]["path"] = str(failed)
            outcome.save(failed, force=True)
        return outcome


def api(result: Result) -> Result:
    """What the Python functions return: a negative verdict is raised, an inconclusive one is returned.

    Raises:
        ValidationFailed: with the result.
    """
    if result.exit_code == 1:
        raise ValidationFailed(
            result.why_negative(),
            fix="its `.result` holds the model, its receipt and its log",
            result=result,
        )
    return result


def _change_interface(m: Model, request: Request) -> bool:
    """Extract, freeze and rename as asked; whether anything was."""
    if not (request.inputs or request.outputs or request.dims or request.shapes or request.rename):
        return False
    from optimizer.core import contract

    if request.inputs or request.outputs:
        contract.extract(m, request.inputs, request.outputs)
    if request.dims or request.shapes:
        contract.freeze(m, request.dims, request.shapes)
    if request.rename:
        contract.rename(m, request.rename)
    return True


def _beside(out: Path) -> tempfile.TemporaryDirectory[str]:
    """A folder on the target's own file system, so that publishing is a rename."""
    return tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent, ignore_cleanup_errors=True)


def _publish(result: Result, files: Sequence[Path], out: Path, place: Path) -> None:
    """Data, model, receipt, each by a rename; over an existing pair the old model goes first."""
    receipt = place / "receipt.json"
    receipt.write_text(result.receipt_text(), encoding="utf-8")
    model, *data = files
    if data or out.with_name(out.name + ".data").exists():
        out.unlink(missing_ok=True)
    for d in data:
        d.replace(out.with_name(d.name))
    if not data:
        out.with_name(out.name + ".data").unlink(missing_ok=True)
    model.replace(out)
    receipt.replace(out.with_name(out.name + ".receipt.json"))


def _bench_dims(card: Card | None) -> dict[str, int]:
    return dict(card.dims[0]) if card is not None and card.dims else {}


def _verifier(request: Request) -> Verifier | None:
    """The gate that `--verify` asks for; its reproducers go beside the output unless the request says where.

    Raises:
        BadInput: there is no such way to verify.
        EnvironmentNotAsAsked: no runtime is installed.
    """
    if request.verify == "off":
        return None
    if request.verify != "each":
        raise BadInput(f"edits cannot be verified {request.verify!r}", fix="'each' runs every edit, 'off' none")
    from optimizer.measure.verify import Verifier

    beside = request.out.with_name(f"{request.out.name}.refused") if request.out and not request.dry_run else None
    return Verifier(request.refused or beside)


def _measured(
    bytes_before: int, bytes_after: int | None, before: Mapping[str, int], after: Mapping[str, int],
    judged: Validation | None, timed: Bench | None,
) -> dict[str, tuple[float | None, float | None]]:  # fmt: skip
    task = judged.task if judged is not None else None
    sqnr = min((o["sqnr_db"] for o in judged.outputs), default=None) if judged is not None else None
    return {
        "nodes": (sum(after.values()), sum(before.values())),
        "bytes": (bytes_after, bytes_before),
        "task": (task["result"], task["original"]) if task is not None else (None, None),
        "sqnr": (sqnr, None),
        "speed": (timed.speedup if timed is not None else None, 1.0),
    }


def _exit_code(judged: Validation | None, outcomes: Sequence[Mapping[str, Any]], *, declined: bool) -> int:
    code = judged.exit_code if judged is not None else 0 if declined else 4
    return 1 if code == 1 else max(code, expectation.exit_code(outcomes)) if expectation.exit_code(outcomes) != 1 else 1


def _validation(judged: Validation | None, why: str, lossy: bool) -> dict[str, Any]:
    if judged is not None:
        return judged.to_dict()
    return {
        "verdict": "declined" if why in ("dry run", "--no-validate") else "not validated",
        "lossy": lossy,
        "why": why,
    }
