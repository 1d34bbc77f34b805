"""Laws over the whole catalog: every golden, every rule alone and the whole -O2, by our own comparison."""

from __future__ import annotations

from contextlib import suppress
from functools import lru_cache

import pytest
from answers import ON, REGIMES, CannotRun, Feeds, Runner, bindings, differ_all, exposing, feeds, interface
from goldens import Golden, apply, goldens
from onnx import ModelProto, TensorProto, numpy_helper
from watched import Watched, valid

from optimizer.core.edit import Editor, Fidelity
from optimizer.core.graph import lower
from optimizer.core.model import read
from optimizer.driver import pipeline, recipe
from optimizer.driver.presets import LEVELS

ROUNDING = 64.0  # last places of the largest value: a reassociated sum of a few dozen terms
CHANGED = [g for g in goldens() if g.after is not None]


@lru_cache(None)
def _feeds(proto: bytes) -> tuple[list[tuple[str, Feeds]], list[list[object]], bool]:
    """What the original is fed and what it answers, wherever it is defined; whether onnx.reference had to."""
    model = ModelProto.FromString(proto)
    run = Runner(model, may_refer=True)
    given: list[tuple[str, Feeds]] = []
    answers: list[list[object]] = []
    why = ""
    for sizes in bindings(model):
        for k, regime in enumerate(REGIMES):
            x = feeds(model, sizes, regime, 17 + k)
            try:
                answers.append(run(x))
            except CannotRun as e:
                why = str(e)
                continue
            given.append((f"{regime} {sizes}", x))
    assert given, f"the original answers nothing: {why}"
    return given, answers, run.by_reference


def same_answers(before: ModelProto, after: ModelProto, *, exact: bool) -> None:
    """The same answers op by op and as the runtime optimizes it, at every size and regime."""
    given, want, by_reference = _feeds(before.SerializeToString(deterministic=True))
    off = Runner(after, may_refer=by_reference)
    for (name, x), w in zip(given, want):
        told = differ_all(w, off(x), 0.0 if exact else ROUNDING, finite_only=not exact)
        assert not told, f"{name}: {told}"
    if by_reference:
        return
    base, on = Runner(before, ON), Runner(after, ON)
    for (name, x), w in zip(given, want):
        with suppress(CannotRun):  # where the runtime's own rewrites fail on the original
            w = base(x)
        told = differ_all(w, on(x), ROUNDING, finite_only=not exact)
        assert not told, f"{name}, optimizations on: {told}"


def weights(model: ModelProto) -> int:
    """Bytes of the constants of a model, those in bodies and attributes included."""
    tensors: list[TensorProto] = []
    graphs = [model.graph]
    for g in graphs:
        tensors += g.initializer
        for a in (a for n in g.node for a in n.attribute):
            graphs += [a.g, *a.graphs]
            tensors += [a.t, *a.tensors]
    return sum(numpy_helper.to_array(t).nbytes for t in tensors if t.data_type)


def exact(editor: Editor) -> bool:
    return all(e.fidelity is Fidelity.EXACT for e in editor.log)


@pytest.mark.parametrize("golden", CHANGED, ids=str)
def test_rule_keeps_the_answers(golden: Golden) -> None:
    model = read(golden.before)
    editor = Editor(model)
    apply(golden.rule, editor)
    same_answers(golden.before, lower(model), exact=exact(editor))


@pytest.mark.parametrize("golden", CHANGED, ids=str)
def test_every_pair_claimed_equal_is_equal(golden: Golden) -> None:
    editor = Watched(read(golden.before))
    apply(golden.rule, editor)
    given, *_ = _feeds(golden.before.SerializeToString(deterministic=True))
    for c in editor.commits:
        if c.edit.scope:
            continue  # a value of a body cannot be made an output; the model's own outputs tell of it
        for (old, new), (value, _) in zip(c.edit.names, c.edit.equal):
            before = Runner(exposing(ModelProto.FromString(c.before), old, value.dtype), may_refer=True)
            after = Runner(exposing(ModelProto.FromString(c.after), new, value.dtype), may_refer=True)
            rounding = c.edit.fidelity is not Fidelity.EXACT
            for name, x in given:
                told = differ_all(before(x), after(x), ROUNDING if rounding else 0.0, finite_only=rounding)
                assert not told, f"edit {c.edit.id}, {old} → {new}, {name}: {told}"


@pytest.mark.parametrize("golden", CHANGED, ids=str)
def test_rule_keeps_invariants_and_undo_restores(golden: Golden) -> None:
    editor = Watched(read(golden.before))
    apply(golden.rule, editor)
    editor.undo_all()


@pytest.mark.parametrize("golden", goldens(), ids=str)
def test_whole_pipeline_keeps_answers_interface_and_settles(golden: Golden) -> None:
    editor = Watched(read(golden.before))
    steps = recipe.parse(LEVELS[2])
    pipeline.run(editor, steps)
    once = lower(editor.model)
    assert interface(once) == interface(golden.before)
    valid(once, "at the end")
    assert weights(once) <= 1.01 * weights(golden.before) + 512
    same_answers(golden.before, once, exact=exact(editor))
    again = Editor(read(once))
    pipeline.run(again, steps)
    assert lower(again.model) == once, f"a second run found {[e.rule for e in again.log]}"
    editor.undo_all()


@pytest.mark.parametrize("golden", CHANGED, ids=str)
def test_rule_run_again_changes_nothing(golden: Golden) -> None:
    model = read(golden.before)
    apply(golden.rule, Editor(model))
    once = lower(model)
    assert apply(golden.rule, Editor(read(once))) == 0
