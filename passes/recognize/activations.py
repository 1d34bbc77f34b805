"""Activations that exporters spell out."""

from __future__ import annotations

import math
from typing import Any

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


RULES = (gelu, gelu_tanh)
