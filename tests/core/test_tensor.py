"""Constants of every ONNX type: what goes in comes out, in bytes and in numbers, and cannot be written to."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from optimizer.core.region import Buffer, Region
from optimizer.core.tensor import SPILL, Tensor, numpy_dtype, onnx_dtype

TYPES = [t for t in TensorProto.DataType.values() if t != TensorProto.UNDEFINED]


def array_of(dtype: int, shape: tuple[int, ...] = (3, 5)) -> np.ndarray:
    if dtype == TensorProto.STRING:
        return np.asarray([f"ä{i}" for i in range(int(np.prod(shape)))], object).reshape(shape)
    x = np.arange(int(np.prod(shape))).reshape(shape) % 2 + 1
    return x.astype(numpy_dtype(dtype))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [(3, 5), (), (0, 2), (1,)])
def test_round_trip(dtype: int, shape: tuple[int, ...]) -> None:
    x = array_of(dtype, shape)
    assert onnx_dtype(x.dtype) == dtype
    t = Tensor.of(x)
    assert (t.dtype, t.shape, t.size) == (dtype, shape, x.size)
    assert t.numpy().shape == shape and np.array_equal(t.numpy().astype(object), x.astype(object))
    p = t.to_proto("n")
    assert (p.name, p.data_type, tuple(p.dims)) == ("n", dtype, shape)
    back = Tensor(p)
    assert (back.dtype, back.shape, back.nbytes) == (dtype, shape, t.nbytes)
    assert np.array_equal(back.numpy().astype(object), x.astype(object))
    if dtype != TensorProto.STRING:
        assert b"".join(bytes(b) for b in t.blocks()) == numpy_helper.from_array(x).raw_data
        assert t.nbytes == len(numpy_helper.from_array(x).raw_data)


@pytest.mark.parametrize("dtype", [t for t in TYPES if t != TensorProto.STRING])
def test_typed_fields_are_raw_data(dtype: int) -> None:
    """A proto may hold its numbers in float_data, int32_data, …: its bytes are those of raw_data all the same."""
    x = array_of(dtype)
    values = x.astype("f").ravel() if x.dtype == ml_dtypes.float4_e2m1fn else x.ravel()
    p = helper.make_tensor("n", dtype, x.shape, values)
    t = Tensor(p)
    assert np.array_equal(t.numpy().astype(object), x.astype(object)) and t.to_proto("n") is p
    assert b"".join(bytes(b) for b in t.blocks()) == numpy_helper.from_array(x).raw_data


@pytest.mark.parametrize("dtype", [TensorProto.FLOAT, TensorProto.BFLOAT16, TensorProto.INT4, TensorProto.BOOL])
def test_a_region_is_a_view(dtype: int) -> None:
    x = array_of(dtype)
    raw = numpy_helper.from_array(x).raw_data
    buffer = Buffer(b"head" + raw)
    region = Region(buffer, 4, len(raw))
    p = TensorProto(dims=x.shape, data_type=dtype, name="n")
    region.refer(p)
    t = Tensor(p, Region.of(p))
    assert t.nbytes == len(raw) and np.array_equal(t.numpy().astype(object), x.astype(object))
    assert b"".join(bytes(b) for b in t.blocks()) == raw and not t.numpy().flags.writeable


@pytest.mark.parametrize(
    "x",
    [
        np.arange(6, dtype="f"),
        np.arange(6, dtype="f")[::2],
        np.arange(6, dtype="f").reshape(2, 3).T,
        np.arange(6, dtype=">f4"),
        [1.5, 2.5],
        3,
        np.float32(2),
        np.ones(SPILL // 4 + 1, "f"),
        np.broadcast_to(np.float32(1), (3, 3)),
    ],
    ids=str,
)
def test_constants_cannot_be_written_to(x: Any) -> None:
    t = Tensor.of(x)
    with pytest.raises(ValueError, match="read-only"):
        t.numpy()[...] = 0
    assert np.array_equal(Tensor(t.to_proto("n"), t.region).numpy(), np.asarray(x))


def test_large_constants_spill() -> None:
    x = np.arange(SPILL // 4 + 1, dtype="f")
    t = Tensor.of(x)
    assert t.region is not None and Tensor.of(x[:-1]).region is None
    assert t.to_proto("n").data_location == TensorProto.EXTERNAL and t.to_proto("n").name == "n"
    assert np.array_equal(t.numpy(), x) and Tensor.of(x.astype(object).astype(str)).region is None


def test_names() -> None:
    p = numpy_helper.from_array(np.ones(2, "f"), "a")
    t = Tensor(p)
    assert t.to_proto("a") is p and t.to_proto("b").name == "b" and p.name == "a"
    assert repr(t) == "Tensor(float[2])"


def test_no_onnx_type() -> None:
    with pytest.raises((KeyError, ValueError)):
        onnx_dtype(np.dtype("datetime64[s]"))
