"""The child's half of `validate`: run original and result on the same data and compare every output.

First with the runtime's optimizations off (or by onnx.reference): there an error is the result's own. Then with them
on, where the runtime may be at fault, and the original against itself tells: a result that then agrees with either run
of the original is right. What is within the limit of its type but far above the original's own noise is judged last.
One pair of sessions is open at a time; the outputs of the first pass wait on disk for the second.
"""

from __future__ import annotations

import itertools
import math
import pickle
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from optimizer.core.errors import BadInput
from optimizer.measure.compare import Agreement, Difference, Histogram, compare, sqnr_db
from optimizer.measure.noise import nudge, write_nudged
from optimizer.runtime.card import Card, read_card
from optimizer.runtime.child import stage
from optimizer.runtime.feeds import (
    EXTREMES,
    STRESS,
    TIES,
    binding_of,
    check_dims,
    check_feed,
    draw,
    find_bindings,
    free_dims,
    open_feeds,
    read_data_sets,
    regimes,
    write_data_set,
)
from optimizer.runtime.interface import Interface, OutputSpec, changed_rows, differences, read_interface
from optimizer.runtime.kernels import census, falls
from optimizer.runtime.session import ReferenceSession, Session, SessionError, open_session

if TYPE_CHECKING:
    from optimizer.core.feeds import Binding, Feed, Outputs

LIMITS = {"float64": 1e-12, "float32": 1e-5, "float16": 5e-3, "bfloat16": 4e-2}
"""The error up to which an output counts as equal, by the coarsest floating type on its way; all other types: 0."""
_PER_SEED = 4  # how many of a user's own batches are run a seed; the task, not the judge, goes over all data
_NUDGES, _FLOORS = 4, 8  # tries to find the noise floor; how many floors an error may reach
_ROUNDING = 1e-2  # up to here, two runs of one model under other optimizations differ by rounding
_STARTS, _STARTS_S = 3, 0.5  # sessions are started up to three times, for half a second, to time them
_DRAWS = 3  # how often data is drawn that the original may refuse
_BINDINGS = 5
_MISTAKE = 10  # errors above so many noise floors are no rounding, whatever the limit of their type
_SUBTLE = 2  # the batches of an output on which its noise floor is measured: those with the worst errors
_NUDGED_BYTES = 1 << 28  # weights are moved in files up to this size
_LEVELS = {"off": "optimizations off", "on": "optimizations on", "reference": "onnx.reference", "float64": "float64"}

Runner = Session | ReferenceSession


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be judged, as `optimizer.measure.accuracy.validate` passes it to the child."""

    original: str | None
    result: str
    feeds: str | None = None
    dims: dict[str, int] = field(default_factory=dict[str, int])
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    tolerance: float | None = None
    lossy: bool = False
    custom_ops: list[str] = field(default_factory=list[str])
    card: str | None = None
    provider: str = "cpu"
    executor: str = "onnxruntime"
    histogram: bool = False
    golden: str | None = None  # a folder of data sets that stands in for the original
    save_feeds: str | None = None  # the folder that data sets are written to
    keep: str | None = None  # where the batch that shows a failure goes, pickled


@dataclass(frozen=True, slots=True)
class _Batch:
    """One feed and where it came from; `regime` is "given" for a user's own."""

    number: int
    feed: Feed
    binding: dict[str, int]
    seed: int
    regime: str

    @property
    def is_given(self) -> bool:
        return self.regime == "given"


