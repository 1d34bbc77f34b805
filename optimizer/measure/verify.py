"""`--verify each`: every edit is run on its window before it is committed, and refused where it does not hold.

Each distinct window is run once: in its own dtypes by ONNX Runtime, optimizations off, on all regimes of data and
several sizes; in double by onnx.reference on some. A mismatch counts only where the judges agree on each side better
than the sides do with each other. onnx.reference alone never accuses, because it is wrong about some operators at old
opsets. Where an edit fails, makers of the frontier are pulled in before it is refused: what they make may be all that
it needs to be right.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import ModelProto, TensorProto, ValueInfoProto

from optimizer.core.edit import Editor, Evidence, Fidelity, Proposal
from optimizer.core.errors import BadInput, EnvironmentNotAsAsked, ToolFailure
from optimizer.core.graph import Model, Value
from optimizer.core.model import to_proto, write
from optimizer.core.tensor import Tensor
from optimizer.core.text import safe
from optimizer.measure.compare import Difference, compare
from optimizer.measure.noise import nudge
from optimizer.measure.window import (
    AFTER,
    BEFORE,
    REGIMES,
    SPECIAL,
    STRESS,
    WITNESS,
    CannotCut,
    Draft,
    Window,
    as_double,
    bindings,
    doubled,
    draft,
    draw,
    larger,
    readers,
)
from optimizer.runtime.feeds import draw as drawn_feed
from optimizer.runtime.feeds import find_bindings
from optimizer.runtime.interface import read_interface
from optimizer.runtime.session import Session, SessionError, available, open_session

if TYPE_CHECKING:
    from optimizer.core.tensor import Array

LIMITS = {"float64": 1e-12, "float32": 1e-5, "float16": 5e-3, "bfloat16": 4e-2}
"""The error, of scale, up to which the new side counts as equal; beyond it, 8 times the old side's own error."""
ALGEBRA = {"float64": 1e-12, "float32": 2e-6, "float16": 4e-3, "bfloat16": 3e-2}
"""The error up to which the sides are equal over the reals: a literal's last place, since √2 is stored as 1.4142135."""
_FLOORS = 8
_NUDGES = 4
_STEPS = 4  # how many times the makers of the frontier are pulled in before an edit is refused
_MANY = 1 << 18  # numbers a run, above which only some regimes are run
_DOUBLED = 1 << 21  # numbers a run, above which nothing is run in double
_BROKEN = 1e-2  # where the old side's own error is larger, it overflowed: such data says nothing


class _CannotRun(Exception):
    """A judge does not run a side; `lacks` says that it has no kernel, so that nothing follows."""

    def __init__(self, why: str, *, lacks: bool = False) -> None:
        super().__init__(why)
        self.lacks = lacks


