"""Patterns: one equation meets every spelling of it, and nothing else."""

from __future__ import annotations

import itertools
import random
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

from optimizer.core.graph import Model, Value
from optimizer.core.model import read
from optimizer.core.pattern import (
    Algebra,
    Compiled,
    Match,
    Normal,
    Pattern,
    approx,
    const,
    let,
    number,
    op,
    optional,
    rest,
    scalar,
    stash,
    values,
)
from optimizer.core.propagate import propagate

x, y, z, w = values("x y z w")
c, d = const("c d")
s, t = scalar("s"), scalar("t")


def model(text: str, opset: int = 20) -> Model:
    m = read(parser.parse_model(f'<ir_version: 8, opset_import: ["": {opset}]>\n{text}'))
    propagate(m)
    return m


def values_of(m: Model) -> dict[str, Value]:
    """Every value of the main graph by name."""
    g = m.graph
    made = [o for n in g for o in n.outputs]
    return {v.name: v for v in [*g.inputs, *g.initializers, *made]}


def match(pattern: Pattern, text: str, where: Any = None, *, opset: int = 20, root: str = "r") -> Match | None:
    """The match at the value `r`."""
    accept = None if where is None else lambda m: where(m.captured)
    return Compiled(pattern).match(values_of(model(text, opset))[root], Algebra(), accept)


def captured(pattern: Pattern, text: str, where: Any = None, **more: Any) -> dict[str, Any] | None:
    """What is captured at `r`, values by their names."""
    m = match(pattern, text, where, **more)
    return None if m is None else {k: v.name if isinstance(v, Value) else v for k, v in m.captured.items()}


def product(text: str) -> Normal:
    return Algebra().product(values_of(model(text))["r"])


def floats(body: str, constants: str = "", extra: str = "") -> str:
    """A graph of float inputs x, y, z of one shape, whose output is r."""
    inner = f"<{constants}> " if constants else ""
    return f"g (float[N, 4] x, float[N, 4] y, float[N, 4] z{extra}) => (float[N, 4] r) {inner}{{ {body} }}"


# ── products ──────────────────────────────────────────────────────────────────────────────────────────────────────────

C = "float two = {2}, float half = {0.5}, float three = {3}, float minus = {-1}, float zero = {0}, float[1] one = {1}"


@pytest.mark.parametrize(
    "body",
    [
        "a = Mul(x, two) b = Mul(a, y) r = Div(b, z)",
        "a = Div(x, half) b = Div(y, z) r = Mul(b, a)",
        "i = Reciprocal(z) a = Mul(two, i) b = Mul(y, a) r = Mul(x, b)",
        "a = Neg(x) b = Mul(y, a) q = Mul(z, half) p = Neg(q) r = Div(b, p)",
        "a = Mul(z, half) b = Div(x, a) r = Mul(b, y)",
        "a = Pow(z, minus) b = Mul(a, y) q = Mul(two, x) r = Mul(q, b)",
    ],
)
def test_product_in_any_spelling(body: str) -> None:
    assert captured(2 * x * op.Relu(y) / z, floats("y1 = Relu(y) " + body.replace("y)", "y1)").replace("y,", "y1,"), C))


@pytest.mark.parametrize("order", list(itertools.permutations("xyz"))[:4])
def test_product_of_three_in_any_association(order: tuple[str, ...]) -> None:
    a, b, e = order
    pattern = op.Sin(x) * op.Cos(y) * op.Tan(z)
    made = "x1 = Sin(x) y1 = Cos(y) z1 = Tan(z) "
    assert captured(pattern, floats(f"{made} p = Mul({a}1, {b}1) r = Mul(p, {e}1)"))
    assert captured(pattern, floats(f"{made} p = Mul({a}1, {b}1) r = Mul({e}1, p)"))


