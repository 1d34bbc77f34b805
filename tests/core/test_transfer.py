"""Transfer rows against what comes out of onnx's node tests: no size and no value that a row gives is wrong."""

from __future__ import annotations

from collections import Counter
from itertools import chain
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest
from conftest import NodeCase
from onnx import ModelProto, helper, numpy_helper

from optimizer.core import dims as D
from optimizer.core.edit import Editor
from optimizer.core.form import Decline
from optimizer.core.graph import Model, Value, lift
from optimizer.core.propagate import propagate
from optimizer.core.tensor import onnx_dtype
from optimizer.core.transfer import _sliced, improve

LARGEST = 64  # elements of an input that becomes a constant
# how a node test is told: sizes as they are; small integer inputs as constants; then also each dim by a name of its own
# (or equal dims by equal names)
TOLD = ["plain", "constants", "named", "shared names"]


def told(case: NodeCase, how: str) -> tuple[ModelProto, dict[str, int]]:
    """The case's model without any shape but its inputs', and the sizes of the names it uses."""
    m = ModelProto()
    m.CopyFrom(case.model)
    binding: dict[str, int] = {}
    inputs = []
    for i, x in zip(m.graph.input, case.inputs):
        if how != "plain" and isinstance(x, np.ndarray) and x.dtype.kind in "iub" and x.size <= LARGEST:
            m.graph.initializer.append(numpy_helper.from_array(x, i.name))
            continue
        inputs.append(i)
        for k, d in enumerate(i.type.tensor_type.shape.dim if "names" in how or how == "named" else ()):
            if d.HasField("dim_value"):
                name = f"{i.name}.{k}" if how == "named" else f"d{d.dim_value}"
                binding[name] = d.dim_value
                d.dim_param = name
    del m.graph.input[:], m.graph.value_info[:]
    m.graph.input.extend(inputs)
    for o in m.graph.output:
        o.type.tensor_type.ClearField("shape")
    return m, binding


def verdict(v: Value, x: Any, binding: dict[str, int]) -> str:
    """ "": all is known and right; else what is not known, or `wrong …`."""
    if not isinstance(x, np.ndarray) or v.type is not None:
        return "no tensor"
    if v.dtype and v.dtype != onnx_dtype(x.dtype):
        return f"wrong dtype {v.dtype} of {x.dtype}"
    if v.known is not None:
        if v.known.shape != x.shape:
            return f"wrong shape of the known value {v.known} of {x.shape}"
        for k, t in zip(v.known.ravel(), x.ravel()):
            if k is not None and size(k, binding) not in (None, t):
                return f"wrong value {v.known} of {x}"
    if v.dims is None:
        return "no rank"
    if len(v.dims) != x.ndim or any(size(d, binding) not in (None, t) for d, t in zip(v.dims, x.shape)):
        return f"wrong dims {v.dims} of {x.shape}"
    return "no dtype" if not v.dtype else "" if all(size(d, binding) is not None for d in v.dims) else "partly"


def size(d: Any, binding: dict[str, int]) -> int | None:
    try:
        return D.evaluate(d, binding.__getitem__)
    except KeyError:
        return None  # a name that only the analysis gave


@pytest.mark.parametrize("how", TOLD)
def test_rows_say_what_comes_out(node_cases: list[NodeCase], how: str) -> None:
    verdicts: Counter[str] = Counter()
    for c in node_cases:
        m, binding = told(c, how)
        model = lift(m)
        propagate(model)
        for v, x in zip(model.graph.outputs, c.outputs):
            is_ = verdict(v, x, binding)
            assert not is_.startswith("wrong"), f"{c.name}, {v}: {is_}"
            verdicts[is_] += 1
    assert verdicts[""] > 1_430  # of 1,450 outputs, 13 are known only where no two sizes are 0


@pytest.mark.parametrize("how", TOLD[1:3])
def test_a_staged_copy_of_any_node_is_inferred_alike(node_cases: list[NodeCase], how: str) -> None:
    """Staging refuses what inference does not take: none of these; and says as much as the walk over the graph."""
    copies = 0
    for c in node_cases:
        m, binding = told(c, how)
        model = lift(m)
        propagate(model)
        editor = Editor(model)
        x_of = dict(zip(model.graph.outputs, c.outputs))
        for n in model.graph:
            if n.bodies or n.op == "StringNormalizer":  # whose inference refuses a dim that is a name
                continue
            for o, v in zip(n.outputs, editor.stage_like(n)):
                if o in x_of:
                    assert not verdict(v, x_of[o], binding).startswith("wrong"), c.name
                if o.name and o.type is None and n.op != "Optional":
                    assert (v.dtype, v.rank) == (o.dtype, o.rank), f"{c.name}: {n}"
                    assert v.dims is None or all(d == e or D.is_unknown(d) for d, e in zip(v.dims, o.dims or ())), (
                        c.name
                    )
            copies += 1
    assert copies > 10_000


