"""Idioms of any exporter become the standard operation, where the model's opset has it."""

from __future__ import annotations

from optimizer.core.rule import Pass
from passes.recognize import activations, normalizations

RECOGNIZE = Pass("recognize", (*normalizations.RULES, *activations.RULES))
