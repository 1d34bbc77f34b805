"""Identities over every element type: what the rules say of casts and neutral operands, the runtime says as well."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from answers import OFF, REGIMES, Array, CannotRun, Runner, differ, draw
from goldens import apply
from onnx import TensorProto, helper, numpy_helper

from optimizer.core.edit import Editor
from optimizer.core.graph import lower
from optimizer.core.model import read
from optimizer.core.tensor import numpy_dtype

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
