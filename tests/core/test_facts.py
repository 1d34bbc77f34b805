"""Every row of facts against the operators' definitions, and by running them."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import onnx.parser
import onnxruntime
import pytest
from onnx import TensorProto, defs, helper
from onnx.reference import ReferenceEvaluator

from optimizer.core import facts
from optimizer.core.form import constant
from optimizer.core.graph import Node, lift
from optimizer.core.tensor import onnx_dtype

TABLES = ["UNARY", "BROADCAST", "COMMUTATIVE", "PREDICATE", "RANDOM", "QUANTIZATION", "OPAQUE", "LAZY", "REDUCTION"]
ATTRIBUTES: dict[str, dict[str, Any]] = {
    "Cast": {"to": TensorProto.FLOAT16},
    "BitShift": {"direction": "LEFT"},
    "Mod": {"fmod": 0},
    "Concat": {"axis": 0},
    **{op: {"hidden_size": 4} for op in ("RNN", "GRU", "LSTM")},
    **{op: {"blocksize": 2} for op in ("DepthToSpace", "SpaceToDepth")},
}
INTEGER = {"BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "Mod"}
LOGICAL = {"And", "Or", "Xor", "Not"}


def schema(op: str) -> defs.OpSchema:
    return defs.get_schema(op)


def operand(op: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    r = np.random.default_rng(seed)
    if op in LOGICAL:
        return r.random(shape) < 0.5
    if op in INTEGER:
        return r.integers(1, 9, shape).astype(np.uint32)
    return (r.uniform(0.1, 0.9, shape) + (op == "Acosh")).astype("f")


def run(op: str, *xs: np.ndarray) -> np.ndarray:
    names = [f"x{i}" for i in range(len(xs))]
    infos = [helper.make_tensor_value_info(n, onnx_dtype(x.dtype), x.shape) for n, x in zip(names, xs)]
    node = helper.make_node(op, names, ["y"], **ATTRIBUTES.get(op, {}))
    graph = helper.make_graph([node], "g", infos, [onnx.ValueInfoProto(name="y")])
    opset = 13 if op == "Mean" else defs.onnx_opset_version()
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    if op == "Mean":  # onnx.reference adds into its first operand and cannot broadcast that
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        return session.run(None, dict(zip(names, xs)))[0]
    return np.asarray(ReferenceEvaluator(model).run(None, dict(zip(names, xs)))[0])


def operands(op: str, shapes: list[tuple[int, ...]]) -> list[np.ndarray]:
    xs = [operand(op, s, i) for i, s in enumerate(shapes)]
    if op == "Where":
        xs[0] = xs[0] < 0.5
    return xs


@pytest.mark.parametrize("table", TABLES)
def test_rows_are_operators(table: str) -> None:
    rows = getattr(facts, table)
    assert rows and all(not schema(op).deprecated for op in rows)


@pytest.mark.parametrize("op", sorted(facts.UNARY))
def test_unary_keeps_the_shape_element_by_element(op: str) -> None:
    x = operand(op, (2, 3, 4), 0)
    more = [np.ones(4, "f")] if op in ("PRelu", "CastLike") else []
    y = run(op, x, *more)
    assert y.shape == x.shape
    order = [2, 0, 1]  # permuting elements permutes results
    assert np.array_equal(run(op, x[:, order], *more), y[:, order])
    same = schema(op).outputs[0].type_str == schema(op).inputs[0].type_str
    assert same or op in facts.PREDICATE or op in ("Cast", "CastLike")


@pytest.mark.parametrize("op", sorted(facts.BROADCAST))
def test_broadcast_is_numpy_s(op: str) -> None:
    count = 3 if op == "Where" else 2
    for shapes in ([(2, 3, 4), (3, 1), (4,)], [(1, 4), (2, 3, 1), ()], [(3,), (3,), (3,)]):
        xs = operands(op, shapes[:count])
        y = run(op, *xs)
        assert y.shape == np.broadcast_shapes(*(x.shape for x in xs))
        wide = np.broadcast_arrays(*xs)
        assert np.array_equal(run(op, *map(np.ascontiguousarray, wide)), y)
        order = [2, 0, 1] if y.shape[-1] == 3 else [3, 1, 0, 2]  # permuting elements permutes results
        assert np.array_equal(run(op, *(np.ascontiguousarray(x[..., order]) for x in wide)), y[..., order])


def test_broadcast_has_every_operator_that_broadcasts() -> None:
    said = {
        s.name
        for s in defs.get_all_schemas()
        if not s.domain and not s.deprecated and "Numpy-style broadcasting" in s.doc
    }
    assert {op for op in said if "multidirectional" in schema(op).doc} <= facts.BROADCAST


@pytest.mark.parametrize("op", sorted(facts.COMMUTATIVE))
def test_commutative(op: str) -> None:
    count = 3 if schema(op).max_input > 2 else 2
    xs = operands(op, [(2, 3), (3,), (2, 1)][:count])
    want = run(op, *xs)
    assert all(np.allclose(run(op, *p), want, rtol=1e-6) for p in permutations(xs))


@pytest.mark.parametrize("op", sorted(facts.BROADCAST - facts.COMMUTATIVE))
def test_the_others_are_not(op: str) -> None:
    xs = operands(op, [(2, 3)] * (3 if op == "Where" else 2))
    last = xs[-2:]
    assert not np.array_equal(run(op, *xs), run(op, *xs[:-2], *last[::-1]))


def test_predicates_are_those_elementwise_operators_that_give_bool() -> None:
    gives_bool = {op for op in facts.UNARY | facts.BROADCAST if _types(op) == {"tensor(bool)"}}
    assert gives_bool == facts.PREDICATE


def _types(op: str) -> set[str]:
    s = schema(op)
    return set(s.outputs[0].types)


def test_random_is_what_has_a_seed() -> None:
    seeded = {s.name for s in defs.get_all_schemas() if not s.domain and "seed" in s.attributes}
    assert seeded - {"Dropout"} == facts.RANDOM  # Dropout draws in training mode only


def test_opaque_has_bodies() -> None:
    with_bodies = {
        s.name
        for s in defs.get_all_schemas()
        if not s.domain and any(a.type in (a.type.GRAPH, a.type.GRAPHS) for a in s.attributes.values())
    }
    assert with_bodies == facts.OPAQUE


def node(text: str, opset: int = 20, inputs: str = "float[3,4] x, bool t") -> Any:
    constants = "<bool yes = {1}, bool no = {0}, float r = {0.5}>"
    m = f'<ir_version: 8, opset_import: ["": {opset}, "com.acme": 1]> g ({inputs}) => (float y) {constants} {{ {text} }}'
    return lift(onnx.parser.parse_model(m)).graph.next


@pytest.mark.parametrize(
    ("text", "opset", "pure"),
    [
        ("y = Relu(x)", 20, True),
        ("y = com.acme.Relu(x)", 20, False),
        ("y = RandomNormalLike(x)", 20, False),
        ("y = Bernoulli(x)", 20, False),
        ("y = Dropout(x)", 20, True),
        ("y = Dropout(x, r, no)", 20, True),
        ("y = Dropout(x, r, yes)", 20, False),
        ("y = Dropout(x, r, t)", 20, False),
        ("y = Dropout(x)", 10, True),
        ("y = BatchNormalization(x, x, x, x, x)", 14, True),
        ("y, a, b = BatchNormalization<training_mode = 1>(x, x, x, x, x)", 14, False),
        ("y, a, b, c, d = BatchNormalization(x, x, x, x, x)", 9, False),
        ("y = If(t) <then_branch = a () => (float u) { u = Relu(x) }, else_branch = b () => (float v) { v = Abs(x) }>", 20, False),
    ],
)  # fmt: skip
def test_pure(text: str, opset: int, pure: bool) -> None:
    assert facts.pure(node(text, opset)) == pure


# operands that fit, by operator
FIT: dict[str, tuple[tuple[int, ...] | None, ...]] = {
    "RNN": ((2, 1, 3), (1, 4, 3), (1, 4, 4), (1, 8), None, (1, 1, 4)),
    "GRU": ((2, 1, 3), (1, 12, 3), (1, 12, 4), (1, 24), None, (1, 1, 4)),
    "LSTM": ((2, 1, 3), (1, 16, 3), (1, 16, 4), (1, 32), None, (1, 1, 4), (1, 1, 4)),
    "DepthToSpace": ((1, 4, 2, 2),),
    "SpaceToDepth": ((1, 4, 2, 2),),
    "Conv": ((1, 2, 5), (3, 2, 2)),
    "ConvTranspose": ((1, 2, 5), (2, 3, 2)),
    "Concat": ((1, 2), (1, 2), (1, 2)),
}


@pytest.mark.parametrize("op", FIT)
def test_another_rank_stops_the_run(op: str) -> None:
    """What the table of ranks refuses, the runtime refuses, and nothing that it runs."""
    assert set(FIT) == {*facts.RANK, *facts.SAME_RANK}
    shapes = FIT[op]
    assert runs(op, shapes) and fits(op, shapes)
    for i, shape in enumerate(shapes):
        for other in () if shape is None else ((1, *shape), (*shape, 1), shape[1:]):
            changed = (*shapes[:i], other, *shapes[i + 1 :])
            assert not (runs(op, changed) and not fits(op, changed)), f"{op}{changed}"
            assert not fits(op, changed)


def fits(op: str, shapes: tuple[tuple[int, ...] | None, ...]) -> bool:
    node = Node(op, "", "", None)
    node.inputs = [None if shape is None else constant(np.zeros(shape, np.float32)) for shape in shapes]
    return facts.ranks_fit(node)


def runs(op: str, shapes: tuple[tuple[int, ...] | None, ...]) -> bool:
    names = ["" if shape is None else f"i{k}" for k, shape in enumerate(shapes)]
    outputs = ["", "y"] if op in ("RNN", "GRU", "LSTM") else ["y"]
    graph = helper.make_graph(
        [helper.make_node(op, names, outputs, **ATTRIBUTES.get(op, {}))], "g",
        [helper.make_tensor_value_info(name, 1, None) for name in names if name],
        [helper.make_tensor_value_info("y", 1, None)],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        s = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        s.run(None, {f"i{k}": np.ones(shape, np.float32) for k, shape in enumerate(shapes) if shape is not None})
    except Exception:  # the runtime's errors share no base
        return False
    return True
