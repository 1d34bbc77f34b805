"""The verb `prune`: what is asked is what is zero, the receipt says it, and the interface stays."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import optimizer
from optimizer.core.errors import BadInput, ValidationFailed
from optimizer.driver import prune

RNG = np.random.default_rng(0)


def model() -> onnx.ModelProto:
    """Two products; the first weight lies in a Constant node, as some exporters leave it."""
    weights = {n: numpy_helper.from_array(RNG.normal(size=(16, 16)).astype(np.float32), n) for n in "ab"}
    nodes = [
        helper.make_node("Constant", [], ["a"], name="hold", value=weights["a"]),
        helper.make_node("MatMul", ["x", "a"], ["h"], name="/first"),
        helper.make_node("MatMul", ["h", "b"], ["y"], name="/second"),
    ]
    io = [[helper.make_tensor_value_info(n, 1, ["n", 16])] for n in "xy"]
    graph = helper.make_graph(nodes, "g", *io, [weights["b"]])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def zeros(m: onnx.ModelProto) -> dict[str, float]:
    return {t.name: float((numpy_helper.to_array(t) == 0).mean()) for t in m.graph.initializer}


def test_from_a_proto_to_a_file_and_its_receipt(tmp_path: Path) -> None:
    original = model()
    before = original.SerializeToString()
    result = prune.run(original, tmp_path / "out.onnx", sparsity=0.25)
    assert result.exit_code == 0 and original.SerializeToString() == before
    assert zeros(onnx.load(str(tmp_path / "out.onnx"))) == {"a": 0.25, "b": 0.25}
    receipt = json.loads((tmp_path / "out.onnx.receipt.json").read_text())
    assert receipt["plan"]["b"] == {
        "kept": 192, "size": 256, "threshold": pytest.approx(receipt["plan"]["b"]["threshold"]),
        "why": "the smallest of its own",
    }  # fmt: skip
    assert [row["rule"] for row in receipt["log"] if row["fidelity"] == "lossy"] == ["prune", "prune"]
    assert receipt["validation"]["lossy"] and receipt["passes"] == "normalize prune cleanup"
    assert "pruned     25.0 % of 512 weights in 2 tensors are 0" in str(result)


def test_the_function_and_its_expectations() -> None:
    result = optimizer.prune(model(), threshold=0.5, ignore=["/first"], validate=False)
    shares = zeros(result.model)
    assert shares["a"] == 0 < shares["b"] and "left 1 (ignored)" in str(result)
    with pytest.raises(ValidationFailed) as failed:
        optimizer.prune(model(), sparsity=0.9, scope="global", expect=["sqnr>=40"])
    assert failed.value.result is not None


def test_nothing_is_written_where_a_glob_matches_nothing(tmp_path: Path) -> None:
    with pytest.raises(BadInput):
        prune.run(model(), tmp_path / "out.onnx", sparsity=0.5, ignore=["/third"])
    assert not list(tmp_path.iterdir())


def test_the_same_bytes_again() -> None:
    m = model()
    once, again = (prune.run(m, sparsity=0.5, validate=False).model for _ in range(2))
    assert once.SerializeToString() == again.SerializeToString()
