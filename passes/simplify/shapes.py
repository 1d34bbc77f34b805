"""Shape arithmetic read off the analysis: a computed target becomes the canonical constant one, or the node goes.

With symbolic dims, 0 copies a dim and −1 stands for one that is left over. −1 is written only where it is sound for
sizes of zero as well: where every other entry is never zero, or where the source itself wrote −1 there. Reshape takes
a computed 0 for a copy of the dim at its place, so that the analysis knows a size only where the two cannot differ.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from optimizer.core import dims as D
from optimizer.core import facts, form, transfer
from optimizer.core.dims import Dim, Dims
from optimizer.core.edit import Editor, Fidelity
from optimizer.core.form import Decline
from optimizer.core.graph import Attribute, Graph, Node, Value
from optimizer.core.pattern import read_once
from optimizer.core.rule import procedure

INT64 = 7


@procedure(fidelity=Fidelity.EXACT)
def reshape_target(editor: Editor, graph: Graph) -> None:
    """Reshape(x, computed shape) → Reshape(x, [0 | d | −1, …]), or x where it has that shape already"""
    for n in editor.news("shapes.reshape_target", graph, ("Reshape",)):
        if len(n.inputs) < 2:
            continue
        x, target = n.inputs
        y = n.output
        if x is None or target is None or x.dims is None or y.dims is None:
            continue
        if x.dims == y.dims:
            editor.replace([y], [x], shape="reshaped to its own shape")
            continue
        if target.is_const:
            continue
        entries = canonical(x.dims, y.dims, transfer.known(target))
        if entries is not None:
            respell(editor, y, "Reshape", x, entries)


def canonical(x: Dims, y: Dims, asked: np.ndarray | None = None) -> list[int] | None:
    """Entries of a Reshape target that give shape y from shape x for every binding, or None."""
    out: list[int] = []
    for i, d in enumerate(y):
        if i < len(x) and x[i] == d:
            out.append(d if isinstance(d, int) and d > 0 else 0)
        elif isinstance(d, int) and d > 0:
            out.append(d)
        else:
            out.append(-1)
    holes = [i for i, d in enumerate(out) if d == -1]
    if len(holes) > 1:
        return None
    if holes:
        at = holes[0]
        if any(isinstance(d, int) and d == 0 for d in y):
            return None
        wrote_it = asked is not None and len(asked) == len(y) and asked[at] == -1
        if not wrote_it and not all(D.never_zero(d) for i, d in enumerate(y) if i != at):
            return None
    return out


@procedure(fidelity=Fidelity.EXACT)
def expand_target(editor: Editor, graph: Graph) -> None:
    """Expand(x, computed shape) → Expand(x, [1 | d, …]), or x where nothing is expanded"""
    for n in editor.news("shapes.expand_target", graph, ("Expand",)):
        if len(n.inputs) < 2:
            continue
        x, target = n.inputs
        y = n.output
        if x is None or target is None or x.dims is None or y.dims is None:
            continue
        if x.dims == y.dims:
            editor.replace([y], [x], shape="expanded to its own shape")
            continue
        if target.is_const or len(x.dims) > len(y.dims):
            continue
        entries: list[int] = []
        inner: list[Dim] = [1] * (len(y.dims) - len(x.dims)) + list(x.dims)
        for a, b in zip(inner, y.dims):
            if a == b:
                entries.append(1)
            elif isinstance(b, int):
                entries.append(b)
            else:
                break
        else:
            respell(editor, y, "Expand", x, entries)


def respelled(
    editor: Editor, n: Node, inputs: Sequence[Value | None], gone: Sequence[Node], shape: str, **attributes: Attribute
) -> bool:
    """Let n's readers read a copy of n with other inputs or attributes, for which `gone` go; False: nothing changed."""
    try:
        made = editor.stage_like(n, inputs, **attributes)
    except Decline as e:
        return editor.no(str(e))
    return editor.replace(n.outputs, made, must_go=gone, shape=shape)


def respell(editor: Editor, y: Value, op: str, x: Value, entries: list[int]) -> None:
    """Let y's readers read a Reshape or Expand of x to constant entries."""
    try:
        new = getattr(editor.op, op)(x, np.asarray(entries, np.int64))
    except Decline as e:
        editor.no(str(e))
        return
    editor.replace([y], [new], shape="the same target, written as a constant")