# what bodies hand out is the propagation's, not a row's
NOT_ROWS = {"Scan", "Loop", "If", "FlexAttention"}


@pytest.mark.parametrize("how", TOLD[1:3])
def test_rows_say_no_less_than_onnx(node_cases: list[NodeCase], how: str) -> None:
    less: Counter[tuple[str, str]] = Counter()
    for c in node_cases:
        if how == "named" and "_expanded" in c.name:
            continue  # functions reshape to computed sizes: onnx takes a 0 among them for a size, Reshape for a copy
        m, _ = told(c, how)
        model = lift(m)
        propagate(model)
        try:
            inferred = onnx.shape_inference.infer_shapes(m, data_prop=True).graph
        except onnx.shape_inference.InferenceError:
            continue
        theirs = {i.name: i.type.tensor_type for i in (*inferred.value_info, *inferred.output)}
        after_a_body = False
        for n in model.graph:
            after_a_body = after_a_body or n.op in NOT_ROWS
            for v in n.outputs if not after_a_body else ():
                if v.type is None and v.name in theirs and (what := _less(v, theirs[v.name])):
                    less[n.op, what] += 1
    if how == "named":  # onnx gives qk_matmul_output, and more, a dim of 0 where lengths are names: it is wrong
        less.pop(("Attention", "a dim"))
    assert not less


def _less(v: Value, t: onnx.TypeProto.Tensor) -> str:
    if t.elem_type and not v.dtype:
        return "the dtype"
    if not t.HasField("shape"):
        return ""
    if v.dims is None:
        return "the rank"
    for d, e in zip(v.dims, t.shape.dim):
        named = e.HasField("dim_param") and not e.dim_param.startswith("unk__")
        if (e.HasField("dim_value") and not isinstance(d, int)) or (named and D.is_unknown(d)):
            return "a dim"
    return ""


# ── rows that node tests do not reach ─────────────────────────────────────────────────────────────────────────────────


def infer(body: str, inputs: str = "float[s, 4] x", constants: str = "", opset: int = 20) -> Model:
    text = f'<ir_version: 9, opset_import: ["": {opset}]> g ({inputs}) => (float y) {constants} {{ {body} }}'
    m = lift(onnx.parser.parse_model(text))
    propagate(m)
    return m


def value(m: Model, name: str) -> Value:
    return next(v for v in chain(m.graph.inputs, *(n.outputs for n in m.graph)) if v.name == name)


def dims_of(m: Model, name: str = "y") -> str:
    d = value(m, name).dims
    return "?" if d is None else ", ".join("?" if D.is_unknown(x) else str(x) for x in d)