class Runs:
    """Both sides of a window, ready to run by both judges. A context: its files go at the end."""

    def __init__(self, window: Window) -> None:
        self.window = window
        self._folder = Path(tempfile.mkdtemp(prefix="graphwright-window-"))
        self._sessions: dict[int, Session | SessionError] = {}
        self._references: dict[tuple[int, bool], Any] = {}

    def __enter__(self) -> Runs:
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, trace: TracebackType | None) -> None:
        self._sessions.clear()
        shutil.rmtree(self._folder, ignore_errors=True)

    def runtime(self, side: int, feed: Mapping[str, Array]) -> list[Any]:
        """The outputs by ONNX Runtime, optimizations off.

        Raises:
            _CannotRun: it does not load or run.
        """
        try:
            outputs = self._session(side).run({**feed, **self.window.fed})
        except SessionError as e:
            raise _CannotRun(e.what, lacks="NOT_IMPLEMENTED" in e.what) from e
        return list(outputs.values())

    def _session(self, side: int) -> Session:
        found = self._sessions.get(side)
        if found is None:
            path = self._folder / f"{side}.onnx"
            path.write_bytes(self.window.sides[side].SerializeToString())
            try:
                found = open_session(path, optimize=False)
            except SessionError as e:
                found = e
            self._sessions[side] = found
        if isinstance(found, SessionError):
            raise found
        return found

    def reference(self, side: int, feed: Mapping[str, Array], *, double: bool = True) -> list[Any]:
        """The outputs by onnx.reference, every float in double or as it is.

        Raises:
            _CannotRun: it does not load or run.
        """
        from onnx.reference import ReferenceEvaluator

        given = {**feed, **self.window.fed}
        try:
            if (side, double) not in self._references:
                model = self.window.sides[side]
                self._references[side, double] = ReferenceEvaluator(doubled(model) if double else model)
            if double:
                given = {k: as_double(x) for k, x in given.items()}
            with np.errstate(all="ignore"):
                outputs = self._references[side, double].run(None, given)
        except Exception as e:  # whatever a reference operator raises
            raise _CannotRun(f"onnx.reference: {e}") from e
        return [np.asarray(x) if not isinstance(x, (list, dict)) else x for x in outputs]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found of a window.

    Fields:
        evidence: WINDOW: both judges ran it · SAMPLED: one did · NONE: none did.
        why: how it is refuted, or "".
        feed: the data that refutes it.
        doubt: why it was not run, or "".
    """

    evidence: Evidence
    why: str = ""
    feed: Mapping[str, Any] = field(default_factory=dict[str, Any])
    doubt: str = ""


def judge(window: Window, given: Mapping[str, Array] | None = None) -> Verdict:
    """Run both sides of a window on drawn data (or on `given` alone) and compare their outputs."""
    if window.is_random:
        return Verdict(Evidence.NONE, doubt="it draws numbers")
    with Runs(window) as runs:
        judging = _Judging(window, runs)
        if given is not None:
            return judging.verdict([("given", given)])
        verdict = judging.verdict(_schedule(window, bindings(window)))
        if verdict.doubt and window.symbols:
            verdict = judging.verdict(_schedule(window, larger(window)))
        return verdict


def _schedule(window: Window, sizes: Sequence[Mapping[str, int]]) -> Iterator[tuple[str, Mapping[str, Array]]]:
    """Regime and feed: all regimes at the first sizes, and what they can do at the others."""
    exact = window.fidelity is Fidelity.EXACT
    if not window.ports:
        yield "normal", {}
        return
    for k, binding in enumerate(sizes):
        few = window.numbers(binding) > _MANY
        some = ("normal", "wide", "zeros") if few and k == 0 else ("normal",) if few else REGIMES
        for regime in (*some, SPECIAL) if exact and not k else some:
            yield regime, draw(window, binding, regime, k)


class _Judging:
    def __init__(self, window: Window, runs: Runs) -> None:
        self.window, self.runs = window, runs
        self.exact = window.fidelity is Fidelity.EXACT
        self.limit = 0.0 if self.exact else LIMITS[window.precision]
        self.ran = Counter[str]()
        self.doubt = ""

    def verdict(self, feeds: Iterable[tuple[str, Mapping[str, Array]]]) -> Verdict:
        for regime, feed in feeds:
            try:
                if len(self.window.sides) > WITNESS:
                    self.runs.runtime(WITNESS, feed)
                old = self.runs.runtime(BEFORE, feed)
            except _CannotRun as e:
                self.doubt = self.doubt or str(e)
                if e.lacks:
                    self._refer(feed, regime, None, None)
                continue
            try:
                new = self.runs.runtime(AFTER, feed)
            except _CannotRun as e:
                if e.lacks:
                    self.doubt = self.doubt or str(e)
                    continue
                return self._guilty(f"the new side does not run where the old one does: {e}", feed)
            self.ran["runtime"] += 1
            found = self._worst(old, new, self.limit)
            why = ""
            if found.error > self.limit:
                why = self._accuse(feed, regime, old, new, found)
            elif self._is_doubled(feed, regime):
                why = self._refer(feed, regime, old, new) or self._narrowed(feed, regime, old)
            if why:
                return self._guilty(why, feed)
        kinds = self.ran.keys() & {"runtime", "reference"}
        evidence = Evidence.WINDOW if len(kinds) == 2 or (self.exact and "runtime" in kinds) else Evidence.SAMPLED
        if not kinds:
            return Verdict(Evidence.NONE, doubt=self.doubt or "no data that the old side takes was found")
        return Verdict(evidence)

    def _guilty(self, why: str, feed: Mapping[str, Array]) -> Verdict:
        return Verdict(Evidence.NONE, why, feed)

    def _is_doubled(self, feed: Mapping[str, Array], regime: str) -> bool:
        """Whether the algebra is checked in double on this data: some of it, for onnx.reference is slow."""
        w = self.window
        if self.exact or w.precision == "float64" or sum(x.size for x in feed.values()) > _DOUBLED:
            return False
        return regime in ("normal", "wide") and self.ran["reference"] < 3

    def _worst(self, a: list[Any], b: list[Any], limit: float) -> Difference:
        each = [compare(x, y, limit, finite_only=not self.exact) for x, y in zip(a, b, strict=True)]
        return max(each, key=lambda d: d.error, default=Difference())

    def _apart(self, a: list[Any], b: list[Any]) -> float:
        """The error between what two judges computed, whatever their dtypes."""
        worst = 0.0
        for x, y in zip(a, b, strict=True):
            if isinstance(x, np.ndarray) and isinstance(y, np.ndarray) and x.dtype.kind not in "OUS":
                x, y = (z if z.dtype.kind == "c" else z.astype(np.float64) for z in (x, y))
            worst = max(worst, compare(x, y, finite_only=True).error)
        return worst

    def _refer(self, feed: Mapping[str, Array], regime: str, old: list[Any] | None, new: list[Any] | None) -> str:
        """How the sides differ over the reals, or "": only where the runtime's answers bear it out."""
        true = self._true(feed)
        if true is None:
            return ""
        self.ran["reference"] += 1
        error = self._apart(*true)
        if error <= ALGEBRA[self.window.precision] or old is None or new is None:
            return ""
        if max(self._apart(true[0], old), self._apart(true[1], new)) > error / 4:
            return ""  # onnx.reference is wrong, or the dtype hides it
        if error <= _FLOORS * self._floor(feed, double=True):
            return ""
        return f"the sides differ by {error:.1e} of scale in double ({regime} data)"

    def _narrowed(self, feed: Mapping[str, Array], regime: str, old: list[Any]) -> str:
        """How coarser floats on the new side show, which the runtime computes in float32 all the same, or ""."""
        if not self.window.narrows:
            return ""
        try:
            mine, theirs = (self.runs.reference(side, feed, double=False) for side in (BEFORE, AFTER))
        except _CannotRun:
            return ""
        error = self._apart(old, theirs)
        if error <= max(self.limit, _FLOORS * self._apart(old, mine)):
            return ""
        return f"the new side computes in coarser floats, {error:.1e} of scale ({regime} data)"

    def _true(self, feed: Mapping[str, Array]) -> tuple[list[Any], list[Any]] | None:
        try:
            return self.runs.reference(BEFORE, feed), self.runs.reference(AFTER, feed)
        except _CannotRun as e:
            self.doubt = self.doubt or str(e)
            return None

    def _accuse(self, feed: Mapping[str, Array], regime: str, old: list[Any], new: list[Any], found: Difference) -> str:
        """Why the difference that the runtime shows is a mistake, or "" where it is none."""
        what = found.what or f"{found.original} became {found.result}, {found.error:.1e} of scale"
        said = f"{what} at {list(found.index)} ({regime} data)"
        if self.exact:
            return "" if self._agree_elsewhere(feed) else said
        true = self._true(feed)
        if true is not None:
            self.ran["reference"] += 1
            doubt, error = self._apart(true[0], old), self._apart(*true)
            if doubt > _BROKEN and regime in STRESS:
                return ""
            if doubt <= _BROKEN and error <= ALGEBRA[self.window.precision]:
                mine = self._apart(true[0], new)
                return said if mine > max(self.limit, _FLOORS * doubt) and not self._is_unsteady(feed, found) else ""
            if regime == "grid" and max(doubt, self._apart(true[1], new)) <= error / 4:
                return said  # on ties whatever is moved jumps, which excuses nothing that both judges see
        return "" if self._is_unsteady(feed, found) else said

    def _is_unsteady(self, feed: Mapping[str, Array], found: Difference) -> bool:
        """Whether the old side is as far from itself when its floats move in their last place."""
        return not found.what and found.error <= _FLOORS * self._floor(feed)

    def _floor(self, feed: Mapping[str, Array], *, double: bool = False) -> float:
        run = self.runs.reference if double else self.runs.runtime
        rng = np.random.default_rng(0)
        worst = 0.0
        try:
            still = run(BEFORE, feed)
            for _ in range(_NUDGES):
                moved = run(BEFORE, {k: nudge(x, rng) for k, x in feed.items()})
                worst = max(worst, self._apart(still, moved))
        except _CannotRun:
            pass
        return worst

    def _agree_elsewhere(self, feed: Mapping[str, Array]) -> bool:
        """Whether onnx.reference, in the model's own dtypes, gives equal bits on both sides."""
        try:
            old, new = (self.runs.reference(side, feed, double=False) for side in (BEFORE, AFTER))
        except _CannotRun:
            return False
        return self._worst(old, new, 0.0).error == 0.0


