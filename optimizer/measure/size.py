"""How large a model is: its nodes by operator, and bytes as people read them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optimizer.core.graph import Model


def count_ops(model: Model) -> Counter[str]:
    """Operator, with its domain if any → how many nodes, bodies and functions included; most frequent first."""
    ops = Counter(f"{n.domain}.{n.op}" if n.domain else n.op for n in model.nodes())
    for function in model.functions.values():
        ops.update(f"{n.domain}.{n.op_type}" if n.domain not in ("", "ai.onnx") else n.op_type for n in function.node)
    return Counter(dict(sorted(ops.items(), key=lambda x: (-x[1], x[0]))))


def show_bytes(n: int | None) -> str:
    """65.9 MiB; exact below 10 kB, `?` where it is not known."""
    if n is None:
        return "?"
    if n < 10_000:
        return f"{n} B"
    for unit, size in (("GiB", 2**30), ("MiB", 2**20)):
        if n >= size:
            return f"{n / size:.1f} {unit}"
    return f"{n / 2**10:.1f} KiB"
