"""Which kernels a model really runs in: counted in the graph that the runtime ends with, and in its own profile."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optimizer.runtime.session import open_session

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

    from optimizer.core.feeds import Feed

_RUNTIME = "com.microsoft"  # and its subdomains: ops that only the runtime's fusions, or its users, write
_BLOCKED = "nchwc."
_LAYOUT = ("ReorderInput", "ReorderOutput")
_COMPOSITE = (  # standard ops (and two that the runtime files under the standard domain) that stand for an idiom
    *("Attention", "Gelu", "GroupNormalization", "HardSwish", "LayerNormalization", "Mish", "RMSNormalization"),
    *("RotaryEmbedding", "SimplifiedLayerNormalization", "SkipSimplifiedLayerNormalization", "Swish"),
    *("ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul"),
)

_FLOAT = (  # kernels that multiply floats
    *("Conv", "FusedConv", "NhwcFusedConv", "ConvTranspose", "MatMul", "FusedMatMul", "Gemm", "FusedGemm"),
    *("LSTM", "GRU", "RNN", "Attention", "MultiHeadAttention", "MatMulNBits"),
)
_INTEGER = (  # kernels that multiply integers
    *("QLinearConv", "ConvInteger", "QLinearMatMul", "MatMulInteger", "MatMulIntegerToFloat", "QGemm"),
    *("DynamicQuantizeMatMul", "DynamicQuantizeLSTM", "QAttention"),
)


def census(
    path: str | os.PathLike[str], provider: str = "cpu", *, custom_ops: Sequence[str | os.PathLike[str]] = ()
) -> dict[str, int]:
    """The fused ops of the runtime's own optimized graph: op → how many, bodies included. Only in a child.

    An op counts as fused if it is the runtime's own (com.microsoft…, layout reorders apart; a Conv in the blocked
    layout is "nchwc.Conv"), or a standard op that stands for an idiom of several.

    Raises:
        SessionError: the model does not load.
        EnvironmentNotAsAsked: no runtime, or not this provider.
    """
    counts = Counter(
        f"{node.domain.removeprefix(_RUNTIME).removeprefix('.')}.{node.op_type}".removeprefix(".")
        for node in _nodes(optimized_graph(path, provider, custom_ops=custom_ops).graph)
        if (node.domain.startswith(_RUNTIME) and node.op_type not in _LAYOUT)
        or (node.domain in ("", "ai.onnx") and node.op_type in _COMPOSITE)
    )
    return dict(sorted(counts.items()))


def falls(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    """Fused op → how many before and after, where a census fell: what the runtime does not recognize any more.

    Where products became integer ones, fused products of floats, and what lies in their layout, are not missed.
    """
    integers = [sum(n for op, n in counts.items() if op in _INTEGER) for counts in (before, after)]
    fell = {op: (n, after.get(op, 0)) for op, n in sorted(before.items()) if after.get(op, 0) < n}
    if integers[1] <= integers[0]:
        return fell
    return {op: counts for op, counts in fell.items() if op not in _FLOAT and not op.startswith(_BLOCKED)}


def optimized_graph(
    path: str | os.PathLike[str], provider: str = "cpu", *, custom_ops: Sequence[str | os.PathLike[str]] = ()
) -> ModelProto:
    """The graph that the runtime ends with, its weights left out. Only in a child; raises as `census`."""
    import onnx

    with tempfile.TemporaryDirectory(prefix="graphwright-") as folder:
        written = Path(folder, "optimized.onnx")
        open_session(path, optimize=True, provider=provider, custom_ops=custom_ops, optimized_path=written)
        return onnx.load(written, load_external_data=False)


@dataclass(slots=True)
class Macs:
    """Multiply-adds of one run: all of them, those of integers, and those that stayed float by name of node."""

    total: int = 0
    integer: int = 0
    floats: dict[str, int] = field(default_factory=dict[str, int])


def integer_macs(path: str | os.PathLike[str], feed: Feed) -> Macs:
    """Multiply-adds of convolutions, products, recurrences and attentions, as one run executes them.

    Counted in the graph that the runtime ends with, which is run under the runtime's profiler: its nodes first get
    names of their own, for the profile knows a node by its name only. The blocked layout pads channels to a multiple of
    its block, and these are counted too.

    Only in a child; raises as `census`, and SessionError where the model refuses the feed.
    """
    import onnx

    with tempfile.TemporaryDirectory(prefix="graphwright-") as folder:
        written = Path(folder, "optimized.onnx")
        open_session(path, optimize=True, optimized_path=written)
        proto = onnx.load(written, load_external_data=False)
        nodes: dict[str, NodeProto] = {}
        labels: dict[str, str] = {}
        for i, node in enumerate(_nodes(proto.graph)):
            labels[f"n{i}"] = (node.name or node.output[0]).removesuffix("_nchwc")
            node.name = f"n{i}"
            nodes[node.name] = node
        onnx.save(proto, written)
        session = open_session(written, optimize=False, profile_prefix=Path(folder, "profile"))
        session.run(feed)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    sizes = {tensor.name: tuple(tensor.dims) for graph in _graphs(proto.graph) for tensor in graph.initializer}
    found = Macs()
    for event in events:
        node = nodes.get(event["name"].removesuffix("_kernel_time")) if event["cat"] == "Node" else None
        if node is None or node.op_type not in (*_FLOAT, *_INTEGER):
            continue
        macs = _macs(node, event["args"], sizes)
        found.total += macs
        if node.op_type in _INTEGER:
            found.integer += macs
        else:
            label = labels[node.name]
            found.floats[label] = found.floats.get(label, 0) + macs
    return found


def _macs(node: NodeProto, seen: Mapping[str, Any], sizes: Mapping[str, tuple[int, ...]]) -> int:
    """Π output · terms of each sum. The profile lacks weights that a kernel has packed: their sizes are in `sizes`."""
    op = node.op_type
    seen_in = [tuple(next(iter(shape.values()))) for shape in seen["input_type_shape"]]
    first, out = sizes.get(node.input[0]) or seen_in[0], tuple(next(iter(seen["output_type_shape"][0].values())))
    weight = sizes.get(node.input[3 if op == "QLinearConv" else 1]) or (seen_in[1] if len(seen_in) > 1 else ())
    if op == "ConvTranspose":
        return math.prod(first) * math.prod(weight[1:])
    if "Conv" in op:
        return math.prod(out) * math.prod(weight[1:])
    if op.endswith(("LSTM", "GRU", "RNN")):  # x of [steps, batch, …]; W and R, each read once a step
        return math.prod(first[:2]) * (math.prod(weight) + math.prod(sizes.get(node.input[2], ())))
    if op in ("Attention", "QAttention") and node.domain == _RUNTIME:  # x·W, then Q·Kᵀ and P·V
        return math.prod(first[:-1]) * (math.prod(weight) + 2 * first[-2] * out[-1])
    if op in ("Attention", "MultiHeadAttention"):
        return 2 * math.prod(first) * seen_in[1][-2]
    if op == "MatMulNBits":
        return math.prod(out) * first[-1]
    rows = out[-2] if len(first) > 1 and len(out) > 1 else 1  # a of [rows, terms], perhaps transposed
    terms = math.prod(first[-2:]) // rows if len(weight) != 1 else weight[0]
    return math.prod(out) * terms


def _graphs(graph: GraphProto) -> Iterator[GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for body in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _graphs(body)


def _nodes(graph: GraphProto) -> Iterator[NodeProto]:
    for inner in _graphs(graph):
        yield from inner.node
