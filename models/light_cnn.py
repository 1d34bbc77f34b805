"""onnx's light CNNs: the graphs of 2018's model zoo, whose weights were replaced by .02; here they get random ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

Arrays = dict[str, np.ndarray]


def randomize(file: Path) -> onnx.ModelProto:
    """Every ConstantOfShape weight becomes an initializer that is also an input, as IR 3 demands; Conv and BN stay.

    Conv: W ~ N(0, 2/fan_in), b ~ N(0, .01). Gemm, the classifier: W ~ N(0, 1/(20·fan_in)), so that no softmax is
    one-hot. BN: γ ~ U(½, 1), so that residual branches add little, β, μ ~ N(0, .01), σ² ~ U(½, 3/2).
    Affine pairs behind a BN: scale ~ U(.8, 1.6), which undoes γ, shift ~ N(0, .01).
    """
    model = onnx.load(file)
    graph, rng = model.graph, np.random.default_rng(0)
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    light = {node.output[0]: tuple(arrays[node.input[0]]) for node in graph.node if node.op_type == "ConstantOfShape"}
    shapes = {name: array.shape for name, array in arrays.items()} | light
    reader = {name: node.op_type for node in graph.node for name in node.input}
    for node in graph.node:
        if node.op_type in ("Conv", "Gemm"):
            _, weight, *bias = node.input
            spread = (2 if node.op_type == "Conv" else 0.05) / np.prod(shapes[weight][1:])
            arrays[weight] = rng.normal(0, spread**0.5, shapes[weight])
            arrays |= {name: rng.normal(0, 0.1, shapes[name]) for name in bias}
        elif node.op_type == "BatchNormalization":
            _, scale, shift, mean, variance = node.input
            arrays[scale] = rng.uniform(0.5, 1, shapes[scale])
            arrays |= {name: rng.normal(0, 0.1, shapes[name]) for name in (shift, mean)}
            arrays[variance] = rng.uniform(0.5, 1.5, shapes[variance])
        elif node.op_type == "Unsqueeze":
            (name,), shape = node.input, shapes[node.input[0]]
            scales = reader[node.output[0]] == "Mul"
            arrays[name] = rng.uniform(0.8, 1.6, shape) if scales else rng.normal(0, 0.1, shape)

    nodes = [node for node in graph.node if node.op_type != "ConstantOfShape"]
    used = {name for node in nodes for name in node.input}
    image = next(value for value in graph.input if value.name not in shapes)
    del graph.node[:], graph.initializer[:], graph.input[:]
    graph.node.extend(nodes)
    graph.input.append(image)
    for name in sorted(used & arrays.keys()):
        array = arrays[name] if arrays[name].dtype.kind == "i" else arrays[name].astype(np.float32)
        graph.initializer.append(numpy_helper.from_array(array, name))
        graph.input.append(
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        )
    onnx.checker.check_model(model)
    return model


def image(rng: np.random.Generator) -> np.ndarray:
    """Noise that is alike nearby, as a photograph is: float32 [1, 3, 224, 224], mean 0, deviation 1."""
    coarse_to_fine = [
        rng.normal(0, 0.5, (1, 3, n, n)).repeat(224 // n, 2).repeat(224 // n, 3) for n in (7, 28, 112, 224)
    ]
    return np.sum(coarse_to_fine, axis=0, dtype=np.float32)


def feeds(seed: int) -> Iterator[Arrays]:
    """32 images, for the graphs converted from Caffe."""
    rng = np.random.default_rng(seed)
    yield from ({"data_0": image(rng)} for _ in range(32))


def feeds_gpu_0(seed: int) -> Iterator[Arrays]:
    """The same images, for the graphs converted from Caffe2, which kept the device in their names."""
    yield from ({"gpu_0/data_0": feed["data_0"]} for feed in feeds(seed))
