"""The verb `quantize`: from feeds to integer kernels that are faster, accurate enough, and accounted for."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import optimizer
from optimizer.core.errors import BadInput, EnvironmentNotAsAsked, ValidationFailed
from optimizer.driver import quantize
from optimizer.runtime import session

MODELS = Path(__file__).parents[2] / "models"


def model(opset: int = 17, width: int = 256, loud: float = 0.0) -> onnx.ModelProto:
    """Three products wide enough to gain; `loud`: a bias that the second's input carries and its weight ignores."""
    rng = np.random.default_rng(0)
    w = [rng.normal(size=(width, width)).astype(np.float32) / width**0.5 for _ in range(3)]
    b = [rng.normal(size=width).astype(np.float32) for _ in range(3)]
    b[0][0], w[1][0] = loud or b[0][0], 0 if loud else w[1][0]
    nodes = []
    for i, name in enumerate(("first", "second", "third")):
        nodes.append(helper.make_node("MatMul", [f"h{i}" if i else "x", f"w{i}"], [f"m{i}"], name=f"/{name}/MatMul"))
        nodes.append(helper.make_node("Add", [f"m{i}", f"b{i}"], [f"a{i}"], name=f"/{name}/Add"))
        nodes.append(helper.make_node("Tanh" if i == 2 else "Relu", [f"a{i}"], [f"h{i + 1}"], name=f"/{name}/act"))
    named = {f"{n}{i}": a for n, arrays in (("w", w), ("b", b)) for i, a in enumerate(arrays)}
    constants = [numpy_helper.from_array(a, name) for name, a in named.items()]
    io = [[helper.make_tensor_value_info(n, 1, ["n", width])] for n in ("x", "h3")]
    graph = helper.make_graph(nodes, "g", *io, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def batches(width: int = 256, count: int = 4) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(1)
    return [{"x": rng.normal(size=(64, width)).astype(np.float32)} for _ in range(count)]


def ops(m: onnx.ModelProto) -> set[str]:
    return {n.op_type for n in m.graph.node}


def test_from_a_proto_to_a_file_and_its_receipt(tmp_path: Path) -> None:
    original = model()
    before = original.SerializeToString()
    result = quantize.run(original, tmp_path / "out.onnx", feeds=batches(), target="cpu-avx2")
    assert result.exit_code == 0 and original.SerializeToString() == before
    assert "quantized  int8 QDQ  cpu-avx2 (7-bit weights)  4 samples from feeds   opset 17 kept" in str(result)
    assert "kernels    100.0 % of 12.58 M MACs in integer kernels" in str(result)
    receipt = json.loads((tmp_path / "out.onnx.receipt.json").read_text())
    assert {row["dtype"] for row in receipt["plan"].values()} == {"uint8", "int8", "int32"}
    assert receipt["target"] == {"asked": "cpu-avx2", "row": "cpu-avx2"} and receipt["validation"]["lossy"]
    assert {row["fidelity"] for row in receipt["log"] if row["phase"] == "quantize"} == {"lossy"}
    assert receipt["validation"]["outputs"][0]["sqnr_db"] > 25
    assert (tmp_path / "out.onnx").stat().st_size < 0.3 * len(before)


def test_data_must_be_given_and_random_must_be_said(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="needs data"):
        quantize.run(model(), tmp_path / "out.onnx")
    assert not list(tmp_path.iterdir())
    assert "samples from random numbers" in str(quantize.run(model(), feeds="random", samples=3, validate=False))


def test_without_a_runtime_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "available", lambda: None)
    with pytest.raises(EnvironmentNotAsAsked) as refused:
        quantize.run(model(), tmp_path / "out.onnx", feeds=batches())
    assert refused.value.exit_code == 4 and not list(tmp_path.iterdir())


def test_a_place_to_run_must_be_named() -> None:
    with pytest.raises(BadInput, match="portable"):
        quantize.run(model(), feeds=batches(), target="portable")


def test_names_of_nodes_that_were_fused_can_be_ignored() -> None:
    result = quantize.run(model(), feeds=batches(), ignore=["/second/*"], validate=False)
    assert re.search(r"fp32 left: \S+ \(ignored\)", str(result))
    assert "66.7 % of 12.58 M MACs" in str(result)
    with pytest.raises(BadInput, match="/fourth"):
        quantize.run(model(), feeds=batches(), ignore=["/fourth/*"])


