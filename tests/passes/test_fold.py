"""What folding computes is what the runtime and onnx.reference compute, for every numpy kernel and every type."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from answers import Array, CannotRun, Runner, differ, draw
from goldens import apply
from onnx import TensorProto, defs, helper
from onnx.reference import ReferenceEvaluator

from optimizer.core.edit import Editor
from optimizer.core.facts import PREDICATE
from optimizer.core.graph import Value, lower
from optimizer.core.model import read
from optimizer.core.propagate import propagate
from optimizer.core.tensor import numpy_dtype
from optimizer.driver import pipeline, recipe
from optimizer.driver.presets import LEVELS
from passes import kernels

Judge = Callable[[onnx.ModelProto, list[Array]], Array | None]
OPSET = 23
# op → shapes of its operands, or arrays where values matter; attributes; how far floats may be apart in last places
_ROUGH = 4.0
_PAIR: list[Any] = [(3, 1, 5), (4, 5)]
_I = np.asarray
_CASES: dict[str, list[tuple[list[Any], dict[str, Any], float]]] = {
    **{op: [(_PAIR, {}, 0.0), ([(0, 5), (5,)], {}, 0.0)] for op in ("Add", "Sub", "Mul", "Div", "Equal", "Greater")},
    **{op: [(_PAIR, {}, 0.0)] for op in ("Less", "GreaterOrEqual", "LessOrEqual", "And", "Or", "Xor")},
    **{op: [([(3, 1, 5), (4, 5), (1,)], {}, 0.0), ([(3,)], {}, 0.0)] for op in ("Max", "Min")},
    "Sum": [([(3, 1, 5), (4, 5)], {}, 0.0)],
    "Pow": [(_PAIR, {}, _ROUGH)],
    **{op: [([(3, 5)], {}, 0.0)] for op in ("Neg", "Abs", "Sqrt", "Floor", "Ceil", "Relu", "Not", "IsNaN", "Identity")},
    **{op: [([(3, 5)], {}, _ROUGH)] for op in ("Reciprocal", "Exp", "Log", "Sin", "Cos", "Tanh", "Sigmoid")},
    "Where": [([_I([[True], [False], [True]]), (3, 1), (4,)], {}, 0.0)],
    "Shape": [([(3, 0, 5)], {}, 0.0), ([(3, 4, 5)], {"start": -2, "end": 100}, 0.0), ([()], {}, 0.0)],
    "Reshape": [([(3, 4), _I([2, -1])], {}, 0.0), ([(3, 4), _I([0, 2, 2])], {}, 0.0)],
    "Squeeze": [([(1, 3, 1)], {}, 0.0), ([(1, 3, 1), _I([-1])], {}, 0.0)],
    "Unsqueeze": [([(3, 2), _I([-1, 0])], {}, 0.0)],
    "Flatten": [([(2, 3, 4)], {}, 0.0), ([(2, 3, 4)], {"axis": -1}, 0.0), ([(2, 3, 4)], {"axis": 0}, 0.0)],
    "Transpose": [([(2, 3, 4)], {}, 0.0), ([(2, 3, 4)], {"perm": [2, 0, 1]}, 0.0)],
    "Concat": [([(2, 3), (2, 1), (2, 0)], {"axis": -1}, 0.0)],
    "Gather": [([(4, 3), _I([[0, -1], [2, -4]])], {}, 0.0), ([(4, 3), _I(-1)], {"axis": 1}, 0.0)],
    "Slice": [
        ([(4, 5), _I([1, -3]), _I([100, -1])], {}, 0.0),
        ([(4, 5), _I([100, -1]), _I([-100, 1]), _I([1, 0]), _I([-2, -1])], {}, 0.0),
        ([(4, 5), _I([-100]), _I([3]), _I([-1]), _I([2])], {}, 0.0),
        ([(4, 5), _I([3]), _I([-(2**63)]), _I([0]), _I([-1])], {}, 0.0),
        ([(4, 5), _I([2]), _I([2]), _I([0])], {}, 0.0),
        ([(0, 5), _I([0]), _I([9]), _I([0])], {}, 0.0),
    ],
    "Expand": [([(3, 1), _I([2, 1, 4])], {}, 0.0), ([(3, 1), _I([1])], {}, 0.0), ([(1,), _I([0])], {}, 0.0)],
    "Range": [([_I(0), _I(5), _I(2)], {}, 0.0), ([_I(5), _I(0), _I(-2)], {}, 0.0), ([_I(5), _I(0), _I(2)], {}, 0.0)],
    "MatMul": [([(2, 3, 4), (4, 5)], {}, _ROUGH), ([(4,), (4, 5)], {}, _ROUGH), ([(2, 0), (0, 3)], {}, 0.0)],
    **{
        op: [
            ([(3, 4, 5)], {}, _ROUGH),
            ([(3, 4, 5), _I([-1, 0])], {"keepdims": 0}, _ROUGH),
            ([(3, 4)], {"noop_with_empty_axes": 1}, 0.0),
        ]
        for op in ("ReduceSum", "ReduceMean", "ReduceProd", "ReduceMax", "ReduceMin")
    },
}  # fmt: skip
_OTHERWISE = {"Cast", "ConstantOfShape"}  # tests of their own


def test_every_kernel_is_compared() -> None:
    assert set(kernels._KERNELS) == _CASES.keys() | _OTHERWISE


def types(op: str) -> list[int]:
    """The element types that the first operand (of Where the second) may have."""
    s = defs.get_schema(op, OPSET, "")
    i = s.inputs[1 if op == "Where" else 0]
    allowed = next((c.allowed_type_strs for c in s.type_constraints if c.type_param_str == i.type_str), [i.type_str])
    return [
        t for name, t in TensorProto.DataType.items() if f"tensor({name.lower()})" in allowed and "COMPLEX" not in name
    ]


def node_model(op: str, arrays: list[Array], attributes: dict[str, Any], out: int) -> onnx.ModelProto:
    types = [TensorProto.STRING if x.dtype == object else helper.np_dtype_to_tensor_dtype(x.dtype) for x in arrays]
    names = [f"i{k}" for k, _ in enumerate(arrays)]
    inputs = [helper.make_tensor_value_info(i, t, x.shape) for i, t, x in zip(names, types, arrays)]
    node = helper.make_node(op, names, ["o"], **attributes)
    graph = helper.make_graph([node], "g", inputs, [helper.make_tensor_value_info("o", out, None)])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=11)


def folded(model: onnx.ModelProto, arrays: list[Array]) -> Array | None:
    """What the kernels make of the model's one node."""
    m = read(model)
    n = next(iter(m.graph))
    given: dict[Value, Array] = {v: x for v, x in zip(n.inputs, arrays) if v is not None}
    for v, x in given.items():
        if x.dtype == np.int64 and x.size < 64:
            v.known = x.astype(object)
    propagate(m)
    out = kernels.evaluate(n, given.get)
    return None if out is None else out[0]


