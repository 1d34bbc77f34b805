"""Deliberate changes of a model's interface keep what it computes, and the graph's invariants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random

import numpy as np
import onnxruntime as ort
import pytest
from onnx import ModelProto, TensorProto, TypeProto, checker, helper, numpy_helper, parser
from random_models import ROWS, random_model, runnable

from optimizer.core.contract import Interface, extract, freeze, rename, same
from optimizer.core.errors import BadInput
from optimizer.core.graph import Model, check, lower
from optimizer.core.model import read, to_proto

TWO_BRANCHES = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[batch, seq, 4] x, int64[batch, seq] ids, bool flag) => (float[batch, seq, 4] y, float[batch, 8] z)
<float[4] gamma = {1.0, 2.0, 3.0, 4.0}, float[batch, seq, 4] a, int64[2] shape = {0, -1}>
{
  a = Mul(x, gamma)
  b = Add(a, a)
  c = If (flag) <
    then_branch = t () => (float[batch, seq, 4] d) { d = Relu(b) },
    else_branch = e () => (float[batch, seq, 4] f) { g2 = Add(b, gamma)  f = Neg(g2) }
  >
  m = Cast<to=1>(ids)
  one = Constant<value_ints=[2]>()
  u = Unsqueeze(m, one)
  y = Add(c, u)
  left, right = Split<axis=2>(y)
  s = Add(left, right)
  z = Reshape(s, shape)
}
"""


def model(text: str = TWO_BRANCHES) -> Model:
    return read(parser.parse_model(text))


def run(proto: ModelProto, feeds: Mapping[str, np.ndarray], names: Sequence[str]) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(runnable(proto).SerializeToString(), options, ["CPUExecutionProvider"])
    return session.run(list(names), dict(feeds))


FEEDS = {
    "x": np.arange(-16, 16, dtype=np.float32).reshape(2, 4, 4),
    "ids": np.arange(8, dtype=np.int64).reshape(2, 4),
    "flag": np.array(True),
}


def sound(m: Model) -> ModelProto:
    check(m)
    proto = to_proto(m)
    checker.check_model(proto, full_check=True)
    assert Interface.of(read(proto)) == Interface.of(m), "the values and the protos say the same"
    return proto


def dims(m: Model, name: str) -> tuple[object, ...] | None:
    i = Interface.of(m)
    return next(p.dims for p in (*i.required, *i.overridable, *i.outputs) if p.name == name)


# ── same ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_same_names_the_difference() -> None:
    a = Interface.of(model())
    assert same(a, Interface.of(model())) is None
    outputs = "(float[batch, seq, 4] y, float[batch, 8] z)"
    for was, becomes, told in (
        ("float[batch, seq, 4] x", "float[n, seq, 4] x", "'x' float [batch, seq, 4] became 'x' float [n, seq, 4]"),
        ("float[batch, seq, 4] x", "float16[batch, seq, 4] x", "became 'x' float16"),
        ("float[batch, 8] z)", "float[batch, 9] z)", "the output 'z' float [batch, 8] became 'z' float [batch, 9]"),
        (outputs, "(float[batch, seq, 4] y)", "the output 'z' float [batch, 8] is gone"),
        (outputs, "(float[batch, 8] z, float[batch, seq, 4] y)", "another order"),
        ("bool flag)", "bool flag, float[1] more)", "the input 'more' float [1] is new"),
    ):  # fmt: skip
        b = Interface.of(model(TWO_BRANCHES.replace(was, becomes)))
        assert told in (same(a, b) or ""), (told, same(a, b))


def test_initializers_among_the_inputs_are_overridable_from_ir_4_on() -> None:
    proto = parser.parse_model(TWO_BRANCHES)
    proto.graph.input.append(helper.make_tensor_value_info("gamma", TensorProto.FLOAT, [4]))
    new = Interface.of(read(proto))
    assert [p.name for p in new.overridable] == ["gamma"]
    assert same(Interface.of(model()), new) == "the overridable input 'gamma' float [4] is new"
    proto.ir_version = 3
    assert same(Interface.of(model()), Interface.of(read(proto))) is None


