"""One form for many opsets, against the changelog of onnx itself."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import defs, helper
from onnx.reference import ReferenceEvaluator

from optimizer.core.edit import Editor
from optimizer.core.form import FLATTENS, MOVED, Decline, attribute, operands, optional_output, schema, spell
from optimizer.core.graph import Model, Node, lift, lower
from optimizer.core.propagate import propagate

OLDEST = 7  # opset that is read


def history() -> dict[str, list[defs.OpSchema]]:
    """Versions of each operator of ai.onnx that a model of opset 7 or later may mean, oldest first."""
    out: dict[str, list[defs.OpSchema]] = {}
    for s in sorted(defs.get_all_schemas_with_history(), key=lambda s: s.since_version):
        if s.domain == "":
            out.setdefault(s.name, []).append(s)
    for name, versions in out.items():
        old = [s for s in versions if s.since_version <= OLDEST][:-1]
        out[name] = [s for s in versions if s not in old]
    return out


def moves() -> set[tuple[str, str, int]]:
    """(op, attribute, first opset that has it as an input), found by comparing schemas."""
    renamed = {("Pad", "value"): "constant_value", ("TopK", "k"): "K"}
    found = set()
    for op, versions in history().items():
        for a, b in pairwise(versions):
            inputs = {p.name for p in b.inputs}
            for name in a.attributes.keys() - b.attributes.keys():
                if renamed.get((op, name), name) in inputs:
                    found.add((op, name, b.since_version))
    return found


def test_the_table_is_the_changelog() -> None:
    assert moves() == {(op, name, since) for op, rows in MOVED.items() for _, name, since in rows}
    for op, rows in MOVED.items():
        for i, name, since in rows:
            s = schema(op, since)
            assert s is not None and s.inputs[i].name.lower() in (name, f"constant_{name}"), (op, name)


def test_no_default_changed_but_of_what_flattens() -> None:
    """An absent attribute may be read, and written, by one default at every opset; but for these."""
    changed = set()
    for op, versions in history().items():
        for a, b in pairwise(versions):
            for name in a.attributes.keys() & b.attributes.keys():
                if a.attributes[name].default_value != b.attributes[name].default_value:
                    changed.add((op, name))
    assert changed - {("GridSample", "mode")} == {(op, "axis") for op in FLATTENS}  # bilinear is linear by another name


def read(text: str, opset: int) -> Model:
    m = lift(onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": {opset}]> g {text}'))
    propagate(m)
    return m


def node(op: str, inputs: str, attributes: str, opset: int, x: str = "float[2,3,4] x") -> Node:
    return read(f"({x}) => (float y) {{ y = {op}{attributes}({inputs}) }}", opset).graph.next


@pytest.mark.parametrize(
    ("op", "attributes", "opset", "want"),
    [
        ("ReduceMean", "<axes = [-1, 0]>", 13, [[2, 0]]),
        ("ReduceMean", "", 13, []),
        ("Squeeze", "<axes = [0]>", 11, [[0]]),
        ("Unsqueeze", "<axes = [-1, 0]>", 11, [[4, 0]]),
        ("Unsqueeze", "<axes = [7]>", 11, [[7]]),
        ("Split", "<split = [1, 2], axis = 1>", 11, [[1, 2]]),
        ("Slice", "<starts = [1], ends = [3], axes = [-1]>", 9, [[1], [3], [2]]),
        ("Slice", "<starts = [1], ends = [3]>", 9, [[1], [3]]),
        ("Clip", "<min = 0.0, max = 6.0>", 10, [0, 6]),
        ("Clip", "<max = 6.0>", 10, [None, 6]),
        ("Pad", "<pads = [0, 0, 0, 1, 1, 1], value = 2.0>", 10, [[0, 0, 0, 1, 1, 1], 2]),
        ("TopK", "<k = 2>", 9, [[2]]),
        ("Dropout", "<ratio = 0.25>", 10, [0.25]),
        ("Upsample", "<scales = [1.0, 2.0, 2.0]>", 7, [[1, 2, 2]]),
    ],
)  # fmt: skip
def test_operands_and_back(op: str, attributes: str, opset: int, want: list[Any]) -> None:
    n = node(op, "x", attributes, opset)
    ins = operands(n)
    assert ins[0] is n.inputs[0]
    assert [None if v is None else v.const.tolist() for v in ins[1:]] == want  # type: ignore[union-attr]
    moved = {name for _, name, _ in MOVED[op]}
    inputs, back = list(ins), {k: a for k, a in n.attributes.items() if k not in moved}
    spell(op, inputs, back, opset)
    assert inputs == n.inputs
    if "axes" in back:
        back["axes"] = want[-1]  # axes come back counted from the front
        assert attributes.startswith("<axes") or op == "Slice"
    assert back == {**n.attributes, **({"axes": want[-1]} if "axes" in n.attributes else {})}


def test_operands_have_the_data_s_type() -> None:
    for dtype, want in (("float16", 10), ("double", 11), ("float", 1)):
        n = node("Pad", "x", "<pads = [0, 1], value = 2.0>", 10, f"{dtype}[3] x")
        assert [v.dtype for v in operands(n)[1:]] == [7, want]  # type: ignore[union-attr]
    assert operands(node("Dropout", "x", "<ratio = 0.5>", 10, "float16[3] x"))[1].dtype == 1  # type: ignore[union-attr]


def test_constant_axes_count_from_the_front_at_every_opset() -> None:
    m = read(
        """(float[2,3] x, int64[1] k) => (float y)
            <int64[2] axes = {-1, 0}, int64[1] far = {9}> {
            a = ReduceMean(x, axes)  b = ReduceMean(x, k)  c = ReduceMean(x, far)  d = Unsqueeze(x, axes)
            y = ReduceMean(a) }""",
        18,
    )
    a, b, c, d, y = m.graph
    assert operands(a)[1].const.tolist() == [1, 0] and operands(d)[1].const.tolist() == [3, 0]  # type: ignore[union-attr]
    assert operands(b) == b.inputs and operands(c) == c.inputs and operands(y) == y.inputs


def test_computed_operands_cannot_become_attributes() -> None:
    m = read("(float[2,3] x, int64[1] k) => (float y) { y = Relu(x) }", 11)
    x, k = m.graph.inputs
    with pytest.raises(Decline, match="axes is computed"):
        spell("Squeeze", [x, k], {}, 11)
    spell("Squeeze", [x, k], {}, 13)


def test_attributes_and_defaults() -> None:
    n = node("BatchNormalization", "x, x, x, x, x", "", 12)
    assert attribute(n, "epsilon") == pytest.approx(1e-5) and attribute(n, "training_mode") == 0  # of opset 14
    assert attribute(n, "nothing") is None
    assert (
        attribute(node("Softmax", "x", "", 12), "axis") == 1 and attribute(node("Softmax", "x", "", 13), "axis") == -1
    )
    assert attribute(node("Transpose", "x", "", 12), "perm") is None
    assert attribute(node("ReduceMean", "x", "<keepdims = 0>", 13), "keepdims") == 0


@pytest.mark.parametrize("opset", [9, 11, 12, 13])
@pytest.mark.parametrize("axis", [None, -1, 2, 1, 0, -2])
@pytest.mark.parametrize("op", sorted(FLATTENS))
def test_softmax_means_the_newest_one_at_every_opset(op: str, axis: int | None, opset: int) -> None:
    m = read("(float[2,3,4] x) => (float[2,3,4] y) { y = Abs(x) }", opset)
    e = Editor(m)
    try:
        new = getattr(e.op, op)(m.graph.inputs[0], axis=axis)
    except Decline:
        assert opset < 13 and axis in (0, 1, -2)
        return
    assert e.replace([m.graph.outputs[0]], [new])
    onnx.checker.check_model(lower(m))
    x = np.random.default_rng(0).standard_normal((2, 3, 4)).astype("f")
    want = helper.make_model(
        helper.make_graph(
            [helper.make_node(op, ["x"], ["y"], axis=-1 if axis is None else axis)], "g",
            [helper.make_tensor_value_info("x", 1, [2, 3, 4])], [helper.make_tensor_value_info("y", 1, [2, 3, 4])],
        ),
        opset_imports=[helper.make_opsetid("", 13)],
    )  # fmt: skip
    got = _session(lower(m)).run(None, {"x": x})[0]
    assert np.allclose(got, ReferenceEvaluator(want).run(None, {"x": x})[0], atol=1e-6)


def _session(model: onnx.ModelProto) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("opset", [7, 9, 10, 11, 12, 13, 18, 20])
@pytest.mark.parametrize(
    ("op", "arguments", "attributes", "outputs"),
    [
        ("ReduceMean", ([1],), {"keepdims": 0}, 1), ("ReduceSum", ([1, 2],), {}, 1), ("Squeeze", ([0],), {}, 1),
        ("Unsqueeze", ([0],), {}, 1), ("Clip", (0.0, 0.5), {}, 1), ("Clip", (None, 0.5), {}, 1),
        ("Pad", ([0, 1, 0, 0, 0, 2], 3.0), {}, 1), ("Slice", ([1], [3], [2]), {}, 1), ("TopK", ([2],), {"axis": -1}, 2),
        ("Split", ([1, 3],), {"axis": 2}, 2), ("Dropout", (0.5,), {}, 1),
    ],
)  # fmt: skip
def test_a_rule_s_spelling_runs_at_every_opset(
    op: str, arguments: Any, attributes: Any, outputs: int, opset: int
) -> None:
    m = read("(float[1,3,4] x) => (float y) { y = Abs(x) }", opset)
    m.graph.outputs[0].dims = None  # whatever comes
    e = Editor(m)
    made = getattr(e.op, op)(
        m.graph.inputs[0], *(None if a is None else np.asarray(a) for a in arguments), outputs=outputs, **attributes
    )
    y = made if outputs == 1 else made[0]
    assert e.replace([m.graph.outputs[0]], [y], shape="test")
    model = lower(m)
    model.graph.output[0].type.CopyFrom(helper.make_tensor_type_proto(1, y.dims))
    onnx.checker.check_model(model)
    x = np.random.default_rng(0).standard_normal((1, 3, 4)).astype("f")
    got = _session(model).run(None, {"x": x})[0]
    axes = tuple(np.atleast_1d(arguments[0])) if op in ("ReduceMean", "ReduceSum") else ()
    want = {
        "ReduceMean": lambda: x.mean(axes), "ReduceSum": lambda: x.sum(axes, keepdims=True), "Squeeze": lambda: x[0],
        "Unsqueeze": lambda: x[None], "Clip": lambda: np.clip(x, *arguments),
        "Pad": lambda: np.pad(x, [(0, 0), (1, 0), (0, 2)], constant_values=3), "Slice": lambda: x[..., 1:3],
        "TopK": lambda: -np.sort(-x)[..., :2], "Split": lambda: x[..., :1], "Dropout": lambda: x,
    }[op]()  # fmt: skip
    assert got.shape == want.shape == tuple(y.dims) and np.allclose(got, want, atol=1e-6)


def test_optional_outputs() -> None:
    assert optional_output("Dropout", 20, "", 1) and not optional_output("Dropout", 20, "", 0)
    assert not optional_output("Split", 20, "", 1) and not optional_output("Nothing", 20, "", 0)
