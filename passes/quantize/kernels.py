"""Which ops ONNX Runtime's CPU provider runs in integers when they stand between DequantizeLinear and QuantizeLinear.

Measured with 1.32, by reading the graph it ends with; every row is tested that way. Traps that the rows encode:

- Conv, Add, Mul, pools, Concat, Sigmoid are taken only if every reader of their output is one QuantizeLinear.
- MatMul and Gemm may give floats, but a QuantizeLinear *and* a float reader of one output leave them in float.
- Relu and Clip before a QuantizeLinear vanish only if its real range begins at 0 (and ends within the Clip's).
- MatMul + Add of a constant vector is first fused to a Gemm, whose bias must be int32 of scale s_x·s_w.
- ConvTranspose, Sub, Div, Max, HardSigmoid, Tanh, ReduceMean have no integer kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from optimizer.core.form import attribute, operands
from optimizer.core.graph import Node, Value


@dataclass(frozen=True, slots=True)
class Kernel:
    """How one op is taken.

    Fields:
        name: what the runtime calls the kernel.
        weighted: it multiplies operand 0 by operand 1, so that integers pay; the others keep them between such.
        gives_floats: its output may stay float.
        keeps: output and input hold the same integers, so that their scales are the same, or in proportion.
        axis: the output channels of operand 1, where that is a weight.
        bias: the operand that is added as int32, or -1.
        refuses: why a node is not taken although its op is, or "".
    """

    name: str
    weighted: bool = False
    gives_floats: bool = False
    keeps: bool = False
    axis: Callable[[Node], int] = lambda node: 0
    bias: int = -1
    refuses: Callable[[Node], str] = lambda node: ""

    def data(self, node: Node) -> list[int]:
        """The operands that are activations, or constants taken as such."""
        if self.weighted:
            return [0] if is_constant(node.inputs[1]) else [0, 1]
        if self is RESCALES:
            return [i for i, v in enumerate(node.inputs) if not is_constant(v)]
        return [0] if self.keeps else [i for i, v in enumerate(node.inputs) if v is not None]


def is_constant(v: Value | None) -> bool:
    return v is not None and v.is_const


def _refuses_conv(node: Node) -> str:
    return "" if is_constant(node.inputs[1]) else "its weight is computed"


def _refuses_gemm(node: Node) -> str:
    if not is_constant(node.inputs[1]):
        return "its weight is computed"
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is not None and (not is_constant(bias) or bias.rank != 1 or attribute(node, "beta") != 1):
        return "its bias is not a constant vector added once"
    return ""


def _refuses_matmul(node: Node) -> str:
    a, b = node.inputs[0], node.inputs[1]
    if is_constant(b) and b is not None and b.rank != 2:
        return "its weight is not a matrix"
    return "two constants" if is_constant(a) and is_constant(b) else ""


def _refuses_resize(node: Node) -> str:
    return "" if attribute(node, "mode") in ("nearest", b"nearest") else "it interpolates"


def _refuses_flat_pool(node: Node) -> str:
    x = node.inputs[0]
    return "" if x is not None and x.rank in (None, 3, 4) else "not a one- or two-dimensional pool"


def _refuses_moving(node: Node) -> str:
    if len(node.outputs) > 1 and node.op != "Split":
        return "its indices are read"
    return "" if not is_constant(node.inputs[0]) else "it reads a constant"


_PASSES = Kernel("on integers", keeps=True, refuses=_refuses_moving)
RESCALES = Kernel("no kernel", keeps=True)
"""c·x, c > 0: the integers stay as they are, and are read with the scale c·s."""

KERNELS: dict[str, Kernel] = {
    "Conv": Kernel("QLinearConv", weighted=True, bias=2, refuses=_refuses_conv),
    "MatMul": Kernel("QLinearMatMul", weighted=True, gives_floats=True, axis=lambda node: 1, refuses=_refuses_matmul),
    "Gemm": Kernel(
        "QGemm",
        weighted=True,
        gives_floats=True,
        axis=lambda node: 0 if attribute(node, "transB") else 1,
        bias=2,
        refuses=_refuses_gemm,
    ),
    "Add": Kernel("QLinearAdd"),
    "Sum": Kernel("QLinearAdd", refuses=lambda node: "" if len(node.inputs) == 2 else "it adds more than two"),
    "Mul": Kernel("QLinearMul"),
    "Concat": Kernel("QLinearConcat"),
    "Sigmoid": Kernel("QLinearSigmoid"),
    "LeakyRelu": Kernel("QLinearLeakyRelu"),
    "AveragePool": Kernel("QLinearAveragePool", refuses=_refuses_flat_pool),
    "GlobalAveragePool": Kernel("QLinearGlobalAveragePool", refuses=_refuses_flat_pool),
    **dict.fromkeys(("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "MaxPool"), _PASSES),
    **dict.fromkeys(("Slice", "Gather", "Expand", "Tile", "Split"), _PASSES),
    "Resize": Kernel("on integers", keeps=True, refuses=_refuses_resize),
}


def kernel_of(node: Node) -> Kernel | None:
    """How the runtime takes this node, or None."""
    if node.domain:
        return None
    return RESCALES if factor(node) else KERNELS.get(node.op)


def factor(node: Node) -> float | None:
    """c where the node is c·x for a positive constant c, else None."""
    if node.op not in ("Mul", "Div") or node.domain:
        return None
    a, b = node.inputs
    x, c = (b, a) if is_constant(a) and node.op == "Mul" else (a, b)
    if c is None or x is None or x.is_const or c.tensor is None or c.tensor.size != 1 or c.is_input:
        return None
    if c.rank and (x.rank is None or c.rank > x.rank):
        return None  # it would add dims
    number = float(c.tensor.numpy().reshape(()))
    if not 0 < number < float("inf"):
        return None
    return number if node.op == "Mul" else 1 / number


def clip_bounds(node: Node) -> tuple[float, float] | None:
    """The real numbers that a Relu or Clip lets through if it lets none below 0 through; None otherwise."""
    if node.op == "Relu":
        return 0.0, float("inf")
    if node.op != "Clip":
        return None
    bounds = [float("-inf"), float("inf")]
    for i, v in enumerate(operands(node)[1:3]):
        if v is not None:
            c = v.const
            if c is None:
                return None
            bounds[i] = float(c)
    return (0.0, bounds[1]) if bounds[0] == 0 and bounds[1] > 0 else None
