"""Slices that part a tensor along one axis are one Split."""

from __future__ import annotations

import numpy as np

from optimizer.core import form, transfer
from optimizer.core.edit import Editor, Fidelity
from optimizer.core.form import Decline
from optimizer.core.graph import Graph, Node, Value
from optimizer.core.rule import procedure


@procedure(fidelity=Fidelity.EXACT)
def slices_to_split(editor: Editor, graph: Graph) -> None:
    """x[0:a], x[a:b], …, x[z:] along one axis → Split(x)"""
    sliced = {n.inputs[0]: None for n in editor.news("split.slices_to_split", graph, ("Slice",))}
    for x in sliced:
        if x is None or not x.dims:
            continue
        parts: dict[int, dict[int, tuple[int, Node]]] = {}  # by axis, by start
        for n in x.uses:
            if n.op == "Slice" and not n.domain and n.graph is graph and (cut := interval(n)) is not None:
                axis, start, end = cut
                parts.setdefault(axis, {}).setdefault(start, (end, n))
        for axis, pieces in parts.items():
            _split(editor, x, axis, pieces)


def interval(n: Node) -> tuple[int, int, int] | None:
    """(axis, start, end) of a Slice along one axis of a known size, or None."""
    ins = form.operands(n)
    x, lists = ins[0], [None if v is None else transfer.ints(v) for v in ins[1:5]]
    starts, ends, axes, steps = [*lists, *[None] * (4 - len(lists))]
    if x is None or x.dims is None or starts is None or ends is None or len(starts) != 1 or len(ends) != 1:
        return None
    if (len(ins) > 3 and ins[3] is not None and axes is None) or (len(ins) > 4 and ins[4] is not None and steps != [1]):
        return None
    axis = (axes or [0])[0]
    if not -len(x.dims) <= axis < len(x.dims):
        return None
    size = x.dims[axis]
    if not isinstance(size, int):
        return None
    taken = range(size)[starts[0] : ends[0]]
    return (axis % len(x.dims), taken.start, taken.stop) if len(taken) else None


def _split(editor: Editor, x: Value, axis: int, pieces: dict[int, tuple[int, Node]]) -> None:
    """Split x where the pieces are all of it, none of it twice."""
    at, parts = 0, []
    while at in pieces:
        end, n = pieces[at]
        parts.append((end - at, n))
        at = end
    assert x.dims is not None
    if at != x.dims[axis] or len(parts) < 2 or len(parts) < len(pieces):
        return
    try:
        made = editor.op.Split(x, np.asarray([size for size, _ in parts], np.int64), outputs=len(parts), axis=axis)
    except Decline as e:
        editor.no(str(e))
        return
    nodes = [n for _, n in parts]
    editor.replace([n.output for n in nodes], made, must_go=nodes, shape="the same part")


STEPS = (slices_to_split,)
