"""Where a quantized model stands: how many multiplications are integer ones, and how far its answers are off.

A quick look while a plan is being settled; the verdict on the result is `optimizer.measure.accuracy`'s.
"""

from __future__ import annotations

import itertools
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from optimizer.measure.compare import compare, sqnr_db
from optimizer.runtime import child
from optimizer.runtime.card import Card, read_card
from optimizer.runtime.feeds import check_feed
from optimizer.runtime.interface import read_interface
from optimizer.runtime.kernels import integer_macs
from optimizer.runtime.observe import batches_of
from optimizer.runtime.session import open_session


@dataclass(frozen=True, slots=True)
class Standing:
    """What was seen.

    Fields:
        total, integer: multiplications of one batch, by the runtime's own profile.
        floats: those that stayed float, by name of node.
        sqnr: 10·log₁₀(Σa²/Σ(a−b)²) of each floating output.
        task: the card's score of the original and of the result, or None.
        batches: how many were looked at.
    """

    total: int
    integer: int
    floats: dict[str, int]
    sqnr: dict[str, float] = field(default_factory=dict[str, float])
    task: tuple[float, float] | None = None
    batches: int = 0

    @property
    def worst(self) -> float:
        """The SQNR of the worst output, in dB; inf where none is floating."""
        return min(self.sqnr.values(), default=math.inf)


def look(
    original: str | os.PathLike[str],
    result: str | os.PathLike[str],
    *,
    feeds: str,
    card: Card | None = None,
    samples: int = 8,
    whole: bool = True,
    seed: int = 0,
) -> Standing:
    """Run both over up to `samples` batches, in a child.

    Args:
        whole: also count multiplications, and score the task if the card has one; else only the SQNR.

    Raises:
        BadInput: a model does not load, or refuses the feeds.
        ToolFailure: the child failed.
    """
    seen = child.call(
        "optimizer.measure.standing:see",
        original=Path(original).absolute(),
        result=Path(result).absolute(),
        feeds=feeds,
        card=card and card.path.absolute(),
        samples=samples,
        whole=whole,
        seed=seed,
    )
    score = seen.pop("task")
    return Standing(**seen, task=tuple(score) if score else None)


def see(
    original: str, result: str, feeds: str, card: str | None, samples: int, whole: bool, seed: int
) -> dict[str, Any]:
    """The fields of a `Standing`. Only in a child."""
    interface = read_interface(original)
    before, after = open_session(original, optimize=True), open_session(result, optimize=True)
    signal = {spec.name: 0.0 for spec in interface.outputs if spec.dtype.startswith(("float", "bfloat"))}
    noise = dict.fromkeys(signal, 0.0)
    macs, batches = None, 0
    for feed in itertools.islice(batches_of(interface, before, feeds, card, seed), samples):
        a, b = before.run(check_feed(feed, interface)), after.run(feed)
        batches += 1
        for name in signal:
            found = compare(a[name], b[name], finite_only=True)
            signal[name] += found.signal
            noise[name] += found.noise if math.isfinite(found.error) else math.inf
        if whole and macs is None:
            macs = integer_macs(result, feed)
    known = read_card(card) if card else None
    scores = None
    if whole and known is not None and known.task is not None:
        score = known.load_task()
        scores = [float(score(before.run)), float(score(after.run))]
    return {
        "total": macs.total if macs else 0,
        "integer": macs.integer if macs else 0,
        "floats": macs.floats if macs else {},
        "sqnr": {name: sqnr_db(signal[name], noise[name]) for name in signal if signal[name] or noise[name]},
        "task": scores,
        "batches": batches,
    }
