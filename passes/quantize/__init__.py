"""Quantization: a plan says which values become 8-bit integers and which nodes stay floats, then it is applied."""

from __future__ import annotations

from optimizer.core.rule import Pass
from passes.quantize import emit, opset

QUANTIZE = Pass("quantize", (opset.raise_opset, emit.apply))
