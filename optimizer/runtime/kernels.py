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
_LAYOUT = ("ReorderInput", "ReorderOutput")
_COMPOSITE = (  # standard ops (and two that the runtime files under the standard domain) that stand for an idiom
    *("Attention", "Gelu", "GroupNormalization", "HardSwish", "LayerNormalization", "Mish", "RMSNormalization"),
    *("RotaryEmbedding", "SimplifiedLayerNormalization", "SkipSimplifiedLayerNormalization", "Swish"),
    *("ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul"),
)

_MULTIPLIES = {  # kernel → whether it multiplies integers
    **dict.fromkeys(("Conv", "FusedConv", "NhwcFusedConv", "ConvTranspose", "MatMul", "FusedMatMul", "Gemm"), False),
    **dict.fromkeys(("FusedGemm", "LSTM", "GRU", "RNN"), False),
    **dict.fromkeys(("QLinearConv", "ConvInteger", "QLinearMatMul", "MatMulInteger", "MatMulIntegerToFloat"), True),
    **dict.fromkeys(("QGemm", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM"), True),
}
_WEIGHT = {"QLinearConv": 3}  # operand that is the weight of a convolution, where it is not the second


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
    """Multiplications of one run: all of them, those of integers, and those that stayed float by name of node."""

    total: int = 0
    integer: int = 0
    floats: dict[str, int] = field(default_factory=dict[str, int])


def integer_macs(path: str | os.PathLike[str], feed: Feed) -> Macs:
    """Multiplications of convolutions, products and recurrences, by what the runtime's profile of one run shows.

    Only in a child; raises as `census`, and SessionError where the model refuses the feed.
    """
    import onnx

    with tempfile.TemporaryDirectory(prefix="graphwright-") as folder:
        written = Path(folder, "optimized.onnx")
        session = open_session(path, optimize=True, optimized_path=written, profile_prefix=Path(folder, "profile"))
        session.run(feed)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        proto = onnx.load(written, load_external_data=False)
    nodes = {node.name: node for node in _nodes(proto.graph)}
    sizes = {tensor.name: tuple(tensor.dims) for graph in _graphs(proto.graph) for tensor in graph.initializer}
    found = Macs()
    for event in events:
        name = event.get("name", "").removesuffix("_kernel_time")
        if name == event.get("name") or name not in nodes or nodes[name].op_type not in _MULTIPLIES:
            continue
        macs = _macs(nodes[name], event["args"], sizes)
        found.total += macs
        if _MULTIPLIES[nodes[name].op_type]:
            found.integer += macs
        else:
            found.floats[name] = found.floats.get(name, 0) + macs
    return found


def _macs(node: NodeProto, seen: Mapping[str, Any], sizes: Mapping[str, tuple[int, ...]]) -> int:
    """∏ output · terms of each sum: kernel size times channels a group, or the inner dimension."""
    shapes = [next(iter(shape.values())) for shape in seen["input_type_shape"]]
    first = sizes.get(node.input[0]) or shapes[0]
    out = math.prod(next(iter(seen["output_type_shape"][0].values())))
    op = node.op_type
    if op.endswith(("LSTM", "GRU", "RNN")):
        weights = sum(math.prod(sizes.get(name, ())) for name in node.input[1:3])
        return math.prod(first[:2]) * weights
    if "Conv" in op:
        weight = sizes.get(node.input[_WEIGHT.get(op, 1)], (0,))
        return (math.prod(first) if op == "ConvTranspose" else out) * math.prod(weight[1:])
    turned = any(a.name == "transA" and a.i for a in node.attribute)
    return out * first[-2 if turned else -1]


def _graphs(graph: GraphProto) -> Iterator[GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for body in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _graphs(body)


def _nodes(graph: GraphProto) -> Iterator[NodeProto]:
    for inner in _graphs(graph):
        yield from inner.node
