"""x → DequantizeLinear(QuantizeLinear(x)): a plan's nodes, as the runtime makes integer kernels of them."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from optimizer.core.edit import Editor, Fidelity
from optimizer.core.graph import Graph, Node, Value
from optimizer.core.rule import planned
from optimizer.core.tensor import Array, Tensor
from passes.quantize.kernels import RESCALES, is_constant, kernel_of
from passes.quantize.plan import Quantized, QuantPlan, Unit

CLIPS = frozenset(["Relu", "Clip"])
"""The runtime looks through these for a QuantizeLinear; finding another reader, it leaves the product before in float.

Where no integers are wanted behind one, a sum of one term keeps the two apart.
"""
_SAME = "quantization keeps shapes"


@planned("quantize", fidelity=Fidelity.LOSSY, domain="the target's runtime has an integer kernel for the node")
def apply(editor: Editor, plan: QuantPlan) -> None:
    """x → DequantizeLinear(QuantizeLinear(x)) around what runs in integers, with the plan's scales

    One edit a unit; a unit that the editor refuses stays float, and the rest holds.
    """
    editor.limit += sum(16 * len(q.scale) for q in plan.values.values())  # scales are the price, not growth by accident
    emitter = _Emitter(editor, plan)
    for unit in plan.units:
        emitter.emit(unit)


class _Emitter:
    def __init__(self, editor: Editor, plan: QuantPlan) -> None:
        self.editor, self.plan = editor, plan
        self.makers: dict[str, Node] = {n.output.name: n for n in editor.model.nodes() if n.outputs}
        self.dequantized: dict[tuple[Value, Quantized, Graph], Value] = {}  # of what was written
        self.integers: set[Value] = set()  # values that are a DequantizeLinear's

    def emit(self, unit: Unit) -> None:
        nodes = [self.makers[name] for name in unit.nodes]
        first, last = nodes[0], nodes[-1]
        graph = first.graph
        assert graph is not None
        kernel, node = kernel_of(first), first.output.name
        assert kernel is not None
        written: dict[tuple[Value, Quantized, Graph], Value] = {}

        def read(v: Value) -> Value:
            if v in self.integers:
                return v
            q = self.plan.of(v.name, node)
            key = v, q, graph
            if key not in self.dequantized and key not in written:
                written[key] = self._dequantized(v, q)
            return self.dequantized.get(key) or written[key]

        ins = list(first.inputs)
        for i in kernel.data(first):
            v = ins[i]
            assert v is not None
            ins[i] = read(v)
        if kernel.weighted and is_constant(ins[1]) and ins[1] is not None:
            ins[1] = read(ins[1])
        if 0 <= kernel.bias < len(ins) and (bias := ins[kernel.bias]) is not None:
            ins[kernel.bias] = read(bias)
        if kernel is RESCALES:
            outs = (self._reread(ins[kernel.data(first)[0]], self.plan.values[node]),)
        else:
            outs = self._copy(first, ins)
            for before, n in pairwise(nodes):
                operands = [outs[0] if v is before.output else v for v in n.inputs]
                if n.op in CLIPS and not unit.quantized:
                    operands = [self.editor.op.Sum(v) if v is outs[0] else v for v in operands]  # see CLIPS
                elif n.op == "Add":
                    operands = [read(v) if v is not None and v is not outs[0] else v for v in operands]
                outs = self.editor.stage_like(n, operands)
            if unit.quantized:
                outs = tuple(self._rounded(o, self.plan.values[v.name]) for v, o in zip(last.outputs, outs))
            elif last.op not in CLIPS and {r.op for r in last.output.uses} & CLIPS:
                outs = (self.editor.op.Sum(outs[0]),)
        if self.editor.replace(last.outputs, outs, shape=_SAME, note=unit.kernel):
            self.dequantized |= written
            if unit.quantized:
                self.integers.update(outs)

    def _copy(self, node: Node, inputs: list[Value | None]) -> tuple[Value, ...]:
        if node.op == "Sum":
            return (self.editor.op.Add(*inputs),)
        return self.editor.stage_like(node, inputs)

    def _rounded(self, v: Value, q: Quantized) -> Value:
        """DequantizeLinear(QuantizeLinear(v))."""
        scale, zero = _parameters(q)
        return self.editor.op.DequantizeLinear(self.editor.op.QuantizeLinear(v, scale, zero), scale, zero)

    def _reread(self, v: Value | None, q: Quantized) -> Value:
        """The integers behind v = DequantizeLinear(…), read with another scale."""
        assert v is not None and v.producer is not None
        return self.editor.op.DequantizeLinear(v.producer.inputs[0], *_parameters(q))

    def _dequantized(self, v: Value, q: Quantized) -> Value:
        """What stands for v: a pair behind it, or a constant of integers."""
        if not v.is_const:
            return self._rounded(self._fenced(v), q)
        scale, zero = _parameters(q)
        array = v.const
        assert array is not None
        return self.editor.op.DequantizeLinear(Tensor.of(integers(array, q)), scale, zero, axis=q.axis)

    def _fenced(self, v: Value) -> Value:
        """Σ(v) where the runtime would make integers of the product that gives v, with one scale and all 8 bits.

        It does so to every float Conv, ConvTranspose and Gemm of a constant that stands alone between a dequantized
        input and a QuantizeLinear, but for Relu and Clip (`weight_bias_quantization.cc` of 1.32).
        """
        n = v.producer
        while n is not None and n.op in CLIPS and len(n.output.uses) <= 1 and n.inputs[0] is not None:
            n = n.inputs[0].producer
        taken = n is not None and n.op in ("Conv", "ConvTranspose", "Gemm") and n.inputs[0] in self.integers
        return self.editor.op.Sum(v) if taken else v


def integers(array: Array, q: Quantized) -> Array:
    """clip(round(x/s) + z) of the dtype; halves go to the even integer, as QuantizeLinear rounds."""
    limits: Any = np.iinfo(q.dtype)
    scale = np.asarray(q.scale, np.float64)
    if q.axis is not None:
        scale = scale.reshape([-1 if i == q.axis else 1 for i in range(array.ndim)])
    with np.errstate(over="ignore"):
        return np.clip(np.rint(array / scale) + q.zero_point, limits.min, limits.max).astype(q.dtype)


def _parameters(q: Quantized) -> tuple[Tensor, Tensor]:
    """Scale and zero point as the operator takes them: scalars, or vectors along the axis."""
    shape = () if q.axis is None else (len(q.scale),)
    scale = np.asarray(q.scale, np.float32).reshape(shape)
    return Tensor.of(scale), Tensor.of(np.full(shape, q.zero_point, q.dtype))