def in_runtime(model: onnx.ModelProto, arrays: list[Array]) -> Array | None:
    try:
        return Runner(model)({f"i{k}": x for k, x in enumerate(arrays)})[0]
    except CannotRun:
        return None


def in_reference(model: onnx.ModelProto, arrays: list[Array]) -> Array | None:
    try:
        with np.errstate(all="ignore"):
            out = ReferenceEvaluator(model).run(None, {f"i{k}": x for k, x in enumerate(arrays)})
    except Exception:  # the reference raises whatever numpy raises
        return None
    return np.asarray(out[0])


def compare(model: onnx.ModelProto, given: list[Array], ulps: float, what: str, judges: Sequence[Judge]) -> set[str]:
    """The judges that could run the node; all of them agree with what is folded, if anything is."""
    mine = folded(model, given)
    heard: set[str] = set()
    for judge in judges if mine is not None else ():
        want = judge(model, given)
        if want is not None:
            heard.add(judge.__name__)
            told = differ(want, mine, ulps)
            assert not told, f"{judge.__name__} {what}: {told}"
    return heard


@pytest.mark.parametrize("op", _CASES)
def test_kernel_computes_what_others_compute(op: str) -> None:
    random = np.random.default_rng(5)
    heard: set[str] = set()
    for dtype in types(op):
        kind = numpy_dtype(dtype)
        for shapes, attributes, ulps in _CASES[op]:
            for regime in ("signed", "positive", "zeros", "special", "large"):
                is_float = "float" in kind.name
                if (regime == "special" and not is_float) or (regime == "large" and op in _SUMS):
                    continue
                given = [draw(kind, s, regime, random) if isinstance(s, tuple) else s for s in shapes]
                if op == "Range":
                    given = [x.astype(kind) for x in given]
                out = TensorProto.BOOL if op in PREDICATE else TensorProto.INT64 if op == "Shape" else dtype
                slack = max(ulps, 1.0 if kind.itemsize < 4 else 0.0) if is_float else 0.0
                heard |= compare(
                    node_model(op, given, attributes, out), given, slack,
                    f"{kind} {shapes} {attributes} {regime}", _judges(op, kind, regime),
                )  # fmt: skip
    assert heard == {"in_runtime", "in_reference"}