@pytest.mark.parametrize(
    ("body", "exponent"),
    [
        ("r = Mul(x, x)", 2),
        ("r = Pow(x, two)", 2),
        ("a = Mul(x, x) r = Mul(a, x)", 3),
        ("r = Pow(x, three)", 3),
        ("a = Mul(x, x) r = Reciprocal(a)", -2),
        ("r = Sqrt(x)", 0.5),
        ("r = Pow(x, half)", 0.5),
        ("a = Sqrt(x) r = Reciprocal(a)", -0.5),
        ("a = Reciprocal(x) r = Pow(a, three)", -3),
    ],
)
def test_power(body: str, exponent: float) -> None:
    text = floats(body, C)
    assert captured(x**exponent, text) == {"x": "x"}
    assert match(x**-exponent, text) is None


def test_root_of_a_product_is_not_the_product_of_roots() -> None:
    text = floats("a = Mul(x, y) r = Sqrt(a)")
    assert match(x**0.5 * y**0.5, text) is None
    assert captured(let("p", x * y) ** 0.5, text) == {"p": "a", "x": "x", "y": "y"}


def test_square_of_a_root_is_a_value_of_its_own() -> None:
    """(√x)² is x only where x is not negative."""
    for body in ("a = Sqrt(x) r = Pow(a, two)", "a = Pow(x, half) r = Pow(a, two)"):
        assert [(v.name, e) for v, e in product(floats(body, C)).items] == [("a", 2)]


def test_scalar_is_the_coefficient_or_one() -> None:
    pattern = s * op.Relu(x)
    assert captured(pattern, floats("a = Relu(x) b = Mul(a, three) r = Div(b, two)", C)) == {"s": 1.5, "x": "x"}
    inner = op.Exp(pattern)
    assert captured(inner, floats("a = Relu(x) r = Exp(a)")) == {"s": 1.0, "x": "x"}
    assert captured(inner, floats("a = Relu(x) b = Neg(a) r = Exp(b)")) == {"s": -1.0, "x": "x"}


def test_zero_is_no_coefficient() -> None:
    assert captured(op.Exp(s * op.Relu(x)), floats("a = Relu(x) b = Mul(a, zero) r = Exp(b)", C)) is None


def test_constants_that_overflow_together_stay_apart() -> None:
    text = "g (double[4] x) => (double[4] r) <double k = {%s}> { a = %s(x, k) r = %s(a, k) }"
    for k in ("1e300", "1e-300"):
        form = product(text % (k, "Mul", "Mul"))
        assert form.constant == 1 and [v.name for v, _ in form.items] == ["r"] and not form.nodes
    form = Algebra().sum(values_of(model(text % ("1.5e308", "Add", "Add")))["r"])
    assert form.constant == 0 and [v.name for v, _ in form.items] == ["r"] and not form.nodes


def test_rest_of_a_product() -> None:
    pattern = op.Exp(op.Relu(x) * rest("others"))
    m = match(pattern, floats("a = Relu(x) b = Mul(a, y) q = Div(b, z) r = Exp(q)"))
    assert m is not None and [(v.name, e) for v, e in m.captured["others"]] == [("y", 1), ("z", -1)]
    alone = match(pattern, floats("a = Relu(x) r = Exp(a)"))
    assert alone is not None and alone.captured["others"] is None


# ── sums ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "body",
    [
        "a = Add(x1, two) r = Sub(a, y1)",
        "a = Sub(two, y1) r = Add(x1, a)",
        "a = Sub(y1, x1) r = Sub(two, a)",
        "n = Neg(y1) r = Sum(x1, n, two)",
        "a = Sub(x1, minus) b = Sub(a, y1) r = Sum(b, one)",
        "a = Sub(y1, two) n = Neg(a) r = Add(n, x1)",
    ],
)
def test_sum_in_any_spelling(body: str) -> None:
    text = floats("x1 = Sin(x) y1 = Cos(y) " + body, C)
    assert captured(2 + op.Sin(x) - op.Cos(y), text) == {"x": "x", "y": "y"}
    assert match(2 + op.Sin(x) + op.Cos(y), text) is None
    assert captured(op.Sin(x) - op.Cos(y) + s, text) == {"s": 2.0, "x": "x", "y": "y"}


