"""Scales and shifts per output channel move into the weights of the linear operation before them."""

from __future__ import annotations

from typing import Any

import numpy as np

from optimizer.core import facts, form
from optimizer.core.graph import Node, Value
from optimizer.core.pattern import const, op, optional, scalar, values
from optimizer.core.rule import decline, rule
from optimizer.core.tensor import Array

(x,) = values("x")
w, gamma, beta, mean, var, m, t = const("w gamma beta mean var m t")
b = optional(const("b"))
eps = scalar("eps")


def _normalized(p: Any) -> Any:
    return op.BatchNormalization(p, gamma, beta, mean, var, epsilon=eps, name="bn")


def _vector(m: Array, rank: int, channels: int) -> Array | None:
    """A constant that broadcasts along the channel axis (1) alone, as a vector of `channels`."""
    shape = (1,) * (rank - m.ndim) + m.shape
    if len(shape) != rank or any(d != 1 for i, d in enumerate(shape) if i != 1) or shape[1] not in (1, channels):
        return None
    return np.broadcast_to(m.reshape(-1), (channels,)).astype(m.dtype)


def _columns(w: Array, s: Array, conv: Any) -> Array:
    """w with its output channels multiplied by s: axis 0 of Conv, axis 1 of each group of ConvTranspose."""
    tail = [1] * (w.ndim - 2)
    if conv.op == "Conv":
        return w * s.reshape(-1, 1, *tail)
    g = conv.attributes.get("group", 1)
    grouped = w.reshape(g, w.shape[0] // g, *w.shape[1:]) * s.reshape(g, 1, w.shape[1], *tail)
    return grouped.reshape(w.shape)


def _out_channels(w: Array, conv: Any) -> int:
    return w.shape[0] if conv.op == "Conv" else w.shape[1] * conv.attributes.get("group", 1)


def _convolution(op: Any, conv: Any, x: Any, w: Array, b: Array) -> Any:
    return getattr(op, conv.op)(x, w, b, **conv.attributes)


conv = op.Conv(x, w, b, name="conv") | op.ConvTranspose(x, w, b, name="conv")


@rule(op.Mul(conv, m))
def conv_scale(op: Any, x: Any, w: Any, b: Any, m: Any, conv: Any) -> Any:
    """m · Conv(x, W, b) → Conv(x, m·W, m·b), m one number a channel"""
    s = _vector(m, w.ndim, _out_channels(w, conv))
    if s is None:
        return decline("not one number a channel")
    scaled = _columns(w, s, conv)
    return getattr(op, conv.op)(x, scaled, None if b is None else b * s, **conv.attributes)


@rule(op.Add(conv, m))
def conv_shift(op: Any, x: Any, w: Any, b: Any, m: Any, conv: Any) -> Any:
    """Conv(x, W, b) + m → Conv(x, W, b + m), m one number a channel"""
    t = _vector(m, w.ndim, _out_channels(w, conv))
    if t is None:
        return decline("not one number a channel")
    weight = conv.inputs[1]
    return _convolution(op, conv, x, weight, t if b is None else b + t)


@rule(op.Mul(_normalized(x), m), where=lambda bn: facts.pure(bn), domain="inference")
def batch_norm_scale(op: Any, x: Any, gamma: Any, beta: Any, mean: Any, var: Any, m: Any, bn: Any) -> Any:
    """m · BatchNormalization(x, γ, β) → BatchNormalization(x, m·γ, m·β), m one number a channel"""
    return _rescaled(op, x, gamma, beta, m, bn, scale=True)


@rule(op.Add(_normalized(x), m), where=lambda bn: facts.pure(bn), domain="inference")
def batch_norm_shift(op: Any, x: Any, gamma: Any, beta: Any, mean: Any, var: Any, m: Any, bn: Any) -> Any:
    """BatchNormalization(x, γ, β) + m → BatchNormalization(x, γ, β + m), m one number a channel"""
    return _rescaled(op, x, gamma, beta, m, bn, scale=False)


def _rescaled(op: Any, x: Any, gamma: Array, beta: Array, m: Array, bn: Any, *, scale: bool) -> Any:
    v = _vector(m, len(x.dims), len(gamma)) if x.dims is not None and len(x.dims) > 1 else None
    if v is None:
        return decline("not one number a channel")
    g, t = (gamma * v, beta * v) if scale else (bn.inputs[1], beta + v)
    return op.BatchNormalization(x, g, t, bn.inputs[3], bn.inputs[4], **bn.attributes)


def takes_all_channels(x: Value, w: Array, conv: Node) -> bool:
    """Whether x itself has the channels that the convolution reads: nothing else widens it."""
    groups = form.attribute(conv, "group") or 1
    return x.dims is not None and len(x.dims) == w.ndim > 1 and x.dims[1] == w.shape[1] * groups


def _by_input(w: Array, m: Array, conv: Node) -> Array:
    """m, one number an input channel or one for all, as what broadcasts over W [output channel, input of its group, …].

    Raises:
        Decline: it is anything else.
    """
    groups = form.attribute(conv, "group") or 1
    v = _vector(m, w.ndim, w.shape[1] * groups)
    if v is None:
        decline("not one number a channel")
    by_group = np.repeat(v.reshape(groups, w.shape[1]), w.shape[0] // groups, axis=0)
    return by_group.reshape(*w.shape[:2], *[1] * (w.ndim - 2))


def _bias(conv: Node) -> Value | None:
    return conv.inputs[2] if len(conv.inputs) > 2 else None


@rule(op.Conv(op.Mul(x, m), w, b, name="conv"), where=takes_all_channels)
def scaled_conv(op: Any, x: Any, w: Array, m: Array, conv: Node) -> Any:
    """Conv(m · x, W, b) → Conv(x, W·m, b), m one number a channel"""
    return op.Conv(x, w * _by_input(w, m, conv), _bias(conv), **conv.attributes)


@rule(op.Conv(op.Add(op.Mul(x, m), t), w, b, name="conv"), where=takes_all_channels)
def scaled_shifted_conv(op: Any, x: Any, w: Array, m: Array, t: Array, conv: Node) -> Any:
    """Conv(m · x + t, W, b) → Conv(x + t/m, W·m, b), m one number a channel and none of them 0"""
    scaled = w * _by_input(w, m, conv)
    if not m.all() or _vector(t, w.ndim, w.shape[1] * (form.attribute(conv, "group") or 1)) is None:
        decline("not one number a channel, or a 0")
    return op.Conv(op.Add(x, t / m), scaled, _bias(conv), **conv.attributes)


@rule(op.Conv(op.Add(x, m), w, b, name="conv"), where=takes_all_channels, domain="nothing is padded")
def shifted_conv(op: Any, x: Any, w: Array, b: Array | None, m: Array, conv: Node) -> Any:
    """Conv(x + m, W, b) → Conv(x, W, b + ΣW·m), m one number a channel, where nothing is padded"""
    if form.attribute(conv, "auto_pad") not in ("NOTSET", "VALID") or any(form.attribute(conv, "pads") or ()):
        decline("padded with zeros, to which m is not added")
    shift = (w * _by_input(w, m, conv)).sum(axis=tuple(range(1, w.ndim)))
    return op.Conv(x, conv.inputs[1], shift if b is None else b + shift, **conv.attributes)


RULES = (scaled_conv, shifted_conv, scaled_shifted_conv, batch_norm_scale, batch_norm_shift, conv_scale, conv_shift)
