"""The k-th smallest of very many magnitudes, without sorting or copying them: a radix select.

IEEE magnitudes order as their bit patterns do, so 16 bits a pass, from the top, narrow the answer down to one value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from onnx import TensorProto

from optimizer.core.tensor import Array, Tensor, numpy_dtype

_BLOCK = 1 << 20  # elements looked at together
_BITS = 16  # of a digit


def width(tensors: Iterable[Tensor]) -> np.dtype[Any]:
    """The float type in which the magnitudes of all of these are exact and comparable: float32, or float64."""
    return np.dtype(np.float64 if any(t.dtype == TensorProto.DOUBLE for t in tensors) else np.float32)


def blocks(tensor: Tensor) -> Iterator[tuple[slice, Array]]:
    """The flat tensor in pieces: where each lies, and what it holds; read past the map, so none stays in memory."""
    dtype, at = numpy_dtype(tensor.dtype), 0
    for raw in tensor.blocks():
        w = np.frombuffer(raw, dtype)
        for i in range(0, w.size, _BLOCK):
            yield slice(at + i, at + min(i + _BLOCK, w.size)), w[i : i + _BLOCK]
        at += w.size


def smallest(k: int, magnitudes: Callable[[], Iterable[Array]], dtype: np.dtype[Any]) -> tuple[float, int]:
    """The k-th smallest magnitude t, k ≥ 1, and how many of those equal to t belong to the k smallest.

    Args:
        magnitudes: gives all of them, |w| ≥ 0 of `dtype` in blocks, anew at each call.
    """
    size = dtype.itemsize * 8
    prefix = 0
    for shift in range(size - _BITS, -1, -_BITS):
        counts = np.zeros(1 << _BITS, np.int64)
        for block in magnitudes():
            bits = block.view(f"u{dtype.itemsize}") >> np.array(shift, f"u{dtype.itemsize}")
            low = bits & ((1 << _BITS) - 1)
            counts += np.bincount(low[bits >> _BITS == prefix].astype(np.intp), minlength=1 << _BITS)
        below = np.cumsum(counts)
        digit = int(np.searchsorted(below, k))  # the first digit that reaches the k-th
        k -= int(below[digit - 1]) if digit else 0
        prefix = prefix << _BITS | digit
    return float(np.array([prefix], f"u{dtype.itemsize}").view(dtype)[0]), k
