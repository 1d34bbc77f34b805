"""Random chains of what renames, moves, cuts and joins dims, with arithmetic between: the answers stay."""

from __future__ import annotations

from math import prod
from random import Random

import numpy as np
import pytest
from answers import REGIMES, Runner, bindings, differ_all, feeds
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from watched import Watched

from optimizer.core.edit import Fidelity
from optimizer.core.graph import lower
from optimizer.core.model import read
from optimizer.driver import pipeline, recipe
from optimizer.driver.presets import LEVELS

STEPS = recipe.parse(LEVELS[2])
N = -1  # the dim that only the caller knows
Dims = tuple[int, ...]


class Chain:
    """A random graph on x [N, 2, 3, 4]; `values` are names with their dims, N among them at most once."""

    def __init__(self, seed: int, opset: int) -> None:
        self.random, self.opset = Random(seed), opset
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self.values: list[tuple[str, Dims]] = [("x", (N, 2, 3, 4))]

    def constant(self, x: object, dtype: type = np.int64) -> str:
        name = f"k{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(x, dtype), name))
        return name

    def node(self, op: str, inputs: list[str], dims: Dims, **attributes: object) -> None:
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], **attributes))
        self.values.append((name, dims))

    def inner(self, op: str, inputs: list[str], **attributes: object) -> str:
        """A node whose value only the step reads that makes it."""
        name = f"i{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], **attributes))
        return name

    def reshape(self, v: str, to: Dims) -> str:
        return self.inner("Reshape", [v, self.constant(to)])

    def along(self, op: str, v: str, axes: list[int], dims: Dims, **attributes: object) -> None:
        """An op whose axes became an operand."""
        if self.opset >= (18 if op.startswith("Reduce") else 13):
            self.node(op, [v, self.constant(axes)], dims, **attributes)
        else:
            self.node(op, [v], dims, axes=axes, **attributes)

    def step(self) -> None:
        r = self.random
        v, dims = self.values[-1] if r.random() < 0.75 else r.choice(self.values)
        rank = len(dims)
        axis = r.randrange(rank) if rank else 0
        spelled = axis - rank if rank and r.random() < 0.5 else axis
        kind = r.choice(
            ["transpose"] * 4 + ["unary", "bound", "add", "mul", "where"] * 2
            + ["rows", "batch", "halves", "one"] * 2 + ["join", "part", "unsqueeze", "squeeze", "slice", "concat", "gather", "reduce", "matmul", "expand", "back"]
        )  # fmt: skip
        if kind == "transpose" and rank > 1:
            perm = r.sample(range(rank), rank)
            self.node("Transpose", [v], tuple(dims[i] for i in perm), perm=perm)
        elif kind == "back" and rank > 1:
            self.node("Transpose", [v], dims[::-1])
        elif kind == "unary":
            self.node(r.choice(["Neg", "Abs", "Relu"]), [v], dims)
        elif kind == "bound":
            k = self.constant(r.choice([-1.0, 0.0, 0.5]), np.float32)
            op = r.choice(["Max", "Min", "Clip"])
            self.node(op, [v, k] if op != "Clip" or r.random() < 0.5 else [v, k, self.constant(0.25, np.float32)], dims)
        elif kind in ("add", "mul"):
            shape = [d if d != N and r.random() < 0.5 else 1 for d in dims[r.randrange(rank + 1) :]]
            k = self.constant(np.random.default_rng(r.randrange(99)).integers(-2, 3, shape), np.float32)
            self.node(kind.title(), [v, k] if r.random() < 0.5 else [k, v], dims)
        elif kind == "where":
            w = r.choice([name for name, d in self.values if d == dims and (name != v or r.random() < 0.2)] or [v])
            c = self.inner("Greater", [v, w])
            self.node("Where", [self.inner("Not", [c]) if r.random() < 0.5 else c, v, w], dims)
        elif kind == "join" and rank > 1:
            i = r.randrange(rank - 1)
            pair = dims[i : i + 2]
            if N not in pair or 1 in pair:
                to = (*dims[:i], N if N in pair else prod(pair), *dims[i + 2 :])
                self.node("Reshape", [v, self.constant(to)], to)
        elif kind == "rows" and rank > 1 and dims[-1] != N:  # all but the last dim in one, and back
            rows, last = self.reshape(v, (N, dims[-1])), dims[-1]
            if r.random() < 0.5:
                w = np.random.default_rng(r.randrange(99)).integers(-2, 3, (dims[-1], 4))
                rows, last = self.inner("MatMul", [rows, self.constant(w, np.float32)]), 4
            back = (*dims[:-1], 2, 2) if last == 4 and r.random() < 0.3 else (*dims[:-1], last)
            self.node("Reshape", [rows, self.constant(back)], back)
        elif kind == "batch" and rank > 2:  # the first two dims in one, the others turned, and back
            one = self.reshape(v, (prod(dims[:2]) if N not in dims[:2] else N, *dims[2:]))
            if N not in dims[2:] or N not in dims[:2]:
                turned = self.inner("Transpose", [one], perm=[0, *range(1, rank - 1)[::-1]])
                to = (*dims[:2], *dims[2:][::-1])
                self.node("Reshape", [turned, self.constant(to)], to)
        elif kind == "halves" and rank and dims[axis] in (4, 6):
            at, mid, end, a = (self.constant([k]) for k in (0, dims[axis] // 2, 2**63 - 1, spelled))
            left, right = self.inner("Slice", [v, at, mid, a]), self.inner("Slice", [v, mid, end, a])
            self.node("Concat", [self.inner("Neg", [right]), left], dims, axis=axis)
        elif kind == "one" and rank and dims[axis] != N:
            g = self.inner("Gather", [v, self.constant(r.randrange(-dims[axis], dims[axis]))], axis=axis)
            self.along("Unsqueeze", g, [axis], (*dims[:axis], 1, *dims[axis + 1 :]))
        elif kind == "part" and rank and dims[axis] in (4, 6, 8, 12):
            to = (*dims[:axis], 2, dims[axis] // 2, *dims[axis + 1 :])
            self.node("Reshape", [v, self.constant([0 if d == N and i < axis else d for i, d in enumerate(to)])], to)
        elif kind == "unsqueeze" and rank < 5:
            self.along("Unsqueeze", v, [axis], (*dims[:axis], 1, *dims[axis:]))
        elif kind == "squeeze" and rank and dims[axis] == 1:
            self.along("Squeeze", v, [spelled], (*dims[:axis], *dims[axis + 1 :]))
        elif kind == "slice" and rank and dims[axis] > 1:
            a = r.randrange(dims[axis])
            b = r.randrange(a, dims[axis]) + 1
            ends = [b if b < dims[axis] or r.random() < 0.5 else 2**63 - 1]
            ks = [self.constant(k) for k in ([a], ends, [spelled])]
            self.node("Slice", [v, *ks], (*dims[:axis], b - a, *dims[axis + 1 :]))
        elif kind == "concat" and rank and dims[axis] != N:
            w = r.choice([name for name, d in self.values if d == dims])
            self.node("Concat", [v, w], (*dims[:axis], 2 * dims[axis], *dims[axis + 1 :]), axis=spelled)
        elif kind == "gather" and rank > 1 and dims[axis] not in (N, 0):
            k = self.constant(r.randrange(-dims[axis], dims[axis]))
            self.node("Gather", [v, k], (*dims[:axis], *dims[axis + 1 :]), axis=spelled)
        elif kind == "reduce" and rank > 1 and dims[axis] != N:
            keeps = r.randrange(2)
            left = (*dims[:axis], *([1] if keeps else []), *dims[axis + 1 :])
            self.along("ReduceMax", v, [spelled], left, keepdims=keeps)
        elif kind == "matmul" and rank > 1 and dims[-1] != N:
            w = np.random.default_rng(r.randrange(99)).integers(-2, 3, (dims[-1], 3))
            self.node("MatMul", [v, self.constant(w, np.float32)], (*dims[:-1], 3))
        elif kind == "expand" and rank:
            one = self.inner("Neg", [self.constant(np.ones([1] * rank), np.float32)])
            self.node("Add", [self.inner("Expand", [one, self.inner("Shape", [v])]), v], dims)

    def model(self) -> ModelProto:
        while len(self.nodes) < 14:
            self.step()
        for v in (self.values[-1], self.random.choice(self.values)):
            self.node("Identity", [v[0]], v[1])
        graph = helper.make_graph(
            self.nodes, "g", [helper.make_tensor_value_info("x", 1, ["N", 2, 3, 4])],
            [helper.make_tensor_value_info(name, 1, None) for name, _ in self.values[-2:]], self.constants,
        )  # fmt: skip
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)


@pytest.mark.parametrize("opset", [12, 18])
@pytest.mark.parametrize("seeds", [range(60), pytest.param(range(1000, 3000), marks=pytest.mark.slow)], ids=str)
def test_random_chains(seeds: range, opset: int) -> None:
    for seed in seeds:
        model = Chain(seed, opset).model()
        editor = Watched(read(model), checker=False)
        pipeline.run(editor, STEPS)
        after = lower(editor.model)
        exact = all(e.fidelity is Fidelity.EXACT for e in editor.log)
        assert len(after.graph.node) <= len(model.graph.node), f"seed {seed}"
        again = Watched(read(after), checker=False)
        pipeline.run(again, STEPS)
        assert not again.log, f"seed {seed}: a second run found {[e.rule for e in again.log]}"
        editor.undo_all()
        one, other = Runner(model), Runner(after)
        for sizes in bindings(model):
            for regime in REGIMES:
                given = feeds(model, sizes, regime, seed)
                why = differ_all(one(given), other(given), 0.0 if exact else 64.0, finite_only=not exact)
                assert not why, f"seed {seed}, {regime} {sizes}, exact={exact}: {why}"
