"""Rules and passes: what a function receives, what is put back, in which order, and that it ends."""

from __future__ import annotations

import time
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper, parser

from optimizer.core.edit import Editor, Fidelity
from optimizer.core.errors import ToolFailure
from optimizer.core.graph import Graph, Node, Value, check, lower
from optimizer.core.model import read
from optimizer.core.pattern import const, let, op, optional, scalar, values
from optimizer.core.propagate import propagate
from optimizer.core.rule import Pass, Rule, decline, procedure, rewrite, rule

x, y, z = values("x y z")
c = const("c")
s = scalar("s")


def editor(text: str | ModelProto, opset: int = 20, **more: Any) -> Editor:
    proto = text
    if isinstance(text, str):
        proto = parser.parse_model(f'<ir_version: 8, opset_import: ["": {opset}]>\n{text}')
    model = read(proto)
    propagate(model)
    return Editor(model, **more)


def apply(e: Editor, *rules: Rule) -> list[str]:
    """The rules' edits, by name, until nothing changes."""
    before = len(e.log)
    Pass("test", rules).run(e)
    check(e.model)
    return [edit.rule for edit in e.log[before:]]


def ops(e: Editor) -> list[str]:
    return [n.op for n in e.model.nodes()]


def floats(body: str, constants: str = "", outputs: str = "float[N, 4] r") -> str:
    inner = f"<{constants}> " if constants else ""
    return f"g (float[N, 4] x, float[N, 4] y, float[N, 4] z) => ({outputs}) {inner}{{ {body} }}"


# ── declaring ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_rule_knows_its_name_equation_fidelity_and_domain() -> None:
    @rule(x * op.Sigmoid(x), domain="everywhere")
    def swish(op: Any, x: Value) -> Any:
        """x · σ(x) → Swish

        More words.
        """
        return op.Swish(x)

    assert (swish.name, swish.equation, swish.domain) == ("swish", "x · σ(x) → Swish", "everywhere")
    assert swish.fidelity is Fidelity.ROUNDING


def test_a_rule_needs_an_equation() -> None:
    with pytest.raises(TypeError, match="no docstring"):

        @rule(op.Relu(x))
        def silent(op: Any) -> Any:
            return None


def test_algebra_is_never_exact() -> None:
    with pytest.raises(TypeError, match="algebra reorders"):

        @rule(op.Exp(x + 1.0), fidelity=Fidelity.EXACT)
        def wrong(op: Any) -> Any:
            """e → e"""

    @rule(op.Exp(op.Add(x, 1.0)), fidelity=Fidelity.EXACT)
    def right(op: Any) -> Any:
        """e → e"""


def test_names_that_nothing_captures_are_told_at_once() -> None:
    with pytest.raises(TypeError, match="'gamma' is not captured"):

        @rule(op.Relu(x))
        def asks(op: Any, gamma: Any) -> Any:
            """a → b"""

    with pytest.raises(TypeError, match="'q' is not captured"):

        @rule(op.Relu(x), where=lambda q: True)
        def asks_in_where(op: Any) -> Any:
            """a → b"""

    with pytest.raises(TypeError, match="also='q'"):

        @rule(op.Relu(x), also=("q",))
        def also(op: Any) -> Any:
            """a → b"""


def test_a_parameter_with_a_default_may_stay_uncaptured() -> None:
    @rule(op.Relu(x), where=lambda x, bias=None: bias is None)
    def shared(op: Any, x: Value, bias: Any = None) -> Any:
        """relu → abs"""
        return op.Abs(x) if bias is None else None

    assert apply(editor(floats("r = Relu(x)")), shared) == ["shared"]


# ── what a function receives ──────────────────────────────────────────────────────────────────────────────────────────