@dataclass(slots=True)
class _Tally:
    """What was seen of one output."""

    spec: OutputSpec
    limit: float
    error: float = 0.0
    worst: Difference = field(default_factory=Difference)
    signal: float = 0.0
    noise: float = 0.0
    failure: dict[str, Any] | None = None
    levels: set[str] = field(default_factory=set[str])
    compared: Counter[bool] = field(default_factory=Counter[bool])  # of drawn (False) and of given data (True)
    excused: int = 0  # comparisons in which the original is as far from itself
    blind: Counter[bool] = field(default_factory=Counter[bool])  # of these, where it is so far that nothing is judged
    unsteady: float = 0.0  # error of the original with optimizations on against itself with them off
    suspects: dict[int, tuple[Difference, _Batch]] = field(default_factory=dict[int, tuple[Difference, _Batch]])
    subtle: list[tuple[Difference, _Batch, Outputs]] = field(
        default_factory=list["tuple[Difference, _Batch, Outputs]"]
    )  # the worst that are within the limit, and how the original answered
    agreement: Agreement = field(default_factory=Agreement)
    histogram: Histogram | None = None
    failed: _Batch | None = None  # the first

    def see(self, found: Difference) -> None:
        if found.error >= self.error:
            self.error, self.worst = found.error, found
        if self.failure is not None:
            self.failure["error"] = self.error

    def remember(self, found: Difference, batch: _Batch, expected: Outputs) -> None:
        """Keep the worst errors that the limit allows, whose noise floor is still to be asked for."""
        if found.error > _MISTAKE * float(np.finfo(self.spec.dtype).eps):
            kept = sorted([*self.subtle, (found, batch, expected)], key=lambda seen: -seen[0].error)
            self.subtle = kept[:_SUBTLE]

    def excuse(self, batch: _Batch, own: Difference) -> None:
        self.excused += 1
        self.blind[batch.is_given] += _FLOORS * own.error > _ROUNDING

    @property
    def rounding(self) -> float:
        """How far the runtime's own optimizations move the original, where that is rounding."""
        return self.unsteady if self.unsteady <= _ROUNDING else 0.0

    @property
    def is_blind(self) -> bool:
        """Whether most comparisons could not tell rounding from a mistake; given data decides where there is any."""
        given = bool(self.compared[True])
        return 2 * self.blind[given] > self.compared[given]

    def settle(self, batch: _Batch, own: Difference, level: str) -> None:
        """Judge what was wrong with optimizations off, now that the original is known with them on too.

        Two runs of one model differ by rounding, and then little; where they differ much, the runtime has broken it,
        which excuses nothing.
        """
        if batch.number in self.suspects:
            found, _ = self.suspects.pop(batch.number)
            if own.error <= _ROUNDING and _explains(own, found):
                self.excuse(batch, own)
            else:
                self.fail(found, batch, level)

    def fail(self, found: Difference, batch: _Batch, level: str, limit: float | None = None) -> None:
        self.levels.add(level)
        self.failed = self.failed or batch
        self.failure = self.failure or {
            "output": self.spec.name,
            "what": found.what,
            "error": found.error,
            "limit": self.limit if limit is None else limit,
            "floor": None if limit is None else limit / _MISTAKE,
            "index": list(found.index),
            "original": found.original,
            "result": found.result,
            "binding": batch.binding,
            "seed": batch.seed,
            "regime": batch.regime,
        }
        self.see(found)

    def to_dict(self, *, lossy: bool) -> dict[str, Any]:
        worst = {"index": list(self.worst.index), "original": self.worst.original, "result": self.worst.result}
        ratio = sqnr_db(self.signal, self.noise)
        told = {"name": self.spec.name, "error": self.error, "limit": self.limit, "sqnr_db": ratio, "worst": worst}
        told |= self.agreement.to_dict() if lossy and self.agreement.original else {}
        return told if self.histogram is None else {**told, "histogram": self.histogram.to_dict()}


def _explains(own: Difference, found: Difference, *, anywhere: bool = False) -> bool:
    """Whether the original is about as far from itself as the result is from it: so far, and (unless `anywhere`) in so
    many values; where numbers underflow a small move shows in few."""
    as_many = anywhere or found.beyond <= _FLOORS * own.beyond
    return not found.what and found.error <= _FLOORS * own.error and as_many


class _GiveUp(Exception):
    """The verdict is clear before the end."""


class _InDouble(ReferenceSession):
    """A model whose floats were all made float64, fed and read in the types of the original."""

    def __init__(self, session: ReferenceSession, interface: Interface) -> None:
        self._inner, self.path = session, session.path
        self.inputs, self.outputs = session.inputs, session.outputs
        self._dtypes = {spec.name: spec.dtype for spec in interface.outputs}

    def run(self, feed: Feed) -> Outputs:
        from optimizer.measure.window import as_double

        wide = self._inner.run({name: as_double(value) for name, value in feed.items()})
        return {
            name: value.astype(self._dtypes[name])
            if isinstance(value, np.ndarray) and value.dtype.kind == "f"
            else value
            for name, value in wide.items()
        }


