"""`graphwright bisect`: the first edit that makes a result bad, by its number in the log, and a model of it alone.

The recipe is deterministic, so the state after edit k is the recipe run again and stopped before edit k + 1, or a later
state undone. What makes a state bad is found once, by judging the whole result; after that only the failing feed and
output are run, or the user's own command.
"""

from __future__ import annotations

import os
import pickle
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from optimizer.core import contract
from optimizer.core import model as file_edge
from optimizer.core.edit import Edit, Editor, Evidence, Proposal
from optimizer.core.errors import BadInput, EnvironmentNotAsAsked, GraphwrightError
from optimizer.core.model import ModelLike
from optimizer.core.rule import Pass
from optimizer.core.target import target as find_target
from optimizer.core.text import safe
from optimizer.driver import catalog, pipeline, recipe
from optimizer.driver.explain import describe_edit
from optimizer.driver.presets import LEVELS
from optimizer.driver.receipt import log_row
from optimizer.measure.accuracy import Validation
from optimizer.measure.verify import Verdict, reproduce
from optimizer.measure.window import CannotCut, Window, cut
from optimizer.runtime import child, session
from optimizer.runtime.card import resolve
from optimizer.runtime.child import ChildDied
from optimizer.runtime.feeds import feeds_source

SCHEMA = "graphwright.culprit/1"
Check = Callable[[Path], bool | None]
"""Whether a candidate is good; None: that cannot be told."""
_FEW_BYTES = 1 << 25  # of a model: up to it, several candidates are written and run at once
_AT_ONCE = 7
_SKIP = 125  # the exit code by which a command says that it cannot tell


@dataclass(frozen=True, slots=True)
class Culprit:
    """What a bisection found.

    Fields:
        verdict: "bad": an edit was found · "good": the whole result is · "inconclusive".
        edits, trials: of the whole run; candidates that were tested, the original and the result not counted.
        edit: the edit as the receipt's log has it, or None.
        what: what is wrong with the result, in words.
        nodes: of the reproducer, before and after, or None.
        folder: where the reproducer lies, or None.
    """

    verdict: str
    edits: int = 0
    trials: int = 0
    edit: Mapping[str, Any] | None = None
    what: str = ""
    nodes: tuple[int, int] | None = None
    folder: Path | None = None
    notes: tuple[str, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict[str, float])

    @property
    def exit_code(self) -> int:
        """0 nothing is bad · 1 an edit was found · 4 inconclusive."""
        return {"good": 0, "bad": 1}.get(self.verdict, 4)

    def to_dict(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "verdict": self.verdict,
            "edits": self.edits,
            "trials": self.trials,
            "edit": self.edit,
            "what": self.what,
            "reproducer": {
                "folder": str(self.folder) if self.folder is not None else None,
                "nodes": list(self.nodes) if self.nodes is not None else None,
            },
            "notes": list(self.notes),
            "seconds": dict(self.seconds),
        }

    def __str__(self) -> str:
        lines: list[str] = []
        if self.verdict == "good":
            lines.append(f"good  nothing is wrong after all {self.edits} edits")
        elif self.edit is not None:
            e = self.edit
            found = f"edit {e['id']}, rule {safe(e['rule'])}, is the first bad one"
            lines.append(f"{found} ({self.trials} trials of {self.edits} edits): {self.what}")
            lines.append(f"      {describe_edit(e)}")
        else:
            lines.append(f"inconclusive  {self.what}")
        if self.nodes is not None:
            sizes = f"{self.nodes[0]} node{'s' * (self.nodes[0] != 1)}, then {self.nodes[1]}"
            where = self.folder if self.folder is not None else "not written: -o DIR"
            lines.append(f"reproducer  {sizes}    {where}")
        lines += [f"note  {n}" for n in self.notes]
        return "\n".join(lines)