def in_context(model: Model, window: Window) -> Verdict | None:
    """What the window shows on what it stands on in the whole model, where that runs to its end; None: it does not run.

    The last word on an edit that its window refutes, where no more of the model could be run to say whether the data
    that refutes it is some that the model takes.
    """
    try:
        proto = to_proto(model)
    except ToolFailure:
        return None
    names = {p.name: window.names[p.name] for p in window.ports}
    known = {o.name for o in proto.graph.output} | {i.name for i in proto.graph.input}
    proto.graph.output.extend(ValueInfoProto(name=n) for n in names.values() if n not in known)
    with tempfile.TemporaryDirectory(prefix="graphwright-") as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(proto.SerializeToString())
        try:
            session, interface = open_session(path, optimize=False), read_interface(path)
        except BadInput:
            return None
        seen: list[dict[str, Any]] = []

        def runs(binding: Mapping[str, int], regime: str = "normal") -> bool:
            feed = drawn_feed(interface, binding, np.random.default_rng(0), regime)
            try:
                seen.append({**feed, **session.run(feed)})
            except BadInput:
                return False
            return True

        try:
            for binding in find_bindings(interface, runs):
                for regime in ("unit", "wide", "zeros"):
                    runs(binding, regime)
        except BadInput:
            return None
    for values in seen:
        verdict = judge(window, {k: values[n] for k, n in names.items()})
        if verdict.why:
            return None
    return Verdict(Evidence.SAMPLED) if seen else None


