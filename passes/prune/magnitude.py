"""w → w where |w| ≥ t, else 0: the smallest weights of Conv, ConvTranspose, Gemm and MatMul become zero."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from optimizer.core.edit import Edit, Editor, Fidelity
from optimizer.core.errors import BadInput
from optimizer.core.graph import Model, Node, Value
from optimizer.core.rule import planned
from optimizer.core.tensor import Array, Tensor, numpy_dtype
from passes.prune.order import blocks, smallest, width
from passes.select import named_by, origins

Scope = Literal["tensor", "global"]

WEIGHTS = {"Conv": (1,), "ConvTranspose": (1,), "Gemm": (0, 1), "MatMul": (0, 1)}
"""op → the operands that are weights where they are constant."""
_REARRANGES = frozenset(["Identity", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten"])  # zeros stay zeros
_FLOATS = frozenset([1, 10, 11, 16])  # float32, float16, float64, bfloat16


@dataclass(frozen=True, slots=True)
class Pruned:
    """What becomes of one weight.

    Fields:
        value: the initializer's name.
        threshold: elements of smaller magnitude become zero.
        ties: so many of those that equal the threshold do as well, the first ones in memory order.
        size, kept: elements, and those that are not zero afterwards.
        why: what decided.
    """

    value: str
    threshold: float
    ties: int
    size: int
    kept: int
    why: str


@dataclass(frozen=True, slots=True)
class PrunePlan:
    """Weight by weight, in the model's order; `left` says of other weights why they stay."""

    weights: tuple[Pruned, ...]
    left: Mapping[str, str]

    @property
    def sparsity(self) -> float:
        """The share of zeros in the pruned weights."""
        return 1 - sum(w.kept for w in self.weights) / max(sum(w.size for w in self.weights), 1)

    def to_dict(self) -> dict[str, Any]:
        """The receipt's "plan": value → {kept, size, threshold, why}."""
        pruned = {
            w.value: {"kept": w.kept, "size": w.size, "threshold": w.threshold, "why": w.why} for w in self.weights
        }
        return {**pruned, **{name: {"kept": None, "why": why} for name, why in self.left.items()}}


def plan(
    model: Model,
    *,
    threshold: float | None = None,
    sparsity: float | None = None,
    scope: Scope = "tensor",
    ignore: Sequence[str] = (),
    log: Sequence[Edit] = (),
) -> PrunePlan:
    """Decide which weights become zero; nothing is changed.

    A weight is a constant floating operand of a product, also behind ops that only rearrange it; one that several nodes
    share is pruned once, for all of them, and left alone if one of them is ignored. An initializer that may be
    overridden is no constant, and a quantized weight keeps its integers.

    Args:
        threshold: |w| < threshold → 0.
        sparsity: exactly round(sparsity · n) of n weights are zero afterwards (more only where more were before).
        scope: whether n counts each tensor, or all of them together.
        ignore: globs of node names.
        log: the edits so far, so that names of nodes that were replaced still count.

    Raises:
        BadInput: not exactly one of threshold and sparsity, one out of range, a glob that matches nothing.
    """
    if (threshold is None) == (sparsity is None):
        raise BadInput("pruning needs either a threshold or a sparsity", fix="--threshold T or --sparsity R")
    if sparsity is not None and not 0 < sparsity < 1:
        raise BadInput(f"the sparsity is {sparsity:g}, which is no share", fix="--sparsity R with 0 < R < 1")
    if threshold is not None and not (threshold > 0 and math.isfinite(threshold)):
        raise BadInput(f"the threshold is {threshold:g}", fix="--threshold T with T > 0")
    if scope not in ("tensor", "global"):
        raise BadInput(f"unknown scope {scope!r}", fix="--scope tensor or --scope global")
    readers = _readers(model)
    nodes = {n: None for ns in readers.values() for n in ns}
    ignored = named_by(ignore, nodes, origins(log))
    left: dict[str, str] = {}
    tensors: dict[str, Tensor] = {}
    for v, ns in readers.items():
        if v.is_input:
            left[v.name] = "an input may override it"
        elif v.dtype not in _FLOATS:
            left[v.name] = "not floating point"
        elif any(n in ignored for n in ns):
            left[v.name] = "ignored"
        elif v.tensor is not None and v.tensor.size:
            tensors[v.name] = v.tensor
    if threshold is not None:
        pruned = [_pruned(name, t, threshold, 0, "threshold") for name, t in tensors.items()]
    elif scope == "tensor":
        pruned = [p for name, t in tensors.items() for p in _share({name: t}, sparsity or 0, "the smallest of its own")]
    else:
        pruned = list(_share(tensors, sparsity or 0, "the smallest of all weights"))
    return PrunePlan(tuple(pruned), left)