def received(dtype: int, array: np.ndarray[Any, Any]) -> Any:
    """What arrives for a constant of this type."""
    got: list[Any] = []

    @rule(op.Add(x, c))
    def look(op: Any, c: Any) -> Any:
        """x → x"""
        got.append(c)

    node = helper.make_node("Add", ["x", "k"], ["r"])
    io = [helper.make_tensor_value_info(n, dtype, array.shape) for n in "xr"]
    g = helper.make_graph([node], "g", io[:1], io[1:], [numpy_helper.from_array(array, "k")])
    rewrite(editor(helper.make_model(g, opset_imports=[helper.make_opsetid("", 20)], ir_version=8)), [look])
    assert isinstance(got[0], np.ndarray)
    return got[0]


@pytest.mark.parametrize(
    ("dtype", "stored", "size", "arrives"),
    [
        (TensorProto.FLOAT, np.float32, 3, np.float64),
        (TensorProto.FLOAT16, np.float16, 3, np.float64),
        (TensorProto.BFLOAT16, ml_dtypes.bfloat16, 3, np.float64),
        (TensorProto.DOUBLE, np.float64, 3, np.float64),
        (TensorProto.INT64, np.int64, 3, np.int64),
        (TensorProto.FLOAT, np.float32, (1 << 18) + 1, np.float32),
        (TensorProto.FLOAT16, np.float16, (1 << 19) + 1, np.float32),
        (TensorProto.DOUBLE, np.float64, (1 << 17) + 1, np.float64),
    ],
)
def test_constants_arrive_as_arrays_of_floats_to_calculate_with(
    dtype: int, stored: Any, size: int, arrives: Any
) -> None:
    array = (np.arange(size) % 100).astype(stored)
    got = received(dtype, array)
    assert got.dtype == arrives and np.array_equal(got, array.astype(arrives))


def test_values_numbers_nodes_attributes_root_and_what_is_absent() -> None:
    got: dict[str, Any] = {}

    @rule(op.Softmax(op.Conv(x, c, optional(y), name="conv") | op.Mul(x, s), axis=z))
    def look(op: Any, root: Any, x: Any, c: Any, y: Any, s: Any, z: Any, conv: Any) -> Any:
        """x → x"""
        got.update(root=root, x=x, c=c, y=y, s=s, z=z, conv=conv)

    rewrite(editor(floats("a = Mul(x, k) r = Softmax<axis = -1>(a)", "float[1] k = {0.5}")), [look])
    assert got["root"].name == "r" and got["x"].name == "x" and got["s"] == 0.5 and got["z"] == 1
    assert got["c"] is None and got["y"] is None and got["conv"] is None
    text = "g (float[1, 1, 4] x) => (float[1, 1, 4] r) <float[1, 1, 1] w = {2}> { a = Conv(x, w) r = Softmax(a) }"
    rewrite(editor(text), [look])
    assert isinstance(got["conv"], Node) and got["conv"].op == "Conv" and got["c"].dtype == np.float64


def test_where_receives_the_same() -> None:
    seen: list[Any] = []

    @rule(op.Add(x, c), where=lambda c, root: seen.append((c.dtype, root.name)) or c[0] == 2)
    def abs_(op: Any, x: Value) -> Any:
        """x + 2 → |x|"""
        return op.Abs(x)

    two, three = "float[4] k = {2,2,2,2}", "float[4] k = {3,3,3,3}"
    assert apply(editor(floats("r = Add(x, k)", two)), abs_) == ["abs_"]
    assert apply(editor(floats("r = Add(x, k)", three)), abs_) == []
    assert seen[0] == (np.float64, "r")


def test_arrays_take_the_operands_type_and_overflow_declines() -> None:
    @rule(op.Add(x, c))
    def scaled(op: Any, x: Value, c: Any) -> Any:
        """x + c → x · 1000c"""
        return op.Mul(x, c * 1000)

    text = "g (float16[2] x) => (float16[2] r) <float16[2] k = {15360, %s}> { r = Add(x, k) }"
    e = editor(text % "16384")
    assert apply(e, scaled) == ["scaled"]
    n = next(iter(e.model.graph))
    assert n.inputs[1] is not None and n.inputs[1].const is not None
    assert n.inputs[1].const.dtype == np.float16 and n.inputs[1].const.tolist() == [1000, 2000]
    large = editor(text % "23552")  # 1024
    assert apply(large, scaled) == []
    assert large.refused["scaled", "a constant overflows the model's dtype"]


