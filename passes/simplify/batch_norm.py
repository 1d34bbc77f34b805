"""Batch normalization at inference is an affine map per channel: it goes into the weights of what feeds it.

y = (z - μ)·s + β with s = γ / √(σ² + ε), per output channel of z = W·x + b: W' = W·s, b' = (b - μ)·s + β.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from optimizer.core import facts, form
from optimizer.core.graph import Node, Value
from optimizer.core.pattern import Pattern, const, op, optional, scalar, values
from optimizer.core.rule import decline, rule
from optimizer.core.tensor import Array

x, z = values("x z")
w, bias, gamma, beta, mean, var = const("w bias gamma beta mean var")
b = optional(bias)
eps = scalar("eps")


def normalized(y: Pattern) -> Pattern:
    """BatchNormalization of y with constant statistics."""
    return op.BatchNormalization(y, gamma, beta, mean, var, epsilon=eps)


def at_inference(root: Value) -> bool:
    """Whether the statistics given are those used."""
    return root.producer is not None and facts.pure(root.producer)


def affine(
    w: Array, bias: Array | None, gamma: Array, beta: Array, mean: Array, var: Array, eps: float
) -> tuple[Array, Array]:
    """s = γ / √(σ² + ε), as exact as w is, and b' = (b - μ)·s + β, both [channels]."""
    if (var + eps <= 0).any():
        decline("a variance is not positive")
    if bias is not None and bias.size > 1 and bias.shape[-1] != bias.size:
        decline("the bias differs by row")
    s = gamma / np.sqrt(var + eps)
    return s.astype(w.dtype), ((0.0 if bias is None else bias.ravel()) - mean) * s + beta


@rule(normalized(op.Conv(x, w, b, name="conv")), where=at_inference)
def conv_batch_norm(
    op: Any, x: Value, w: Array, bias: Array | None, gamma: Array, beta: Array, mean: Array, var: Array, eps: float,
    conv: Node,
) -> Any:  # fmt: skip
    """BatchNormalization(Conv(x, W, b)) → Conv(x, W·s, (b - μ)·s + β)"""
    s, shift = affine(w, bias, gamma, beta, mean, var, eps)
    return op.Conv(x, w * s.reshape(-1, *[1] * (w.ndim - 1)), shift, **conv.attributes)


@rule(normalized(op.ConvTranspose(x, w, b, name="conv")), where=at_inference)
def conv_transpose_batch_norm(
    op: Any, x: Value, w: Array, bias: Array | None, gamma: Array, beta: Array, mean: Array, var: Array, eps: float,
    conv: Node,
) -> Any:  # fmt: skip
    """BatchNormalization(ConvTranspose(x, W, b)) → ConvTranspose(x, W·s, (b - μ)·s + β)

    W is [input channel, output channel within its group, …]; groups part both.
    """
    s, shift = affine(w, bias, gamma, beta, mean, var, eps)
    groups = form.attribute(conv, "group") or 1
    per_group = w.reshape(groups, -1, *w.shape[1:]) * s.reshape(groups, 1, -1, *[1] * (w.ndim - 2))
    return op.ConvTranspose(x, per_group.reshape(w.shape), shift, **conv.attributes)


@rule(normalized(op.Gemm(x, w, b, name="gemm")), where=at_inference)
def gemm_batch_norm(
    op: Any, x: Value, w: Array, bias: Array | None, gamma: Array, beta: Array, mean: Array, var: Array, eps: float,
    gemm: Node,
) -> Any:  # fmt: skip
    """BatchNormalization(α·A·W + β·b) → α·A·(W·s) + ((β·b - μ)·s + β')"""
    scaled = None if bias is None else bias * form.attribute(gemm, "beta")
    s, shift = affine(w, scaled, gamma, beta, mean, var, eps)
    columns = (-1, 1) if form.attribute(gemm, "transB") else (1, -1)
    return op.Gemm(x, w * s.reshape(columns), shift, **{**gemm.attributes, "beta": None})


@rule(normalized(op.MatMul(x, w) | op.MatMul(x, w) + bias), where=at_inference)
def matmul_batch_norm(
    op: Any, x: Value, w: Array, bias: Array | None, gamma: Array, beta: Array, mean: Array, var: Array, eps: float
) -> Any:
    """BatchNormalization(A·W + b) → Gemm(A, W·s, (b - μ)·s + β), for matrices"""
    s, shift = affine(w, bias, gamma, beta, mean, var, eps)
    return op.Gemm(x, w * s, shift)


RULES = (conv_batch_norm, conv_transpose_batch_norm, gemm_batch_norm, matmul_batch_norm)
