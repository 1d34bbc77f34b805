"""What would have hidden an idiom: arithmetic moves into weights, and products with a bias become Gemm."""

from __future__ import annotations

from optimizer.core.rule import Pass
from passes.finish import affine, gemm

FINISH = Pass("finish", (*affine.RULES, *gemm.RULES))
