"""Noise floors, aimed and extreme data, other executors, golden data, agreement and histograms: what each is there for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper

from optimizer.core.errors import BadInput
from optimizer.measure.accuracy import Validation, validate
from optimizer.measure.compare import Agreement, Histogram
from optimizer.measure.judge import judge
from optimizer.measure.noise import nudge, write_nudged

HEAD = '<ir_version: 10, opset_import: ["": 20]>\n'
SCALED = "g (float[n, 4] x) => (float[n, 4] y) <float k = {K}> { y = Mul(x, k) }"
NAMED = "g (float[batch, 4] x) => (float[batch, 4] y) { y = Relu(x) }"
Judged = Callable[..., Validation]


def save(path: Path, text: str) -> Path:
    onnx.save(onnx.parser.parse_model(HEAD + text), path)
    return path


@pytest.fixture
def judged(tmp_path: Path) -> Judged:
    """judged(original, result, **request) → Validation, run in this process."""

    def run(original: str, result: str, **request: Any) -> Validation:
        paths = [str(save(tmp_path / f"{i}.onnx", text)) for i, text in enumerate((original, result))]
        return Validation(**judge(original=paths[0], result=paths[1], **request))

    return run


# --- the noise floor -------------------------------------------------------------------------------------------------


def test_error_within_the_limit_but_far_above_the_noise_fails(judged: Judged) -> None:
    """A constant's sixth digit: 3e-6 of scale, where the model's own noise is 1e-7."""
    right, wrong = SCALED.replace("K", "1.234567"), SCALED.replace("K", "1.234571")
    validation = judged(right, wrong)
    assert validation.verdict == "fail"
    (failure,) = validation.failures
    assert failure["error"] < 1e-5 and failure["floor"] == pytest.approx(failure["limit"] / 10)
    assert "ten times its noise floor" in str(validation)
    assert judged(right, wrong, tolerance=1e-5).verdict == "pass", "a tolerance that is asked for is what counts"
    assert judged(right, wrong, lossy=True).verdict == "pass"


def test_noise_of_the_weights_counts_too(judged: Judged) -> None:
    """Integers in, so that only the weights can move: 10⁴ + w cancels, and the floor says so."""
    text = """g (int64[n] ids) => (float[n, 2] y) <float[3, 2] w = {1.1, 2.3, -0.7, 0.9, 1.7, -2.1}, float[1] k = {K}>
    { e = Gather(w, ids)  a = Mul(e, k)  y = Sub(a, e) }"""
    moved = text.replace("K", "1.00001")
    validation = judged(moved, text.replace("K", "1.000010133"))
    assert judged(moved, moved).verdict == "pass"
    assert not any(failure["floor"] for failure in validation.failures), str(validation)


def test_nudge_moves_floats_by_one_place_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    x = np.linspace(1, 2, 100).astype("f")
    moved = nudge(x, rng)
    assert 0 < np.max(np.abs(moved - x) / x) <= 2 * np.finfo("f").eps
    assert nudge(np.arange(3), rng).tolist() == [0, 1, 2] and nudge([x], rng)[0] is x
    tiny = np.full(100, 1e-40, "f")
    assert (nudge(tiny, rng) == tiny).all() and (nudge(tiny, rng, denormal=True) != tiny).any()


def test_nudged_weights_are_written_in_every_body(tmp_path: Path) -> None:
    text = """g (float[n] x, bool c) => (float[n] y) <float[4] w = {1, 2, 3, 4}, int64[1] i = {0}>
    { y = If(c) <then_branch = t () => (float[n] p) { k = Constant<value = float[4] {1, 2, 3, 4}>()  s = ReduceSum<keepdims=0>(k)
                 p = Mul(x, s) }, else_branch = e () => (float[n] q) { s = ReduceSum<keepdims=0>(w)  q = Mul(x, s) }> }"""
    write_nudged(str(save(tmp_path / "a.onnx", text)), tmp_path / "b.onnx", np.random.default_rng(3))
    moved = onnx.load(tmp_path / "b.onnx")
    inner = moved.graph.node[0].attribute[0].g.node[0].attribute[0].t
    for tensor in (moved.graph.initializer[0], inner):
        array = numpy_helper.to_array(tensor)
        assert (array != [1, 2, 3, 4]).any() and np.allclose(array, [1, 2, 3, 4], rtol=1e-6)


# --- data ------------------------------------------------------------------------------------------------------------


def test_rows_that_were_spoilt_are_aimed_at(judged: Judged) -> None:
    """One row of 4000: no random batch would meet it."""
    rows = ", ".join(str(i % 97) for i in range(4000))
    text = f"g (int64[n] ids) => (float[n, 1] y) <float[4000, 1] w = {{{rows}}}> {{ y = Gather(w, ids) }}"
    assert judged(text, text).verdict == "pass"
    spoilt = text.replace("{0, 1, 2", "{0, 1, 2", 1)
    values = rows.split(", ")
    values[2345] = "-1"
    assert judged(text, spoilt.replace(rows, ", ".join(values))).verdict == "fail"


EXTREME = {
    "huge": "k = Constant<value_float=65504.0>()  y = Min(x, k)",
    "small": "k = Constant<value_float=0.001>()  z = Constant<value_float=0.0>()  a = Abs(x)  s = Less(a, k)  y = Where(s, z, x)",
    "denormal": "k = Constant<value_float=1e-37>()  z = Constant<value_float=0.0>()  a = Abs(x)  s = Less(a, k)  y = Where(s, z, x)",
}


@pytest.mark.parametrize("regime", EXTREME)
def test_wrong_only_for_extreme_values(judged: Judged, regime: str) -> None:
    right = "g (float[n, 8] x) => (float[n, 8] y) { y = Identity(x) }"
    validation = judged(right, f"g (float[n, 8] x) => (float[n, 8] y) {{ {EXTREME[regime]} }}")
    assert validation.verdict == "fail"


def test_wrong_only_at_the_models_own_constant(judged: Judged) -> None:
    text = "g (float[n, 4] x) => (bool[n, 4] y) <float k = {0.37}> { y = Greater(x, k) }"
    validation = judged(text, text.replace("Greater", "GreaterOrEqual"))
    assert validation.verdict == "fail" and validation.failures[0]["regime"] == "constants"


def test_underflow_inside_the_original_is_no_mistake(judged: Judged) -> None:
    """x·10⁻⁶·10⁶ loses denormals, x does not; that is rounding."""
    long = "g (float[n, 64] x) => (float[n, 64] y) <float k = {1e-6}, float l = {1e6}> { a = Mul(x, k)  y = Mul(a, l) }"
    assert judged(long, "g (float[n, 64] x) => (float[n, 64] y) { y = Identity(x) }").verdict == "pass"


@pytest.mark.parametrize("limit", [12, 40])
def test_wrong_only_for_longer_inputs(judged: Judged, limit: int) -> None:
    text = f"""g (float[n, m] x) => (float[n, m] y) <int64[1] t = {{{limit}}}, float a = {{2}}, float b = {{1}}>
    {{ s = Shape<start=1>(x)  e = Greater(s, t)  k = Where(e, A, b)  y = Mul(x, k) }}"""
    assert judged(text.replace("A", "b"), text.replace("A", "a")).verdict == "fail"


def test_plain_data_is_what_a_failure_is_shown_on(judged: Judged) -> None:
    validation = judged(NAMED, NAMED.replace("Relu", "Abs"))
    assert validation.failures[0]["regime"] == "normal"


# --- executors -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("executor", ["reference", "float64"])
def test_other_executors_judge_too(judged: Judged, executor: str) -> None:
    assert judged(NAMED, NAMED, executor=executor).verdict == "pass"
    validation = judged(NAMED, NAMED.replace("Relu", "Abs"), executor=executor)
    assert validation.verdict == "fail" and "and optimizations on alike" in str(validation)


def test_executors_that_disagree_on_the_original_are_said_to(judged: Judged) -> None:
    """1 + x − 1 in float64 keeps what float32 loses: not the result's doing, whichever it agrees with."""
    text = "g (float[n, 4] x) => (float[n, 4] y) <float k = {4e7}> { a = Add(x, k)  y = Sub(a, k) }"
    same = judged(text, text, executor="float64")
    assert same.verdict == "pass" and any("disagree on output 'y' of the original" in note for note in same.notes)


