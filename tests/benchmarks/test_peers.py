"""The judge says no to each kind of wrong result, and the harness outlives what it measures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from optimizers import Child, interleaved, run_command
from peers import count_nodes, difference, judge


def model(path: Path, scale: float, shape: tuple[int, ...] = (4,), op: str = "Mul") -> str:
    weight = numpy_helper.from_array(np.full(shape, scale, np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node(op, ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [weight],
    )
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]), path)
    return str(path)


@pytest.fixture
def source(tmp_path: Path) -> str:
    return model(tmp_path / "source.onnx", 1.0)


def test_equal_within_the_limit(tmp_path: Path, source: str) -> None:
    assert judge(source, model(tmp_path / "near.onnx", 1.000001))["equal"]
    far = judge(source, model(tmp_path / "far.onnx", 1.0001))
    assert not far["equal"] and far["error"] == pytest.approx(1e-4, rel=0.01) and "y: error" in far["why"]


def test_other_shape(tmp_path: Path, source: str) -> None:
    verdict = judge(source, model(tmp_path / "shape.onnx", 1.0, (3, 1, 4)))
    assert verdict["loads"] and not verdict["equal"] and verdict["error"] is None


def test_does_not_load(tmp_path: Path, source: str) -> None:
    verdict = judge(source, model(tmp_path / "op.onnx", 1.0, op="Mull"))
    assert not verdict["loads"] and not verdict["checks"] and not verdict["equal"]


@pytest.mark.parametrize(
    ("answer", "equal"),
    [([1, np.nan], True), ([1, np.inf], False), ([np.nan, 1], False), ([1.1, np.nan], False)],
)
def test_non_finite_values_stay_where_they_are(answer: list[float], equal: bool) -> None:
    assert difference("y", np.array([1, np.nan], np.float32), np.array(answer, np.float32)).equal is equal


def test_integers_are_exact() -> None:
    assert not difference("y", np.array([10**9]), np.array([10**9 + 1])).equal


def test_nodes_of_branches_and_functions_count_and_constants_do_not(tmp_path: Path) -> None:
    branch = helper.make_graph([helper.make_node("Constant", [], ["c"], value_float=1.0)], "b", [], [])
    branch.node.append(helper.make_node("Neg", ["c"], ["d"]))
    branch.output.append(helper.make_tensor_value_info("d", TensorProto.FLOAT, []))
    outer = helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)
    graph = helper.make_graph([outer], "g", [helper.make_tensor_value_info("x", TensorProto.BOOL, [])], [])
    function = helper.make_function("own", "F", ["a"], ["b"], [helper.make_node("Abs", ["a"], ["b"])], [])
    onnx.save(helper.make_model(graph, functions=[function]), tmp_path / "m.onnx")
    assert count_nodes(str(tmp_path / "m.onnx")) == 4


def test_a_child_answers_fails_and_dies_without_taking_the_benchmark_along(source: str) -> None:
    with Child("judge") as child:
        assert child.ask(60, source=source, result=source)["nodes"] == 1
        assert child.ask(60, source=source, result="absent.onnx")["failed"].startswith("FileNotFoundError")
        assert child.ask(0.0001, source=source, result=source)["failed"] == "more than 0.0001 s"
        child.process.kill()
        assert child.ask(60, source=source, result=source)["failed"] == "died of SIGKILL"


def test_a_command_is_measured_whole_and_stopped_in_time() -> None:
    spent = run_command(["python", "-c", "x = bytearray(10**8)"], 60)
    assert spent["rss"] > 100 and spent["cpu"] > 0 and 0 < spent["wall"] < 60
    assert run_command(["python", "-c", "import time; time.sleep(60)"], 0.2)["failed"] == "more than 0.2 s"
    assert "no good" in run_command(["python", "-c", "raise SystemExit('no good')"], 60)["failed"]


def test_ratios_are_of_one_round() -> None:
    """Both tools twice as slow in every second round: the ratio does not move."""

    def tool(seconds: float) -> Callable[[], dict[str, float]]:
        calls = iter(range(100))
        return lambda: {"cpu": (spent := seconds * (1 + next(calls) % 2)), "wall": spent}

    tools = interleaved(
        {"onnxsim": tool(1.0), "graphwright": tool(0.25), "onnxslim": lambda: {"failed": "died"}}, seconds=9, most=15
    )
    assert tools["graphwright"]["ratio"]["onnxsim"]["cpu"] == {"median": 0.25, "min": 0.25, "max": 0.25, "n": 7}
    assert tools["onnxslim"] == {"failed": "died"}
    assert tools["onnxsim"]["cpu"]["max"] == 2.0