@pytest.mark.parametrize(
    ("body", "constants", "dims"),
    [
        # what exporters write: a shape taken apart and put together
        ("t = Shape(x)  n = Gather(t, zero)  p = Concat<axis=0>(n, rest)  y = Reshape(x, p)",
         "<int64[1] zero = {0}, int64[2] rest = {2, 2}>", "s, 2, 2"),
        ("t = Shape(x)  n = Slice(t, zero, one)  p = Concat<axis=0>(n, rest)  y = Reshape(x, p)",
         "<int64[1] zero = {0}, int64[1] one = {1}, int64[1] rest = {-1}>", "s, 4"),
        ("t = Shape(x)  n = Gather(t, zero)  m = Mul(n, two)  p = Concat<axis=0>(m, rest)  y = Reshape(x, p)",
         "<int64[1] zero = {0}, int64[1] two = {2}, int64[1] rest = {-1}>", "2*s, 2"),
        ("y = Reshape(x, p)", "<int64[2] p = {-1, 2}>", "2*s, 2"),
        ("y = Reshape(x, p)", "<int64[2] p = {-1, 3}>", "floordiv(4*s,3), 3"),
        ("y = Reshape(x, p)", "<int64[2] p = {2, -1}>", "2, 2*s"),
        ("y = Reshape(x, p)", "<int64[3] p = {0, 2, -1}>", "s, 2, 2"),
        # a table of positions, cut to the length of the text: it fits where the model runs
        ("t = Shape(x)  n = Gather(t, zero)  c = Slice(k, zero, n)  y = Add(x, c)",
         "<int64[1] zero = {0}, float[4, 1] k = {1, 2, 3, 4}>", "s, 4"),
        # torch's Expand: −1 keeps a dim, and no dim is −1
        ("t = Shape(x)  e = Equal(t, minus)  o = Where(e, one, t)  y = Expand(x, o)",
         "<int64[1] minus = {-1}, int64[1] one = {1}>", "s, 4"),
        ("y = Slice(x, one, huge)", "<int64[1] one = {1}, int64[1] huge = {9223372036854775807}>", "max(-1+s,0), 4"),
        ("y = Slice(x, zero, last)", "<int64[1] zero = {0}, int64[1] last = {-1}>", "max(-1+s,0), 4"),
        ("y = Slice(x, last, huge)", "<int64[1] last = {-2}, int64[1] huge = {9223372036854775807}>", "min(2,s), 4"),
        ("y = Slice(x, last, first, zero, last)",
         "<int64[1] last = {-1}, int64[1] first = {-9223372036854775807}, int64[1] zero = {0}>", "s, 4"),
        ("a = Concat<axis=0>(x, x)  y, z = Split<axis=0, num_outputs=2>(a)", "", "s, 4"),
        ("y, z = Split<axis=0, num_outputs=2>(x)", "", "?, 4"),
        ("y, z = Split<axis=1>(x, p)", "<int64[2] p = {1, 3}>", "s, 1"),
        ("t = Shape(x)  n = Gather(t, zero)  y = Range(zero, n, one)", "<int64 zero = {0}, int64 one = {1}>", "s"),
        ("t = Shape(x)  n = Gather(t, zero)  y = Range(one, n, one)",
         "<int64 zero = {0}, int64 one = {1}>", "max(-1+s,0)"),
        ("t = Shape(x)  m = ReduceProd<keepdims=1>(t)  y = Reshape(x, m)", "", "4*s"),
        ("t = Shape(x)  y = ConstantOfShape(t)", "", "s, 4"),
        ("y = Pad(x, p)", "<int64[4] p = {1, 0, 2, -1}>", "3+s, 3"),
        ("y = Tile(x, p)", "<int64[2] p = {3, 2}>", "3*s, 8"),
        ("y = Gemm<transA=1>(x, x)", "", "4, 4"),
        ("y = Flatten<axis=0>(x)", "", "1, 4*s"),
        ("y, z = TopK(x, k)", "<int64[1] k = {3}>", "s, 3"),
    ],
)  # fmt: skip
def test_symbolic_dims(body: str, constants: str, dims: str) -> None:
    assert dims_of(infer(body, constants=constants)) == dims


def test_two_spellings_of_a_shape_are_one() -> None:
    m = infer(
        """a = Slice(x, one, huge)  b = Slice(x, zero, last)  c = Sub(a, b)
        d = Reshape(x, p)  e = Transpose<perm=[1,0]>(x)  f = Reshape(e, p)  y = Add(d, f)""",
        constants="""<int64[1] zero = {0}, int64[1] one = {1}, int64[1] last = {-1},
        int64[1] huge = {9223372036854775807}, int64[2] p = {3, -1}>""",
    )
    assert dims_of(m, "c") == "max(-1+s,0), 4" and dims_of(m, "y") == "3, floordiv(4*s,3)"


