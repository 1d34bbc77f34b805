"""Operations that only rename dims: chains of them, and products and transposes between them, become one.

Squeeze, Unsqueeze, Flatten and Reshape keep the elements in order; a Transpose moves whole runs of dims.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from optimizer.core.dims import Dim, Dims
from optimizer.core.edit import Fidelity
from optimizer.core.graph import Node, Value
from optimizer.core.pattern import Pattern, const, let, op, optional, values
from optimizer.core.rule import Rule, decline, rule
from optimizer.core.tensor import Array
from passes.simplify.shapes import canonical

EXACT = Fidelity.EXACT
x, a, b = values("x a b")
outer_axes, inner_axes = const("outer_axes inner_axes")


def view(p: Pattern, other: Pattern) -> Pattern:
    """Any operation that only renames dims; `other` is its second operand."""
    return (
        op.Reshape(p, other, allowzero=...)
        | op.Squeeze(p, optional(other))
        | op.Unsqueeze(p, other)
        | op.Flatten(p, axis=...)
    )


def _no_mask(x: Value, inner_axes: Array, outer_axes: Array) -> bool:
    """Not the mask of attention, which runtimes know by the two Unsqueezes of a matrix of integers."""
    pair = inner_axes.size == outer_axes.size == 1
    return x.dims is not None and not (pair and len(x.dims) == 2 and x.dtype in _MASKS)


_MASKS = (6, 7, 9)  # int32, int64, bool


@rule(op.Unsqueeze(op.Unsqueeze(x, inner_axes), outer_axes), fidelity=EXACT, where=_no_mask, keep=True)
def unsqueeze_twice(op: Any, x: Value, inner_axes: Array, outer_axes: Array) -> Any:
    """Unsqueeze(Unsqueeze(x, a), b) → Unsqueeze(x, a and b)"""
    rank = len(x.dims or ()) + inner_axes.size
    names = list(range(rank))  # of the dims between: the old ones, and −1 for what the first added
    for i in _axes(inner_axes, rank):
        names[i] = -1
    outer = _axes(outer_axes, rank + outer_axes.size)
    for i in sorted(outer):
        names.insert(i, -1)
    return op.Unsqueeze(x, np.asarray([i for i, k in enumerate(names) if k == -1]))


@rule(op.Squeeze(op.Squeeze(x, inner_axes), outer_axes), fidelity=EXACT, where=lambda x: x.dims is not None, keep=True)
def squeeze_twice(op: Any, x: Value, inner_axes: Array, outer_axes: Array) -> Any:
    """Squeeze(Squeeze(x, a), b) → Squeeze(x, a and b)"""
    if not inner_axes.size or not outer_axes.size:
        decline("no axes: which runtimes read differently")
    inner = _axes(inner_axes, len(x.dims or ()))
    left = [i for i in range(len(x.dims or ())) if i not in inner]
    return op.Squeeze(x, np.asarray(sorted([*inner, *(left[i] for i in _axes(outer_axes, len(left)))])))


def _axes(axes: Array, rank: int) -> set[int]:
    """Axes counted from the front.

    Raises:
        Decline: one is out of range, or named twice.
    """
    out = {int(i) % rank for i in axes.ravel() if -rank <= i < rank}
    if len(out) < axes.size:
        decline("axes that the tensor does not have")
    return out


@rule(
    view(let("between", view(x, a)), b), fidelity=EXACT, keep=True,
    where=lambda x, root: x.dims is not None and root.dims is not None and x.dims != root.dims,
)  # fmt: skip
def view_twice(op: Any, x: Value, root: Value, between: Value) -> Any:
    """two operations in a row that only rename dims → one Reshape, where a constant target says the dims"""
    last, first = root.producer, between.producer
    assert last is not None and first is not None
    if last.op == first.op != "Reshape" and last.op != "Flatten":
        decline("has a rule of its own")
    entries = canonical(x.dims or (), root.dims or ())
    if entries is None:
        decline("no constant target says these dims")
    return op.Reshape(x, np.asarray(entries, np.int64))


@rule(view(op.Transpose(let("between", view(x, a)), name="transpose"), b), fidelity=EXACT)
def transpose_of_view(op: Any, x: Value, root: Value, between: Value, transpose: Node) -> Any:
    """Reshape(Transpose(Reshape(x))) → Transpose(x), where the first joins dims and the last parts them again"""
    if x.dims is None or between.dims is None or root.dims is None:
        decline("rank unknown")
    groups = joined(x.dims, between.dims)
    if groups is None:
        decline("dims are not only joined")
    perm = transpose.attributes.get("perm") or list(range(len(groups)))[::-1]
    order = [i for g in perm for i in groups[g]]
    if tuple(x.dims[i] for i in order) != root.dims:
        decline("other dims come out")
    return op.Transpose(x, perm=order)


def joined(x: Dims, y: Dims) -> list[list[int]] | None:
    """Which neighbouring dims of x make each dim of y, or None."""
    out: list[list[int]] = []
    at = 0
    for k, d in enumerate(y):
        size: Dim = 1
        group: list[int] = []
        while at < len(x) and (size != d or not group):
            size = size * x[at]
            group.append(at)
            at += 1
        if size != d:
            return None
        while at < len(x) and x[at] == 1 and (k + 1 == len(y) or y[k + 1] != 1):
            group.append(at)
            at += 1
        out.append(group)
    return out if at == len(x) else None


STEPS: tuple[Rule, ...] = (unsqueeze_twice, squeeze_twice, view_twice, transpose_of_view)
