"""error = max |a − b| / max |a| per output: the judge of whether a result still computes what the original did.

Both models run in a child (`optimizer.measure.judge`), with the runtime's own optimizations off and on, at several
sizes of the free dimensions and under every regime of data (`optimizer.runtime.feeds`).
"""

from __future__ import annotations

import difflib
import json
import math
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from optimizer.core.errors import BadInput
from optimizer.measure import expect as expectation
from optimizer.runtime import child
from optimizer.runtime.card import Card, resolve
from optimizer.runtime.child import ChildDied
from optimizer.runtime.feeds import feeds_source

if TYPE_CHECKING:
    from optimizer.runtime.card import ModelLike

SCHEMA = "graphwright.validation/1"
EXECUTORS = ("onnxruntime", "reference", "float64")
"""What runs the first pass: ONNX Runtime, its optimizations off; onnx.reference; the same, all floats as float64."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """The verdict on a result.

    Fields:
        verdict: "pass", "fail" or "inconclusive".
        lossy: whether accuracy was reported instead of judged.
        bindings, seeds: what was run; executor: and by what, beside ONNX Runtime with its optimizations on.
        session_ms: to load the original and the result, optimizations on, in milliseconds.
        census: the fused ops that the runtime ends with, of the original and of the result.
        outputs: per output name, error, limit, sqnr_db, worst {index, original, result}; of a lossy result cosine, and
            where it has rows kl, top1, top5 and margin (see `optimizer.measure.compare.Agreement`); with `histogram`
            how many values have an error of which decade.
        task: {name, original, result, noise} of the card's score, or None.
        failures: what fails: {output, what, error, limit, floor, index, original, result, binding, seed, regime,
            levels}, floor being the noise floor where it set the limit; only {output: None, what} where no output can
            be blamed.
        expect: the outcome of each expectation.
        warnings: what the user should know although it decides nothing; notes: what else was seen.
    """

    verdict: str
    lossy: bool = False
    bindings: list[dict[str, int]] = field(default_factory=list[dict[str, int]])
    seeds: list[int] = field(default_factory=list[int])
    session_ms: list[float] | None = None
    census: list[dict[str, int]] | None = None
    outputs: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    task: dict[str, Any] | None = None
    failures: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    expect: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    warnings: list[str] = field(default_factory=list[str])
    notes: list[str] = field(default_factory=list[str])
    executor: str = "onnxruntime"

    @property
    def passes_at(self) -> float | None:
        """The smallest tolerance that would pass; None where a failure is no matter of it, or nothing was judged."""
        if not self.outputs or any(failure["output"] is None or failure["what"] for failure in self.failures):
            return None
        errors = [output["error"] for output in self.outputs if output["limit"]]
        return max(errors, default=0.0)

    @property
    def exit_code(self) -> int:
        """0 pass, 1 fail or an expectation that does not hold, 4 inconclusive or one that was not measured."""
        own = {"pass": 0, "fail": 1}.get(self.verdict, 4)
        return own if own == 1 else expectation.exit_code(self.expect) or own

    def to_dict(self) -> dict[str, Any]:
        """The receipt's "validation"; infinite errors and ratios are null."""
        return {"schema": SCHEMA, **_finite({**asdict(self), "passes_at": self.passes_at})}

    def __str__(self) -> str:
        """The screen of `graphwright validate`."""
        if self.verdict == "fail":
            lines = [line for failure in self.failures for line in _describe_failure(failure)]
        elif self.verdict == "inconclusive":
            lines = ["inconclusive  nothing was judged"] if not self.outputs else []
        else:
            lines = [f"pass  {self._coverage()}; {self._accuracy()}"]
        if self.verdict == "inconclusive" and self.outputs:
            lines = [f"inconclusive  {self._coverage()}; {self._accuracy()}"]
        if self.task is not None:
            noise = f" (noise ±{self.task['noise']:g})" if self.task.get("noise") else ""
            lines.append(f"task  {self.task['name']}  {self.task['original']:.3f} → {self.task['result']:.3f}{noise}")
        elif self.lossy and self.outputs:
            lines.append("accuracy not judged: no task")
        if self.lossy:
            lines += [line for output in self.outputs if (line := _describe_agreement(output))]
        lines += [line for output in self.outputs if "histogram" in output for line in _draw_histogram(output)]
        lines += [expectation.describe(outcome) for outcome in self.expect]
        lines += [f"warning  {text}" for text in self.warnings] + [f"note  {text}" for text in self.notes]
        return "\n".join(lines)

    def _coverage(self) -> str:
        counts = ((len(self.outputs), "output"), (len(self.bindings), "binding"), (len(self.seeds), "seed"))
        how = "optimizations off and on"
        if self.executor != "onnxruntime":
            how = f"{self.executor} and ONNX Runtime"
        return " × ".join(f"{n} {what}{'s' * (n != 1)}" for n, what in counts if n) + f", {how}"

    def _accuracy(self) -> str:
        if self.lossy:
            worst = min(self.outputs, key=lambda output: output["sqnr_db"])
            return f"SQNR {worst['sqnr_db']:.1f} dB ({worst['name']})"
        worst = max(self.outputs, key=lambda o: (o["error"] / o["limit"] if o["limit"] else 0.0, o["limit"]))
        return f"worst error {_short(worst['error'])} of scale (limit {_short(worst['limit'])})"