def test_slices_are_as_long_as_onnx_runtime_cuts_them() -> None:
    text = """<ir_version: 9, opset_import: ["": 20]> g (float[s] x, int64[1] a, int64[1] b, int64[1] k) => (float[t] y)
    <int64[1] zero = {0}> { y = Slice(x, a, b, zero, k) }"""
    session = onnxruntime.InferenceSession(
        onnx.parser.parse_model(text).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    r = Random(0)
    ends = [*range(-9, 10), 2**31 - 1, -(2**31), 2**63 - 1, -(2**63)]
    said: Counter[bool] = Counter()
    for _ in range(4000):
        d, start, end, step = r.randint(0, 6), r.choice(ends), r.choice(ends), r.choice([1, 1, 1, 2, 3, -1, -1, -2])
        feeds = {"x": np.zeros(d, "f"), **{n: np.array([v]) for n, v in zip("abk", (start, end, step))}}
        (y,) = session.run(None, feeds)
        backwards_to_the_end = step < 0 and end in (2**31 - 1, 2**63 - 1)  # which texts and runtimes read differently
        assert _sliced(d, start, end, step) == (None if backwards_to_the_end else len(y)), (d, start, end, step)
        symbolic = _sliced(D.named("s"), start, end, step)
        said[symbolic is not None] += 1
        assert symbolic is None or D.evaluate(symbolic, {"s": d}.__getitem__) == len(y), (d, start, end, step, symbolic)
    assert said[True] > 800


@pytest.mark.parametrize("op", ["Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool"])
def test_windows_slide_as_in_onnx_runtime(op: str) -> None:
    r = Random(op)
    ran: Counter[bool] = Counter()
    for _ in range(150):
        kernel, strides = [[r.randint(1, 3), r.randint(1, 3)] for _ in range(2)]
        attributes: dict[str, Any] = {"strides": strides, "kernel_shape": kernel}
        if r.random() < 0.5 and op != "AveragePool":
            attributes["dilations"] = [r.randint(1, 2), r.randint(1, 2)]
        if r.random() < 0.6:
            attributes["pads"] = [r.randint(0, k - 1) for k in kernel * 2]
        else:
            attributes["auto_pad"] = r.choice(["VALID", "SAME_UPPER", "SAME_LOWER", "NOTSET"])
        if op.endswith("Pool") and r.random() < 0.3:
            attributes["ceil_mode"] = 1
        if op == "ConvTranspose" and r.random() < 0.5:
            attributes["output_padding"] = [r.randint(0, s - 1) for s in strides]
        shape = [2, 4, r.randint(4, 9), r.randint(4, 9)]
        convolves = op.startswith("Conv")
        node = helper.make_node(op, ["x", "w"] if convolves else ["x"], ["y"], **attributes)
        weight = numpy_helper.from_array(
            np.ones([4, 3, *kernel] if op == "ConvTranspose" else [3, 4, *kernel], "f"), "w"
        )
        graph = helper.make_graph(
            [node], "g", [helper.make_tensor_value_info("x", 1, ["b", "c", "h", "w"])], [onnx.ValueInfoProto(name="y")],
            [weight] if convolves else [],
        )  # fmt: skip
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=9)
        try:
            session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
            (y,) = session.run(None, {"x": np.zeros(shape, "f")})
        except Exception:  # windows that do not fit, dilated SAME: the runtime refuses them
            ran[False] += 1
            continue
        ran[True] += 1
        m = lift(model)
        propagate(m)
        told = verdict(m.graph.outputs[0], y, dict(zip("bchw", shape)))
        assert not told.startswith("wrong"), (attributes, shape, told)
        assert told == "" or "ceil_mode" in attributes or "SAME" in attributes.get("auto_pad", ""), (attributes, told)
    assert ran[True] > 90


def test_unknown_dims_are_their_own() -> None:
    m = infer("a = Compress<axis=0>(x, c)  b = Compress<axis=0>(x, c)  y = Relu(a)", inputs="float[s, 4] x, bool[s] c")
    a, b, y = (value(m, n).dims for n in "aby")
    assert a == y and a != b and a is not None and D.is_unknown(a[0])


def test_siblings_of_one_name_have_dims_of_their_own() -> None:
    m = infer(
        """y = If(p) <then_branch = t () => (float[u, 4] o) { o = Compress<axis=0>(x, c) },
                      else_branch = e () => (float[v, 4] o) { o = Compress<axis=0>(x, d) }>""",
        inputs="float[s, 4] x, bool[s] c, bool[s] d, bool p",
    )
    then, other = (b.outputs[0].dims for b in m.graph.next.bodies)
    assert then is not None and other is not None and then[0] != other[0]
    assert dims_of(m) == "?, 4"


def test_a_dim_called_like_a_sum_is_only_a_name() -> None:
    """Whatever other models of this process printed."""
    assert dims_of(infer("y = Concat<axis=0>(x, x)")) == "2*s, 4"
    m = lift(
        onnx.parser.parse_model(
            '<ir_version: 9, opset_import: ["": 20]> g (float[s] x, float[t] z) => (float y) { y = Relu(x) }'
        )
    )
    m.graph.inputs[1].dims = (D.named("2*s"),)
    two = m.graph.inputs[0].dims[0] * 2  # type: ignore[index]
    assert str(two) == "2*s" and two != D.named("2*s")


