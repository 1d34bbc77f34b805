"""Scales, shifts and batch norms behind random convolutions of every kind move into the weights, and only rightly."""

from __future__ import annotations

from random import Random

import numpy as np
import onnx
import pytest
from answers import Feeds, Runner, differ_all
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from watched import Watched

from optimizer.core.graph import lower
from optimizer.core.model import read
from optimizer.driver import pipeline, recipe
from optimizer.driver.presets import LEVELS

STEPS = recipe.parse(LEVELS[2])


class Layers:
    """A convolution and what follows it, all parameters drawn; `moves` counts the followers that a rule must move."""

    def __init__(self, seed: int) -> None:
        self.random, self.numbers = Random(seed), np.random.default_rng(seed)
        self.constants: list[TensorProto] = []
        self.nodes: list[NodeProto] = []
        self.moves = 0
        self.shape: tuple[int, ...] = ()

    def const(self, shape: tuple[int, ...], low: float = -2.0) -> str:
        x = self.numbers.uniform(low, 2, shape).astype(np.float32)
        self.constants.append(numpy_helper.from_array(np.asarray(x), f"c{len(self.constants)}"))
        return self.constants[-1].name

    def node(self, op: str, inputs: list[str], **attributes: object) -> str:
        self.nodes.append(helper.make_node(op, inputs, [f"v{len(self.nodes)}"], **attributes))
        return self.nodes[-1].output[0]

    def convolution(self) -> str:
        r = self.random
        rank = r.choice([1, 2, 3])
        groups = r.choice([1, 1, 2, 3])
        ins, outs = groups * r.randint(1, 2), groups * r.randint(1, 3)
        kernel = tuple(r.randint(1, 3) for _ in range(rank))
        attributes: dict[str, object] = {"group": groups}
        if r.random() < 0.5:
            attributes["strides"] = [r.randint(1, 2) for _ in range(rank)]
        if r.random() < 0.4:
            attributes["dilations"] = [r.randint(1, 2) for _ in range(rank)]
        if r.random() < 0.5:
            attributes["pads"] = [r.randint(0, 1) for _ in range(2 * rank)]
        elif r.random() < 0.3 and "dilations" not in attributes:
            attributes["auto_pad"] = "SAME_UPPER"
        self.transposed = r.random() < 0.4
        w = (ins, outs // groups, *kernel) if self.transposed else (outs, ins // groups, *kernel)
        bias = [self.const((outs,))] if r.random() < 0.5 else []
        self.shape, self.channels, self.rank = (ins, *(r.randint(6, 7) for _ in range(rank))), outs, rank
        op = "ConvTranspose" if self.transposed else "Conv"
        return self.node(op, ["x", self.const(w), *bias], **attributes)

    def follow(self, v: str) -> str:
        r, c = self.random, self.channels
        ones = (1,) * self.rank
        kind = r.choice(["bn", "channel", "channel", "number", "sample", "place", "rank"])
        op = r.choice(["Mul", "Add"])
        if kind == "bn":
            self.moves += 1
            p = [self.const((c,)), self.const((c,)), self.const((c,)), self.const((c,), 0.5)]
            return self.node("BatchNormalization", [v, *p], epsilon=r.choice([1e-5, 1e-2]))
        if kind == "channel":
            self.moves += 1
            return self.node(op, self.order(v, self.const(r.choice([(c, *ones), (1, c, *ones)]))))
        if kind == "number":
            self.moves += 1
            return self.node(op, self.order(v, self.const(r.choice([(), (1,), (1, *ones)]))))
        if kind == "sample":  # x is fed with two samples
            return self.node(op, self.order(v, self.const((2, 1, *ones))))
        if kind == "rank":
            return self.node("Squeeze", [self.node(op, self.order(v, self.const((1, 1, c, *ones)))), self.axis()])
        return self.node(op, self.order(v, self.node("Slice", [self.const((40,)), *self.first(v)])))

    def axis(self) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray([0]), f"c{len(self.constants)}"))
        return self.constants[-1].name

    def first(self, v: str) -> list[str]:
        """As many numbers as the last axis of v has places."""
        self.constants.append(numpy_helper.from_array(np.asarray([0]), f"c{len(self.constants)}"))
        return [self.constants[-1].name, self.node("Shape", [v], start=-1)]

    def order(self, v: str, c: str) -> list[str]:
        return [v, c] if self.random.random() < 0.5 else [c, v]

    def model(self) -> tuple[ModelProto, Feeds]:
        v = self.convolution()
        for _ in range(self.random.randint(1, 3)):
            v = self.follow(v)
        self.nodes[-1].output[0] = "y"
        graph = helper.make_graph(
            self.nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *self.shape])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], self.constants,
        )  # fmt: skip
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11)
        return model, {"x": self.numbers.standard_normal((2, *self.shape)).astype(np.float32)}


def told(seed: int) -> tuple[int, int]:
    """Assert that random layers keep their answers; how many followers could move, and how many did."""
    layers = Layers(seed)
    model, feeds = layers.model()
    editor = Watched(read(model), checker=False)
    pipeline.run(editor, STEPS)
    after = lower(editor.model)
    why = differ_all(Runner(model)(feeds), Runner(after)(feeds), 256.0)
    assert not why, f"seed {seed}: {why}"
    moved = sum(e.phase == "finish" for e in editor.log)
    editor.undo_all()
    return layers.moves, moved


def test_random_layers() -> None:
    counts = [told(seed) for seed in range(120)]
    could, did = sum(a for a, _ in counts), sum(b for _, b in counts)
    assert did > 0.7 * could, (could, did)


def test_a_shared_weight_is_scaled_only_within_the_budget() -> None:
    """Two convolutions read one large weight: a scaled copy of it would be bytes that the file did not have."""
    text = """<ir_version: 11, opset_import: ["": 23]>
    g (float[N, 64, L] x) => (float[N, 64, L] y) <float m = {2}> {
      a = Conv(x, w)  b = Mul(a, m)  c = Relu(b)  y = Conv(c, w)
    }"""
    model = onnx.parser.parse_model(text)
    w = np.random.default_rng(0).standard_normal((64, 64, 1)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(w, "w"))
    editor = Watched(read(model))
    pipeline.run(editor, STEPS)
    assert [n.op for n in editor.model.graph] == ["Conv", "Mul", "Relu", "Conv"]
    assert editor.refused["conv_scale", "bytes over budget"]


@pytest.mark.slow
def test_many_random_layers() -> None:
    for seed in range(1000, 3000):
        told(seed)
