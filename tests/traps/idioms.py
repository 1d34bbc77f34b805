"""Look-alikes: every idiom with one wrong constant, axis, exponent or operand."""

from __future__ import annotations

from typing import Any

from traps.trap import Trap, trap


def look(name: str, why: str, graph: str, **options: Any) -> Trap:
    """Where the original is not finite, the fused form may be anything."""
    return trap(name, why, graph, finite=True, **options)


def gelu(root: str = "1.41421356", one: str = "1", half: str = "0.5", of: str = "x") -> str:
    return f"g (float[N, 8] x, float[N, 8] z) => (float[N, 8] y) <float r = {{{root}}}, float one = {{{one}}}, float h = {{{half}}}> {{ a = Div({of}, r)  b = Erf(a)  c = Add(b, one)  d = Mul(x, c)  e = Mul(d, h)  y = Add(e, z) }}"


def tanh_gelu(cube: str = "0.044715", slope: str = "0.7978845608", power: str = "3") -> str:
    return f"g (float[N, 8] x) => (float[N, 8] y) <float k = {{{cube}}}, float s = {{{slope}}}, float p = {{{power}}}, float one = {{1}}, float h = {{0.5}}> {{ c = Pow(x, p)  q = Mul(c, k)  i = Add(x, q)  j = Mul(i, s)  t = Tanh(j)  u = Add(t, one)  v = Mul(x, u)  y = Mul(v, h) }}"


def layer_norm(
    head: str = "float[N, 8] x", out: str = "float[N, 8] y", scale: str = "float[8] g = {1, 2, 3, 4, 5, 6, 7, 8}",
    axis: str = "int64[1] a = {-1}", second: str = "int64[1] b = {-1}", power: str = "2",
    root: str = "v = ReduceMean(p, b)  ve = Add(v, e)  s = Sqrt(ve)", of: str = "x", more: str = "",
) -> str:  # fmt: skip
    return f"g ({head}) => ({out}) <{scale}, float e = {{1e-2}}, float two = {{{power}}}, {axis}, {second}{more}> {{ m = ReduceMean({of}, a)  d = Sub(x, m)  p = Pow(d, two)  {root}  n = Div(d, s)  y = Mul(n, g) }}"


def rms_norm(
    scale: str = "float[8] g = {1, 2, 3, 4, 5, 6, 7, 8}", axis: str = "int64[1] a = {-1}", power: str = "2",
    root: str = "v = ReduceMean(p, a)  ve = Add(v, e)  s = Sqrt(ve)", shape: str = "[N, 8]",
) -> str:  # fmt: skip
    return f"g (float{shape} x) => (float{shape} y) <{scale}, float e = {{1e-2}}, float two = {{{power}}}, {axis}> {{ p = Pow(x, two)  {root}  n = Div(x, s)  y = Mul(n, g) }}"


def attention(
    scale: str = "0.5", axis: str = "-1", keys: str = "0, 1, 3, 2", of: str = "p, v", masked: str = "Add(f, k)"
) -> str:
    return f"g (float[B, 2, 3, 3] q, float[B, 2, 3, 3] k0, float[B, 2, 3, 3] v) => (float[B, 2, 3, 3] y) <float c = {{{scale}}}, float[3, 3] k = {{0, -9, -9, 0, 0, -9, 0, 0, 0}}> {{ t = Transpose<perm = [{keys}]>(k0)  s = MatMul(q, t)  f = Mul(s, c)  m = {masked}  p = Softmax<axis = {axis}>(m)  y = MatMul({of}) }}"