_SUMS = {
    "MatMul",
    "ReduceSum",
    "ReduceProd",
    "ReduceMean",
    "Pow",
}  # overflow on the way: where is each one's own choice


def _judges(op: str, kind: np.dtype[Any], regime: str) -> Sequence[Judge]:
    if op == "Gather" and kind.kind == "O":
        return [in_reference]  # the runtime copies the first string of each row and leaves the others empty
    if op in ("ReduceMax", "ReduceMin") and regime == "special":
        return [in_reference]  # the runtime's largest of NaN and 1 depends on their order
    return [in_runtime, in_reference]


def test_slice_backwards_from_before_the_first_element() -> None:
    """The start is the first element then (Slice-13); onnx.reference takes numpy's slices, which begin nowhere."""
    given = [
        draw(np.dtype(np.float32), (4, 5), "signed", np.random.default_rng(0)),
        _I([-9]),
        _I([-9]),
        _I([0]),
        _I([-1]),
    ]
    model = node_model("Slice", given, {}, TensorProto.FLOAT)
    assert compare(model, given, 0.0, "", [in_runtime]) == {"in_runtime"}


_WHOLE = [TensorProto.DataType.Value(f"{s}INT{b}") for s in ("", "U") for b in (8, 16, 32, 64)]
_CASTS = [
    *_WHOLE, TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.BOOL,
    TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT8E4M3FNUZ, TensorProto.FLOAT8E5M2, TensorProto.FLOAT8E5M2FNUZ,
    TensorProto.INT4, TensorProto.UINT4,
]  # fmt: skip


@pytest.mark.parametrize("source", _CASTS, ids=TensorProto.DataType.Name)
def test_cast(source: int) -> None:
    random = np.random.default_rng(7)
    kind = numpy_dtype(source)
    heard: set[str] = set()
    for to in _CASTS:
        for saturate in (0, 1):
            for regime in ("signed", "positive", "large", "special"):
                if regime == "special" and "float" not in kind.name:
                    continue
                x = draw(kind, (7, 9), regime, random)
                attributes = {"to": to, "saturate": saturate} if saturate == 0 else {"to": to}
                model = node_model("Cast", [x], attributes, to)
                what = f"{kind} → {numpy_dtype(to)} {attributes} {regime}"
                sign_is_true = to == TensorProto.BOOL and "float8" in kind.name  # to the runtime, −0 is true there
                judges = [in_reference] if sign_is_true else [in_runtime, in_reference]
                heard |= compare(model, [x], 0.0, what, judges)
    assert "in_reference" in heard


@pytest.mark.parametrize("dtype", _CASTS, ids=TensorProto.DataType.Name)
def test_constant_of_shape(dtype: int) -> None:
    value = helper.make_tensor("v", dtype, [1], [1])
    for shape in ([2, 3], [0, 3], []):
        given = [np.asarray(shape, np.int64)]
        compare(
            node_model("ConstantOfShape", given, {"value": value}, dtype), given, 0.0, "", [in_runtime, in_reference]
        )


