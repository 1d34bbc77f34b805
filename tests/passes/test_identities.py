"""Identities over every element type: what the rules say of casts and neutral operands, the runtime says as well."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from random import Random
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from answers import OFF, REGIMES, Array, CannotRun, Runner, bindings, differ, differ_all, draw, feeds
from goldens import apply
from onnx import TensorProto, helper, numpy_helper
from watched import Watched

from optimizer.core.edit import Editor, Fidelity
from optimizer.core.graph import lower
from optimizer.core.model import read
from optimizer.core.tensor import numpy_dtype
from optimizer.driver import pipeline, recipe
from optimizer.driver.presets import LEVELS

STEPS = recipe.parse(LEVELS[2])
T = TensorProto
TYPES = [
    T.BOOL, T.INT8, T.UINT8, T.INT16, T.UINT16, T.INT32, T.UINT32, T.INT64, T.UINT64, T.FLOAT16, T.BFLOAT16, T.FLOAT,
    T.DOUBLE, T.FLOAT8E4M3FN, T.FLOAT8E5M2, T.INT4, T.UINT4, T.STRING,
]  # fmt: skip
Name = T.DataType.Name
TARGETS = [T.BOOL, T.INT8, T.INT32, T.UINT8, T.FLOAT16, T.BFLOAT16, T.FLOAT, T.FLOAT8E5M2]


def one_in_one_out(nodes: list[onnx.NodeProto], source: int, out: int, constants: Sequence[T] = ()) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", source, ["N"])],
        [helper.make_tensor_value_info("y", out, None)], constants,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11)


def every_value(dtype: int, random: np.random.Generator) -> Array:
    """All values of a type of at most 16 bits; of wider ones the ends, the neighbours of powers of two, and some."""
    kind = numpy_dtype(dtype)
    if kind.kind == "b":
        return np.asarray([True, False])
    if kind.itemsize == 1 and "float" in kind.name:
        return np.arange(256, dtype=np.uint8).view(kind)
    if kind.itemsize == 2:
        return np.arange(65536, dtype=np.uint16).view(kind)
    if "int" in kind.name:
        limits = ml_dtypes.iinfo(kind)
        near = {s * (1 << k) + d for k in range(65) for d in (-1, 0, 1) for s in (-1, 1)}
        return np.asarray([n for n in sorted(near) if limits.min <= n <= limits.max], object).astype(kind)
    return np.concatenate([draw(kind, (64,), r, random) for r in REGIMES])


def run(model: onnx.ModelProto, x: Array) -> Any:
    return Runner(model, OFF, may_refer=True)({"x": x})[0]


@pytest.mark.parametrize("source", [t for t in TYPES if t != T.STRING], ids=Name)
def test_a_cast_that_goes_changes_no_value(source: int) -> None:
    """Every pair of casts that becomes one: equal for every value that the second cast is defined on."""
    random = np.random.default_rng(1)
    x = every_value(source, random)
    merged = 0
    for middle, to in product(TYPES, TARGETS):
        nodes = [helper.make_node("Cast", ["x"], ["m"], to=middle), helper.make_node("Cast", ["m"], ["c"], to=to)]
        nodes.append(helper.make_node("Identity", ["c"], ["y"]))
        before = one_in_one_out(nodes, source, to)
        model = read(before)
        if not apply("cast_twice", Editor(model)):
            continue
        merged += 1
        given = x
        if "float" in numpy_dtype(middle).name and "int" in numpy_dtype(to).name:
            with np.errstate(invalid="ignore"):
                wide = x.astype(np.float64)  # what the integer type does not hold becomes each runtime's own
            given = x[np.isfinite(wide) & (wide >= 0) & (wide < 8)]
        try:
            want, got = run(before, given), run(lower(model), given)
        except CannotRun:
            continue
        assert not differ(want, got), f"{Name(source)} → {Name(middle)} → {Name(to)}: {differ(want, got)}"
    assert merged or source == T.DOUBLE or not _has_wider(source)


def _has_wider(source: int) -> bool:
    return source not in (
        T.INT64, T.UINT64, T.FLOAT8E4M3FN, T.FLOAT8E5M2, T.INT4,
        T.UINT4,
    )  # fmt: skip


@pytest.mark.parametrize("op, neutral", [("Add", 0), ("Sub", 0), ("Mul", 1), ("Div", 1), ("Pow", 1)])
def test_neutral_operands_are_neutral(op: str, neutral: int) -> None:
    random = np.random.default_rng(1)
    merged = 0
    for dtype in TYPES[:-1]:
        kind = numpy_dtype(dtype)
        constant = numpy_helper.from_array(np.asarray(neutral).astype(kind), "k")
        nodes = [helper.make_node(op, ["x", "k"], ["z"]), helper.make_node("Identity", ["z"], ["y"])]
        before = one_in_one_out(nodes, dtype, dtype, [constant])
        try:
            runner = Runner(before)
        except CannotRun:
            continue
        model = read(before)
        if not apply("neutral_operand", Editor(model)):
            continue
        merged += 1
        x = every_value(dtype, random)
        if op == "Pow" and x.dtype.kind in "iu":
            x = x[(x < 2**53) & (x.astype(np.float64) > -(2**53))]  # the runtime takes the way through double
        try:
            want = runner({"x": x})[0]
        except CannotRun:
            continue
        got = run(lower(model), x)
        assert not differ(want, got), f"{op} {Name(dtype)}: {differ(want, got)}"
    assert merged >= 3


class Arithmetic:
    """A random graph on x, z [N, 3] of one float type; constants are often neutral, and of any shape that broadcasts."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.dtype = self.random.choice([T.FLOAT, T.FLOAT, T.DOUBLE, T.INT64])
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[TensorProto] = []
        self.values = ["x", "z"]

    def const(self, array: Array) -> str:
        self.constants.append(numpy_helper.from_array(array, f"c{len(self.constants)}"))
        return self.constants[-1].name

    def node(self, op: str, inputs: list[str], outputs: int = 1, **attributes: Any) -> str:
        names = [f"v{len(self.nodes)}_{k}" for k in range(outputs)]
        self.nodes.append(helper.make_node(op, inputs, names, **attributes))
        return self.random.choice(names)

    def number(self) -> str:
        value = self.random.choice([0, 0, 1, 1, -1, 2, 3])
        shape = self.random.choice([(), (1,), (3,), (1, 1), (1, 3)])
        return self.const(np.full(shape, value, numpy_dtype(self.dtype)))

    def step(self) -> str:
        r = self.random
        v, w = r.choice(self.values), r.choice(self.values[-4:])
        whole = self.dtype == T.INT64
        kind = r.choice(
            ["binary"] * 4 + ["constant"] * 4 + ["unary"] * 3 + ["cast", "where", "parts", "reduce", "shape"]
        )
        if kind == "binary":
            return self.node(r.choice(["Add", "Sub", "Mul", "Max", "Min"]), [v, w])
        if kind == "constant":
            op = r.choice(["Add", "Sub", "Mul", "Max", "Min", *([] if whole else ["Div", "Pow"])])
            # never 1 / v: it would show the sign of a zero, which EXACT leaves open
            return self.node(op, [v, self.number()] if r.random() < 0.7 or op in ("Pow", "Div") else [self.number(), v])
        if kind == "unary":
            return self.node(r.choice(["Neg", "Abs", "Identity", *([] if whole else ["Dropout", "Relu"])]), [v])
        if kind == "cast":
            to = r.choice([T.DOUBLE, T.FLOAT, T.INT64, T.INT32, T.BOOL])
            return self.node("Cast", [self.node("Cast", [v], to=to)], to=self.dtype)
        if kind == "where":
            return self.node("Where", [self.node(r.choice(["Less", "Equal"]), [v, w]), v, r.choice([v, w])])
        if kind == "parts":
            sizes = r.choice([[3], [1, 2], [3, 0]])
            one = self.node("Split", [v, self.const(np.asarray(sizes))], len(sizes), axis=1)
            parts = list(self.nodes[-1].output)
            return self.node("Concat", parts if r.random() < 0.7 else [one, *(p for p in parts if p != one)], axis=1)
        if kind == "reduce":
            column = self.node("Reshape", [v, self.const(np.asarray([0, 3, 1]))])
            reduced = self.node(
                r.choice(["ReduceSum", "ReduceMax", "ReduceMin"]), [column, self.const(np.asarray([-1]))]
            )
            return self.node("Squeeze", [reduced, self.const(np.asarray([2]))])
        return self.node("Transpose", [self.node("Transpose", [v])]) if r.random() < 0.5 else self.tall(v)

    def tall(self, v: str) -> str:
        a = self.const(np.asarray([self.random.choice([0, 1, -1])]))
        return self.node("Squeeze", [self.node("Unsqueeze", [v, a]), a])

    def model(self) -> onnx.ModelProto:
        for _ in range(self.random.randint(3, 12)):
            v = self.step()
            self.values.append(v)
        outputs = [
            self.node("Identity", [v]) for v in self.random.sample(self.values[2:], min(2, len(self.values) - 2))
        ]
        graph = helper.make_graph(
            self.nodes, "g", [helper.make_tensor_value_info(i, self.dtype, ["N", 3]) for i in ("x", "z")],
            [helper.make_tensor_value_info(o, self.dtype, None) for o in outputs], self.constants,
        )  # fmt: skip
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11)


@pytest.mark.parametrize("seeds", [range(150), pytest.param(range(1000, 5000), marks=pytest.mark.slow)], ids=str)
def test_random_arithmetic(seeds: range) -> None:
    ran = 0
    for seed in seeds:
        model = Arithmetic(seed).model()
        editor = Watched(read(model), checker=False)
        pipeline.run(editor, STEPS)
        after = lower(editor.model)
        exact = all(e.fidelity is Fidelity.EXACT for e in editor.log)
        editor.undo_all()
        one, other = Runner(model), Runner(after)
        for sizes in bindings(model):
            for regime in REGIMES:
                given = feeds(model, sizes, regime, seed)
                why = differ_all(one(given), other(given), 0.0 if exact else 64.0, finite_only=not exact)
                assert not why, f"seed {seed}, {regime} {sizes}, exact={exact}: {why}"
                ran += 1
    assert ran > 10 * len(seeds)
