"""Drawn data stays where it makes sense, differs where it must, and sizes are found by running."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import TensorProto, helper, numpy_helper

from optimizer.core.errors import BadInput
from optimizer.runtime import feeds
from optimizer.runtime.feeds import (
    EXTREMES,
    REGIMES,
    binding_of,
    check_feed,
    draw,
    feeds_source,
    find_bindings,
    free_dims,
    open_feeds,
    read_data_sets,
    regimes,
    size_of,
    write_data_set,
)
from optimizer.runtime.interface import Interface, changed_rows, differences, read_interface
from optimizer.runtime.session import SessionError, open_session

HEAD = '<ir_version: 10, opset_import: ["": 20]>\n'


def interface_of(folder: Path, text: str, **weights: np.ndarray) -> Interface:
    return read_interface(save(folder, text, **weights))


def save(folder: Path, text: str, **weights: np.ndarray) -> Path:
    made = onnx.parser.parse_model(HEAD + text)
    made.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    onnx.save(made, folder / "m.onnx")
    return folder / "m.onnx"


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# --- what integers are for -------------------------------------------------------------------------------------------

TABLE = np.zeros((11, 4), "f")


@pytest.mark.parametrize(
    ("way", "below"),
    [
        ("y = Gather(w, i)", 11),
        ("a = Cast<to=6>(i)  b = Cast<to=7>(a)  y = Gather(w, b)", 11),
        ("s = Constant<value_ints=[-1]>()  a = Reshape(i, s)  y = Gather(w, a)", 11),
        ("s = Constant<value_ints=[0]>()  a = Unsqueeze(i, s)  b = Transpose(a)  y = Gather(w, b)", 11),
        ("k = Constant<value_int=2>()  a = Add(i, k)  y = Gather(w, a)", 9),
        ("k = Constant<value_int=2>()  a = Add(k, i)  y = Gather(w, a)", 9),
        ("y = Gather<axis=1>(w, i)", 4),
        ("y = Gather<axis=-1>(w, i)", 4),
        ("t = Constant<value_int=9>()  e = Expand(i, z)  y = Gather(w, e)", 11),
        ("a = Concat<axis=0>(i, i)  y = Gather(w, a)", 11),
        ("c = Constant<value_ints=[1]>()  d = Constant<value_ints=[9]>()  a = Slice(i, c, d)  y = Gather(w, a)", 11),
        (
            "c = Constant<value = bool {1}>()  y = If(c) <then_branch = t () => (float p) { p = Gather(w, i) }, "
            "else_branch = e () => (float q) { q = Gather<axis=1>(w, i) }>",
            4,  # the smaller of both branches
        ),
        (
            "n = Constant<value_int=1>()  c = Constant<value = bool {1}>()  y = Loop(n, c, i) <body = b "
            "(int64 k, bool g, int64[m] h) => (bool d, int64[m] o) "
            "{ d = Identity(g)  u = Gather(w, h)  o = Identity(h) }>",
            11,
        ),
    ],
)
def test_indices_are_followed_to_their_table(tmp_path: Path, way: str, below: int) -> None:
    interface = interface_of(tmp_path, f"g (int64[m] i) => (float y) {{ {way} }}", w=TABLE, z=np.array([3], "i8"))
    (spec,) = interface.inputs
    assert min(size_of(dim, {}) for dim in spec.below) == below
    for regime in REGIMES:
        drawn = draw(interface, {"m": 40}, rng(), regime)["i"]
        assert drawn.min() >= (-below if regime == "grid" else 0) and drawn.max() < below, regime
        assert regime != "grid" or drawn.min() < 0, "−1 is the last row"
    drawn = draw(interface, {"m": 40}, rng())["i"]
    assert drawn.max() == below - 1 and drawn.min() == 0, "the ends of the table are reached"


def test_table_that_is_a_value_bounds_by_its_own_size(tmp_path: Path) -> None:
    interface = interface_of(tmp_path, "g (int64[m] i, float[rows, 4] t) => (float[m, 4] y) { y = Gather(t, i) }")
    assert interface.inputs[0].below == ("rows",)
    assert draw(interface, {"m": 50, "rows": 3}, rng())["i"].max() == 2


def test_index_whose_bound_is_unknown_stays_small(tmp_path: Path) -> None:
    text = "g (int64[m] i) => (float y) { k = Constant<value_int=3>()  a = Mul(i, k)  y = Gather(w, a) }"
    interface = interface_of(tmp_path, text, w=TABLE)
    assert interface.inputs[0].decides_shape
    assert draw(interface, {"m": 40}, rng(), "large")["i"].max() <= 3


def test_integers_that_decide_shapes_stay_small_and_positive(tmp_path: Path) -> None:
    interface = interface_of(tmp_path, "g (int64[2] s) => (float[a, b] y) { y = ConstantOfShape(s) }")
    for regime in REGIMES:
        drawn = draw(interface, {}, rng(), regime)["s"]
        assert drawn.min() >= 1 and drawn.max() <= 3


def test_plain_integers_are_signed_and_sometimes_beyond_int32(tmp_path: Path) -> None:
    interface = interface_of(tmp_path, "g (int64[m] i) => (int64[m] y) { y = Neg(i) }")
    assert draw(interface, {"m": 100}, rng())["i"].min() < 0
    assert np.abs(draw(interface, {"m": 100}, rng(), "large")["i"]).max() > 2**31
    assert not draw(interface, {"m": 100}, rng(), "zeros")["i"].any()


def test_options_are_the_constants_they_are_compared_with(tmp_path: Path) -> None:
    text = """g (int64 sr, float[n] x) => (float[n] y) { k = Constant<value_int=16000>()  c = Equal(sr, k)
    y = If(c) <then_branch = t () => (float[n] p) { p = Neg(x) },
               else_branch = e () => (float[n] q) { q = Abs(x) }> }"""
    interface = interface_of(tmp_path, text)
    assert interface.inputs[0].constants == (16000,)
    assert draw(interface, {"n": 1}, rng())["sr"] == 16000
    seen = {int(draw(interface, {"n": 1}, rng(seed), "unit")["sr"]) for seed in range(40)}
    assert seen == {15999, 16000, 16001}, "both branches are run"


def test_masks_are_padding(tmp_path: Path) -> None:
    text = "g (int64[n, m] attention_mask) => (float[n, m] y) { y = Cast<to=1>(attention_mask) }"
    mask = draw(interface_of(tmp_path, text), {"n": 50, "m": 8}, rng())["attention_mask"]
    assert set(np.unique(mask)) == {0, 1} and mask[:, 0].all()
    assert (np.diff(mask, axis=1) <= 0).all(), "ones, then zeros"
    assert len(set(mask.sum(1))) > 3


def test_lengths_stay_within_the_batch(tmp_path: Path) -> None:
    text = "g (float[n, m] x, int64[n] lengths) => (float[n, m] y, int64[n] z) { y = Neg(x)  z = Neg(lengths) }"
    drawn = draw(interface_of(tmp_path, text), {"n": 50, "m": 7}, rng())["lengths"]
    assert drawn.min() >= 1 and drawn.max() <= 50


# --- floats ----------------------------------------------------------------------------------------------------------


def test_regimes_cover_what_they_name(tmp_path: Path) -> None:
    interface = interface_of(tmp_path, "g (float[n, 64] x) => (float[n, 64] y) { y = Relu(x) }")
    data = {regime: draw(interface, {"n": 8}, rng(), regime)["x"] for regime in REGIMES}
    assert all(x.dtype == np.float32 and x.shape == (8, 64) for x in data.values())
    assert data["normal"].min() < -1 and data["normal"].max() > 1
    assert data["unit"].min() >= 0 and data["unit"].max() < 1
    assert data["uniform"].min() < -0.9 and data["uniform"].max() < 1
    assert not data["zeros"].any() and np.abs(data["large"]).max() > 100
    wide = np.abs(data["wide"])
    assert (wide == 0).any() and (wide[wide > 0].min() < 1e-3) and wide.max() > 10 and (data["wide"] < 0).any()
    assert set(np.unique(data["grid"] % 0.5)) == {0} and np.unique(data["grid"]).size == 17


def test_nonfinite_only_for_a_model_that_asks(tmp_path: Path) -> None:
    plain = interface_of(tmp_path, "g (float[n] x) => (float[n] y) { y = Relu(x) }")
    asks = interface_of(tmp_path, "g (float[n] x) => (bool[n] y) { y = IsNaN(x) }")
    assert "nonfinite" not in regimes(plain) and "nonfinite" in regimes(asks)
    assert all(np.isnan(draw(asks, {"n": 3}, rng(seed), "nonfinite")["x"]).any() for seed in range(20))


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("float16", "float16"), ("bfloat16", "bfloat16"), ("double", "float64"), ("float8e4m3fn", "float8_e4m3fn"),
        ("float8e5m2", "float8_e5m2"), ("bool", "bool"), ("uint8", "uint8"), ("int8", "int8"), ("uint16", "uint16"),
        ("int16", "int16"), ("uint32", "uint32"), ("uint64", "uint64"), ("complex64", "complex64"),
    ],
)  # fmt: skip
def test_every_type_in_every_regime(tmp_path: Path, name: str, dtype: str) -> None:
    interface = interface_of(tmp_path, f"g ({name}[n, 3] x) => ({name}[n, 3] y) {{ y = Identity(x) }}")
    for regime in REGIMES:
        drawn = draw(interface, {"n": 2}, rng(), regime)["x"]
        assert str(drawn.dtype) == dtype and drawn.shape == (2, 3)
        if not np.issubdtype(drawn.dtype, np.integer):
            assert np.isfinite(drawn.astype("c8")).all(), regime


def test_scalars_are_arrays(tmp_path: Path) -> None:
    for name in ("float", "int64", "bool", "string"):
        interface = interface_of(tmp_path, f"g ({name} x) => ({name} y) {{ y = Identity(x) }}")
        for regime in REGIMES:
            assert isinstance(draw(interface, {}, rng(), regime)["x"], np.ndarray)


def test_same_seed_same_data(tmp_path: Path) -> None:
    interface = interface_of(tmp_path, "g (float[n] x, int64[n] i) => (float[n] y) { y = Relu(x) }")
    one, two, other = (draw(interface, {"n": 9}, rng(seed), "wide") for seed in (1, 1, 2))
    assert all((one[name] == two[name]).all() for name in one) and (one["x"] != other["x"]).any()


def test_overridable_initializers_are_sometimes_fed(tmp_path: Path) -> None:
    made = onnx.parser.parse_model(HEAD + "g (float[n] x, float[1] k) => (float[n] y) { y = Mul(x, k) }")
    made.graph.initializer.append(numpy_helper.from_array(np.array([2], "f"), "k"))
    onnx.save(made, tmp_path / "m.onnx")
    interface = read_interface(tmp_path / "m.onnx")
    assert [spec.name for spec in interface.required] == ["x"] and free_dims(interface) == {"n": 0}
    assert set(draw(interface, {"n": 2}, rng())) == {"x"}
    fed = draw(interface, {"n": 2}, rng(), "wide")["k"]
    assert fed.dtype == np.float32 and fed != 2 and 1 <= fed <= 3


def test_optional_inputs_are_left_out_and_sequences_drawn(tmp_path: Path) -> None:
    tensor = helper.make_tensor_type_proto(TensorProto.FLOAT, ["n"])
    graph = helper.make_graph(
        [helper.make_node("SequenceAt", ["s", "i"], ["y"])],
        "g",
        [
            helper.make_value_info("s", helper.make_sequence_type_proto(tensor)),
            helper.make_value_info("o", helper.make_optional_type_proto(tensor)),
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), tmp_path / "m.onnx")
    feed = draw(read_interface(tmp_path / "m.onnx"), {"n": 3}, rng())
    assert set(feed) == {"s", "i"} and [part.shape for part in feed["s"]] == [(3,), (3,)]


def test_input_of_unknown_rank_says_so(tmp_path: Path) -> None:
    interface = interface_of(tmp_path, "g (float x) => (float y) { y = Relu(x) }")
    assert draw(interface, {}, rng())["x"].shape == ()
    made = onnx.parser.parse_model(HEAD + "g (float[n] x) => (float[n] y) { y = Relu(x) }")
    made.graph.input[0].type.tensor_type.ClearField("shape")
    onnx.save(made, tmp_path / "m.onnx")
    with pytest.raises(BadInput, match="'x' cannot be drawn") as caught:
        draw(read_interface(tmp_path / "m.onnx"), {}, rng())
    assert caught.value.fix == "give --feeds"


# --- sizes -----------------------------------------------------------------------------------------------------------


def bindings_of(folder: Path, text: str, given: Mapping[str, int] | None = None, **weights: np.ndarray) -> list[Any]:
    path = save(folder, text, **weights)
    interface, session = read_interface(path), open_session(path, optimize=False)

    def runs(binding: Mapping[str, int]) -> bool:
        try:
            session.run(draw(interface, binding, rng()))
        except SessionError:
            return False
        return True

    return find_bindings(interface, runs, given)


def test_three_bindings_differ_in_every_dimension_and_hold_a_one(tmp_path: Path) -> None:
    found = bindings_of(tmp_path, "g (float[n, m] x) => (float[n, m] y) { y = Relu(x) }")
    assert len(found) == 3
    for name in ("n", "m"):
        assert len({binding[name] for binding in found}) == 3 and 1 in {binding[name] for binding in found}
    assert all(binding["n"] != binding["m"] for binding in found), "swapped dimensions must show"


@pytest.mark.parametrize(
    ("text", "relation"),
    [
        (  # a partner of another name
            "g (float[n, m] a, float[k, l] b) => (float[n, p] y) { y = Concat<axis=1>(a, b) }",
            lambda b: b["n"] == b["k"],
        ),
        (  # a transposed partner: dimensions of different axes move together
            "g (float[n, m] a, float[k, l] b) => (float[p, m] y) { t = Transpose(b)  y = Concat<axis=0>(a, t) }",
            lambda b: b["m"] == b["k"],
        ),
        (  # the length is the sum of two others
            "g (float[n, past] a, float[n, now] b, float[n, total] c) => (float[n, total] y) "
            "{ j = Concat<axis=1>(a, b)  s = Shape(c)  k = Reshape(j, s)  y = Add(k, c) }",
            lambda b: b["total"] == b["past"] + b["now"],
        ),
        (  # 32 divides the side
            "g (float[n, side] x) => (float[n, a, 32] y) { s = Constant<value_ints=[0, -1, 32]>()  y = Reshape(x, s) }",
            lambda b: b["side"] % 32 == 0,
        ),
    ],
)  # fmt: skip
def test_dimensions_that_depend_on_each_other(tmp_path: Path, text: str, relation: Any) -> None:
    found = bindings_of(tmp_path, text)
    assert len(found) >= 2 and all(map(relation, found)), found


def test_arithmetic_names_are_no_dimensions_of_their_own(tmp_path: Path) -> None:
    made = onnx.parser.parse_model(HEAD + "g (float[past, 4] a, float[now, 4] b, float[t, 4] c) => (float[t, 4] y) "
                                   "{ j = Concat<axis=0>(a, b)  y = Add(j, c) }")  # fmt: skip
    made.graph.input[2].type.tensor_type.shape.dim[0].dim_param = "past + now"
    onnx.save(made, tmp_path / "m.onnx")
    interface = read_interface(tmp_path / "m.onnx")
    assert set(free_dims(interface)) == {"past", "now"}
    assert draw(interface, {"past": 2, "now": 5}, rng())["c"].shape == (7, 4)


@pytest.mark.parametrize(
    ("dim", "size"),
    [("a", 6), ("a + b", 8), ("2*a", 12), ("(a - b) // 2", 2), ("a/b", 3), ("a.b-c", 5), (7, 7)],
)
def test_size_of(dim: int | str, size: int) -> None:
    assert size_of(dim, {"a": 6, "b": 2, "a.b-c": 5}) == size


def test_open_dimension_is_named() -> None:
    with pytest.raises(BadInput, match="'b' has no size") as caught:
        size_of("b", {"a": 1})
    assert caught.value.fix == "--dim 'b=N'"


def test_given_sizes_are_kept(tmp_path: Path) -> None:
    text = "g (float[n, m] x) => (float[n, m] y) { y = Relu(x) }"
    assert bindings_of(tmp_path, text, {"n": 4, "m": 9}) == [{"n": 4, "m": 9}]
    found = bindings_of(tmp_path, text, {"n": 4})
    assert len(found) == 3 and {binding["n"] for binding in found} == {4}
    assert bindings_of(tmp_path, "g (float[2] x) => (float[2] y) { y = Relu(x) }") == [{}]


def test_search_ends(tmp_path: Path) -> None:
    interface = interface_of(tmp_path, "g (float[n, m, k, l] x) => (float[n, m, k, l] y) { y = Relu(x) }")
    asked: list[Any] = []

    def never(binding: Mapping[str, int]) -> bool:
        asked.append(dict(binding))
        return False

    assert find_bindings(interface, never, tries=50) == [] and len(asked) <= 50
    assert len({tuple(binding.items()) for binding in asked}) == len(asked), "nothing is asked twice"


def test_huge_sizes_are_never_tried(tmp_path: Path) -> None:
    interface = interface_of(tmp_path, "g (float[n, 4000, m, k] x) => (float[n, 4000, m, k] y) { y = Relu(x) }")

    def small(binding: Mapping[str, int]) -> bool:
        assert 4000 * binding["n"] * binding["m"] * binding["k"] <= feeds._LARGEST  # pyright: ignore[reportPrivateUsage]
        return False

    assert find_bindings(interface, small) == []


def test_nameless_dimensions_get_names(tmp_path: Path) -> None:
    made = onnx.parser.parse_model(HEAD + "g (float[n, m, 3] x) => (float[n, m, 3] y) { y = Relu(x) }")
    made.graph.input[0].type.tensor_type.shape.dim[0].ClearField("dim_param")
    made.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "?"
    onnx.save(made, tmp_path / "m.onnx")
    assert free_dims(read_interface(tmp_path / "m.onnx")) == {"x[0]": 0, "x[1]": 1}


# --- the user's own --------------------------------------------------------------------------------------------------


def test_files_folders_and_functions(tmp_path: Path) -> None:
    np.savez(tmp_path / "b.npz", x=np.full(2, 2))
    np.savez(tmp_path / "a.npz", x=np.full(2, 1))
    (tmp_path / "data.py").write_text("def feeds(seed):\n    yield {'x': seed}\n")
    assert [feed["x"].tolist() for feed in open_feeds(tmp_path / "b.npz")(0)] == [[2, 2]]
    assert [feed["x"][0] for feed in open_feeds(tmp_path)(0)] == [1, 2], "in the order of their names"
    assert list(open_feeds(f"{tmp_path / 'data.py'}:feeds")(5)) == [{"x": 5}]


def test_no_code_out_of_an_npz(tmp_path: Path) -> None:
    np.savez(tmp_path / "evil.npz", x=np.array([print], dtype=object))
    with pytest.raises(BadInput, match="plain arrays"):
        list(open_feeds(tmp_path / "evil.npz")(0))


@pytest.mark.parametrize("source", ["none.npz", "empty", "none.py:fn"])
def test_missing_feeds(tmp_path: Path, source: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput):
        open_feeds(tmp_path / source)


def test_callers_own_batches_become_files(tmp_path: Path) -> None:
    batches = [{"x": np.arange(3)}, {"x": np.arange(4)}]
    source = feeds_source(batches, tmp_path)
    assert source is not None
    assert [feed["x"].tolist() for feed in open_feeds(source)(0)] == [[0, 1, 2], [0, 1, 2, 3]]
    assert feeds_source(None, tmp_path) is None and feeds_source("random", tmp_path) == "random"


def test_feeds_are_checked_against_the_model(tmp_path: Path) -> None:
    interface = interface_of(tmp_path, "g (float[n, m] ids) => (float[n, m] y) { y = Relu(ids) }")
    good = {"ids": np.ones((2, 3), "f")}
    assert check_feed(good, interface) is good and binding_of(good, interface) == {"n": 2, "m": 3}
    with pytest.raises(BadInput) as caught:
        check_feed({"idz": 1}, interface)
    assert caught.value.fix == "did you mean 'ids'?"
    with pytest.raises(BadInput, match="lack the input 'ids'"):
        check_feed({}, interface)


# --- the interface ---------------------------------------------------------------------------------------------------


def test_precision_is_the_coarsest_type_on_the_way(tmp_path: Path) -> None:
    text = """g (float[n] x) => (float[n] a, float[n] b, double[n] c, float[n] d)
    { a = Relu(x)  h = Cast<to=10>(x)  g = Neg(h)  b = Cast<to=1>(g)  c = Cast<to=11>(a)
      t = Constant<value = bool {1}>()
      d = If(t) <then_branch = p () => (float[n] u) { u = Cast<to=1>(g) },
                 else_branch = q () => (float[n] v) { v = Neg(x) }> }"""
    found = {spec.name: spec.precision for spec in interface_of(tmp_path, text).outputs}
    assert found == {"a": "float32", "b": "float16", "c": "float32", "d": "float16"}


def test_functions_are_looked_into(tmp_path: Path) -> None:
    text = """<ir_version: 10, opset_import: ["": 20, "local": 1]>
    g (int64[m] i) => (float y) { y = local.embed(w, i) }
    <domain: "local", opset_import: ["": 20]> embed (t, k) => (r) { r = Gather(t, k) }"""
    made = onnx.parser.parse_model(text)
    made.graph.initializer.append(numpy_helper.from_array(TABLE, "w"))
    onnx.save(made, tmp_path / "m.onnx")
    assert read_interface(tmp_path / "m.onnx").inputs[0].below == (11,)


def test_external_weights_stay_unread(tmp_path: Path) -> None:
    made = onnx.parser.parse_model(HEAD + "g (int64[m] i) => (float y) { y = Gather(w, i) }")
    made.graph.initializer.append(numpy_helper.from_array(TABLE, "w"))
    onnx.save(made, tmp_path / "m.onnx", save_as_external_data=True, location="w.data", size_threshold=0)
    (tmp_path / "w.data").unlink()
    assert read_interface(tmp_path / "m.onnx").inputs[0].below == (11,)


def test_what_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"no model at all")
    with pytest.raises(BadInput, match="not an ONNX model"):
        read_interface(tmp_path / "m.onnx")


def test_same_interface_has_no_differences(tmp_path: Path) -> None:
    interface = interface_of(tmp_path, "g (float[n, 4] x) => (float[n, 4] y) { y = Relu(x) }")
    assert differences(interface, interface, {}) == []


# --- extreme data, aims, data sets ------------------------------------------------------------------------------------


def test_extreme_regimes_are_what_they_name(tmp_path: Path) -> None:
    text = "g (float[n, 64] x) => (float[n, 64] y) <float k = {0.37}, float lowest = {-3.4e38}> { a = Mul(x, k)  y = Max(a, lowest) }"
    interface = interface_of(tmp_path, text)
    assert interface.numbers == (pytest.approx(0.37),) and set(EXTREMES) <= set(regimes(interface))
    data = {regime: draw(interface, {"n": 8}, rng(), regime)["x"] for regime in EXTREMES}
    assert np.abs(data["huge"]).min() >= 1e4 * 0.999 and np.abs(data["huge"]).max() > 1e12
    assert 0 < np.abs(data["small"]).max() < 1e-3
    assert 0 < np.abs(data["denormal"]).max() < np.finfo("f").smallest_normal
    assert (data["constants"] == np.float32(0.37)).mean() > 0.5
    integers = interface_of(tmp_path, "g (int64[n] i) => (int64[n] y) { y = Neg(i) }")
    assert not set(EXTREMES) & set(regimes(integers)), "they are of floats"


def test_nothing_is_let_through_a_mask_of_zeros(tmp_path: Path) -> None:
    text = "g (float[n, m] x, int64[n, m] attention_mask) => (float[n, m] y) { a = Cast<to=1>(attention_mask)  y = Mul(x, a) }"
    interface = interface_of(tmp_path, text)
    assert not draw(interface, {"n": 2, "m": 3}, rng(), "zeros")["attention_mask"].any()
    floats = interface_of(tmp_path, text.replace("int64[n, m]", "float[n, m]"))
    added = draw(floats, {"n": 9, "m": 8}, rng(), "wide")["attention_mask"]
    assert set(np.unique(added)) == {-10000.0, 0.0}


def test_small_integers_reach_both_ends(tmp_path: Path) -> None:
    interface = interface_of(tmp_path, "g (int8[n] i) => (int8[n] y) { y = Neg(i) }")
    assert all({-128, 127} <= set(draw(interface, {"n": 3}, rng(seed))["i"].tolist()) for seed in range(20))


def test_aimed_indices_are_drawn(tmp_path: Path) -> None:
    interface = interface_of(tmp_path, "g (int64[m] i) => (float y) { y = Gather(w, i) }", w=np.zeros((4000, 1), "f"))
    assert interface.inputs[0].tables == (("w", 0, 0),) and interface.inputs[0].wraps
    drawn = draw(interface, {"m": 4}, rng(), aimed={"i": np.array([2345])})["i"]
    assert 2345 in drawn and drawn.shape == (4,)


def test_changed_rows_are_found_by_index(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    text = "g (int64[m] i) => (float y) { k = Constant<value_int=2>()  j = Add(i, k)  y = Gather(w, j) }"
    table = np.arange(4000, dtype="f").reshape(2000, 2)  # large enough to lie outside of the skeleton
    spoilt = table.copy()
    spoilt[[7, 1234], 1] = -1
    first = save(tmp_path / "a", text, w=table)
    found = changed_rows(first, save(tmp_path / "b", text, w=spoilt))
    assert found["i"].tolist() == [5, 1232], "as what is fed, not as rows"
    assert changed_rows(first, first) == {}


def test_far_sizes_are_tried_when_more_are_asked_for(tmp_path: Path) -> None:
    path = save(tmp_path, "g (float[n, m] x) => (float[n, m] y) { y = Relu(x) }")
    found = find_bindings(read_interface(path), lambda _: True, count=5)
    sizes = {binding["m"] for binding in found}
    assert len(found) == 5 and 1 in sizes and max(sizes) == 64 and {n % 2 for n in sizes - {1, 64}} == {0, 1}
    assert {binding["n"] for binding in found} == {1, 2, 3}


def test_data_sets_go_out_and_come_back(tmp_path: Path) -> None:
    import ml_dtypes

    feed = {"x": np.arange(3, dtype="f"), "t": np.array(["a", "ß"], object), "s": np.array(3)}
    outputs = {"y": np.ones(2, ml_dtypes.bfloat16)}
    for n in (10, 2):
        write_data_set(tmp_path / f"test_data_set_{n}", feed | {"s": np.array(n)}, outputs)
    sets = list(read_data_sets(tmp_path, ["x", "t", "s"], ["y"]))
    assert [int(inputs["s"]) for inputs, _ in sets] == [2, 10], "in the order of their numbers"
    inputs, expected = sets[0]
    assert inputs["t"].tolist() == ["a", "ß"] and inputs["x"].dtype == np.float32
    assert expected["y"].dtype == ml_dtypes.bfloat16
    assert [list(batch) for batch in open_feeds(tmp_path)(0)] == [["x", "t", "s"]] * 2
    assert len(list(open_feeds(tmp_path / "test_data_set_2")(0))) == 1


def test_data_sets_without_names_are_matched_by_place(tmp_path: Path) -> None:
    (tmp_path / "test_data_set_0").mkdir()
    unnamed = numpy_helper.from_array(np.ones(2, "f"))
    (tmp_path / "test_data_set_0" / "input_0.pb").write_bytes(unnamed.SerializeToString())
    assert [list(feed) for feed in open_feeds(tmp_path, names=["x"])(0)] == [["x"]]
    (tmp_path / "test_data_set_0" / "input_0.pb").write_bytes(b"\xff\xff nonsense")
    with pytest.raises(BadInput, match="not a serialized tensor"):
        list(open_feeds(tmp_path, names=["x"])(0))
    with pytest.raises(BadInput, match="is not a tensor"):
        write_data_set(tmp_path / "test_data_set_1", {"x": [np.ones(1)]}, {})


def test_lines_of_json_by_the_users_loader(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text('{"v": [1, 2]}\n\n{"v": [3]}\n')
    (tmp_path / "load.py").write_text(
        "import numpy as np\ndef batch(record):\n    return {'x': np.array(record['v'])}\n"
    )
    source = f"{tmp_path / 'd.jsonl'}:{tmp_path / 'load.py'}:batch"
    assert [feed["x"].tolist() for feed in open_feeds(source)(0)] == [[1, 2], [3]]
    (tmp_path / "d.jsonl").write_text('{"v": [1]}\n{nonsense\n')
    with pytest.raises(BadInput, match="not a line of JSON") as caught:
        list(open_feeds(source)(0))
    assert caught.value.at is not None and caught.value.at.endswith("d.jsonl:2")
