"""speedup = median exp(log tₐ − log t_b) over pairs: how much faster B is than A, with an interval, or not known.

Two runs that follow each other, in random order, share the machine's mood; long blocks of runs do not, and one in six
of identical models is then "different". Each pair of runs gives one log-ratio, and the bootstrap an interval for their
median. Fresh processes must agree, for what one of them has (addresses, caches, who was loaded first) is not the
model's. On one CPU thread the time compared is the CPU's, which a busy machine disturbs least, else the wall's.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optimizer.core.errors import BadInput
from optimizer.measure import expect as expectation
from optimizer.runtime import child
from optimizer.runtime.card import Card, Source, called, read_card, resolve

if TYPE_CHECKING:
    from optimizer.core.feeds import Feed
    from optimizer.runtime.card import ModelLike
    from optimizer.runtime.session import Session

SCHEMA = "graphwright.bench/1"
SAME = 0.02  # effects up to this are none
_PROCESSES = 4
_FEWEST, _MOST = 10, 250  # pairs a process
_SAMPLE_S = 2e-3  # a sample repeats a run until it lasts this long
_WARM_S = 0.2
_RESAMPLES = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What was timed.

    Fields:
        a, b: the models' names; b is None where only one was timed.
        verdict: of b against a: "faster", "slower", "same" (interval within ±2 %) or "inconclusive"; "timed" of one.
        speedup, interval: time of a / time of b, median and 95 % interval; None of one.
        wall_ms, cpu_ms: medians of one run, of a and, if there is one, of b.
        pairs: how many were compared (of one: how many times it was sampled).
        binding: the sizes of the free dimensions.
        provider, threads: where it ran; placement: execution provider → nodes, of each model.
        expect: the outcome of each expectation.
    """

    a: str
    b: str | None
    verdict: str
    speedup: float | None
    interval: tuple[float, float] | None
    wall_ms: list[float]
    cpu_ms: list[float]
    pairs: int
    binding: dict[str, int]
    provider: str
    threads: int
    placement: list[dict[str, int]]
    expect: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    @property
    def exit_code(self) -> int:
        """0, 1 where an expectation does not hold, 4 where nothing could be said."""
        return expectation.exit_code(self.expect) or (4 if self.verdict == "inconclusive" else 0)

    def to_dict(self) -> dict[str, Any]:
        return {"schema": SCHEMA, **asdict(self)}

    def __str__(self) -> str:
        """The screen of `graphwright bench`."""
        wall, cpu = (" → ".join(f"{ms:.3g}" for ms in both) for both in (self.wall_ms, self.cpu_ms))
        sizes = " ".join(f"{name}={size}" for name, size in self.binding.items())
        runs = f"{self.pairs} {'runs' if self.b is None else 'pairs'}"
        where = "" if (self.provider, self.threads) == ("cpu", 1) else f"{self.provider}, {self.threads} threads"
        tail = f"{wall} ms wall, {cpu} ms CPU   " + ", ".join(part for part in (runs, sizes, where) if part)
        lines = [f"{self.a}   {tail}" if self.b is None else f"{self.b} vs {self.a}   {self.headline()}   {tail}"]
        if self.provider != "cpu":
            for name, placed in zip((self.a, self.b), self.placement):
                lines.append(f"placement  {name}   " + " · ".join(f"{ep} {n}" for ep, n in placed.items()))
        return "\n".join([*lines, *map(expectation.describe, self.expect)])

    def headline(self) -> str:
        """`1.63x faster  [1.58, 1.69]`"""
        if self.speedup is None or self.interval is None:
            return self.verdict
        factor, (low, high) = self.speedup, self.interval
        if self.verdict == "slower":
            factor, low, high = 1 / factor, 1 / high, 1 / low
        return f"{factor:.2f}x {self.verdict}  [{low:.2f}, {high:.2f}]"