@pytest.mark.parametrize(
    ("body", "constants", "known"),
    [
        ("a = Mul(k, k)", "<int64[2] k = {4000000000, 2}>", None),  # wraps around in int64: not followed
        ("a = Div(k, l)", "<int64[2] k = {-7, 7}, int64[1] l = {2}>", [-3, 3]),
        ("a = Div(k, l)", "<int64[1] k = {7}, int64[1] l = {0}>", [None]),
        ("b = Cast<to=6>(k)  a = Mul(b, b)", "<int64[1] k = {65536}>", None),
        ("t = Shape(x)  a = Cast<to=9>(t)", "", [None, True]),
        ("t = Shape(x)  b = Add(t, one)  d = Cast<to=9>(b)  a = Cast<to=7>(d)", "<int64 one = {1}>", [1, 1]),
        ("t = Shape(x)  b = Add(t, one)  a = Less(t, b)", "<int64 one = {1}>", [True, True]),
        ("a = Slice(k, l, m, z, m)",
         "<int64[3] k = {1, 2, 3}, int64[1] l = {-1}, int64[1] m = {-1}, int64[1] z = {0}>", []),
        ("t = Shape(x)  d = Equal(t, k)  a = Where(d, k, l)", "<int64[2] k = {1, 4}, int64[2] l = {1, 3}>", [1, 4]),
        ("a = Constant<value_ints = [1, 2]>()", "", [1, 2]),
    ],
)  # fmt: skip
def test_known_values(body: str, constants: str, known: list[Any] | None) -> None:
    m = infer(f"{body}  y = Relu(x)", inputs="float[s, 4] x, bool[2] c", constants=constants)
    k = value(m, "a").known
    assert (None if k is None else k.tolist()) == known


def test_facts_only_get_better() -> None:
    v = Value("v")
    s, t = D.named("s"), D.unknown("v")
    for found, dims in [
        ([None, 4], (None, 4)),
        ([s, None], (s, 4)),
        ([t, 4], (s, 4)),
        ([3, None], (3, 4)),
        ([s, s], (3, 4)),
    ]:
        improve(v, found)
        assert v.dims is not None
        assert all(d == e or (e is None and D.is_unknown(d)) for d, e in zip(v.dims, dims))


@pytest.mark.parametrize(
    "stage",
    [
        lambda op, x: op.Concat(x, op.Transpose(x), axis=0),
        lambda op, x: op.Transpose(x, perm=[0, 2]),
        lambda op, x: op.Split(x, [1, 2], axis=1, outputs=2),
        lambda op, x: op.Gather(op.Size(x), 0),
        lambda op, x: op.Concat(x, axis=5),
        lambda op, x: op.MatMul(x, x),
        lambda op, x: op.Gemm(x, x),
        lambda op, x: op.Conv(x, x),
    ],
)
def test_malformed_operands_decline(stage: Any) -> None:
    m = infer("y = Relu(x)", inputs="float[3, 4] x")
    with pytest.raises(Decline):
        stage(Editor(m).op, m.graph.inputs[0])


def test_a_malformed_node_of_a_file_is_left_alone() -> None:
    m = infer(
        "a = Concat<axis=7>(x, x)  b = Unsqueeze(x, k)  c = MatMul(x, x)  y = Relu(x)",
        inputs="float[3,4] x",
        constants="<int64[1] k = {9}>",
    )
    assert [dims_of(m, n) for n in "abcy"] == ["?", "?", "?", "3, 4"]


LIGHT = Path(onnx.__file__).parent / "backend/test/data/light"


@pytest.mark.parametrize("name", ["shufflenet", "squeezenet", "inception_v2", "resnet50"])
def test_every_value_of_a_network(name: str) -> None:
    """All inner values of onnx's own networks, the batch a name, are as ONNX Runtime computes them."""
    proto = onnx.load(LIGHT / f"light_{name}.onnx")
    weights = {t.name for t in proto.graph.initializer}
    (image,) = (i for i in proto.graph.input if i.name not in weights)
    proto.ir_version = 8  # at which initializers need not be inputs
    del proto.graph.input[:], proto.graph.value_info[:]
    image.type.tensor_type.shape.dim[0].dim_param = "batch"
    proto.graph.input.append(image)
    for o in proto.graph.output:
        o.type.tensor_type.ClearField("shape")
    m = lift(proto)
    propagate(m)
    made = [v for n in m.graph for v in n.outputs if v.name]
    proto.graph.output.extend(onnx.ValueInfoProto(name=v.name) for v in made if not v.is_output)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    x = np.zeros([1, *(d.dim_value for d in image.type.tensor_type.shape.dim[1:])], "f")
    found = dict(zip([o.name for o in session.get_outputs()], session.run(None, {image.name: x})))
    for v in made:
        assert verdict(v, found[v.name], {"batch": 1}) == "", (v, v.dims, found[v.name].shape)
