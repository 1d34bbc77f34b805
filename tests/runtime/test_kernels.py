"""What the runtime ends with is counted as it is, node names or not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper

from optimizer.runtime import child
from optimizer.runtime.kernels import census, falls, integer_macs, optimized_graph
from optimizer.runtime.session import SessionError

HEAD = '<ir_version: 10, opset_import: ["": 20]>\n'
Save = Callable[..., Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """save(text, w=array) → the file of a model whose initializers are the arrays."""

    def write(text: str, /, **weights: np.ndarray) -> Path:
        made = onnx.parser.parse_model(HEAD + text)
        made.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
        onnx.save(made, tmp_path / "m.onnx")
        return tmp_path / "m.onnx"

    return write


def floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype("f")


GELU = """g (float[n, 8] x) => (float[n, 8] y)
{ s = Constant<value_float=1.41421356>()  d = Div(x, s)  e = Erf(d)  o = Constant<value_float=1.0>()  p = Add(e, o)
  m = Mul(x, p)  h = Constant<value_float=0.5>()  y = Mul(m, h) }"""


def test_census_counts_what_the_runtime_fuses(save: Save) -> None:
    assert census(save(GELU)) == {"Gelu": 1}
    assert census(save("g (float[n, 8] x) => (float[n, 8] y) { y = Gelu(x) }")) == {"Gelu": 1}
    assert census(save("g (float[n, 8] x) => (float[n, 8] y) { y = Relu(x) }")) == {}


def test_census_looks_into_bodies_and_leaves_out_layout(save: Save) -> None:
    body = GELU.split("{", 1)[1].rstrip("}").replace("(x", "(z").replace("y =", "v =")
    inside = f"""g (float[n, 8] z, bool c) => (float[n, 8] y)
    {{ y = If(c) <then_branch = t () => (float[n, 8] v) {{ {body} }},
                  else_branch = e () => (float[n, 8] u) {{ u = Relu(z) }}> }}"""
    assert census(save(inside)) == {"Gelu": 1}
    conv = save("g (float[n, 8, 8, 8] x) => (float[n, 8, 6, 6] y) { y = Conv(x, w) }", w=floats(8, 8, 3, 3))
    assert set(census(conv)) <= {"nchwc.Conv"}, "reorders of the blocked layout are no fusion"


def test_census_in_a_child(save: Save) -> None:
    assert child.call("optimizer.runtime.kernels:census", path=save(GELU)) == {"Gelu": 1}


def test_optimized_graph_leaves_weights_out(save: Save) -> None:
    got = optimized_graph(save("g (float[n, 64] x) => (float[n, 64] y) { y = MatMul(x, w) }", w=floats(64, 64)))
    assert [node.op_type for node in got.graph.node] == ["MatMul"]
    assert not got.graph.initializer[0].raw_data


def test_model_that_does_not_load(save: Save) -> None:
    with pytest.raises(SessionError):
        census(save("g (float[n] x) => (float[n] y) { y = Rely(x) }"))


PRODUCTS: dict[str, tuple[str, dict[str, np.ndarray], dict[str, np.ndarray], int]] = {
    "MatMul": (
        "g (float[2, 5, 8] x) => (float[2, 5, 6] y) { y = MatMul(x, w) }",
        {"w": floats(8, 6)},
        {"x": floats(2, 5, 8)},
        2 * 5 * 8 * 6,
    ),
    "MatMul of two values, one transposed by fusion": (
        "g (float[2, 5, 8] x) => (float[2, 5, 5] y) { t = Transpose<perm=[0, 2, 1]>(x)  y = MatMul(x, t) }",
        {},
        {"x": floats(2, 5, 8)},
        2 * 5 * 5 * 8,
    ),
    "MatMul of a broadcast batch": (
        "g (float[1, 5, 8] x, float[3, 8, 6] z) => (float[3, 5, 6] y) { y = MatMul(x, z) }",
        {},
        {"x": floats(1, 5, 8), "z": floats(3, 8, 6)},
        3 * 5 * 8 * 6,
    ),
    "MatMul with a vector": (
        "g (float[5, 8] x) => (float[5] y) { y = MatMul(x, w) }",
        {"w": floats(8)},
        {"x": floats(5, 8)},
        5 * 8,
    ),
    "Gemm of a transposed operand": (
        "g (float[8, 5] x) => (float[5, 6] y) { y = Gemm<transA=1>(x, w) }",
        {"w": floats(8, 6)},
        {"x": floats(8, 5)},
        5 * 8 * 6,
    ),
    "Conv": (
        "g (float[2, 3, 8, 8] x) => (float[2, 8, 6, 6] y) { c = Conv(x, w)  y = Relu(c) }",
        {"w": floats(8, 3, 3, 3)},
        {"x": floats(2, 3, 8, 8)},
        2 * 8 * 6 * 6 * 3 * 9,
    ),
    "depthwise Conv": (
        "g (float[2, 8, 8, 8] x) => (float[2, 8, 6, 6] y) { y = Conv<group=8>(x, w) }",
        {"w": floats(8, 1, 3, 3)},
        {"x": floats(2, 8, 8, 8)},
        2 * 8 * 6 * 6 * 9,
    ),
    "ConvTranspose": (
        "g (float[2, 3, 8, 8] x) => (float[2, 4, 10, 10] y) { y = ConvTranspose(x, w) }",
        {"w": floats(3, 4, 3, 3)},
        {"x": floats(2, 3, 8, 8)},
        2 * 3 * 8 * 8 * 4 * 9,
    ),
    "LSTM": (
        "g (float[5, 2, 8] x) => (float[5, 1, 2, 6] y) { y = LSTM<hidden_size=6>(x, w, r) }",
        {"w": floats(1, 24, 8), "r": floats(1, 24, 6)},
        {"x": floats(5, 2, 8)},
        5 * 2 * 24 * (8 + 6),
    ),
    "the branch of an If that is taken": (
        """g (float[2, 8] x, bool c) => (float[2, k] y)
        { y = If(c) <then_branch = t () => (float[2, 4] a) { a = MatMul(x, w) },
                     else_branch = e () => (float[2, 6] b) { b = MatMul(x, v) }> }""",
        {"w": floats(8, 4), "v": floats(8, 6)},
        {"x": floats(2, 8), "c": np.array(False)},
        2 * 8 * 6,
    ),
    "both steps of a Loop": (
        """g (float[4, 4] x) => (float[4, 4] y)
        { n = Constant<value_int=2>()  t = Constant<value = bool {1}>()
          y = Loop(n, t, x) <body = b (int64 i, bool c, float[4, 4] h) => (bool d, float[4, 4] o)
          { d = Identity(c)  o = MatMul(h, w) }> }""",
        {"w": floats(4, 4)},
        {"x": floats(4, 4)},
        2 * 4 * 4 * 4,
    ),
    "contrib attention": (
        """g (float[2, 5, 8] x) => (float[2, 5, 8] y) { y = com.microsoft.Attention<num_heads=2>(x, w, b) }""",
        {"w": floats(8, 24), "b": floats(24)},
        {"x": floats(2, 5, 8)},
        2 * 5 * 8 * 24 + 2 * 2 * 5 * 5 * 8,
    ),
}


@pytest.mark.parametrize(("text", "weights", "feed", "macs"), PRODUCTS.values(), ids=PRODUCTS.keys())
def test_multiply_adds_of_float_kernels(save: Save, text: str, weights: Any, feed: Any, macs: int) -> None:
    """No node has a name here, and kernels hide the weights they pack: neither may lose a product."""
    path = save(text, **weights)
    if "com.microsoft" in text:
        made = onnx.load(path)
        made.opset_import.add(domain="com.microsoft", version=1)
        onnx.save(made, path)
    found = integer_macs(path, feed)
    assert (found.total, found.integer, sum(found.floats.values())) == (macs, 0, macs)


def test_float_products_are_named(save: Save) -> None:
    path = save(
        "g (float[2, 8] x) => (float[2, 8] y) { a = MatMul(x, w)  b = Relu(a)  y = MatMul(b, w) }", w=floats(8, 8)
    )
    made = onnx.load(path)
    made.graph.node[0].name = "/encoder/query"
    onnx.save(made, path)
    assert integer_macs(path, {"x": floats(2, 8)}).floats == {"/encoder/query": 128, "y": 128}


QDQ = """g (float[2, 8] x) => (float[2, 4] y)
{ s = Constant<value_float=0.05>()  u = QuantizeLinear(x, s, z)  d = DequantizeLinear(u, s, z)
  k = DequantizeLinear(w, s, o)  c = MatMul(d, k)  e = QuantizeLinear(c, s, z)  f = DequantizeLinear(e, s, z)
  y = MatMul(f, v) }"""


def test_integer_kernels_are_told_from_float_ones(save: Save) -> None:
    rng = np.random.default_rng(0)
    path = save(
        QDQ,
        w=rng.integers(-60, 60, (8, 6)).astype("i1"),
        z=np.array(128, "u1"),
        o=np.array(0, "i1"),
        v=floats(6, 4),
    )
    found = integer_macs(path, {"x": floats(2, 8)})
    assert (found.total, found.integer) == (2 * 8 * 6 + 2 * 6 * 4, 2 * 8 * 6)
    assert list(found.floats.values()) == [2 * 6 * 4]


def test_feed_that_does_not_fit(save: Save) -> None:
    with pytest.raises(SessionError, match="failed to run"):
        integer_macs(
            save("g (float[2, 8] x) => (float[2, 6] y) { y = MatMul(x, w) }", w=floats(8, 6)), {"x": floats(3, 3)}
        )


def test_a_census_that_falls_is_missed_unless_integers_took_over() -> None:
    before = {"FusedMatMul": 3, "nchwc.MaxPool": 1, "nchwc.Conv": 2, "BiasGelu": 3, "LayerNormalization": 7}
    after = {"LayerNormalization": 7, "BiasGelu": 1}
    assert falls(before, after) == {op: (n, after.get(op, 0)) for op, n in sorted(before.items()) if n != 7}
    integers = {**after, "MatMulIntegerToFloat": 3}
    assert falls(before, integers) == {"BiasGelu": (3, 1)}
    assert falls(integers, after) == {"MatMulIntegerToFloat": (3, 0)}, "integers that are lost are missed"
    assert falls(after, before) == {}
