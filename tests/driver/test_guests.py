"""Guests: their function's work is judged like all else, their mistakes are told as theirs, and no weight is lost."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import helper, numpy_helper

import optimizer
from optimizer.core.errors import BadInput
from optimizer.driver.result import Result

MODEL = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[N, 8] x) => (float[N, 8] y)
{ [first] a = Relu(x)  [second] b = Neg(a)  [third] y = Abs(b) }
"""


def guest(folder: Path, body: str) -> str:
    path = folder / "guest.py"
    path.write_text(f"import onnx_graphsurgeon as gs\n\ndef change(graph):\n    {body}\n")
    return f"{path}:change"


def run(folder: Path, body: str) -> Result:
    model = onnx.parser.parse_model(MODEL)
    return optimizer.optimize(model, passes="", graphsurgeon=guest(folder, body), validate=False)


@pytest.mark.parametrize(
    ("body", "what", "fix"),
    [
        ("graph.nodess", "the graphsurgeon function failed: AttributeError: ", "-v"),
        ("graph.nodes.clear()", "what the graphsurgeon function left is no valid model: ", "cleanup().toposort()"),
    ],
)
def test_a_guest_s_mistake_is_told_as_one(tmp_path: Path, body: str, what: str, fix: str) -> None:
    with pytest.raises(BadInput) as error:
        run(tmp_path, body)
    assert error.value.what.startswith(what)
    assert "guest.py:change" in str(error.value.at) and fix in str(error.value.fix)


def test_graphsurgeon_s_remarks_stay_off_the_terminal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from onnx_graphsurgeon.logger import G_LOGGER

    run(tmp_path, "from onnx_graphsurgeon.logger import G_LOGGER as g; g.info('i'); g.warning('w')")
    assert capfd.readouterr().out == "[W] w\n"
    assert G_LOGGER.severity == G_LOGGER.INFO and G_LOGGER.colors, "as it was"


def test_what_graphsurgeon_cannot_take_over_is_a_warning(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = onnx.parser.parse_model(MODEL)
    values = numpy_helper.from_array(np.ones(1, np.float32), "w")
    sparse = helper.make_sparse_tensor(values, numpy_helper.from_array(np.zeros(1, np.int64), ""), [8])
    model.graph.node.append(helper.make_node("Constant", [], ["w"], sparse_value=sparse))
    result = optimizer.optimize(model, passes="", graphsurgeon=guest(tmp_path, "pass"), validate=False)
    (warning,) = result.receipt["warnings"]
    assert warning.startswith("onnx-graphsurgeon: ") and "SPARSE_TENSOR" in warning
    assert not capfd.readouterr().out


def test_who_asks_for_the_remarks_has_them(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, "from onnx_graphsurgeon.logger import G_LOGGER; G_LOGGER.severity = 20; G_LOGGER.info('here')")
    assert "here" in capfd.readouterr().out


def test_weights_of_functions_outlive_the_guest(tmp_path: Path) -> None:
    """A model above 4 MiB is read with its weights left in a buffer, which a function's tensors only name."""
    weight = np.arange(1 << 21, dtype=np.float32).reshape(1, -1)
    hold = helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(weight, "w"))
    body = [hold, helper.make_node("Add", ["a", "w"], ["b"])]
    function = helper.make_function("local", "shift", ["a"], ["b"], body, [helper.make_opsetid("", 17)])
    io = [helper.make_tensor_value_info(n, 1, ["N", 1 << 21]) for n in "xy"]
    graph = helper.make_graph([helper.make_node("shift", ["x"], ["y"], domain="local")], "g", io[:1], io[1:])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    model = helper.make_model(graph, opset_imports=opsets, functions=[function], ir_version=8)
    result = optimizer.optimize(
        model, passes="", keep_functions=True, graphsurgeon=guest(tmp_path, "graph.name = 'mine'"), validate=False
    )
    gc.collect()
    made = result.model
    assert made.graph.name == "mine"
    (held,) = [n for n in made.functions[0].node if n.op_type == "Constant"]
    np.testing.assert_array_equal(numpy_helper.to_array(held.attribute[0].t), weight)
    result.save(tmp_path / "out.onnx")


def test_sparse_weights_outlive_the_guest(tmp_path: Path) -> None:
    size = 1 << 21
    values = numpy_helper.from_array(np.arange(1, size + 1, dtype=np.float32), "w")
    sparse = helper.make_sparse_tensor(values, numpy_helper.from_array(np.arange(size, dtype=np.int64), ""), [size])
    io = [helper.make_tensor_value_info(n, 1, [size]) for n in "xy"]
    nodes = [helper.make_node("Add", ["x", "w"], ["y"])]
    graph = helper.make_graph(nodes, "g", io[:1], io[1:], sparse_initializer=[sparse])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    result = optimizer.optimize(model, passes="", graphsurgeon=guest(tmp_path, "graph.name = 'mine'"), validate=False)
    gc.collect()
    (made,) = result.model.graph.sparse_initializer
    np.testing.assert_array_equal(numpy_helper.to_array(made.values), numpy_helper.to_array(values))
