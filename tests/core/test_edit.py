"""Every guard of the editor, one by one, and what a commit does to names, order, bytes and bodies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnx.reference
import pytest
from onnx import ModelProto, helper, numpy_helper

from optimizer.core.edit import Editor, Evidence, Fidelity
from optimizer.core.form import Decline
from optimizer.core.graph import Graph, Node, Value, check, lift, lower
from optimizer.core.propagate import propagate
from optimizer.core.target import Target
from optimizer.core.tensor import Tensor


class Subject:
    """A model under the editor, its values by name; `asks` proves that a refusal touches nothing and an edit undoes."""

    def __init__(self, text: str, opset: int = 20, **options: Any) -> None:
        proto = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["": {opset}, "com.acme": 1]> {text}')
        self.load(proto, **options)

    def load(self, proto: ModelProto, **options: Any) -> None:
        self.proto = proto
        self.model = lift(proto)
        propagate(self.model)
        self.edit = Editor(self.model, **options)
        self.op = self.edit.op

    def __getitem__(self, name: str) -> Value:
        for g in self.model.graphs():
            for v in (*g.inputs, *g.initializers, *(o for n in g for o in n.outputs)):
                if v.name == name:
                    return v
        raise KeyError(name)

    def node(self, name: str) -> Node:
        maker = self[name].producer
        assert maker is not None
        return maker

    def bytes(self) -> bytes:
        return lower(self.model).SerializeToString()

    def asks(self, old: list[Value], new: list[Any], **options: Any) -> str:
        """ "": accepted, the invariants hold; else the reason."""
        before, bytes_before = self.bytes(), self.edit.bytes
        done = self.edit.replace(old, new, **options)
        check(self.model)
        if not done:
            assert self.bytes() == before and self.edit.bytes == bytes_before
            return self.edit.why
        after = self.bytes()
        self.edit.undo(len(self.edit.log) - 1)
        check(self.model)
        assert self.bytes() == before and self.edit.bytes == bytes_before
        assert self.edit.replace(old, new, **options)
        check(self.model)
        again = lower(self.model)
        onnx.checker.check_model(again)
        assert again.SerializeToString() == after
        return ""

    def ops(self, graph: Graph | None = None) -> list[str]:
        return [n.op for n in graph or self.model.graph]

    def run(self, **feeds: Any) -> list[np.ndarray]:
        feeds = {k: np.asarray(v, bool if isinstance(v, bool) else "f") for k, v in feeds.items()}
        return onnx.reference.ReferenceEvaluator(lower(self.model)).run(None, feeds)


X = [[-1.0, 0.5, 2.0]]
CHAIN = "g (float[n,3] x) => (float[n,3] y) { a = Relu(x)  b = Neg(a)  y = Exp(b) }"
IF = """g (float[n,3] x, bool c) => (float[n,3] y) <float[3] k = {1, 2, 3}> {
    a = Relu(x)
    y = If(c) <then_branch = t () => (float[n,3] s) { s1 = Neg(a)  s = Abs(s1) },
               else_branch = e () => (float[n,3] u) { u = Add(a, k) }>
    z = Tanh(y)
}"""


# ── what may be replaced ──────────────────────────────────────────────────────────────────────────────────────────────


def test_nothing() -> None:
    m = Subject(CHAIN)
    assert m.asks([], []) == m.asks([m["a"]], [m["a"]]) == "nothing to replace"


def test_as_many_new_as_old() -> None:
    m = Subject(CHAIN)
    with pytest.raises(ValueError, match="shorter"):
        m.edit.replace([m["a"], m["b"]], [m["x"]])


def test_values_of_one_graph() -> None:
    m = Subject(IF)
    assert "two graphs" in m.asks([m["a"], m["s1"]], [m["x"], m["a"]])
    assert "none" in m.asks([m.op.Neg(m["x"])], [m["x"]])


@pytest.mark.parametrize("new", ["ab", "ba"])
def test_a_value_is_replaced_once(new: str) -> None:
    m = Subject("g (float[n,3] x) => (float[n,3] y) { a = Relu(x)  b = Relu(x)  y = Add(a, b) }")
    assert m.asks([m["a"], m["a"]], [m["b"], m["x"]]) == "replaces a value twice"
    assert m.asks([m["a"], m["b"]], [m["b"], m["x"]]) == "replaces a value twice"  # a → b → x


def test_inputs_stay() -> None:
    m = Subject(CHAIN)
    assert m.asks([m["x"]], [m.op.Neg(m["x"])]) == "replaces an input"


def test_overridable_initializers_are_inputs_and_no_constants() -> None:
    m = Subject("g (float[3] x) => (float[3] y) <float[3] w = {1, 2, 3}> { y = Add(x, w) }")
    proto = ModelProto()
    proto.CopyFrom(m.proto)
    proto.graph.input.append(helper.make_tensor_value_info("w", 1, [3]))
    assert m["w"].is_const and m["w"].const is not None
    m.load(proto)
    assert not m["w"].is_const and m["w"].const is None
    assert m.asks([m["w"]], [np.zeros(3, "f")]) == "replaces an input"
    assert m.edit.remove([], initializers=[m["w"]]) is False


def test_what_is_gone_is_neither_replaced_nor_read() -> None:
    m = Subject(IF)
    a, inside, k = m["a"], m["s1"], m["k"]
    assert m.edit.replace([m["y"]], [m.op.Add(m["x"], m["x"])], shape="test")  # the If goes, Relu and k with it
    assert (
        m.asks([a], [m["x"]])
        == m.asks([inside], [m["x"]])
        == m.asks([k], [np.ones(3, "f")])
        == "replaces a value that is gone"
    )
    for gone in (a, inside, k):
        assert m.asks([m["z"]], [m.op.Abs(gone)], shape="test") == "reads a value that is gone"


def test_a_left_out_output_is_not_read() -> None:
    m = Subject("g (float[n,3] x) => (float[n,3] y) { a, m = Dropout(x)  b = Cast<to=9>(x) y = Where(b, a, x) }")
    proto = ModelProto()
    proto.CopyFrom(m.proto)
    proto.graph.node[0].output[1] = ""
    m.load(proto)
    assert m.asks([m["b"]], [m.node("a").outputs[1]], shape="test") == "reads an output that is left out"


def test_a_value_of_nowhere_is_not_read() -> None:
    m = Subject(CHAIN)
    v = Value("v")
    v.dtype, v.dims = 1, m["a"].dims
    assert m.asks([m["a"]], [v]) == m.asks([m["a"]], [m.op.Abs(v)]) == "reads a value that nothing makes"


# ── scopes ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_body_reads_outer_values_and_nobody_reads_inner_ones() -> None:
    m = Subject(IF)
    assert m.asks([m["a"]], [m.op.Abs(m["s1"])]) == "reads a value of an inner scope"
    assert m.asks([m["u"]], [m.op.Abs(m["s1"])], shape="test") == "reads a value of an inner scope"
    assert m.asks([m["s1"]], [m.op.Tanh(m["x"])]) == ""
    assert m.ops(m.node("y").bodies[0]) == ["Tanh", "Abs"]


def test_a_body_reads_no_outer_value_made_after_its_owner() -> None:
    m = Subject(IF.replace("z = Tanh(y)", "late = Tanh(x)"))
    assert m.asks([m["s1"]], [m["late"]]) == "reads a value that is made later"
    assert m.asks([m["s1"]], [m.op.Neg(m["y"])], shape="test") == "reads a value that is made later"


# ── graph outputs ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_output_keeps_its_name_and_is_made_by_a_node() -> None:
    m = Subject("g (float[n,3] x) => (float[n,3] y, float[n,3] z) { a = Relu(x)  y = Abs(a)  b = Neg(y)  z = Neg(b) }")
    assert m.asks([m["y"]], [m["x"]]) == m.asks([m["z"]], [m["y"]]) == "a graph output would need an Identity"
    assert m.asks([m["y"]], [np.ones((1, 3), "f")], shape="test") == "a graph output would be a constant"
    assert "another name" in m.asks([m["y"]], [m.op.Abs(m["y"])])
    n = m.op.Neg(m["x"])
    assert m.asks([m["y"], m["z"]], [n, n]) == "one value would be two outputs"
    assert m.asks([m["y"]], [m["a"]]) == ""  # an existing value becomes the output: it takes the name
    assert [v.name for v in m.model.graph.outputs] == ["y", "z"] and m.ops() == ["Relu", "Neg", "Neg"]
    assert m.edit.log[-1].renamed == (("a", "y"),) and m.edit.log[-1].names == (("y", "y"),)
    assert m.run(x=X)[1].tolist() == m.run(x=X)[0].tolist()


def test_an_output_is_not_renamed_because_it_replaces_another_value() -> None:
    m = Subject("g (float[n,3] x) => (float[n,3] y, float[n,3] z) { y = Relu(x)  b = Relu(x)  z = Exp(b) }")
    assert m.asks([m["b"]], [m["y"]]) == ""
    assert [v.name for v in m.model.graph.outputs] == ["y", "z"] and m.ops() == ["Relu", "Exp"]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_one_value_takes_the_output_s_name_of_two(order: tuple[int, int]) -> None:
    m = Subject("g (float[n,3] x) => (float[n,3] y, float[n,3] z) { y = Relu(x)  b = Relu(x)  z = Exp(b) }")
    n = m.op.Abs(m["x"])
    olds = [m["y"], m["b"]]
    assert m.asks([olds[i] for i in order], [n, n]) == ""
    assert [v.name for v in m.model.graph.outputs] == ["y", "z"] and m.ops() == ["Abs", "Exp"]


def test_a_body_s_output() -> None:
    m = Subject(IF)
    assert m.asks([m["s"]], [m["a"]], shape="test") == "a graph output would need an Identity"
    assert m.asks([m["s"]], [m["s1"]]) == ""
    assert m.run(x=X, c=True)[0].tolist() == [[0, -0.5, -2]]


# ── types and shapes ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_type_and_shape_are_the_same() -> None:
    m = Subject(
        """g (float[n,3] x, float[m,3] v, float[n,4] f, int64[n,3] i, float[2,3] c) => (float[n,3] y) {
        a = Relu(x)  y = Exp(a) }"""
    )
    a = m["a"]
    assert m.asks([a], [m["i"]], shape="claimed") == "type differs"
    assert m.asks([a], [m["f"]], shape="claimed") == m.asks([a], [np.zeros(3, "f")], shape="claimed") == "shape differs"
    assert m.asks([a], [m["v"]]) == m.asks([a], [m["c"]]) == "shape not proven"
    assert m.asks([a], [m.op.Add(m["x"], m["v"])]) == "shape not proven"
    assert m.asks([a], [m["v"]], shape="claimed") == ""


def test_unknown_equals_nothing() -> None:
    m = Subject(
        """g (float x, int64[k] s, float t) => (float y) {
        a = com.acme.F(x)  b = com.acme.G(x)  c = Reshape(t, s)  d = Reshape(t, s)  e = Abs(c)
        h = Add(a, b)  i = Add(c, d)  j = Add(h, i)  y = Add(j, e) }"""
    )
    assert m.asks([m["a"]], [m["b"]]) == "type not proven"
    assert m.asks([m["c"]], [m["d"]]) == "shape not proven"


def test_an_unnamed_dim_is_itself() -> None:
    m = Subject("g (float[?,3] x, float[?,3] z) => (float[n,3] y) { a = Relu(x)  b = Tanh(a)  y = Add(b, z) }")
    assert m.asks([m["b"]], [m["z"]]) == "shape not proven"
    assert m.asks([m["b"]], [m["a"]]) == ""


def test_equal_polynomials_are_equal_shapes() -> None:
    m = Subject(
        """g (float[n,3] x, float[m,3] v) => (float[k,3] y) <int64[2] s = {-1, 3}> {
        a = Concat<axis=0>(x, v)  b = Concat<axis=0>(v, x)  c = Concat<axis=0>(x, x)  y = Concat<axis=0>(a, b, c) }"""
    )
    assert m.asks([m["a"]], [m["c"]]) == "shape not proven"
    assert m.asks([m["a"]], [m["b"]]) == ""


def test_the_new_value_inherits_name_type_and_facts() -> None:
    m = Subject("g (float[n,3] x) => (int64[1] y) { s = Shape(x)  k = com.acme.F(s)  y = Mul(k, k) }")
    k = m["k"]
    k.dtype, k.dims, k.known = 7, (2,), np.array([m["x"].dims[0], None], object)
    b = m.op.CumSum(m["s"], 0)
    assert m.asks([k], [b], shape="test") == ""
    assert m["k"] is b and b.known is k.known and b.dims == (2,)


# ── liveness ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_goes_is_what_nobody_reads() -> None:
    m = Subject(
        """g (float[n,3] x) => (float[n,3] y, float[n,3] z) <float[3] k = {1, 2, 3}, float[3] l = {1, 2, 3}> {
        a = Relu(x)  b = Add(a, k)  c = Mul(b, l)  d = Exp(c)  y = Neg(d)  z = Abs(b) }"""
    )
    assert m.asks([m["d"]], [m.op.Tanh(m["x"])]) == ""
    assert m.ops() == ["Relu", "Add", "Tanh", "Neg", "Abs"]  # b lives on in z, c and l do not
    assert [v.name for v in m.model.graph.constants()] == ["k"]
    assert {n.op for n in m.edit.log[-1].gone} == {"Exp", "Mul"}


def test_must_go() -> None:
    m = Subject("g (float[n,3] x) => (float[n,3] y, float[n,3] z) { a = Relu(x)  b = Neg(a)  y = Exp(b)  z = Abs(a) }")
    r = m.op.Tanh(m["x"])
    assert m.asks([m["b"]], [r], must_go=[m.node("a")]) == "an inner value is used elsewhere"
    assert m.asks([m["b"]], [r], must_go=[m.node("b")]) == ""


def test_a_value_read_only_in_a_body_lives() -> None:
    m = Subject(IF)
    assert m.asks([m["s1"]], [m.op.Tanh(m["x"])]) == ""
    assert "Relu" in m.ops()
    assert m.asks([m["u"]], [m.op.Exp(m["x"])], shape="test") == ""
    assert "k" not in [v.name for v in m.model.graph.constants()]  # an outer constant dies with its reader in a body
    assert m["z"].name == "z" and m.run(x=X, c=False)[0].shape == (1, 3)


def test_an_output_lives() -> None:
    m = Subject("g (float[n,3] x) => (float[n,3] y, float[n,3] a) { a = Relu(x)  b = Neg(a)  y = Exp(b) }")
    assert m.asks([m["b"]], [m.op.Tanh(m["x"])]) == ""
    assert m.ops() == ["Relu", "Tanh", "Exp"]


def test_a_node_with_another_output_in_use_stays() -> None:
    m = Subject(
        "g (float[n,4] x) => (float[n,2] y) { a, b = Split<axis=1, num_outputs=2>(x)  c = Neg(a)  y = Add(b, c) }"
    )
    assert m.asks([m["a"]], [m.op.Slice(m["x"], [0], [2], [1])]) == ""
    assert m.ops() == ["Split", "Slice", "Neg", "Add"]
    names = [o.name for n in m.model.graph for o in n.outputs]
    assert (
        len(set(names)) == len(names) and names[2] == "a"
    )  # the new value has the name, what is left of the old a fresh one


def test_so_it_is_with_a_constant() -> None:
    m = Subject(
        "g (float[2,4] x) => (float[2,2] y) { a, b = Split<axis=1, num_outputs=2>(x)  c = Neg(a)  y = Add(b, c) }"
    )
    assert m.asks([m["a"]], [np.ones((2, 2), "f")]) == ""
    assert m["a"].tensor is not None and m.run(x=np.ones((2, 4)))[0].tolist() == [[0, 0], [0, 0]]


def test_wrapping() -> None:
    """Readers of r read |r|; r itself stays and keeps its name."""
    m = Subject("g (float[n,3] x) => (float[n,3] y, float[n,3] z) { r = Relu(x)  y = Neg(r)  z = Exp(r) }")
    assert m.asks([m["r"]], [m.op.Abs(m["r"])]) == ""
    assert m.ops() == ["Relu", "Abs", "Neg", "Exp"] and m["r"].producer.op == "Relu"  # type: ignore[union-attr]


def test_skip_and_norm_are_two_roots() -> None:
    m = Subject(
        """g (float[n,8] x, float[n,8] r, float[8] w) => (float[n,8] y, float[n,8] s) {
        s = Add(x, r)  k = LayerNormalization<axis=-1>(s, w)  b = Neg(s)  y = Add(k, b) }"""
    )
    s = m.op.Sum(m["x"], m["r"])
    assert m.asks([m["k"], m["s"]], [m.op.LayerNormalization(s, m["w"], axis=-1), s]) == ""
    assert m.ops() == ["Sum", "LayerNormalization", "Neg", "Add"]


# ── order ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_late_leaf_is_pulled_up() -> None:
    m = Subject(
        """g (float[n,3] x) => (float[n,3] y) {
        a = Relu(x)  b = Neg(a)  c = Exp(b)  p = Tanh(x)  q = Abs(p)  y = Sum(b, c, q) }"""
    )
    assert m.asks([m["a"]], [m.op.Sigmoid(m["q"])]) == ""
    assert m.ops() == ["Tanh", "Abs", "Sigmoid", "Neg", "Exp", "Sum"]


def test_a_late_leaf_with_a_body_is_pulled_up_with_what_it_captures() -> None:
    m = Subject(
        """g (float[n,3] x, bool c) => (float[n,3] y) {
        a = Relu(x)  b = Neg(a)  p = Tanh(x)
        q = If(c) <then_branch = t () => (float[n,3] s) { s = Neg(p) },
                   else_branch = e () => (float[n,3] u) { u = Abs(p) }>
        y = Add(b, q) }"""
    )
    assert m.asks([m["a"]], [m.op.Sigmoid(m["q"])], shape="test") == ""
    assert m.ops() == ["Tanh", "If", "Sigmoid", "Neg", "Add"]


def test_a_cycle() -> None:
    m = Subject(CHAIN)
    assert m.asks([m["a"]], [m.op.Abs(m["b"])]) == "cycle"
    assert m.asks([m["a"]], [m["b"]]) == "cycle"


def test_a_cycle_through_a_body() -> None:
    m = Subject(IF)
    assert m.asks([m["a"]], [m.op.Abs(m["y"])], shape="test") == "cycle"


def test_two_roots_of_which_one_needs_the_other() -> None:
    m = Subject("g (float[n,3] x) => (float[n,3] y) { q = Relu(x)  w = Neg(q)  k = Abs(w)  y = Add(q, k) }")
    a, b = m.op.Split(m.op.Concat(m["x"], m["w"], axis=1), axis=1, num_outputs=2, outputs=2)
    assert m.asks([m["q"], m["k"]], [a, b]) == "cycle"


def test_a_reader_in_a_body_counts_as_its_owner() -> None:
    m = Subject(IF)
    assert m.asks([m["a"]], [m.op.Tanh(m["x"])]) == ""
    assert m.ops() == ["Tanh", "If", "Tanh"]
    assert m.run(x=X, c=True)[0].shape == (1, 3)


def test_labels_run_out() -> None:
    """A thousand insertions at one place: order is numbered anew, and walks go on."""
    m = Subject(CHAIN)
    for _ in range(1000):
        a = m["a"]
        assert m.edit.replace([a], [m.op.Abs(a)])
    check(m.model)
    assert len(m.model.graph) == 1003


def test_a_walk_goes_on_while_nodes_come_and_go() -> None:
    m = Subject(
        """g (float[n,3] x) => (float[n,3] y) {
        a = Relu(x)  b = Identity(a)  c = Identity(b)  d = Neg(c)  e = Neg(d)  y = Exp(e) }"""
    )
    seen = []
    for n in m.model.graph:
        seen.append(n.op)
        if n.op == "Identity":
            assert m.edit.replace([n.output], [n.inputs[0]])
        if n.op == "Neg":  # itself and the next one go
            assert m.edit.replace([m["e"]], [m.op.Tanh(m.op.Abs(n.inputs[0]))])
    assert seen == ["Relu", "Identity", "Identity", "Neg", "Abs", "Tanh", "Exp"]
    assert m.ops() == ["Relu", "Abs", "Tanh", "Exp"]


# ── bytes ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

WEIGHT = "g (float[n,1000] x) => (float[n,1000] y) <float[1000] w> { y = Mul(x, w) }"


def weights(text: str, budget: float = 1.01) -> Subject:
    proto = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["": 20]> {text.replace(" <float[1000] w>", "")}')
    proto.graph.initializer.append(numpy_helper.from_array(np.ones(1000, "f"), "w"))
    m = Subject(CHAIN)
    m.load(proto, budget=budget)
    return m


def test_a_changed_weight_is_free_and_a_shared_one_is_charged() -> None:
    m = weights(WEIGHT)
    assert m.edit.bytes == 4000
    assert m.asks([m["y"]], [m.op.Mul(m["x"], np.full(1000, 2, "f"))]) == "" and m.edit.bytes == 4000
    m = weights(WEIGHT)
    assert m.asks([m["w"]], [np.full(1000, 2, "f")]) == "" and m.edit.bytes == 4000
    shared = WEIGHT.replace("y = Mul(x, w)", "z = Mul(x, w) y = Add(z, w)")
    m = weights(shared)
    assert m.asks([m["z"]], [m.op.Mul(m["x"], np.full(1000, 2, "f"))]) == "bytes over budget"
    m = weights(shared, budget=2)
    assert m.asks([m["z"]], [m.op.Mul(m["x"], np.full(1000, 2, "f"))]) == "" and m.edit.bytes == 8000
    assert m.edit.replace([m["y"]], [m.op.Neg(m["x"])]) and m.edit.bytes == 0
    m.edit.undo()
    assert m.edit.bytes == 4000


def test_what_a_body_or_a_constant_node_holds_counts() -> None:
    m = Subject(IF.replace("u = Add(a, k)", "l = Constant<value = float[3] {1, 2, 3}>()  u = Add(a, l)"))
    assert m.edit.bytes == 24  # k, which nobody reads, and the body's
    assert m.asks([m["y"]], [m.op.Neg(m["x"])], shape="test") == "" and m.edit.bytes == 12
    one = m.op.Constant(value=Tensor.of(np.ones(1, "f")))
    assert m.asks([m["z"]], [m.op.Add(m["x"], one)], shape="test") == "" and m.edit.bytes == 16


def test_what_goes_makes_room() -> None:
    """A large Constant, or the weights of a branch, go as the edit comes: only the difference is charged."""
    large = np.ones(1000, "f")
    for held in ("k = Constant<value = float[1] {1}>()  a = Add(x, k)", "a = Add(x, x)"):
        m = Subject(f"g (float[n,1000] x) => (float[n,1000] y) {{ {held}  y = Neg(a) }}")
        grown = m.op.Add(m["x"], m.op.Constant(value=Tensor.of(large)))
        assert m.asks([m["a"]], [grown]) == "bytes over budget"
        m.edit.limit = 1 << 20
        assert m.asks([m["a"]], [grown]) == "" and m.edit.bytes == 4000
        m.edit.limit = 4000
        assert m.asks([m["a"]], [m.op.Mul(m["x"], large)]) == "" and m.edit.bytes == 4000


# ── legal on the target ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("opset", "stage", "why"),
    [
        (17, lambda op, x: op.Gelu(x), "Gelu is no operator of opset 17"),
        (20, lambda op, x: op.Nothing(x), "Nothing is no operator"),
        (20, lambda op, x: op.Relu(x, x), "does not take 2 inputs"),
        (20, lambda op, x: op.Relu(x, outputs=2), "does not give 2 outputs"),
        (20, lambda op, x: op.Relu(x, axis=1), "has no attribute axis"),
        (13, lambda op, x: op.Split(x, num_outputs=3, axis=1, outputs=3), "has no attribute num_outputs"),
        (20, lambda op, x: op.Cast(x), "wants the attribute to"),
        (20, lambda op, x: op.Add(None, x), "wants the operand A"),
        (20, lambda op, x: op.BitwiseAnd(x, x), "does not take float"),
        (20, lambda op, x: op.MatMul(x, op.Cast(x, to=11)), "differ in dtype"),
        (20, lambda op, x: op.MatMul(x, np.ones((4, 3))), "inference failed"),
        (20, lambda op, x: op.Add(x, np.ones(5)), "inference failed"),
        (20, lambda op, x: op.LSTM(x, x, x, hidden_size=2), "inference failed"),
        (20, lambda op, x: op.Unsqueeze(x, [7]), "inference failed"),
        (20, lambda op, x: op.FusedThing(x, domain="com.acme"), "is not an operator of target portable"),
        (20, lambda op, x: op.Mul(op.Cast(x, to=10), 1e6), "overflows"),
        (20, lambda op, x: op.Mul(op.Cast(x, to=7), 0.5), "does not fit"),
        (12, lambda op, x: op.ReduceSum(x, op.Shape(x)), "axes is computed"),
    ],
)  # fmt: skip
def test_what_is_illegal_is_declined_while_staging(opset: int, stage: Callable[..., Any], why: str) -> None:
    m = Subject("g (float[n,3] x) => (float[n,3] y) { y = Relu(x) }", opset=opset)
    before = m.bytes()
    with pytest.raises(Decline, match=why):
        stage(m.op, m["x"])
    assert m.bytes() == before


def test_a_target_s_own_operators() -> None:
    m = Subject(
        "g (float[n,3] x) => (float[n,3] y) { y = Relu(x) }", target=Target("acme", contrib=frozenset(["com.acme"]))
    )
    assert m.asks([m["y"]], [m.op.FusedThing(m["x"], domain="com.acme")]) == "type not proven"
    assert m.asks([m["y"]], [m.op.FusedThing(m["x"], domain="com.acme")], shape="elementwise") == ""
    assert m["y"].dtype == 1 and m["y"].dims == m["x"].dims


def test_a_sequence_hands_its_type_on() -> None:
    m = Subject("g (float[n,3] x) => (float y) { s = SequenceConstruct(x)  y = SequenceLength(s) }")
    m.edit.target = Target("acme", contrib=frozenset(["com.acme"]))
    s, new = m["s"], m.op.Pack(m["x"], domain="com.acme")
    assert m.asks([s], [m["x"]], shape="test") == "type differs" and m.asks([s], [new]) == "type not proven"
    assert m.asks([s], [new], shape="elementwise") == "" and new.type is s.type and new.type is not None


def test_operands_take_the_dtype_of_their_fellows() -> None:
    m = Subject("g (float16[n,3] x, int64[n] i) => (float16[n,3] y) { y = Relu(x) }")
    y = m.op.Mul(m["x"], 0.1)
    assert (y.dtype, y.producer.inputs[1].const.dtype) == (10, np.float16)
    assert m.op.Add(m["i"], 1).producer.inputs[1].const.dtype == np.int64
    assert m.op.ReduceSum(m["x"], [1]).producer.inputs[1].const.dtype == np.int64
    assert m.op.Reshape(m["x"], np.array([0, -1], object)).producer.inputs[1].const.dtype == np.int64
    assert m.op.Pow(m["x"], 2).producer.inputs[1].const.dtype == np.int64
    assert m.op.Pow(m["x"], 0.5).producer.inputs[1].const.dtype == np.float16


def test_floats_without_fellows_take_the_dtype_of_the_data() -> None:
    m = Subject("g (double[n,3] x, double[3] v, float[n,3] z) => (double[n,3] y) { y = Relu(x) }")
    y = m.op.BatchNormalization(m["x"], np.ones(3), np.ones(3), m["v"], m["v"])
    assert [v.dtype for v in y.producer.inputs] == [11] * 5  # γ and β have a type parameter of their own
    q = m.op.QuantizeLinear(m["z"], np.asarray(0.1), np.asarray(0, np.int8))
    assert [v.dtype for v in q.producer.inputs] == [1, 1, 3]


def test_attributes_take_their_types() -> None:
    m = Subject("g (float[n,3] x) => (float[n,3] y) { y = Relu(x) }")
    y = m.op.Elu(m["x"], alpha=1)
    t = m.op.Transpose(y, perm=np.array([1, 0]))
    assert m.edit.replace([m["y"]], [m.op.Transpose(t, perm=(1, 0))])
    elu, one, _ = lower(m.model).graph.node
    assert elu.attribute[0].f == 1.0 and list(one.attribute[0].ints) == [1, 0]
    onnx.checker.check_model(lower(m.model))


def test_empty_lists_are_written_with_their_type() -> None:
    m = Subject("g (float x) => (float y) { y = Relu(x) }", opset=11)
    assert m.edit.replace([m["y"]], [m.op.Transpose(m["x"], perm=[])])
    onnx.checker.check_model(lower(m.model), full_check=True)


def test_a_copy_of_a_node() -> None:
    m = Subject("g (float[n,3] x) => (float[3,n] y) { a = com.acme.F<k=1>(x)  y = Transpose<perm=[1,0]>(x) }")
    (b,) = m.edit.stage_like(m.node("a"), [m["x"]], k=2)
    assert b.producer.attributes == {"k": 2}
    (t,) = m.edit.stage_like(m.node("y"))
    assert t.dims == m["y"].dims
    (t,) = m.edit.stage_like(m.node("y"), perm=None)
    assert t.producer.attributes == {}
    with pytest.raises(Decline, match="does not take bool"):
        m.edit.stage_like(m.node("y"), [m.op.IsNaN(m["x"])]) and m.edit.stage_like(
            m.op.Neg(m["x"]).producer, [m.op.IsNaN(m["x"])]
        )
    with pytest.raises(Decline, match="bodies"):
        Subject(IF).edit.stage_like(Subject(IF).node("y"))


def test_outputs_left_out_stay_out() -> None:
    m = Subject("g (float[n,3] x) => (float[n,3] y) { y, m = Dropout(x) }")
    y, mask = m.edit.stage_like(m.node("y"))
    assert m.asks([m["y"]], [y]) == "" and mask.name == ""
    assert list(lower(m.model).graph.node[0].output) == ["y", ""]
    with pytest.raises(AssertionError):
        assert m.asks([m["y"]], [m.op.Identity(mask)], shape="test") == ""


# ── gate ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_gate_is_asked_last_and_sees_the_edit() -> None:
    asked = []

    def gate(editor: Editor, p: Any) -> str | None:
        check(editor.model)
        asked.append((p.id, p.rule, [n.op for n in p.gone], [n.op for n in p.new], [v.name for v in p.leaves]))
        return "limit" if p.id > 1 else None

    m = Subject(CHAIN, gate=gate)
    with m.edit.under("r", Fidelity.ROUNDING, Evidence.NONE):
        assert m.edit.replace([m["a"]], [m["y"]]) is False and not asked  # a cycle: not asked
        assert m.edit.replace([m["a"]], [m.op.Abs(m["x"])], note="why")
        assert m.asks([m["b"]], [m.op.Tanh(m["a"])]) == "limit"
        assert m.edit.remove([m.node("y")]) is False
    assert asked == [(1, "r", ["Relu"], ["Abs"], ["x"]), (2, "r", ["Neg"], ["Tanh"], ["a"])]
    (e,) = m.edit.log
    assert (e.rule, e.fidelity, e.evidence, e.note, e.names) == (
        "r",
        Fidelity.ROUNDING,
        Evidence.NONE,
        "why",
        (("a", "a"),),
    )
    assert m.edit.refused["r", "limit"] == 1 and m.edit.rule == ""


def test_removal_passes_the_gate() -> None:
    m = Subject("g (float[n,3] x) => (float[n,3] y) { a = Neg(x)  y = Relu(x) }", gate=lambda *_: "limit")
    assert m.edit.remove([m.node("a")]) is False and m.edit.why == "limit"


# ── removing, renaming ────────────────────────────────────────────────────────────────────────────────────────────────


def test_remove() -> None:
    m = Subject(IF.replace("z = Tanh(y)", "z = Tanh(y)  w = Neg(k)  v = Abs(w)"))
    before = m.bytes()
    e = m.edit
    assert not e.remove([]) and not e.remove([m.node("w")]) and not e.remove([m.node("y")])
    assert not e.remove([m.node("v"), m.node("s1")]) and not e.remove([], initializers=[m["k"]])
    v = m.node("v")
    assert e.remove([m.node("w"), v, v]) and len(e.log) == 1
    assert not e.remove([v])
    check(m.model)
    assert m.ops() == ["Relu", "If", "Tanh"] and "k" in [c.name for c in m.model.graph.constants()]
    assert e.remove([m.node("z")]) and m.ops() == ["Relu", "If"]
    e.undo()
    check(m.model)
    assert m.bytes() == before


def test_remove_in_a_body_takes_outer_constants_with_it() -> None:
    m = Subject(IF.replace("u = Add(a, k)", "u = Neg(a)  w = Add(a, k)"))
    assert m.edit.remove([m.node("w")])
    assert list(m.model.graph.constants()) == [] and b"Add" not in m.bytes()
    m.edit.undo()
    assert m.bytes() == m.proto.SerializeToString()


def test_remove_initializers_of_several_graphs() -> None:
    text = IF.replace("k = {1, 2, 3}>", "k = {1, 2, 3}, float[3] unread = {1, 2, 3}>")
    m = Subject(text.replace("e () => (float[n,3] u) {", "e () => (float[n,3] u) <float[3] inner = {1, 2, 3}> {"))
    assert m.edit.remove([], initializers=[m["k"], m["inner"]]) is False
    assert m.edit.remove([m.node("s1"), m.node("z")]) is False
    assert m.edit.remove([], initializers=[m["unread"], m["inner"]]) and m.edit.bytes == 12
    assert b"unread" not in m.bytes() and b"inner" not in m.bytes()
    m.edit.undo()
    assert m.bytes() == m.proto.SerializeToString() and m.edit.bytes == 36


def test_rename_reaches_readers_in_bodies() -> None:
    m = Subject(IF)
    values = [m["a"], m["s1"], m["k"]]
    m.edit.rename(values)
    check(m.model)
    assert [v.name for v in values] == ["a_1", "s1_1", "k_1"]
    assert m.edit.log[-1].renamed == (("a", "a_1"), ("s1", "s1_1"), ("k", "k_1"))
    onnx.checker.check_model(lower(m.model))
    assert m.run(x=X, c=False)[0].tolist() == [[1, 2.5, 5]] and m.run(x=X, c=True)[0].tolist() == [[0, 0.5, 2]]
    m.edit.undo()
    assert m.bytes() == m.proto.SerializeToString()
    m.edit.rename([m["s1"]])  # alone in its body
    onnx.checker.check_model(lower(m.model))
    assert b"s1_1" in m.bytes()


def test_initializers_leave_the_inputs_at_ir_3() -> None:
    m = Subject("g (float[3] x) => (float[3] y) <float[3] w = {1, 2, 3}> { y = Add(x, w) }")
    proto = ModelProto()
    proto.CopyFrom(m.proto)
    proto.ir_version = 3
    proto.graph.input.append(helper.make_tensor_value_info("w", 1, ["n"]))
    m.load(proto)
    w, before = m["w"], m.bytes()
    assert m.edit.fix_initializers(m.model.graph) and w.is_const and w.dims == (3,)
    after = lower(m.model)
    assert after.ir_version == 4 and [i.name for i in after.graph.input] == ["x"]
    assert not m.edit.fix_initializers(m.model.graph)
    m.edit.undo()
    assert m.bytes() == before and not w.is_const and w.dims == m.model.graph.inputs[1].dims != (3,)


def test_new_nodes_have_names_of_their_own() -> None:
    m = Subject(CHAIN)
    proto = ModelProto()
    proto.CopyFrom(m.proto)
    for n, name in zip(proto.graph.node, ("r_1", "r_1_2", "other")):
        n.name = name
    m.load(proto)
    with m.edit.under("r"):
        assert m.asks([m["b"]], [m.op.Abs(m.op.Neg(m.op.Tanh(m["a"])))]) == ""
        assert m.asks([m["b"]], [m.op.Neg(m["a"])]) == ""
    assert [n.name for n in m.model.graph] == ["r_1", "r_2", "other"]
    m.edit.undo(1)
    assert [n.name for n in m.model.graph] == ["r_1", "r_1_", "r_1_2_", "r_1_3", "other"]
    assert m.model.node_names == {n.name for n in m.model.graph} | {"r_1_2"}


def test_new_names_are_new_in_every_graph() -> None:
    m = Subject(IF.replace("s1", "r_1").replace("z =", "edit_1 ="))
    with m.edit.under("r"):
        assert m.asks([m["a"]], [m.op.Add(m.op.Neg(m["a"]), 1.0)]) == ""
    names = [o.name for n in m.model.nodes() for o in n.outputs] + [v.name for v in m.model.graph.constants()]
    assert len(set(names)) == len(names)


# ── bodies ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_body_that_hands_a_captured_value_out_hands_out_the_new_one() -> None:
    m = Subject(
        IF.replace("{ s1 = Neg(a)  s = Abs(s1) }", "{ s1 = Neg(a) }").replace("(float[n,3] s)", "(float[n,3] a)")
    )
    y = m.node("y")
    assert y.bodies[0].outputs[0] is m["a"] and m["a"].uses[y] == 1
    b = m.op.Sigmoid(m["x"])
    before = m.bytes()
    assert m.edit.replace([m["a"]], [b]) and y.bodies[0].outputs[0] is b
    check(m.model)
    m.edit.undo()
    check(m.model)
    assert m.bytes() == before
    assert m.edit.replace([m["a"]], [m["x"]])
    check(m.model)
    assert lower(m.model).graph.node[0].attribute[0].g.output[0].name == "x"


def test_a_body_s_file_follows_what_it_hands_out_and_reads() -> None:
    """Bodies keep their protos until something in them changes: a new name of what they only read is such a change."""
    text = """g (float[n,3] x, bool c) => (float[n,3] y, float[n,3] w) {
        a = Relu(x)  b = Relu(x)
        z = If(c) <then_branch = t () => (float[n,3] a) { }, else_branch = e () => (float[n,3] u) { u = Neg(b) }>
        y = Exp(a)  w = Abs(y) }"""

    def bodies(m: Subject) -> tuple[str, str]:
        (node,) = (n for n in lower(m.model).graph.node if n.op_type == "If")
        then, other = (a.g for a in sorted(node.attribute, key=lambda a: a.name, reverse=True))
        return then.output[0].name, other.node[0].input[0]

    m = Subject(text)
    assert m.edit.replace([m["a"]], [m["b"]]) and bodies(m) == ("b", "b")  # handed out: another value
    m.edit.undo()
    assert m.edit.replace([m["y"]], [m["b"]]) and bodies(m) == ("a", "y")  # read inside: another name
    m.edit.undo()
    assert m.edit.replace([m["y"]], [m["a"]]) and bodies(m) == ("y", "b")  # handed out: another name
    m.edit.undo()
    assert bodies(m) == ("a", "b")
    assert not any(g.touched for g in m.model.graphs()) and not any(n.dirty for n in m.model.nodes())


def test_a_decided_if_is_inlined() -> None:
    own = IF.replace("u) { u = Add(a, k) }", "u) <float[3] l = {1, 2, 3}> { u = Add(a, l) }")
    for body, want in ((0, [[0, 0.5, 2]]), (1, [[1, 2.5, 5]])):
        m = Subject(own)
        staged = m.edit.stage_body(m.node("y").bodies[body])
        assert m.asks([m["y"]], staged, shape="test") == ""
        assert m.run(x=X, c=True)[0].tolist() == want and "If" not in m.ops()


def test_a_body_inlined_beside_its_original() -> None:
    """Both live on: names stay apart."""
    m = Subject(
        """g (float[n,3] x, bool c) => (float[n,3] y) {
        a, b = If(c) <then_branch = t () => (float[n,3] s, float[n,3] w) { r = Neg(x)  s = Abs(r)  w = Exp(r) },
                      else_branch = e () => (float[n,3] u, float[n,3] v) { u = Abs(x)  v = Exp(x) }>
        y = Add(a, b) }"""
    )
    staged = m.edit.stage_body(m.node("a").bodies[0])
    assert m.asks([m["a"]], staged[:1], shape="test") == ""
    names = [o.name for n in m.model.nodes() for o in n.outputs]
    assert len(set(names)) == len(names) and m.ops() == ["If", "Neg", "Abs", "Add"]


def test_a_nested_body_is_inlined_with_its_captures() -> None:
    m = Subject(
        """g (float[n,3] x, bool c, bool d) => (float[n,3] y) {
        y = If(c) <then_branch = t () => (float[n,3] s) {
            r = Neg(x)
            s = If(d) <then_branch = t2 () => (float[n,3] p) { q = Abs(r)  p = Tanh(q) },
                       else_branch = e2 () => (float[n,3] o) { o = Identity(r) }> },
          else_branch = e () => (float[n,3] u) { u = Abs(x) }> }"""
    )
    want = [m.run(x=X, c=True, d=d)[0].tolist() for d in (True, False)]
    assert m.asks([m["y"]], m.edit.stage_body(m.node("y").bodies[0]), shape="test") == ""
    assert m.ops() == ["Neg", "If"] and [m.run(x=X, c=True, d=d)[0].tolist() for d in (True, False)] == want


# ── the log ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_value_infos_of_what_is_gone_go() -> None:
    m = Subject("g (float[n,3] x) => (float[n,3] y) { a = Relu(x)  b = Neg(a)  c = Exp(b)  y = Abs(c) }")
    proto = ModelProto()
    proto.CopyFrom(m.proto)
    proto.graph.value_info.extend(helper.make_tensor_value_info(name, 1, ["n", 3]) for name in "abc")
    m.load(proto)
    assert m.asks([m["c"]], [m.op.Tanh(m["a"])]) == ""
    assert [i.name for i in lower(m.model).graph.value_info] == ["a", "c"]  # the new value has the old one's


def test_undo_to_any_edit() -> None:
    m = Subject(IF)
    states = [m.bytes()]
    for name in ("a", "s1", "z", "u", "a"):
        assert m.edit.replace([m[name]], [m.op.Tanh(m.op.Add(m["x"], 1.0))], shape="test")
        states.append(m.bytes())
    assert len(set(states)) == 6 and [e.id for e in m.edit.log] == [1, 2, 3, 4, 5]
    for to in (3, 1, 0):
        m.edit.undo(to)
        check(m.model)
        assert m.bytes() == states[to]
    assert states[0] == m.proto.SerializeToString()
    assert not any(g.touched for g in m.model.graphs()) and not any(n.dirty for n in m.model.nodes())


def test_news() -> None:
    m = Subject("g (float[n,3] x) => (float[n,3] y) { a = Relu(x)  b = Neg(a)  y = Exp(b)  z = Abs(a)  w = Tanh(z) }")
    e, g = m.edit, m.model.graph

    def news() -> set[str]:
        return {n.op for n in e.news("r", g)}

    assert news() == {"Relu", "Neg", "Exp", "Abs", "Tanh"} and news() == set()
    assert e.replace([m["b"]], [m.op.Sigmoid(m.op.Sin(m["a"]))])
    assert news() >= {"Sigmoid", "Sin", "Exp"}  # what is new, and who reads it
    assert e.remove([m.node("w")])
    assert news() >= {"Abs"}  # what lost a reader
    e.undo()
    assert news() >= {"Neg", "Exp", "Tanh"}


def test_two_models_do_not_meet() -> None:
    m, other = Subject(CHAIN), Subject(CHAIN)
    assert m.asks([m["a"]], [other["a"]], shape="test") == "reads a value of an inner scope"


def test_what_lies_in_functions_counts_once() -> None:
    text = """<ir_version: 10, opset_import: ["": 20, "local": 1]>
    g (float[n] x) => (float[n] y) { z = local.f(x)  y = local.f(z) }
    <domain: "local", opset_import: ["": 20]> f (x) => (y) {
      s = Constant<value = string {"a"}>()  k = Constant<value = float[250] {ONES}>()  m = ReduceMax(k)  y = Add(x, m)
    }""".replace("ONES", ",".join(["1"] * 250))
    editor = Editor(lift(onnx.parser.parse_model(text)))
    assert editor.bytes == 1000 and editor.limit == 1010 + 512


def test_nodes_of_two_graphs_are_not_removed_at_once() -> None:
    m = Subject(
        "g (float[3] x, bool c) => (float[3] y) { d = Neg(x)  y = If(c) <then_branch = t () => (float[3] p)"
        " { e = Abs(x)  p = Relu(x) }, else_branch = f () => (float[3] q) { q = Exp(x) }> }"
    )
    dead = [m.node("d"), m.node("e")]
    assert not m.edit.remove(dead) and m.edit.why == "removes nodes of two graphs, or what is gone"
    assert m.edit.remove(dead[:1]) and m.edit.remove(dead[1:]) and not m.edit.remove(dead[:1])
