"""Kinds of right rewrite, each a line: ⟨before|after⟩ compute the same, up to rounding. Who fails one raises a false alarm.

What optimizers and exporters do every day: fusing and unfusing, folding, moving, renaming, reassociating, other spellings.
"""

from __future__ import annotations

from wrong_rewrites import _ATTENTION, _LSTM, _W, _X, _n, pair

__all__ = ["TABLE", "pair"]

_IMAGE = "g (float[n, 2, 6, 6] x) => (float[n, 2, a, b] y) "
_BN = "float[2] s = {1, 2}, float[2] b = {3, 4}, float[2] u = {0.5, -1}, float[2] v = {1, 4}"

TABLE: dict[str, str] = {
    # --- batch normalization, scales and biases into weights ---
    "BatchNormalization folded into a convolution": _IMAGE
    + _W[:-1]
    + ", "
    + _BN
    + ", float e = {0.00001}, int64[3] i = {1, 2, 3}> { ⟨c = Conv(x, w)  y = BatchNormalization(c, s, b, u, v)|ve = Add(v, e)  r = Sqrt(ve)  k = Div(s, r)  k4 = Unsqueeze(k, i)  wk = Mul(w, k4)  mu = Mul(u, k)  d = Sub(b, mu)  y = Conv(x, wk, d)⟩ }",
    "BatchNormalization as an affine": "g (float[n, 2, L] x) => (float[n, 2, L] y) <" + _BN + ", float e = {0.00001}, int64[1] i = {1}> "
    "{ ⟨y = BatchNormalization(x, s, b, u, v)|ve = Add(v, e)  r = Sqrt(ve)  k = Div(s, r)  k1 = Unsqueeze(k, i)  m = Mul(x, k1)  mu = Mul(u, k)  d = Sub(b, mu)  d1 = Unsqueeze(d, i)  y = Add(m, d1)⟩ }",
    "a scale folded into a convolution": _IMAGE + _W[:-1] + ", float k = {1.7}> { ⟨c = Conv(x, w)  y = Mul(c, k)|v = Mul(w, k)  y = Conv(x, v)⟩ }",
    "a shift folded into a convolution's bias": _IMAGE + _W[:-1] + ", float[2, 1, 1] k = {1.7, -2}, float[2] b = {1.7, -2}> { ⟨c = Conv(x, w)  y = Add(c, k)|y = Conv(x, w, b)⟩ }",
    "an input's scale folded into a convolution": _IMAGE + _W[:-1] + ", float k = {0.017}> { ⟨c = Mul(x, k)  y = Conv(c, w)|v = Mul(w, k)  y = Conv(x, v)⟩ }",
    "a scale folded into a product": "g (float[n, 8] x) => (float[n, 8] y) <float[8, 8] w = {" + _n(64) + "}, float k = {0.3}> { ⟨a = MatMul(x, w)  y = Mul(a, k)|v = Mul(w, k)  y = MatMul(x, v)⟩ }",
    "a scale moved to the other operand": _ATTENTION.replace("p = MatMul(q, t)  r = Div(p, d)", "⟨p = MatMul(q, t)  r = Div(p, d)|q_ = Div(q, d)  r = MatMul(q_, t)⟩"),
    "a scale split in two": _ATTENTION.replace("float inf", "float h = {1.681793}, float inf").replace("p = MatMul(q, t)  r = Div(p, d)", "⟨p = MatMul(q, t)  r = Div(p, d)|q_ = Div(q, h)  t_ = Div(t, h)  r = MatMul(q_, t_)⟩"),
    # --- reassociation ---
    "a sum in another order": "g (float[n, 4] a, float[n, 4] b, float[n, 4] c) => (float[n, 4] y) { ⟨t = Add(a, b)  y = Add(t, c)|t = Add(b, c)  y = Add(a, t)⟩ }",
    "a product in another order": "g (float[n, 4] a, float[n, 4] b, float[n, 4] c) => (float[n, 4] y) { ⟨t = Mul(a, b)  y = Mul(t, c)|t = Mul(b, c)  y = Mul(a, t)⟩ }",
    "constants of a sum collected": _X + "<float k = {1.3}, float l = {2.6}, float m = {3.9}> { ⟨a = Add(x, k)  y = Add(a, l)|y = Add(x, m)⟩ }",
    "constants of a product collected": _X + "<float k = {1.3}, float l = {2.6}, float m = {3.38}> { ⟨a = Mul(x, k)  y = Mul(a, l)|y = Mul(x, m)⟩ }",
    "distribution": "g (float[n, 4] a, float[n, 4] b) => (float[n, 4] y) <float k = {1.3}> { ⟨t = Add(a, b)  y = Mul(t, k)|p = Mul(a, k)  q = Mul(b, k)  y = Add(p, q)⟩ }",
    "division as a product": _X + "<float k = {3}, float r = {0.33333334}> { ⟨y = Div(x, k)|y = Mul(x, r)⟩ }",
    "Sub as Add of Neg": "g (float[n, 4] a, float[n, 4] b) => (float[n, 4] y) { ⟨y = Sub(a, b)|m = Neg(b)  y = Add(a, m)⟩ }",
    "x² as x·x": _X + "<float k = {2}> { y = ⟨Pow(x, k)|Mul(x, x)⟩ }",
    "√ as a power": _X + "<float h = {0.5}> { a = Abs(x)  y = ⟨Sqrt(a)|Pow(a, h)⟩ }",
    "1/√ as a power": _X + "<float h = {-0.5}, float e = {0.01}> { a = Abs(x)  b = Add(a, e)  ⟨s = Sqrt(b)  y = Reciprocal(s)|y = Pow(b, h)⟩ }",
    "a product split along its inner dimension": "g (float[n, 64] x, float[64, 8] w) => (float[n, 8] y) { ⟨y = MatMul(x, w)|a, b = Split<axis=1, num_outputs=2>(x)  c, d = Split<axis=0, num_outputs=2>(w)  p = MatMul(a, c)  q = MatMul(b, d)  y = Add(p, q)⟩ }",
    "half precision summed in another order": "g (float16[n, 256] x, float16[256, 8] w) => (float16[n, 8] y) { ⟨y = MatMul(x, w)|a, b = Split<axis=1, num_outputs=2>(x)  c, d = Split<axis=0, num_outputs=2>(w)  p = MatMul(a, c)  q = MatMul(b, d)  y = Add(p, q)⟩ }",
    "a mean as a product": "g (float[n, 8] x) => (float[n, 1] y) <int64[1] i = {1}, float[8, 1] w = {0.125, 0.125, 0.125, 0.125, 0.125, 0.125, 0.125, 0.125}> { y = ⟨ReduceMean(x, i)|MatMul(x, w)⟩ }",
    "a mean as a sum and a division": "g (float[n, 8] x) => (float[n, 1] y) <int64[1] i = {1}, float k = {8}> { ⟨y = ReduceMean(x, i)|s = ReduceSum(x, i)  y = Div(s, k)⟩ }",
    "two products merged": "g (float[n, 8] x) => (float[n, 4] y, float[n, 4] z) <float[8, 4] v = {" + _n(32) + "}, float[8, 4] w = {" + _n(32, 2) + "}> { ⟨y = MatMul(x, v)  z = MatMul(x, w)|k = Concat<axis=1>(v, w)  p = MatMul(x, k)  y, z = Split<axis=1, num_outputs=2>(p)⟩ }",
    # --- fusions and their inverses ---
    "Gelu fused": _X + "<float k = {1.4142135}, float o = {1}, float h = {0.5}> { ⟨a = Div(x, k)  e = Erf(a)  p = Add(e, o)  q = Mul(x, p)  y = Mul(q, h)|y = Gelu(x)⟩ }",
    "Gelu by tanh fused": _X + "<float k = {0.044715}, float c = {0.7978846}, float o = {1}, float h = {0.5}, float t3 = {3}> { ⟨a = Pow(x, t3)  b = Mul(a, k)  d = Add(x, b)  f = Mul(d, c)  t = Tanh(f)  u = Add(t, o)  q = Mul(x, u)  y = Mul(q, h)|y = Gelu<approximate=\"tanh\">(x)⟩ }",
    "LayerNormalization fused": "g (float[n, 8] x, float[8] s, float[8] b) => (float[n, 8] y) <int64[1] i = {-1}, float e = {0.00001}> { ⟨m = ReduceMean(x, i)  d = Sub(x, m)  q = Mul(d, d)  v = ReduceMean(q, i)  w = Add(v, e)  r = Sqrt(w)  t = Div(d, r)  u = Mul(t, s)  y = Add(u, b)|y = LayerNormalization(x, s, b)⟩ }",
    "SiLU's operands swapped": _X + "{ ⟨s = Sigmoid(x)  y = Mul(x, s)|s = Sigmoid(x)  y = Mul(s, x)⟩ }",
    "HardSwish fused": _X + "<float t = {3}, float z = {0}, float s = {6}> { ⟨a = Add(x, t)  c = Clip(a, z, s)  m = Mul(x, c)  y = Div(m, s)|y = HardSwish(x)⟩ }",
    "HardSigmoid spelled out": _X + "<float k = {0.2}, float h = {0.5}, float z = {0}, float o = {1}> { ⟨y = HardSigmoid(x)|a = Mul(x, k)  b = Add(a, h)  y = Clip(b, z, o)⟩ }",
    "Softmax spelled out": _X + "<int64[1] i = {1}> { ⟨y = Softmax(x)|m = ReduceMax(x, i)  d = Sub(x, m)  e = Exp(d)  s = ReduceSum(e, i)  y = Div(e, s)⟩ }",
    "LogSoftmax fused": _X + "{ ⟨m = Softmax(x)  y = Log(m)|y = LogSoftmax(x)⟩ }",
    "Relu as Max": _X + "<float z = {0}> { y = ⟨Relu(x)|Max(x, z)⟩ }",
    "Relu as Clip": _X + "<float z = {0}> { y = ⟨Relu(x)|Clip(x, z)⟩ }",
    "Clip as Min and Max": _X + "<float l = {-1}, float h = {2}> { ⟨y = Clip(x, l, h)|a = Max(x, l)  y = Min(a, h)⟩ }",
    "LeakyRelu spelled out": _X + "<float k = {0.01}> { ⟨y = LeakyRelu(x)|a = Mul(x, k)  y = Max(a, x)⟩ }",
    "Gemm as MatMul and Add": "g (float[n, 8] x) => (float[n, 4] y) <float[8, 4] w = {" + _n(32) + "}, float[4] b = {1, 2, 3, 4}> { ⟨y = Gemm(x, w, b)|m = MatMul(x, w)  y = Add(m, b)⟩ }",
    "Gemm of a transposed weight": "g (float[n, 8] x) => (float[n, 4] y) <float[8, 4] w = {" + _n(32) + "}> { ⟨y = Gemm(x, w)|t = Transpose(w)  y = Gemm<transB=1>(x, t)⟩ }",
    "a 1×1 convolution as a product": "g (float[n, 8, L] x) => (float[n, 4, L] y) <float[4, 8, 1] w = {" + _n(32) + "}, int64[2] s = {4, 8}> { ⟨y = Conv(x, w)|v = Reshape(w, s)  y = MatMul(v, x)⟩ }",
    "a product as an Einsum": 'g (float[n, 3, 4] x, float[n, 4, 5] z) => (float[n, 3, 5] y) { y = ⟨MatMul(x, z)|Einsum<equation="bij,bjk->bik">(x, z)⟩ }',
    "GlobalAveragePool as ReduceMean": _IMAGE + "<int64[2] i = {2, 3}> { y = ⟨GlobalAveragePool(x)|ReduceMean(x, i)⟩ }",
    "Pad into a convolution": _IMAGE + _W[:-1] + ", int64[8] p = {0, 0, 1, 1, 0, 0, 1, 1}> { ⟨a = Pad(x, p)  y = Conv(a, w)|y = Conv<pads=[1, 1, 1, 1]>(x, w)⟩ }",
    "a depthwise convolution as two": "g (float[n, 2, 6] x) => (float[n, 2, 4] y) <float[2, 1, 3] w = {1, 2, 3, -1, 0.5, 2}> { ⟨y = Conv<group=2>(x, w)|a, b = Split<axis=1, num_outputs=2>(x)  u, v = Split<axis=0, num_outputs=2>(w)  p = Conv(a, u)  q = Conv(b, v)  y = Concat<axis=1>(p, q)⟩ }",
    "an LSTM's weights by a constant expression": _LSTM + "{ ⟨v = Identity(w)|a, d = Split<axis=1, num_outputs=2>(w)  v = Concat<axis=1>(a, d)⟩  y, p, q = LSTM<hidden_size=2>(x, v, r, c, , h) }",
    "a guard against NaN spelled otherwise": _X + "<float z = {0}> { ⟨i = IsNaN(x)  y = Where(i, z, x)|i = Equal(x, x)  y = Where(i, x, z)⟩ }",
    # --- layout and shapes ---
    "a transpose moved through an elementwise op": "g (float[n, 3, 4] x) => (float[n, 4, 3] y) { ⟨t = Transpose<perm=[0, 2, 1]>(x)  y = Tanh(t)|t = Tanh(x)  y = Transpose<perm=[0, 2, 1]>(t)⟩ }",
    "transposes cancelled": "g (float[n, 3, 4] x) => (float[n, 3, 4] y) { ⟨t = Transpose<perm=[0, 2, 1]>(x)  u = Tanh(t)  y = Transpose<perm=[0, 2, 1]>(u)|y = Tanh(x)⟩ }",
    "transposes merged": "g (float[2, 3, 4] x) => (float[4, 2, 3] y) { ⟨t = Transpose<perm=[1, 2, 0]>(x)  y = Transpose<perm=[1, 2, 0]>(t)|y = Transpose<perm=[2, 0, 1]>(x)⟩ }",
    "a weight's layout": "g (float[n, 8] x) => (float[n, 8] y) <float[8, 8] w = {" + _n(64) + "}> { ⟨y = MatMul(x, w)|t = Transpose(w)  u = Transpose(t)  y = MatMul(x, u)⟩ }",
    "reshapes merged": "g (float[n, 6] x) => (float[n, 6] y) <int64[3] s = {0, 2, 3}, int64[2] t = {0, -1}> { ⟨a = Reshape(x, s)  b = Reshape(a, t)  y = Tanh(b)|y = Tanh(x)⟩ }",
    "Flatten as Reshape": "g (float[n, 2, 3] x) => (float[n, 6] y) <int64[2] s = {0, -1}> { y = ⟨Flatten(x)|Reshape(x, s)⟩ }",
    "Unsqueeze as Reshape": "g (float[n, 4] x) => (float[n, 1, 4] y) <int64[1] i = {1}, int64[3] s = {0, 1, 4}> { y = ⟨Unsqueeze(x, i)|Reshape(x, s)⟩ }",
    "a computed shape folded": "g (float[n, m, 4] x) => (float[n, r] y) <int64 z = {0}, int64[1] i = {0}, int64[1] minus = {-1}, int64[2] s = {0, -1}> { ⟨h = Shape(x)  d = Gather(h, z)  u = Unsqueeze(d, i)  c = Concat<axis=0>(u, minus)  y = Reshape(x, c)|y = Reshape(x, s)⟩ }",
    "Expand dropped before broadcasting": "g (float[n, 4] x) => (float[n, 4] y) <float[1, 4] k = {1, 2, 3, 4}> { ⟨s = Shape(x)  e = Expand(k, s)  y = Add(x, e)|y = Add(x, k)⟩ }",
    "slices as a Split": "g (float[n, 8] x) => (float[n, 4] y) <int64[1] z = {0}, int64[1] f = {4}, int64[1] e = {8}, int64[1] i = {1}> { ⟨a = Slice(x, z, f, i)  b = Slice(x, f, e, i)|a, b = Split<axis=1, num_outputs=2>(x)⟩  y = Sub(a, b) }",
    "Gather of one as a Slice": "g (float[n, 8] x) => (float[n, 1] y) <int64[1] k = {3}, int64[1] e = {4}, int64[1] i = {1}> { y = ⟨Gather<axis=1>(x, k)|Slice(x, k, e, i)⟩ }",
    "Concat of Concat": "g (float[n, 4] a, float[n, 4] b, float[n, 4] c) => (float[n, 12] y) { ⟨t = Concat<axis=1>(a, b)  y = Concat<axis=1>(t, c)|y = Concat<axis=1>(a, b, c)⟩ }",
    "a negative axis": "g (float[n, 4] x) => (float[n, 4] y) { y = Softmax<axis=⟨-1|1⟩>(x) }",
    "an embedding's negative index": "g (int64[n] ids) => (float[n, 2] y) <float[5, 2] w = {" + _n(10) + "}, int64 five = {5}> { ⟨y = Gather(w, ids)|j = Mod(ids, five)  y = Gather(w, j)⟩ }",
    # --- graphs ---
    "an Identity inserted": _X + "{ ⟨y = Tanh(x)|a = Identity(x)  b = Tanh(a)  y = Identity(b)⟩ }",
    "names": _X + "{ ⟨a = Tanh(x)  y = Sin(a)|another_name = Tanh(x)  y = Sin(another_name)⟩ }",
    "independent nodes in another order": _X + "{ ⟨a = Tanh(x)  b = Sin(x)|b = Sin(x)  a = Tanh(x)⟩  y = Mul(a, b) }",
    "operands of a commutative op": "g (float[n, 4] x, float[n, 4] z) => (float[n, 4] y) { y = Mul(⟨x, z|z, x⟩) }",
    "equal nodes merged": _X + "{ ⟨a = Tanh(x)  b = Tanh(x)|a = Tanh(x)  b = Identity(a)⟩  y = Mul(a, b) }",
    "a constant folded": _X + "<float k = {2}, float l = {3}, float m = {6}> { ⟨c = Mul(k, l)  y = Mul(x, c)|y = Mul(x, m)⟩ }",
    "a Constant node as an initializer": _X + "<float m = {6}> { ⟨c = Constant<value_float=6.0>()  y = Mul(x, c)|y = Mul(x, m)⟩ }",
    "a decided If inlined": _X + "<bool c = {1}> { ⟨y = If(c) <then_branch = t () => (float[n, 4] p) { p = Neg(x) }, else_branch = e () => (float[n, 4] q) { q = Abs(x) }>|y = Neg(x)⟩ }",
    "a Loop unrolled": "g (float[n] x) => (float[n] y) <int64 k = {2}, bool c = {1}> { ⟨y = Loop(k, c, x) <body = b (int64 i, bool g, float[n] h) => (bool d, float[n] o) { d = Identity(g)  o = Sin(h) }>|a = Sin(x)  y = Sin(a)⟩ }",
    "casts to a wider type and back": "g (float16[n, 4] x) => (float16[n, 4] y) { ⟨a = Cast<to=1>(x)  b = Cast<to=10>(a)  y = Neg(b)|y = Neg(x)⟩ }",
    "opset 11's spelling": '<ir_version: 10, opset_import: ["": ⟨11|13⟩]> g (float[n, 4] x) => (float[n] y) <int64[1] i = {1}> { ⟨s = ReduceSum<axes=[1]>(x)  y = Squeeze<axes=[1]>(s)|s = ReduceSum(x, i)  y = Squeeze(s, i)⟩ }',
    "opset 17 and opset 20": '<ir_version: 10, opset_import: ["": ⟨17|20⟩]> g (float[n, 4] x) => (float[n, 4] y) { ⟨a = ReduceMean<axes=[1]>(x)|i = Constant<value_ints=[1]>()  a = ReduceMean(x, i)⟩  y = Sub(x, a) }',
    "Q and DQ about an op that keeps values": _X + "<float s = {0.05}, int8 z = {0}, int64[2] r = {0, 4}> { ⟨q = QuantizeLinear(x, s, z)  d = DequantizeLinear(q, s, z)  y = Reshape(d, r)|a = Reshape(x, r)  q = QuantizeLinear(a, s, z)  y = DequantizeLinear(q, s, z)⟩ }",
    "Dropout at inference": _X + "{ ⟨a = Dropout(x)|a = Identity(x)⟩  y = Tanh(a) }",
    "integers reassociated": "g (int64[n, 4] x) => (int64[n, 4] y) <int64 k = {3}, int64 l = {4}, int64 m = {7}> { ⟨a = Add(x, k)  y = Add(a, l)|y = Add(x, m)⟩ }",
    "a mask as bool": "g (float[b, s] x, int64[b, s] attention_mask) => (float[b, s] y) <float z = {0}, float lo = {-10000}, float o = {1}> { ⟨f = Cast<to=1>(attention_mask)  i = Sub(o, f)  m = Mul(i, lo)|c = Cast<to=9>(attention_mask)  m = Where(c, z, lo)⟩  a = Add(x, m)  y = Softmax(a) }",
}  # fmt: skip
