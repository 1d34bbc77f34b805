"""What `optimize` returns and saves: the receipt speaks of the file that was written, and of nothing that was not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

import optimizer


@pytest.fixture
def model() -> onnx.ModelProto:
    m = parser.parse_model(
        '<ir_version: 10, opset_import: ["": 21]> g (float[N,64] x) => (float[N,64] y)'
        "{ a = Identity(x)  b = MatMul(a, w)  y = Relu(b) }"
    )
    m.graph.initializer.append(numpy_helper.from_array(np.eye(64, dtype=np.float32), "w"))
    return m


def test_the_caller_s_model_is_not_changed(model: onnx.ModelProto) -> None:
    before = model.SerializeToString()
    result = optimizer.optimize(model, validate=False)
    assert model.SerializeToString() == before
    assert [n.op_type for n in result.model.graph.node] == ["MatMul", "Relu"]


def test_what_is_not_written_has_no_place_and_no_bytes(model: onnx.ModelProto) -> None:
    output = optimizer.optimize(model, validate=False).receipt["output"]
    assert output["path"] is None and output["bytes"] is None


def test_the_saved_receipt_is_of_the_saved_file(model: onnx.ModelProto, tmp_path: Path) -> None:
    result = optimizer.optimize(model, validate=False)
    files = result.save(tmp_path / "out.onnx")
    assert [f.name for f in files] == ["out.onnx", "out.onnx.receipt.json"]
    receipt = json.loads(files[-1].read_text())
    assert receipt["output"]["path"] == str(tmp_path / "out.onnx")
    assert receipt["output"]["bytes"] == files[0].stat().st_size
    assert [w["name"] for w in receipt["output"]["weights"]] == ["w"]
    assert [row["rule"] for row in receipt["log"]] == ["identity"]
    again = optimizer.optimize(tmp_path / "out.onnx", validate=False).receipt
    assert again["input"]["graph"] == receipt["output"]["graph"]


def test_saving_over_a_file_needs_force(model: onnx.ModelProto, tmp_path: Path) -> None:
    result = optimizer.optimize(model, validate=False)
    result.save(tmp_path / "out.onnx")
    with pytest.raises(optimizer.BadInput):
        result.save(tmp_path / "out.onnx")
    result.save(tmp_path / "out.onnx", force=True)
