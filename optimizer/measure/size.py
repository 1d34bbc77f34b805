"""How large a model is: nodes, subgraphs and functions included, and bytes, external weights included."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import NodeProto


def count_ops(path: Path) -> Counter[str]:
    """Op type, with its domain where it has one → how many nodes; external weights stay unread."""
    import onnx

    model = onnx.load(path, load_external_data=False)
    counts: Counter[str] = Counter()

    def walk(nodes: Iterable[NodeProto]) -> None:
        for node in nodes:
            counts[f"{node.domain}.{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type] += 1
            for attribute in node.attribute:
                for body in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                    walk(body.node)

    walk(model.graph.node)
    for function in model.functions:
        walk(function.node)
    return counts


def count_nodes(path: Path) -> int:
    """Nodes of a model, Constant nodes too."""
    return count_ops(path).total()


def count_bytes(path: Path) -> int:
    """Bytes of the model file and of the external files it names."""
    import onnx
    from onnx.external_data_helper import ExternalDataInfo, uses_external_data

    tensors = onnx.load(path, load_external_data=False).graph.initializer
    files = {ExternalDataInfo(tensor).location for tensor in tensors if uses_external_data(tensor)}
    return path.stat().st_size + sum((path.parent / name).stat().st_size for name in files)
