"""Static int8: plans become the runtime's integer kernels, the arithmetic is right, masks and their like stay float."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from optimizer.core.edit import Editor
from optimizer.core.errors import BadInput
from optimizer.core.graph import Model, check
from optimizer.core.model import read, to_proto, write
from optimizer.core.propagate import propagate
from optimizer.core.target import target
from optimizer.runtime.kernels import integer_macs, optimized_graph
from optimizer.runtime.observe import Range
from optimizer.runtime.session import open_session
from passes.quantize import emit
from passes.quantize import plan as planning
from passes.quantize.emit import integers
from passes.quantize.masks import on_mask_path
from passes.quantize.opset import raise_opset
from passes.quantize.plan import Quantized, QuantPlan

Arrays = dict[str, np.ndarray]
RNG = np.random.default_rng(0)
AVX2 = target("cpu-avx2")


@pytest.fixture(autouse=True)
def the_same_numbers_whatever_ran_before() -> None:
    RNG.bit_generator.state = np.random.default_rng(0).bit_generator.state


def node(op: str, inputs: list[str], out: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs, [out], name=f"/{out}", **attributes)


def proto(
    nodes: list[onnx.NodeProto],
    constants: Mapping[str, Any],
    inputs: Mapping[str, list[Any]],
    outputs: list[str],
    opset: int = 17,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    model = onnx.shape_inference.infer_shapes(model)  # the checker asks for the shapes of outputs
    del model.graph.value_info[:]
    return model


def normal(*shape: int, scale: float = 1.0) -> np.ndarray:
    return (scale * RNG.normal(size=shape)).astype(np.float32)


class Run:
    """One model quantized in this process, with the ranges of its own data."""

    def __init__(self, folder: Path, original: onnx.ModelProto, feed: Arrays, **options: Any) -> None:
        self.feed, self.folder = feed, folder
        onnx.save(original, str(folder / "float.onnx"))
        self.model: Model = read(folder / "float.onnx")
        self.editor = Editor(self.model, target=options.pop("target", AVX2))
        propagate(self.model)
        self.before = to_proto(self.model).SerializeToString()
        self.ranges = ranges(original, planning.watched(self.model), feed)
        options = {"everywhere": True, **options}  # these models are too small to gain
        self.plan: QuantPlan = planning.plan(self.model, self.ranges, self.editor.target, **options)
        emit.apply(self.editor, self.plan)
        check(self.model)
        write(self.model, folder / "integer.onnx", force=True)
        onnx.checker.check_model(str(folder / "integer.onnx"), full_check=True)

    @property
    def kernels(self) -> Counter[str]:
        return Counter(n.op_type for n in optimized_graph(self.folder / "integer.onnx").graph.node)

    def outputs(self) -> tuple[Arrays, Arrays]:
        both = [open_session(self.folder / f"{name}.onnx", optimize=True) for name in ("float", "integer")]
        a, b = (session.run(self.feed) for session in both)
        return a, b  # type: ignore[return-value]

    @property
    def sqnr(self) -> float:
        a, b = self.outputs()
        return min(10 * np.log10((a[k] ** 2).sum() / max(((a[k] - b[k]) ** 2).sum(), 1e-30)) for k in a)


def ranges(original: onnx.ModelProto, names: list[str], feed: Arrays) -> dict[str, Range]:
    watching = onnx.ModelProto()
    watching.CopyFrom(original)
    known = {v.name for v in (*original.graph.input, *original.graph.output)}
    watching.graph.output.extend(onnx.ValueInfoProto(name=n) for n in names if n not in known)
    session = open_session_of(watching)
    got = {**feed, **session.run(feed)}
    return {n: Range(float(got[n].min()), float(got[n].max()), got[n].shape) for n in names}


def open_session_of(model: onnx.ModelProto) -> Any:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        onnx.save(model, f"{folder}/m.onnx")
        return open_session(f"{folder}/m.onnx", optimize=False)


CONV = {"w": normal(8, 8, 3, 3, scale=0.2), "b": normal(8)}
IMAGE = {"x": [1, 8, 12, 12]}
LAST = [node("Conv", ["r", "v"], "y")]
V = {"v": normal(8, 8, 1, 1)}


def image() -> Arrays:
    return {"x": normal(1, 8, 12, 12)}


def conv(out: str = "c") -> onnx.NodeProto:
    return node("Conv", ["x", "w", "b"], out, pads=[1] * 4)


BETWEEN = {
    "relu": ([node("Relu", ["c"], "r")], {}, "QLinearConv", 2),
    "relu6": ([node("Clip", ["c", "lo", "hi"], "r")], {"lo": np.float32(0), "hi": np.float32(6)}, "QLinearConv", 2),
    "residual": ([node("Add", ["c", "x"], "s"), node("Relu", ["s"], "r")], {}, "QLinearAdd", 1),
    "sum": ([node("Conv", ["x", "w"], "d", pads=[1] * 4), node("Sum", ["c", "d"], "r")], {}, "QLinearAdd", 1),
    "gate": ([node("Sigmoid", ["c"], "s"), node("Mul", ["c", "s"], "r")], {}, "QLinearMul", 1),
    "hard swish by hand": (
        [
            node("Add", ["c", "three"], "s"),
            node("Clip", ["s", "lo", "hi"], "k"),
            node("Mul", ["c", "k"], "p"),
            node("Div", ["p", "hi"], "r"),
        ],
        {"three": np.float32(3), "lo": np.float32(0), "hi": np.float32(6)},
        "QLinearMul",
        1,
    ),
    "scaled": ([node("Mul", ["half", "c"], "r")], {"half": np.array([0.5], np.float32)}, "QLinearConv", 2),
    "leaky": ([node("LeakyRelu", ["c"], "r")], {}, "QLinearLeakyRelu", 1),
    "pool": ([node("AveragePool", ["c"], "r", kernel_shape=[2, 2])], {}, "QLinearAveragePool", 1),
    "maxpool": ([node("MaxPool", ["c"], "r", kernel_shape=[2, 2])], {}, "NhwcMaxPool", 1),
    "global": ([node("GlobalAveragePool", ["c"], "r")], {}, "QLinearGlobalAveragePool", 1),
    "concat": (
        [node("Relu", ["c"], "p"), node("Concat", ["p", "x"], "k", axis=1),
         node("Slice", ["k", "from", "to", "axis"], "r")],
        {"from": np.array([0]), "to": np.array([8]), "axis": np.array([1])}, "QLinearConcat", 1,
    ),
    "shuffle": (
        [node("Reshape", ["c", "five"], "q"), node("Transpose", ["q"], "t", perm=[0, 2, 1, 3, 4]),
         node("Reshape", ["t", "four"], "r")],
        {"five": np.array([1, 2, 4, 12, 12]), "four": np.array([1, 8, 12, 12])}, "QLinearConv", 2,
    ),
    "resize": (
        [node("Resize", ["c", "", "scales"], "r", mode="nearest")],
        {"scales": np.array([1, 1, 2, 2], np.float32)}, "Resize", 1,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BETWEEN)
def test_integers_stay_integers_between_two_convolutions(tmp_path: Path, name: str) -> None:
    nodes, constants, kernel, count = BETWEEN[name]
    run = Run(tmp_path, proto([conv(), *nodes, *LAST], {**CONV, **V, **constants}, IMAGE, ["y"]), image())
    kernels = run.kernels
    assert kernels[kernel] >= count and kernels["QLinearConv"] >= 2, kernels
    assert kernels["QuantizeLinear"] == kernels["DequantizeLinear"] == 1, f"integers are left in between: {kernels}"
    assert run.sqnr > 22
    assert integer_macs(tmp_path / "integer.onnx", run.feed).floats == {}


PRODUCTS = {
    "matmul": ([node("MatMul", ["x", "w"], "m"), node("Softmax", ["m"], "y")], "MatMulIntegerToFloat"),
    "bias": ([node("MatMul", ["x", "w"], "m"), node("Add", ["m", "b"], "a"), node("Softmax", ["a"], "y")], "QGemm"),
    "bias first": (
        [node("MatMul", ["x", "w"], "m"), node("Add", ["b", "m"], "a"), node("Softmax", ["a"], "y")], "QGemm",
    ),
    "chain": (
        [node("MatMul", ["x", "w"], "m"), node("Add", ["m", "b"], "a"), node("Relu", ["a"], "r"),
         node("MatMul", ["r", "u"], "y")], "QGemm",
    ),
    "relu": ([node("Gemm", ["f", "w", "b"], "m"), node("Relu", ["m"], "r"), node("Tanh", ["r"], "y")], "QGemm"),
    "clip": ([node("Gemm", ["f", "w", "b"], "m"), node("Clip", ["m", "k"], "r"), node("Tanh", ["r"], "y")], "QGemm"),
    "bias relu": (
        [node("MatMul", ["x", "w"], "m"), node("Add", ["m", "b"], "a"), node("Relu", ["a"], "r"),
         node("Tanh", ["r"], "y")], "QGemm",
    ),
    "activations": (
        [node("Transpose", ["x"], "t", perm=[0, 2, 1]), node("MatMul", ["x", "t"], "m"), node("Softmax", ["m"], "y")],
        "MatMulIntegerToFloat",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PRODUCTS)
def test_products_are_integer_kernels(tmp_path: Path, name: str) -> None:
    nodes, kernel = PRODUCTS[name]
    constants = {"w": normal(32, 16, scale=0.2), "b": normal(16), "u": normal(16, 8), "k": np.float32(-0.5)}
    data = {"x": normal(2, 8, 32), "f": normal(8, 32)}
    feed = {name: data[name] for name in "xf" if any(name in n.input for n in nodes)}
    run = Run(tmp_path, proto(nodes, constants, {k: list(v.shape) for k, v in feed.items()}, ["y"]), feed)
    assert run.kernels[kernel] == 1, run.kernels
    assert integer_macs(tmp_path / "integer.onnx", run.feed).floats == {}
    assert run.sqnr > 25


@pytest.mark.parametrize("transposed", [False, True])
def test_gemm_quantizes_each_output_channel(tmp_path: Path, transposed: bool) -> None:
    w = normal(32, 16) * np.logspace(-3, 3, 16, dtype=np.float32)
    nodes = [node("Gemm", ["x", "w", "b"], "y", transB=int(transposed))]
    constants = {"w": w.T.copy() if transposed else w, "b": normal(16)}
    run = Run(tmp_path, proto(nodes, constants, {"x": [8, 32]}, ["y"]), {"x": normal(8, 32)})
    assert run.kernels["QGemm"] == 1
    assert run.plan.values["w"].axis == (0 if transposed else 1) and len(run.plan.values["w"].scale) == 16
    a, b = run.outputs()
    noise = ((a["y"] - b["y"]) ** 2).sum(0) / (a["y"] ** 2).sum(0)
    assert (10 * np.log10(noise) < -30).all(), "one scale for all channels would drown the small ones"


@pytest.mark.parametrize(("row", "largest"), [("cpu-avx2", 64), ("cpu-vnni", 127)])
def test_a_weight_has_as_many_bits_as_the_target_can_add(tmp_path: Path, row: str, largest: int) -> None:
    model = proto([node("MatMul", ["x", "w"], "y")], {"w": normal(32, 16)}, {"x": [8, 32]}, ["y"])
    run = Run(tmp_path, model, {"x": normal(8, 32)}, target=target(row))
    stored = [numpy_helper.to_array(t) for t in to_proto(run.model).graph.initializer]
    (w,) = (a for a in stored if a.dtype == np.int8 and a.ndim == 2)
    assert np.abs(w.astype(int)).max() == largest


def test_weights_that_all_agree_do_not_saturate_sixteen_bits(tmp_path: Path) -> None:
    model = proto([node("MatMul", ["x", "w"], "y")], {"w": np.ones((64, 16), np.float32)}, {"x": [8, 64]}, ["y"])
    run = Run(tmp_path, model, {"x": np.full((8, 64), 3, np.float32)})
    assert run.sqnr > 40, "2·255·q_max must fit 16 bits where there is no VNNI"


def test_integers_round_half_to_even_and_clip() -> None:
    q = Quantized("x", "uint8", (0.5,), 128, None, "x", "")
    assert integers(np.array([0, 0.25, 0.75, -0.25, 1e9, -1e9]), q).tolist() == [128, 128, 130, 128, 255, 0]


@pytest.mark.parametrize(
    ("low", "high"), [(-1.0, 3.0), (0.5, 3.0), (-3.0, -1.0), (0.0, 0.0), (1e-38, 2e-38), (-1e20, 3.0)]
)
def test_zero_is_always_exact(low: float, high: float) -> None:
    model = read(proto([node("MatMul", ["x", "w"], "y")], {"w": normal(4, 4)}, {"x": [4, 4]}, ["y"]))
    propagate(model)
    seen = {"x": Range(low, high, (4, 4)), "y": Range(0, 1, (4, 4))}
    q = planning.plan(model, seen, AVX2, everywhere=True).values["x"]
    assert 0 <= q.zero_point <= 255 and q.scale[0] > 0 and np.isfinite(q.scale[0])
    assert q.scale[0] * (255 - q.zero_point) >= high - q.scale[0] and -q.scale[0] * q.zero_point <= low + q.scale[0]


def test_a_bias_that_would_overflow_gets_a_larger_scale(tmp_path: Path) -> None:
    constants = {"w": normal(8, 4, scale=1e-6), "b": np.array([1e6, 0, 1, -1e6], np.float32)}
    model = proto([node("Gemm", ["x", "w", "b"], "y")], constants, {"x": [4, 8]}, ["y"])
    run = Run(tmp_path, model, {"x": normal(4, 8)})
    assert run.sqnr > 60


def test_a_channel_of_zeros_stays_zero(tmp_path: Path) -> None:
    w = normal(8, 8, 3, 3)
    w[3] = 0
    run = Run(tmp_path, proto([node("Conv", ["x", "w"], "y")], {"w": w}, IMAGE, ["y"]), image())
    assert not run.outputs()[1]["y"][:, 3].any()


def test_one_weight_and_bias_of_two_products(tmp_path: Path) -> None:
    nodes = [
        node("Gemm", ["x", "w", "b"], "h"),
        node("Relu", ["h"], "r"),
        node("Gemm", ["r", "w", "b"], "i"),
        node("Gemm", ["i", "w", "b"], "y", transB=1),
    ]
    run = Run(tmp_path, proto(nodes, {"w": normal(8, 8), "b": normal(8)}, {"x": [4, 8]}, ["y"]), {"x": normal(4, 8)})
    assert run.kernels["QGemm"] == 3 and run.sqnr > 25


def test_a_product_read_as_integers_and_as_floats_is_still_an_integer_one(tmp_path: Path) -> None:
    nodes = [node("MatMul", ["x", "w"], "h"), node("MatMul", ["h", "u"], "y"), node("Tanh", ["h"], "z")]
    model = proto(nodes, {"w": normal(16, 16), "u": normal(16, 16)}, {"x": [4, 16]}, ["y", "z"])
    run = Run(tmp_path, model, {"x": normal(4, 16)})
    assert integer_macs(tmp_path / "integer.onnx", run.feed).floats == {}


def test_branches_of_different_range_keep_their_own_scales_before_an_output(tmp_path: Path) -> None:
    nodes = [
        node("Conv", ["x", "w", "b"], "boxes"),
        node("Conv", ["x", "s"], "logits"),
        node("Sigmoid", ["logits"], "scores"),
        node("Concat", ["boxes", "scores"], "y", axis=1),
    ]
    constants = {"w": normal(4, 8, 1, 1, scale=50), "b": np.full(4, 320, np.float32), "s": normal(3, 8, 1, 1)}
    run = Run(tmp_path, proto(nodes, constants, IMAGE, ["y"]), image())
    a, b = run.outputs()
    scores = a["y"][:, 4:], b["y"][:, 4:]
    assert 10 * np.log10((scores[0] ** 2).sum() / ((scores[0] - scores[1]) ** 2).sum()) > 25


MASKS = {
    "added": ([node("Add", ["s", "m"], "a")], {}, -1e4),
    "lowest": ([node("Add", ["s", "m"], "a")], {}, float(np.finfo(np.float32).min)),
    "infinite": ([node("Add", ["s", "m"], "a")], {}, -np.inf),
    "computed": ([node("Mul", ["m", "big"], "n"), node("Add", ["s", "n"], "a")], {"big": np.float32(1e9)}, -1.0),
    "chosen": (
        [node("Less", ["m", "zero"], "k"), node("Where", ["k", "low", "s"], "a")],
        {"zero": np.float32(0), "low": np.float32(-1e9)}, -1.0,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MASKS)
def test_nothing_on_the_path_of_a_mask_is_quantized(tmp_path: Path, name: str) -> None:
    nodes, constants, fill = MASKS[name]
    attention = [
        node("MatMul", ["x", "wq"], "q"),
        node("MatMul", ["x", "wk"], "k_"),
        node("Transpose", ["k_"], "kt", perm=[0, 2, 1]),
        node("MatMul", ["q", "kt"], "s"),
        *nodes,
        node("Softmax", ["a"], "p"),
        node("MatMul", ["p", "x"], "y"),
    ]
    mask = np.zeros((1, 1, 8), np.float32)
    mask[..., 5:] = fill
    model = proto(
        attention,
        {"wq": normal(16, 16, scale=0.2), "wk": normal(16, 16, scale=0.2), **constants},
        {"x": [1, 8, 16], "m": [1, 1, 8]},
        ["y"],
    )
    run = Run(tmp_path, model, {"x": normal(1, 8, 16), "m": mask})
    assert not {"m", "n", "a"} & run.plan.values.keys()
    assert run.sqnr > 20 and integer_macs(tmp_path / "integer.onnx", run.feed).floats == {}


def test_a_product_on_the_path_of_a_mask_stays_float(tmp_path: Path) -> None:
    nodes = [node("Add", ["x", "m"], "a"), node("Reshape", ["a", "shape"], "b"), node("Softmax", ["b"], "p"),
             node("MatMul", ["a", "w"], "y")]  # fmt: skip
    mask = np.zeros((4, 8), np.float32)
    mask[:, 3:] = -1e4
    model = proto(nodes, {"w": normal(8, 8), "shape": np.array([4, 8])}, {"x": [4, 8], "m": [4, 8]}, ["y", "p"])
    run = Run(tmp_path, model, {"x": normal(4, 8), "m": mask})
    assert run.plan.left == {"/y": "mask path"} and not run.plan.units
    assert {v.name for v in on_mask_path(run.model, run.ranges)} >= {"m", "a", "b"}


@pytest.mark.parametrize(
    ("range_", "why"),
    [
        (Range(np.inf, -np.inf, ()), "the feeds never reach it: x"),
        (Range(-1.0, np.inf, (4, 4)), "not finite: x"),
        (Range(-3e38, 1.0, (4, 4)), "not finite: x"),
        (None, "inside a loop, where no range is observed: x"),
    ],
)
def test_what_has_no_range_stays_float(range_: Range | None, why: str) -> None:
    model = read(proto([node("MatMul", ["x", "w"], "y")], {"w": normal(4, 4)}, {"x": [4, 4]}, ["y"]))
    propagate(model)
    assert planning.plan(model, {"x": range_} if range_ else {}, AVX2).left == {"/y": why}


def test_ignored_nodes_stay_float_and_a_glob_must_match(tmp_path: Path) -> None:
    nodes = [node("MatMul", ["x", "w"], "h"), node("MatMul", ["h", "w"], "y")]
    model = proto(nodes, {"w": normal(16, 16)}, {"x": [4, 16]}, ["y"])
    run = Run(tmp_path, model, {"x": normal(4, 16)}, ignore=["/h"])
    assert run.plan.left == {"/h": "ignored"}
    assert list(integer_macs(tmp_path / "integer.onnx", run.feed).floats.values()) == [4 * 16 * 16]
    with pytest.raises(BadInput, match="/nothing"):
        planning.plan(run.model, run.ranges, AVX2, ignore=["/nothing"])


@pytest.mark.parametrize("op", ["Conv", "ConvTranspose"])
def test_the_runtime_does_not_quantize_what_was_to_stay_float(tmp_path: Path, op: str) -> None:
    """Left alone between integers, it would: with one scale for all channels, and all 8 bits."""
    w = normal(8, 8, 1, 1) * np.logspace(-4, 0, 8, dtype=np.float32).reshape(-1, 1, 1, 1)
    nodes = [conv(), node(op, ["c", "u"], "d"), node("Relu", ["d"], "r"), *LAST]
    model = proto(nodes, {**CONV, **V, "u": w}, IMAGE, ["y"])
    run = Run(tmp_path, model, image(), **({"ignore": ["/d"]} if op == "Conv" else {}))
    assert run.kernels["QLinearConv"] == 2 and run.kernels[op] == 1 and run.kernels["Sum"] == 1
    stored = [numpy_helper.to_array(t) for t in optimized_graph(tmp_path / "integer.onnx").graph.initializer]
    assert sum(a.dtype == np.int8 and a.ndim == 4 for a in stored) == 2


def test_values_inside_a_branch_are_quantized_there(tmp_path: Path) -> None:
    def body(name: str, sign: float) -> onnx.GraphProto:
        return helper.make_graph(
            [node("MatMul", ["x", f"{name}_w"], f"{name}_y")],
            name,
            [],
            [helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, [4, 8])],
            [numpy_helper.from_array(sign * np.eye(16, 8, dtype=np.float32), f"{name}_w")],
        )

    branch = helper.make_node("If", ["c"], ["y"], name="if", then_branch=body("t", 1), else_branch=body("e", -1))
    model = proto([branch], {}, {"x": [4, 16]}, ["y"])
    model.graph.input.append(helper.make_tensor_value_info("c", TensorProto.BOOL, []))
    onnx.save(model, str(tmp_path / "float.onnx"))
    m = read(tmp_path / "float.onnx")
    propagate(m)
    x = normal(4, 16)
    reach = Range(float(x.min()), float(x.max()), x.shape)
    plan = planning.plan(m, {"x": reach, "t_y": reach, "e_y": reach}, AVX2, everywhere=True)
    emit.apply(Editor(m, target=AVX2), plan)
    check(m)
    write(m, tmp_path / "integer.onnx", force=True)
    session = open_session(tmp_path / "integer.onnx", optimize=True)
    for taken, sign in ((True, 1), (False, -1)):
        feed = {"x": x, "c": np.array(taken)}
        assert np.abs(session.run(feed)["y"] - sign * x[:, :8]).max() < 0.03
        assert integer_macs(tmp_path / "integer.onnx", feed).floats == {}


def test_undo_gives_the_file_back(tmp_path: Path) -> None:
    run = Run(tmp_path, proto([conv(), node("Relu", ["c"], "r"), *LAST], {**CONV, **V}, IMAGE, ["y"]), image())
    assert len(run.editor.log) == 2
    run.editor.undo()
    assert to_proto(run.model).SerializeToString() == run.before


def test_the_plan_says_everything_as_data(tmp_path: Path) -> None:
    run = Run(tmp_path, proto([conv(), node("MaxPool", ["c"], "r", kernel_shape=[2, 2]), *LAST], {**CONV, **V}, IMAGE,
                              ["y"]), image())  # fmt: skip
    rows = run.plan.to_dict()
    assert rows["r"]["group"] == "c" and rows["r"]["scale"] == rows["c"]["scale"]
    assert rows["w"]["dtype"] == "int8" and rows["w"]["axis"] == 0 and len(rows["w"]["scale"]) == 8
    assert rows["b"]["dtype"] == "int32" and rows["b"]["group"] == "w"
    assert all(row["why"] for row in rows.values())


# --- the opset --------------------------------------------------------------------------------------------------------

OLD: dict[str, tuple[int, list[onnx.NodeProto], dict[str, Any]]] = {
    "axes": (11, [node("Unsqueeze", ["x"], "u", axes=[0]), node("Squeeze", ["u"], "y", axes=[0])], {}),
    "sum": (11, [node("ReduceSum", ["x"], "y", axes=[1], keepdims=0)], {}),
    "softmax": (9, [node("Softmax", ["x"], "y", axis=3)], {}),
    "clip": (9, [node("Clip", ["x"], "y", min=-0.5, max=0.5)], {}),
    "slice": (9, [node("Slice", ["x"], "y", starts=[1], ends=[5], axes=[2])], {}),
    "pad": (9, [node("Pad", ["x"], "y", pads=[0, 0, 1, 1, 0, 0, 1, 1])], {}),
    "pool": (9, [node("MaxPool", ["x"], "y", kernel_shape=[2, 2])], {}),
    "dropout": (9, [node("Dropout", ["x"], "y")], {}),
    "upsample": (9, [node("Upsample", ["x", "s"], "y")], {"s": np.array([1, 1, 2, 3], np.float32)}),
    "resize": (10, [node("Resize", ["x", "s"], "y", mode="linear")], {"s": np.array([1, 1, 2, 2], np.float32)}),
}


@pytest.mark.parametrize("name", OLD)
def test_an_older_model_means_the_same_at_opset_13(tmp_path: Path, name: str) -> None:
    opset, nodes, constants = OLD[name]
    before = proto(nodes, constants, {"x": [1, 2, 6, 6]}, ["y"], opset)
    m = read(before)
    propagate(m)
    assert raise_opset(Editor(m))
    check(m)
    after = to_proto(m)
    assert m.opsets[""] == 13
    onnx.checker.check_model(after, full_check=True)
    feed = {"x": normal(1, 2, 6, 6)}
    assert np.array_equal(open_session_of(before).run(feed)["y"], open_session_of(after).run(feed)["y"])


def test_an_opset_that_cannot_be_raised_leaves_all_as_it_was() -> None:
    nodes = [node("Unsqueeze", ["x"], "u", axes=[0]), node("Softmax", ["u"], "y", axis=1)]
    m = read(proto(nodes, {}, {"x": [2, 6, 6]}, ["y"], 11))
    propagate(m)
    before = to_proto(m).SerializeToString()
    with pytest.raises(BadInput) as refused:
        raise_opset(Editor(m))
    assert "/y" in str(refused.value) and to_proto(m).SerializeToString() == before


def test_a_newer_opset_is_kept() -> None:
    m = read(proto([node("Relu", ["x"], "y")], {}, {"x": [2]}, ["y"], 15))
    assert not raise_opset(Editor(m)) and m.opsets[""] == 15
