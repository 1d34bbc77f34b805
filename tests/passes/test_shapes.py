"""Random chains of shape arithmetic through -O2: the same answers at every size that the original runs, 0 and 1 included."""

from __future__ import annotations

from random import Random

import numpy as np
import onnx
import pytest
from answers import CannotRun, Feeds, Runner, differ_all, interface
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from watched import Watched

from optimizer.core.edit import Editor
from optimizer.core.graph import lower
from optimizer.core.model import read
from optimizer.driver import pipeline, recipe
from optimizer.driver.presets import LEVELS

STEPS = recipe.parse(LEVELS[2])
SIZES = [{"B": 3, "S": 5}, {"B": 1, "S": 1}, {"B": 0, "S": 5}, {"B": 3, "S": 0}, {"B": 3, "S": 4}, {"B": 0, "S": 0}]
WIDTH = 4


class Chain:
    """A chain of nodes on x [B, S, 4] that runs at the first of SIZES; the run shape is followed while it is made."""

    def __init__(self, seed: int, opset: int) -> None:
        self.random, self.opset = Random(seed), opset
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self.values: list[tuple[str, tuple[int, ...]]] = [("x", (3, 5, WIDTH))]
        self.seen = 0

    def name(self) -> str:
        self.seen += 1
        return f"v{self.seen}"

    def const(self, *numbers: int) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(numbers, np.int64), self.name()))
        return self.constants[-1].name

    def node(self, op: str, inputs: list[str], **attributes: object) -> str:
        self.nodes.append(helper.make_node(op, inputs, [self.name()], **attributes))
        return self.nodes[-1].output[0]

    def dim(self, value: str, shape: tuple[int, ...], axis: int) -> str:
        """One dim of a value as a vector of one, in one of the ways that exporters have."""
        how = self.random.randrange(3)
        spelled = axis - len(shape) if self.random.random() < 0.5 else axis
        if how == 0 and self.opset >= 15:
            return self.node("Shape", [value], start=axis, end=axis + 1)
        s = self.node("Shape", [value])
        if how == 1:
            end = axis + 1 if spelled >= 0 or spelled != -1 else 2**31
            return self.node("Slice", [s, self.const(spelled), self.const(end), self.const(0)])
        scalar = numpy_helper.from_array(np.asarray(spelled, np.int64), self.name())
        self.constants.append(scalar)
        return self.node("Unsqueeze", [self.node("Gather", [s, scalar.name], axis=0), self.const(0)])

    def step(self) -> None:
        r = self.random
        value, shape = r.choice(self.values[-3:])
        op = r.choice(["reshape"] * 4 + ["transpose", "squeeze", "unsqueeze", "flatten", "slice", "expand", "concat"])
        getattr(self, op)(value, shape)

    def keep(self, value: str, shape: tuple[int, ...]) -> None:
        self.values.append((value, shape))

    def reshape(self, value: str, shape: tuple[int, ...]) -> None:
        """Dims kept, joined or parted, the target written or computed, with 0 and −1 where they may stand."""
        r = self.random
        want: list[int] = []
        parts: list[str] = []
        at = 0
        while at < len(shape):
            take = r.choice([1, 1, 2])
            sizes = shape[at : at + take]
            size = int(np.prod(sizes))
            here = len(want)
            if len(sizes) == 1 and size == WIDTH and r.random() < 0.3:
                want += [2, 2]
                parts += [self.const(2), self.const(2)]
            elif r.random() < 0.3:
                want.append(size)
                parts.append(self.const(size))
            else:
                want.append(size)
                dims = [self.dim(value, shape, at + k) for k in range(len(sizes))]
                copied = here == at and len(dims) == 1 and r.random() < 0.3
                parts.append(self.const(0) if copied else dims[0])
                for d in dims[1:]:
                    parts[-1] = self.node("Mul", [parts[-1], d])
            at += take
        if parts and r.random() < 0.5:
            parts[r.randrange(len(parts))] = self.const(-1)
        target = self.node("Concat", parts, axis=0)
        self.keep(self.node("Reshape", [value, target]), tuple(want))

    def transpose(self, value: str, shape: tuple[int, ...]) -> None:
        perm = list(range(len(shape)))
        self.random.shuffle(perm)
        self.keep(self.node("Transpose", [value], perm=perm), tuple(shape[p] for p in perm))

    def unsqueeze(self, value: str, shape: tuple[int, ...]) -> None:
        a = self.random.randint(0, len(shape))
        spelled = a - len(shape) - 1 if self.random.random() < 0.5 else a
        self.keep(self.node("Unsqueeze", [value, self.const(spelled)]), (*shape[:a], 1, *shape[a:]))

    def squeeze(self, value: str, shape: tuple[int, ...]) -> None:
        ones = [i for i, d in enumerate(shape) if d == 1]
        if ones:
            a = self.random.choice(ones)
            self.keep(self.node("Squeeze", [value, self.const(a)]), (*shape[:a], *shape[a + 1 :]))

    def flatten(self, value: str, shape: tuple[int, ...]) -> None:
        a = self.random.randint(0, len(shape))
        self.keep(self.node("Flatten", [value], axis=a), (int(np.prod(shape[:a])), int(np.prod(shape[a:]))))

    def slice(self, value: str, shape: tuple[int, ...]) -> None:
        r = self.random
        if not shape:
            return
        a = r.randrange(len(shape))
        start, end, step = r.choice([(0, 2**63 - 1, 1), (0, shape[a], 1), (-1, -(2**63), -1), (1, 100, 2), (-2, 9, 1)])
        cut = range(shape[a])[max(start, -shape[a]) if step < 0 else start : None if end < -(2**62) else end : step]
        operands = [value, self.const(start), self.const(end), self.const(a - len(shape)), self.const(step)]
        self.keep(self.node("Slice", operands), (*shape[:a], len(cut), *shape[a + 1 :]))

    def expand(self, value: str, shape: tuple[int, ...]) -> None:
        r = self.random
        if not shape:
            return
        kind = r.randrange(3)
        if kind == 0:
            target = self.node("Shape", [value])
        else:
            parts = [self.const(2)] if 1 in shape and kind == 1 and shape[0] == 1 else [self.dim(value, shape, 0)]
            parts += [self.const(1) for _ in shape[1:]]
            target = self.node("Concat", parts, axis=0)
            shape = (2, *shape[1:]) if parts[0] in {c.name for c in self.constants} else shape
        self.keep(self.node("Expand", [value, target]), shape)

    def concat(self, value: str, shape: tuple[int, ...]) -> None:
        if shape:
            a = self.random.randrange(len(shape))
            self.keep(self.node("Concat", [value] * self.random.choice([1, 2]), axis=a), ())
            times = len(self.nodes[-1].input)
            self.values[-1] = (self.values[-1][0], (*shape[:a], shape[a] * times, *shape[a + 1 :]))

    def model(self) -> ModelProto:
        for _ in range(self.random.randint(2, 7)):
            self.step()
        used = {self.values[-1][0], self.random.choice(self.values[1:] or self.values)[0]} - {"x"}
        outputs = [(self.node("Neg", [v])) for v in sorted(used)] or [self.node("Neg", ["x"])]
        graph = helper.make_graph(
            self.nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", "S", WIDTH])],
            [helper.make_tensor_value_info(o, TensorProto.FLOAT, None) for o in outputs], self.constants,
        )  # fmt: skip
        ir = helper.OP_SET_ID_VERSION_MAP["ai.onnx", self.opset]
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=ir)