def judge(**request: Any) -> dict[str, Any]:
    """The fields of a `Validation`. Only in a child."""
    return _Judge(Request(**request)).verdict()


class _Judge:
    def __init__(self, request: Request) -> None:
        self.request = request
        self.card: Card | None = read_card(request.card) if request.card else None
        self.interface: Interface = read_interface(request.original or request.result)
        self.tallies = {spec.name: _Tally(spec, self._limit(spec)) for spec in self.interface.outputs}
        for tally in self.tallies.values() if request.histogram else ():
            tally.histogram = Histogram()
        self.first = "off" if request.executor == "onnxruntime" else request.executor
        self.aimed: dict[str, Any] = {}
        self.nudged: dict[str, list[Runner]] = {}  # level → the original with other weights
        self.scratch: tempfile.TemporaryDirectory[str] | None = None
        self.bindings: list[dict[str, int]] = []
        self.session_ms: list[float] | None = None
        self.task: dict[str, Any] | None = None
        self.failures: list[dict[str, Any]] = []
        self.warnings: list[str] = []
        self.notes: list[str] = []
        self.inconclusive = False
        self.refusal = ""  # the last reason the original gave not to run
        self.batches = 0
        self.judged = False
        self.refused: _Batch | None = None  # where the result does not run

    def verdict(self) -> dict[str, Any]:
        counts: list[dict[str, int]] | None = None
        try:
            for what in differences(self.interface, read_interface(self.request.result), self.request.dims):
                self._fail(f"the interface changed: {what}")
            if self.failures:
                raise _GiveUp
            with tempfile.TemporaryFile() as spool:
                self._unoptimized(spool)
                spool.seek(0)
                self._optimized(spool)
                self._noise()
            counts = self._census()
        except _GiveUp:
            pass
        finally:
            if self.scratch is not None:
                self.scratch.cleanup()
        for tally in self.tallies.values():
            for found, batch in tally.suspects.values():  # no second pass was needed, or came to pass
                tally.fail(found, batch, self.first)
            if tally.failure is not None:
                names = [_LEVELS[level] for level in (self.first, "on") if level in tally.levels]
                both = "optimizations off and on alike" if self.first == "off" else f"{' and '.join(names)} alike"
                only = f"only with {names[0]}"
                self.failures.append({**tally.failure, "levels": both if len(tally.levels) == 2 else only})
            if self.request.keep is not None and (batch := tally.failed or self.refused) is not None:
                Path(self.request.keep).write_bytes(pickle.dumps({"output": tally.spec.name, "feed": batch.feed}))
                self.request = replace(self.request, keep=None)
            if tally.excused:
                runs = f"{tally.excused} of {tally.compared.total()} runs"
                self.notes.append(
                    f"output {tally.spec.name!r} is beyond the limit in {runs}, "
                    "where the original's own rounding is too (last place of its inputs, the runtime's optimizations)"
                )
                if tally.is_blind:
                    self._undecided("such data cannot tell rounding from a mistake; give other data by --feeds")
            if tally.unsteady > tally.limit and not self.request.lossy:
                who = "the runtime's own optimizations change output {} of the original"
                if self.first != "off":
                    who = f"ONNX Runtime and {_LEVELS[self.first]} disagree on output {{}} of the original"
                self.notes.append(
                    f"{who.format(repr(tally.spec.name))}: error {tally.unsteady:.1e} of scale; "
                    "that is not the result's doing"
                )
        return {
            "verdict": "fail" if self.failures else "inconclusive" if self.inconclusive else "pass",
            "lossy": self.request.lossy,
            "bindings": self.bindings,
            "seeds": self.request.seeds,
            "session_ms": self.session_ms,
            "census": counts,
            "outputs": [tally.to_dict(lossy=self.request.lossy) for tally in self.tallies.values()]
            if self.judged
            else [],
            "task": self.task,
            "failures": self.failures,
            "warnings": self.warnings,
            "notes": self.notes,
        }

    # --- the two passes ---

    def _unoptimized(self, spool: IO[bytes]) -> None:
        label = _LEVELS[self.first]
        if self.request.golden is None:
            original = self._open_original(self.first)
            assert original is not None
            stage(f"original: running, {label}")
            self._choose_bindings(original)
            self.aimed = changed_rows(self.request.original or "", self.request.result)
            batches = self._batches(original)
        else:
            original, batches = None, self._golden(self.request.golden)
        result = self._open_result(self.first)
        saved = 0
        for batch, expected in batches:
            if self.request.save_feeds is not None and batch.regime not in STRESS:
                write_data_set(Path(self.request.save_feeds) / f"test_data_set_{saved}", batch.feed, expected)
                saved += 1
            if batch.regime not in EXTREMES:
                pickle.dump((batch, expected), spool)
            stage(f"result: running, {label}")
            got = self._run_result(result, batch, self.first)
            self._compare(original, batch, expected, got, self.first)
            stage(f"original: running, {label}")
        if not self.judged:
            self._undecided(f"the original ran on none of the batches; last: {self.refusal}")
            raise _GiveUp

    def _optimized(self, spool: IO[bytes]) -> None:
        original, result = self._open_timed()
        while True:
            try:
                batch, unoptimized = pickle.load(spool)
            except EOFError:
                break
            stage("original: running, optimizations on")
            expected = unoptimized
            if original is not None:
                try:
                    expected = original.run(batch.feed)
                except SessionError as error:
                    self._warn_once(f"with its optimizations on, the runtime fails on the original: {error.what}")
            stage("result: running, optimizations on")
            got = self._run_result(result, batch, "on")
            self._compare(original, batch, expected, got, "on", unoptimized)
        if self.card is not None and self.card.task is not None and original is not None:
            self._score(self.card, original, result)

    def _compare(
        self,
        original: Runner | None,
        batch: _Batch,
        expected: Outputs,
        got: Outputs,
        level: str,
        unoptimized: Outputs | None = None,
    ) -> None:
        """Add one batch to the tallies; `unoptimized` is the original's other answer."""
        lossy, self.judged = self.request.lossy, True
        finite_only = lossy or batch.regime in STRESS
        floor: dict[str, Difference] | None = None
        other_floor: dict[str, Difference] | None = None
        for name, tally in self.tallies.items():
            found = compare(expected[name], got[name], tally.limit, finite_only=finite_only)
            own = Difference()
            if unoptimized is not None:
                own = compare(unoptimized[name], expected[name], tally.limit / _FLOORS, finite_only=finite_only)
                tally.unsteady = max(tally.unsteady, own.error)
                if found.error > tally.limit and own.error > tally.limit:
                    other = compare(unoptimized[name], got[name], tally.limit, finite_only=finite_only)
                    found = min(found, other, key=lambda difference: difference.error)
                tally.settle(batch, own, self.first)
            if level == "on" and batch.regime not in STRESS:
                tally.signal += found.signal
                tally.noise += found.noise
                if lossy:
                    tally.agreement.add(expected[name], got[name])
            if tally.histogram is not None and batch.regime not in STRESS:
                tally.histogram.add(expected[name], got[name])
            tally.compared[batch.is_given] += 1
            if not (found.what if lossy else found.error > tally.limit):
                tally.see(found)
                if self._may_be_subtle(tally, batch, level):
                    tally.remember(found, batch, expected)
                continue
            if not found.what and original is not None:
                # Inputs on ties jump when they move at all: that excuses only what other data showed to be unsteady.
                if batch.regime not in TIES or tally.excused:
                    floor = floor or self._floor(original, batch, expected)
                    if _explains(floor[name], found, anywhere=batch.regime == "denormal"):
                        tally.excuse(batch, floor[name])
                        continue
                if found.error <= _ROUNDING:  # it may be rounding, then, that the weights have a part in
                    if other_floor is None:
                        other_floor = self._floor(original, batch, expected, self._nudged(level))
                    if _explains(other_floor[name], found):
                        tally.excuse(batch, other_floor[name])
                        continue
            if level == self.first:
                tally.suspects[batch.number] = found, batch
            elif own.error <= _ROUNDING and _explains(own, found):
                tally.excuse(batch, own)
            else:
                tally.fail(found, batch, level)

    def _may_be_subtle(self, tally: _Tally, batch: _Batch, level: str) -> bool:
        """Whether an error within the limit is the result's own, of an output whose noise is that of its own type."""
        asked = self.request.tolerance is None and not self.request.lossy and self.request.golden is None
        fine = tally.spec.dtype in ("float32", "float64") and LIMITS[tally.spec.dtype] == tally.limit
        return asked and fine and level == "off" and batch.regime not in STRESS

    def _noise(self) -> None:
        """Fail what is far above its noise floor: the original against itself, all numbers moved in their last place.

        The other optimization level has been seen already, and counts too. Only what is suspicious costs anything.
        """
        suspicious = {
            name: tally
            for name, tally in self.tallies.items()
            if tally.failure is None and tally.subtle and tally.subtle[0][0].error > _MISTAKE * tally.rounding
        }
        if not suspicious:
            return
        stage("original: measuring its noise floor")
        original = self._open_original("off")
        assert original is not None and self.request.original is not None
        runs = [original, original, *self._nudged("off")]
        for name, tally in suspicious.items():
            floor, worst = max(tally.rounding, float(np.finfo(tally.spec.dtype).eps)), tally.subtle[0]
            for _, batch, expected in tally.subtle:
                for seed, runner in enumerate(runs):
                    rng = np.random.default_rng([seed, batch.seed])
                    try:
                        moved = runner.run({key: nudge(value, rng) for key, value in batch.feed.items()})
                    except SessionError:
                        continue
                    own = compare(expected[name], moved[name], finite_only=True)
                    floor = max(floor, own.error if not own.what else 0.0)
            if worst[0].error > _MISTAKE * floor:
                tally.fail(worst[0], worst[1], "off", limit=_MISTAKE * floor)

    def _floor(
        self, original: Runner, batch: _Batch, expected: Outputs, runners: list[Runner] | None = None
    ) -> dict[str, Difference]:
        """Per output, the worst of the original against itself when its float inputs move in their last place.

        Where that is beyond the limit, the batch cannot tell rounding from a mistake. `runners` have other weights;
        data on ties is then left as it is.
        """
        rng = np.random.default_rng(batch.seed)
        floor = {name: Difference() for name in self.tallies}
        still, denormal = runners is not None and batch.regime in TIES, batch.regime == "denormal"
        for runner in [original] * _NUDGES if runners is None else runners:
            try:
                moved = runner.run({k: x if still else nudge(x, rng, denormal=denormal) for k, x in batch.feed.items()})
            except SessionError:
                continue
            for name, tally in self.tallies.items():
                own = compare(expected[name], moved[name], tally.limit / _FLOORS, finite_only=True)
                if not own.what:
                    floor[name] = max(floor[name], own, key=lambda difference: difference.error)
        return floor

    def _score(self, card: Card, original: Runner, result: Runner) -> None:
        score: Any = card.load_task()
        stage("original: task")
        before = float(score(original.run))
        stage("result: task")
        try:
            after = float(score(result.run))
        except Exception as error:
            self._fail(f"the task scores the original, but not the result: {type(error).__name__}: {error}")
            return
        name = card.task_name or card.path.stem
        self.task = {"name": name, "original": before, "result": after, "noise": card.task_noise}

    def _census(self) -> list[dict[str, int]] | None:
        """The fused ops of both; a fall is a warning."""
        if self.request.original is None:
            return None
        try:
            stage("original: census")
            before = census(self.request.original, custom_ops=self.request.custom_ops)
            stage("result: census")
            after = census(self.request.result, custom_ops=self.request.custom_ops)
        except SessionError as error:
            self._warn_once(f"no census: {error.what}")
            return None
        for op, (had, has) in falls(before, after).items():
            self.warnings.append(f"the runtime ends with fewer {op}: {had} → {has}")
        return [before, after]

    # --- data ---

    def _golden(self, folder: str) -> Iterator[tuple[_Batch, Outputs]]:
        """Saved inputs and the outputs that are expected of them."""
        names = [spec.name for spec in self.interface.required], list(self.tallies)
        for feed, expected in read_data_sets(Path(folder), *names):
            check_feed(feed, self.interface)
            missing = [name for name in self.tallies if name not in expected]
            if missing:
                raise BadInput(f"the data sets hold no output {missing[0]!r}", at=folder, fix="save them again")
            binding = binding_of(feed, self.interface)
            if binding not in self.bindings:
                self.bindings.append(binding)
            yield _Batch(self._next(), feed, binding, 0, "given"), expected

    def _choose_bindings(self, original: Runner) -> None:
        free, given = free_dims(self.interface), self.request.dims
        check_dims(self.interface, given, self.request.original or "")
        if self.request.feeds not in (None, "random"):
            return  # the batches bring their own
        declared = self.card.dims if self.card is not None else ()
        if declared:
            for binding in declared:
                found = find_bindings(self.interface, self._runs(original), {**binding, **given}, count=1)
                self.bindings += [sizes for sizes in found if sizes not in self.bindings]
        else:
            self.bindings = find_bindings(self.interface, self._runs(original), given, count=_BINDINGS)
        if not self.bindings:
            self._undecided(f"the original runs at none of the sizes that were tried; last: {self.refusal}")
            self.notes.append("give its sizes by --dim NAME=N, or data by --feeds")
            raise _GiveUp
        if len(self.bindings) < 2 and not declared and not free.keys() <= given.keys():
            self._undecided(f"the original runs at one binding only, {self.bindings[0]}; give others by --dim NAME=N")

    def _runs(self, original: Runner) -> Any:
        def runs(binding: Binding) -> bool:
            for regime in ("normal", "unit", "zeros"):
                try:
                    original.run(draw(self.interface, binding, np.random.default_rng(self.request.seeds[0]), regime))
                    return True
                except BadInput as error:
                    self.refusal = error.what
            return False

        return runs

    def _batches(self, original: Runner) -> Iterator[tuple[_Batch, Outputs]]:
        """Every batch with the original's outputs: the user's own, else the card's and (unless lossy) drawn ones."""
        source = self.request.feeds
        drawn = source in (None, "random")
        if source is None and self.card is not None and self.card.feeds is not None:
            source = "card"
            drawn = not self.request.lossy
        if source not in (None, "random"):
            for batch in self._given(source):
                try:
                    yield batch, original.run(batch.feed)
                except SessionError as error:
                    raise BadInput(f"the original refuses the feeds: {error.what}", at=source) from error
        if drawn:
            yield from self._drawn(original)

    def _given(self, source: str) -> Iterator[_Batch]:
        feeds = open_feeds(source, self.card, [spec.name for spec in self.interface.required])
        by_seed = ".py:" in source or source == "card"
        for seed in self.request.seeds if by_seed else self.request.seeds[:1]:
            batches = feeds(seed)
            for feed in itertools.islice(batches, _PER_SEED) if by_seed else batches:
                check_feed(feed, self.interface)
                binding = binding_of(feed, self.interface)
                if binding not in self.bindings:
                    self.bindings.append(binding)
                yield _Batch(self._next(), feed, binding, seed, "given")

    def _next(self) -> int:
        self.batches += 1
        return self.batches

    def _drawn(self, original: Runner) -> Iterator[tuple[_Batch, Outputs]]:
        schedule, refused = self._schedule(), 0
        for i, seed, regime in schedule:
            for attempt in range(_DRAWS):
                key = [seed, i, regimes(self.interface).index(regime), attempt]
                feed = draw(self.interface, self.bindings[i], np.random.default_rng(key), regime, self.aimed)
                try:
                    expected = original.run(feed)
                except SessionError as error:
                    self.refusal = error.what
                    continue
                yield _Batch(self._next(), feed, self.bindings[i], seed, regime), expected
                break
            else:
                refused += 1
        if refused:
            self.notes.append(f"the original refused {refused} of {len(schedule)} drawn batches; last: {self.refusal}")

    def _schedule(self) -> list[tuple[int, int, str]]:
        """Binding, seed, regime of each drawn batch: normal data at every binding, and every regime at least once."""
        first, *others = regimes(self.interface)
        turns = itertools.cycle(others)
        schedule = [
            (i, seed, next(turns) if j else first)
            for i in range(len(self.bindings))
            for j, seed in enumerate(self.request.seeds)
        ]
        seen = {regime for _, _, regime in schedule}
        return schedule + [(0, self.request.seeds[0], regime) for regime in others if regime not in seen]

    # --- sessions ---

    def _nudged(self, level: str) -> list[Runner]:
        """The original with its weights moved in their last place, twice; none where it is large, or golden."""
        source = self.request.original
        if level not in self.nudged and level in ("off", "on") and source is not None:
            self.nudged[level] = []
            if Path(source).stat().st_size <= _NUDGED_BYTES:
                for seed in range(2):
                    path = self._file(f"nudged_{seed}.onnx")
                    if not path.exists():
                        write_nudged(source, path, np.random.default_rng(seed))
                    self.nudged[level].append(self._open(str(path), level))
        return self.nudged.get(level, [])

    def _file(self, name: str) -> Path:
        """A place for a model that lives as long as the judge does."""
        self.scratch = self.scratch or tempfile.TemporaryDirectory(prefix="graphwright-")
        return Path(self.scratch.name) / name

    def _open(self, path: str, level: str) -> Runner:
        if level in ("off", "on"):
            request = self.request
            return open_session(path, optimize=level == "on", provider=request.provider, custom_ops=request.custom_ops)
        if level == "reference":
            return ReferenceSession(path)
        import onnx

        from optimizer.measure.window import doubled

        wide = self._file(f"double_{'original' if path == self.request.original else 'result'}.onnx")
        onnx.save(doubled(onnx.load(path)), wide)
        return _InDouble(ReferenceSession(wide), self.interface)

    def _open_original(self, level: str) -> Runner | None:
        """The original; None where only the runtime's own optimizations break it, or golden answers stand in for it."""
        if self.request.original is None:
            return None
        stage(f"original: loading, {_LEVELS[level]}")
        try:
            return self._open(self.request.original, level)
        except SessionError as error:
            if level == "on":
                self._warn_once(f"with its optimizations on, the runtime does not load the original: {error.what}")
                return None
            self._undecided(f"the original does not load: {error.what}")
            raise _GiveUp from None

    def _open_timed(self) -> tuple[Runner | None, Runner]:
        """Both, optimizations on, and how long that takes: the least of a few, for the first warms the runtime up."""
        spent, best = 0.0, [math.inf, math.inf]
        original = result = None
        for start in range(_STARTS):
            if start and (spent > _STARTS_S or original is None):
                break
            original = result = None  # one pair at a time
            began = time.perf_counter()
            original = self._open_original("on")
            between = time.perf_counter()
            result = self._open_result("on")
            took = between - began, time.perf_counter() - between
            best, spent = [min(pair) for pair in zip(best, took)], spent + sum(took)
        self.session_ms = [round(1e3 * seconds, 1) for seconds in best] if self.request.original else None
        assert result is not None
        return original, result

    def _open_result(self, level: str) -> Runner:
        stage(f"result: loading, {_LEVELS[level]}")
        try:
            return self._open(self.request.result, level)
        except SessionError as error:
            self._fail(f"the result does not load, {_LEVELS[level]}: {error.what}")
            raise _GiveUp from None

    def _run_result(self, result: Runner, batch: _Batch, level: str) -> Outputs:
        try:
            return result.run(batch.feed)
        except SessionError as error:
            sizes = ", ".join(f"{name}={size}" for name, size in batch.binding.items())
            what = f"the result does not run where the original does, {_LEVELS[level]}"
            self.refused = batch
            self._fail(f"{what}, {sizes and f'binding {sizes}, '}seed {batch.seed}, {batch.regime} data: {error.what}")
            raise _GiveUp from None

    def _limit(self, spec: OutputSpec) -> float:
        if spec.dtype not in LIMITS:
            return 0.0
        if self.request.tolerance is not None:
            return self.request.tolerance
        return LIMITS[max(spec.dtype, spec.precision, key=list(LIMITS).index)]

    def _fail(self, what: str) -> None:
        self.failures.append({"output": None, "what": what})

    def _undecided(self, why: str) -> None:
        self.inconclusive = True
        self.notes.append(why)

    def _warn_once(self, text: str) -> None:
        if text not in self.warnings:
            self.warnings.append(text)
