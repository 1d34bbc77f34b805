"""The receipt (`graphwright.receipt/1`): the JSON of a whole run, with the log, one edit a line."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from optimizer.core import model as file_edge
from optimizer.core.edit import Edit
from optimizer.core.graph import Model, Node
from optimizer.core.model import Lowered
from optimizer.driver.pipeline import Phase

SCHEMA = "graphwright.receipt/1"


def versions() -> dict[str, str | None]:
    """Versions that decide the result; null: not installed."""
    return {
        "python": "{}.{}.{}".format(*sys.version_info[:3]),
        "onnx": onnx.__version__,
        "numpy": np.__version__,
        "onnxruntime": _version("onnxruntime-gpu") or _version("onnxruntime"),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def own_version() -> str:
    return _version("graphwright") or "0"


def input_facts(model: Model, path: Path | None, *, full: bool = False) -> dict[str, Any]:
    """Path, IR, opsets, hash and where the weights lie of a model just read; the bytes are the caller's to say."""
    return _facts(model, path, file_edge.graph_hash(model), file_edge.weights(model, full=full))


def output_facts(lowered: Lowered, path: Path | None, *, full: bool = False) -> dict[str, Any]:
    """The same of a result, in the files that it was written to last."""
    return _facts(lowered.model, path, lowered.graph, lowered.weights(full=full))


def _facts(model: Model, path: Path | None, graph: str, weights: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "path": str(path) if path is not None else None,
        "bytes": None,
        "ir": model.proto.ir_version,
        "opset": dict(sorted(model.opsets.items())),
        "graph": graph,
        "weights": weights,
    }


def phase_row(p: Phase) -> dict[str, Any]:
    return {"name": p.name, "edits": p.edits, "rules": dict(p.rules.most_common()), "seconds": round(p.seconds, 6)}


def log_row(e: Edit) -> dict[str, Any]:
    """One edit as the receipt has it."""
    row: dict[str, Any] = {
        "id": e.id,
        "phase": e.phase,
        "rule": e.rule,
        "scope": list(e.scope),
        "fidelity": e.fidelity.value,
        "evidence": e.evidence.value,
        "equal": [list(pair) for pair in e.names],
        "gone": [_node(n) for n in e.gone],
        "new": [_node(n) for n in e.new],
    }
    if e.renamed:
        row["renamed"] = [list(r) for r in e.renamed]
    if e.note:
        row["note"] = e.note
    return row


def _node(n: Node) -> list[str]:
    """[op, name]; a node without a name is called by its first output."""
    return [n.op, n.name or next((o.name for o in n.outputs if o.name), "")]


def text(receipt: dict[str, Any], log: Sequence[dict[str, Any]]) -> str:
    """The receipt file: everything on a few lines a key, the log one edit a line."""
    head = json.dumps(receipt, indent=1, ensure_ascii=False)
    encode = json.JSONEncoder(ensure_ascii=False).encode  # one for all rows: making it costs more than a row
    rows = ",\n  ".join(map(encode, log))
    return f'{head[:-2]},\n "log": [\n  {rows}]}}\n' if log else f'{head[:-2]},\n "log": []}}\n'