def feeds(sizes: dict[str, int]) -> Feeds:
    shape = (sizes["B"], sizes["S"], WIDTH)
    return {"x": np.arange(np.prod(shape), dtype=np.float32).reshape(shape) + 1}


def settle(model: ModelProto) -> ModelProto:
    """After -O2 under watch; a second run changes nothing."""
    editor = Watched(read(model), checker=False)
    pipeline.run(editor, STEPS)
    once = lower(editor.model)
    again = Editor(read(once))
    pipeline.run(again, STEPS)
    assert lower(again.model) == once, f"a second run found {[e.rule for e in again.log]}"
    editor.undo_all()
    return once


def told(seed: int, opset: int) -> int:
    """Assert that a chain keeps its answers; the number of sizes that it runs at."""
    chain = Chain(seed, opset)
    model = chain.model()
    after = settle(model)
    assert interface(after) == interface(model)
    one, other = Runner(model), Runner(after)
    ran = 0
    for sizes in SIZES:
        try:
            want = one(feeds(sizes))
        except CannotRun:
            continue
        ran += 1
        why = differ_all(want, other(feeds(sizes)))
        assert not why, f"seed {seed}, opset {opset}, {sizes}: {why}"
    return ran


@pytest.mark.parametrize("opset", [13, 21])
def test_random_chains(opset: int) -> None:
    assert sum(told(seed, opset) for seed in range(100)) > 200


def test_a_computed_zero_copies_a_dim() -> None:
    """x [3, 0, 4] to [3·0, −1] is [3, 0], for Reshape takes the 0 for a copy of 3: the target stays computed."""
    text = """<ir_version: 11, opset_import: ["": 23]>
    g (float[B, S, 4] x) => (float[M, K] y) <int64[1] m = {-1}> {
      b = Shape<start = 0, end = 1>(x)  s = Shape<start = 1, end = 2>(x)  n = Mul(b, s)
      t = Concat<axis = 0>(n, m)  y = Reshape(x, t)
    }"""
    model = onnx.parser.parse_model(text)
    after = settle(model)
    for sizes in ({"B": 3, "S": 0}, {"B": 2, "S": 5}):
        assert not differ_all(Runner(model)(feeds(sizes)), Runner(after)(feeds(sizes))), sizes


@pytest.mark.slow
def test_many_random_chains() -> None:
    assert sum(told(seed, opset) for opset in (13, 14, 18, 21, 23) for seed in range(1000, 2000)) > 10_000
