"""Graphs that need no download: equal on every machine, built once into a cache folder.

    python benchmarks/synthetic.py blocks-2000          # prints the path of the built model

| name | what |
|---|---|
| `blocks-N` | N/20 blocks of 20 nodes, of which 7 must remain (N a multiple of 20) |
| `bert-base` | 12 layers, hidden 768, vocabulary 30522, one file of 415 MiB, spelled as TorchScript's exporter does |
| `transformer-3gb` | 15 layers, hidden 2048, 3 GB of external data |
"""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from optimizer.runtime.fetch import cache_folder

SEED = 0
LOWEST = float(np.finfo(np.float32).min)


class Builder:
    """Nodes and initializers of one graph, in order; every method returns the name of the value it made."""

    def __init__(self, data: BinaryIO | None = None, pool: int = 0) -> None:
        """data: where large weights go, None for inside the model; pool: elements of the largest weight drawn."""
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.rng = np.random.default_rng(SEED)
        self.data = data
        # Drawing gigabytes costs more than writing them: weights are windows of one pool, each at its own offset.
        self.pool = self.rng.standard_normal(pool + 2**20, np.float32) * np.float32(0.02)
        self.drawn = 0

    def node(self, op: str, *inputs: str, name: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def initializer(self, value: np.ndarray, name: str) -> str:
        self.initializers.append(numpy_helper.from_array(value, name))
        return name

    def constant(self, value: object, name: str, dtype: type = np.int64) -> str:
        return self.node("Constant", name=name, value=numpy_helper.from_array(np.asarray(value, dtype)))

    def weight(self, shape: Sequence[int], name: str) -> str:
        """float32 [*shape], σ = .02, unlike every other weight; in the data file where there is one."""
        size = int(np.prod(shape))
        start = self.drawn * 4099 % 2**20
        self.drawn += 1
        value = self.pool[start : start + size].reshape(shape)
        if self.data is None:
            return self.initializer(value, name)
        tensor = TensorProto(name=name, dims=shape, data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
        entries = {"location": Path(self.data.name).name, "offset": self.data.tell(), "length": value.nbytes}
        for key, entry in entries.items():
            tensor.external_data.add(key=key, value=str(entry))
        self.data.write(value.tobytes())
        self.initializers.append(tensor)
        return name

    def model(self, name: str, inputs: Sequence[onnx.ValueInfoProto], output: onnx.ValueInfoProto) -> onnx.ModelProto:
        graph = helper.make_graph(self.nodes, name, inputs, [output], self.initializers)
        return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 14)])


# ------------------------------------------------------------------------------------------------ blocks of 20 nodes


def blocks(nodes: int) -> onnx.ModelProto:
    """[batch, 16, 64] → nodes/20 blocks in a row, of which MatMul, Add, Sigmoid, Mul, Mul, Add and Reshape remain.

    Rank 3 with a bias of rank 3 keeps MatMul+Add from becoming a Gemm, the free batch a Reshape from becoming static.
    """
    if nodes % 20:
        raise ValueError(f"{nodes} is not a multiple of 20")
    b = Builder()
    b.initializer(np.array(0), "zero")
    b.initializer(np.array([0]), "axis0")
    x, rows, columns = "x", 16, 64
    for index in range(nodes // 20):
        x, rows, columns = _block(b, f"b{index}/", x, rows, columns)
    return b.model(
        f"blocks-{nodes}",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 16, 64])],
        helper.make_tensor_value_info(x, TensorProto.FLOAT, ["batch", rows, columns]),
    )


def _block(b: Builder, at: str, x: str, rows: int, columns: int) -> tuple[str, int, int]:
    """x [batch, rows, columns] → [batch, rows', columns'], (16, 64) and (32, 32) by turns."""
    weight = b.initializer(b.rng.standard_normal((columns, columns), np.float32) / np.float32(columns), at + "weight")
    bias = b.initializer(b.rng.standard_normal((1, 1, columns), np.float32), at + "bias")
    low, high = (b.initializer(b.rng.random(columns, np.float32), at + side) for side in ("low", "high"))

    same = b.node("Identity", x, name=at + "identity")
    turned = b.node("Transpose", weight, name=at + "turned_weight", perm=[1, 0])  # foldable
    h = b.node("MatMul", same, turned, name=at + "matmul")  # 1 remains
    h = b.node("Add", h, bias, name=at + "add")  # 2
    h = b.node("Cast", h, name=at + "cast", to=TensorProto.FLOAT)  # float32 already
    h = b.node("Transpose", h, name=at + "there", perm=[0, 2, 1])
    h = b.node("Transpose", h, name=at + "back", perm=[0, 2, 1])
    b.node("Relu", h, name=at + "dead")
    twins = [b.node("Sigmoid", h, name=at + twin) for twin in ("twin0", "twin1")]  # 3, once
    h = b.node("Mul", *twins, name=at + "product")  # 4
    span = b.node("Add", low, high, name=at + "span")  # foldable
    scale = b.node("Sqrt", span, name=at + "scale")  # foldable
    h = b.node("Mul", h, scale, name=at + "scaled")  # 5
    h = b.node("Add", h, same, name=at + "residual")  # 6

    rows, columns = (32, 32) if rows == 16 else (16, 64)
    shape = b.node("Shape", same, name=at + "shape")
    batch = b.node("Gather", shape, "zero", name=at + "batch")
    batch = b.node("Unsqueeze", batch, "axis0", name=at + "batch1")
    target = b.node("Concat", batch, b.initializer(np.array([rows, columns]), at + "sides"), name=at + "target", axis=0)
    return b.node("Reshape", h, target, name=at + "reshape"), rows, columns  # 7