def test_minus_a_product_is_a_product_with_a_minus() -> None:
    for body in ("p = Mul(three, y1) r = Sub(x1, p)", "m = Neg(three) p = Mul(m, y1) r = Add(x1, p)"):
        body = body.replace("m = Neg(three) p = Mul(m, y1)", "q = Mul(three, y1) p = Neg(q)")
        text = floats("x1 = Sin(x) y1 = Cos(y) " + body, C)
        assert captured(op.Sin(x) - 3 * op.Cos(y), text) == {"x": "x", "y": "y"}
    text = floats("x1 = Sin(x) y1 = Cos(y) p = Mul(k, y1) r = Add(x1, p)", "float k = {-3}")
    assert captured(op.Sin(x) - 3 * op.Cos(y), text) == {"x": "x", "y": "y"}


def test_rest_of_a_sum() -> None:
    m = match(
        op.Exp(op.Relu(x) + rest("more")), floats("a = Relu(x) b = Sub(y, a) n = Neg(b) q = Add(n, z) r = Exp(q)")
    )
    assert m is not None and [(v.name, e) for v, e in m.captured["more"]] == [("y", -1), ("z", 1)]


# ── what normal forms may look through ────────────────────────────────────────────────────────────────────────────────


def test_only_values_read_once_are_looked_through() -> None:
    pattern = op.Sin(x) * op.Cos(y) * op.Tan(z)
    made = "x1 = Sin(x) y1 = Cos(y) z1 = Tan(z) p = Mul(x1, y1) "
    assert match(pattern, floats(made + "r = Mul(p, z1)"))
    assert match(pattern, floats(made + "q = Mul(p, z1) r = Add(q, p)"), root="q") is None
    shared = f"g (float[4] x, float[4] y, float[4] z) => (float[4] r, float[4] p) {{ {made} r = Mul(p, z1) }}"
    assert match(pattern, shared) is None


def test_algebra_is_of_floats_only() -> None:
    """Integer division truncates: (x / 2) · 2 is not x."""
    text = "g (int64[4] x) => (int64[4] r) <int64 two = {2}> { h = Relu(x) a = Div(h, two) r = Mul(a, two) }"
    assert match(op.Relu(x) * 1.0, text) is None
    assert match(op.Mul(op.Div(x, 2), 2), text) is not None


def test_long_chains_cost_no_more_than_their_length() -> None:
    count = 3000
    nodes = [helper.make_node("Add", [f"v{i}", f"x{i % 7}"], [f"v{i + 1}"]) for i in range(count)]
    inputs = [helper.make_tensor_value_info(n, 1, [4]) for n in ["v0", *(f"x{i}" for i in range(7))]]
    g = helper.make_graph(nodes, "g", inputs, [helper.make_tensor_value_info(f"v{count}", 1, [4])])
    m = read(helper.make_model(g, opset_imports=[helper.make_opsetid("", 20)], ir_version=8))
    propagate(m)
    algebra = Algebra()
    looked = sum(len(algebra.sum(n.output).items) for n in m.graph)
    assert looked < 40 * count


def test_random_products_and_sums_are_what_they_compute() -> None:
    """The normal form of a random expression evaluates to the expression."""
    draw = random.Random(7)
    for _ in range(200):
        lines: list[str] = []
        leaves = ["x", "y", "z", "two", "half", "three", "minus"]
        kinds = ("Mul", "Div", "Neg", "Reciprocal", "Square") if draw.random() < 0.5 else ("Add", "Sub", "Neg", "Sum")

        def grow(depth: int, leaves: list[str], kinds: tuple[str, ...], lines: list[str]) -> str:
            if depth == 0 or draw.random() < 0.2:
                return draw.choice(leaves)
            kind = draw.choice(kinds)
            count = {"Neg": 1, "Reciprocal": 1, "Square": 1, "Sum": 3}.get(kind, 2)
            names = [grow(depth - 1, leaves, kinds, lines) for _ in range(count)]
            out = f"t{len(lines)}"
            call = f"Pow({names[0]}, two)" if kind == "Square" else f"{kind}({', '.join(names)})"
            lines.append(f"{out} = {call}")
            return out

        top = grow(4, leaves, kinds, lines)
        if not lines or top != f"t{len(lines) - 1}":
            continue
        m = model(floats(" ".join(lines) + f" r = Identity({top})", C))
        root = values_of(m)[top]
        product = "Mul" in kinds
        form = Algebra().product(root) if product else Algebra().sum(root)
        given = {"x": 1.3, "y": 0.7, "z": 2.1}
        numbers = {"two": 2.0, "half": 0.5, "three": 3.0, "minus": -1.0}
        env: dict[str, float] = {**given, **numbers}
        for n in m.graph:
            a = [env[v.name] for v in n.inputs if v is not None]
            env[n.output.name] = {
                "Mul": lambda a: a[0] * a[1], "Div": lambda a: a[0] / a[1], "Neg": lambda a: -a[0],
                "Reciprocal": lambda a: 1 / a[0], "Pow": lambda a: a[0] ** a[1], "Add": lambda a: a[0] + a[1],
                "Sub": lambda a: a[0] - a[1], "Sum": sum, "Identity": lambda a: a[0],
            }[n.op](a)  # fmt: skip
        got = form.constant
        for v, e in form.items:
            got = got * env[v.name] ** e if product else got + e * env[v.name]
        assert got == pytest.approx(env[top], rel=1e-12), lines