def bench(
    a: ModelLike,
    b: ModelLike | None = None,
    *,
    provider: str = "cpu",
    options: Mapping[str, str] | None = None,
    threads: int = 1,
    dims: Mapping[str, int] | None = None,
    feeds: Any = None,
    seconds: float = 30,
    expect: Sequence[str] = (),
    seed: int = 0,
    card: Card | None = None,
) -> Bench:
    """Time a model, or two against each other, with the runtime's own optimizations on.

    Args:
        provider, options: "cpu", "cuda" or "tensorrt", and its options in the runtime's own names.
        threads: of one operator.
        dims: the sizes of the free dimensions; default: the card's first, else the first at which `a` runs.
        feeds: "random", FILE.npz, a folder of them, FILE.py:FN, or batches; the first batch is run again and again.
        seconds: to spend at most on timing; it ends earlier where the answer is clear.
        expect: KEY OP VALUE each: speed, nodes or bytes.
        card: stands in for the card of `a`.

    Raises:
        BadInput: no such model, feeds or dimension; SessionError, one of it: a model does not load or run.
        EnvironmentNotAsAsked: no runtime, or the provider does not run.
        ToolFailure: a child died.
    """
    import tempfile

    from optimizer.runtime.feeds import feeds_source

    if seconds <= 0 or threads < 1:
        raise BadInput(f"cannot time for {seconds:g} s on {threads} threads", fix="both must be positive")
    wanted = [expectation.parse(text) for text in expect]
    models = [resolve(a), *([resolve(b)] if b is not None else [])]
    card = card or models[0].card
    with tempfile.TemporaryDirectory(prefix="graphwright-") as folder:
        reports = [
            child.call(
                "optimizer.measure.speed:race",
                models=[model.path.absolute() for model in models],
                provider=provider,
                options=dict(options or {}),
                threads=threads,
                dims=dict(dims or {}),
                feeds=feeds_source(feeds, Path(folder)),
                seconds=seconds / _PROCESSES,
                seed=seed + process,
                card=card and card.path.absolute(),
            )
            for process in range(_PROCESSES)
        ]
    names = [_name(a, Source(models[0].path, card)), *(_name(b, source) for source in models[1:])]
    found = _conclude(names, reports, provider, threads, seed)
    if not wanted:
        return found
    return replace(found, expect=expectation.check_all(wanted, _measured(found, [m.path for m in models])))


def _name(model: Any, source: Source) -> str:
    """The name of the card or else of the file; a model in memory has none."""
    return Path(called(source)).stem if isinstance(model, (str, os.PathLike)) else "model"


def _measured(found: Bench, paths: Sequence[Path]) -> dict[str, tuple[float | None, float | None]]:
    from optimizer.measure.inspect import inspect

    first, last = inspect(paths[0]), inspect(paths[-1])
    return {
        "speed": (found.speedup, 1.0),
        "nodes": (last.nodes, first.nodes),
        "bytes": (last.bytes, first.bytes),
    }


def _conclude(
    names: Sequence[str], reports: Sequence[Mapping[str, Any]], provider: str, threads: int, seed: int
) -> Bench:
    """One verdict from the samples of all processes."""
    import numpy as np

    clock = "cpu" if (provider, threads) == ("cpu", 1) else "wall"
    wall, cpu = (np.hstack([report[kind] for report in reports]) for kind in ("wall", "cpu"))  # [model, sample], s
    speedup = interval = None
    verdict = "timed"
    if len(names) == 2:
        ratios = [np.log(report[clock][0]) - np.log(report[clock][1]) for report in reports]
        speedup, *interval = np.exp(_interval(np.concatenate(ratios), seed)).tolist()
        verdict = judge(np.exp([_interval(part, seed) for part in ratios]).tolist(), [speedup, *interval])
    return Bench(
        a=names[0],
        b=names[1] if len(names) == 2 else None,
        verdict=verdict,
        speedup=speedup,
        interval=(interval[0], interval[1]) if interval else None,
        wall_ms=(1e3 * np.median(wall, axis=1)).tolist(),
        cpu_ms=(1e3 * np.median(cpu, axis=1)).tolist(),
        pairs=wall.shape[1],
        binding=reports[0]["binding"],
        provider=provider,
        threads=threads,
        placement=reports[0]["placement"],
    )


def judge(parts: Sequence[Sequence[float]], whole: Sequence[float]) -> str:
    """The verdict from (speedup, low, high) of each process and of all pairs together.

    An effect is one whose interval lies beyond 2 %, and that every process shows by itself.
    """
    _, low, high = whole
    if low >= 1 / (1 + SAME) and high <= 1 + SAME:
        return "same"
    if low > 1 + SAME and all(part[1] > 1 for part in parts):
        return "faster"
    if high < 1 / (1 + SAME) and all(part[2] < 1 for part in parts):
        return "slower"
    return "inconclusive"


def _interval(ratios: Any, seed: int) -> tuple[float, float, float]:
    """Median of log-ratios and its 95 % percentile bootstrap interval."""
    import numpy as np

    rng = np.random.default_rng(seed)
    medians = np.median(rng.choice(ratios, (_RESAMPLES, len(ratios))), axis=1)
    low, high = np.quantile(medians, (0.025, 0.975))
    return float(np.median(ratios)), float(low), float(high)


# --- in the child ----------------------------------------------------------------------------------------------------


