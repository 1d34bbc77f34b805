"""Many graphs: how many were right, what fired how often, and how often other than in its golden."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cache, partial
from multiprocessing import get_context

import onnx
from goldens import goldens, steps
from onnx import ModelProto

from optimizer.core.edit import Editor
from optimizer.core.model import read
from optimizer.driver import pipeline

from .generate import graph_of
from .judge import STEPS, Signature, judge, signature
from .shrink import shrink

BATCH = 250


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
        lines = [f"{self.asked} graphs, {self.judged} judged, {len(self.wrong)} wrong; the others: {dict(self.rejected)}"]
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


def batch(names: Sequence[str], numbers: Iterable[int]) -> Campaign:
    """The graphs of these numbers, in this process."""
    out = Campaign()
    for number in numbers:
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
    """All of them, in so many processes."""
    out = Campaign()
    parts = [numbers[i : i + BATCH] for i in range(0, len(numbers), BATCH)]
    if jobs == 1:
        for part in parts:
            out.add(batch(names, part))
        return out
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        for part in pool.map(partial(batch, tuple(names)), parts):
            out.add(part)
    return out
