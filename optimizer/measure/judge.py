"""The child's half of `validate`: run original and result on the same data and compare every output.

First with the runtime's optimizations off: there an error is the result's own. Then with them on, where the runtime may
be at fault, and the original against itself tells: a result that then agrees with either run of the original is right.
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
from optimizer.measure.compare import Difference, compare, sqnr_db
from optimizer.runtime.card import Card, read_card
from optimizer.runtime.child import stage
from optimizer.runtime.feeds import (
    STRESS,
    binding_of,
    check_dims,
    check_feed,
    draw,
    find_bindings,
    free_dims,
    open_feeds,
    regimes,
)
from optimizer.runtime.interface import Interface, OutputSpec, differences, read_interface
from optimizer.runtime.kernels import census, falls
from optimizer.runtime.session import Session, SessionError, open_session

if TYPE_CHECKING:
    from optimizer.core.feeds import Binding, Feed, Outputs

LIMITS = {"float64": 1e-12, "float32": 1e-5, "float16": 5e-3, "bfloat16": 4e-2}
"""The error up to which an output counts as equal, by the coarsest floating type on its way; all other types: 0."""
_PER_SEED = 4  # how many of a user's own batches are run a seed; the task, not the judge, goes over all data
_NUDGES, _FLOORS = 4, 8  # tries to find the noise floor; how many floors an error may reach
_ROUNDING = 1e-2  # up to here, two runs of one model under other optimizations differ by rounding
_STARTS, _STARTS_S = 3, 0.5  # sessions are started up to three times, for half a second, to time them
_DRAWS = 3  # how often data is drawn that the original may refuse


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be judged, as `optimizer.measure.accuracy.validate` passes it to the child."""

    original: str
    result: str
    feeds: str | None
    dims: dict[str, int]
    seeds: list[int]
    tolerance: float | None
    lossy: bool
    custom_ops: list[str]
    card: str | None
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
    failed: _Batch | None = None  # the first

    def see(self, found: Difference) -> None:
        if found.error >= self.error:
            self.error, self.worst = found.error, found
        if self.failure is not None:
            self.failure["error"] = self.error

    def excuse(self, batch: _Batch, own: Difference) -> None:
        self.excused += 1
        self.blind[batch.is_given] += _FLOORS * own.error > _ROUNDING

    @property
    def is_blind(self) -> bool:
        """Whether most comparisons could not tell rounding from a mistake; given data decides where there is any."""
        given = bool(self.compared[True])
        return 2 * self.blind[given] > self.compared[given]

    def settle(self, batch: _Batch, own: Difference) -> None:
        """Judge what was wrong with optimizations off, now that the original is known with them on too.

        Two runs of one model differ by rounding, and then little; where they differ much, the runtime has broken it,
        which excuses nothing.
        """
        if batch.number in self.suspects:
            found, _ = self.suspects.pop(batch.number)
            if own.error <= _ROUNDING and _explains(own, found):
                self.excuse(batch, own)
            else:
                self.fail(found, batch, "off")

    def fail(self, found: Difference, batch: _Batch, level: str) -> None:
        self.levels.add(level)
        self.failed = self.failed or batch
        self.failure = self.failure or {
            "output": self.spec.name,
            "what": found.what,
            "error": found.error,
            "limit": self.limit,
            "index": list(found.index),
            "original": found.original,
            "result": found.result,
            "binding": batch.binding,
            "seed": batch.seed,
            "regime": batch.regime,
        }
        self.see(found)

    def to_dict(self) -> dict[str, Any]:
        worst = {"index": list(self.worst.index), "original": self.worst.original, "result": self.worst.result}
        ratio = sqnr_db(self.signal, self.noise)
        return {"name": self.spec.name, "error": self.error, "limit": self.limit, "sqnr_db": ratio, "worst": worst}


def _explains(own: Difference, found: Difference) -> bool:
    """Whether the original is about as far from itself as the result is from it: so far, and in so many values."""
    return not found.what and found.error <= _FLOORS * own.error and found.beyond <= _FLOORS * own.beyond


def _nudge(value: Any, rng: np.random.Generator) -> Any:
    """A float array with each element kept, or moved up or down in its last place; anything else as it is."""
    if not isinstance(value, np.ndarray) or value.dtype.kind != "f":
        return value
    return (value * (1 + rng.integers(-1, 2, value.shape) * np.finfo(value.dtype).eps)).astype(value.dtype)