def validate(
    original: ModelLike,
    result: ModelLike | None = None,
    *,
    feeds: Any = None,
    dims: Mapping[str, int] | None = None,
    seeds: int = 3,
    tolerance: float | None = None,
    lossy: bool | None = None,
    custom_ops: Sequence[str | os.PathLike[str]] = (),
    expect: Sequence[str] = (),
    seed: int = 0,
    card: Card | None = None,
    provider: str = "cpu",
    executor: str = "onnxruntime",
    golden: str | os.PathLike[str] | None = None,
    save_feeds: str | os.PathLike[str] | None = None,
    histogram: bool = False,
) -> Validation:
    """Judge whether `result` computes what `original` does; nothing is raised on a bad verdict.

    Args:
        original: where `golden` is given and `result` is not, the result itself.
        feeds: "random", FILE.npz, a folder of them or of ONNX's test_data_set folders, FILE.py:FN,
            FILE.jsonl:FILE.py:FN, or batches {input: array}; None: drawn data, and what the card has.
        dims: sizes of free dimensions; all others are searched for, by running the original.
        seeds: how many; each binding is run with each.
        tolerance: the limit of every floating output, instead of the one of its type.
        lossy: judge only loading, interface and finiteness, and report the accuracy. None: as the receipt says.
        expect: KEY OP VALUE each, see `optimizer.measure.expect`.
        card: stands in for the card of `original`.
        provider: what ONNX Runtime runs both models on: "cpu", "cuda" or "tensorrt".
        executor: what runs them besides, in place of ONNX Runtime with its optimizations off: "reference"
            (onnx.reference) or "float64" (the same with every float as float64). Where it disagrees with ONNX Runtime
            on the original, that is said, and not blamed on the result.
        golden: a folder that `save_feeds` wrote, or of ONNX's own test data: stands in for the original.
        save_feeds: a new folder for inputs and what the original makes of them, as `test_data_set_N`; data in which a
            model may leave its domain is not saved.
        histogram: count the errors of every output by decade.

    Raises:
        BadInput: no such model, feeds or dimension, an expectation that is none, a folder that is not empty.
        EnvironmentNotAsAsked: no runtime is installed.
        ToolFailure: the judge itself failed.
    """
    wanted = [expectation.parse(text) for text in expect]
    if executor not in EXECUTORS:
        near = difflib.get_close_matches(executor, EXECUTORS, 1)
        fix = f"did you mean {near[0]!r}?" if near else f"one of {', '.join(EXECUTORS)}"
        raise BadInput(f"unknown executor {executor!r}", fix=fix)
    if result is None and golden is None:
        raise BadInput(
            "there is one model, and nothing to compare it with", fix="name RESULT too, or give --golden DIR"
        )
    if golden is not None and (save_feeds is not None or feeds is not None):
        raise BadInput("golden data brings its own inputs", fix="give --golden without --feeds and --save-feeds")
    if save_feeds is not None and Path(save_feeds).exists() and any(Path(save_feeds).iterdir()):
        raise BadInput("the folder for the data sets is not empty", at=str(save_feeds), fix="name a new one")
    second = resolve(original if result is None else result)
    first = second if golden is not None else resolve(original)
    card = (card or first.card) if golden is None else None
    with tempfile.TemporaryDirectory(prefix="graphwright-") as folder:
        source = feeds_source(feeds, Path(folder))
        try:
            report = child.call(
                "optimizer.measure.judge:judge",
                original=first.path.absolute() if golden is None else None,
                result=second.path.absolute(),
                feeds=source,
                dims=dict(dims or {}),
                seeds=list(range(seed, seed + seeds)),
                tolerance=tolerance,
                lossy=_is_lossy(second.path) if lossy is None else lossy,
                custom_ops=[Path(library).absolute() for library in custom_ops],
                card=card and card.path.absolute(),
                provider=provider,
                executor=executor,
                golden=golden and Path(golden).absolute(),
                save_feeds=save_feeds and Path(save_feeds).absolute(),
                histogram=histogram,
            )
        except ChildDied as death:
            return _of_death(death, bool(lossy))
    validation = Validation(**report, executor=executor)
    if not wanted:
        return validation
    measured = _measured(wanted, validation, first.path, second.path)
    return replace(validation, expect=expectation.check_all(wanted, measured))