def test_unknown_executor_is_told_the_near_one(tmp_path: Path) -> None:
    path = save(tmp_path / "a.onnx", NAMED)
    with pytest.raises(BadInput, match="'refrence'") as caught:
        validate(path, path, executor="refrence")
    assert caught.value.fix == "did you mean 'reference'?"


# --- golden data -----------------------------------------------------------------------------------------------------


def test_golden_data_judges_without_the_original(tmp_path: Path) -> None:
    first = save(tmp_path / "a.onnx", NAMED)
    second = save(tmp_path / "b.onnx", NAMED.replace("Relu", "Abs"))
    assert validate(first, first, save_feeds=tmp_path / "gold").verdict == "pass"
    folders = sorted(path.name for path in (tmp_path / "gold").iterdir())
    assert folders[0] == "test_data_set_0" and (tmp_path / "gold" / folders[0] / "output_0.pb").is_file()
    first.unlink()
    again = save(tmp_path / "c.onnx", NAMED)
    assert validate(again, golden=tmp_path / "gold").verdict == "pass"
    failed = validate(second, golden=tmp_path / "gold")
    assert failed.verdict == "fail" and failed.failures[0]["output"] == "y"


def test_golden_data_of_other_names_or_none_is_bad_input(tmp_path: Path) -> None:
    path = save(tmp_path / "a.onnx", NAMED)
    with pytest.raises(BadInput, match="nothing to compare"):
        validate(path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="no test_data_set_N"):
        validate(path, golden=tmp_path / "empty")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("")
    with pytest.raises(BadInput, match="not empty"):
        validate(path, path, save_feeds=tmp_path / "full")
    with pytest.raises(BadInput, match="its own inputs"):
        validate(path, golden=tmp_path / "empty", feeds="random")


