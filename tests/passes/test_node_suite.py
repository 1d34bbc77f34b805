"""onnx's node tests through -O2, as they are, with all inputs constant, and with half of them: 0 wrong, 0 crashes.

Judged by our own comparison in ONNX Runtime, op by op, against what the original answers there; where the two differ,
by what onnx says must come out. What the runtime itself cannot run is counted, with its reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import Any

import numpy as np
import pytest
from answers import CannotRun, Runner, differ_all, interface
from node_suite import NodeCase, all_node_cases
from onnx import ModelProto, TensorProto, numpy_helper
from watched import Watched

from optimizer.core.edit import Editor
from optimizer.core.errors import BadInput
from optimizer.core.graph import lower
from optimizer.core.model import read
from optimizer.driver import pipeline, recipe
from optimizer.driver.presets import LEVELS

STEPS = recipe.parse(LEVELS[2])
SAMPLE = 200
MODES = ("as it is", "all constant", "half constant")


def cases(count: int | None, *, expanded: bool = False) -> list[NodeCase]:
    plain = [c for c in all_node_cases() if ("_expanded" in c.name) == expanded]
    return plain if count is None else Random(2026).sample(plain, count)


def given(case: NodeCase, mode: str) -> tuple[ModelProto, dict[str, Any]]:
    """The model with all, or every second, of its tensor inputs as initializers, and feeds for the rest."""
    model = ModelProto()
    model.CopyFrom(case.model)
    feeds = {i.name: _array(x) for i, x in zip(model.graph.input, case.inputs) if x is not None}
    tensors = [i.name for i in model.graph.input if isinstance(feeds.get(i.name), np.ndarray)]
    fixed = set(tensors[:: 2 if mode == "half constant" else 1]) if mode != "as it is" else set[str]()
    for name in fixed:
        model.graph.initializer.append(numpy_helper.from_array(feeds.pop(name), name))
    inputs = [i for i in model.graph.input if i.name not in fixed]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    return model, feeds


def _array(x: Any) -> Any:
    """What ReferenceEvaluator and the runtime take; onnx hands out some inputs as protos."""
    return numpy_helper.to_array(x) if isinstance(x, TensorProto) else np.asarray(x) if isinstance(x, np.generic) else x


def optimized(model: ModelProto) -> ModelProto:
    """After -O2 under watch; a second run changes nothing, and undoing every edit restores the model."""
    editor = Watched(read(model), checker=False)
    pipeline.run(editor, STEPS)
    once = lower(editor.model)
    if not any(why == "bytes over budget" for _, why in editor.refused):  # a second run has a budget of its own
        again = Editor(read(once))
        pipeline.run(again, STEPS)
        assert lower(again.model) == once, f"a second run found {[e.rule for e in again.log]}"
    editor.undo_all()
    return once


def judge(case: NodeCase, mode: str) -> str:
    """Nothing if all is well, `skipped: …` if the runtime cannot run the original, else what is wrong."""
    model, feeds = given(case, mode)
    try:
        after = optimized(model)
    except BadInput as e:
        return "skipped: opset 1" if "the model uses opset 1," in str(e) else f"refused: {e}"
    except Exception as e:  # whatever it is, it is a crash
        return f"crash: {type(e).__name__}: {str(e)[:300]}"
    if mode == "as it is" and interface(after) != interface(model):
        return "the interface changed"
    try:
        run = Runner(model, may_refer=True)
        want = run(feeds)
    except CannotRun as e:
        return f"skipped: {_reason(e)}"
    try:
        got = Runner(after, may_refer=run.by_reference)(feeds)
    except CannotRun as e:
        return f"does not run any more: {e}"
    told = _differ(want, got)
    if not told or any(_differ(want, run(feeds)) for _ in range(8)):  # the original differs from itself: it draws
        return "" if [_shape(x) for x in want] == [_shape(x) for x in got] else "another shape or type"
    return "" if not _differ([_array(x) for x in case.outputs], got) else told


def _differ(want: Sequence[Any], got: Sequence[Any]) -> str:
    kinds = {np.asarray(x).dtype.itemsize for x in got if isinstance(x, np.ndarray)}
    return differ_all(list(want), list(got), 2.0 if min(kinds, default=8) < 4 else 64.0)


def _shape(x: Any) -> Any:
    return (x.dtype, x.shape) if isinstance(x, np.ndarray) else type(x)


def _reason(e: CannotRun) -> str:
    text = str(e)
    return "no kernel" if "NOT_IMPLEMENTED" in text else text.split(" : ")[-1][:60]


def check(count: int | None, mode: str, *, expanded: bool = False) -> None:
    chosen = cases(count, expanded=expanded)
    told = {c.name: judge(c, mode) for c in chosen}
    skipped = Counter(t for t in told.values() if t.startswith("skipped"))
    wrong = {n: t for n, t in told.items() if t and not t.startswith("skipped")}
    print(f"{mode}: {len(chosen) - skipped.total() - len(wrong)} of {len(chosen)} are right, skipped: {dict(skipped)}")
    assert not wrong, "\n".join(f"{n}: {t}" for n, t in wrong.items())
    assert skipped.total() < len(chosen) / 3


@pytest.mark.parametrize("mode", MODES)
def test_a_sample(mode: str) -> None:
    check(SAMPLE, mode)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_all(mode: str) -> None:
    check(None, mode)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_all_that_are_spelled_out(mode: str) -> None:
    """The same operators as their functions' bodies have them: what the rules look for."""
    check(None, mode, expanded=True)
