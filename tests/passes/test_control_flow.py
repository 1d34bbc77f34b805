"""Random models with branches, loops, captures and shared constants through -O2: the same answers, and undone the same."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from answers import CannotRun, Runner, differ, differ_all, interface
from core.random_models import random_model, runnable
from watched import Watched, valid

from optimizer.core.edit import Editor
from optimizer.core.graph import lower
from optimizer.core.model import read
from optimizer.driver import pipeline, recipe
from optimizer.driver.presets import LEVELS

STEPS = recipe.parse(LEVELS[2])


def told(seed: int, decided: bool) -> bool:
    """Assert that one model keeps its answers; whether it ran. `decided`: its condition is a constant."""
    model, feeds = random_model(seed)
    if decided:
        condition = onnx.numpy_helper.from_array(feeds.pop("p"), "p")
        model.graph.initializer.append(condition)
        kept = [i for i in model.graph.input if i.name != "p"]
        del model.graph.input[:]
        model.graph.input.extend(kept)
    editor = Watched(read(model), checker=False)
    pipeline.run(editor, STEPS)
    after = lower(editor.model)
    assert interface(after) == interface(model)
    again = Editor(read(after))
    pipeline.run(again, STEPS)
    assert lower(again.model) == after, f"seed {seed}: a second run found {[e.rule for e in again.log]}"
    editor.undo_all()
    own = model, after
    try:
        run = Runner(model)
    except CannotRun:  # a body hands out a captured value
        own = runnable(model), runnable(after)
        run = Runner(own[0])
    try:
        want = run(feeds)
    except CannotRun:
        return False
    why = differ_all(want, Runner(own[1])(feeds), 64.0)
    assert not why, f"seed {seed}: {why}"
    return True


def test_a_name_that_shadows_an_outer_one_gets_its_own() -> None:
    """ONNX forbids it and files have it; the nearest maker counts, as in every language with scopes."""
    text = """<ir_version: 11, opset_import: ["": 23]>
    g (bool c, float[N] x) => (float[N] y) {
      a = Exp(x)
      z = If(c) <
        then_branch = t () => (float[N] p) { a = Neg(x)  p = Abs(a) },
        else_branch = e () => (float[N] q) { b = Neg(a)  q = Abs(b) }
      >
      y = Add(z, a)
    }"""
    editor = Watched(read(onnx.parser.parse_model(text)), checker=False)
    pipeline.run(editor, STEPS)
    after = lower(editor.model)
    valid(after, "at the end")
    x = np.asarray([1, -2, 3], np.float32)
    for c in (True, False):
        (got,) = Runner(after)({"c": np.asarray(c), "x": x})
        assert not differ(np.exp(x) + (np.abs(x) if c else np.exp(x)), got, 2.0)
    editor.undo_all()


@pytest.mark.parametrize("decided", [False, True])
def test_random_models(decided: bool) -> None:
    assert sum(told(seed, decided) for seed in (*range(80), 220)) > 60


@pytest.mark.slow
@pytest.mark.parametrize("decided", [False, True])
def test_many_random_models(decided: bool) -> None:
    assert sum(told(seed, decided) for seed in range(1000, 3000)) > 1_600