def bisect(
    model: ModelLike,
    *,
    level: int = 2,
    passes: str | None = None,
    own: Sequence[Pass] = (),
    without: Sequence[str] = (),
    target: str = "portable",
    check: str | Check | None = None,
    bench: bool = False,
    feeds: Any = None,
    dims: Mapping[str, int] | None = None,
    seeds: int = 3,
    tolerance: float | None = None,
    custom_ops: Sequence[str | os.PathLike[str]] = (),
    out: str | os.PathLike[str] | None = None,
    force: bool = False,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> Culprit:
    """Find the first edit of a recipe that makes the result bad, and shrink the model around it.

    Args:
        model: a path, a card, bytes or a ModelProto; never changed.
        level, passes, without, target: the recipe, as in `optimize`.
        own: passes of yours that `passes` may name.
        check: a command in which `{}` is a candidate's path (exit 0 good, 125 cannot tell, anything else bad), or a
            function of the path; None: the accuracy judge.
        bench: a candidate is bad where it is slower than the original.
        feeds, dims, seeds, tolerance, custom_ops, seed: what the judge draws, as in `validate`.
        out: a folder for the reproducer.
        force: write into a folder that is there already.

    Raises:
        BadInput: the model, the recipe, the command or the folder is not acceptable.
        EnvironmentNotAsAsked: a runtime is needed and none is installed.
    """
    if level not in LEVELS:
        raise BadInput(f"there is no level {level}", fix=f"choose one of {', '.join(f'-O{n}' for n in LEVELS)}")
    if out is not None and Path(out).exists() and not force:
        raise BadInput("the folder for the reproducer exists", at=safe(str(out)), fix="--force writes into it")
    if check is None and session.available() is None:
        raise EnvironmentNotAsAsked("no runtime is installed to judge with", fix="pip install 'graphwright[cpu]'")
    with tempfile.TemporaryDirectory(prefix="graphwright-") as scratch:
        folder = Path(scratch)
        source = resolve(model)
        given = {Path(p).absolute() for p in custom_ops}
        judge = _Judge(
            source.path,
            folder,
            {
                "feeds": feeds_source(feeds, folder),
                "dims": dict(dims or {}),
                "seeds": list(range(seed, seed + seeds)),
                "tolerance": tolerance,
                "lossy": False,
                "custom_ops": sorted(map(str, given)),
                "card": str(source.card.path.absolute()) if source.card is not None else None,
            },
        )
        if bench:
            tester: _Tester = _Bench(source.path)
        elif check is not None:
            tester = _Checked(source.path, _command(check) if isinstance(check, str) else check)
        else:
            tester = judge
        replay = _Replay(
            source.path,
            recipe.parse(LEVELS[level] if passes is None else passes),
            {catalog.check_rule(name) for name in without},
            tuple(own),
            target,
            folder,
        )
        search = _Search(replay, tester, progress or (lambda _: None))
        return search.run(Path(out) if out is not None else None, judge)


def _command(text: str) -> Check:
    words = shlex.split(text)
    if not any("{}" in w for w in words):
        raise BadInput("the command does not say where the candidate goes", at=text, fix="write {} for its path")

    def run(candidate: Path) -> bool | None:
        try:
            done = subprocess.run([w.replace("{}", str(candidate)) for w in words], capture_output=True)
        except OSError as e:
            raise BadInput(f"the command cannot be run: {e.strerror}", at=text, fix="check its path") from e
        return None if done.returncode == _SKIP else done.returncode == 0

    return run


# ── states ────────────────────────────────────────────────────────────────────────────────────────────────────────────


class _Reached(BaseException):
    """The recipe has made as many edits as it was to make; no error, so that nobody who handles errors takes it."""


@dataclass(slots=True)
class _Replay:
    """States of the model by the number of edits made."""

    source: Path
    steps: recipe.Recipe
    without: set[str]
    own: tuple[Pass, ...]
    target: str
    folder: Path
    editor: Editor | None = None

    def run(self, limit: int | None, ask: Callable[[Editor, Proposal], None] | None = None) -> Editor:
        """The recipe from the start, up to `limit` edits; `ask` sees each edit before it is made, the next one too."""

        def gate(editor: Editor, p: Proposal) -> None:
            if ask is not None:
                ask(editor, p)
            if limit is not None and p.id > limit:
                raise _Reached

        self.editor = None
        editor = Editor(file_edge.read(self.source), target=find_target(self.target), gate=gate)
        with suppress(_Reached):
            pipeline.run(editor, self.steps, without=self.without, own=self.own)
        editor.gate = None
        if limit is not None:
            editor.undo(limit)  # what asks no gate: names, inputs
        self.editor = editor
        return editor

    def at(self, k: int) -> Editor:
        """The model after edit k."""
        if self.editor is None or len(self.editor.log) < k:
            return self.run(k)
        self.editor.undo(k)
        return self.editor

    def write(self, k: int) -> Path:
        """The file of the model after edit k."""
        place = self.folder / f"{k}"
        place.mkdir(exist_ok=True)
        return file_edge.write(self.at(k).model, place / "candidate.onnx", force=True)[0]

    def forget(self, k: int) -> None:
        shutil.rmtree(self.folder / f"{k}", ignore_errors=True)


# ── what is bad ───────────────────────────────────────────────────────────────────────────────────────────────────────


class _Tester(Protocol):
    """Tells a bad candidate from a good one, `at_once` of them in one call.

    `whole` says ("good" | "bad" | "inconclusive", what) of the result of the whole recipe; `test` whether each
    candidate is good, up to the first that is not (None: cannot be told).
    """

    at_once: int

    def whole(self, result: Path) -> tuple[str, str]: ...

    def test(self, candidates: Sequence[Path]) -> list[bool | None]: ...


class _Checked:
    """The user's command or function."""

    at_once = 1

    def __init__(self, original: Path, check: Check) -> None:
        self.original, self.check = original, check

    def whole(self, result: Path) -> tuple[str, str]:
        if self.check(result):
            return "good", ""
        first = self.check(self.original)
        if not first:
            said = "cannot judge the original" if first is None else "calls the original bad as well"
            return "inconclusive", f"the check {said}"
        return "bad", "the check calls the result bad"

    def test(self, candidates: Sequence[Path]) -> list[bool | None]:
        return [self.check(c) for c in candidates[:1]]


class _Bench(_Checked):
    """Slower than the original."""

    def __init__(self, original: Path) -> None:
        from optimizer.measure.speed import bench

        def check(candidate: Path) -> bool | None:
            if candidate == original:
                return True
            verdict = bench(original, candidate).verdict
            return None if verdict == "inconclusive" else verdict != "slower"

        super().__init__(original, check)

    def whole(self, result: Path) -> tuple[str, str]:
        found = self.check(result)
        if found is None:
            return "inconclusive", "the bench cannot tell the result from the original"
        return ("good", "") if found else ("bad", "the result is slower than the original")


class _Judge:
    """The accuracy judge: whole once, then one feed and one output."""

    def __init__(self, original: Path, folder: Path, request: Mapping[str, Any]) -> None:
        self.original, self.request = original, request
        self.batch = folder / "batch.pickle"
        small = sum(f.stat().st_size for f in (original, Path(f"{original}.data")) if f.exists()) <= _FEW_BYTES
        self.at_once = _AT_ONCE if small else 1
        self.has_limit = False

    def _validate(self, result: Path, keep: Path | None) -> Validation:
        call: dict[str, Any] = {"original": self.original.absolute(), "result": result, **self.request, "keep": keep}
        try:
            return Validation(**child.call("optimizer.measure.judge:judge", **call))
        except ChildDied as death:
            if not death.stage.startswith("result"):
                raise
            return Validation(verdict="fail", lossy=False, failures=[{"output": None, "what": death.what}])

    def whole(self, result: Path) -> tuple[str, str]:
        found = self._validate(result, self.batch)
        what = " ".join(str(found).splitlines()[0].split()[1:])
        if found.verdict != "fail":
            return ("good" if found.verdict == "pass" else "inconclusive"), what
        failure = next((f for f in found.failures if f["output"] is not None), None)
        if failure is None or not self.batch.exists():
            return "bad", what  # it does not load, does not run, or has another interface
        prepared = child.call(
            "optimizer.measure.suspect:prepare",
            original=self.original.absolute(),
            result=result,
            batch=self.batch,
            custom_ops=self.request["custom_ops"],
            lossy=False,
            **{k: failure[k] for k in ("levels", "regime", "limit")},
        )
        self.has_limit = prepared["limit"] is not None
        return "bad", what

    def test(self, candidates: Sequence[Path]) -> list[bool | None]:
        if not self.has_limit:
            verdict = self._validate(candidates[0], None).verdict
            return [{"pass": True, "fail": False}.get(verdict)]
        try:
            errors: list[float] = child.call(
                "optimizer.measure.suspect:probe",
                candidates=candidates,
                batch=self.batch,
                custom_ops=self.request["custom_ops"],
            )
        except ChildDied as death:
            _, _, at = death.stage.partition("candidate ")
            if not at:
                raise
            return [*[True] * int(at), False]
        limit = pickle.loads(self.batch.read_bytes())["limit"]
        return [e <= limit for e in errors]


# ── the search ────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(slots=True)
class _Search:
    replay: _Replay
    tester: _Tester
    progress: Callable[[str], None]
    trials: int = 0
    skipped: set[int] = field(default_factory=set[int])

    def run(self, out: Path | None, judge: _Judge) -> Culprit:
        log = list(self.replay.run(None).log)
        self.progress(f"judging the result of {len(log)} edits")
        began = time.perf_counter()
        verdict, what = self.tester.whole(self.replay.write(len(log)))
        judged = time.perf_counter()
        self.replay.forget(len(log))
        found = Culprit(verdict, len(log), what=what, seconds={"validation": judged - began})
        if verdict != "bad" or not log:
            return found
        good, bad = self._narrow(0, len(log))
        ended = time.perf_counter()
        seconds = {**found.seconds, "search": ended - judged}
        found = replace(found, trials=self.trials, seconds=seconds)
        if bad - good > 1:
            return replace(
                found,
                verdict="inconclusive",
                what=f"the first bad edit is one of {good + 1} to {bad}; those between cannot be judged",
            )
        edit = log[bad - 1]
        row = log_row(edit)
        self.progress(f"shrinking edit {bad}")
        nodes, folder, notes = self._reproduce(bad, edit, out, judge)
        seconds["reproducer"] = time.perf_counter() - ended
        return replace(found, edit=row, nodes=nodes, folder=folder, notes=notes, seconds=seconds)

    def _narrow(self, good: int, bad: int) -> tuple[int, int]:
        """The last good state and the first bad one, next to each other where nothing between was skipped."""
        while left := [k for k in range(good + 1, bad) if k not in self.skipped]:
            count = min(self.tester.at_once, len(left))
            tried = sorted({left[(i + 1) * len(left) // (count + 1)] for i in range(count)})
            files = {k: self.replay.write(k) for k in reversed(tried)}
            self.progress(f"edits {good + 1} to {bad}")
            answers = self.tester.test([files[k] for k in tried])
            self.trials += len(answers)
            for k, is_good in zip(tried, answers):
                if is_good is None:
                    self.skipped.add(k)
                elif is_good:
                    good = k
                else:
                    bad = k
                    break
            for k in tried:
                self.replay.forget(k)
        return good, bad

    # the reproducer

    def _reproduce(
        self, k: int, edit: Edit, out: Path | None, judge: _Judge
    ) -> tuple[tuple[int, int] | None, Path | None, tuple[str, ...]]:
        place = self.replay.folder / "reproducer"
        windows = self._windows(k)
        if windows and isinstance(self.tester, _Checked):
            return self._checked(windows[0], place, edit, out, self.tester.check)
        report: dict[str, Any] | None = None
        if windows and session.available() is not None:
            saved = self.replay.folder / "windows.pickle"
            saved.write_bytes(pickle.dumps(windows))
            exposed = self._exposed(k - 1, windows) if judge.batch.exists() else None
            try:
                report = child.call(
                    "optimizer.measure.suspect:reduce",
                    windows=saved,
                    folder=place,
                    exposed=exposed,
                    batch=judge.batch if exposed is not None else None,
                    custom_ops=judge.request["custom_ops"],
                )
            except GraphwrightError as e:
                return self._pair(k, edit, out, f"the edit's window could not be run: {e.what}")
        if report is None:
            return self._pair(k, edit, out, "the edit alone shows nothing on its window: it is bad in its place only")
        return tuple(report["nodes"]), self._publish(place, out, edit, report["why"]), ()

    def _checked(
        self, window: Window, place: Path, edit: Edit, out: Path | None, check: Check
    ) -> tuple[tuple[int, int] | None, Path | None, tuple[str, ...]]:
        """The edit's window, which a check that asks for something of the whole model may not tell apart."""
        verdict = Verdict(Evidence.NONE, "the check calls what this edit makes bad")
        reproduce(place, window, verdict)
        tells = bool(check(place / "before.onnx")) and check(place / "after.onnx") is False
        notes = () if tells else ("the check does not tell the edit's window alone from what it becomes",)
        sizes = [len(window.stored(side).graph.node) for side in (0, 1)]
        return (sizes[0], sizes[1]), self._publish(place, out, edit, verdict.why), notes

    def _windows(self, k: int) -> list[Window]:
        found: list[Window] = []

        def ask(editor: Editor, p: Proposal) -> None:
            if p.id != k or not p.equal:
                return
            for deeper in range(3):
                try:
                    found.append(cut(editor.model, p, editor.fidelity, deeper))
                except CannotCut:
                    continue

        self.replay.run(k - 1, ask)
        return found

    def _exposed(self, k: int, windows: Sequence[Window]) -> Path | None:
        """The model after edit k with what the windows stand on as its outputs."""
        model = file_edge.read(self.replay.write(k))
        known = {v.name for n in model.graph for v in n.outputs}
        names = list(dict.fromkeys(n for w in windows for p in w.ports if (n := w.names[p.name]) in known))
        if not names:
            return None
        try:
            contract.extract(model, None, names)
            return file_edge.write(model, self.replay.folder / "exposed.onnx", force=True)[0]
        except GraphwrightError:
            return None

    def _pair(
        self, k: int, edit: Edit, out: Path | None, why: str
    ) -> tuple[tuple[int, int] | None, Path | None, tuple[str, ...]]:
        """The whole model before and after the edit, where no smaller one shows it."""
        place = self.replay.folder / "reproducer"
        place.mkdir(exist_ok=True)
        sizes: list[int] = []
        for state, name in ((k, "after.onnx"), (k - 1, "before.onnx")):
            editor = self.replay.at(state)
            sizes.insert(0, sum(1 for _ in editor.model.nodes()))
            if out is not None:
                file_edge.write(editor.model, place / name, force=True)
        if out is not None:
            (place / "README").write_text(f"{edit.rule}: {why}\n\ngraphwright validate before.onnx after.onnx\n")
        return (sizes[0], sizes[1]), self._publish(place, out, edit, why), (why,)

    def _publish(self, place: Path, out: Path | None, edit: Edit, why: str) -> Path | None:
        if out is None:
            return None
        readme = place / "README"
        text = readme.read_text(encoding="utf-8")
        head = f"The first bad edit of {self.replay.source.name}:\n  {describe_edit(log_row(edit))}\n\n"
        readme.write_text(head + text, encoding="utf-8")
        out.mkdir(parents=True, exist_ok=True)
        for file in place.iterdir():
            shutil.copy(file, out / file.name)
        return out