class _GiveUp(Exception):
    """The verdict is clear before the end."""


def judge(**request: Any) -> dict[str, Any]:
    """The fields of a `Validation`. Only in a child."""
    return _Judge(Request(**request)).verdict()


class _Judge:
    def __init__(self, request: Request) -> None:
        self.request = request
        self.card: Card | None = read_card(request.card) if request.card else None
        self.interface: Interface = read_interface(request.original)
        self.tallies = {spec.name: _Tally(spec, self._limit(spec)) for spec in self.interface.outputs}
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
            counts = self._census()
        except _GiveUp:
            pass
        for tally in self.tallies.values():
            for found, batch in tally.suspects.values():  # left where the second pass did not come to pass
                tally.fail(found, batch, "off")
            if tally.failure is not None:
                both = "optimizations off and on alike"
                only = f"only with optimizations {'/'.join(tally.levels)}"
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
                self.notes.append(
                    f"the runtime's own optimizations change output {tally.spec.name!r} of the original: "
                    f"error {tally.unsteady:.1e} of scale; that is not the result's doing"
                )
        return {
            "verdict": "fail" if self.failures else "inconclusive" if self.inconclusive else "pass",
            "lossy": self.request.lossy,
            "bindings": self.bindings,
            "seeds": self.request.seeds,
            "session_ms": self.session_ms,
            "census": counts,
            "outputs": [tally.to_dict() for tally in self.tallies.values()] if self.judged else [],
            "task": self.task,
            "failures": self.failures,
            "warnings": self.warnings,
            "notes": self.notes,
        }

    # --- the two passes ---

    def _unoptimized(self, spool: IO[bytes]) -> None:
        original = self._open_original(optimize=False)
        assert original is not None
        stage("original: running, optimizations off")
        self._choose_bindings(original)
        result = self._open_result(optimize=False)
        for batch, expected in self._batches(original):
            pickle.dump((batch, expected), spool)
            stage("result: running, optimizations off")
            got = self._run_result(result, batch, "off")
            self._compare(original, batch, expected, got, "off")
            stage("original: running, optimizations off")
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
        original: Session | None,
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
        for name, tally in self.tallies.items():
            found = compare(expected[name], got[name], tally.limit, finite_only=finite_only)
            own = Difference()
            if unoptimized is not None:
                own = compare(unoptimized[name], expected[name], tally.limit / _FLOORS, finite_only=finite_only)
                tally.unsteady = max(tally.unsteady, own.error)
                if found.error > tally.limit and own.error > tally.limit:
                    other = compare(unoptimized[name], got[name], tally.limit, finite_only=finite_only)
                    found = min(found, other, key=lambda difference: difference.error)
                tally.settle(batch, own)
            if level == "on" and batch.regime not in STRESS:
                tally.signal += found.signal
                tally.noise += found.noise
            tally.compared[batch.is_given] += 1
            if not (found.what if lossy else found.error > tally.limit):
                tally.see(found)
                continue
            # Data on ties jumps when it moves at all, so that it excuses only what other data showed to be unsteady.
            if not found.what and original is not None and (batch.regime != "grid" or tally.excused):
                floor = floor or self._floor(original, batch, expected)
                if _explains(floor[name], found):
                    tally.excuse(batch, floor[name])
                    continue
            if level == "off":
                tally.suspects[batch.number] = found, batch
            elif own.error <= _ROUNDING and _explains(own, found):
                tally.excuse(batch, own)
            else:
                tally.fail(found, batch, level)

    def _floor(self, original: Session, batch: _Batch, expected: Outputs) -> dict[str, Difference]:
        """Per output, the worst of the original against itself when its float inputs move in their last place.

        Where that is beyond the limit, the batch cannot tell rounding from a mistake.
        """
        rng = np.random.default_rng(batch.seed)
        floor = {name: Difference() for name in self.tallies}
        for _ in range(_NUDGES):
            try:
                moved = original.run({name: _nudge(value, rng) for name, value in batch.feed.items()})
            except SessionError:
                continue
            for name, tally in self.tallies.items():
                own = compare(expected[name], moved[name], tally.limit / _FLOORS, finite_only=True)
                if not own.what:
                    floor[name] = max(floor[name], own, key=lambda difference: difference.error)
        return floor

    def _score(self, card: Card, original: Session, result: Session) -> None:
        score: Any = card.load_task()
        stage("original: task")
        before = float(score(original.run))
        stage("result: task")
        after = float(score(result.run))
        name = card.task_name or card.path.stem
        self.task = {"name": name, "original": before, "result": after, "noise": card.task_noise}

    def _census(self) -> list[dict[str, int]] | None:
        """The fused ops of both; a fall is a warning."""
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

    def _choose_bindings(self, original: Session) -> None:
        free, given = free_dims(self.interface), self.request.dims
        check_dims(self.interface, given, self.request.original)
        if self.request.feeds not in (None, "random"):
            return  # the batches bring their own
        declared = self.card.dims if self.card is not None else ()
        if declared:
            for binding in declared:
                found = find_bindings(self.interface, self._runs(original), {**binding, **given}, count=1)
                self.bindings += [sizes for sizes in found if sizes not in self.bindings]
        else:
            self.bindings = find_bindings(self.interface, self._runs(original), given)
        if not self.bindings:
            self._undecided(f"the original runs at none of the sizes that were tried; last: {self.refusal}")
            self.notes.append("give its sizes by --dim NAME=N, or data by --feeds")
            raise _GiveUp
        if len(self.bindings) < 2 and not declared and not free.keys() <= given.keys():
            self._undecided(f"the original runs at one binding only, {self.bindings[0]}; give others by --dim NAME=N")

    def _runs(self, original: Session) -> Any:
        def runs(binding: Binding) -> bool:
            for regime in ("normal", "unit", "zeros"):
                try:
                    original.run(draw(self.interface, binding, np.random.default_rng(self.request.seeds[0]), regime))
                    return True
                except BadInput as error:
                    self.refusal = error.what
            return False

        return runs

    def _batches(self, original: Session) -> Iterator[tuple[_Batch, Outputs]]:
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
        feeds = open_feeds(source, self.card)
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

    def _drawn(self, original: Session) -> Iterator[tuple[_Batch, Outputs]]:
        schedule, refused = self._schedule(), 0
        for i, seed, regime in schedule:
            for attempt in range(_DRAWS):
                key = [seed, i, regimes(self.interface).index(regime), attempt]
                feed = draw(self.interface, self.bindings[i], np.random.default_rng(key), regime)
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

    def _open_original(self, *, optimize: bool) -> Session | None:
        """The original; None where only the runtime's own optimizations break it."""
        stage(f"original: loading, optimizations {'on' if optimize else 'off'}")
        try:
            return open_session(self.request.original, optimize=optimize, custom_ops=self.request.custom_ops)
        except SessionError as error:
            if optimize:
                self._warn_once(f"with its optimizations on, the runtime does not load the original: {error.what}")
                return None
            self._undecided(f"the original does not load: {error.what}")
            raise _GiveUp from None

    def _open_timed(self) -> tuple[Session | None, Session]:
        """Both, optimizations on, and how long that takes: the least of a few, for the first warms the runtime up."""
        spent, best = 0.0, [math.inf, math.inf]
        original = result = None
        for start in range(_STARTS):
            if start and (spent > _STARTS_S or original is None):
                break
            original = result = None  # one pair at a time
            began = time.perf_counter()
            original = self._open_original(optimize=True)
            between = time.perf_counter()
            result = self._open_result(optimize=True)
            took = between - began, time.perf_counter() - between
            best, spent = [min(pair) for pair in zip(best, took)], spent + sum(took)
        self.session_ms = [round(1e3 * seconds, 1) for seconds in best]
        assert result is not None
        return original, result

    def _open_result(self, *, optimize: bool) -> Session:
        level = "on" if optimize else "off"
        stage(f"result: loading, optimizations {level}")
        try:
            return open_session(self.request.result, optimize=optimize, custom_ops=self.request.custom_ops)
        except SessionError as error:
            self._fail(f"the result does not load, optimizations {level}: {error.what}")
            raise _GiveUp from None

    def _run_result(self, result: Session, batch: _Batch, level: str) -> Outputs:
        try:
            return result.run(batch.feed)
        except SessionError as error:
            sizes = ", ".join(f"{name}={size}" for name, size in batch.binding.items())
            what = f"the result does not run where the original does, optimizations {level}"
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
