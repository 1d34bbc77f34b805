"""What depends on constants alone, or on what the analysis knows, becomes a constant.

Folding follows the specification, not a runtime (`passes.kernels`). A result that is larger than what it was made from
stays as it is; random and training-mode operators and quantization are never folded.
"""

from __future__ import annotations

import numpy as np

from optimizer.core import facts, transfer
from optimizer.core.edit import Editor, Fidelity
from optimizer.core.form import Decline
from optimizer.core.graph import Graph, Node, Value, body_names
from optimizer.core.rule import Pass, procedure
from optimizer.core.tensor import Array, Tensor, numpy_dtype, onnx_dtype
from passes.kernels import evaluate

SMALL = 1024  # bytes: a result up to this size may be larger than its operands
WORK = 1 << 27  # elements: beyond this, folding would take longer than the model's user expects of a build step


@procedure(fidelity=Fidelity.EXACT)
def constant_value(editor: Editor, graph: Graph) -> None:
    """f(constants) → the constant it computes, once for a whole region of such nodes"""
    news = list(editor.news("fold.constant_value", graph))
    unfolded: dict[Node, list[Node]] = editor.notes("fold.constant_value", graph)
    for n in news if unfolded else ():
        for m in (n, *(v.producer for v in n.inputs if v is not None)):
            if m in unfolded:
                news += [k for k in unfolded.pop(m) if k.graph is graph]  # the loop goes on with these
    nodes = dict.fromkeys(n for n in news if _foldable(n, graph))
    for n in sorted(nodes, key=lambda n: n.pos):
        for reader in {u: None for o in n.outputs for u in o.uses if u.graph is graph}:
            if reader not in nodes and _foldable(reader, graph):
                nodes[reader] = None
    regions: dict[Node, list[Node]] = {}  # nodes joined by values between them, or by a constant that both read
    owner: dict[Value, Node] = {}
    for n in sorted(nodes, key=lambda n: n.pos):
        if not all(v is None or v.is_const or v.producer in regions for v in n.inputs):
            continue
        region = regions[n] = [n]
        for v in (*n.inputs, *n.outputs):
            if v is None or (v.is_const and v.tensor is not None and v.tensor.nbytes <= SMALL):
                continue
            other = regions[owner.setdefault(v, n)]
            if other is not region:
                small, large = sorted((region, other), key=len)
                large += small
                for m in small:
                    regions[m] = large
                region = large
    for region in {id(r): r for r in regions.values()}.values():
        left = _fold(editor, sorted(region, key=lambda n: n.pos))
        unfolded.update((n, left) for n in left)


@procedure(fidelity=Fidelity.EXACT)
def decided_if(editor: Editor, graph: Graph) -> None:
    """If(a condition that is known) → the nodes of its branch"""
    for n in editor.news("fold.decided_if", graph):
        if n.op != "If" or n.domain or n.inputs[0] is None:
            continue
        condition = transfer.known(n.inputs[0])
        if condition is None or not isinstance(taken := condition.ravel()[0], bool | int):
            continue
        name = "then_branch" if taken else "else_branch"
        body = next(b for b, attribute in zip(n.bodies, body_names(n)) if attribute == name)
        inner = editor.stage_body(body)
        made: dict[Value, Value] = {}
        for o, v in zip(n.outputs, inner):
            if o.uses or o.is_output:
                made[o] = _made(editor, o, v, v in made.values())
        if made:
            editor.replace(list(made), list(made.values()), must_go=[n], shape="the branch that is taken")


def _made(editor: Editor, o: Value, v: Value, taken: bool) -> Value:
    """What stands for an output of the If: a graph's output must be made by a node of its own."""
    if o.is_output and (taken or v.producer is None or v.graph is not None):
        return editor.op.Constant(value=v.tensor) if v.is_const else editor.op.Identity(v)
    return v


def _foldable(n: Node, graph: Graph) -> bool:
    """Whether n could be folded if all its inputs were constants; cheap, and most nodes fail at once."""
    for v in n.inputs:
        if v is not None and not v.is_const and (v.is_input or v.producer is None or v.graph is not graph):
            return False
    return bool(n.inputs) and not n.domain and n.op not in _NEVER and not n.bodies and facts.pure(n)


_NEVER = facts.QUANTIZATION | {"Constant"}