UNDEFINED: dict[str, tuple[str, list[Array], dict[str, Any], int]] = {
    "integers divided by zero": ("Div", [_I([7]), _I([0])], {}, TensorProto.INT64),
    "an integer to a negative power": ("Pow", [_I([2]), _I([-1])], {}, TensorProto.INT64),
    "an integer to a broken power": ("Pow", [_I([2]), _I([0.5])], {}, TensorProto.INT64),
    "the mean of integers": ("ReduceMean", [_I([1, 2], np.int32)], {}, TensorProto.INT32),
    "NaN as an integer": ("Cast", [_I([np.nan], np.float32)], {"to": TensorProto.INT32}, TensorProto.INT32),
    "a float beyond the integers": ("Cast", [_I([3e9], np.float32)], {"to": TensorProto.INT32}, TensorProto.INT32),
    "2⁶³": ("Cast", [_I([2.0**63])], {"to": TensorProto.INT64}, TensorProto.INT64),
    "a negative float as a size": ("Cast", [_I([-1.0], np.float16)], {"to": TensorProto.UINT8}, TensorProto.UINT8),
    "an index out of bounds": ("Gather", [_I([1, 2]), _I([2])], {}, TensorProto.INT64),
}


@pytest.mark.parametrize("case", UNDEFINED)
def test_what_is_undefined_is_not_folded(case: str) -> None:
    op, given, attributes, out = UNDEFINED[case]
    assert folded(node_model(op, given, attributes, out), given) is None


def test_a_branch_that_hands_out_one_value_twice() -> None:
    """Judged by onnx.reference: from such an If, the runtime hands out nothing for the second output."""
    text = """<ir_version: 11, opset_import: ["": 23]>
    g (float[N] x) => (float[N] y, float[N] z) <bool c = {1}> {
      y, z = If(c) <
        then_branch = t () => (float[N] p, float[N] p) { p = Neg(x) },
        else_branch = e () => (float[N] q, float[N] r) { q = Abs(x)  r = Exp(x) }
      >
    }"""
    before = onnx.parser.parse_model(text)
    model = read(before)
    assert apply("decided_if", Editor(model)) == 1
    after = lower(model)
    assert [n.op_type for n in after.graph.node] == ["Neg", "Identity"]
    given = {"x": np.asarray([1, -2], np.float32)}
    want, got = (ReferenceEvaluator(m).run(None, given) for m in (before, after))
    assert not differ(want, got)


def test_nan_has_one_spelling() -> None:
    given = [_I([0.0, 1.0], np.float32), _I([0.0, 1.0], np.float32)]
    quotient = folded(node_model("Div", given, {}, TensorProto.FLOAT), given)
    assert quotient is not None and quotient.tobytes() == _I([np.nan, 1.0], np.float32).tobytes()


def test_what_would_take_long_is_not_folded() -> None:
    image = [np.zeros((1, 1, 64, 64), np.float32)]
    assert folded(node_model("MaxPool", image, {"kernel_shape": [3, 3]}, TensorProto.FLOAT), image) is None
    vector = [np.zeros(kernels.LARGE + 1, np.float32)]
    assert folded(node_model("Erf", vector, {}, TensorProto.FLOAT), vector) is None


def test_a_region_that_did_not_pay_is_looked_at_again_when_it_has_fewer_readers() -> None:
    """Kept twice it is larger than what it is made of; once the Identity is gone, it is kept once."""
    m = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[2000] y) => (float[2000] a, float[2000] z) { n = Neg(x) r = Abs(n) a = Identity(r) z = Add(r, y) }"""
    )
    m.graph.initializer.append(onnx.numpy_helper.from_array(np.arange(2000, dtype=np.float32), "x"))
    editor = Editor(read(m))
    pipeline.run(editor, recipe.parse(LEVELS[2]))
    again = Editor(read(lower(editor.model)))
    pipeline.run(again, recipe.parse(LEVELS[2]))
    assert not again.log
    assert "Neg" not in {n.op for n in editor.model.nodes()}
