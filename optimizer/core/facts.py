"""What an op is: one row of facts an operator of ai.onnx; an operator without a row is opaque and impure.

Source: the operators' definitions in onnx.defs; every row is tested against them.
"""

from __future__ import annotations

from optimizer.core.graph import Node

UNARY = frozenset(
    [
        "Abs",
        "Acos",
        "Acosh",
        "Asin",
        "Asinh",
        "Atan",
        "Atanh",
        "BitwiseNot",
        "Cast",
        "CastLike",
        "Ceil",
        "Celu",
        "Clip",
        "Cos",
        "Cosh",
        "Elu",
        "Erf",
        "Exp",
        "Floor",
        "Gelu",
        "HardSigmoid",
        "HardSwish",
        "Identity",
        "IsInf",
        "IsNaN",
        "LeakyRelu",
        "Log",
        "Mish",
        "Neg",
        "Not",
        "PRelu",
        "Reciprocal",
        "Relu",
        "Round",
        "Selu",
        "Shrink",
        "Sigmoid",
        "Sign",
        "Sin",
        "Sinh",
        "Softplus",
        "Softsign",
        "Sqrt",
        "Swish",
        "Tan",
        "Tanh",
        "ThresholdedRelu",
    ]
)
BROADCAST = frozenset(
    [
        "Add",
        "And",
        "BitShift",
        "BitwiseAnd",
        "BitwiseOr",
        "BitwiseXor",
        "Div",
        "Equal",
        "Greater",
        "GreaterOrEqual",
        "Less",
        "LessOrEqual",
        "Max",
        "Mean",
        "Min",
        "Mod",
        "Mul",
        "Or",
        "Pow",
        "Sub",
        "Sum",
        "Where",
        "Xor",
    ]
)
COMMUTATIVE = frozenset(
    ["Add", "Mul", "And", "Or", "Xor", "Max", "Min", "Equal", "Sum", "Mean", "BitwiseAnd", "BitwiseOr", "BitwiseXor"]
)
PREDICATE = frozenset(
    ["Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "And", "Or", "Xor", "Not", "IsNaN", "IsInf"]
)
# draws numbers: two equal-looking nodes differ
RANDOM = frozenset(
    ["Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"]
)
# keeps the quantization a user asked for: never folded, never merged away
QUANTIZATION = frozenset(["QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"])
# control flow and sequences: what they do is in their bodies or not a tensor
OPAQUE = frozenset(["If", "Loop", "Scan", "SequenceMap"])
# result can be far larger than the inputs: stays lazy
LAZY = frozenset(["ConstantOfShape", "Expand", "Tile", "Range", "OneHot", "EyeLike"])
# float reductions: the order of summation is the runtime's
REDUCTION = frozenset(
    [
        "ReduceMean",
        "ReduceSum",
        "ReduceProd",
        "ReduceL1",
        "ReduceL2",
        "ReduceLogSum",
        "ReduceLogSumExp",
        "ReduceSumSquare",
        "MatMul",
        "Gemm",
        "Conv",
        "ConvTranspose",
        "Einsum",
        "Softmax",
        "LogSoftmax",
    ]
)
# the rank that operands must have, by position; any other stops the run (a Gemm of vectors does not)
_RECURRENT = ((0, 3), (1, 3), (2, 3), (3, 2), (5, 3), (6, 3))
RANK = {
    **dict.fromkeys(("RNN", "GRU", "LSTM"), _RECURRENT),
    **dict.fromkeys(("DepthToSpace", "SpaceToDepth"), ((0, 4),)),
}
# operators whose first operands (all of Concat's) must have the same rank
SAME_RANK = {"Conv": 2, "ConvTranspose": 2, "Concat": None}


def ranks_fit(node: Node) -> bool:
    """Whether the operands may have the ranks that are known of them."""
    if node.domain:
        return True
    ranks = [None if v is None else v.rank for v in node.inputs]
    if any(len(ranks) > i and ranks[i] not in (None, r) for i, r in RANK.get(node.op, ())):
        return False
    return node.op not in SAME_RANK or len(set(ranks[: SAME_RANK[node.op]]) - {None}) < 2


def pure(node: Node) -> bool:
    """Whether two such nodes with equal inputs have equal outputs: known, not random, not in training mode."""
    if node.domain or node.op in RANDOM or node.bodies:
        return False
    if node.op == "Dropout":
        training = node.inputs[2] if len(node.inputs) > 2 else None
        if node.graph is not None and node.graph.opset < 7:
            return bool(node.attributes.get("is_test", 0))
        return training is None or (training.const is not None and not training.const.any())
    if node.op == "BatchNormalization":
        return not node.attributes.get("training_mode", 0) and len(node.outputs) == 1
    return True
