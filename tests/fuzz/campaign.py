"""Many graphs: how many were right, what fired how often, and how often other than in its golden."""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, partial
from multiprocessing import get_context
from multiprocessing.connection import Connection

import onnx
from goldens import goldens, steps
from onnx import ModelProto

from optimizer.core.edit import Editor
from optimizer.core.model import read
from optimizer.driver import pipeline

from .generate import graph_of
from .judge import STEPS, Illegal, Original, Signature, judge, signature
from .shrink import shrink

BATCH = 500
LIMIT = 60.0  # seconds a graph: a loop without end is the original's


@dataclass(frozen=True)
class Failure:
    """The graph of a number, of what it was made, and what was wrong with it."""

    number: int
    what: str
    why: str
    model: ModelProto

    def shrunk(self) -> ModelProto:
        """The smallest model found that fails in the same way."""
        kind = self.why.partition(":")[0]
        return shrink(self.model, lambda m: judge(m, self.number).wrong.partition(":")[0] == kind)

    def __str__(self) -> str:
        return f"{self.number}: {self.what}\n{self.why}\n{onnx.printer.to_text(self.shrunk())}"


@dataclass
class Campaign:
    """What came of a range of graphs; prints as a table."""

    asked: int = 0
    judged: int = 0
    rejected: Counter[str] = field(default_factory=Counter[str])
    firings: Counter[str] = field(default_factory=Counter[str])
    other: Counter[str] = field(default_factory=Counter[str])  # in another spelling, dtype or shape than any golden
    wrong: list[Failure] = field(default_factory=list)

    def add(self, more: Campaign) -> None:
        self.asked += more.asked
        self.judged += more.judged
        self.rejected.update(more.rejected)
        self.firings.update(more.firings)
        self.other.update(more.other)
        self.wrong += more.wrong

    def __str__(self) -> str:
        lines = [
            f"{self.asked} graphs, {self.judged} judged, {len(self.wrong)} wrong; the others: {dict(self.rejected)}"
        ]
        lines.append(f"{'rule':28} firings  a 10 000  other than its golden")
        for name in steps():
            n = self.firings[name]
            share = f"{self.other[name] / n:.0%}" if n else "–"
            lines.append(f"{name:28} {n:7}  {n * 10_000 / max(self.asked, 1):8.0f}  {share:>8}")
        return "\n".join(lines)


@cache
def golden_signatures() -> frozenset[Signature]:
    """Every firing in the goldens."""
    out: set[Signature] = set()
    for g in (g for g in goldens() if g.after is not None):
        editor = Editor(read(g.before))
        pipeline.run(editor, STEPS)
        out.update(map(signature, editor.log))
    return frozenset(out)


def batch(names: Sequence[str], numbers: Iterable[int], tell: Callable[[int], None] = lambda _: None) -> Campaign:
    """The graphs of these numbers, in this process; each number is told before it is tried."""
    out = Campaign()
    for number in numbers:
        tell(number)
        out.asked += 1
        made = graph_of(number, names)
        if made is None:
            out.rejected["nothing legal"] += 1
            continue
        outcome = judge(made[1], number, twice=number % 2 == 0)
        if outcome.rejected:
            out.rejected[outcome.rejected.partition(":")[0]] += 1
            continue
        out.judged += 1
        out.firings.update(outcome.firings)
        out.other.update(s[0] for s in outcome.signatures if s not in golden_signatures())
        if outcome.wrong:
            out.wrong.append(Failure(number, made[0], outcome.wrong, made[1]))
    return out


def run(numbers: Sequence[int], names: Sequence[str] = (), *, jobs: int = 1) -> Campaign:
    """All of them, in so many processes at once, which a graph that kills the runtime does not outlive."""
    out = Campaign()
    parts = [numbers[i : i + BATCH] for i in range(0, len(numbers), BATCH)]
    with ThreadPoolExecutor(jobs) as pool:
        for part in pool.map(partial(_survive, tuple(names)), parts):
            out.add(part)
    return out


def _survive(names: Sequence[str], numbers: Sequence[int]) -> Campaign:
    """A batch in a child; without the graphs that kill it, of which those count that only our result does."""
    out, left = Campaign(), list(numbers)
    while left:
        done, at = _in_child(batch, names, left)
        if done is not None:
            out.add(done)
            break
        number = left[at]
        _, died = _in_child(_original, names, [number])
        out.asked += 1
        if died >= 0 or (made := graph_of(number, names)) is None:
            out.rejected["kills the runtime"] += 1
        else:
            out.judged += 1
            out.wrong.append(Failure(number, made[0], "does not run: kills the runtime", made[1]))
        left.remove(number)
    return out


def _original(names: Sequence[str], numbers: Iterable[int], tell: Callable[[int], None]) -> Campaign:
    """Only what the originals answer."""
    for number in numbers:
        tell(number)
        if (made := graph_of(number, names)) is not None:
            with suppress(Illegal):
                Original(made[1], number, may_refer=number % 8 == 0)
    return Campaign()


Work = Callable[[Sequence[str], Iterable[int], Callable[[int], None]], Campaign]


def _in_child(work: Work, names: Sequence[str], numbers: Sequence[int]) -> tuple[Campaign | None, int]:
    """What the work returns, and -1; or None, and where among the numbers the child died."""
    context = get_context("spawn")
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=_work, args=(work, names, numbers, there))
    child.start()
    there.close()
    at = -1
    try:
        while True:
            if not here.poll(LIMIT):
                child.kill()
            said = here.recv()
            if isinstance(said, Campaign):
                child.join()
                return said, -1
            if isinstance(said, str):
                raise RuntimeError(said)
            at += 1
    except EOFError:
        child.join()
        if at < 0:
            raise RuntimeError(f"the child of {numbers} never began: exit {child.exitcode}") from None
        return None, at


def _work(work: Work, names: Sequence[str], numbers: Sequence[int], there: Connection) -> None:
    try:
        there.send(work(names, numbers, there.send))
    except Exception:  # a mistake of ours, not of a graph
        there.send(traceback.format_exc())
