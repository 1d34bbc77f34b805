"""One sparse analysis over (dtype, dims, known values): the first call walks every node, later ones what edits touched.

Facts live on the values themselves and only get better. Declared types of inner values are a last resort, and never
their names: a file's value_info may be stale, a computed fact is not.
"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from typing import Any

import numpy as np
from onnx import TypeProto

from optimizer.core import facts, transfer
from optimizer.core.dims import Dim
from optimizer.core.graph import Graph, Model, Node, Value, anchor, body_names

INT64, BOOL = 7, 9


def propagate(model: Model, touched: list[Node] | None = None, since: int | None = None) -> None:
    """Infer all nodes, or (with `since`) those touched since then and whatever depends on what got better.

    Nodes whose facts got better are appended to `touched`: a rule may have waited for them.
    """
    if touched is None or since is None:
        _walk(model.graph, None)
        return
    todo = deque(dict.fromkeys(touched[since:]))
    waiting = set(todo)
    while todo:
        n = todo.popleft()
        waiting.discard(n)
        if n.graph is None:
            continue
        better: list[Node] = []
        _infer(n, better)
        for m in better:
            touched.append(m)
            for r in (r for v in m.outputs for r in v.uses):
                touched.append(r)
                if r not in waiting:
                    waiting.add(r)
                    todo.append(r)


def _walk(g: Graph, better: list[Node] | None) -> None:
    for n in g:
        _infer(n, better)


def _infer(n: Node, better: list[Node] | None) -> None:
    """Infer a node and what lies in its bodies; those whose outputs are known better are added to `better`."""
    before = [(v.dtype, v.dims, v.known) for v in n.outputs] if better is not None else []
    if n.bodies:
        _enter(n)
        for b in n.bodies:
            _walk(b, better)
        _leave(n)
    else:
        transfer.infer(n, n.graph.model.opsets if n.graph is not None else {}, staged=False)
    g = n.graph
    if g is not None:
        for v in n.outputs:
            if (v.dims is None or not v.dtype) and v.type is None and (i := g.infos.get(v.name)) is not None:
                declared(v, i.type)
    if better is not None and any(
        v.dtype != dtype or v.dims != dims or v.known is not known for v, (dtype, dims, known) in zip(n.outputs, before)
    ):
        better.append(n)


def declared(v: Value, t: TypeProto) -> None:
    """Take over dtype, rank and integer dims of a declared type where nothing better is known."""
    if not t.HasField("tensor_type"):
        v.type = t if t.ByteSize() else None
        return
    tt = t.tensor_type
    v.dtype = v.dtype or tt.elem_type
    if v.dims is None and tt.HasField("shape"):
        transfer.improve(v, [_integer(d) for d in tt.shape.dim])


def _integer(d: Any) -> Dim | None:
    return d.dim_value if d.HasField("dim_value") and d.dim_value >= 0 else None


def _enter(n: Node) -> None:
    """Types of a body's inputs from what its owner hands in."""
    if n.domain or n.op not in ("Loop", "Scan"):
        return
    body = n.bodies[0]
    if n.op == "Loop":
        if len(body.inputs) >= 2:
            for v, dtype in zip(body.inputs, (INT64, BOOL)):
                v.dtype = v.dtype or dtype
                v.dims = v.dims if v.dims is not None else ()
        for v, x in zip(body.inputs[2:], n.inputs[2:]):
            if x is not None and v.type is None:
                v.dtype = v.dtype or x.dtype
                v.type = x.type
        return
    scans = int(n.attributes.get("num_scan_inputs", 0))
    states = len(body.inputs) - scans
    given = n.inputs[-len(body.inputs) :] if body.inputs else []
    axes = n.attributes.get("scan_input_axes") or [0] * scans
    for i, (v, x) in enumerate(zip(body.inputs, given)):
        if x is None:
            continue
        v.dtype = v.dtype or x.dtype
        if i >= states and v.dims is None and x.dims is not None and n.graph is not None and n.graph.opset >= 9:
            a = axes[i - states] % len(x.dims)
            v.dims = (*x.dims[:a], *x.dims[a + 1 :])


