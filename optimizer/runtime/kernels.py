"""Which kernels a model really runs in: counted in the graph that the runtime itself ends with."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from optimizer.runtime.session import open_session

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

_RUNTIME = "com.microsoft"  # and its subdomains: ops that only the runtime's fusions, or its users, write
_LAYOUT = ("ReorderInput", "ReorderOutput")
_COMPOSITE = (  # standard ops (and two that the runtime files under the standard domain) that stand for an idiom
    *("Attention", "Gelu", "GroupNormalization", "HardSwish", "LayerNormalization", "Mish", "RMSNormalization"),
    *("RotaryEmbedding", "SimplifiedLayerNormalization", "SkipSimplifiedLayerNormalization", "Swish"),
    *("ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul"),
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


def optimized_graph(
    path: str | os.PathLike[str], provider: str = "cpu", *, custom_ops: Sequence[str | os.PathLike[str]] = ()
) -> ModelProto:
    """The graph that the runtime ends with, its weights left out. Only in a child; raises as `census`."""
    import onnx

    with tempfile.TemporaryDirectory(prefix="graphwright-") as folder:
        written = Path(folder, "optimized.onnx")
        open_session(path, optimize=True, provider=provider, custom_ops=custom_ops, optimized_path=written)
        return onnx.load(written, load_external_data=False)


def _nodes(graph: GraphProto) -> Iterator[NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for body in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _nodes(body)