# ------------------------------------------------------------------------------------------------------ transformers


def transformer(
    b: Builder, *, layers: int, hidden: int, heads: int, vocabulary: int, positions: int
) -> onnx.ModelProto:
    """A BERT encoder as TorchScript's exporter spells it: Constant nodes, shape chains, erf Gelu, open LayerNorms.

    input_ids, attention_mask, token_type_ids int64 [batch, sequence]
    → last_hidden_state float32 [batch, sequence, hidden]
    """
    at = "/embeddings/"
    shape = b.node("Shape", "input_ids", name=at + "Shape")
    length = b.node("Gather", shape, b.constant(1, at + "Constant"), name=at + "Gather", axis=0)
    end = b.node("Unsqueeze", length, b.constant([0], at + "Constant_1"), name=at + "Unsqueeze")
    table = b.initializer(np.arange(positions)[None], "embeddings.position_ids")
    start, axes, step = (b.constant([value], f"{at}Constant_{2 + index}") for index, value in enumerate((0, 1, 1)))
    ids = b.node("Slice", table, start, end, axes, step, name=at + "Slice")
    words = _embed(b, at + "word_embeddings/", "input_ids", (vocabulary, hidden))
    types = _embed(b, at + "token_type_embeddings/", "token_type_ids", (2, hidden))
    x = b.node("Add", words, types, name=at + "Add")
    x = b.node("Add", x, _embed(b, at + "position_embeddings/", ids, (positions, hidden)), name=at + "Add_1")
    x = _layer_norm(b, at + "LayerNorm/", x, hidden)

    mask = b.node("Unsqueeze", "attention_mask", b.constant([1], "/Constant"), name="/Unsqueeze")
    mask = b.node("Unsqueeze", mask, b.constant([2], "/Constant_1"), name="/Unsqueeze_1")
    mask = b.node("Cast", mask, name="/Cast", to=TensorProto.FLOAT)
    mask = b.node("Sub", b.constant(1, "/Constant_2", np.float32), mask, name="/Sub")
    mask = b.node("Mul", mask, b.constant(LOWEST, "/Constant_3", np.float32), name="/Mul")

    for layer in range(layers):
        at = f"/encoder/layer.{layer}/"
        attended = _attention(b, at + "attention/", x, mask, hidden, heads)
        x = _layer_norm(b, at + "attention/LayerNorm/", b.node("Add", attended, x, name=at + "attention/Add"), hidden)
        inner = _gelu(b, at + "intermediate/", _linear(b, at + "intermediate/dense/", x, hidden, 4 * hidden))
        inner = _linear(b, at + "output/dense/", inner, 4 * hidden, hidden)
        x = _layer_norm(b, at + "output/LayerNorm/", b.node("Add", inner, x, name=at + "output/Add"), hidden)

    x = b.node("Identity", x, name="last_hidden_state")
    names = ("input_ids", "attention_mask", "token_type_ids")
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "sequence"]) for name in names]
    output = helper.make_tensor_value_info(x, TensorProto.FLOAT, ["batch", "sequence", hidden])
    return b.model("transformer", inputs, output)


def _embed(b: Builder, at: str, ids: str, shape: tuple[int, int]) -> str:
    return b.node("Gather", b.weight(shape, at + "weight"), ids, name=at + "Gather")


def _linear(b: Builder, at: str, x: str, inner: int, outer: int) -> str:
    """x·W + b"""
    h = b.node("MatMul", x, b.weight((inner, outer), at + "weight"), name=at + "MatMul")
    return b.node("Add", b.weight((outer,), at + "bias"), h, name=at + "Add")