@procedure(fidelity=Fidelity.EXACT)
def shape_of(editor: Editor, graph: Graph) -> None:
    """dims i … j of x, gathered one by one → Shape(x, start=i, end=j); before opset 15, one Gather of Shape(x)"""
    for n in editor.news("shapes.shape_of", graph, _CARRIES):
        y = n.output if n.outputs else None
        if y is None or y.known is None or y.known.ndim != 1 or y.dtype != INT64:
            continue
        want = tuple(y.known)
        if any(d is None for d in want) or all(isinstance(d, int) for d in want):
            continue
        for shape in _shapes_above(y):
            x = shape.inputs[0]
            if x is None or x.dims is None or (at := _run(want, x.dims)) is None:
                continue
            if (
                at == 0
                and len(want) == len(x.dims)
                and shape.output.known is not None
                and len(shape.output.known) == len(want)
            ):
                editor.replace([y], [shape.output], shape="the same dims")
            elif graph.opset >= 15:
                editor.replace([y], [editor.op.Shape(x, start=at, end=at + len(want))], shape="the same dims")
            elif n.op == "Unsqueeze" and len(want) == 1 and not shape.attributes:
                one = editor.op.Gather(shape.output, np.asarray([at], np.int64), axis=0)
                editor.replace([y], [one], shape="the same dim")
            break


_CARRIES = frozenset(("Unsqueeze", "Gather", "Slice", "Concat", "Squeeze", "Cast", "Reshape"))


def _shapes_above(y: Value) -> list[Node]:
    """Shape nodes that y is computed of by selecting and joining alone."""
    out: dict[Node, None] = {}
    todo, seen = [y], set[Value]()
    while todo and len(seen) < 32:
        v = todo.pop()
        n = v.producer
        if v in seen or n is None or n.domain:
            continue
        seen.add(v)
        if n.op == "Shape":
            out[n] = None
        elif n.op in _CARRIES:
            todo += [x for x in n.inputs if x is not None]
    return list(out)


def _run(want: tuple[Dim, ...], dims: Dims) -> int | None:
    """Where `want` stands in `dims`, or None."""
    for i in range(len(dims) - len(want) + 1):
        if dims[i : i + len(want)] == want:
            return i
    return None


@procedure(fidelity=Fidelity.EXACT)
def no_op_slice(editor: Editor, graph: Graph) -> None:
    """Slice(x, all of it) → x"""
    for n in editor.news("shapes.no_op_slice", graph, ("Slice",)):
        ins = form.operands(n)
        x, y = ins[0], n.output
        steps = transfer.ints(ins[4]) if len(ins) > 4 and ins[4] is not None else []
        if (
            x is not None
            and x.dims is not None
            and x.dims == y.dims
            and steps is not None
            and all(s == 1 for s in steps)
        ):
            editor.replace([y], [x], shape="all of it")


@procedure(fidelity=Fidelity.EXACT)
def expanded_operand(editor: Editor, graph: Graph) -> None:
    """Expand(x) + y → x + y, and so for every operation that broadcasts, where y is as large by itself"""
    touched = editor.news("shapes.expanded_operand", graph, _EXPANDS)
    for n in (u for t in touched for u in (list(t.output.uses) if t.op == "Expand" else (t,))):
        if n.op not in facts.BROADCAST or n.domain or n.graph is not graph or (dims := n.output.dims) is None:
            continue
        for i, v in enumerate(n.inputs):
            e = v.producer if v is not None else None
            if e is None or e.op != "Expand" or e.domain or (x := e.inputs[0]) is None:
                continue
            given = [x if k == i else w for k, w in enumerate(n.inputs)]
            made = transfer.broadcast([None if w is None else w.dims for w in given])
            if made is not None and tuple(made) == dims:
                respelled(editor, n, given, [n], "the other operand says it")
                break


_EXPANDS = facts.BROADCAST | {"Expand"}