def shrink(window: Window, feed: Mapping[str, Array]) -> tuple[Window, dict[str, Array]]:
    """A smaller window that the feed still refutes: what both sides share, and makers of integers, become inputs."""
    feed = dict(feed)
    for name in _cuttable(window):
        try:
            values = _values_of(window, [name], feed)
            smaller = window.given(name, values[name])
        except (_CannotRun, KeyError):
            continue
        fewer = {p.name: {**feed, **values}[p.name] for p in smaller.ports}
        if judge(smaller, fewer).why:
            window, feed = smaller, fewer
    return window, feed


def _cuttable(window: Window) -> list[str]:
    """Values of the old side, the last first, that may be given rather than computed without making the claim empty."""
    old, new = (m.graph for m in window.sides[:2])
    shared = {n.SerializeToString(deterministic=True) for n in new.node}
    named = {n.input[0] for n in old.node if n.output[0] in window.outputs}
    return [
        o
        for n in reversed(old.node)
        for o in n.output
        if o and o not in named and (n.SerializeToString(deterministic=True) in shared or o in window.integers)
    ]


def _values_of(window: Window, names: Sequence[str], feed: Mapping[str, Array]) -> dict[str, Array]:
    model = ModelProto()
    model.CopyFrom(window.sides[BEFORE])
    del model.graph.output[:]
    for name in names:
        model.graph.output.add(name=name)
    with Runs(replace(window, sides=(model, *window.sides[AFTER:]))) as runs:
        return dict(zip(names, runs.runtime(BEFORE, feed)))