# ── the root ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_remainder_at_the_root() -> None:
    m = match(
        0.5 * op.Relu(x) * op.Cos(y), floats("a = Relu(x) b = Cos(y) p = Mul(a, z) q = Mul(p, b) r = Mul(q, two)", C)
    )
    assert m is not None and m.remainder is not None
    assert m.remainder.constant == 4 and [(v.name, e) for v, e in m.remainder.items] == [("z", 1)]
    inside = op.Exp(op.Relu(x) * op.Cos(y))
    assert match(inside, floats("a = Relu(x) b = Cos(y) p = Mul(a, z) q = Mul(p, b) r = Exp(q)")) is None


def test_a_square_holds_a_factor() -> None:
    m = match(y * op.Relu(y), floats("a = Relu(x) p = Mul(x, a) r = Mul(p, x)"))
    assert m is not None and m.remainder is not None
    assert m.captured["y"].name == "x" and [(v.name, e) for v, e in m.remainder.items] == [("x", 1)]


@pytest.mark.parametrize("pattern", [x, c, s, rest("q"), optional(x), x | op.Relu(x)])
def test_a_root_is_a_node_or_a_formula(pattern: Pattern) -> None:
    with pytest.raises(TypeError):
        Compiled(pattern)


def test_a_name_stands_for_one_thing() -> None:
    with pytest.raises(TypeError, match="'x' stands for two things"):
        Compiled(op.Add(x, values("x")[0]))


def test_scalar_and_rest_cannot_be_inverted() -> None:
    for wrong in (lambda: x / s, lambda: x - rest("q"), lambda: 1 / (s * x)):
        with pytest.raises(TypeError):
            wrong()


# ── literals ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def literal(dtype: int, value: float, pattern: Pattern) -> bool:
    """Whether the pattern meets r = Relu(x) · constant, as a node and as a product."""
    array = helper.make_tensor("k", dtype, [1], [value])
    stored = numpy_helper.to_array(array)
    nodes = [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("Mul", ["a", "k"], ["r"])]
    io = [helper.make_tensor_value_info(n, dtype, [4]) for n in "xr"]
    g = helper.make_graph(nodes, "g", io[:1], io[1:], [numpy_helper.from_array(stored, "k")])
    m = read(helper.make_model(g, opset_imports=[helper.make_opsetid("", 20)], ir_version=8))
    propagate(m)
    return Compiled(op.Exp(pattern) | pattern).match(values_of(m)["r"], Algebra()) is not None


T = TensorProto
SQRT2 = 2**0.5


@pytest.mark.parametrize(
    ("dtype", "value", "same"),
    [
        (T.FLOAT, 1.41421356, True),
        (T.FLOAT, 1.4142135, True),
        (T.FLOAT, 1.4142130, False),
        (T.FLOAT, 1.4150, False),
        (T.DOUBLE, SQRT2, True),
        (T.DOUBLE, 1.41421356, False),
        (T.FLOAT16, 1.4142, True),
        (T.FLOAT16, 1.418, False),
        (T.BFLOAT16, 1.4142, True),
        (T.BFLOAT16, 1.45, False),
    ],
)
def test_literal_to_the_last_place_of_the_stored_dtype(dtype: int, value: float, same: bool) -> None:
    assert literal(dtype, value, op.Mul(op.Relu(x), SQRT2)) is same