@procedure(fidelity=Fidelity.EXACT)
def slice_twice(editor: Editor, graph: Graph) -> None:
    """Slice(Slice(x, along some axes), along others) → one Slice"""
    for n in editor.news("shapes.slice_twice", graph, ("Slice",)):
        m = n.inputs[0].producer if n.inputs[0] is not None else None
        if m is None or m.op != "Slice" or m.domain or m.graph is not graph or not read_once(m.output):
            continue
        x, first, last = m.inputs[0], _cuts(m), _cuts(n)
        if x is None or first is None or last is None or {a for a, *_ in first} & {a for a, *_ in last}:
            continue
        axes, starts, ends, steps = (np.asarray(k, np.int64) for k in zip(*first, *last))
        try:
            new = editor.op.Slice(x, starts, ends, axes, *([steps] if (steps != 1).any() else []))
        except Decline as e:
            editor.no(str(e))
            continue
        editor.replace([n.output], [new], must_go=[n, m], shape="the same part")


def _cuts(n: Node) -> list[tuple[int, int, int, int]] | None:
    """(axis, start, end, step) of a Slice with constant bounds."""
    ins = form.operands(n)
    lists = [None if v is None else transfer.ints(v) for v in ins[1:5]]
    if ins[0] is None or ins[0].rank is None or any(k is None and v is not None for k, v in zip(lists, ins[1:5])):
        return None
    starts, ends, axes, steps = [*lists, *[None] * (4 - len(lists))]
    if starts is None or ends is None:
        return None
    axes = list(range(len(starts))) if axes is None else [a % ins[0].rank for a in axes]
    return list(zip(axes, starts, ends, steps or [1] * len(axes)))


@procedure(fidelity=Fidelity.EXACT)
def concat_twice(editor: Editor, graph: Graph) -> None:
    """Concat(Concat(x, y), z) → Concat(x, y, z), along one axis"""
    for n in editor.news("shapes.concat_twice", graph, ("Concat",)):
        for c in (n, *n.output.uses):
            if c.op != "Concat" or c.domain or c.graph is not graph or (axis := _axis(c)) is None:
                continue
            given: list[Value | None] = []
            gone: list[Node] = []
            for v in c.inputs:
                m = v.producer if v is not None and read_once(v) else None
                if m is not None and m.op == "Concat" and not m.domain and m.graph is graph and _axis(m) == axis:
                    given += m.inputs
                    gone.append(m)
                else:
                    given.append(v)
            if gone:
                respelled(editor, c, given, [c, *gone], "joined at once")


def _axis(n: Node) -> int | None:
    """The axis of a Concat, counted from the front."""
    rank, axis = n.output.rank, form.attribute(n, "axis")
    return None if rank is None or not isinstance(axis, int) else axis % rank


@procedure(fidelity=Fidelity.EXACT)
def scatter_all(editor: Editor, graph: Graph) -> None:
    """ScatterND(x, every row in order, u) → u"""
    for n in editor.news("shapes.scatter_all", graph, ("ScatterND",)):
        if form.attribute(n, "reduction") not in (None, "none"):
            continue
        x, rows, u = n.inputs
        if x is None or rows is None or u is None or not x.dims or x.dims != u.dims:
            continue
        if rows.dims == (x.dims[0], 1) and _counts_to(rows, x.dims[0]):
            editor.replace([n.output], [u], shape="the shape of what is written over")


def _counts_to(rows: Value, size: Dim) -> bool:
    """Whether the elements are 0, 1, … up to `size`, which is how many there are."""
    if isinstance(size, int) and (c := transfer.ints(rows)) is not None:
        return c == list(range(size))
    n = rows.producer
    while n is not None and n.op in _RENAMES and not n.domain and n.inputs[0] is not None:
        n = n.inputs[0].producer
    if n is None or n.op != "Range" or n.domain:
        return False
    start, limit, delta = (k.ravel()[0] if (k := transfer.known(v)) is not None else None for v in n.inputs)
    return start == 0 and delta == 1 and limit == size


_RENAMES = frozenset(("Reshape", "Unsqueeze", "Squeeze", "Flatten"))


STEPS = (
    reshape_target, expand_target, expanded_operand, no_op_slice, slice_twice, concat_twice, scatter_all, shape_of,
)  # fmt: skip
