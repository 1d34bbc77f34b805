"""Normalizations that exporters spell out, at full precision or with their inside stashed in float32.

The standard operators cast to float32, normalize, cast back, then scale and shift (ONNX, LayerNormalization-17 and
RMSNormalization-23); a spelling that casts otherwise is not theirs.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from optimizer.core.dims import Dims
from optimizer.core.graph import Value
from optimizer.core.pattern import const, let, op, read_once, scalar, stash, values
from optimizer.core.rule import decline, rule
from optimizer.core.tensor import Array

FLOAT, DOUBLE = 1, 11

x, gamma, beta = values("x gamma beta")
axes = const("axes")
eps = scalar("eps")
c = let("c", stash(x))


def last_dims(x: Value, axes: Array) -> Dims | None:
    """The dims of x that `axes` name, if those are its last ones."""
    if x.dims is None or not axes.size:
        return None
    rank, first = len(x.dims), len(x.dims) - axes.size
    return x.dims[first:] if sorted(int(a) % rank for a in axes.ravel()) == list(range(first, rank)) else None


def plain(x: Value, c: Value, axes: Array) -> bool:
    """Whether the last axes are normalized, with nothing but float32 stashed."""
    return last_dims(x, axes) is not None and (c is x or c.dtype == FLOAT)


def scaled(x: Value, c: Value, gamma: Value, axes: Array, beta: Value | None = None) -> bool:
    """Whether also scale and shift have the type and the last dims of x, of a constant after leading ones."""
    dims = last_dims(x, axes)
    return plain(x, c, axes) and all(
        v is None or (v.dtype == x.dtype and (v.dims == dims or _ones_then(v, dims))) for v in (gamma, beta)
    )


def _ones_then(v: Value, dims: Dims | None) -> bool:
    if not v.is_const or v.dims is None or dims is None or len(v.dims) < len(dims):
        return False
    extra = len(v.dims) - len(dims)
    return v.dims[extra:] == dims and all(d == 1 for d in v.dims[:extra])


def _parameter(v: Value | None, dims: Dims) -> Value | Array | None:
    return v if v is None or v.const is None or v.dims == dims else v.const.reshape(v.const.shape[-len(dims) :])


def _stashed(x: Value, eps: float) -> dict[str, Any]:
    """Attributes that keep the precision of x; epsilon is a float32 attribute."""
    if x.dtype != DOUBLE:
        return {"epsilon": eps}
    if float(np.float32(eps)) != eps:
        decline("epsilon is no float32")
    return {"epsilon": eps, "stash_type": DOUBLE}


def _layer_norm(op: Any, x: Value, gamma: Value | Array, beta: Value | None, eps: float, axes: Array) -> Any:
    dims = last_dims(x, axes) or ()
    scale = _parameter(gamma, dims) if isinstance(gamma, Value) else gamma
    return op.LayerNormalization(x, scale, _parameter(beta, dims), axis=-axes.size, **_stashed(x, eps))


mu = op.ReduceMean(c, axes)
d = c - mu
deviation = (op.ReduceMean(d**2, axes) + eps) ** 0.5
n = stash(d / deviation)


@rule(n * gamma + beta | n * gamma, where=scaled)
def layer_norm(op: Any, x: Value, gamma: Value, beta: Value | None, eps: float, axes: Array) -> Any:
    """(x - μ) / √(σ² + ε) · γ + β → LayerNormalization, μ and σ² over the last axes"""
    return _layer_norm(op, x, gamma, beta, eps, axes)


s = let("s", gamma / deviation)


@rule(c * s - mu * s + beta, where=scaled)
def layer_norm_moments(op: Any, x: Value, gamma: Value, beta: Value, eps: float, axes: Array) -> Any:
    """x·s - μ·s + β with s = γ / √(σ² + ε) → LayerNormalization"""
    return _layer_norm(op, x, gamma, beta, eps, axes)


@rule(d / deviation, where=plain)
def layer_norm_plain(op: Any, x: Value, eps: float, axes: Array) -> Any:
    """(x - μ) / √(σ² + ε) → LayerNormalization with a scale of ones"""
    dims = last_dims(x, axes) or ()
    sizes = [size for size in dims if isinstance(size, int)]
    if len(sizes) < len(dims):
        decline("the size of what is normalized is not known")
    return _layer_norm(op, x, np.ones(sizes), None, eps, axes)


@rule(stash(c / (op.ReduceMean(c**2, axes) + eps) ** 0.5) * gamma, where=scaled)
def rms_norm(op: Any, x: Value, gamma: Value, eps: float, axes: Array) -> Any:
    """x / √(mean(x²) + ε) · γ → RMSNormalization, the mean over the last axes"""
    dims = last_dims(x, axes) or ()
    return op.RMSNormalization(x, _parameter(gamma, dims), axis=-axes.size, **_stashed(x, eps))


(y,) = values("y")
root_mean = let("root_mean", op.Sqrt(op.Add(op.ReduceMean(y, axes), eps)))
inverse = let("inverse", op.Reciprocal(root_mean) | op.Div(1.0, root_mean))


@rule(op.Mul(x, inverse), where=lambda inverse: read_once(inverse), keep=True)
def by_root_mean(op: Any, x: Value, root_mean: Value) -> Any:
    """x · (1 / √(mean + ε)) → x / √(mean + ε), by which runtimes know what the opset has no name for"""
    return op.Div(x, root_mean)


RULES = (layer_norm, layer_norm_moments, layer_norm_plain, rms_norm, by_root_mean)
