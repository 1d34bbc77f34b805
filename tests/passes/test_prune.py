"""Magnitude pruning: exact shares, shared weights once, weights behind rearrangements, every float type."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from optimizer.core.edit import Editor
from optimizer.core.errors import BadInput
from optimizer.core.graph import Model, check
from optimizer.core.model import read, to_proto
from passes.prune import magnitude
from passes.prune.order import blocks, smallest

RNG = np.random.default_rng(0)


def model(nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray], dtype: int = TensorProto.FLOAT) -> Model:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", dtype, None)],
        [helper.make_tensor_value_info(nodes[-1].output[0], dtype, None)],
        [numpy_helper.from_array(w, name) for name, w in weights.items()],
    )
    return read(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


def pruned(m: Model, **options: Any) -> tuple[magnitude.PrunePlan, dict[str, np.ndarray]]:
    plan = magnitude.plan(m, **options)
    magnitude.apply(Editor(m), plan)
    check(m)
    return plan, {t.name: numpy_helper.to_array(t) for t in to_proto(m).graph.initializer}


def product(op: str, *inputs: str, name: str = "", out: str = "y") -> onnx.NodeProto:
    return helper.make_node(op, list(inputs), [out], name=name or op)


@pytest.mark.parametrize("k", [1, 2, 777, 4999, 5000])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_radix_select_is_partition(k: int, dtype: Any) -> None:
    w = np.abs(np.round(RNG.normal(size=5000) * 100) / 100 * 10.0 ** RNG.integers(-30, 30, 5000)).astype(dtype)
    threshold, ties = smallest(k, lambda: [w[:1234], w[1234:]], np.dtype(dtype))
    assert threshold == np.sort(w)[k - 1]
    assert np.count_nonzero(w < threshold) + ties == k


def test_threshold_is_strict() -> None:
    w = np.array([[0.5, -0.25, 0.125], [-0.5, 0.3, -1.0]], np.float32)
    plan, after = pruned(model([product("MatMul", "x", "w")], {"w": w}), threshold=0.3)
    assert after["w"].tolist() == np.where(np.abs(w.astype(np.float64)) < 0.3, 0, w).tolist()
    assert plan.weights[0].kept == np.count_nonzero(after["w"])


@pytest.mark.parametrize("sparsity", [0.1, 1 / 3, 0.5, 0.99])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16, np.float64])
def test_the_share_is_exact_although_many_are_equal(sparsity: float, dtype: Any) -> None:
    w = (RNG.integers(1, 9, (37, 53)) * RNG.choice([-1, 1], (37, 53)) / 8).astype(dtype)
    onnx_type = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    plan, after = pruned(model([product("MatMul", "x", "w")], {"w": w}, onnx_type), sparsity=sparsity)
    zeros = after["w"] == 0
    assert np.count_nonzero(zeros) == round(sparsity * w.size) == w.size - plan.weights[0].kept
    assert np.abs(w[zeros].astype(float)).max() <= np.abs(w[~zeros].astype(float)).min()
    assert (after["w"][~zeros] == w[~zeros]).all() and after["w"].dtype == w.dtype
    again, same = pruned(model([product("MatMul", "x", "w")], {"w": w}, onnx_type), sparsity=sparsity)
    assert again == plan and (same["w"] == after["w"]).all()


def test_a_global_share_is_taken_where_the_weights_are_small() -> None:
    nodes = [product("MatMul", "x", "a", out="h", name="first"), product("MatMul", "h", "b", name="second")]
    weights = {"a": RNG.normal(size=(8, 8)).astype(np.float32), "b": 0.01 * RNG.normal(size=(8, 8)).astype(np.float32)}
    plan, after = pruned(model(nodes, weights), sparsity=0.5, scope="global")
    whole = np.concatenate([after["a"].ravel(), after["b"].ravel()])
    before = np.concatenate([weights["a"].ravel(), weights["b"].ravel()])
    assert np.count_nonzero(whole == 0) == 64 and plan.sparsity == 0.5
    assert (whole == 0).tolist() == (np.abs(before) <= np.sort(np.abs(before))[63]).tolist()
    assert np.count_nonzero(after["b"] == 0) > 60


def test_large_weights_are_walked_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("passes.prune.order._BLOCK", 100)
    w = RNG.integers(1, 5, (31, 37)).astype(np.float32)
    m = model([product("MatMul", "x", "w")], {"w": w})
    assert len(list(blocks(next(m.graph.constants()).tensor))) == 12  # type: ignore[arg-type]
    _, after = pruned(m, sparsity=0.4)
    assert np.count_nonzero(after["w"] == 0) == round(0.4 * w.size)


def test_zeros_that_were_there_count() -> None:
    w = np.array([[0, 0, 0, 1.0, 2.0]], np.float32)
    _, after = pruned(model([product("MatMul", "x", "w")], {"w": w}), sparsity=0.4)
    assert after["w"].tolist() == w.tolist()


def test_a_shared_weight_is_pruned_once_and_for_all_its_readers() -> None:
    nodes = [
        product("MatMul", "x", "w", out="h", name="first"),
        product("MatMul", "h", "w", out="i", name="second"),
        helper.make_node("Transpose", ["w"], ["t"], name="turn"),
        product("MatMul", "i", "t", name="third"),
    ]
    m = model(nodes, {"w": RNG.normal(size=(6, 6)).astype(np.float32)})
    plan, after = pruned(m, sparsity=0.5)
    assert [w.value for w in plan.weights] == ["w"]
    assert len(after) == 1 and np.count_nonzero(next(iter(after.values())) == 0) == 18


def test_only_weights_of_products_are_touched() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], name="conv"),
        helper.make_node("Mul", ["c", "scale"], ["y"], name="mul"),
    ]
    weights = {
        "w": RNG.normal(size=(4, 3, 3, 3)).astype(np.float32),
        "b": np.full(4, 1e-6, np.float32),
        "scale": np.full((1,), 1e-6, np.float32),
    }
    _, after = pruned(model(nodes, weights), threshold=0.1)
    assert (after["b"] == weights["b"]).all() and (after["scale"] == weights["scale"]).all()
    assert (after["w"] == 0).any()


def test_ignored_by_glob_and_a_glob_that_matches_nothing() -> None:
    nodes = [product("MatMul", "x", "a", out="h", name="/layer.0/first"), product("MatMul", "h", "b", name="/head")]
    weights = {n: RNG.normal(size=(8, 8)).astype(np.float32) for n in "ab"}
    plan, after = pruned(model(nodes, weights), sparsity=0.5, ignore=["/layer.0/*"])
    assert (after["a"] == weights["a"]).all() and (after["b"] == 0).sum() == 32
    assert plan.left == {"a": "ignored"} and plan.to_dict()["a"]["why"] == "ignored"
    with pytest.raises(BadInput) as refused:
        magnitude.plan(model(nodes, weights), sparsity=0.5, ignore=["/haed"])
    assert "'/head'" in str(refused.value)


@pytest.mark.parametrize(
    "options",
    [{}, {"sparsity": 0.5, "threshold": 1.0}, {"sparsity": 0.0}, {"sparsity": 1.0}, {"threshold": -1.0},
     {"threshold": float("nan")}, {"sparsity": 0.5, "scope": "layer"}],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        magnitude.plan(model([product("MatMul", "x", "w")], {"w": np.ones((2, 2), np.float32)}), **options)


def test_an_initializer_that_may_be_overridden_stays() -> None:
    m = to_proto(model([product("MatMul", "x", "w")], {"w": np.ones((2, 2), np.float32)}))
    m.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [2, 2]))
    plan, after = pruned(read(m), sparsity=0.5)
    assert not plan.weights and plan.left == {"w": "an input may override it"} and (after["w"] == 1).all()


def test_weights_inside_a_branch_are_found() -> None:
    def body(name: str, weight: str) -> onnx.GraphProto:
        return helper.make_graph(
            [helper.make_node("MatMul", ["x", weight], [f"{name}_y"], name=f"{name}_product")],
            name,
            [],
            [helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(RNG.normal(size=(4, 4)).astype(np.float32), weight)],
        )

    node = helper.make_node("If", ["c"], ["y"], then_branch=body("then", "p"), else_branch=body("else", "q"))
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", 1, [4, 4]), helper.make_tensor_value_info("c", TensorProto.BOOL, [])],
        [helper.make_tensor_value_info("y", 1, None)],
    )
    m = read(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    magnitude.apply(Editor(m), magnitude.plan(m, sparsity=0.5))
    check(m)
    for a in to_proto(m).graph.node[0].attribute:
        (w,) = a.g.initializer
        assert np.count_nonzero(numpy_helper.to_array(w) == 0) == 8


def test_undo_gives_the_file_back() -> None:
    m = model([product("MatMul", "x", "w")], {"w": RNG.normal(size=(64, 64)).astype(np.float32)})
    before = to_proto(m).SerializeToString()
    editor = Editor(m)
    magnitude.apply(editor, magnitude.plan(m, sparsity=0.5))
    assert to_proto(m).SerializeToString() != before
    editor.undo()
    assert to_proto(m).SerializeToString() == before
