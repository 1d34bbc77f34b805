"""diff: nothing that matters goes unseen, nothing that does not is reported, and the log's pairs add up."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import ModelProto, NodeProto, helper, numpy_helper

import optimizer
from optimizer.driver import optimize as driver

LIGHT = Path(onnx.__file__).parent / "backend/test/data/light"

BODIES = """
<ir_version: 8, opset_import: ["" : 17, "local" : 1]>
bodies (float[N, 4] x, bool c, float[4] scale) => (float[N, 4] y, float[N, 4] z)
<float[4] scale = {1.0, 1.0, 1.0, 1.0}, float[4] w = {1.0, 2.0, 3.0, 4.0}>
{
  [add] s = Add(x, w)
  [scaled] t = Mul(s, scale)
  [choose] i = If(c) <
    then_branch = yes () => (float[N, 4] a) { [inner] p = Relu(t)  [both] a = Add(p, w) },
    else_branch = no () => (float[N, 4] b) { [other] q = LeakyRelu<alpha = 0.1>(t)  [gone] b = Identity(q) }
  >
  [call] j = local.twice(i)
  [clip] y = Clip(j, , )
  [soft] z = Softmax<axis = -1>(j)
}
<domain: "local", opset_import: ["" : 17]>
twice (u) => (v) { v = Add(u, u) }
"""


def bodies() -> ModelProto:
    return onnx.parser.parse_model(BODIES)


def node(model: ModelProto, name: str) -> NodeProto:
    def walk(graph: onnx.GraphProto) -> list[NodeProto]:
        found = list(graph.node)
        for n in graph.node:
            for a in n.attribute:
                found += walk(a.g) if a.HasField("g") else []
        return found

    return next(n for n in walk(model.graph) if n.name == name)


def attribute(n: NodeProto, **values: object) -> None:
    kept = [a for a in n.attribute if a.name not in values]
    del n.attribute[:]
    n.attribute.extend([*kept, *(helper.make_attribute(k, v) for k, v in values.items())])


def set_weight(m: ModelProto, name: str, array: np.ndarray) -> None:
    tensor = next(t for t in m.graph.initializer if t.name == name)
    tensor.CopyFrom(numpy_helper.from_array(array, name))


DIFFERENCES: dict[str, Callable[[ModelProto], object]] = {
    "attribute": lambda m: attribute(node(m, "soft"), axis=0),
    "attribute in a body": lambda m: attribute(node(m, "other"), alpha=0.2),
    "attribute left out": lambda m: node(m, "soft").attribute.pop(),
    "operator": lambda m: setattr(node(m, "soft"), "op_type", "LogSoftmax"),
    "operator in a body": lambda m: setattr(node(m, "inner"), "op_type", "Neg"),
    "domain": lambda m: (
        setattr(node(m, "soft"), "domain", "com.microsoft"),
        m.opset_import.append(helper.make_opsetid("com.microsoft", 1)),
    ),
    "operands swapped": lambda m: node(m, "add").input.reverse(),
    "another operand": lambda m: node(m, "soft").input.__setitem__(0, "i"),
    "another operand in a body": lambda m: node(m, "inner").input.__setitem__(0, "s"),
    "an optional operand": lambda m: (
        node(m, "clip").input.__setitem__(1, "lo")
        or m.graph.initializer.append(numpy_helper.from_array(np.float32(0), "lo"))
    ),
    "a weight's value": lambda m: set_weight(m, "w", np.float32([1, 2, 3, 5])),
    "a weight's shape": lambda m: set_weight(m, "w", np.float32([[1, 2, 3, 4]])),
    "a default": lambda m: set_weight(m, "scale", np.float32([1, 1, 1, 2])),
    "a new weight": lambda m: m.graph.initializer.append(numpy_helper.from_array(np.float32(0), "unused")),
    "an input's dim": lambda m: setattr(m.graph.input[0].type.tensor_type.shape.dim[0], "dim_value", 3),
    "an input's dtype": lambda m: setattr(m.graph.input[1].type.tensor_type, "elem_type", 7),
    "an input without its default": lambda m: m.graph.initializer.__delitem__(0),
    "outputs in another order": lambda m: m.graph.output.insert(0, m.graph.output.pop()),
    "an output less": lambda m: m.graph.output.pop(),
    "a node more": lambda m: m.graph.node.append(helper.make_node("Neg", ["j"], ["k"], "more")),
    "opset": lambda m: setattr(m.opset_import[0], "version", 18),
    "a function": lambda m: setattr(m.functions[0].node[0], "op_type", "Mul"),
    "two values exchanged": lambda m: (
        node(m, "clip").input.__setitem__(0, "i"),
        node(m, "call").input.__setitem__(0, "t"),
    ),
}

NO_DIFFERENCES: dict[str, Callable[[ModelProto], object]] = {
    "nothing": lambda m: None,
    "producer, documentation": lambda m: (setattr(m, "producer_name", "me"), setattr(m.graph, "doc_string", "hi")),
    "order of nodes": lambda m: m.graph.node.append(m.graph.node.pop(4)),
    "order of attributes": lambda m: attribute(node(m, "soft"), axis=-1),
    "raw or typed data": lambda m: next(t for t in m.graph.initializer if t.name == "w").CopyFrom(
        helper.make_tensor("w", 1, [4], [1.0, 2.0, 3.0, 4.0])
    ),
}


@pytest.mark.parametrize("what", DIFFERENCES)
def test_a_difference_is_seen(what: str) -> None:
    a, b = bodies(), bodies()
    DIFFERENCES[what](b)
    for one, other in ((a, b), (b, a)):
        found = optimizer.diff(one, other)
        assert found.exit_code == 1 and not found.same, str(found)
        assert len(str(found).splitlines()) > 1 or "→" in str(found), "the screen says what"


@pytest.mark.parametrize("what", NO_DIFFERENCES)
def test_what_is_no_difference_is_not_reported(what: str) -> None:
    a, b = bodies(), bodies()
    NO_DIFFERENCES[what](b)
    found = optimizer.diff(a, b)
    assert found.same and found.exit_code == 0, str(found)
    assert found.matched == found.nodes[0] == found.nodes[1]
    assert len(str(found).splitlines()) == 1


def test_every_attribute_and_every_wire_of_a_real_model_counts() -> None:
    model = onnx.load(LIGHT / "light_squeezenet.onnx")
    rng = random.Random(0)
    for k in rng.sample(range(len(model.graph.node)), 30):
        changed = copy.deepcopy(model)
        n = changed.graph.node[k]
        if n.attribute and n.op_type != "ConstantOfShape":
            a = rng.choice(n.attribute)
            if a.type == a.INT:
                a.i += 1
            elif a.type == a.INTS:
                a.ints[0] += 1
            else:
                a.f += 1
        else:
            n.input[0] = "data_0"
        assert not optimizer.diff(model, changed).same, n
    assert optimizer.diff(model, copy.deepcopy(model)).same


def test_nodes_without_names_are_called_by_their_outputs() -> None:
    a = bodies()
    for n in a.graph.node:
        n.name = ""
    b = copy.deepcopy(a)
    assert optimizer.diff(a, b).same
    b.graph.node[5].op_type = "LogSoftmax"
    found = optimizer.diff(a, b)
    assert [h.removed[0].name for h in found.hunks] == ["z"]


def test_unpaired_nodes_that_hang_together_are_one_change() -> None:
    text = """
    <ir_version: 8, opset_import: ["" : 20]>
    g (float[N] x) => (float[N] y)
    <float r = {1.4142135}, float one = {1.0}, float half = {0.5}>
    { [in] t = Neg(x)  [d] a = Div(t, r) [e] b = Erf(a) [p] c = Add(b, one) [m] f = Mul(t, c) [h] z = Mul(f, half)
      [out] y = Neg(z) }
    """
    fused = """
    <ir_version: 8, opset_import: ["" : 20]>
    g (float[N] x) => (float[N] y) { [in] t = Neg(x) [gelu] z = Gelu(t) [out] y = Neg(z) }
    """
    found = optimizer.diff(onnx.parser.parse_model(text), onnx.parser.parse_model(fused))
    assert str(found).splitlines()[1:3] == ["- Div Erf Add Mul Mul   d   (5 nodes)", "+ Gelu                    gelu"]
    assert found.weights and not found.changed


def test_weights_say_how_they_changed() -> None:
    a, b = bodies(), bodies()
    set_weight(b, "w", np.float32([1, 2, 3.5, 4]))
    assert str(optimizer.diff(a, b)).splitlines()[1:] == [
        "weights 1 changed, 0 gone, 0 new",
        "~ w  float32 [4]   by at most 0.5",
    ]
    set_weight(b, "w", np.float16([1, 2, 3, 4]))
    assert "~ w  float32 [4] → float16 [4]" in str(optimizer.diff(a, b))


# ── by the log ────────────────────────────────────────────────────────────────────────────────────────────────────────


def adds_up(found: optimizer.measure.diff.Diff) -> bool:  # type: ignore[name-defined]
    """Each node of A is matched or removed, each of B matched or added, and none twice."""
    removed, added = (sum(len(getattr(h, side)) for h in found.hunks) for side in ("removed", "added"))
    return found.matched + removed == found.nodes[0] and found.matched + added == found.nodes[1]


@pytest.mark.parametrize("name", ["squeezenet", "shufflenet", "inception_v2", "densenet121"])
def test_the_log_pairs_every_node_forwards_backwards_and_between_results(name: str, tmp_path: Path) -> None:
    source = LIGHT / f"light_{name}.onnx"
    exact, rounding = tmp_path / "exact.onnx", tmp_path / "rounding.onnx"
    driver.run(source, exact, level=1, validate=False)
    driver.run(source, rounding, level=2, validate=False)
    for a, b in ((source, rounding), (rounding, source), (exact, rounding), (rounding, exact)):
        found = optimizer.diff(a, b)
        assert found.by == "log" and not found.interface and adds_up(found), str(found)
        assert all(h.edits for h in found.hunks), "every change is an edit's"
    forwards, backwards = optimizer.diff(source, rounding), optimizer.diff(rounding, source)
    assert (forwards.matched, len(forwards.hunks)) == (backwards.matched, len(backwards.hunks))
    assert optimizer.diff(rounding, rounding).same


def test_the_log_pairs_through_bodies_and_functions(tmp_path: Path) -> None:
    source, out = tmp_path / "bodies.onnx", tmp_path / "out.onnx"
    model = bodies()
    known = helper.make_node("Constant", [], ["c"], "known", value=helper.make_tensor("", 9, [], [True]))
    del model.graph.input[1]
    model.graph.node.insert(0, known)
    onnx.save(model, source)
    driver.run(source, out, validate=False, keep_functions=True)
    found = optimizer.diff(source, out)
    assert found.by == "log" and adds_up(found), str(found)
    assert "If" not in {n.op_type for n in onnx.load(out).graph.node}
    assert {n.name for h in found.hunks for n in h.removed} >= {"choose", "known"}


def test_a_receipt_of_other_models_is_not_believed(tmp_path: Path) -> None:
    source, out = tmp_path / "a.onnx", tmp_path / "b.onnx"
    onnx.save(bodies(), source)
    driver.run(source, out, validate=False)
    assert optimizer.diff(source, out).by == "log"
    changed = onnx.load(out)
    changed.graph.node[0].op_type = "Sub"
    onnx.save(changed, out)
    found = optimizer.diff(source, out)
    assert found.by == "name" and "no receipt beside them tells" in str(found).splitlines()[0]
    assert not found.same
    Path(f"{out}.receipt.json").write_text("{")
    assert "cannot be read" in str(optimizer.diff(source, out)).splitlines()[0]


def test_a_body_that_moves_with_its_owner_is_one_change(tmp_path: Path) -> None:
    model = onnx.parser.parse_model("""
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N] x, bool c) => (float[N] y)
    {
      [known] k = Constant<value = bool {1}>()
      [outer] o = If(k) <
        then_branch = t () => (float[N] a) {
          [nested] a = If(c) <
            then_branch = tt () => (float[N] p) { [noop] i = Identity(x)  [stays] p = Neg(i) },
            else_branch = te () => (float[N] q) { [too] q = Abs(x) }
          >
        },
        else_branch = e () => (float[N] b) { [dead] b = Relu(x) }
      >
      [after] y = Neg(o)
    }
    """)
    source, out = tmp_path / "a.onnx", tmp_path / "b.onnx"
    onnx.save(model, source)
    driver.run(source, out, validate=False)
    for a, b in ((source, out), (out, source)):
        found = optimizer.diff(a, b)
        assert found.by == "log" and adds_up(found), str(found)
        moved = next(h for h in found.hunks if "decided_if" in dict(h.edits))
        assert {"decided_if", "identity"} <= dict(moved.edits).keys(), "what became of the moved body belongs to it"
        names = {n.name for n in [*moved.removed, *moved.added]}
        assert {"outer", "nested", "stays", "too", "noop", "dead"} <= names


@pytest.mark.parametrize("external", [False, True])
def test_a_model_whose_weights_stay_in_the_file_is_known_again(external: bool, tmp_path: Path) -> None:
    model = onnx.parser.parse_model("""
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N, 1500] x) => (float[N, 1000] y) { [noop] i = Identity(x) [mm] y = MatMul(i, w) }
    """)
    weight = np.random.default_rng(0).standard_normal((1500, 1000)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    source, out = tmp_path / "a.onnx", tmp_path / "b.onnx"
    onnx.save(model, source, save_as_external_data=external)
    driver.run(source, out, validate=False)
    found = optimizer.diff(source, out)
    assert (found.by, found.matched, found.weights) == ("log", 1, [])
    assert [n.name for h in found.hunks for n in h.removed] == ["noop"]


def test_the_screen_names_rule_and_edit(tmp_path: Path) -> None:
    source, out = tmp_path / "a.onnx", tmp_path / "b.onnx"
    onnx.save(bodies(), source)
    driver.run(source, out, validate=False, passes="normalize (propagate fold simplify)* cleanup")
    screen = str(optimizer.diff(source, out))
    assert " by the log   interface same   opset 17 = 17" in screen.splitlines()[0]
    assert any(line.startswith("- Identity   gone   (1 node)   rule ") for line in screen.splitlines()), screen


def test_alike_changes_are_one_line(tmp_path: Path) -> None:
    found = str(optimizer.diff(LIGHT / "light_vgg19.onnx", onnx.load(LIGHT / "light_vgg19.onnx"))).splitlines()
    assert len(found) == 1
    source, out = LIGHT / "light_resnet50.onnx", tmp_path / "out.onnx"
    driver.run(source, out, validate=False)
    assert len(str(optimizer.diff(source, out)).splitlines()) < 15