# ── declining ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_decline_leaves_everything_and_is_counted() -> None:
    @rule(op.Relu(x))
    def why(op: Any, x: Value) -> Any:
        """x → x"""
        op.Abs(x)
        decline("not today")

    @rule(op.Relu(x))
    def silently(op: Any, x: Value) -> Any:
        """x → x"""
        return None

    e = editor(floats("r = Relu(x)"))
    before = lower(e.model).SerializeToString(deterministic=True)
    assert apply(e, why, silently) == []
    assert e.refused["why", "not today"] and e.refused["silently", "declined"]
    assert lower(e.model).SerializeToString(deterministic=True) == before


def test_sizes_that_do_not_fit_decline() -> None:
    @rule(op.Add(x, c), where=lambda c: c.reshape(2, 2).any())
    def asks(op: Any, x: Value) -> Any:
        """x + c → |x|"""
        return op.Abs(x)

    @rule(op.Add(x, c))
    def makes(op: Any, x: Value, c: Any) -> Any:
        """x + c → x · c"""
        return op.Mul(x, c.reshape(2, 2))

    e = editor("g (float[3] x) => (float[3] r) <float[3] k = {1,2,3}> { r = Add(x, k) }")
    assert apply(e, asks, makes) == []
    assert [name for name, why in e.refused if "malformed" in why] == ["makes"]


def test_a_younger_operation_declines() -> None:
    @rule(x * op.Sigmoid(x))
    def swish(op: Any, x: Value) -> Any:
        """x · σ(x) → Swish"""
        return op.Swish(x)

    e = editor(floats("a = Sigmoid(x) r = Mul(x, a)"))
    assert apply(e, swish) == [] and any(name == "swish" for name, _ in e.refused)


def test_inner_values_that_others_read_make_it_no_profit_unless_kept() -> None:
    pattern = op.Exp(op.Relu(x))

    @rule(pattern)
    def goes(op: Any, x: Value) -> Any:
        """e^relu → abs"""
        return op.Abs(x)

    @rule(pattern, keep=True)
    def stays(op: Any, x: Value) -> Any:
        """e^relu → abs"""
        return op.Abs(x)

    text = floats("a = Relu(x) r = Exp(a)", outputs="float[N, 4] r, float[N, 4] a")
    assert apply(editor(text), goes) == []
    e = editor(text)
    assert apply(e, stays) == ["stays"] and sorted(ops(e)) == ["Abs", "Relu"]


# ── replacing ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@rule(op.Sin(x) * op.Cos(x))
def half_double(op: Any, x: Value) -> Any:
    """sin x · cos x → ½ · sin(x + x)"""
    return op.Mul(op.Sin(op.Add(x, x)), 0.5)


@pytest.mark.parametrize(
    ("body", "left"),
    [
        ("p = Mul(a, y) r = Mul(p, b)", ["Mul"]),
        ("p = Mul(a, b) r = Div(p, y)", ["Div"]),
        ("q = Sqrt(y) p = Mul(a, q) r = Mul(p, b)", ["Sqrt", "Mul"]),
        ("q = Sqrt(y) p = Div(a, q) r = Mul(p, b)", ["Sqrt", "Div"]),
        ("q = Mul(y, y) p = Div(a, q) r = Mul(p, b)", ["Div", "Div"]),
        ("q = Pow(y, k) p = Mul(a, q) r = Mul(p, b)", ["Pow", "Mul"]),
        ("n = Neg(a) r = Mul(n, b)", ["Neg"]),
        ("n = Mul(a, k) r = Mul(n, b)", ["Mul"]),
        ("r = Mul(a, b)", []),
    ],
)
def test_other_factors_are_put_back(body: str, left: list[str]) -> None:
    import onnxruntime

    text = floats("a = Sin(x) b = Cos(x) " + body, "float k = {0.3}")
    e = editor(text)
    given = lower(e.model)
    assert apply(e, half_double) == ["half_double"]
    assert sorted(ops(e)) == sorted(["Add", "Sin", "Mul", *left])
    random = np.random.default_rng(3)
    feeds = {name: random.random((5, 4), np.float32) + 0.5 for name in "xyz"}
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    want, got = (
        onnxruntime.InferenceSession(m.SerializeToString(), options).run(None, feeds)[0]
        for m in (given, lower(e.model))
    )
    np.testing.assert_allclose(got, want, rtol=2e-6)