def _layer_norm(b: Builder, at: str, x: str, hidden: int) -> str:
    """(x - μ) / √(σ² + ε) · γ + β"""
    mean = b.node("ReduceMean", x, name=at + "ReduceMean", axes=[-1])
    d = b.node("Sub", x, mean, name=at + "Sub")
    square = b.node("Pow", d, b.constant(2, at + "Constant", np.float32), name=at + "Pow")
    variance = b.node("ReduceMean", square, name=at + "ReduceMean_1", axes=[-1])
    variance = b.node("Add", variance, b.constant(1e-12, at + "Constant_1", np.float32), name=at + "Add")
    x = b.node("Div", d, b.node("Sqrt", variance, name=at + "Sqrt"), name=at + "Div")
    gamma = b.initializer(np.float32(1) + b.rng.standard_normal(hidden, np.float32) / 50, at + "weight")
    x = b.node("Mul", x, gamma, name=at + "Mul")
    return b.node("Add", x, b.weight((hidden,), at + "bias"), name=at + "Add_1")


def _gelu(b: Builder, at: str, x: str) -> str:
    """½·x·(1 + erf(x/√2))"""
    h = b.node("Div", x, b.constant(np.sqrt(2), at + "Constant", np.float32), name=at + "Div")
    h = b.node("Erf", h, name=at + "Erf")
    h = b.node("Add", h, b.constant(1, at + "Constant_1", np.float32), name=at + "Add")
    h = b.node("Mul", x, h, name=at + "Mul")
    return b.node("Mul", h, b.constant(0.5, at + "Constant_2", np.float32), name=at + "Mul_1")


def _attention(b: Builder, at: str, x: str, mask: str, hidden: int, heads: int) -> str:
    """softmax(q·kᵀ/√d + mask)·v, projected"""
    size = hidden // heads
    turns = {"query": [0, 2, 1, 3], "key": [0, 2, 3, 1], "value": [0, 2, 1, 3]}
    q, k, v = (
        b.node(
            "Transpose",
            _view(b, f"{at}self/{part}/", _linear(b, f"{at}self/{part}/", x, hidden, hidden), (heads, size)),
            name=f"{at}self/{part}/Transpose",
            perm=perm,
        )
        for part, perm in turns.items()
    )
    scores = b.node("MatMul", q, k, name=at + "self/MatMul")
    scores = b.node("Div", scores, b.constant(np.sqrt(size), at + "self/Constant", np.float32), name=at + "self/Div")
    scores = b.node("Add", scores, mask, name=at + "self/Add")
    scores = b.node("Softmax", scores, name=at + "self/Softmax", axis=-1)
    h = b.node("MatMul", scores, v, name=at + "self/MatMul_1")
    h = b.node("Transpose", h, name=at + "self/Transpose", perm=[0, 2, 1, 3])
    return _linear(b, at + "output/dense/", _view(b, at + "self/", h, (hidden,)), hidden, hidden)


def _view(b: Builder, at: str, x: str, tail: tuple[int, ...]) -> str:
    """x.view(x.size(0), x.size(1), *tail)"""
    sides: list[str] = []
    for axis in (0, 1):
        shape = b.node("Shape", x, name=f"{at}Shape_{axis}")
        side = b.node("Gather", shape, b.constant(axis, f"{at}Constant_{axis}"), name=f"{at}Gather_{axis}", axis=0)
        axes = b.constant([0], f"{at}Constant_axes{axis}")
        sides.append(b.node("Unsqueeze", side, axes, name=f"{at}Unsqueeze_{axis}"))
    sides += [b.constant([side], f"{at}Constant_side{index}") for index, side in enumerate(tail)]
    return b.node("Reshape", x, b.node("Concat", *sides, name=at + "Concat", axis=0), name=at + "Reshape")


# ------------------------------------------------------------------------------------------------- names, files, cache


def bert_base() -> onnx.ModelProto:
    b = Builder(pool=30522 * 768)
    return transformer(b, layers=12, hidden=768, heads=12, vocabulary=30522, positions=512)


def transformer_3gb(data: Path) -> onnx.ModelProto:
    with data.open("wb") as file:
        b = Builder(file, pool=2048 * 8192)
        return transformer(b, layers=15, hidden=2048, heads=16, vocabulary=1000, positions=128)


def build(name: str) -> Path:
    """The path of the named model, built if the cache lacks it. ValueError: no such name."""
    # One folder a version of this file: a changed builder never meets what an older one built.
    folder = cache_folder() / "benchmarks" / hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]
    path = folder / f"{name}.onnx"
    if path.exists():
        return path
    for old in folder.parent.glob("*"):
        if old != folder:
            shutil.rmtree(old)
    folder.mkdir(parents=True, exist_ok=True)
    match name.split("-"):
        case ["blocks", count] if count.isdigit():
            model = blocks(int(count))
        case ["bert", "base"]:
            model = bert_base()
        case ["transformer", "3gb"]:
            model = transformer_3gb(folder / f"{name}.onnx.data")
        case _:
            raise ValueError(f"no such model: {name}")
    partial = path.with_suffix(".partial")
    partial.write_bytes(model.SerializeToString())
    return partial.rename(path)


if __name__ == "__main__":
    for asked in sys.argv[1:]:
        print(build(asked))