# ── freeze ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_freeze_fixes_a_name_everywhere() -> None:
    m = model()
    freeze(m, {"batch": 2})
    proto = sound(m)
    assert b"batch" not in proto.SerializeToString(), "inputs, outputs, value_info and the types in both branches"
    assert dims(m, "x") == (2, "seq", 4) and dims(m, "z") == (2, 8)
    x = next(v for v in m.graph.inputs if v.name == "x")
    assert x.dims is not None and x.dims[0] == 2
    for a, b in zip(run(to_proto(model()), FEEDS, ["y"]), run(proto, FEEDS, ["y"])):
        assert np.array_equal(a, b)


def test_a_shape_fixes_the_names_that_it_has() -> None:
    m = model()
    freeze(m, shapes={"x": (2, 4, 4)})
    sound(m)
    assert dims(m, "x") == (2, 4, 4) and dims(m, "ids") == (2, 4) and dims(m, "y") == (2, 4, 4)


def test_freeze_computes_declared_expressions() -> None:
    proto = parser.parse_model(TWO_BRANCHES)
    proto.graph.output[1].type.tensor_type.shape.dim[1].dim_param = "2*seq + min(batch, 9)"
    m = read(proto)
    freeze(m, {"seq": 3})
    assert dims(m, "z") == ("batch", "2*seq + min(batch, 9)"), "not before all of its names are known"
    m = read(proto)
    freeze(m, {"seq": 3, "batch": 4})
    assert dims(m, "z") == (4, 10)
    m = read(proto)
    with pytest.raises(BadInput, match="cannot be 5"):
        freeze(m, {"seq": 3, "batch": 4, "2*seq + min(batch, 9)": 5})