def test_other_terms_are_put_back() -> None:
    @rule(op.Sin(x) - op.Cos(x))
    def difference(op: Any, x: Value) -> Any:
        """sin x - cos x → tan x"""
        return op.Tan(x)

    e = editor(floats("a = Sin(x) b = Cos(x) p = Sub(y, b) q = Add(p, k) t = Sub(q, z) r = Add(t, a)", "float k = {2}"))
    assert apply(e, difference) == ["difference"]
    assert sorted(ops(e)) == ["Add", "Add", "Sub", "Tan"]


def test_several_values_at_once() -> None:
    """A norm of a sum whose sum lives on: both are replaced, by one operation of two outputs."""
    total = let("total", op.Add(x, y))

    @rule(op.Relu(total), also=("total",), fidelity=Fidelity.EXACT)
    def both(op: Any, x: Value, y: Value) -> Any:
        """relu(x + y), x + y → |s|, s with s = y + x"""
        s = op.Sum(y, x)
        return op.Abs(s), s

    e = editor(floats("t = Add(x, y) a = Relu(t) r = Mul(a, t)"))
    assert apply(e, both) == ["both"]
    assert sorted(ops(e)) == ["Abs", "Mul", "Sum"]
    assert len(e.log[0].equal) == 2


def test_new_constants_and_existing_values() -> None:
    @rule(op.Shape(x), shape="known", fidelity=Fidelity.EXACT)
    def known_shape(op: Any, x: Value) -> Any:
        """Shape(x) → its dims"""
        return np.asarray([int(d) for d in x.dims or ()], np.int64)

    e = editor("g (float[2, 3] x) => (float[3, 2] r) { s = Shape(x) q = Neg(s) p = Neg(q) r = Reshape(x, p) }")
    assert apply(e, known_shape) == ["known_shape"] and "Shape" not in ops(e)


def test_edits_carry_name_and_fidelity() -> None:
    e = editor(floats("a = Sin(x) b = Cos(x) r = Mul(a, b)"))
    apply(e, half_double)
    assert (e.log[0].rule, e.log[0].fidelity) == ("half_double", Fidelity.ROUNDING)
    assert e.rule == ""


# ── sweeping ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_outermost_root_first() -> None:
    """As LayerNorm before the RMSNorm inside it, whatever the order of the rules."""

    @rule(op.Relu(x))
    def inner(op: Any, x: Value) -> Any:
        """relu → abs"""
        return op.Abs(x)

    @rule(op.Exp(op.Relu(x)))
    def outer(op: Any, x: Value) -> Any:
        """e^relu → sin"""
        return op.Sin(x)

    assert apply(editor(floats("a = Relu(x) r = Exp(a)")), inner, outer) == ["outer"]


def test_what_an_edit_made_is_seen_again_and_what_lies_behind_it() -> None:
    @rule(op.Relu(x))
    def first(op: Any, x: Value) -> Any:
        """relu → abs"""
        return op.Abs(x)

    @rule(op.Neg(op.Exp(op.Sin(op.Abs(x)))))
    def second(op: Any, x: Value) -> Any:
        """-exp(sin(|x|)) → tan"""
        return op.Tan(x)

    assert apply(editor(floats("a = Relu(x) b = Sin(a) c = Exp(b) r = Neg(c)")), first, second) == ["first", "second"]


