"""What depends on constants alone, or on what the analysis knows, becomes a constant.

Folding follows the specification, not a runtime (`passes.kernels`). A result that is larger than what it was made from
stays as it is; random and training-mode operators and quantization are never folded.
"""

from __future__ import annotations

import numpy as np

from optimizer.core import facts, transfer
from optimizer.core.edit import Editor, Fidelity
from optimizer.core.graph import Graph, Node, Value
from optimizer.core.rule import Pass, procedure
from optimizer.core.tensor import Array, Tensor, numpy_dtype, onnx_dtype
from passes.kernels import evaluate, operand_arrays

SMALL = 1024  # bytes: a result up to this size may be larger than its operands
WORK = 1 << 27  # elements: beyond this, folding would take longer than the model's user expects of a build step


@procedure(fidelity=Fidelity.EXACT)
def constant_value(editor: Editor, graph: Graph) -> None:
    """f(constants) → the constant it computes"""
    for n in editor.news("fold.constant_value", graph):
        if n.domain or not n.inputs or n.bodies or not _constant_inputs(n):
            continue
        if not facts.pure(n) or n.op in facts.QUANTIZATION or n.op == "Constant":
            continue
        if sum(v.tensor.size for v in n.inputs if v is not None and v.tensor is not None) > WORK or _grows(n):
            continue
        results = evaluate(n, operand_arrays(n))
        if results is None or len(results) != len(n.outputs):
            continue
        old: list[Value] = []
        new: list[Array | Value] = []
        for o, x in zip(n.outputs, results):
            if not o.uses and not o.is_output:
                continue
            if not _plausible(o, x) or _too_large(n, x):
                break
            old.append(o)
            new.append(editor.op.Constant(value=Tensor.of(x)) if o.is_output else x)
        else:
            if old:
                editor.replace(old, new, shape="computed")


def _constant_inputs(n: Node) -> bool:
    return all(v is None or (v.tensor is not None and not v.is_input) for v in n.inputs)


def _grows(n: Node) -> bool:
    """Whether the result is known to be too large before it is computed."""
    d = n.output.dims
    if n.op not in facts.LAZY or d is None:
        return False
    size = 1
    for x in d:
        size *= x if isinstance(x, int) else WORK
    return size > max(SMALL, 2 * sum(v.tensor.size for v in n.inputs if v is not None and v.tensor is not None))


def _too_large(n: Node, x: Array) -> bool:
    given = sum(v.tensor.nbytes for v in n.inputs if v is not None and v.tensor is not None)
    return x.nbytes > SMALL and x.nbytes > 1.01 * given


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


FOLD = Pass("fold", (constant_value, known_value))