TRAPS = [
    look("Gelu", "the idiom itself, for comparison", gelu()),
    look("Gelu with another root", "1.4150 is not √2", gelu(root="1.4150")),
    look("Gelu with a root of the wrong sign", "−√2 turns it around", gelu(root="-1.41421356")),
    look("Gelu with another half", "0.5004 is not ½", gelu(half="0.5004")),
    look("Gelu with another one", "1.001 is not 1", gelu(one="1.001")),
    look("Gelu of another value", "erf of z, times x", gelu(of="z")),
    look("Gelu with Tanh for Erf", "tanh is no erf", gelu().replace("Erf", "Tanh")),
    look("tanh Gelu", "the idiom itself, for comparison", tanh_gelu()),
    look("tanh Gelu with another cubic", "0.0447 is not 0.044715 to the last place", tanh_gelu(cube="0.0457")),
    look("tanh Gelu with a square", "x² is not x³", tanh_gelu(power="2")),
    look("tanh Gelu with another slope", "0.8 is not √(2/π)", tanh_gelu(slope="0.81")),
    look("quick Gelu", "1.702 and sigmoid are another function",
         "g (float[N, 8] x) => (float[N, 8] y) <float k = {1.702}> { a = Mul(x, k)  s = Sigmoid(a)  y = Mul(x, s) }"),
    look("SiLU of another value", "sigmoid of z, times x", "g (float[N, 8] x, float[N, 8] z) => (float[N, 8] y) { s = Sigmoid(z)  y = Mul(x, s) }"),
    look("hard swish with another bound", "x · clip(x + 3, 0, 5) / 6",
         "g (float[N, 8] x) => (float[N, 8] y) <float t = {3}, float z = {0}, float k = {5}, float s = {6}> { a = Add(x, t)  c = Clip(a, z, k)  m = Mul(x, c)  y = Div(m, s) }"),
    look("hard sigmoid with another slope", "x / 6 + ½ clipped has α = 1/6, not 0.2",
         "g (float[N, 8] x) => (float[N, 8] y) <float t = {3}, float z = {0}, float k = {6}, float s = {6}> { a = Add(x, t)  c = Clip(a, z, k)  y = Div(c, s) }"),
    look("Mish with another softplus", "x · tanh(log(2 + eˣ))",
         "g (float[N, 8] x) => (float[N, 8] y) <float two = {2}> { e = Exp(x)  a = Add(e, two)  l = Log(a)  t = Tanh(l)  y = Mul(x, t) }"),
    look("softplus by hand", "log(1 + eˣ) overflows where Softplus does not",
         "g (float[N, 8] x) => (float[N, 8] y) <float one = {1}> { e = Exp(x)  a = Add(e, one)  y = Log(a) }"),
    look("LayerNorm", "the idiom itself, for comparison", layer_norm()),
    look("LayerNorm with exponent 3", "a cube is no square", layer_norm(power="3")),
    look("LayerNorm with exponent 1", "the mean of the deviations", layer_norm(power="1")),
    look("LayerNorm over two different axes", "mean over the last, variance over the first", layer_norm(second="int64[1] b = {0}")),
    look("LayerNorm over the first axis", "the first axis is not the last",
         layer_norm("float[8, 8] x", "float[8, 8] y", axis="int64[1] a = {0}", second="int64[1] b = {0}")),
    look("LayerNorm about another mean", "the mean of z", layer_norm("float[N, 8] x, float[N, 8] z", of="z")),
    look("LayerNorm with ε outside of the root", "√v + ε is not √(v + ε)", layer_norm(root="v = ReduceMean(p, b)  r = Sqrt(v)  s = Add(r, e)")),
    look("LayerNorm without its root", "divided by the variance", layer_norm(root="v = ReduceMean(p, b)  s = Add(v, e)")),
    look("LayerNorm with a sum for the variance", "a sum is no mean", layer_norm(root="v = ReduceSum(p, b)  ve = Add(v, e)  s = Sqrt(ve)")),
    look("LayerNorm with an ε for each column", "ε is one number", layer_norm(root="v = ReduceMean(p, b)  ve = Add(v, ee)  s = Sqrt(ve)", more=", float[8] ee = {1, 2, 3, 4, 5, 6, 7, 8}")),
    look("LayerNorm without the root of n−1", "the unbiased variance has n − 1",
         layer_norm(root="q = ReduceSum(p, b)  v = Div(q, seven)  ve = Add(v, e)  s = Sqrt(ve)", more=", float seven = {7}")),
    look("LayerNorm with a scale of rows", "the scale has a number a row", layer_norm("float[8, 8] x", "float[8, 8] y", scale="float[8, 1] g = {1, 2, 3, 4, 5, 6, 7, 8}")),
    look("LayerNorm with a scale that raises the rank", "the scale has one axis more", layer_norm(out="float[1, N, 8] y", scale="float[1, 1, 8] g = {1, 2, 3, 4, 5, 6, 7, 8}")),
    look("LayerNorm with a scalar scale", "one number is no vector of 8", layer_norm(scale="float g = {3}")),
    look("LayerNorm with |d| for d²", "an absolute deviation", layer_norm().replace("Pow(d, two)", "Abs(d)")),
    look("LayerNorm with a negative ε", "v − ε", layer_norm().replace("1e-2", "-1e-2")),
    look("LayerNorm over all axes", "every axis is normalized; the batch, too",
         layer_norm("float[2, 8] x", "float[2, 8] y", axis="int64[2] a = {0, 1}", second="int64[2] b = {0, 1}")),
    look("LayerNorm at an opset without it", "opset 16 has no LayerNormalization",
         "g (float[N, 8] x) => (float[N, 8] y) <float e = {1e-2}> { m = ReduceMean<axes = [-1]>(x)  d = Sub(x, m)  p = Mul(d, d)  v = ReduceMean<axes = [-1]>(p)  ve = Add(v, e)  s = Sqrt(ve)  y = Div(d, s) }", opset=16, ir=8),
    look("instance norm by hand", "over the spatial axes of each channel",
         layer_norm("float[N, 2, 4, 4] x", "float[N, 2, 4, 4] y", scale="float[2, 1, 1] g = {1, 2}", axis="int64[2] a = {2, 3}", second="int64[2] b = {2, 3}")),
    look("RMSNorm", "the idiom itself, for comparison", rms_norm()),
    look("RMSNorm with exponent 4", "x⁴", rms_norm(power="4")),
    look("RMSNorm over the first axis", "the first axis is not the last", rms_norm(axis="int64[1] a = {0}", shape="[8, 8]")),
    look("RMSNorm with a sum", "a sum is no mean: L2 norm", rms_norm(root="v = ReduceSum(p, a)  ve = Add(v, e)  s = Sqrt(ve)")),
    look("RMSNorm with ε outside", "√v + ε", rms_norm(root="v = ReduceMean(p, a)  r = Sqrt(v)  s = Add(r, e)")),
    look("RMSNorm with ε under a Max", "max(v, ε) is not v + ε", rms_norm(root="v = ReduceMean(p, a)  ve = Max(v, e)  s = Sqrt(ve)")),
    look("RMSNorm of 1 + g", "the scale is 1 + g, computed", "g (float[N, 4] x, float[4] w) => (float[N, 4] y) <float e = {1e-2}, float one = {1}, int64[1] a = {-1}> { p = Mul(x, x)  v = ReduceMean(p, a)  ve = Add(v, e)  s = Sqrt(ve)  n = Div(x, s)  g = Add(w, one)  y = Mul(n, g) }"),
    look("RMSNorm at an opset without it", "opset 22 has no RMSNormalization", rms_norm(), opset=22, ir=10),
    look("L2 norm by hand", "x / max(‖x‖, ε)", "g (float[N, 8] x) => (float[N, 8] y) <float e = {1e-2}, int64[1] a = {-1}> { n = ReduceL2(x, a)  m = Max(n, e)  y = Div(x, m) }"),
    look("Softmax by hand", "the idiom itself: exp(x − max) / Σ", "g (float[N, 8] x) => (float[N, 8] y) <int64[1] a = {-1}> { m = ReduceMax(x, a)  d = Sub(x, m)  e = Exp(d)  s = ReduceSum(e, a)  y = Div(e, s) }"),
    look("Softmax with two axes", "max over one axis, the sum over the other", "g (float[8, 8] x) => (float[8, 8] y) <int64[1] a = {-1}, int64[1] b = {0}> { m = ReduceMax(x, a)  d = Sub(x, m)  e = Exp(d)  s = ReduceSum(e, b)  y = Div(e, s) }"),
    look("Softmax of another exponential", "the sum is of exp(z)", "g (float[N, 8] x, float[N, 8] z) => (float[N, 8] y) <int64[1] a = {-1}> { e = Exp(x)  f = Exp(z)  s = ReduceSum(f, a)  y = Div(e, s) }"),
    look("log of a Softmax", "log(softmax) underflows to −∞ where LogSoftmax does not", "g (float[N, 8] x) => (float[N, 8] y) { s = Softmax(x)  y = Log(s) }"),
    look("LogSoftmax on another axis", "axis 0 is not the last", "g (float[8, 8] x) => (float[8, 8] y) { s = Softmax<axis = 0>(x)  l = Log(s)  y = LogSoftmax<axis = 1>(l) }"),
    look("attention", "the idiom itself, for comparison", attention()),
    look("attention over the queries", "softmax along the queries", attention(axis="-2")),
    look("attention with keys not transposed", "q · k, not q · kᵀ", attention(keys="0, 1, 2, 3")),
    look("attention with heads transposed", "k's heads and rows are swapped",
         "g (float[B, 3, 3, 3] q, float[B, 3, 3, 3] k0, float[B, 3, 3, 3] v) => (float[B, 3, 3, 3] y) <float c = {0.5}> { t = Transpose<perm = [0, 3, 2, 1]>(k0)  s = MatMul(q, t)  f = Mul(s, c)  p = Softmax(f)  y = MatMul(p, v) }"),
    look("attention with v first", "v · p", attention(of="v, p")),
    look("attention with a mask that multiplies", "a mask is added, not multiplied", attention(masked="Mul(f, k)")),
    look("attention masked after the softmax", "rows do not sum to 1 any more", attention(masked="Identity(f)", of="p, v").replace("y = MatMul(p, v)", "w = Mul(p, k)  y = MatMul(w, v)")),
    look("attention with fully masked rows", "the lowest float masks a row: the mean of v",
         attention().replace("0, -9, -9, 0, 0, -9, 0, 0, 0", "-3.4028234e38, -3.4028234e38, -3.4028234e38, 0, 0, -3.4028234e38, 0, 0, 0")),
    look("rotary with the halves swapped", "x₁·c + x₂·s and x₂·c + x₁·s: a sign is missing",
         "g (float[B, 2, 3, 4] x, float[3, 2] c, float[3, 2] s) => (float[B, 2, 3, 4] y) <int64[2] h = {2, 2}> { a, b = Split<axis = -1>(x, h)  ac = Mul(a, c)  bs = Mul(b, s)  bc = Mul(b, c)  as = Mul(a, s)  p = Add(ac, bs)  q = Add(bc, as)  y = Concat<axis = -1>(p, q) }"),
    look("Conv and a batch norm in training", "the batch's own statistics are used",
         "g (float[N, 1, 5, 7] x) => (float[N, 2, 5, 7] y) <float[2, 1, 1, 1] w = {1, 2}, float[2] s = {1, -2}, float[2] v = {0.5, 2}> { c = Conv(x, w)  y, rm, rv = BatchNormalization<training_mode = 1>(c, s, s, s, v) }"),
    look("Conv and a batch norm with ε 1", "ε is an attribute, not its default",
         "g (float[N, 1, 5, 7] x) => (float[N, 2, 5, 7] y) <float[2, 1, 1, 1] w = {1, 2}, float[2] s = {1, -2}, float[2] v = {0.5, 2}> { c = Conv(x, w)  y = BatchNormalization<epsilon = 1.0>(c, s, s, s, v) }"),
    look("Conv with a variance of 0", "γ / √(0 + ε) is large, and right",
         "g (float[N, 1, 5, 7] x) => (float[N, 2, 5, 7] y) <float[2, 1, 1, 1] w = {1, 2}, float[2] s = {1, -2}, float[2] v = {0, 2}> { c = Conv(x, w)  y = BatchNormalization(c, s, s, s, v) }"),
    look("Conv then an activation then a batch norm", "a Relu stands between them",
         "g (float[N, 1, 5, 7] x) => (float[N, 2, 5, 7] y) <float[2, 1, 1, 1] w = {1, -2}, float[2] s = {1, -2}, float[2] v = {0.5, 2}> { c = Conv(x, w)  r = Relu(c)  y = BatchNormalization(r, s, s, s, v) }"),
    look("batch norm before a padded Conv", "the pads are 0 after the norm, not before",
         "g (float[N, 2, 5, 7] x) => (float[N, 1, 5, 7] y) <float[1, 2, 3, 3] w = {1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9}, float[2] s = {1, -2}, float[2] v = {0.5, 2}> { b = BatchNormalization(x, s, s, s, v)  y = Conv<pads = [1, 1, 1, 1]>(b, w) }"),
    look("Conv and an Add along another axis", "a vector of the width is no bias",
         "g (float[N, 2, 2, 2] x) => (float[N, 2, 2, 2] y) <float[2, 2, 1, 1] w = {1, 2, 3, 4}, float[2] b = {1, -1}> { c = Conv(x, w)  y = Add(c, b) }"),
    look("Conv and a Mul that makes it larger", "the factor spreads the result",
         "g (float[1, 1, 2, 2] x) => (float[3, 1, 2, 2] y) <float[1, 1, 1, 1] w = {2}, float[3, 1, 1, 1] b = {1, -1, 2}> { c = Conv(x, w)  y = Mul(c, b) }"),
    look("grouped ConvTranspose and a batch norm", "the output channels are on axis 1 of each group",
         "g (float[N, 4, 3, 3] x) => (float[N, 4, 4, 4] y) <float[4, 2, 2, 2] w = {1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31,32}, float[4] s = {1, -2, 3, 0.5}, float[4] v = {0.5, 2, 1, 3}> { c = ConvTranspose<group = 2>(x, w)  y = BatchNormalization(c, s, s, s, v) }"),
    look("Gemm with α, β and a batch norm", "α multiplies the product, β the bias",
         "g (float[N, 3] x) => (float[N, 2] y) <float[2, 3] w = {1, 2, 3, 4, 5, 6}, float[2] b = {1, -1}, float[2] s = {1, -2}, float[2] v = {0.5, 2}> { c = Gemm<alpha = 0.5, beta = 3.0, transB = 1>(x, w, b)  y = BatchNormalization(c, s, s, s, v) }"),
    look("Gemm with a bias for each row and a batch norm", "the bias differs by row",
         "g (float[2, 3] x) => (float[2, 2] y) <float[3, 2] w = {1, 2, 3, 4, 5, 6}, float[2, 1] b = {1, -1}, float[2] s = {1, -2}, float[2] v = {0.5, 2}> { c = Gemm(x, w, b)  y = BatchNormalization(c, s, s, s, v) }"),
    look("MatMul of a batch and a batch norm", "axis 1 is not the last",
         "g (float[N, 2, 3] x) => (float[N, 2, 2] y) <float[3, 2] w = {1, 2, 3, 4, 5, 6}, float[2] s = {1, -2}, float[2] v = {0.5, 2}> { c = MatMul(x, w)  y = BatchNormalization(c, s, s, s, v) }"),
    look("Einsum that is no MatMul", "ij,kj is a product with a transposed operand", "g (float[2, 3] x, float[4, 3] z) => (float[2, 4] y) { y = Einsum<equation = \"ij,kj->ik\">(x, z) }"),
    look("Einsum of a diagonal", "ii->i is no transpose", "g (float[3, 3] x) => (float[3] y) { y = Einsum<equation = \"ii->i\">(x) }"),
]  # fmt: skip