def _fold(editor: Editor, region: list[Node]) -> list[Node]:
    """Evaluate a region in order and keep what its other readers read.

    Returns:
        the nodes that could be computed and stay, for they make more bytes than they take; fewer readers change that.
    """
    made: dict[Value, Array] = {}
    done: set[Node] = set()
    given: dict[Value, int] = {}  # the constants that were read, and their bytes

    def made_or_const(v: Value) -> Array | None:
        return v.const if (x := made.get(v)) is None else x

    for n in region:
        constants = [v for v in n.inputs if v is not None and v not in made]
        if not all(v.is_const for v in constants) or _grows(n, made):
            continue
        results = evaluate(n, made_or_const)
        if results is None or len(results) != len(n.outputs):
            continue
        if all(_plausible(o, x) for o, x in zip(n.outputs, results) if o.uses or o.is_output):
            made.update(zip(n.outputs, results))
            done.add(n)
            given.update((v, v.tensor.nbytes) for v in constants if v.tensor is not None)
    kept = [v for v in made if v.is_output or not done.issuperset(v.uses)]
    if not kept:
        return []
    limit = max(SMALL * len(kept), 1.01 * sum(given.values()))
    if sum(made[v].nbytes for v in kept) <= limit and _keep(editor, kept, made):
        return []
    for v in kept:  # not all at once: what pays by itself
        own = (
            sum(x.tensor.nbytes for x in v.producer.inputs if x is not None and x.is_const and x.tensor)
            if v.producer
            else 0
        )
        if made[v].nbytes <= max(SMALL, 1.01 * own):
            _keep(editor, [v], made)
    return [n for n in region if n in done and n.graph is not None]


def _keep(editor: Editor, values: list[Value], made: dict[Value, Array]) -> bool:
    new = [editor.op.Constant(value=Tensor.of(made[v])) if v.is_output else made[v] for v in values]
    return editor.replace(values, new, shape="computed")


def _grows(n: Node, made: dict[Value, Array]) -> bool:
    """Whether a result is known to be out of proportion before it is computed."""
    d = n.output.dims
    if d is None:
        return n.op in facts.LAZY
    size = 1
    for x in d:
        size *= x if isinstance(x, int) else WORK
    if size > WORK:
        return True
    given = sum(made[v].size if v in made else v.tensor.size if v.tensor else 0 for v in n.inputs if v is not None)
    return n.op in facts.LAZY and size > max(SMALL, 2 * given)


def _plausible(o: Value, x: Array) -> bool:
    """The computed array is of the type that inference says, else the kernel is not to be trusted."""
    if o.type is not None or (o.dtype and onnx_dtype(x.dtype) != o.dtype):
        return False
    return o.dims is None or (
        len(o.dims) == x.ndim and all(not isinstance(d, int) or d == s for d, s in zip(o.dims, x.shape))
    )


@procedure(fidelity=Fidelity.EXACT)
def known_value(editor: Editor, graph: Graph) -> None:
    """an integer tensor that the analysis knows (a static Shape, what is computed of it) → that constant"""
    for n in editor.news("fold.known_value", graph):
        for o in n.outputs:
            k = o.known
            if k is None or n.domain or n.op in ("Constant", *facts.OPAQUE) or not (o.uses or o.is_output):
                continue
            if transfer.ints(o) is not None and o.dtype:
                x = k.astype(numpy_dtype(o.dtype))
                new = editor.op.Constant(value=Tensor.of(x)) if o.is_output else np.asarray(x)
                editor.replace([o], [new], shape="known to the analysis")


@procedure(fidelity=Fidelity.EXACT)
def cast_like(editor: Editor, graph: Graph) -> None:
    """CastLike(x, y) → Cast(x, to = dtype of y)"""
    for n in editor.news("fold.cast_like", graph):
        if n.op != "CastLike" or n.domain or n.inputs[1] is None or not n.inputs[1].dtype:
            continue
        x = n.inputs[0]
        try:
            y = editor.op.Cast(x, to=n.inputs[1].dtype, **{k: a for k, a in n.attributes.items() if k != "to"})
        except Decline as e:
            editor.no(str(e))
            continue
        editor.replace([n.output], [y], shape="Cast keeps the shape")


FOLD = Pass("fold", (cast_like, decided_if, constant_value, known_value))