def test_literal_in_a_product_inside() -> None:
    for k, same in ((0.70710678, True), (0.7072, False)):
        text = floats("a = Relu(x) b = Mul(a, k) r = Exp(b)", f"float k = {{{k}}}")
        assert (match(op.Exp(op.Relu(x) / SQRT2), text) is not None) is same


def test_zero_exactly() -> None:
    for k, same in (("0", True), ("-0", True), ("1e-9", False), ("1e-38", False)):
        text = floats("a = Relu(x) r = Add(a, k)", f"float k = {{{k}}}")
        assert (match(op.Add(op.Relu(x), 0.0), text) is not None) is same
    text = floats("a = Relu(x) b = Add(a, k) r = Exp(b)", "float k = {1e-9}")
    assert match(op.Exp(op.Relu(x) + y), text) is None
    assert match(op.Exp(op.Relu(x) + 0.0), text) is None


def test_approx_is_wider() -> None:
    for k, same in ((0.7978846, True), (0.79788, True), (0.7979, False)):
        text = floats("a = Relu(x) b = Mul(a, k) r = Exp(b)", f"float k = {{{k}}}")
        assert (match(op.Exp(approx((2 / np.pi) ** 0.5, 1e-5) * op.Relu(x)), text) is not None) is same


def test_literal_of_integers_is_exact() -> None:
    text = f"g (int64[4] x) => (int64[4] r) <int64 k = {{{2**53 + 1}}}> {{ r = Add(x, k) }}"
    assert match(op.Add(x, 2**53 + 1), text) is not None
    assert match(op.Add(x, 2**53), text) is None


def test_overridable_initializer_is_no_constant() -> None:
    text = "g (float[4] x, float k) => (float[4] r) <float k = {0}> { r = Add(x, k) }"
    assert match(op.Add(x, 0.0), text) is None
    assert match(op.Add(x, c), text) is None
    assert captured(op.Add(x, y), text) == {"x": "x", "y": "k"}


def test_number_of_any_one_element_shape() -> None:
    v = values_of(model(floats("r = Add(x, k)", "float[1, 1] k = {0.25}, float[2] two = {1, 2}")))
    assert number(v["k"]) == 0.25 and number(v["x"]) is None and number(None) is None
    assert captured(op.Add(x, s), floats("r = Add(x, k)", "float[1, 1] k = {0.25}")) == {"x": "x", "s": 0.25}


# ── sharing ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_one_object_is_one_value() -> None:
    pattern = op.Add(op.Sin(x), op.Cos(x))
    assert captured(pattern, floats("a = Sin(x) b = Cos(x) r = Add(a, b)")) == {"x": "x"}
    assert match(pattern, floats("a = Sin(x) b = Cos(y) r = Add(a, b)")) is None
    inner = op.Relu(x)
    twice = op.Add(op.Sin(inner), op.Cos(inner))
    assert match(twice, floats("q = Relu(x) a = Sin(q) b = Cos(q) r = Add(a, b)"))
    assert match(twice, floats("q = Relu(x) p = Relu(x) a = Sin(q) b = Cos(p) r = Add(a, b)")) is None


def test_or_equal_small_constants() -> None:
    pattern = op.Add(op.Mul(x, c), op.Mul(y, c))
    body = "a = Mul(x, k) b = Mul(y, l) r = Add(a, b)"
    assert match(pattern, floats(body, "float[4] k = {1,2,3,4}, float[4] l = {1,2,3,4}"))
    assert match(pattern, floats(body, "float[4] k = {1,2,3,4}, float[4] l = {1,2,3,5}")) is None
    assert match(pattern, floats(body, "float[4] k = {1,2,3,4}, float[1, 4] l = {1,2,3,4}")) is None


