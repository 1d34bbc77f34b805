"""Activations that exporters spell out."""

from __future__ import annotations

import math
from typing import Any

from optimizer.core.graph import Value
from optimizer.core.pattern import approx, op, values
from optimizer.core.rule import rule

(x,) = values("x")

half_erf = 0.5 * op.Erf(x / math.sqrt(2))


@rule(0.5 * x * (1 + op.Erf(x / math.sqrt(2))) | x * (0.5 + half_erf))
def gelu(op: Any, x: Any) -> Any:
    """½·x·(1 + erf(x/√2)) → Gelu"""
    return op.Gelu(x)


cubic = x + 0.044715 * x**3
factored = x * (1 + 0.044715 * x**2)
slope = approx(math.sqrt(2 / math.pi), 1e-6)  # written with as few as six digits


@rule(0.5 * x * (1 + op.Tanh(slope * cubic | slope * factored)))
def gelu_tanh(op: Any, x: Any) -> Any:
    """½·x·(1 + tanh(√(2/π)·(x + 0.044715·x³))) → Gelu(approximate="tanh")"""
    return op.Gelu(x, approximate="tanh")


gate = op.Clip(x + 3, 0.0, 6.0) | op.Min(op.Relu(x + 3), 6.0)


def in_float(x: Value) -> bool:
    """Whether runtimes have a kernel of HardSigmoid for x."""
    return x.dtype in (1, 10)  # float, float16


def has_hard_swish(x: Value, root: Value) -> bool:
    """Whether also the opset has HardSwish."""
    return in_float(x) and root.graph is not None and root.graph.opset >= 14


@rule(x * gate / 6, where=has_hard_swish)
def hard_swish(op: Any, x: Any) -> Any:
    """x · clip(x + 3, 0, 6) / 6 → HardSwish"""
    return op.HardSwish(x)


@rule(gate / 6, where=in_float)
def hard_sigmoid(op: Any, x: Any) -> Any:
    """clip(x + 3, 0, 6) / 6 → HardSigmoid(alpha=1/6, beta=1/2)"""
    return op.HardSigmoid(x, alpha=1 / 6, beta=0.5)


RULES = (gelu, gelu_tanh, hard_swish, hard_sigmoid)