def test_what_is_read_no_longer_lets_another_rule_look_through() -> None:
    """The second reader of a value goes; then a product may look through it, though nothing near its root changed."""

    @rule(op.Sin(x) * op.Cos(y) * op.Tan(z))
    def product(op: Any, x: Value, y: Value, z: Value) -> Any:
        """sin x · cos y · tan z → max"""
        return op.Max(x, y, z)

    @rule(op.Sub(x, x), fidelity=Fidelity.EXACT)
    def nothing(op: Any, x: Value, root: Value) -> Any:
        """p - p → 0 · x"""
        z = next(v for v in root.graph.inputs if v.name == "z")
        return op.Mul(z, 0.0)

    body = "a = Sin(x) b = Cos(y) c = Tan(z) p = Mul(a, b) w = Sub(p, p) q = Mul(p, c) r = Add(q, w)"
    e = editor(floats(body))
    assert apply(e, product, nothing) == ["nothing", "product"]


def test_a_product_is_read_anew_after_an_edit_inside_it() -> None:
    @rule(op.Relu(x))
    def abs_(op: Any, x: Value) -> Any:
        """relu → abs"""
        return op.Abs(x)

    @rule(op.Abs(x) * op.Cos(y) * z)
    def behind(op: Any, x: Value, y: Value, z: Value) -> Any:
        """|x| · cos y · z → max"""
        return op.Max(x, y, z)

    e = editor(floats("a = Relu(x) b = Cos(y) p = Mul(a, z) q = Abs(x) t = Mul(p, b) r = Add(t, q)"))
    assert rewrite(e, [abs_, behind]) == 2


def test_what_lies_behind_a_long_product_is_seen_again() -> None:
    @rule(op.Abs(x) * op.Cos(y))
    def behind(op: Any, x: Value, y: Value) -> Any:
        """|x| · cos y → max"""
        return op.Max(x, y)

    factors = "".join(f"p{i + 1} = Mul(p{i}, z) " for i in range(12))
    e = editor(floats(f"p0 = Relu(x) {factors} b = Cos(y) t = Mul(p12, b) r = Sin(t)"))
    assert rewrite(e, [behind], "me") == 0
    relu = next(n for n in e.model.graph if n.op == "Relu")
    assert e.replace([relu.output], [e.op.Abs(relu.inputs[0])])
    assert rewrite(e, [behind], "me") == 1


def test_bodies_are_swept_too() -> None:
    @rule(op.Relu(x))
    def abs_(op: Any, x: Value) -> Any:
        """relu → abs"""
        return op.Abs(x)

    e = editor(
        "g (bool c, float[3] x) => (float[3] y) { "
        "y = If(c) <then_branch = t () => (float[3] p) { a = Relu(x) p = Relu(a) }, "
        "else_branch = e () => (float[3] q) { q = If(c) <then_branch = t () => (float[3] u) { u = Relu(x) }, "
        "else_branch = e () => (float[3] v) { v = Sin(x) }> }> }"
    )
    assert apply(e, abs_) == ["abs_"] * 3
    assert [edit.scope for edit in e.log].count(()) == 0


def test_dead_values_are_left_alone() -> None:
    @rule(op.Relu(x), keep=True)
    def abs_(op: Any, x: Value) -> Any:
        """relu → abs"""
        return op.Abs(x)

    e = editor(floats("a = Relu(x) r = Sin(x)"))
    assert apply(e, abs_) == []


def test_a_node_that_others_keep_alive_is_replaced_once() -> None:
    """Dropout's second output is read: the node stays, and is not found again and again."""

    @rule(op.Dropout(x))
    def dropped(op: Any, x: Value) -> Any:
        """dropout → x"""
        return x

    e = editor("g (float[4] x) => (float[4] r, bool[4] m) { a, m = Dropout(x) r = Sin(a) }")
    assert apply(e, dropped) == ["dropped"]


# ── passes ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_steps_may_be_left_out() -> None:
    e = editor(floats("a = Sin(x) b = Cos(x) r = Mul(a, b)"))
    assert Pass("p", (half_double,)).run(e, without=("half_double",)) == 0