def test_a_choice_made_once_is_made_for_equal_constants() -> None:
    choice = c | op.Relu(x)
    pattern = op.Add(op.Mul(y, choice), op.Mul(z, choice))
    body = "a = Mul(x, k) b = Mul(y, l) r = Add(a, b)"
    assert match(pattern, floats(body, "float[4] k = {1,2,3,4}, float[4] l = {1,2,3,4}"))
    assert match(pattern, floats(body, "float[4] k = {1,2,3,4}, float[4] l = {1,2,3,5}")) is None


def test_captures_of_what_failed_are_forgotten() -> None:
    pattern = op.Tan(op.Add(op.Sin(x), op.Exp(y)) | op.Add(op.Sin(z), w))
    m = match(pattern, floats("a = Sin(x) q = Add(a, z) r = Tan(q)"))
    assert m is not None and m.captured.keys() == {"z", "w"} and [n.op for n in m.inner] == ["Tan", "Add", "Sin"]


# ── alternatives, options, where ──────────────────────────────────────────────────────────────────────────────────────


def test_where_no_tries_the_next_alternative() -> None:
    text = floats("r = Add(x, y)")
    seen: list[tuple[str, str]] = []

    def where(m: dict[str, Any]) -> bool:
        seen.append((m["z"].name, m["w"].name))
        return m["z"].name == "y"

    assert captured(op.Add(z, w), text, where) == {"z": "y", "w": "x"}
    assert seen == [("x", "y"), ("y", "x")]
    assert captured(op.Add(z, w), text, lambda m: False) is None


def test_alternatives_in_order_with_backtracking() -> None:
    p = op.Relu(x)
    guarded = p | op.Where(op.IsNaN(p), 0.0, p)
    pattern = op.Exp(guarded)
    zero = "float zero = {0}"
    assert captured(pattern, floats("a = Relu(x) r = Exp(a)")) == {"x": "x"}
    assert captured(pattern, floats("a = Relu(x) n = IsNaN(a) q = Where(n, zero, a) r = Exp(q)", zero)) == {"x": "x"}
    assert match(pattern, floats("a = Relu(x) b = Relu(y) n = IsNaN(a) q = Where(n, zero, b) r = Exp(q)", zero)) is None


def test_an_alternative_that_is_a_product_is_multiplied_out() -> None:
    inner = op.Relu(x) * op.Cos(y)
    pattern = op.Exp(stash(inner) * z)
    made = "a = Relu(x) b = Cos(y) "
    assert match(pattern, floats(made + "p = Mul(a, z) q = Mul(p, b) r = Exp(q)"))
    text = (
        "g (float16[4] x, float16[4] y, float[4] z) => (float[4] r) { a = Relu(x) b = Cos(y) p = Mul(a, b) "
        "h = Cast<to = 1>(p) q = Mul(h, z) r = Exp(q) }"
    )
    assert match(pattern, text)


def test_stash_is_a_value_or_a_cast_of_it() -> None:
    h = stash(x)
    pattern = op.Add(op.Sin(h), op.Cos(h))
    assert captured(pattern, floats("a = Sin(x) b = Cos(x) r = Add(a, b)")) == {"x": "x"}
    text = "g (float16[4] x) => (float[4] r) { h = Cast<to = 1>(x) a = Sin(h) b = Cos(h) r = Add(a, b) }"
    assert captured(pattern, text) == {"x": "h"}
    assert captured(pattern, text, lambda m: m["x"].name == "x") == {"x": "x"}


def test_optional_operand() -> None:
    pattern = op.Conv(x, c, optional(d), kernel_shape=...)
    head = "g (float[1, 1, 4] x, float[1] e) => (float[1, 1, 2] r) <float[1, 1, 3] w = {1,2,3}, float[1] b = {1}>"
    assert captured(pattern, head + "{ r = Conv(x, w) }") == {"x": "x", "c": "w"}
    assert captured(pattern, head + "{ r = Conv(x, w, b) }") == {"x": "x", "c": "w", "d": "b"}
    assert captured(pattern, head + "{ r = Conv(x, w, e) }") is None


