"""Laws over the whole catalog: every golden and what becomes of it when things in it change, every rule alone and -O2.

By our own comparison: the same answers, every claimed pair equal, the interface kept, a second run without edits, undo
to the same bytes, and a potential that falls: no edit makes more nodes than go.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from random import Random

import pytest
from answers import ON, REGIMES, CannotRun, Feeds, Runner, bindings, differ_all, exposing, feeds, interface
from fuzz.judge import Illegal, Original
from fuzz.mutate import mutate
from fuzz.splice import complete
from goldens import Golden, apply, goldens
from onnx import ModelProto, TensorProto, numpy_helper
from watched import Watched, valid

from optimizer.core.edit import Edit, Editor, Fidelity
from optimizer.core.graph import Node, lower
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


# ── the goldens as samplers ───────────────────────────────────────────────────────────────────────────────────────────

VARIANTS = 6


def variants(golden: Golden) -> Iterator[tuple[str, Original]]:
    """The golden with other weights, types, sizes and spellings; every second one with one thing wrong as well."""
    for k in range(VARIANTS):
        random = Random(f"{golden} {k}")
        model = ModelProto.FromString(golden.before.SerializeToString())
        done = mutate(model, random, spellings=random.choice((1, 2, 3)), flaws=k % 2)
        if not complete(model):
            continue
        with suppress(Illegal):
            yield " ".join(done), Original(model, k, may_refer=True)


def nodes(some: tuple[Node, ...]) -> int:
    """These nodes and those in their bodies."""
    return len(some) + sum(nodes(tuple(b)) for n in some for b in n.bodies)


def falls(e: Edit) -> bool:
    """Whether the edit makes no more nodes than go: a call's body is not known until it is inlined."""
    return e.rule == "inline_function" or nodes(e.new) <= nodes(e.gone)


@pytest.mark.parametrize("golden", CHANGED, ids=str)
def test_variants_keep_the_laws(golden: Golden) -> None:
    for done, original in variants(golden):
        editor = Watched(read(original.model), checker=False)
        apply(golden.rule, editor)
        result = lower(editor.model)
        told = original.compare(result, exact=exact(editor))
        assert not told, f"{done}: {told}"
        for c in editor.commits:
            assert falls(c.edit), f"{done}: edit {c.edit.id} of {c.edit.rule} makes more nodes than go"
            if c.edit.scope or any(v.type is not None for v, _ in c.edit.equal):
                continue  # a value of a body cannot be made an output; the model's own outputs tell of it
            for (old, new), (value, _) in zip(c.edit.names, c.edit.equal):
                try:
                    before = Original(exposing(ModelProto.FromString(c.before), old, value.dtype), 0, may_refer=True)
                except Illegal:
                    continue
                after = exposing(ModelProto.FromString(c.after), new, value.dtype)
                told = before.differs(after, exact=c.edit.fidelity is Fidelity.EXACT)
                assert not told, f"{done}: edit {c.edit.id}, {old} → {new}: {told}"
        again = Editor(read(result))
        assert apply(golden.rule, again) == 0, f"{done}: a second run found {[e.rule for e in again.log]}"
        editor.undo_all()


def test_variants_fire_and_differ() -> None:
    """Most variants are legal, and the rules fire on more than half of them."""
    legal = fired = 0
    for golden in Random(7).sample(CHANGED, 40):
        for _, original in variants(golden):
            legal += 1
            fired += apply(golden.rule, Editor(read(original.model))) > 0
    assert legal > 0.6 * 40 * VARIANTS and fired > 0.5 * legal
