"""Relu, Clip, Max and Min with numbers are one and the same: min(max(x, low), high).

Where low exceeds high, all is high, as ONNX says of Clip; composed bounds never cross. A bound that a Clip leaves out
is the type's largest number, not infinity.
"""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes

from optimizer.core.edit import Fidelity
from optimizer.core.graph import Node, Value
from optimizer.core.pattern import EPS, Pattern, let, number, op, optional, values
from optimizer.core.rule import decline, rule
from optimizer.core.tensor import numpy_dtype

x, a, b, c, d = values("x a b c d")

Bounds = tuple[float, float]


def bounded(p: Pattern, low: Pattern, high: Pattern) -> Pattern:
    """One of the four, of p."""
    return op.Relu(p) | op.Clip(p, optional(low), optional(high)) | op.Max(p, low) | op.Min(p, high)


def bounds(n: Node, x: Value) -> Bounds | None:
    """(low, high) of what n does to x, low ≤ high; None where a bound is no number."""
    low, high = -math.inf, math.inf
    if n.op == "Relu":
        return 0.0, high
    if n.op == "Clip":
        high = float(ml_dtypes.finfo(numpy_dtype(x.dtype)).max)
        low = -high
    given = n.inputs[1:] if n.op == "Clip" else [v for v in n.inputs if v is not x]
    numbers = [None if v is None else number(v) for v in given]
    if any(v is not None and (k is None or k != k) for v, k in zip(given, numbers)):
        return None
    if n.op == "Clip":
        low = low if not numbers or numbers[0] is None else numbers[0]
        high = high if len(numbers) < 2 or numbers[1] is None else numbers[1]
    elif len(numbers) != 1 or numbers[0] is None:
        return None
    elif n.op == "Max":
        low = numbers[0]
    else:
        high = numbers[0]
    return min(low, high), high


inner = let("inner", bounded(x, a, b))


def floating(x: Value, root: Value) -> bool:
    """Whether x is of floats, at an opset whose Clip has its bounds as operands of the same type."""
    return x.dtype in EPS and not x.is_const and root.graph is not None and root.graph.opset >= 11


@rule(bounded(inner, c, d), fidelity=Fidelity.EXACT, where=floating)
def bounded_twice(op: Any, x: Value, inner: Value, root: Value) -> Any:
    """two of Relu, Clip, Max and Min with numbers → one of them"""
    assert inner.producer is not None and root.producer is not None
    first, last = bounds(inner.producer, x), bounds(root.producer, inner)
    if first is None or last is None or x.dims != root.dims:
        return decline("a bound is no number")
    low = min(max(first[0], last[0]), last[1])
    high = min(max(first[1], last[0]), last[1])
    if high == math.inf:
        return op.Relu(x) if low == 0 else op.Max(x, low)
    return op.Min(x, high) if low == -math.inf else op.Clip(x, low, high)


RULES = (bounded_twice,)