# ── the gate ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Refusal:
    """An edit that does not hold: the rule, the node it replaced, why, and where its reproducer lies."""

    id: int
    rule: str
    node: str
    why: str
    folder: Path | None

    def __str__(self) -> str:
        where = f"; reproducer in {self.folder}" if self.folder is not None else ""
        return f"rule {self.rule} was refused at {safe(self.node)}: {self.why}{where}"


class Verifier:
    """A gate that runs each edit on its window, once per distinct window, and refuses those that do not hold.

    Args:
        folder: where reproducers of refused edits go, or None.

    Attributes:
        asked, ran: edits that were asked about; windows that were run.
        seconds: spent here.
        refused: one entry a rule and node.
        doubts: why windows were not run → how many.

    Raises:
        EnvironmentNotAsAsked: no runtime is installed.
    """

    def __init__(self, folder: Path | None = None) -> None:
        if available() is None:
            raise EnvironmentNotAsAsked(
                "no runtime is installed to verify edits with", fix="pip install 'graphwright[cpu]'"
            )
        self.folder = folder
        self.asked = self.ran = 0
        self.seconds = 0.0
        self.refused: list[Refusal] = []
        self.doubts = Counter[str]()
        self.evidence: dict[int, Evidence] = {}
        self._known: dict[bytes, Verdict] = {}
        self._told: set[tuple[str, str]] = set()

    def __call__(self, editor: Editor, p: Proposal) -> str | None:
        began = time.perf_counter()
        try:
            return self._ask(editor, p)
        finally:
            self.seconds += time.perf_counter() - began

    def stamp(self, editor: Editor) -> None:
        """Write the evidence onto the committed edits."""
        for k, e in enumerate(editor.log):
            found = self.evidence.get(e.id)
            if found is not None and found is not e.evidence:
                editor.log[k] = e._replace(evidence=found)

    def to_dict(self) -> dict[str, Any]:
        """The receipt's "verified"."""
        return {
            "summary": self.summary(),
            "edits": self.asked,
            "windows": self.ran,
            "seconds": round(self.seconds, 6),
            "doubts": dict(self.doubts.most_common(16)),
            "refused": [
                {"rule": r.rule, "node": r.node, "why": r.why, "folder": str(r.folder) if r.folder else None}
                for r in self.refused
            ],
        }

    def summary(self) -> str:
        """`575 edits, 9 distinct windows run, none refused`."""
        refused = f"{len(self.refused)} refused" if self.refused else "none refused"
        doubts = f", {self.doubts.total()} could not be run" if self.doubts else ""
        return f"{self.asked} edits, {self.ran} distinct windows run{doubts}, {refused}    {self.seconds:.2f} s"

    def _ask(self, editor: Editor, p: Proposal) -> str | None:
        self.asked += 1
        self.evidence.pop(p.id, None)
        if p.graph.model is not editor.model:
            return self._whole(editor, p)
        if not p.equal:
            return None  # nothing is claimed: what nobody reads goes
        pairs = [(a, b) for a, b in p.equal if not _same_constant(a, b)]
        if not pairs:
            self.evidence[p.id] = Evidence.WINDOW
            return None
        window, verdict = self._look(editor, p._replace(equal=tuple(pairs)))
        if window is not None and verdict.why:
            return self._refuse(p, window, verdict)
        if verdict.doubt:
            self.doubts[verdict.doubt] += 1
        if verdict.evidence is not Evidence.NONE:
            self.evidence[p.id] = verdict.evidence
        return None

    def _look(self, editor: Editor, p: Proposal) -> tuple[Window | None, Verdict]:
        """The smallest window on which the edit holds, else the smallest on which it does not."""
        guilty: tuple[Window, Verdict] | None = None
        doubt, borne_out = Verdict(Evidence.NONE), False
        for deeper in range(_STEPS + 1):
            try:
                drafted = draft(editor.model, p, editor.fidelity, deeper)
            except CannotCut as e:
                doubt = Verdict(Evidence.NONE, doubt=doubt.doubt or str(e))
                continue
            verdict = self._verdict(drafted)
            if verdict.evidence is not Evidence.NONE:
                return None, verdict
            if verdict.why:
                window = drafted.window()
                guilty = guilty or (window, verdict)
                borne_out = borne_out or len(window.sides) > WITNESS or (deeper > 0 and not readers(p, 1))
            else:
                doubt = verdict
            if guilty is None and deeper:
                break
        if guilty is not None and not borne_out and p.graph.owner is None:
            self.ran += 1
            if (verdict := in_context(editor.model, guilty[0])) is not None:
                return guilty[0], verdict
        return guilty or (None, doubt)

    def _verdict(self, drafted: Draft) -> Verdict:
        if drafted.key not in self._known:
            self.ran += 1
            self._known[drafted.key] = judge(drafted.window())
        return self._known[drafted.key]

    def _refuse(self, p: Proposal, window: Window, verdict: Verdict) -> str:
        at = next((n.name or n.op for n in p.gone), p.equal[0][0].name)
        if (p.rule, at) not in self._told:
            self._told.add((p.rule, at))
            folder = None
            if self.folder is not None:
                folder = self.folder / f"{len(self.refused) + 1}-{p.rule}"
                reproduce(folder, window, verdict)
            self.refused.append(Refusal(p.id, p.rule, at, verdict.why, folder))
        return f"does not hold: {verdict.why}"

    def _whole(self, editor: Editor, p: Proposal) -> str | None:
        """An edit that hands over another model: both are judged, whole."""
        from optimizer.measure.accuracy import validate

        with tempfile.TemporaryDirectory(prefix="graphwright-") as folder:
            paths = [Path(folder) / name for name in ("before.onnx", "after.onnx")]
            for model, path in zip((editor.model, p.graph.model), paths):
                write(model, path)
            found = validate(*paths, lossy=editor.fidelity is Fidelity.LOSSY)
            if found.verdict == "pass":
                self.evidence[p.id] = Evidence.SAMPLED
            if found.verdict != "fail":
                return None
            why = " ".join(str(found).splitlines()[0].split())
            kept = None
            if self.folder is not None:
                kept = self.folder / f"{len(self.refused) + 1}-{p.rule.replace(':', '-')}"
                kept.mkdir(parents=True, exist_ok=True)
                for path in Path(folder).iterdir():
                    shutil.copy(path, kept / path.name)
                (kept / "README").write_text(f"graphwright validate before.onnx after.onnx\n{found}\n")
        self.refused.append(Refusal(p.id, p.rule, "the whole model", why, kept))
        return f"does not hold: {why}"


