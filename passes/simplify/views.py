"""Operations that only rename dims: chains of them, and products and transposes between them, become one.

Squeeze, Unsqueeze, Flatten and Reshape keep the elements in order; a Transpose moves whole runs of dims.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from optimizer.core import form, transfer
from optimizer.core.dims import Dim, Dims
from optimizer.core.edit import Editor, Fidelity
from optimizer.core.form import Decline
from optimizer.core.graph import Graph, Value
from optimizer.core.pattern import Pattern, const, op, optional, read_once, values
from optimizer.core.rule import Procedure, Rule, decline, procedure, rule
from optimizer.core.tensor import Array
from passes.simplify.shapes import canonical, respell

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


VIEWS = frozenset(("Reshape", "Squeeze", "Unsqueeze", "Flatten"))


@procedure(fidelity=EXACT)
def view_twice(editor: Editor, graph: Graph) -> None:
    """two operations in a row that only rename dims → one Reshape, where a constant target says the dims"""
    for n in editor.news("views.view_twice", graph, VIEWS):
        between = n.inputs[0]
        m = between.producer if between is not None else None
        if m is None or m.op not in VIEWS or m.domain or m.graph is not graph or (x := m.inputs[0]) is None:
            continue
        y = n.output
        alike = n.op == m.op and n.op in ("Squeeze", "Unsqueeze")  # which have rules of their own
        if alike or x.dims is None or y.dims is None or x.dims == y.dims:
            continue
        entries = canonical(x.dims, y.dims)
        if entries is not None:
            respell(editor, y, "Reshape", x, entries)


@procedure(fidelity=EXACT)
def transpose_of_view(editor: Editor, graph: Graph) -> None:
    """Reshape(Transpose(Reshape(x))) → Transpose(x), where the first joins dims and the last parts them again"""
    touched = editor.news("views.transpose_of_view", graph, VIEWS | {"Transpose"})
    for n in (u for v in touched for u in (list(v.output.uses) if v.op == "Transpose" else (v,))):
        if n.op not in VIEWS or n.domain or n.graph is not graph:
            continue
        t = n.inputs[0].producer if n.inputs[0] is not None else None
        between = t.inputs[0] if t is not None and t.op == "Transpose" and not t.domain else None
        m = between.producer if between is not None else None
        if t is None or between is None or m is None or m.op not in VIEWS or m.domain or m.graph is not graph:
            continue
        x, y = m.inputs[0], n.output
        if x is None or x.dims is None or between.dims is None or y.dims is None or x.rank != y.rank:
            continue
        groups = joined(x.dims, between.dims)
        if groups is None:
            continue
        perm = t.attributes.get("perm") or list(range(len(groups)))[::-1]
        order = [i for g in perm for i in groups[g]]
        if tuple(x.dims[i] for i in order) == y.dims:
            editor.replace([y], [editor.op.Transpose(x, perm=order)], must_go=[n, t, m], shape="the same dims, moved")


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


@procedure(fidelity=EXACT)
def gather_one(editor: Editor, graph: Graph) -> None:
    """Unsqueeze(Gather(x, i), axis) → Gather(x, [i]) along the same axis"""
    for n in editor.news("views.gather_one", graph, ("Unsqueeze",)):
        g = n.inputs[0].producer if n.inputs[0] is not None else None
        if g is None or g.op != "Gather" or g.domain or (x := g.inputs[0]) is None or (i := g.inputs[1]) is None:
            continue
        if x.rank is None or x.rank < 2 or i.dims != () or i.const is None:  # shapes are read off the analysis
            continue
        axes = transfer.ints(v) if (v := form.operands(n)[1]) is not None else None
        axis = int(form.attribute(g, "axis") or 0) % x.rank
        if axes is not None and [a % x.rank for a in axes] == [axis]:
            one = editor.op.Gather(x, i.const.reshape(1), axis=axis)
            editor.replace([n.output], [one], must_go=[n, g], shape="the same one")


@procedure(fidelity=EXACT)
def reduced_dims(editor: Editor, graph: Graph) -> None:
    """Unsqueeze of a reduction that drops its axes → that keeps them; Squeeze of one that keeps them → that drops"""
    for n in editor.news("views.reduced_dims", graph, ("Unsqueeze", "Squeeze")):
        if (y := n.inputs[0]) is None or (r := y.producer) is None:
            continue
        x = r.inputs[0] if r.inputs else None
        if not r.op.startswith("Reduce") or r.domain or r.graph is not graph or not read_once(y) or x is None:
            continue
        keeps, ins = form.attribute(r, "keepdims"), (form.operands(r), form.operands(n))
        reduced, moved = ([transfer.ints(v) if v is not None else None for v in i[1:2]] for i in ins)
        if keeps != (n.op == "Squeeze") or x.rank is None or not reduced or not moved or not reduced[0] or not moved[0]:
            continue
        rank = x.rank
        if {a % rank for a in reduced[0]} == {a % rank for a in moved[0]}:
            try:
                made = editor.stage_like(r, keepdims=int(not keeps))
            except Decline as e:
                editor.no(str(e))
                continue
            editor.replace([n.output], made, must_go=[n, r], shape="the reduced dims are ones")


STEPS: tuple[Rule | Procedure, ...] = (
    unsqueeze_twice, squeeze_twice, view_twice, transpose_of_view, gather_one, reduced_dims,
)  # fmt: skip
