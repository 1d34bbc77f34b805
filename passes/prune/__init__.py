"""Pruning: a plan says which weights become zero, then it is applied."""

from __future__ import annotations

from optimizer.core.rule import Pass
from passes.prune import magnitude

PRUNE = Pass("prune", (magnitude.apply,))
