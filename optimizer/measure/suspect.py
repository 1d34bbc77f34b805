"""The child's half of `bisect`: one feed and one output, run on many candidates; then the window of the edit found."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from optimizer.core.edit import Evidence
from optimizer.measure.compare import Difference, compare
from optimizer.measure.noise import nudge
from optimizer.measure.verify import Verdict, judge, reproduce, shrink
from optimizer.measure.window import Window
from optimizer.runtime.child import stage
from optimizer.runtime.feeds import STRESS
from optimizer.runtime.session import Session, SessionError, open_session

_FLOORS = 8
_NUDGES = 4


def prepare(
    original: str, result: str, batch: str, custom_ops: Sequence[str], lossy: bool, **failure: Any
) -> dict[str, Any]:
    """What the original answers to the batch, kept beside it, and from what error on a candidate is bad.

    Returns:
        "error": of the result; "limit": above it a candidate is bad, None where no limit parts the two.
    """
    kept: dict[str, Any] = pickle.loads(Path(batch).read_bytes())
    optimize = "off" not in failure["levels"]
    stage("original")
    session = open_session(original, optimize=optimize, custom_ops=custom_ops)
    expected = session.run(kept["feed"])[kept["output"]]
    test = {
        **kept,
        "expected": expected,
        "optimize": optimize,
        "finite_only": lossy or failure["regime"] in STRESS,
        "limit": failure["limit"],
    }
    floor = _floor(session, test)
    stage("result")
    error = _differs(result, test, custom_ops).error
    limits = [x for x in (max(failure["limit"], _FLOORS * floor), failure["limit"]) if x < error]
    test["limit"] = limits[0] if limits else None
    Path(batch).write_bytes(pickle.dumps(test))
    return {"error": error, "limit": test["limit"]}


def probe(candidates: Sequence[str], batch: str, custom_ops: Sequence[str]) -> list[float]:
    """The error of each candidate on the batch, up to the first beyond the limit; inf: it does not load or run."""
    test: dict[str, Any] = pickle.loads(Path(batch).read_bytes())
    errors: list[float] = []
    for k, path in enumerate(candidates):
        stage(f"candidate {k}")
        errors.append(_differs(path, test, custom_ops).error)
        if errors[-1] > test["limit"]:
            break
    return [min(e, 1e308) for e in errors]  # JSON knows no infinity


def _differs(path: str, test: Mapping[str, Any], custom_ops: Sequence[str]) -> Difference:
    try:
        session = open_session(path, optimize=test["optimize"], custom_ops=custom_ops)
        got = session.run(test["feed"])[test["output"]]
    except SessionError as e:
        return Difference(float("inf"), e.what)
    return compare(test["expected"], got, test["limit"] or 0.0, finite_only=test["finite_only"])


def _floor(session: Session, test: Mapping[str, Any]) -> float:
    """The original against itself when its float inputs move in their last place."""
    rng = np.random.default_rng(0)
    worst = 0.0
    for _ in range(_NUDGES):
        try:
            moved = session.run({k: nudge(x, rng) for k, x in test["feed"].items()})
        except SessionError:
            continue
        found = compare(test["expected"], moved[test["output"]], test["limit"], finite_only=True)
        worst = max(worst, 0.0 if found.what else found.error)
    return worst


def reduce(
    windows: str, folder: str, exposed: str | None, batch: str | None, custom_ops: Sequence[str]
) -> dict[str, Any] | None:
    """Write the smallest reproducer of an edit that its windows show, None where they show nothing.

    Args:
        windows: pickled windows, the smallest first.
        exposed: the model before the edit, whose outputs are what the windows stand on.
        batch: what it is fed.
    """
    found: list[Window] = pickle.loads(Path(windows).read_bytes())
    real = _real(exposed, batch, custom_ops) if exposed and batch else {}
    for window in found:
        stage("the edit's window")
        given = {p.name: real.get(window.names[p.name]) for p in window.ports}
        verdict = Verdict(Evidence.NONE)
        if all(x is not None for x in given.values()) and given:
            verdict = judge(window, {k: x for k, x in given.items() if x is not None})
        drawn = judge(window)
        if drawn.why and (verdict.why or not given or any(x is None for x in given.values())):
            verdict = drawn  # smaller data, where it shows the same
        if verdict.why:
            small, feed = shrink(window, dict(verdict.feed))
            verdict = Verdict(Evidence.NONE, verdict.why, feed)
            reproduce(Path(folder), small, verdict)
            return {"why": verdict.why, "nodes": [len(small.stored(side).graph.node) for side in (0, 1)]}
    return None


def _real(exposed: str, batch: str, custom_ops: Sequence[str]) -> dict[str, Any]:
    """What the values that the windows stand on are when the model is fed the batch."""
    feed: dict[str, Any] = pickle.loads(Path(batch).read_bytes())["feed"]
    try:
        session = open_session(exposed, optimize=False, custom_ops=custom_ops)
        return {**feed, **session.run({k: x for k, x in feed.items() if k in session.inputs})}
    except SessionError:
        return dict(feed)