# --- how alike -------------------------------------------------------------------------------------------------------


def test_agreement_of_rows() -> None:
    a = np.array([[3.0, 1.0, 0.0], [0.0, 2.0, 1.9]])
    b = np.array([[3.0, 1.0, 0.0], [0.0, 1.9, 2.0]])
    seen = Agreement()
    seen.add(a, b)
    told = seen.to_dict()
    assert told["top1"] == 0.5 and told["top5"] == 1 and told["margin"] == pytest.approx(0.05)
    p, q = (np.exp(z) / np.exp(z).sum(1, keepdims=True) for z in (a, b))
    assert told["kl"] == pytest.approx(float((p * np.log(p / q)).sum(1).mean()))
    assert told["cosine"] == pytest.approx(float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum())))


def test_agreement_takes_distributions_as_they_are_and_leaves_the_rest_out() -> None:
    seen = Agreement()
    seen.add(np.array([[0.5, 0.5]]), np.array([[0.25, 0.75]]))
    assert seen.to_dict()["kl"] == pytest.approx(0.5 * np.log(2) + 0.5 * np.log(0.5 / 0.75))
    for pair in ((np.arange(3), np.arange(3)), (np.ones(2), np.ones(3)), (None, None), (["a"], ["a"])):
        seen.add(*pair)
    seen.add(np.array([[np.nan, 1.0]]), np.array([[1.0, 1.0]]))
    assert seen.rows == 1


def test_lossy_screen_has_the_agreement(judged: Judged) -> None:
    worse = "g (float[batch, 4] x) => (float[batch, 4] y) <float k = {0.1}> { a = Relu(x)  b = Div(a, k)  r = Round(b)  y = Mul(r, k) }"
    validation = judged(NAMED, worse, lossy=True)
    assert "agreement  y: cosine 0.99" in str(validation) and "top-1" in str(validation)
    assert 0.9 < validation.outputs[0]["cosine"] < 1
    assert "cosine" not in judged(NAMED, NAMED).outputs[0]


def test_histogram_counts_by_decade() -> None:
    seen = Histogram()
    seen.add(np.array([1.0, 10.0, 0.0, np.nan, 1.0]), np.array([1.0, 10.5, 1e-3, np.nan, np.inf]))
    assert seen.to_dict() == {"equal": 2, "apart": 1, "decades": {"-4": 1, "-2": 1}}


def test_histogram_is_drawn_when_asked(judged: Judged) -> None:
    wrong = SCALED.replace("K", "1.001")
    validation = judged(SCALED.replace("K", "1"), wrong, histogram=True)
    assert "errors  y, as shares of scale" in str(validation) and "1e-4 #" in str(validation)
    json.dumps(validation.to_dict(), allow_nan=False)
    assert "histogram" not in judged(SCALED.replace("K", "1"), wrong).outputs[0]


def test_smallest_tolerance_that_passes(judged: Judged) -> None:
    pair = SCALED.replace("K", "1"), SCALED.replace("K", "1.01")
    needed = judged(*pair).passes_at
    assert needed == pytest.approx(0.01, rel=1e-3)
    assert (
        judged(*pair, tolerance=needed).verdict == "pass" and judged(*pair, tolerance=0.99 * needed).verdict == "fail"
    )
    assert judged(NAMED, NAMED).passes_at == 0
    lost = "g (float[n, 4] x) => (float y) { y = MatMul(x, x) }"
    assert judged(NAMED, lost.replace("n,", "batch,")).passes_at is None


def test_task_that_cannot_score_the_result_fails_it(tmp_path: Path) -> None:
    save(tmp_path / "m.onnx", "g (float[batch, 4] x) => (float y) { y = ReduceMax<keepdims=1>(x) }")
    wrong = save(tmp_path / "w.onnx", "g (float[batch, 4] x) => (float y) { y = ReduceMax<keepdims=0>(x) }")
    (tmp_path / "m.py").write_text(
        "import numpy as np\ndef score(run):\n    return float(run({'x': np.ones((2, 4), 'f')})['y'][0, 0])\n"
    )
    card = tmp_path / "m.toml"
    card.write_text('path = "m.onnx"\nlicence = "MIT"\ntask = "m.py:score"\n')
    validation = validate(card, wrong)
    assert validation.verdict == "fail" and "the task scores the original, but not the result" in str(validation)
