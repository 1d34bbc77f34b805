"""A file comes back byte for byte, touched or not; what no graph may be is refused with directions."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from conftest import NodeCase
from onnx import AttributeProto, ModelProto, NodeProto, helper, numpy_helper
from random_models import random_model

from optimizer.core.errors import BadInput
from optimizer.core.graph import Model, anchor, body_names, check, encloses, lift, lower
from optimizer.core.tensor import Tensor

CHAIN = "g (float[n,3] x) => (float[n,3] y) { a = Relu(x)  b = Neg(a)  y = Exp(b) }"
IF = """g (float[n,3] x, bool c) => (float[n,3] y) {
    a = Relu(x)
    y = If(c) <then_branch = t () => (float[n,3] s) { s = Neg(a) }, else_branch = e () => (float[n,3] u) { u = Abs(a) }>
}"""


def parse(text: str) -> ModelProto:
    return onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["": 20]> {text}')


def text_of(proto: ModelProto) -> bytes:
    return proto.SerializeToString(deterministic=True)


# ── there and back ────────────────────────────────────────────────────────────────────────────────────────────────────


def touch_everything(m: Model) -> None:
    for n in m.nodes():
        n.dirty = True
    for g in m.graphs():
        g.touched = True


def forget_protos(m: Model) -> None:
    for n in m.nodes():
        assert n.attributes is not None  # read while the proto is there
        n.proto = None


def without_protos_quirks(proto: ModelProto) -> bytes:
    """The model less what a node written anew does not repeat: an empty domain or name, a doc_string."""
    out = ModelProto.FromString(proto.SerializeToString())
    for n in _nodes(out.graph):
        for f in ("domain", "name", "doc_string"):
            if not getattr(n, f) or f == "doc_string":
                n.ClearField(f)
    return text_of(out)


def _nodes(g: onnx.GraphProto) -> list[NodeProto]:
    return [m for n in g.node for m in (n, *(x for a in n.attribute for b in (a.g, *a.graphs) for x in _nodes(b)))]


def test_node_tests_come_back_byte_for_byte(node_cases: list[NodeCase]) -> None:
    for c in node_cases:
        want = text_of(c.model)
        m = lift(c.model)
        check(m)
        assert text_of(lower(m)) == want, c.name
        touch_everything(m)
        assert text_of(lower(m)) == want, c.name
        forget_protos(m)
        assert without_protos_quirks(lower(m)) == without_protos_quirks(c.model), c.name
    assert len(node_cases) > 1_800


@pytest.mark.parametrize("seed", range(30))
def test_random_models_come_back(seed: int) -> None:
    proto, _ = random_model(seed)
    m = lift(proto)
    check(m)
    assert text_of(lower(m)) == text_of(proto)
    touch_everything(m)
    assert text_of(lower(m)) == text_of(proto)


def test_headers_come_back() -> None:
    proto = parse(CHAIN)
    proto.producer_name, proto.doc_string, proto.model_version = "p", "d", 7
    proto.metadata_props.add(key="k", value="v")
    proto.graph.doc_string = "g"
    proto.graph.quantization_annotation.add(tensor_name="a")
    proto.functions.add(name="f", domain="d")
    proto.graph.value_info.append(helper.make_tensor_value_info("a", 1, ["n", 3]))
    m = lift(proto)
    assert text_of(lower(m)) == text_of(proto) and ("d", "f") in m.functions
    assert m.graph.infos.keys() == {"a", "y"}  # what the file declares of inner values and outputs
    m.opsets["com.acme"] = 1
    m.opsets[""] = 21
    assert [(o.domain, o.version) for o in lower(m).opset_import] == [("", 21), ("com.acme", 1)]


def test_the_lift_leaves_its_proto_alone() -> None:
    proto, _ = random_model(3)
    before = text_of(proto)
    m = lift(proto)
    touch_everything(m)
    lower(m)
    assert text_of(proto) == before


# ── order ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_unsorted_graph_is_sorted_and_said() -> None:
    m = lift(parse("g (float[n,3] x) => (float[n,3] y) { y = Exp(b)  b = Neg(a)  z = Abs(x)  a = Relu(x) }"))
    check(m)
    assert [n.op for n in m.graph] == ["Relu", "Neg", "Exp", "Abs"]
    assert m.warnings == ["nodes were not in topological order: sorted"]
    onnx.checker.check_model(lower(m))
    assert lift(parse(CHAIN)).warnings == []


def test_an_unsorted_body_and_a_late_capture() -> None:
    m = lift(
        parse(
            IF.replace("{ s = Neg(a) }", "{ s = Neg(k)  k = Exp(a) }")
            .replace("    a = Relu(x)\n", "")
            .replace("}>\n", "}>\n    a = Relu(x)\n")
        )
    )
    check(m)
    assert [n.op for n in m.graph] == ["Relu", "If"] and len(m.warnings) == 1
    assert [n.op for n in m.graph.prev.bodies[0]] == ["Exp", "Neg"]
    onnx.checker.check_model(lower(m))


def test_a_deep_chain_in_reverse() -> None:
    nodes = " ".join(f"v{i + 1} = Neg(v{i})" for i in reversed(range(3000)))
    m = lift(parse(f"g (float v0) => (float v3000) {{ {nodes} }}"))
    assert [n.output.name for n in m.graph] == [f"v{i + 1}" for i in range(3000)]


# ── what no graph may be ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "what", "at"),
    [
        ("g (float x) => (float y) { a = Add(x, b)  b = Neg(a)  y = Exp(b) }", "cycle", "Add"),
        ("g (float x) => (float y) { a = Add(x, a)  y = Exp(a) }", "cycle", "Add"),
        (IF.replace("s = Neg(a)", "s = Neg(y)"), "cycle", "If"),
        (CHAIN.replace("Neg(a)", "Neg(nobody)"), "'nobody' is read but nothing makes it", "Neg"),
        (IF.replace("Neg(a)", "Neg(u)"), "'u' is read but nothing makes it", "Neg"),
        (IF.replace("(float[n,3] s)", "(float[n,3] nobody)"), "'nobody' is read but nothing makes it", "If"),
        (CHAIN.replace("b = Neg", "a = Neg"), "'a' is made twice", "Neg"),
        (CHAIN.replace("b = Neg", "x = Neg"), "'x' is made twice", "Neg"),
        (CHAIN.replace("=> (float[n,3] y)", "=> (float[n,3] nobody)"), "nothing makes the graph's output", "g"),
        (CHAIN.replace("(float[n,3] x)", "(float[n,3] x, float x)"), "two inputs are called 'x'", "g"),
        (CHAIN.replace("{ a", "<float k = {1}, float k = {2}> { a"), "two initializers are called 'k'", "g"),
    ],
)  # fmt: skip
def test_bad_graphs_are_refused_with_directions(text: str, what: str, at: str) -> None:
    with pytest.raises(BadInput, match=what) as e:
        lift(parse(text))
    assert e.value.at is not None and at in e.value.at and e.value.fix


# ── who reads what ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_readers_in_bodies_count_as_themselves() -> None:
    m = lift(parse(IF))
    a, y = m.graph.next.output, m.graph.prev
    inner = [n for b in y.bodies for n in b]
    assert list(a.uses) == inner and [anchor(n, m.graph) for n in inner] == [y, y]
    assert list(y.reads()) == [m.graph.inputs[1], a, a] and anchor(y, inner[0].graph) is None
    assert encloses(m.graph, inner[0].graph) and not encloses(inner[0].graph, m.graph)
    assert [g.path() for g in m.graphs()] == [[], ["If.then_branch"], ["If.else_branch"]]


def test_an_owner_reads_what_nested_bodies_capture_and_hand_out() -> None:
    m = lift(
        parse(
            """g (float[n,3] x, bool c) => (float[n,3] y) {
            a = Relu(x)  b = Neg(x)
            y = If(c) <then_branch = t () => (float[n,3] s) {
                s = If(c) <then_branch = t2 () => (float[n,3] p) { p = Exp(a) },
                           else_branch = e2 () => (float[n,3] b) { }> },
              else_branch = e () => (float[n,3] a) { }> }"""
        )
    )
    c, y = m.graph.inputs[1], m.graph.prev
    assert sorted(v.name for v in y.reads()) == ["a", "a", "b", "c", "c"]
    assert sorted(v.name for v in y.bodies[0].captures()) == ["a", "b", "c"]
    assert c.uses == {y: 1, y.bodies[0].next: 1}
    check(m)


def test_labels_are_numbered_anew_when_used_up() -> None:
    m = lift(parse(CHAIN))
    first, last = m.graph.next, m.graph.prev
    for _ in range(100):
        m.graph.unlink(last)
        m.graph.link(last, first)
        first, last = last, m.graph.prev
        assert [n.pos for n in m.graph] == sorted({n.pos for n in m.graph})
    assert len(m.graph) == 3


@pytest.mark.parametrize(
    "damage",
    [
        lambda m: m.graph.next.output.uses.clear(),
        lambda m: m.graph.inputs[0].uses.update({m.graph.prev: 1}),
        lambda m: setattr(m.graph.next, "pos", 1 << 40),
        lambda m: setattr(m.graph, "count", 7),
        lambda m: setattr(m.graph.next.output, "name", "y"),
        lambda m: setattr(m.graph.outputs[0], "name", "z"),
        lambda m: setattr(m.graph.next.output, "is_output", True),
        lambda m: setattr(m.graph.outputs[0], "is_output", False),
        lambda m: m.graph.unlink(m.graph.next),
        lambda m: m.graph.dead.update(m.graph.initializers),
        lambda m: m.names.discard("a"),
        lambda m: setattr(m.graph.next.output, "producer", m.graph.prev),
        lambda m: m.graph.owners.update({m.graph.next: None}),
        lambda m: setattr(m.graph.prev, "prev", m.graph.next),
    ],
)
def test_the_check_sees_damage(damage: Any) -> None:
    m = lift(
        parse("g (float[3] x) => (float[3] y) <float[3] k = {1, 2, 3}> { a = Relu(x)  b = Add(a, k)  y = Exp(b) }")
    )
    check(m)
    damage(m)
    with pytest.raises(AssertionError):
        check(m)


def test_attributes_are_python_values() -> None:
    inner = onnx.parser.parse_graph("t () => (float s) { s = Relu(a) }")
    given: dict[str, Any] = {
        "f": 0.5, "i": 3, "s": "text", "b": b"\xff", "fs": [0.5, 1.5], "is_": [1, 2], "ss": ["a", "b"],
        "t": numpy_helper.from_array(np.arange(3)), "g": inner, "gs": [inner, inner],
        "tp": helper.make_tensor_type_proto(1, [2]),
    }  # fmt: skip
    proto = parse("g (float a) => (float y) { y = Relu(a) }")
    proto.graph.node[0].CopyFrom(helper.make_node("F", ["a"], ["y"], domain="d", **given))
    m = lift(proto)
    n = m.graph.next
    read = n.attributes
    assert [read[k] for k in ("f", "i", "s", "b", "fs", "is_", "ss")] == [
        0.5,
        3,
        "text",
        b"\xff",
        [0.5, 1.5],
        [1, 2],
        ["a", "b"],
    ]
    assert isinstance(read["t"], Tensor) and read["t"].numpy().tolist() == [0, 1, 2]
    assert isinstance(read["tp"], AttributeProto) and isinstance(read["g"], AttributeProto) and len(n.bodies) == 3
    assert body_names(n) == ["g", "gs[0]", "gs[1]"] and len(m.graph.inputs[0].uses) == 4
    want = text_of(proto)
    touch_everything(m)
    assert text_of(lower(m)) == want
    forget_protos(m)
    check(m)
    assert without_protos_quirks(lower(m)) == without_protos_quirks(proto)


def test_a_reference_to_a_function_s_attribute_stays_one() -> None:
    proto = parse(CHAIN)
    proto.graph.node[0].attribute.add(name="alpha", ref_attr_name="outer", type=AttributeProto.FLOAT)
    assert isinstance(lift(proto).graph.next.attributes["alpha"], AttributeProto)


def test_sparse_initializers_stay_as_they_are() -> None:
    proto = parse("g (float[2,3] x) => (float[2,3] y) { y = Add(x, w) }")
    sparse = helper.make_sparse_tensor(
        numpy_helper.from_array(np.ones(1, "f"), "w"), numpy_helper.from_array(np.array([4])), [2, 3]
    )
    proto.graph.sparse_initializer.append(sparse)
    m = lift(proto)
    w = m.graph.next.inputs[1]
    check(m)
    assert w is not None and (w.dtype, w.dims, w.const, w.is_const) == (1, (2, 3), None, False)
    touch_everything(m)
    assert text_of(lower(m)) == text_of(proto)