def race(
    *,
    models: list[str],
    provider: str,
    options: dict[str, str],
    threads: int,
    dims: dict[str, int],
    feeds: str | None,
    seconds: float,
    seed: int,
    card: str | None,
) -> dict[str, Any]:
    """Seconds of one run, [model][sample] of wall and CPU, taken pair by pair in random order. Only in a child."""
    import random

    from optimizer.runtime.session import open_session

    loaded: dict[int, Session] = {}
    for i in sorted(range(len(models)), reverse=seed % 2 == 1):
        child.stage(f"loading {models[i]}")
        loaded[i] = open_session(models[i], optimize=True, provider=provider, options=options, threads=threads)
    sessions = [loaded[i] for i in range(len(models))]
    child.stage(f"running {models[0]}")
    feed, binding = _first_feed(models[0], sessions[0], dims, feeds, seed, read_card(card) if card else None)
    for model in models[1:]:
        _check_takes(model, feed)
    runs = [session.prepare(feed) for session in sessions]
    repeats = [_warm(run) for run in runs]
    order = random.Random(seed)
    wall: list[list[float]] = [[] for _ in runs]
    cpu: list[list[float]] = [[] for _ in runs]
    until = time.perf_counter() + seconds
    clock = cpu if (provider, threads) == ("cpu", 1) else wall
    while len(wall[0]) < _MOST and (time.perf_counter() < until or len(wall[0]) < 3):
        for i in order.sample(range(len(runs)), len(runs)):
            child.stage(f"running {models[i]}")
            wall_began, cpu_began = time.perf_counter(), time.process_time()
            for _ in range(repeats[i]):
                runs[i]()
            cpu[i].append((time.process_time() - cpu_began) / repeats[i])
            wall[i].append((time.perf_counter() - wall_began) / repeats[i])
        if len(wall[0]) >= _FEWEST and len(wall[0]) % 5 == 0 and _is_clear(clock, seed):
            break
    return {"wall": wall, "cpu": cpu, "binding": binding, "placement": [dict(s.placement) for s in sessions]}


def _check_takes(model: str, feed: Feed) -> None:
    """Two models are timed on one batch.

    Raises:
        BadInput: the second requires other inputs than the first was fed.
    """
    from optimizer.runtime.interface import read_interface

    interface = read_interface(model)
    lacks = sorted(feed.keys() - {spec.name for spec in interface.inputs})
    more = sorted({spec.name for spec in interface.required} - feed.keys())
    differs = [f"lacks {', '.join(map(repr, lacks))}"] * bool(lacks) + [
        f"asks for {', '.join(map(repr, more))}"
    ] * bool(more)
    if differs:
        raise BadInput(
            f"the models take different inputs, so no batch fits both: the second {' and '.join(differs)}",
            at=model,
            fix="time each alone, or give both the same interface: optimize --rename, --inputs, --outputs",
        )


def _is_clear(clock: list[list[float]], seed: int) -> bool:
    """Whether the interval is narrow enough: ±1 %, or ±5 % of an effect that is beyond doubt."""
    import numpy as np

    logs = np.log(np.maximum(clock, 1e-9))
    effect, low, high = _interval(logs[0] - logs[1] if len(logs) == 2 else logs[0], seed)
    doubtless = len(logs) == 2 and (low > SAME or high < -SAME)
    return high - low < max(SAME, 0.1 * abs(effect) * doubtless)


def _warm(run: Callable[[], None]) -> int:
    """Run until warm; how often a sample repeats the run, so that the clock's own grain is no part of it."""
    best, until = math.inf, time.perf_counter() + _WARM_S
    for i in range(1000):
        began = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - began)
        if i >= 2 and time.perf_counter() > until:
            break
    return max(1, math.ceil(_SAMPLE_S / best))


def _first_feed(
    path: str, session: Session, dims: dict[str, int], feeds: str | None, seed: int, card: Card | None
) -> tuple[Feed, dict[str, int]]:
    """The batch to run: the user's first, else the card's, else drawn at the first sizes that run."""
    import numpy as np

    from optimizer.runtime.feeds import binding_of, check_dims, check_feed, draw, find_bindings, open_feeds
    from optimizer.runtime.interface import read_interface
    from optimizer.runtime.session import SessionError

    interface = read_interface(path)
    check_dims(interface, dims, path)
    if feeds is None and card is not None and card.feeds is not None and not dims:
        feeds = "card"
    if feeds not in (None, "random"):
        feed = next(iter(open_feeds(feeds, card)(seed)), None)
        if feed is None:
            raise BadInput("the feeds hold no batch", at=feeds)
        return check_feed(feed, interface), binding_of(feed, interface)
    given = {**(card.dims[0] if card is not None and card.dims else {}), **dims}
    refusal = ""

    def runs(binding: Mapping[str, int]) -> bool:
        nonlocal refusal
        try:
            session.run(draw(interface, binding, np.random.default_rng(seed)))
        except SessionError as error:
            refusal = error.what
            return False
        return True

    found = find_bindings(interface, runs, given, count=1)
    if not found:
        fix = "give its sizes by --dim NAME=N, or data by --feeds"
        raise BadInput(f"the model runs at none of the sizes that were tried; last: {refusal}", at=path, fix=fix)
    return draw(interface, found[0], np.random.default_rng(seed)), found[0]
