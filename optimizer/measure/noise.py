"""The noise floor: how far a model is from itself when its numbers move in their last place.

An error below a few times that is rounding; one above it is a mistake, or a model that amplifies rounding, and then the
floor says so too.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from onnx import GraphProto

_DENORMAL_STEP = 2.0**-5  # below the smallest normal number, last places say nothing


def nudge(value: Any, rng: np.random.Generator, *, denormal: bool = False) -> Any:
    """A float array with each element kept, or moved up or down in its last place; anything else as it is.

    Args:
        denormal: move by 1/32 instead: what the model computes on the way has lost as much.
    """
    if not isinstance(value, np.ndarray) or value.dtype.kind != "f":
        return value
    step = _DENORMAL_STEP if denormal else np.finfo(value.dtype).eps
    with np.errstate(all="ignore"):
        return (value * (1 + rng.integers(-1, 2, value.shape) * step)).astype(value.dtype)


def write_nudged(model: str, path: Path, rng: np.random.Generator) -> None:
    """Write a model whose float weights are moved in their last place; numbers in attributes stay.

    Args:
        model: an .onnx file of less than 2 GiB, external data included.
    """
    import onnx
    from onnx import TensorProto, numpy_helper

    floats = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
    proto = onnx.load(model)

    def walk(graph: GraphProto) -> None:
        tensors = list(graph.initializer)
        for node in graph.node:
            for attribute in node.attribute:
                if node.op_type == "Constant" and attribute.HasField("t"):
                    tensors.append(attribute.t)
                for body in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                    walk(body)
        for tensor in tensors:
            if tensor.data_type in floats and len(tensor.dims):
                moved = nudge(numpy_helper.to_array(tensor), rng)
                tensor.CopyFrom(numpy_helper.from_array(moved, tensor.name))

    walk(proto.graph)
    onnx.save(proto, path)
