"""What calibration sees: exact ranges over all batches, branches included, memory that does not grow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from optimizer.core.errors import BadInput
from optimizer.runtime.card import read_card
from optimizer.runtime.observe import Range, observe


def save(path: Path, nodes: list[onnx.NodeProto], outputs: list[str], constants: Any = (), dtype: int = 1) -> Path:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", dtype, ["n", 4]), helper.make_tensor_value_info("c", TensorProto.BOOL, [])],
        [helper.make_tensor_value_info(name, dtype, None) for name in outputs],
        [numpy_helper.from_array(a, name) for name, a in dict(constants).items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def feeds(folder: Path, batches: list[dict[str, np.ndarray]]) -> str:
    folder.mkdir(exist_ok=True)
    for i, batch in enumerate(batches):
        np.savez(folder / f"{i:03d}.npz", **batch)  # type: ignore[arg-type]
    return str(folder)


BATCHES = [
    {"x": np.array([[1, -2, 3, 0]], np.float32), "c": np.array(True)},
    {"x": np.array([[5, 0, 0, 0], [-7, 1, 1, 1]], np.float32), "c": np.array(False)},
    {"x": np.array([[2, 2, 2, 2]], np.float32), "c": np.array(True)},
]


def test_ranges_are_those_of_all_batches(tmp_path: Path) -> None:
    nodes = [helper.make_node("Mul", ["x", "two"], ["a"]), helper.make_node("Relu", ["a"], ["y"])]
    model = save(tmp_path / "m.onnx", nodes, ["y"], {"two": np.float32(2)})
    seen = observe(model, ["x", "a", "y"], feeds=feeds(tmp_path / "f", BATCHES))
    assert seen.batches == 3
    assert seen.ranges == {"x": Range(-7, 5, (2, 4)), "a": Range(-14, 10, (2, 4)), "y": Range(0, 10, (2, 4))}
    assert seen.ranges["x"].size == 8
    one = observe(model, ["a"], feeds=feeds(tmp_path / "f", BATCHES), samples=1)
    assert one.batches == 1 and one.ranges == {"a": Range(-4, 6, (1, 4))}


def branch(name: str, factor: float, inner: onnx.NodeProto | None = None) -> onnx.GraphProto:
    nodes = [helper.make_node("Mul", ["x", f"{name}_k"], [f"{name}_m"])]
    nodes += [inner] if inner is not None else []
    last = inner.output[0] if inner is not None else f"{name}_m"
    nodes.append(helper.make_node("Neg", [last], [f"{name}_y"]))
    return helper.make_graph(
        nodes, name, [], [helper.make_tensor_value_info(f"{name}_y", 1, None)],
        [numpy_helper.from_array(np.float32(factor), f"{name}_k")],
    )  # fmt: skip


def test_values_inside_branches_and_branches_of_branches(tmp_path: Path) -> None:
    deep = helper.make_node("If", ["c"], ["deep"], then_branch=branch("tt", 100), else_branch=branch("te", 1000))
    node = helper.make_node("If", ["c"], ["y"], then_branch=branch("t", 10, deep), else_branch=branch("e", -1))
    model = save(tmp_path / "m.onnx", [node], ["y"])
    seen = observe(model, ["t_m", "e_m", "tt_m", "te_m", "y", "deep"], feeds=feeds(tmp_path / "f", BATCHES)).ranges
    assert seen["t_m"] == Range(-20, 30, (1, 4)) and seen["tt_m"] == Range(-200, 300, (1, 4))
    assert seen["e_m"] == Range(-5, 7, (2, 4)) and seen["y"] == Range(-200, 300, (2, 4))
    assert seen["deep"] == Range(-300, 200, (1, 4))
    assert seen["te_m"].low > seen["te_m"].high, "no batch reaches it"


def test_values_inside_a_loop_are_not_observed(tmp_path: Path) -> None:
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Mul", ["s", "s"], ["inner"])],
        "body",
        [helper.make_tensor_value_info("i", TensorProto.INT64, []),
         helper.make_tensor_value_info("go", TensorProto.BOOL, []), helper.make_tensor_value_info("s", 1, None)],
        [helper.make_tensor_value_info("on", TensorProto.BOOL, []), helper.make_tensor_value_info("inner", 1, None)],
    )  # fmt: skip
    node = helper.make_node("Loop", ["two", "", "x"], ["y"], body=body)
    model = save(tmp_path / "m.onnx", [node], ["y"], {"two": np.array(2)})
    assert observe(model, ["inner", "y"], feeds=feeds(tmp_path / "f", BATCHES)).ranges == {"y": Range(0, 2401, (2, 4))}


def test_infinity_is_seen_and_halves_are_exact(tmp_path: Path) -> None:
    model = save(tmp_path / "m.onnx", [helper.make_node("Neg", ["x"], ["y"])], ["y"], dtype=TensorProto.FLOAT16)
    batch = [{"x": np.array([[np.inf, 0.1, 1, 2]], np.float16), "c": np.array(True)}]
    (seen,) = observe(model, ["y"], feeds=feeds(tmp_path / "f", batch)).ranges.values()
    assert seen.low == -np.inf and seen.high == -float(np.float16(0.1))


def test_weights_beside_the_model_are_found(tmp_path: Path) -> None:
    w = np.arange(4096, dtype=np.float32).reshape(4, 1024)
    model = save(tmp_path / "m.onnx", [helper.make_node("MatMul", ["x", "w"], ["y"])], ["y"], {"w": w})
    onnx.save(onnx.load(str(model)), str(tmp_path / "e.onnx"), save_as_external_data=True, location="e.data")
    assert (tmp_path / "e.data").exists()
    (seen,) = observe(tmp_path / "e.onnx", ["y"], feeds=feeds(tmp_path / "f", BATCHES[:1])).ranges.values()
    assert seen.high == float((BATCHES[0]["x"] @ w).max())


def test_random_feeds_are_drawn_at_sizes_that_run(tmp_path: Path) -> None:
    model = save(tmp_path / "m.onnx", [helper.make_node("Relu", ["x"], ["y"])], ["y"])
    first = observe(model, ["x", "y"], feeds="random", samples=5)
    assert first.batches == 5 and first.source == "random" and first.ranges["y"].low == 0 < first.ranges["y"].high
    assert observe(model, ["x", "y"], feeds="random", samples=5) == first
    assert observe(model, ["x", "y"], feeds="random", samples=5, seed=1) != first


def test_feeds_that_do_not_fit(tmp_path: Path) -> None:
    model = save(tmp_path / "m.onnx", [helper.make_node("Relu", ["x"], ["y"])], ["y"])
    with pytest.raises(BadInput, match="lack the input"):
        observe(model, ["y"], feeds=feeds(tmp_path / "f", [{"c": np.array(True)}]))
    with pytest.raises(BadInput, match="no feeds at"):
        observe(model, ["y"], feeds=str(tmp_path / "none.npz"))


def test_a_generator_without_batches(tmp_path: Path) -> None:
    model = save(tmp_path / "m.onnx", [helper.make_node("Relu", ["x"], ["y"])], ["y"])
    (tmp_path / "f.py").write_text("def feeds(seed):\n    return iter(())\n")
    with pytest.raises(BadInput, match="hold no batch"):
        observe(model, ["y"], feeds=f"{tmp_path / 'f.py'}:feeds")


def test_a_card_brings_its_own_feeds(tmp_path: Path) -> None:
    save(tmp_path / "m.onnx", [helper.make_node("Relu", ["x"], ["y"])], ["y"])
    (tmp_path / "f.py").write_text(
        "import numpy as np\ndef feeds(seed):\n    yield {'x': np.full((1, 4), 2.5, np.float32), 'c': np.array(True)}\n"
    )
    (tmp_path / "m.toml").write_text('path = "m.onnx"\nfeeds = "f.py:feeds"\n')
    seen = observe(tmp_path / "m.onnx", ["y"], feeds="card", card=read_card(tmp_path / "m.toml"))
    assert seen.ranges == {"y": Range(2.5, 2.5, (1, 4))}