def test_freeze_reaches_types_of_sequences_and_attributes() -> None:
    sequence = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, ["n", "m"]))
    node = helper.make_node("Optional", [], ["o"], type=sequence)
    optional = helper.make_optional_type_proto(sequence)
    graph = helper.make_graph(
        [node], "g", [helper.make_value_info("q", sequence)], [helper.make_value_info("o", optional)]
    )
    m = read(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    freeze(m, {"n": 5})
    proto = sound(m)
    out = proto.graph.output[0].type.optional_type.elem_type
    for t in (proto.graph.input[0].type, proto.graph.node[0].attribute[0].tp, out):
        d = t.sequence_type.elem_type.tensor_type.shape.dim
        assert d[0].dim_value == 5 and d[1].dim_param == "m"


@pytest.mark.parametrize(
    ("sizes", "shapes", "what", "fix"),
    [
        ({"bacth": 2}, {}, "no dimension is called 'bacth'", "did you mean batch?"),
        ({"qqq": 2}, {}, "no dimension is called 'qqq'", "batch, seq"),
        ({"batch": -1}, {}, "cannot have the size -1", "0 or more"),
        ({}, {"X": (1, 1, 4)}, "no input is called 'X'", "the inputs are x, ids, flag"),
        ({}, {"x": (1, 4)}, "has 3 dimensions, 2 were given", ""),
        ({}, {"x": (1, 1, 5)}, "dimension 2 of input 'x' is 4, so it cannot be 5", ""),
        ({"batch": 3}, {"x": (1, 1, 4)}, "dimension 0 of input 'x' is 3, so it cannot be 1", "agree"),
        ({}, {"x": (1, 1, 4), "ids": (2, 1)}, "dimension 0 of input 'ids' is 1, so it cannot be 2", "agree"),
    ],
)
def test_freeze_refuses(sizes: dict[str, int], shapes: dict[str, tuple[int, ...]], what: str, fix: str) -> None:
    with pytest.raises(BadInput) as e:
        freeze(model(), sizes, shapes)
    assert what in e.value.what and fix in (e.value.fix or "")


def test_a_shape_must_fit_the_default_of_an_input() -> None:
    proto = parser.parse_model(TWO_BRANCHES)
    proto.graph.input.append(helper.make_tensor_value_info("gamma", TensorProto.FLOAT, ["k"]))
    freeze(read(proto), {"k": 4})
    with pytest.raises(BadInput, match="'gamma' has a default of shape"):
        freeze(read(proto), {"k": 5})


# ── extract ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_extract_an_inner_part_computes_the_same() -> None:
    original = to_proto(model())
    watched = ModelProto()
    watched.CopyFrom(original)
    for name in ("b", "c", "u"):
        watched.graph.output.append(helper.make_value_info(name, helper.make_tensor_type_proto(1, None)))
    b, c, u, y = run(watched, FEEDS, ["b", "c", "u", "y"])
    m = model()
    extract(m, ["b", "flag", "u"], ["y", "c"])
    proto = sound(m)
    assert [p.name for p in Interface.of(m).required] == ["b", "flag", "u"]
    assert {n.op_type for n in proto.graph.node} == {"If", "Add"}
    assert [t.name for t in proto.graph.initializer] == ["gamma"], "an initializer that only a branch reads stays"
    got = run(proto, {"b": b, "flag": FEEDS["flag"], "u": u}, ["y", "c"])
    assert np.array_equal(got[0], y) and np.array_equal(got[1], c)


def test_extract_infers_types_that_no_one_declared() -> None:
    m = model()
    extract(m, ["a"], ["b"])
    assert dims(m, "a") == ("batch", "seq", 4), "declared in value_info"
    assert dims(m, "b") == ("batch", "seq", 4), "inferred"
    assert not m.graph.proto.value_info
    sound(m)


def test_extract_keeps_the_inputs_that_are_needed() -> None:
    m = model()
    extract(m, outputs=["b"])
    assert [v.name for v in m.graph.inputs] == ["x"]
    sound(m)
    m = model()
    extract(m, inputs=["b", "ids", "flag"])
    assert [v.name for v in m.graph.outputs] == ["y", "z"]
    sound(m)


def test_extract_cuts_at_one_of_a_nodes_outputs() -> None:
    original = to_proto(model())
    original.graph.output.append(helper.make_value_info("left", helper.make_tensor_type_proto(1, None)))
    y, z = run(original, FEEDS, ["y", "z"])
    m = model()
    extract(m, ["y", "left"], ["z", "left"])
    proto = sound(m)
    left = np.zeros((2, 4, 2), np.float32)
    got_z, got_left = run(proto, {"y": y, "left": left}, ["z", "left"])
    assert np.array_equal(got_left, left) and np.array_equal(got_z, y[..., 2:].reshape(2, 8)), "right is still computed"
    assert not np.array_equal(got_z, z)


def test_extract_makes_an_input_of_a_constant() -> None:
    m = model()
    extract(m, ["x", "gamma"], ["b"])
    proto = sound(m)
    assert not proto.graph.initializer and dims(m, "gamma") == (4,)
    gamma = np.full(4, 3, np.float32)
    assert np.array_equal(run(proto, {"x": FEEDS["x"], "gamma": gamma}, ["b"])[0], FEEDS["x"] * 6)


def test_extract_keeps_defaults_that_are_still_needed() -> None:
    proto = parser.parse_model(TWO_BRANCHES)
    proto.graph.input.append(helper.make_tensor_value_info("gamma", TensorProto.FLOAT, [4]))
    m = read(proto)
    extract(m, ["x"], ["a"])
    assert [p.name for p in Interface.of(m).overridable] == ["gamma"]
    sound(m)


def test_extract_drops_sparse_initializers_and_notes_of_what_is_gone() -> None:
    proto = parser.parse_model(TWO_BRANCHES.replace("a = Mul(x, gamma)", "a = Mul(x, sparse)"))
    values = numpy_helper.from_array(np.ones(1, np.float32), "sparse")
    proto.graph.sparse_initializer.add(values=values, indices=numpy_helper.from_array(np.zeros(1, np.int64)), dims=[4])
    proto.graph.quantization_annotation.add(tensor_name="a")
    proto.graph.quantization_annotation.add(tensor_name="y")
    m = read(proto)
    extract(m, ["x"], ["a"])
    assert len(to_proto(m).graph.sparse_initializer) == 1
    assert [q.tensor_name for q in m.graph.proto.quantization_annotation] == ["a"]
    extract(m, ["a"], ["a"])
    assert not to_proto(m).graph.sparse_initializer


@pytest.mark.parametrize(
    ("inputs", "outputs", "what", "fix"),
    [
        (["X"], None, "no value of the main graph is called 'X'", None),
        (["x"], ["rigth"], "no value of the main graph is called 'rigth'", "did you mean right?"),
        (["x"], ["d"], "no value of the main graph is called 'd'", None),
        (["x"], ["y"], "the outputs also need ids, flag", "list ids, flag among the inputs"),
        (["x", "x"], ["a"], "an input is listed twice", None),
        (["x"], ["a", "a"], "an output is listed twice", None),
    ],
)
def test_extract_refuses(inputs: list[str], outputs: list[str] | None, what: str, fix: str | None) -> None:
    with pytest.raises(BadInput) as e:
        extract(model(), inputs, outputs)
    assert what in e.value.what
    assert fix is None or fix in (e.value.fix or "")


def test_extract_refuses_a_value_whose_type_nobody_knows() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17, "custom" : 1]>
    g (float[n] x) => (float[n] y) { a = custom.What(x)  y = Relu(a) }"""
    with pytest.raises(BadInput, match="type of 'a' is neither declared nor"):
        extract(model(text), ["a"], ["y"])


# ── rename ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_rename_follows_a_value_everywhere() -> None:
    names = {"x": "tokens", "y": "logits", "b": "hidden", "gamma": "scale", "d": "inside", "a": "product"}
    m = model()
    rename(m, names)
    proto = sound(m)
    assert [i.name for i in proto.graph.input] == ["tokens", "ids", "flag"]
    assert [o.name for o in proto.graph.output] == ["logits", "z"]
    assert [t.name for t in proto.graph.initializer if t.name != "shape"] == ["scale"]
    assert {i.name for i in proto.graph.value_info} == {"product"}
    branches = {a.name: a.g for n in proto.graph.node if n.op_type == "If" for a in n.attribute}
    assert branches["then_branch"].output[0].name == "inside"
    assert branches["then_branch"].node[0].input[0] == "hidden", "a capture"
    assert branches["else_branch"].node[0].input[:] == ["hidden", "scale"]
    feeds = {names.get(k, k): v for k, v in FEEDS.items()}
    for a, b in zip(run(to_proto(model()), FEEDS, ["y", "z"]), run(proto, feeds, ["logits", "z"])):
        assert np.array_equal(a, b)


def test_rename_reaches_captures_however_deep() -> None:
    inner = "inside = Relu(x)"
    for i in range(3):
        inner = f"""v{i} = If (flag) <then_branch = t{i} () => (float[n] o{i}) {{ {inner} o{i} = Neg(x) }},
                    else_branch = e{i} () => (float[n] q{i}) {{ q{i} = Identity(x) }}>"""
    text = '<ir_version: 8, opset_import: ["" : 17]> g (float[n] x, bool flag) => (float[n] y) { %s y = Neg(v2) }'
    m = model(text % inner)
    rename(m, {"x": "tokens"})
    proto = sound(m)
    assert b"x" not in {i.encode() for g in [proto.graph] for n in g.node for i in n.input}
    assert proto.SerializeToString().count(b"tokens") == 1 + 3 + 3 + 1


def test_extract_cuts_at_a_value_that_only_a_branch_reads() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[4] x, bool c) => (float[2] y, float[2] z) {
      a, z = Split(x)
      y = If (c) <then_branch = t () => (float[2] d) { d = Abs(a) }, else_branch = e () => (float[2] b) { b = Neg(a) }>
    }"""
    m = model(text)
    extract(m, ["a", "x", "c"], ["y", "z"])
    proto = to_proto(m)
    check(m)
    feeds = {"a": np.ones(2, np.float32), "x": np.arange(4, dtype=np.float32), "c": np.array(False)}
    y, z = run(proto, feeds, ["y", "z"])
    assert y.tolist() == [-1, -1] and z.tolist() == [2, 3]