def test_optional_operand_in_the_middle() -> None:
    pattern = op.Clip(x, optional(c), d)
    text = floats('r = Clip(x, "", k)', "float k = {6}")
    assert captured(pattern, text) == {"x": "x", "d": "k"}
    assert match(op.Clip(x, c, d), text) is None
    assert match(op.Clip(x, c), floats('r = Clip(x, k, "")', "float k = {6}"))


def test_commutative_operands_either_way_others_not() -> None:
    assert match(op.Add(op.Sin(x), y), floats("a = Sin(x) r = Add(y, a)"))
    assert match(op.Sub(op.Sin(x), y), floats("a = Sin(x) r = Sub(y, a)")) is None
    assert match(op.Max(op.Sin(x), y), floats("a = Sin(x) r = Max(y, a)"))


# ── nodes and attributes ──────────────────────────────────────────────────────────────────────────────────────────────


def test_axes_are_operands_at_every_opset_and_count_modulo_rank() -> None:
    pattern = op.ReduceMean(x, c)
    old = "g (float[N, 4] x) => (float[N, 1] r) { r = ReduceMean<axes = [-1]>(x) }"
    new = "g (float[N, 4] x) => (float[N, 1] r) <int64[1] a = {-1}> { r = ReduceMean(x, a) }"
    for text, opset in ((old, 17), (new, 20)):
        m = match(pattern, text, opset=opset)
        assert m is not None and m.captured["c"].const.tolist() == [1]


def test_axis_counts_modulo_rank() -> None:
    for axis in (-1, 1):
        text = floats(f"r = Softmax<axis = {axis}>(x)")
        assert match(op.Softmax(x, axis=-1), text) and match(op.Softmax(x, axis=1), text)
        assert match(op.Softmax(x, axis=0), text) is None
        assert captured(op.Softmax(x, axis=y), text) == {"x": "x", "y": 1}


def test_flatten_axis_may_be_the_rank() -> None:
    text = "g (float[3, 4] x) => (float[12, 1] r) { r = Flatten<axis = 2>(x) }"
    assert match(op.Flatten(x, axis=2), text)
    assert match(op.Flatten(x, axis=0), text) is None


@pytest.mark.parametrize(("axis", "meets"), [(-1, True), (2, True), (1, False)])
def test_old_softmax_over_several_axes_is_not_the_new_one(axis: int, meets: bool) -> None:
    text = f"g (float[2, 3, 4] x) => (float[2, 3, 4] r) {{ r = Softmax<axis = {axis}>(x) }}"
    assert (match(op.Softmax(x, axis=...), text, opset=11) is not None) is meets
    default = "g (float[2, 3, 4] x) => (float[2, 3, 4] r) { r = Softmax(x) }"
    assert match(op.Softmax(x, axis=-1), default, opset=11) is None
    assert match(op.Softmax(x, axis=-1), default, opset=13)


def test_an_operation_that_meant_something_else_does_not_match() -> None:
    text = "g (float[1, 1, 2] x) => (float[1, 1, 4] r) <float[3] k = {1, 1, 2}> { r = Resize(x, k) }"
    assert match(op.Resize(x, y), text, opset=10) is None


def test_an_attribute_that_is_not_named_has_its_default() -> None:
    text = "g (float[4, N] x, float[4, 3] y) => (float[N, 3] r) { r = Gemm<transA = 1>(x, y) }"
    assert match(op.Gemm(x, y), text) is None
    assert match(op.Gemm(x, y, transA=1), text)
    assert match(op.Gemm(x, y, transA=...), text)
    assert match(op.Gemm(x, y), text.replace("transA = 1", "transB = 0, alpha = 1.0").replace("[4, N]", "[N, 4]"))
    m = match(op.Gemm(x, y, name="gemm"), text)
    assert m is not None and m.captured["gemm"].attributes == {"transA": 1}


def test_an_absent_attribute_is_its_default_that_of_the_newest_opset_where_it_is_younger() -> None:
    head = "g (float[N, 2] x) => (float[N, 2] r) <float[2] g = {1,1}> "
    text = head + "{ r = BatchNormalization<momentum = 0.1>(x, g, g, g, g) }"
    pattern = op.BatchNormalization(x, y, y, y, y, epsilon=s, training_mode=0)
    assert captured(pattern, text, opset=12) == {"x": "x", "y": "g", "s": pytest.approx(1e-5)}
    train = text.replace("momentum = 0.1", "training_mode = 1").replace("r = ", "r, m, v = ")
    assert match(pattern, train, opset=15) is None
    assert match(op.BatchNormalization(x, y, y, y, y, epsilon=s), train, opset=15) is None


