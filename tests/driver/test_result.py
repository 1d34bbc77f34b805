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


def test_a_negative_verdict_is_raised_in_one_line(model: onnx.ModelProto) -> None:
    with pytest.raises(optimizer.ValidationFailed) as error:
        optimizer.optimize(model, validate=False, expect=["nodes<=0", "bytes<=-99%"])
    assert error.value.what == "an expectation is not met: nodes<=0 does not hold 2, original 3, and 1 more"
    assert len(str(error.value).splitlines()) == 2 and "result" in str(error.value.fix)
    assert "\nnodes " in str(error.value.result)


def test_a_wrong_result_is_raised_by_what_is_wrong(model: onnx.ModelProto, tmp_path: Path) -> None:
    guest = tmp_path / "guest.py"
    guest.write_text("def wrong(graph):\n    graph.nodes[-1].op = 'Neg'\n")
    with pytest.raises(optimizer.ValidationFailed) as error:
        optimizer.optimize(model, graphsurgeon=f"{guest}:wrong")
    assert error.value.what.startswith('the result is not the original: output "y": error ')
    assert "\n" not in error.value.what


def test_a_card_that_does_not_fit_what_was_asked_for_is_left_out(model: onnx.ModelProto, tmp_path: Path) -> None:
    onnx.save(model, tmp_path / "m.onnx")
    (tmp_path / "m.toml").write_text('path = "m.onnx"\nlicence = "MIT"\nfeeds = "m.py:feeds"\ndims = [{N = 7}]\n')
    (tmp_path / "m.py").write_text(
        "import numpy as np\n\ndef feeds(seed):\n    while True:\n        yield {'x': np.ones((7, 64), 'f')}\n"
    )
    whole = optimizer.optimize(tmp_path / "m.toml")
    assert {"N": 7} in whole.receipt["validation"]["bindings"] and not whole.receipt["warnings"]
    frozen = optimizer.optimize(tmp_path / "m.toml", dims={"N": 5})
    assert frozen.exit_code == 0 and "the card does not fit" in frozen.receipt["warnings"][0]
    assert str(frozen).startswith("m.onnx → ")


def test_saving_over_a_file_needs_force(model: onnx.ModelProto, tmp_path: Path) -> None:
    result = optimizer.optimize(model, validate=False)
    result.save(tmp_path / "out.onnx")
    with pytest.raises(optimizer.BadInput):
        result.save(tmp_path / "out.onnx")
    result.save(tmp_path / "out.onnx", force=True)