def _same_constant(a: Value, b: Value) -> bool:
    """Whether both are constants of one dtype, shape and bits."""
    x, y = _constant(a), b.tensor if not b.is_input else None
    if x is None or y is None or x.dtype != y.dtype or x.shape != y.shape:
        return False
    return x is y or _bits(x) == _bits(y)


def _constant(v: Value) -> Tensor | None:
    if v.is_input:
        return None
    if v.tensor is not None:
        return v.tensor
    n = v.producer
    value = n.attributes.get("value") if n is not None and n.op == "Constant" and not n.domain else None
    return value if isinstance(value, Tensor) else None


def _bits(t: Tensor) -> bytes:
    x = t.numpy()
    return repr(x.tolist()).encode() if t.dtype == TensorProto.STRING else x.tobytes()


def reproduce(folder: Path, window: Window, verdict: Verdict) -> None:
    """Write the two sides of a window, the data that tells them apart, and how to see it, into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for side, name in ((BEFORE, "before.onnx"), (AFTER, "after.onnx")):
        (folder / name).write_bytes(window.stored(side).SerializeToString())
    arrays: dict[str, Any] = {k: np.asarray(x) for k, x in verdict.feed.items()}
    if arrays:
        np.savez(folder / "feeds.npz", **arrays)
    where = "\n".join(f"  {k} is {v}" for k, v in window.names.items() if v)
    (folder / "README").write_text(
        f"{window.rule}: {verdict.why}\n\n"
        f"graphwright validate before.onnx after.onnx{' --feeds feeds.npz' if arrays else ''}\n\n"
        f"The values of the model that the window was cut from:\n{where}\n",
        encoding="utf-8",
    )