def test_procedures_and_rules_take_turns_until_nothing_changes() -> None:
    calls: list[str] = []

    @procedure()
    def relus_to_abs(editor: Editor, graph: Graph) -> None:
        """relu → abs, once a call"""
        calls.append("procedure")
        n = next((n for n in graph if n.op == "Relu"), None)
        if n is not None:
            editor.replace([n.output], [editor.op.Abs(n.inputs[0])])

    @rule(op.Exp(op.Abs(x)), fidelity=Fidelity.EXACT)
    def behind(op: Any, x: Value) -> Any:
        """e^|x| → cos x"""
        return op.Cos(x)

    e = editor(floats("a = Relu(x) b = Exp(a) c = Relu(b) r = Exp(c)"))
    p = Pass("p", (behind, relus_to_abs))
    assert p.run(e) == 4 and ops(e) == ["Cos", "Cos"]
    assert p.run(e) == 0 and p.run(editor(lower(e.model))) == 0
    assert relus_to_abs.equation == "relu → abs, once a call"


@pytest.mark.parametrize("body", ["a = Relu(x) r = Sin(a)", "a = Relu(x) b = Abs(a) r = Sin(b)"])
def test_rules_that_undo_each_other_are_stopped_and_named(body: str) -> None:
    @rule(op.Relu(x))
    def there(op: Any, x: Value) -> Any:
        """relu → abs"""
        return op.Abs(x)

    @rule(op.Abs(x))
    def back(op: Any, x: Value) -> Any:
        """abs → relu"""
        return op.Relu(x)

    with pytest.raises(ToolFailure, match="never settle") as caught:
        Pass("p", (there, back)).run(editor(floats(body)))
    assert caught.value.at is not None and "there" in caught.value.at and "back" in caught.value.at


def test_a_procedure_that_never_settles_is_stopped_and_named() -> None:
    @procedure()
    def restless(editor: Editor, graph: Graph) -> None:
        """relu → relu, again"""
        for n in list(graph):
            editor.replace([n.output], [editor.op.Relu(n.inputs[0])])

    with pytest.raises(ToolFailure) as caught:
        Pass("p", (restless,)).run(editor(floats("r = Relu(x)")))
    assert caught.value.at == "rule restless"


def test_a_reader_who_comes_again_sees_only_what_changed() -> None:
    @rule(op.Relu(x), where=lambda x: seen.append(x.name) or False)
    def look(op: Any) -> Any:
        """x → x"""

    seen: list[str] = []
    e = editor(floats("a = Sin(x) b = Relu(a) c = Cos(y) d = Relu(c) r = Add(b, d)"))
    rewrite(e, [look], "me")
    assert sorted(seen) == ["a", "c"]
    seen.clear()
    rewrite(e, [look], "me")
    assert seen == []
    sin = next(n for n in e.model.graph if n.op == "Sin")
    assert e.replace([sin.output], [e.op.Tan(sin.inputs[0])])
    rewrite(e, [look], "me")
    assert seen == ["a"]
    seen.clear()
    rewrite(e, [look])
    assert sorted(seen) == ["a", "c"]


def test_a_sweep_without_hits_is_cheap() -> None:
    """20,000 nodes, every rule of the catalog: well below a second even on a busy machine."""
    from passes.finish import FINISH
    from passes.recognize import RECOGNIZE
    from passes.simplify import SIMPLIFY

    nodes: list[Any] = []
    at = "x"
    for i in range(4000):
        for k, kind in enumerate(("Add", "Mul", "Relu", "Sub", "Div")):
            ins = [at] if kind == "Relu" else [at, f"c{k}"]
            at = f"v{i}_{k}"
            nodes.append(helper.make_node(kind, ins, [at]))
    constants = [numpy_helper.from_array(np.full(4, k + 2, np.float32), f"c{k}") for k in range(5)]
    io = [helper.make_tensor_value_info(n, 1, [4]) for n in ("x", at)]
    g = helper.make_graph(nodes, "g", io[:1], io[1:], constants)
    e = editor(helper.make_model(g, opset_imports=[helper.make_opsetid("", 20)], ir_version=8))
    rules = [s for p in (SIMPLIFY, RECOGNIZE, FINISH) for s in p.steps if isinstance(s, Rule)]
    start = time.process_time()
    assert rewrite(e, rules) == 0
    assert time.process_time() - start < 1.0