def _leave(n: Node) -> None:
    """Types of an owner's outputs from its bodies'."""
    if n.domain:
        return
    if n.op == "If":
        for i, v in enumerate(n.outputs):
            ends = [b.outputs[i] for b in n.bodies if i < len(b.outputs)]
            if len(ends) != 2 or any(e.type is not None for e in ends):
                v.type = v.type or next((e.type for e in ends if e.type is not None), None)
                continue
            a, b = ends
            v.dtype = v.dtype or (a.dtype if a.dtype == b.dtype else 0)
            if a.dims is not None and b.dims is not None and len(a.dims) == len(b.dims):
                transfer.improve(v, [d if d == e else None for d, e in zip(a.dims, b.dims)])
    elif n.op == "Loop":
        carried = len(n.inputs) - 2
        for i, (v, e) in enumerate(zip(n.outputs, n.bodies[0].outputs[1:])):
            if e.type is not None:
                v.type = v.type or e.type
            else:
                v.dtype = v.dtype or e.dtype
                if i >= carried and e.dims is not None:
                    transfer.improve(v, [None, *(d if isinstance(d, int) else None for d in e.dims)])
    elif n.op == "Scan":
        for v, e in zip(n.outputs, n.bodies[0].outputs):
            v.dtype = v.dtype or e.dtype


# ── supposing ─────────────────────────────────────────────────────────────────────────────────────────────────────────

SUPPOSED = 256  # nodes followed from one supposition


def impossible(n: Node, taken: bool) -> bool:
    """Whether no run that takes this branch of the If `n` comes to an end, for what follows wants another rank.

    Followed are the readers of the If and of its condition in its own graph, and branches that are decided with it;
    the facts are as before afterwards.
    """
    was: dict[Value, tuple[Any, ...]] = {}
    try:
        return _Supposition(n, taken, was).fails()
    finally:
        for v, known in was.items():
            v.dtype, v.dims, v.known, v.type = known


class _Supposition:
    """What would be known of the values behind an If if it took one of its branches."""

    def __init__(self, n: Node, taken: bool, was: dict[Value, tuple[Any, ...]]) -> None:
        self.node, self.taken, self.was = n, taken, was
        self.todo: list[tuple[int, int, Node]] = []
        self.waiting: set[Node] = set()

    def fails(self) -> bool:
        n, condition = self.node, self.node.inputs[0]
        if condition is not None and condition.dims is not None and all(d == 1 for d in condition.dims):
            self._keep(condition)
            condition.known = np.full([1] * len(condition.dims), self.taken, object)
            self._follow(condition)
        if not self._take(n, self.taken):
            return True
        for _ in range(SUPPOSED):
            if not self.todo:
                break
            m = heappop(self.todo)[2]
            if m is not n and not self._possible(m):
                return True
        return False

    def _keep(self, v: Value) -> None:
        self.was.setdefault(v, (v.dtype, v.dims, v.known, v.type))

    def _follow(self, v: Value) -> None:
        assert self.node.graph is not None
        for u in v.uses:
            m = anchor(u, self.node.graph)
            if m is not None and m not in self.waiting:
                self.waiting.add(m)
                heappush(self.todo, (m.pos, len(self.waiting), m))

    def _possible(self, m: Node) -> bool:
        """Whether m can run; what is known of its outputs then."""
        if m.bodies:
            condition = transfer.known(m.inputs[0]) if m.op == "If" and not m.domain else None
            taken = condition.ravel()[0] if condition is not None and condition.size == 1 else None
            return not isinstance(taken, bool | int) or self._take(m, bool(taken))
        if not facts.ranks_fit(m):
            return False
        before = [(v.dims, v.known) for v in m.outputs]
        for v in m.outputs:
            self._keep(v)
        transfer.infer(m, self.node.graph.model.opsets if self.node.graph is not None else {}, staged=False)
        for v, facts_before in zip(m.outputs, before):
            if (v.dims, v.known) != facts_before:
                self._follow(v)
        return True

    def _take(self, n: Node, taken: bool) -> bool:
        """Whether the branch can run; the outputs of the If are known as the branch's own."""
        name = "then_branch" if taken else "else_branch"
        body = next(b for b, attribute in zip(n.bodies, body_names(n)) if attribute == name)
        if not all(map(self._possible, body)):
            return False
        for v, made in zip(n.outputs, body.outputs):
            self._keep(v)
            v.dtype, v.dims, v.known, v.type = made.dtype, made.dims, made.known, made.type
            self._follow(v)
        return True
