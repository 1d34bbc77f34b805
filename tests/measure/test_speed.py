"""Bench says what it measured, and nothing where it measured nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper

from optimizer.core.errors import BadInput, EnvironmentNotAsAsked
from optimizer.measure import speed
from optimizer.measure.speed import Bench, bench, judge, race
from optimizer.runtime.session import available


@pytest.fixture
def products(tmp_path: Path) -> Any:
    """products(n) → a model of n matrix products of one input."""

    def write(n: int, name: str) -> Path:
        steps = "  ".join(f"h{i + 1} = MatMul(h{i}, w)" for i in range(n))
        text = f"""<ir_version: 10, opset_import: ["": 20]>
        g (float[batch, 128] h0) => (float[batch, 128] y) {{ {steps}  y = Relu(h{n}) }}"""
        made = onnx.parser.parse_model(text)
        weight = np.random.default_rng(0).normal(size=(128, 128)).astype("f") / 12
        made.graph.initializer.append(numpy_helper.from_array(weight, "w"))
        onnx.save(made, tmp_path / f"{name}.onnx")
        return tmp_path / f"{name}.onnx"

    return write


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """One process instead of four, where the verdict is not what is tested."""
    monkeypatch.setattr(speed, "_PROCESSES", 1)


def test_half_the_work_is_faster_and_twice_is_slower(products: Any) -> None:
    twice, once = products(24, "twice"), products(12, "once")
    found = bench(twice, once, dims={"batch": 32}, seconds=4, expect=["speed>=1.5", "nodes<=13", "bytes<=0%"])
    assert found.verdict == "faster" and found.exit_code == 0, str(found)
    assert found.speedup is not None and 1.6 < found.speedup < 2.4
    assert found.interval is not None and found.interval[0] <= found.speedup <= found.interval[1]
    assert found.wall_ms[0] > found.wall_ms[1] and found.cpu_ms[0] > found.cpu_ms[1]
    assert found.placement == [{"CPUExecutionProvider": 25}, {"CPUExecutionProvider": 13}]
    assert str(found).startswith("once vs twice   ") and "x faster  [" in str(found) and "batch=32" in str(found)
    other = bench(once, twice, dims={"batch": 32}, seconds=4, expect=["speed>=1.0"])
    assert other.verdict == "slower" and other.exit_code == 1
    assert "x slower  [" in str(other) and "does not hold" in str(other)


def test_the_same_model_is_neither(products: Any) -> None:
    model = products(12, "m")
    assert bench(model, model, seconds=2).verdict in ("same", "inconclusive")


def test_one_model(products: Any, hasty: None) -> None:
    found = bench(products(4, "m"), seconds=1)
    assert found.verdict == "timed" and found.b is None and found.speedup is None and found.exit_code == 0
    assert str(found).startswith("m   ") and "ms wall" in str(found) and "runs, batch=2" in str(found)
    assert bench(products(4, "m"), seconds=1, expect=["speed>=1"]).exit_code == 4


def test_document(products: Any, hasty: None) -> None:
    model = products(2, "m")
    found = json.loads(json.dumps(bench(model, model, seconds=0.5).to_dict(), allow_nan=False))
    assert found["schema"] == "graphwright.bench/1" and found["a"] == found["b"] == "m"
    assert found["binding"] == {"batch": 2} and found["pairs"] >= 3 and len(found["interval"]) == 2


def test_samples_are_pairs_in_random_order(products: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    monkeypatch.setattr(speed.child, "stage", order.append)
    model, other = str(products(2, "m")), str(products(2, "n"))
    found = race(
        models=[model, other],
        provider="cpu",
        options={},
        threads=1,
        dims={},
        feeds=None,
        seconds=0.3,
        seed=0,
        card=None,
    )
    assert len(found["wall"][0]) == len(found["wall"][1]) == len(found["cpu"][0])
    runs = [stage.removeprefix("running ") for stage in order if stage.startswith("running")][1:]
    pairs = list(zip(runs[::2], runs[1::2]))
    assert all({a, b} == {model, other} for a, b in pairs)
    assert {a for a, _ in pairs} == {model, other}, "one of them always went first"


SURE, UNSURE = (1.3, 1.25, 1.35), (1.3, 0.9, 1.9)


@pytest.mark.parametrize(
    ("parts", "whole", "verdict"),
    [
        ([SURE, SURE], SURE, "faster"),
        ([SURE, UNSURE], SURE, "inconclusive"),  # one process does not show it
        ([SURE, SURE], UNSURE, "inconclusive"),
        ([(0.8, 0.7, 0.9)] * 2, (0.8, 0.75, 0.85), "slower"),
        ([(0.8, 0.7, 0.9), (1.0, 0.9, 1.1)], (0.8, 0.75, 0.85), "inconclusive"),
        ([(1.0, 0.9, 1.1)] * 2, (1.0, 0.99, 1.01), "same"),
        ([(1.01, 1.005, 1.015)] * 2, (1.01, 1.005, 1.015), "same"),  # real, and too small to matter
        ([(1.03, 1.01, 1.05)] * 2, (1.03, 1.01, 1.05), "inconclusive"),  # perhaps beyond 2 %, perhaps not
    ],
)
def test_verdict(parts: Any, whole: Any, verdict: str) -> None:
    assert judge(parts, whole) == verdict


def test_verdict_is_symmetric() -> None:
    rng = np.random.default_rng(0)
    opposite = {"faster": "slower", "slower": "faster", "same": "same", "inconclusive": "inconclusive"}
    for _ in range(200):
        middle, width = np.exp(rng.normal(0, 0.05)), np.exp(abs(rng.normal(0, 0.03)))
        one = (middle, middle / width, middle * width)
        other = (1 / one[0], 1 / one[2], 1 / one[1])
        assert judge([other], other) == opposite[judge([one], one)]


def test_screens() -> None:
    faster = Bench(
        a="a", b="b", verdict="faster", speedup=1.63, interval=(1.58, 1.69), wall_ms=[24.1, 14.8], cpu_ms=[24.0, 14.7],
        pairs=60, binding={"batch_size": 1, "sequence_length": 32}, provider="cpu", threads=1, placement=[{}, {}],
    )  # fmt: skip
    assert str(faster) == (
        "b vs a   1.63x faster  [1.58, 1.69]   24.1 → 14.8 ms wall, 24 → 14.7 ms CPU   "
        "60 pairs, batch_size=1 sequence_length=32"
    )
    slower = replace(faster, verdict="slower", speedup=0.5, interval=(0.4, 0.625))
    assert slower.headline() == "2.00x slower  [1.60, 2.50]"
    unknown = replace(faster, verdict="inconclusive", interval=(0.9, 1.9))
    assert unknown.exit_code == 4 and "1.63x inconclusive" in str(unknown)
    there = replace(faster, provider="cuda", placement=[{"CUDAExecutionProvider": 7, "CPUExecutionProvider": 2}, {}])
    assert "placement  a   CUDAExecutionProvider 7 · CPUExecutionProvider 2" in str(there) and "cuda" in str(there)


def test_given_feeds_are_run(products: Any, hasty: None) -> None:
    found = bench(products(1, "m"), feeds={"h0": np.zeros((17, 128), "f")}, seconds=0.5)
    assert found.binding == {"batch": 17}


def test_card_gives_the_sizes(products: Any, hasty: None, tmp_path: Path) -> None:
    products(1, "m")
    (tmp_path / "m.toml").write_text('path = "m.onnx"\nlicence = "MIT"\ndims = [{batch = 9}, {batch = 2}]\n')
    found = bench(tmp_path / "m.toml", seconds=0.5)
    assert found.binding == {"batch": 9} and found.a == "m"
    assert bench(tmp_path / "m.toml", dims={"batch": 4}, seconds=0.5).binding == {"batch": 4}


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"dims": {"bach": 1}}, "did you mean 'batch'"),
        ({"seconds": 0}, "must be positive"),
        ({"expect": ["sped>=1"]}, "did you mean 'speed'"),
        ({"provider": "cdua"}, "did you mean 'cuda'"),
        ({"feeds": {"x": np.ones((1, 128), "f")}}, "no input of the model"),
    ],
)
def test_bad_input(products: Any, wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInput) as caught:
        bench(products(1, "m"), **wrong)
    assert says in str(caught.value)


def test_models_that_take_other_inputs(products: Any, tmp_path: Path) -> None:
    other = onnx.load(products(1, "m"))
    other.graph.input[0].name = other.graph.node[0].input[0] = "renamed"
    with pytest.raises(BadInput, match="the second lacks 'h0' and asks for 'renamed'"):
        bench(products(1, "m"), other, seconds=0.5)


def test_provider_that_does_not_run(products: Any) -> None:
    built = available()
    if built is not None and "CUDAExecutionProvider" in built.providers:
        pytest.skip("this runtime is built with CUDA; test_session simulates the fallback")
    with pytest.raises(EnvironmentNotAsAsked):
        bench(products(1, "m"), provider="cuda", seconds=0.5)


def test_quantize_and_prune_call_a_card_s_model_by_the_card(products: Any, hasty: None, tmp_path: Path) -> None:
    from optimizer.runtime.card import read_card

    (tmp_path / "named.toml").write_text('path = "m.onnx"\nlicence = "MIT"\n')
    m = products(1, "m")
    found = bench(m, products(1, "n"), card=read_card(tmp_path / "named.toml"), seconds=0.5)
    assert (found.a, found.b) == ("named", "n")