@planned("prune", fidelity=Fidelity.LOSSY, domain="w is a constant operand of Conv, ConvTranspose, Gemm or MatMul")
def apply(editor: Editor, plan: PrunePlan) -> None:
    """w → w where |w| ≥ t, else 0, for all readers of the weight; t as the plan says"""
    names = {v.name: v for g in editor.model.graphs() for v in g.constants()}
    for w in plan.weights:
        v = names[w.value]
        if v.tensor is not None and w.kept < _nonzero(v.tensor):
            editor.replace([v], [_masked(v.tensor, w)], note=f"{w.kept} of {w.size} kept: {w.why}")


def _readers(model: Model) -> dict[Value, list[Node]]:
    """Each weight with the nodes that multiply by it, in order of the first."""
    found: dict[Value, list[Node]] = {}
    for n in model.nodes():
        for slot in WEIGHTS.get(n.op, ()) if not n.domain else ():
            v = n.inputs[slot] if slot < len(n.inputs) else None
            while v is not None and v.producer is not None and v.producer.op in _REARRANGES and not v.producer.domain:
                v = v.producer.inputs[0]
            if v is not None and v.tensor is not None:
                found.setdefault(v, []).append(n)
    return found


def _share(tensors: Mapping[str, Tensor], sparsity: float, why: str) -> Iterator[Pruned]:
    """Zero exactly round(sparsity · n) of the n elements of all these tensors; ties go in memory order."""
    k = round(sparsity * sum(t.size for t in tensors.values()))
    if not k:
        yield from (_pruned(name, t, 0.0, 0, why) for name, t in tensors.items())
        return
    dtype = width(tensors.values())

    def magnitudes() -> Iterator[Array]:
        return (np.abs(w.astype(dtype)) for t in tensors.values() for _, w in blocks(t))

    threshold, ties = smallest(k, magnitudes, dtype)
    for name, t in tensors.items():
        equal = sum(int(np.count_nonzero(np.abs(w.astype(dtype)) == threshold)) for _, w in blocks(t)) if ties else 0
        yield _pruned(name, t, threshold, min(ties, equal), why)
        ties -= min(ties, equal)


def _pruned(name: str, tensor: Tensor, threshold: float, ties: int, why: str) -> Pruned:
    large = sum(int(np.count_nonzero(~(np.abs(_wide(w)) < threshold) & (w != 0))) for _, w in blocks(tensor))
    return Pruned(name, threshold, ties, tensor.size, large - (ties if threshold else 0), why)


def _masked(tensor: Tensor, w: Pruned) -> Tensor:
    out = np.empty(tensor.size, numpy_dtype(tensor.dtype))
    ties = w.ties
    for at, block in blocks(tensor):
        magnitude = np.abs(_wide(block))
        gone = magnitude < w.threshold
        if ties:
            equal = np.flatnonzero(magnitude == w.threshold)[:ties]
            gone[equal] = True
            ties -= equal.size
        out[at] = np.where(gone, np.zeros((), out.dtype), block)
    return Tensor.of(out.reshape(tensor.shape))


def _nonzero(tensor: Tensor) -> int:
    return sum(int(np.count_nonzero(w)) for _, w in blocks(tensor))


def _wide(w: Array) -> Array:
    """The same numbers in a type that compares with a Python float as they are: at least float32, and exactly."""
    return w.astype(np.float64)