def _is_lossy(result: Path) -> bool:
    """Whether the receipt beside a result says that accuracy was traded."""
    receipt = Path(f"{result}.receipt.json")
    try:
        content = json.loads(receipt.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return False
    except (OSError, ValueError) as error:
        raise BadInput(f"the receipt beside the result cannot be read: {error}", at=str(receipt)) from error
    return content.get("plan") is not None or bool((content.get("validation") or {}).get("lossy"))


def _of_death(death: ChildDied, lossy: bool) -> Validation:
    """A crash is the result's failure, or says nothing where it was the original's."""
    if death.stage.startswith("result"):
        failure = {"output": None, "what": f"{death.what}, at: {death.stage}"}
        return Validation(verdict="fail", lossy=lossy, failures=[failure])
    if death.stage.startswith("original"):
        return Validation(verdict="inconclusive", lossy=lossy, notes=[f"{death.what}, at: {death.stage}"])
    raise death


def _measured(
    wanted: Sequence[expectation.Expectation], validation: Validation, original: Path, result: Path
) -> dict[str, tuple[float | None, float | None]]:
    """What the expectations ask for; a key turns its measurement on."""
    keys = {expectation.key for expectation in wanted}
    found: dict[str, tuple[float | None, float | None]] = {}
    if validation.task is not None:
        found["task"] = validation.task["result"], validation.task["original"]
    if validation.outputs:
        found["sqnr"] = min(output["sqnr_db"] for output in validation.outputs), None
    if keys & {"nodes", "bytes"}:
        from optimizer.measure.inspect import inspect

        before, after = inspect(original), inspect(result)
        found |= {"nodes": (after.nodes, before.nodes), "bytes": (after.bytes, before.bytes)}
    if "speed" in keys:
        from optimizer.measure.speed import bench

        found["speed"] = bench(original, result, dims=validation.bindings[0]).speedup, 1.0
    return found


def _describe_failure(failure: Mapping[str, Any]) -> list[str]:
    if failure["output"] is None:
        return [f"fail  {failure['what']}"]
    where = ", ".join(f"{name}={size}" for name, size in failure["binding"].items())
    circumstances = [f"binding {where}"] if where else []
    circumstances += [f"seed {failure['seed']}", f"{failure['regime']} data", failure["levels"]]
    error, limit = failure["error"], failure["limit"]
    limit_is = f"{_short(limit)}, ten times its noise floor" if failure.get("floor") else _short(limit)
    if failure["what"]:
        first = f'fail  output "{failure["output"]}": {failure["what"]}'
    else:
        first = (
            f'fail  output "{failure["output"]}": error {_short(error)} of scale, limit {limit_is}; '
            f"would pass at {_short(_round_up(error))}"
        )
    if failure["original"] is None:
        return [first, f"      at {', '.join(circumstances)}"]
    original, result = (_number(failure[side]) for side in ("original", "result"))
    return [first, f"      first at {failure['index']}: {original} against {result}, {', '.join(circumstances)}"]


def _describe_agreement(output: Mapping[str, Any]) -> str:
    """How alike the answers of a lossy result are; "" where nothing was measured."""
    if "cosine" not in output:
        return ""
    line = f"agreement  {output['name']}: cosine {output['cosine']:.6g}"
    if output["top1"] is None:
        return line
    line += f", top-1 {output['top1']:.1%}, top-5 {output['top5']:.1%}, KL {_short(output['kl'])}"
    if output["margin"]:
        line += f"; the largest lead that was lost is {output['margin']:.1%} of its row's spread"
    return line


def _draw_histogram(output: Mapping[str, Any]) -> Iterator[str]:
    """A line a decade; bars of at most 40, by the root of the count, so that one in a million still shows."""
    found: Mapping[str, Any] = output["histogram"]
    rows = [("equal", found["equal"])]
    rows += [(f"1e{n}", count) for n, count in sorted(found["decades"].items(), key=lambda item: int(item[0]))]
    rows += [("not finite", found["apart"])] if found["apart"] else []
    most = max(count for _, count in rows) or 1
    yield f"errors  {output['name']}, as shares of scale"
    for name, count in rows:
        yield f"  {name:>10} {'#' * math.ceil(40 * math.sqrt(count / most)):<40} {count:,}"


def _round_up(error: float) -> float:
    """To two digits, so that a limit of that size passes."""
    if not 0 < error < math.inf:
        return error
    step = 10.0 ** (math.floor(math.log10(error)) - 1)
    return math.ceil(error / step) * step


def _short(x: float) -> str:
    """1e-5 rather than 1e-05; two digits where there are two."""
    mantissa, _, exponent = f"{x:.1e}".partition("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}" if math.isfinite(x) and x else f"{x:g}"


def _number(x: Any) -> str:
    return f"{x:.4g}" if isinstance(x, float) else str(x)


def _finite(x: Any) -> Any:
    """JSON has no infinity: null."""
    if isinstance(x, dict):
        return {key: _finite(value) for key, value in cast("dict[Any, Any]", x).items()}
    if isinstance(x, (list, tuple)):
        return [_finite(value) for value in cast("list[Any]", x)]
    return None if isinstance(x, float) and not math.isfinite(x) else x
