"""inspect: what a model holds, counted where it lies."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import TensorProto, helper, numpy_helper

import optimizer
from optimizer.core.errors import BadInput, EnvironmentNotAsAsked

LIGHT = Path(onnx.__file__).parent / "backend/test/data/light"


def test_every_light_model_counts_as_onnx_does() -> None:
    for path in sorted(LIGHT.glob("*.onnx")):
        model = onnx.load(path)
        found = optimizer.inspect(path)
        assert found.nodes == len(model.graph.node)
        assert found.bytes == path.stat().st_size
        names = {t.name for t in model.graph.initializer}
        assert [v["name"] for v in found.inputs] == [i.name for i in model.graph.input if i.name not in names]
        assert [v["name"] for v in found.outputs] == [o.name for o in model.graph.output]
        held = [numpy_helper.to_array(t).size for t in model.graph.initializer]
        held += [
            numpy_helper.to_array(a.t).size for n in model.graph.node if n.op_type == "Constant" for a in n.attribute
        ]
        assert sum(p["count"] for p in found.parameters.values()) == sum(held)
        json.dumps(found.to_dict())


def test_bodies_functions_and_domains_count() -> None:
    model = onnx.parser.parse_model("""
    <ir_version: 8, opset_import: ["" : 17, "local" : 1]>
    g (float[batch, 2, ?] x, bool c) => (y)
    {
      y = If(c) <then_branch = t () => (a) { a = local.twice(x) },
                 else_branch = e () => (b) { w = Constant<value_float = 1.0>()  b = Mul(x, w) }>
    }
    <domain: "local", opset_import: ["" : 17]>
    twice (u) => (v) { v = Add(u, u) }
    """)
    found = optimizer.inspect(model)
    assert found.ops == {"Add": 1, "Constant": 1, "If": 1, "Mul": 1, "local.twice": 1}
    assert (found.nodes, found.subgraphs, found.functions) == (5, 2, ["local.twice"])
    assert found.inputs[0] == {"name": "x", "dtype": "float32", "dims": ["batch", 2, None], "default": False}
    assert found.dims == ["batch"] and found.opset == {"": 17, "local": 1}
    assert "in  x float32 [batch, 2, ?], c bool []" in str(found)


def test_defaults_and_types_are_shown() -> None:
    model = onnx.parser.parse_model("""
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[2] x, float[2] k, seq(int64[N]) s, string[1] w) => (float[2] y)
    <float[2] k = {1.0, 1.0}>
    { y = Add(x, k) }
    """)
    lines = str(optimizer.inspect(model)).splitlines()
    assert lines[1].startswith("in  x float32 [2], k float32 [2] (has a default), s sequence, w string [1]     out ")
    model.ir_version = 3
    assert [v["name"] for v in optimizer.inspect(model).inputs] == ["x", "s", "w"], "IR 3 cannot override"


def test_external_data_is_counted_and_not_read(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).standard_normal((512, 512)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 512])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 512])],
        [numpy_helper.from_array(weight, "w")],
    )
    path = tmp_path / "m.onnx"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path, save_as_external_data=True, location="m.data")
    found = optimizer.inspect(path)
    assert found.external == ["m.data"]
    assert found.bytes == path.stat().st_size + (tmp_path / "m.data").stat().st_size
    assert found.parameters == {"float32": {"count": 512 * 512, "bytes": weight.nbytes}}
    assert "external data m.data" in str(found) and "262.1 k parameters (float32)" in str(found)


def test_long_lists_are_cut_on_the_screen_only() -> None:
    inputs = [helper.make_tensor_value_info(f"x{i}", TensorProto.FLOAT, [1]) for i in range(20)]
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    node = helper.make_node("Sum", [i.name for i in inputs], ["y"])
    model = helper.make_model(
        helper.make_graph([node], "g", inputs, [y]), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    found = optimizer.inspect(model)
    assert "x7 float32 [1], … 12 more" in str(found) and "x8" not in str(found)
    assert len(found.to_dict()["inputs"]) == 20


def test_census_runs_the_model_in_a_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = optimizer.inspect(LIGHT / "light_squeezenet.onnx", census=True)
    assert found.census and str(found).splitlines()[3].startswith("census ")
    hidden = tmp_path / "onnxruntime.py"
    hidden.write_text("raise ImportError('hidden')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(EnvironmentNotAsAsked, match="no runtime"):
        optimizer.inspect(LIGHT / "light_squeezenet.onnx", census=True)
    assert optimizer.inspect(LIGHT / "light_squeezenet.onnx").census is None


def test_a_card_s_model_is_called_as_the_card(tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(f'path = "{LIGHT / "light_squeezenet.onnx"}"\nlicence = "Apache-2.0"\n')
    assert optimizer.inspect(tmp_path / "small.toml").name == "small.onnx"
    assert optimizer.inspect(LIGHT / "light_squeezenet.onnx").name == "light_squeezenet.onnx"


def test_no_model_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput):
        optimizer.inspect(tmp_path / "none.onnx")