def test_one_attribute_pattern_is_one_attribute() -> None:
    pattern = op.Transpose(op.Transpose(x, perm=y), perm=y)
    head = "g (float[2, 3, 4] x) => (float[2, 4, 3] r) { a = Transpose<perm = [0, 2, 1]>(x) "
    text = head + "r = Transpose<perm = [%s]>(a) }"
    assert captured(pattern, text % "0, 2, 1") == {"x": "x", "y": [0, 2, 1]}
    assert match(pattern, text % "0, 1, 2") is None


def test_float_attribute_to_the_last_place() -> None:
    text = floats("r = Elu<alpha = 0.1>(x)")
    assert match(op.Elu(x, alpha=0.1), text) and match(op.Elu(x, alpha=0.1001), text) is None


@pytest.mark.parametrize("change", ["domain", "body", "reference"])
def test_foreign_nodes_bodies_and_references_never_match(change: str) -> None:
    m = model(floats("r = Relu(x)"))
    n = next(iter(m.graph))
    assert Compiled(op.Relu(x)).match(n.output, Algebra())
    if change == "domain":
        n.domain = "com.example"
    elif change == "body":
        n.bodies = (m.graph,)
    else:
        n.set_attributes({"alpha": helper.make_attribute("alpha", 1.0)})
    assert Compiled(op.Relu(x, alpha=...)).match(n.output, Algebra()) is None


def test_a_foreign_node_is_no_algebra() -> None:
    m = model(floats("a = Relu(x) p = Mul(a, y) r = Mul(p, z)"))
    pattern = Compiled(op.Relu(x) * y * z)
    assert pattern.match(values_of(m)["r"], Algebra())
    p = values_of(m)["p"].producer
    assert p is not None
    p.domain = "com.example"
    assert pattern.match(values_of(m)["r"], Algebra()) is None


def test_only_the_first_output_stands_for_the_node() -> None:
    text = "g (float[4] x) => (float[2] a, float[2] r) <int64[2] s = {2, 2}> { a, r = Split(x, s) }"
    assert match(op.Split(x, c, axis=...), text) is None
    assert match(op.Split(x, c, axis=...), text, root="a")


def test_matches_look_into_no_other_graph_through_algebra() -> None:
    """A chain ends where its graph ends: what lies outside cannot go with it."""
    m = model(
        "g (bool c, float[3] x, float[3] z) => (float[3] y) { a = Relu(x) p = Mul(a, z) y = If(c) <"
        "then_branch = t () => (float[3] q) { b = Cos(x) q = Mul(p, b) }, "
        "else_branch = e () => (float[3] w) { w = Relu(x) }> }"
    )
    inner = next(n for n in m.nodes() if n.op == "Mul" and n.graph is not m.graph)
    assert Compiled(op.Relu(x) * y).match(inner.output, Algebra()) is None
    assert {v.name for v, _ in Algebra().product(inner.output).items} == {"p", "b"}


# ── what a sweep asks beforehand ──────────────────────────────────────────────────────────────────────────────────────


def test_needs_roots_names_and_depth() -> None:
    p = Compiled(0.5 * x * (1 + op.Erf(x / SQRT2)))
    assert p.needs == {"Erf"} and p.roots == {"Mul", "Div"} and p.names == {"x"} and p.algebraic
    q = Compiled(op.Transpose(op.Conv(x, c, optional(op.Relu(d))) | op.MatMul(x, c), name="t"))
    assert q.needs == {"Transpose"} and q.roots == {"Transpose"} and not q.algebraic and q.depth == 2 + 1
    assert q.names == {"x", "c", "d", "t"} and q.constants == {"c", "d"}
    assert Compiled(x + y).roots == {"Add", "Sub", "Sum"}
    assert "Pow" in Compiled(x**2).roots