def test_rename_swaps() -> None:
    m = model()
    rename(m, {"left": "right", "right": "left"})
    proto = sound(m)
    split = next(n for n in proto.graph.node if n.op_type == "Split")
    assert split.output[:] == ["right", "left"]
    for a, b in zip(run(to_proto(model()), FEEDS, ["z"]), run(proto, FEEDS, ["z"])):
        assert np.array_equal(a, b)


def test_rename_a_capture_that_a_branch_hands_out() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[n] x, bool c) => (float[n] y) {
      a = Relu(x)
      y = If (c) <then_branch = t () => (float[n] a) {}, else_branch = e () => (float[n] b) { b = Neg(a) }>
    }"""
    m = model(text)
    rename(m, {"a": "activation"})
    proto = lower(m)
    check(m)
    branch = next(a.g for a in proto.graph.node[1].attribute if a.name == "then_branch")
    assert branch.output[0].name == "activation"


@pytest.mark.parametrize(
    ("names", "what", "fix"),
    [
        ({"gama": "g"}, "no value is called 'gama'", "did you mean gamma?"),
        ({"x": "y"}, "'x' cannot be called 'y': another value is", None),
        ({"x": "d"}, "'x' cannot be called 'd'", None),
        ({"x": "new", "y": "new"}, "cannot be called 'new'", None),
        ({"x": ""}, "'' is no name", None),
        ({"x": "a\x1b[2J"}, "'a\\x1b[2J' is no name", None),
    ],
)
def test_rename_refuses(names: dict[str, str], what: str, fix: str | None) -> None:
    with pytest.raises(BadInput) as e:
        rename(model(), names)
    assert what in e.value.what
    assert fix is None or fix in (e.value.fix or "")


# ── laws, on random models with branches and loops ────────────────────────────────────────────────────────────────────


def test_laws_on_random_models() -> None:
    """What is extracted from its own inner values, renamed and frozen gives the same numbers as the whole."""
    parts = 0
    for seed in range(200):
        proto, feeds = random_model(seed)
        random = Random(seed)
        inner = [o for n in proto.graph.node for o in n.output if o]
        whole = ModelProto()
        whole.CopyFrom(proto)
        present = {o.name for o in proto.graph.output}
        whole.graph.output.extend(helper.make_value_info(o, TypeProto()) for o in inner if o not in present)
        names = [*present, *(o for o in inner if o not in present)]
        every = dict(zip(names, run(whole, feeds, names), strict=True)) | feeds
        outputs = random.sample(inner, min(3, len(inner)))
        m = read(proto)
        cut = random.sample(inner, min(2, len(inner)))
        try:
            extract(m, list(dict.fromkeys([*(i.name for i in proto.graph.input), *cut])), outputs)
        except BadInput as e:
            assert "the type of" in e.what, e
            continue
        others = {n: f"new.{n}" for n in random.sample(sorted(m.names), len(m.names) // 2)}
        rename(m, others)
        freeze(m, {d: ROWS for p in Interface.of(m).required for d in p.dims or () if isinstance(d, str)})
        got = to_proto(m)
        check(m)
        given = {
            i.name: every[i.name.removeprefix("new.")] for i in got.graph.input if i.name.removeprefix("new.") in every
        }
        results = run(got, given, [o.name for o in got.graph.output])
        for o, r in zip(outputs, results, strict=True):
            assert np.array_equal(r, every[o], equal_nan=r.dtype.kind == "f"), (seed, o)
        parts += 1
    assert parts > 150
