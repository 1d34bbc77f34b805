"""Transposes move through what works element by element, where they meet others and there are fewer of them.

Transpose(f(Transpose(x, p), Transpose(y, r)), q) is f(Transpose(x, p∘q), Transpose(y, r∘q)). Counted are the Transposes
before and after; one of a constant costs nothing, for it is a constant again.
"""

from __future__ import annotations

import numpy as np

from optimizer.core import facts, form
from optimizer.core.edit import Editor, Fidelity
from optimizer.core.form import Decline
from optimizer.core.graph import Graph, Node, Value
from optimizer.core.pattern import read_once
from optimizer.core.rule import procedure

DEPTH = 8  # operations between two Transposes
_FIRST_ONLY = facts.UNARY - {"Identity"}  # of several operands, the others are settings
_MOVES = _FIRST_ONLY | facts.BROADCAST | {"Concat"}

Perm = list[int]


@procedure(fidelity=Fidelity.EXACT)
def transpose_through(editor: Editor, graph: Graph) -> None:
    """Transpose(f(Transpose(x), y)) → f(x, Transpose(y)) for an elementwise f, where Transposes get fewer"""
    before = editor.notes("transposes.transpose_through", graph)  # at first, every way begins at a Transpose
    starts = _MOVES | {"Transpose"} if before else {"Transpose"}
    before["walked"] = True
    for n in editor.news("transposes.transpose_through", graph, starts):
        for t in _behind(n):
            y = t.inputs[0]
            if t.graph is not graph or y is None or (q := permutation(t)) is None or not _passable(y, q):
                continue
            after, gone = _count(y, q, DEPTH)
            if after >= 1 + gone:
                continue
            try:
                new = _build(editor, y, q, DEPTH)
            except Decline as e:
                editor.no(str(e))
                continue
            editor.replace([t.output], [new], must_go=[t], shape="the same elements, element by element")


def permutation(t: Node) -> Perm | None:
    """The permutation of a Transpose, or None where the rank is not known."""
    perm = t.attributes.get("perm")
    rank = None if t.inputs[0] is None else t.inputs[0].rank
    return list(perm) if perm is not None else None if rank is None else list(range(rank))[::-1]


def _behind(n: Node) -> list[Node]:
    """The Transpose itself, and those that follow behind operations that Transposes move through."""
    out, todo, steps = [n] if n.op == "Transpose" else [], [(n.output, 0)], 0
    while todo and steps < 64:
        v, depth = todo.pop()
        steps += 1
        for u in v.uses:
            if u.op == "Transpose" and not u.domain:
                out.append(u)
            elif depth < DEPTH and len(u.outputs) == 1 and u.op in _MOVES and not u.domain:
                todo.append((u.output, depth + 1))
    return out


def _passable(v: Value, q: Perm) -> bool:
    """Whether a Transpose of v may become one of each operand of its maker."""
    n = v.producer
    if n is None or n.domain or len(n.outputs) != 1 or v.rank != len(q) or not read_once(v) or n.graph is not v.graph:
        return False
    if n.op in _FIRST_ONLY:
        return all(x is None or (x.is_const and x.dims in ((), (1,))) for x in n.inputs[1:])
    if n.op == "Concat":
        return all(x is not None and x.rank == len(q) for x in n.inputs)
    if n.op not in facts.BROADCAST:
        return False
    return all(x is not None and (x.rank in (0, len(q)) or (x.is_const and x.rank is not None)) for x in n.inputs)


def _count(v: Value, q: Perm, depth: int) -> tuple[int, int]:
    """How many Transposes make Transpose(v, q) from what is there, and how many go that were there."""
    if v.is_const or v.rank == 0:
        return 0, 0
    n = v.producer
    if n is not None and n.op == "Transpose" and not n.domain and (p := permutation(n)) is not None:
        return int([p[i] for i in q] != sorted(q)), int(read_once(v))
    if n is None or not depth or not _passable(v, q):
        return 1, 0
    counts = [_count(x, q, depth - 1) for x in _moved(n)]
    return sum(a for a, _ in counts), sum(g for _, g in counts)


def _moved(n: Node) -> list[Value]:
    return [x for x in (n.inputs[:1] if n.op in _FIRST_ONLY else n.inputs) if x is not None]


def _build(editor: Editor, v: Value, q: Perm, depth: int) -> Value:
    """Transpose(v, q), its Transposes moved as far as they go.

    Raises:
        Decline: an operation cannot be written so.
    """
    if v.rank == 0:
        return v
    if v.is_const and v.tensor is not None:
        c = v.tensor.numpy()
        return form.constant(np.ascontiguousarray(c.reshape((1,) * (len(q) - c.ndim) + c.shape).transpose(q)))
    n = v.producer
    if n is not None and n.op == "Transpose" and not n.domain and (p := permutation(n)) is not None:
        both = [p[i] for i in q]
        x = n.inputs[0]
        assert x is not None
        return x if both == sorted(both) else editor.op.Transpose(x, perm=both)
    if n is None or not depth or not _passable(v, q):
        return editor.op.Transpose(v, perm=q)
    moved = [_build(editor, x, q, depth - 1) for x in _moved(n)]
    axis = {"axis": q.index(int(form.attribute(n, "axis") or 0) % len(q))} if n.op == "Concat" else {}
    return editor.stage_like(n, [*moved, *n.inputs[len(moved) :]], **axis)[0]


STEPS = (transpose_through,)