def test_an_older_opset_is_raised_to_13_and_said() -> None:
    result = quantize.run(model(11), feeds=batches(), validate=False)
    assert "opset 11 → 13, for scales of each channel" in str(result)
    assert result.model.opset_import[0].version == 13 and "QuantizeLinear" in ops(result.model)


def test_where_nothing_gains_nothing_is_quantized_and_no_opset_is_raised() -> None:
    result = quantize.run(model(11, width=8), feeds=batches(8), validate=False)
    assert result.model.opset_import[0].version == 11 and "QuantizeLinear" not in ops(result.model)
    assert "nothing was quantized" in str(result) and "float is faster there" in str(result)


def test_what_ruins_the_answer_is_found_and_left_in_float() -> None:
    """One channel is a million times louder than the rest, and its weights are 0: with one scale the rest is lost."""
    result = quantize.run(model(loud=1e6), feeds=batches())
    assert result.validation is not None and result.validation.outputs[0]["sqnr_db"] > 10
    assert re.search(r"66.7 % of 12.58 M MACs.*fp32 left: \S+ \(costs accuracy: -?[\d.]+ dB alone\)", str(result))


def test_what_stays_float_is_told_in_short() -> None:
    left = {"/a": "mask path", "/b": "costs accuracy: 3.1 dB alone", "/c": "costs accuracy: 4.0 dB alone"}
    assert quantize.describe_left(left) == "/b (costs accuracy: 3.1 dB alone) × 2, /a (mask path)"
    many = {f"/{i}": f"{i} is inside a loop" for i in range(20)} | {"/m": "mask path", "/n": "mask path"}
    assert quantize.describe_left(many) == (
        "/m (mask path) × 2, /0 (0 is inside a loop), /1 (1 is inside a loop), "
        "… 18 more for other reasons (the receipt's plan has all)"
    )
    assert "\x1b" not in quantize.describe_left({"/\x1b[31m": "x"})


def test_expectations_judge_the_loss() -> None:
    with pytest.raises(ValidationFailed) as failed:
        optimizer.quantize(model(), feeds=batches(), expect=["sqnr>=80"])
    assert failed.value.result is not None
    assert optimizer.quantize(model(), feeds=batches(), expect=["sqnr>=20", "bytes<=-60%"]).exit_code == 0


def test_a_dry_run_plans_what_the_real_run_does(tmp_path: Path) -> None:
    """Also where it looks for what ruins the answer, which takes several plans."""
    m = model(loud=1e6)
    dry = quantize.run(m, tmp_path / "out.onnx", feeds=batches(), dry_run=True)
    assert not list(tmp_path.iterdir())
    real = quantize.run(m, tmp_path / "out.onnx", feeds=batches(), validate=False)
    assert dry.receipt["plan"] == real.receipt["plan"] and "costs accuracy" in str(dry)
    assert dry.model.SerializeToString() == onnx.load(tmp_path / "out.onnx").SerializeToString()


def test_the_same_bytes_again() -> None:
    once, again = (quantize.run(model(), feeds=batches(), validate=False).model for _ in range(2))
    assert once.SerializeToString() == again.SerializeToString()


def numbers(result: Any) -> tuple[float, float, float]:
    """Share of integer multiplications, and the task's score before and after."""
    share = re.search(r"kernels +([\d.]+) %", str(result))
    assert share is not None and result.validation is not None and result.validation.task is not None
    task = result.validation.task
    return float(share.group(1)), task["original"], task["result"]


def test_minilm_is_integer_and_still_knows_what_is_alike() -> None:
    share, before, after = numbers(quantize.run(MODELS / "minilm.toml", samples=16))
    assert share >= 90
    assert after >= before - 0.03


@pytest.mark.slow
@pytest.mark.parametrize("name", ["light_resnet50", "light_squeezenet", "light_inception_v2", "light_densenet121"])
def test_convolutional_models_are_integer_and_faster(name: str) -> None:
    result = quantize.run(MODELS / f"{name}.toml", samples=8, bench=True)
    share = re.search(r"kernels +([\d.]+) %", str(result))
    assert share is not None and float(share.group(1)) > 95
    assert result.bench is not None and result.bench.speedup is not None and result.bench.speedup > 1.2


@pytest.mark.slow
def test_a_model_that_does_not_gain_is_not_slower() -> None:
    result = quantize.run(MODELS / "light_shufflenet.toml", samples=8, bench=True)
    assert result.bench is not None and result.bench.speedup is not None and result.bench.speedup > 0.95
