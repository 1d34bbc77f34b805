"""Batch normalization moves into weights only where the model does not grow by it."""

from __future__ import annotations

import numpy as np
import pytest
from answers import OFF, Runner, differ_all, feeds
from onnx import ModelProto, TensorProto, helper, numpy_helper

from optimizer.core.edit import Editor
from optimizer.core.model import read, to_proto
from optimizer.core.rule import Pass
from passes.propagate import analysis
from passes.simplify.batch_norm import RULES


def shared_weights(dtype: int = TensorProto.FLOAT) -> ModelProto:
    """Two convolutions with one weight of 36 KiB, each normalized by statistics of its own."""
    random = np.random.default_rng(5)
    kind = helper.tensor_dtype_to_np_dtype(dtype)

    def tensor(name: str, *shape: int) -> TensorProto:
        return numpy_helper.from_array((random.random(shape) + 0.5).astype(kind), name)

    nodes, outputs, constants = [], [], [tensor("w", 32, 32, 3, 3)]
    for k in "ab":
        names = [f"{k}_{s}" for s in ("gamma", "beta", "mean", "var")]
        constants += [tensor(n, 32) for n in names]
        nodes += [
            helper.make_node("Conv", ["x", "w"], [f"{k}_conv"], pads=[1, 1, 1, 1]),
            helper.make_node("BatchNormalization", [f"{k}_conv", *names], [k]),
        ]
        outputs.append(helper.make_tensor_value_info(k, dtype, ["N", 32, 5, 7]))
    x = helper.make_tensor_value_info("x", dtype, ["N", 32, 5, 7])
    g = helper.make_graph(nodes, "g", [x], outputs, constants)
    return helper.make_model(g, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)


def folded(m: ModelProto, budget: float) -> Editor:
    editor = Editor(read(m), budget=budget)
    Pass("test", (analysis, *RULES)).run(editor)
    return editor


def test_a_shared_weight_is_not_copied_beyond_the_budget() -> None:
    editor = folded(shared_weights(), 1.01)
    assert not editor.log and editor.refused["conv_batch_norm", "bytes over budget"]
    assert to_proto(editor.model).SerializeToString() == to_proto(read(shared_weights())).SerializeToString()


def test_within_the_budget_it_is() -> None:
    m = shared_weights()
    editor = folded(m, 2.1)
    assert [e.rule for e in editor.log] == ["conv_batch_norm"] * 2
    given = feeds(m, {"N": 3}, "signed", 2)
    assert not differ_all(Runner(m, OFF)(given), Runner(to_proto(editor.model), OFF)(given), 64.0)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_output_channels_of_a_transposed_convolution_lie_in_groups(groups: int) -> None:
    random = np.random.default_rng(groups)
    channels = 8
    arrays = {"w": random.random((4, channels // groups, 3)), "b": random.random(channels)}
    arrays |= {n: random.random(channels) + 0.5 for n in ("gamma", "beta", "mean", "var")}
    nodes = [
        helper.make_node("ConvTranspose", ["x", "w", "b"], ["c"], group=groups, strides=[2], output_padding=[1]),
        helper.make_node("BatchNormalization", ["c", "gamma", "beta", "mean", "var"], ["y"], epsilon=1e-3),
    ]
    io = [helper.make_tensor_value_info(n, 1, s) for n, s in (("x", ["N", 4, 5]), ("y", ["N", 8, "L"]))]
    constants = [numpy_helper.from_array(a.astype(np.float32), n) for n, a in arrays.items()]
    g = helper.make_graph(nodes, "g", io[:1], io[1:], constants)
    m = helper.make_model(g, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)
    editor = folded(m, 1.01)
    assert [n.op for n in editor.model.graph] == ["ConvTranspose"]
    given = feeds(m, {"N": 3}, "signed", 2)
    assert not differ_all(Runner(m, OFF)(given), Runner(to_proto(editor.model), OFF)(given), 64.0)


@pytest.mark.parametrize("opset", [9, 13])
def test_five_outputs_once_meant_training(opset: int) -> None:
    m = shared_weights()
    m.opset_import[0].version = opset
    del m.graph.output[1]
    m.graph.output[0].name = "y"
    del m.graph.node[2:]
    m.graph.node[1].output[:] = ["y", "mean_", "var_", "saved_mean", "saved_var"]
    assert not folded(m, 2.1).log
    m.graph.node[1].output[:] = ["y"]
    assert [e.rule for e in folded(m, 2.1).log] == ["conv_batch_norm"]
