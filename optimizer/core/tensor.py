"""Constant data: an array, a proto, or a region of a file that is mapped and not read until someone asks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from optimizer.core.region import Region, spill

Array = NDArray[Any]
SPILL = 1 << 20

# dtypes whose elements are bytes in memory exactly as in raw_data; the others (2- and 4-bit, text) go through onnx
_PLAIN: dict[int, Any] = {
    TensorProto.FLOAT: np.float32,
    TensorProto.UINT8: np.uint8,
    TensorProto.INT8: np.int8,
    TensorProto.UINT16: np.uint16,
    TensorProto.INT16: np.int16,
    TensorProto.INT32: np.int32,
    TensorProto.INT64: np.int64,
    TensorProto.BOOL: np.bool_,
    TensorProto.FLOAT16: np.float16,
    TensorProto.DOUBLE: np.float64,
    TensorProto.UINT32: np.uint32,
    TensorProto.UINT64: np.uint64,
    TensorProto.COMPLEX64: np.complex64,
    TensorProto.COMPLEX128: np.complex128,
    TensorProto.BFLOAT16: ml_dtypes.bfloat16,
    TensorProto.FLOAT8E4M3FN: ml_dtypes.float8_e4m3fn,
    TensorProto.FLOAT8E4M3FNUZ: ml_dtypes.float8_e4m3fnuz,
    TensorProto.FLOAT8E5M2: ml_dtypes.float8_e5m2,
    TensorProto.FLOAT8E5M2FNUZ: ml_dtypes.float8_e5m2fnuz,
}
PLAIN = {k: np.dtype(v) for k, v in _PLAIN.items()}


def numpy_dtype(dtype: int) -> np.dtype[Any]:
    """The numpy dtype of an ONNX element type (ml_dtypes for those numpy lacks)."""
    return PLAIN[dtype] if dtype in PLAIN else np.dtype(helper.tensor_dtype_to_np_dtype(dtype))


_ONNX: dict[np.dtype[Any], int] = {v: k for k, v in PLAIN.items()}


def onnx_dtype(dtype: np.dtype[Any]) -> int:
    """The ONNX element type of a numpy dtype; text of any width is STRING.

    Raises:
        ValueError: no ONNX type holds it.
    """
    if dtype in _ONNX:
        return _ONNX[dtype]
    return TensorProto.STRING if dtype.kind in "OUS" else int(helper.np_dtype_to_tensor_dtype(dtype))


class Tensor:
    """A constant of ONNX element type `dtype` and static `shape`.

    Args:
        proto: the TensorProto it came as (its raw_data may have been left in the file), or None.
        region: where raw_data lies if the proto does not hold it.
        array: the data of a new constant; kept read-only.
    """

    __slots__ = ("_array", "dtype", "proto", "region", "shape")

    def __init__(
        self, proto: TensorProto | None = None, region: Region | None = None, array: Array | None = None
    ) -> None:
        self.proto, self.region, self._array = proto, region, None if array is None else _sealed(array)
        self.dtype: int
        self.shape: tuple[int, ...]
        if proto is not None:
            self.dtype, self.shape = proto.data_type, tuple(proto.dims[:])
        else:
            assert array is not None
            self.dtype, self.shape = onnx_dtype(array.dtype), array.shape

    @staticmethod
    def of(array: Any) -> Tensor:
        """A new constant with this data; the caller hands the array over."""
        a = np.asarray(array)
        if a.dtype.byteorder == ">":
            a = a.astype(a.dtype.newbyteorder("<"))
        if a.nbytes <= SPILL or a.dtype not in _ONNX:
            return Tensor(array=a)
        region = spill(a)
        proto = TensorProto(dims=a.shape, data_type=_ONNX[a.dtype])
        region.refer(proto)
        return Tensor(proto, region)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the data as raw_data would hold them (strings: of their text)."""
        if self.region is not None:
            return self.region.length
        if self.dtype in PLAIN:
            return self.size * PLAIN[self.dtype].itemsize
        if self.dtype == TensorProto.STRING:
            return sum(len(s) for s in self.numpy().ravel())
        return -(-self.size * BITS[self.dtype] // 8)

    def numpy(self) -> Array:
        """The data as a read-only array of `shape`; a view of the file where it is mapped."""
        a = self._array
        if a is None:
            p = self.proto
            assert p is not None
            if self.region is not None:
                raw = self.region.view()
                if self.dtype in PLAIN:
                    a = np.frombuffer(raw, PLAIN[self.dtype]).reshape(self.shape)
                else:
                    whole = TensorProto(dims=self.shape, data_type=self.dtype, raw_data=bytes(raw))
                    a = numpy_helper.to_array(whole)
            elif self.dtype in PLAIN and (raw := p.raw_data):
                a = np.frombuffer(raw, PLAIN[self.dtype]).reshape(self.shape)
            else:
                a = numpy_helper.to_array(p)
            a = _sealed(a)
            if self.region is None or self.dtype not in PLAIN:
                self._array = a
        return a

    def to_proto(self, name: str) -> TensorProto:
        """The tensor as a proto called `name`; data that lies in a file stays there (`core.model.write` fetches it)."""
        if self.proto is not None:
            if self.proto.name == name:
                return self.proto
            out = TensorProto()
            out.CopyFrom(self.proto)
            out.name = name
            return out
        a = self.numpy()
        if a.dtype.kind in "OUS":
            text = [_text(s) for s in a.ravel()]
            return TensorProto(name=name, data_type=TensorProto.STRING, dims=a.shape, string_data=text)
        if self.dtype in PLAIN:
            return TensorProto(name=name, data_type=self.dtype, dims=self.shape, raw_data=a.tobytes())
        return numpy_helper.from_array(np.ascontiguousarray(a).reshape(a.shape), name)

    def blocks(self) -> Iterator[bytes | memoryview]:
        """raw_data, block by block, little-endian."""
        if self.region is not None:
            yield from self.region.blocks()
        else:
            yield self.to_proto("").raw_data or numpy_helper.from_array(self.numpy()).raw_data

    def __repr__(self) -> str:
        return f"Tensor({TensorProto.DataType.Name(self.dtype).lower()}{list(self.shape)})"


def _sealed(a: Array) -> Array:
    """The array, read-only."""
    if a.flags.writeable:
        a = a.view()
        a.flags.writeable = False
    return a


def _text(s: Any) -> bytes:
    return s if isinstance(s, bytes) else str(s).encode()


def _bits(dtype: int) -> int:
    if dtype in PLAIN:
        return PLAIN[dtype].itemsize * 8
    name = TensorProto.DataType.Name(dtype)
    return next((b for b in (2, 4, 6) if name.endswith(f"INT{b}") or f"FLOAT{b}" in name), 8)


# Bits of one element, as raw_data packs them, of every type that the installed onnx knows; strings have no size.
BITS = {t: 0 if t == TensorProto.STRING else _bits(t) for t in TensorProto.DataType.values() if t}


def data_bytes(dtype: int, dims: Iterable[int]) -> int:
    """Bytes of raw_data for a type in `BITS`."""
    return -(-math.prod(dims) * BITS[dtype] // 8)


def misfit(t: TensorProto) -> str | None:
    """Why the data of a tensor is not what its type and dims need; None where it fits."""
    dtype, dims, count = t.data_type, t.dims[:], 1
    for d in dims:
        if d < 0:
            return f"has negative dims {dims}"
        count *= d
    size = BITS.get(dtype)
    if size is None:
        return f"has element type {dtype}, which the installed onnx does not know"
    if t.data_location == TensorProto.EXTERNAL:
        return None if Region.of(t) is not None else "has external data, but does not say where"
    if size:
        have, need = len(t.raw_data), -(-count * size // 8)
        if have == need:
            return None
        if have or t.HasField("raw_data"):
            return f"of dims {dims} needs {need} bytes and has {have}"
    field, each = _FIELDS.get(dtype, ("int32_data", 1))
    have, need = len(getattr(t, field)), int(-(-count * each // 1))
    return None if have == need else f"of dims {dims} needs {need} entries of {field} and has {have}"


# The field that holds the elements where raw_data does not, and how many of its entries one element takes.
_FIELDS: dict[int, tuple[str, float]] = {
    TensorProto.FLOAT: ("float_data", 1),
    TensorProto.COMPLEX64: ("float_data", 2),
    TensorProto.DOUBLE: ("double_data", 1),
    TensorProto.COMPLEX128: ("double_data", 2),
    TensorProto.INT64: ("int64_data", 1),
    TensorProto.UINT32: ("uint64_data", 1),
    TensorProto.UINT64: ("uint64_data", 1),
    TensorProto.STRING: ("string_data", 1),
    **{t: ("int32_data", b / 8) for t, b in BITS.items() if b in (2, 4)},
}
