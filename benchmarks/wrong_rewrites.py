"""Kinds of wrong rewrite, each a line: a small model in ONNX's text form in which ⟨right|wrong⟩ marks what is rewritten.

They are what optimizers got wrong in public, and what could go wrong with any op: its attributes, axes, types and
broadcasting, sizes that were baked in, and values that ordinary data never holds.
"""

from __future__ import annotations

import re

import onnx
import onnx.parser

HEAD = '<ir_version: 10, opset_import: ["": 20, "com.microsoft": 1]>\n'
_MARK = re.compile(r"⟨([^|⟩]*)\|([^⟩]*)⟩")

# One float input and one output of the same shape: most ops need no more.
_X = "g (float[n, 4] x) => (float[n, 4] y) "
_INT = "g (int64[n, 4] x) => (int64[n, 4] y) "
_IMAGE = "g (float[n, 2, 6, 6] x) => (float[n, c, h, w] y) "
_W = "<float[2, 2, 3, 3] w = {" + ", ".join(f"{(7 * i * i + 3 * i) % 19 / 10 - 0.9:.1f}" for i in range(36)) + "}>"
_ATTENTION = """g (float[b, s, 8] q, float[b, s, 8] k, float[b, s, 8] v) => (float[b, s, 8] y)
<float d = {2.828427}, float inf = {-1e9}, int64[1] one = {1}> {
  t = Transpose<perm=[0, 2, 1]>(k)  p = MatMul(q, t)  r = Div(p, d)
  z = Shape<start=1, end=2>(q)  zz = Concat<axis=0>(z, z)  f = Expand(inf, zz)  m = Trilu<upper=1>(f, one)
  a = Add(r, m)  w = Softmax<axis=-1>(a)  y = MatMul(w, v) }"""
_NORM = """g (float[n, 8] x, float[8] s, float[8] b) => (float[n, 8] y) <int64[1] i = {-1}, float e = {0.00001}> {
  m = ReduceMean(x, i)  d = Sub(x, m)  q = Mul(d, d)  v = ReduceMean(q, i)  w = Add(v, e)  r = Sqrt(w)
  t = Div(d, r)  u = Mul(t, s)  y = Add(u, b) }"""


def _n(count: int, seed: int = 1) -> str:
    """`count` small numbers of both signs, as initializers are written."""
    return ", ".join(f"{(7 * i * i + 5 * i + seed) % 29 / 14 - 1:.2f}" for i in range(count))


_LSTM = (
    "g (float[t, b, 3] x, float[1, b, 2] h) => (float[t, 1, b, 2] y) <float[1, 8, 3] w = {" + _n(24) + "}, "
    "float[1, 8, 2] r = {" + _n(16, 2) + "}, float[1, 16] c = {" + _n(16, 3) + "}> "
)

TABLE: dict[str, str] = {
    # --- elementwise ---
    "Relu became Abs": _X + "{ y = ⟨Relu|Abs⟩(x) }",
    "Relu dropped": _X + "{ y = ⟨Relu|Identity⟩(x) }",
    "Relu became LeakyRelu": _X + "{ y = ⟨Relu|LeakyRelu⟩(x) }",
    "Relu became Clip to 6": _X + "<float z = {0}, float s = {6}> { y = ⟨Relu(x)|Clip(x, z, s)⟩ }",
    "LeakyRelu's slope": _X + "{ y = LeakyRelu<alpha=⟨0.01|0.02⟩>(x) }",
    "PRelu's slopes along the other axis": "g (float[n, 3, 3] x) => (float[n, 3, 3] y) "
    "<float[3, 1] s = {0.1, 0.5, -1}, float[1, 3] t = {0.1, 0.5, -1}> { y = PRelu(x, ⟨s|t⟩) }",
    "Elu's alpha": _X + "{ y = Elu<alpha=⟨1.0|0.9⟩>(x) }",
    "Selu became Elu": _X + "{ y = ⟨Selu|Elu⟩(x) }",
    "Celu became Elu of the same alpha": _X + "{ y = ⟨Celu|Elu⟩<alpha=2.0>(x) }",
    "HardSigmoid's slope": _X + "{ y = HardSigmoid<alpha=⟨0.2|0.16666667⟩>(x) }",
    "HardSwish became SiLU": _X + "{ ⟨y = HardSwish(x)|s = Sigmoid(x)  y = Mul(x, s)⟩ }",
    "Sigmoid became HardSigmoid": _X + "{ y = ⟨Sigmoid|HardSigmoid⟩(x) }",
    "Tanh became Softsign": _X + "{ y = ⟨Tanh|Softsign⟩(x) }",
    "Softplus became Relu": _X + "{ y = ⟨Softplus|Relu⟩(x) }",
    "Softplus without its branch for large values": _X + "<float o = {1}> "
    "{ ⟨y = Softplus(x)|e = Exp(x)  a = Add(e, o)  y = Log(a)⟩ }",
    "Mish became SiLU": _X + "{ ⟨y = Mish(x)|s = Sigmoid(x)  y = Mul(x, s)⟩ }",
    "Gelu by erf became Gelu by tanh": _X + '{ y = Gelu<approximate=⟨"none"|"tanh"⟩>(x) }',
    "Gelu by tanh became Gelu by erf": _X + '{ y = Gelu<approximate=⟨"tanh"|"none"⟩>(x) }',
    "Gelu by a sigmoid": _X + "<float k = {1.702}> { ⟨y = Gelu(x)|a = Mul(x, k)  s = Sigmoid(a)  y = Mul(x, s)⟩ }",
    "Gelu's 0.044715 cut to 0.0447": _X + "<float k = {⟨0.044715|0.0447⟩}, float c = {0.7978846}, float o = {1}> "
    "{ a = Mul(x, x)  b = Mul(a, x)  d = Mul(b, k)  e = Add(x, d)  f = Mul(e, c)  t = Tanh(f)  u = Add(t, o)  y = Mul(x, u) }",
    "1/√2 cut to 0.7071": _X + "<float k = {⟨0.70710678|0.7071⟩}, float o = {1}> "
    "{ a = Mul(x, k)  e = Erf(a)  u = Add(e, o)  y = Mul(x, u) }",
    "a constant's sixth digit": _X + "<float k = {⟨1.702|1.70201⟩}> { y = Mul(x, k) }",
    "a constant's seventh digit": _X + "<float k = {⟨1.234561|1.234564⟩}> { y = Mul(x, k) }",
    "a subtraction's constant in the sixth digit": _X + "<float k = {⟨0.485|0.485001⟩}, float s = {0.229}> "
    "{ a = Sub(x, k)  y = Div(a, s) }",
    "Sign of zero is 1": _X + "<float z = {0}, float p = {1}, float q = {-1}> "
    "{ ⟨y = Sign(x)|g = GreaterOrEqual(x, z)  y = Where(g, p, q)⟩ }",
    "Abs by the root of a square": _X + "{ ⟨y = Abs(x)|s = Mul(x, x)  y = Sqrt(s)⟩ }",
    "hypot without scaling": "g (float[n, 4] x, float[n, 4] z) => (float[n, 4] y) "
    "{ a = Abs(x)  b = Abs(z)  m = Max(a, b)  ⟨u = Div(a, m)  v = Div(b, m)  p = Mul(u, u)  q = Mul(v, v)  s = Add(p, q)"
    "  r = Sqrt(s)  y = Mul(m, r)|p = Mul(a, a)  q = Mul(b, b)  s = Add(p, q)  y = Sqrt(s)⟩ }",
    "Round by Floor": _X + "<float h = {0.5}> { ⟨y = Round(x)|a = Add(x, h)  y = Floor(a)⟩ }",
    "Round away from zero": _X + "<float h = {0.5}> "
    "{ ⟨y = Round(x)|s = Sign(x)  b = Abs(x)  a = Add(b, h)  f = Floor(a)  y = Mul(s, f)⟩ }",
    "Floor by a cast": _X + "{ ⟨y = Floor(x)|a = Cast<to=6>(x)  y = Cast<to=1>(a)⟩ }",
    "Ceil as Floor + 1": _X + "<float o = {1}> { ⟨y = Ceil(x)|f = Floor(x)  y = Add(f, o)⟩ }",
    "Round dropped before a cast": "g (float[n, 4] x) => (int64[n, 4] y) { a = ⟨Round|Identity⟩(x)  y = Cast<to=7>(a) }",
    "ε dropped beside a square root": _X + "<float e = {⟨1e-6|0⟩}, int64[1] i = {1}> "
    "{ q = Mul(x, x)  s = ReduceSum(q, i)  r = Sqrt(s)  d = Add(r, e)  y = Div(x, d) }",
    "ε within the logarithm": _X + "<float e = {⟨1e-6|1e-5⟩}> { a = Abs(x)  b = Add(a, e)  y = Log(b) }",
    "ε outside the root": _X + "<float e = {0.01}> { q = Mul(x, x)  ⟨s = Add(q, e)  y = Sqrt(s)|s = Sqrt(q)  y = Add(s, e)⟩ }",
    "Pow of an odd exponent by Abs": _X + "<float k = {3}> { ⟨y = Pow(x, k)|a = Abs(x)  y = Pow(a, k)⟩ }",
    "Pow's operands swapped": "g (float[n, 4] x) => (float[n, 4] y) <float k = {2}> { a = Abs(x)  y = Pow(⟨a, k|k, a⟩) }",
    "Sub's operands swapped": "g (float[n, 4] x, float[n, 4] z) => (float[n, 4] y) { y = Sub(⟨x, z|z, x⟩) }",
    "Div's operands swapped": "g (float[n, 4] x, float[n, 4] z) => (float[n, 4] y) { y = Div(⟨x, z|z, x⟩) }",
    "Max became Min": "g (float[n, 4] x, float[n, 4] z) => (float[n, 4] y) { y = ⟨Max|Min⟩(x, z) }",
    "a sum lost its third operand": "g (float[n, 4] x, float[n, 4] z) => (float[n, 4] y) { y = Sum(x, z⟨, x|⟩) }",
    "Mean became Sum": "g (float[n, 4] x, float[n, 4] z) => (float[n, 4] y) { y = ⟨Mean|Sum⟩(x, z) }",
    "Clip's upper bound lost": _X + "<float l = {-6}, float h = {6}> { y = Clip(x, l⟨, h|⟩) }",
    "Clip's lower bound lost": _X + "<float l = {-40}, float h = {40}> { y = Clip(x, ⟨l|⟩, h) }",
    "Clip at 10000 lost": _X + "<float l = {-10000}, float h = {10000}> { y = ⟨Clip(x, l, h)|Identity(x)⟩ }",
    "crossed Clip, bounds in the other order": _X + "<float l = {1}, float h = {-1}> "
    "{ ⟨a = Max(x, l)  y = Min(a, h)|a = Min(x, h)  y = Max(a, l)⟩ }",
    "two Clips merged as if they overlapped": _X + "<float a = {-1}, float b = {0}, float c = {0.5}, float d = {2}> "
    "{ ⟨t = Clip(x, a, b)  y = Clip(t, c, d)|y = Clip(x, a, d)⟩ }",
    "Clip of Relu with a negative bound": _X + "<float l = {-1}, float h = {2}> { ⟨r = Relu(x)  y = Clip(r, l, h)|y = Clip(x, l, h)⟩ }",
    "Exp of a shifted value": _X + "<float k = {1}> { ⟨a = Add(x, k)|a = Sub(x, k)⟩  y = Exp(a) }",
    "a product distributed over half of a sum": "g (float[n, 4] x, float[n, 4] z) => (float[n, 4] y) <float k = {3}> "
    "{ ⟨a = Add(x, z)  y = Mul(a, k)|a = Mul(x, k)  y = Add(a, z)⟩ }",
    "x·x became 2·x": _X + "<float k = {2}> { y = Mul(x, ⟨x|k⟩) }",
    "Neg dropped": _X + "{ a = ⟨Neg|Identity⟩(x)  y = Tanh(a) }",
    "sin became cos": _X + "{ y = ⟨Sin|Cos⟩(x) }",
    "Atan of a quotient without its quadrant": "g (float[n, 4] x, float[n, 4] z) => (float[n, 4] y) <float o = {0}, float p = {3.1415927}> "
    "{ q = Div(x, z)  t = Atan(q)  ⟨n_ = Less(z, o)  u = Add(t, p)  y = Where(n_, u, t)|y = Identity(t)⟩ }",
    "0·x became x": _X + "<float z = {0}> { a = Mul(x, z)  y = ⟨Add(a, z)|Add(x, z)⟩ }",
    # --- values that ordinary data never holds ---
    "wrong at zero": _X + "<float z = {0}, float o = {1}> { ⟨y = Cos(x)|e = Equal(x, z)  c = Cos(x)  y = Where(e, z, c)⟩ }",
    "wrong where all is zero": _X + "<float o = {1}, float z = {0}, int64[1] i = {1}> "
    "{ a = Abs(x)  s = ReduceSum(a, i)  e = Equal(s, z)  c = Cos(x)  k = Where(e, ⟨o|z⟩, o)  y = Mul(c, k) }",
    "wrong beyond 50": _X + "<float k = {50}> { ⟨y = Identity(x)|y = Min(x, k)⟩ }",
    "wrong beyond 300": _X + "<float k = {300}> { ⟨y = Identity(x)|y = Min(x, k)⟩ }",
    "wrong beyond 65504": _X + "<float k = {65504}, float l = {-65504}> { ⟨y = Identity(x)|y = Clip(x, l, k)⟩ }",
    "wrong beyond 10¹²": _X + "<float k = {1e12}> { ⟨y = Identity(x)|y = Min(x, k)⟩ }",
    "wrong below 10⁻³": "g (float[n, 64] x) => (float[n, 64] y) <float t = {0.001}, float z = {0}> "
    "{ ⟨y = Identity(x)|a = Abs(x)  s = Less(a, t)  y = Where(s, z, x)⟩ }",
    "wrong below 10⁻⁷": _X + "<float t = {1e-7}, float z = {0}> { ⟨y = Identity(x)|a = Abs(x)  s = Less(a, t)  y = Where(s, z, x)⟩ }",
    "wrong below 10⁻²⁰": _X + "<float t = {1e-20}, float z = {0}> { ⟨y = Identity(x)|a = Abs(x)  s = Less(a, t)  y = Where(s, z, x)⟩ }",
    "denormals flushed to zero": _X + "<float t = {1.17e-38}, float z = {0}> "
    "{ ⟨y = Identity(x)|a = Abs(x)  s = Less(a, t)  y = Where(s, z, x)⟩ }",
    "wrong for whole numbers": _X + "<float h = {0.5}> { f = Floor(x)  ⟨y = Identity(f)|e = Equal(f, x)  g = Sub(f, h)  y = Where(e, g, f)⟩ }",
    "a threshold that excludes its own value": "g (float[n, 4] x) => (bool[n, 4] y) <float k = {0.37}> { y = ⟨Greater|GreaterOrEqual⟩(x, k) }",
    "a comparison with zero that includes it": "g (float[n, 4] x) => (bool[n, 4] y) <float k = {0}> { y = ⟨Less|LessOrEqual⟩(x, k) }",
    "ties of equal operands": "g (float[n, 4] x, float[n, 4] z) => (bool[n, 4] y) { y = ⟨Greater|GreaterOrEqual⟩(x, z) }",
    "a guard against NaN removed": _X + "<float z = {0}> { i = IsNaN(x)  y = ⟨Where(i, z, x)|Identity(x)⟩ }",
    "a guard against NaN spelled x = x removed": _X + "<float z = {0}> { i = Equal(x, x)  y = ⟨Where(i, x, z)|Identity(x)⟩ }",
    "a guard against infinity removed": _X + "<float z = {0}> { i = IsInf(x)  y = ⟨Where(i, z, x)|Identity(x)⟩ }",
    "IsInf of one sign": "g (float[n, 4] x) => (bool[n, 4] y) { y = IsInf<detect_negative=⟨1|0⟩>(x) }",
    "NaN became zero behind its guard": _X + "<float o = {1}, float z = {0}> { i = IsNaN(x)  y = Where(i, ⟨o|z⟩, x) }",
    "a guard against a zero divisor removed": "g (float[n, 4] x, float[n, 4] d) => (float[n, 4] y) <float z = {0}, float o = {1}> "
    "{ e = Equal(d, z)  s = Where(e, o, d)  ⟨y = Div(x, s)|y = Div(x, d)⟩ }",
    "Softmax without its shift": _X + "<int64[1] i = {1}> { ⟨y = Softmax(x)|e = Exp(x)  s = ReduceSum(e, i)  y = Div(e, s)⟩ }",
    "LogSumExp without its shift": "g (float[n, 4] x) => (float[n, 1] y) <int64[1] i = {1}> "
    "{ ⟨y = ReduceLogSumExp(x, i)|e = Exp(x)  s = ReduceSum(e, i)  y = Log(s)⟩ }",
    "log(softmax) in two steps": _X + "{ ⟨y = LogSoftmax(x)|s = Softmax(x)  y = Log(s)⟩ }",
    "sigmoid by exp of a positive argument": _X + "<float o = {1}> { ⟨y = Sigmoid(x)|e = Exp(x)  a = Add(e, o)  y = Div(e, a)⟩ }",
    "tanh by exponentials": _X + "<float o = {1}, float k = {2}> "
    "{ ⟨y = Tanh(x)|a = Mul(x, k)  e = Exp(a)  p = Sub(e, o)  q = Add(e, o)  y = Div(p, q)⟩ }",
    "a mean of squares that overflows": "g (float[n, 8] x) => (float[n, 1] y) <int64[1] i = {1}> "
    "{ m = ReduceMax(x, i)  ⟨d = Sub(x, m)  y = ReduceL2(d, i)|d = Sub(x, m)  q = Mul(d, d)  f = Cast<to=10>(q)  h = Cast<to=1>(f)  s = ReduceSum(h, i)  y = Sqrt(s)⟩ }",
    "variance as E[x²] − E[x]²": "g (float[n, 8] x) => (float[n, 1] y) <int64[1] i = {1}, float k = {100}> { a = Add(x, k)  m = ReduceMean(a, i)  "
    "⟨d = Sub(a, m)  q = Mul(d, d)  y = ReduceMean(q, i)|q = Mul(a, a)  e = ReduceMean(q, i)  p = Mul(m, m)  y = Sub(e, p)⟩ }",
    # --- integers and types ---
    "Mod's sign": _INT + "<int64 c = {3}> { y = Mod<fmod=⟨0|1⟩>(x, c) }",
    "Mod by Div": _INT + "<int64 c = {3}> { ⟨y = Mod(x, c)|q = Div(x, c)  p = Mul(q, c)  y = Sub(x, p)⟩ }",
    "Mod of floats": _X + "<float c = {1.5}> { ⟨y = Mod<fmod=1>(x, c)|q = Div(x, c)  f = Floor(q)  p = Mul(f, c)  y = Sub(x, p)⟩ }",
    "integer Div rounds down": _INT + "<int64 c = {4}> { ⟨y = Div(x, c)|m = Mod(x, c)  d = Sub(x, m)  y = Div(d, c)⟩ }",
    "integer Div by a shift": "g (int64[n, 4] x) => (int64[n, 4] y) <int64 c = {4}, uint64 s = {2}> "
    "{ ⟨y = Div(x, c)|f = Cast<to=11>(x)  k = CastLike(c, f)  d = Div(f, k)  g = Floor(d)  y = Cast<to=7>(g)⟩ }",
    "int64 through int32": _INT + "{ ⟨y = Identity(x)|a = Cast<to=6>(x)  y = Cast<to=7>(a)⟩ }",
    "int64 through float": _INT + "{ ⟨y = Identity(x)|a = Cast<to=1>(x)  y = Cast<to=7>(a)⟩ }",
    "int64 through double": _INT + "{ ⟨y = Identity(x)|a = Cast<to=11>(x)  y = Cast<to=7>(a)⟩ }",
    "a sum of int32 that overflows": "g (int32[n, 4] x) => (int64[n, 4] y) "
    "{ ⟨a = Cast<to=7>(x)  y = Mul(a, a)|a = Mul(x, x)  y = Cast<to=7>(a)⟩ }",
    "uint8 arithmetic that wraps": "g (uint8[n, 4] x, uint8[n, 4] z) => (float[n, 4] y) "
    "{ ⟨a = Cast<to=1>(x)  b = Cast<to=1>(z)  y = Sub(a, b)|a = Sub(x, z)  y = Cast<to=1>(a)⟩ }",
    "int8 that wraps": "g (int8[n, 4] x) => (int32[n, 4] y) { ⟨a = Cast<to=6>(x)  y = Neg(a)|a = Neg(x)  y = Cast<to=6>(a)⟩ }",
    "uint8 read as int8": "g (uint8[n, 4] x) => (float[n, 4] y) { ⟨y = Cast<to=1>(x)|a = Cast<to=3>(x)  y = Cast<to=1>(a)⟩ }",
    "an integer sum in float": "g (int64[n, 4] x) => (int64[n, 1] y) <int64[1] i = {1}> "
    "{ ⟨y = ReduceSum(x, i)|a = Cast<to=1>(x)  s = ReduceSum(a, i)  y = Cast<to=7>(s)⟩ }",
    "BitShift's direction": "g (uint32[n, 4] x) => (uint32[n, 4] y) <uint32 k = {1}> { y = BitShift<direction=⟨\"LEFT\"|\"RIGHT\"⟩>(x, k) }",
    "a bit lost": "g (uint8[n, 4] x) => (uint8[n, 4] y) <uint8 k = {⟨255|127⟩}> { y = BitwiseAnd(x, k) }",
    "a cast that rounds": "g (float[n, 4] x) => (int32[n, 4] y) { ⟨y = Cast<to=6>(x)|r = Round(x)  y = Cast<to=6>(r)⟩ }",
    "bool is x > 0": "g (float[n, 4] x) => (bool[n, 4] y) <float z = {0}> { y = ⟨Cast<to=9>(x)|Greater(x, z)⟩ }",
    "a cast to integer and back dropped": _X + "{ ⟨a = Cast<to=7>(x)  y = Cast<to=1>(a)|y = Identity(x)⟩ }",
    "a cast through half inserted": _X + "{ ⟨y = Identity(x)|a = Cast<to=10>(x)  y = Cast<to=1>(a)⟩ }",
    "a cast through bfloat16 inserted": _X + "{ ⟨y = Identity(x)|a = Cast<to=16>(x)  y = Cast<to=1>(a)⟩ }",
    "a cast through half dropped": _X + "{ ⟨a = Cast<to=10>(x)  h = Cast<to=1>(a)|h = Identity(x)⟩  y = Sub(x, h) }",
    "double computed in float": "g (double[n, 4] x) => (double[n, 4] y) { ⟨y = Sqrt(x)|a = Cast<to=1>(x)  b = Sqrt(a)  y = Cast<to=11>(b)⟩ }",
    "half computed with a constant of float": "g (float16[n, 4] x) => (float16[n, 4] y) <float k = {0.1}, float s = {0.12}> "
    "{ ⟨c = CastLike(k, x)|c = CastLike(s, x)⟩  y = Mul(x, c) }",
    "And became Or": "g (bool[n, 4] x, bool[n, 4] z) => (bool[n, 4] y) { y = ⟨And|Or⟩(x, z) }",
    "Xor became Or": "g (bool[n, 4] x, bool[n, 4] z) => (bool[n, 4] y) { y = ⟨Xor|Or⟩(x, z) }",
    "Not dropped": "g (bool[n, 4] x) => (bool[n, 4] y) { y = ⟨Not|Identity⟩(x) }",
    "Where's branches swapped": "g (bool[n, 4] c, float[n, 4] x, float[n, 4] z) => (float[n, 4] y) { y = Where(c, ⟨x, z|z, x⟩) }",
    "Where by a product": "g (bool[n, 4] c, float[n, 4] x) => (float[n, 4] y) <float o = {-1}> { ⟨y = Where(c, x, o)|f = Cast<to=1>(c)  y = Mul(f, x)⟩ }",
    "Equal became NotEqual": "g (int64[n, 4] x) => (bool[n, 4] y) <int64 k = {3}> { ⟨y = Equal(x, k)|e = Equal(x, k)  y = Not(e)⟩ }",
    "Equal to another constant": "g (int64[n, 4] x) => (bool[n, 4] y) <int64 k = {⟨30522|30521⟩}> { y = Equal(x, k) }",
    "a string's last word": 'g (string[n] x) => (string[n] y) { y = StringConcat(x, ⟨x|e⟩) }'.replace("{", "<string[1] e = {\"\"}> {", 1),
    "quantization that rounds down": "g (float[n, 4] x) => (uint8[n, 4] y) <float s = {0.05}, uint8 z = {128}, float h = {0.025}> "
    "{ ⟨a = Identity(x)|a = Sub(x, h)⟩  y = QuantizeLinear(a, s, z) }",
    "a zero point off by one": "g (float[n, 4] x) => (uint8[n, 4] y) <float s = {0.05}, uint8 z = {⟨128|127⟩}> { y = QuantizeLinear(x, s, z) }",
    "int8 for uint8": "g (float[n, 4] x) => (float[n, 4] y) <float s = {0.01}, uint8 a = {0}, int8 b = {0}> "
    "{ q = QuantizeLinear(x, s, ⟨a|b⟩)  y = DequantizeLinear(q, s, ⟨a|b⟩) }",
    "per-channel scales along the other axis": "g (float[n, 3, 3] x) => (float[n, 3, 3] y) <float[3] s = {0.01, 0.1, 0.03}, int8[3] z = {0, 3, -2}> "
    "{ q = QuantizeLinear<axis=⟨1|2⟩>(x, s, z)  y = DequantizeLinear<axis=⟨1|2⟩>(q, s, z) }",
    "Dequantize without its zero point": "g (uint8[n, 4] x) => (float[n, 4] y) <float s = {0.05}, uint8 z = {3}> { y = DequantizeLinear(x, s⟨, z|⟩) }",
    "a Q/DQ pair dropped": _X + "<float s = {0.05}, int8 z = {0}> { ⟨q = QuantizeLinear(x, s, z)  y = DequantizeLinear(q, s, z)|y = Identity(x)⟩ }",
    # --- reductions and normalizations ---
    "ReduceMean became ReduceSum": "g (float[n, 4] x) => (float[n, 1] y) <int64[1] i = {1}> { y = ⟨ReduceMean|ReduceSum⟩(x, i) }",
    "a reduction over the other axis": "g (float[n, 4, 4] x) => (float[n, 4] y) <int64[1] i = {⟨1|2⟩}> { y = ReduceMax<keepdims=0>(x, i) }",
    "a reduction over one axis of two": "g (float[n, 4, 4] x) => (float[n, a, b] y) <int64[⟨2|1⟩] i = {⟨1, 2|1⟩}> { m = ReduceMean(x, i)  y = Sub(x, m) }",
    "keepdims lost before a broadcast": "g (float[4, 4] x) => (float[4, 4] y) <int64[1] i = {1}> { m = ReduceMean<keepdims=⟨1|0⟩>(x, i)  y = Sub(x, m) }",
    "keepdims lost at an output": "g (float[n, 4] x) => (float y) { a = ReduceMax(x)  y = ⟨ReduceSum<keepdims=0>|ReduceMax⟩(a) }",
    "no axes taken for none": "g (float[n, 4] x) => (float[a, b] y) { y = ReduceSum<noop_with_empty_axes=⟨0|1⟩>(x) }",
    "ReduceL2 became ReduceL1": "g (float[n, 4] x) => (float[n, 1] y) <int64[1] i = {1}> { y = ⟨ReduceL2|ReduceL1⟩(x, i) }",
    "ReduceMax became ReduceMin": "g (float[n, 4] x) => (float[n, 1] y) <int64[1] i = {1}> { y = ⟨ReduceMax|ReduceMin⟩(x, i) }",
    "ReduceProd became ReduceSum": "g (float[n, 4] x) => (float[n, 1] y) <int64[1] i = {1}> { y = ⟨ReduceProd|ReduceSum⟩(x, i) }",
    "ReduceSumSquare without its square": "g (float[n, 4] x) => (float[n, 1] y) <int64[1] i = {1}> { y = ⟨ReduceSumSquare|ReduceSum⟩(x, i) }",
    "Softmax over the other axis": "g (float[4, 4] x) => (float[4, 4] y) { y = Softmax<axis=⟨1|0⟩>(x) }",
    "Softmax of opset 11 taken for 13's": '<ir_version: 10, opset_import: ["": ⟨11|13⟩]> g (float[n, 2, 3] x) => (float[n, 2, 3] y) { y = Softmax<axis=1>(x) }',
    "Softmax became LogSoftmax": _X + "{ y = ⟨Softmax|LogSoftmax⟩(x) }",
    "Hardmax became Softmax": _X + "{ y = ⟨Hardmax|Softmax⟩(x) }",
    "the last of equal maxima": "g (float[n, 4] x) => (int64[n, 1] y) { y = ArgMax<axis=1, select_last_index=⟨0|1⟩>(x) }",
    "ArgMax became ArgMin": "g (float[n, 4] x) => (int64[n, 1] y) { y = ⟨ArgMax|ArgMin⟩<axis=1>(x) }",
    "ArgMax over the other axis": "g (float[4, 4] x) => (int64[4] y) { y = ArgMax<axis=⟨1|0⟩, keepdims=0>(x) }",
    "TopK of the smallest": "g (float[n, 4] x) => (float[n, 2] y, int64[n, 2] i) <int64[1] k = {2}> { y, i = TopK<largest=⟨1|0⟩>(x, k) }",
    "TopK's k off by one": "g (float[n, 4] x) => (float[n, k] y) <int64[1] k = {⟨3|2⟩}> { a, i = TopK(x, k)  y = Relu(a) }",
    "LayerNorm's ε": "g (float[n, 8] x, float[8] s) => (float[n, 8] y) { y = LayerNormalization<epsilon=⟨0.00001|0.001⟩>(x, s) }",
    "LayerNorm's ε of 1e-5 became 1e-6": "g (float[n, 8] x, float[8] s) => (float[n, 8] y) { y = LayerNormalization<epsilon=⟨0.00001|0.000001⟩>(x, s) }",
    "LayerNorm over the other axis": "g (float[n, 4, 4] x, float[4] s) => (float[n, 4, 4] y) "
    "{ ⟨y = LayerNormalization(x, s)|t = Transpose<perm=[0, 2, 1]>(x)  u = LayerNormalization(t, s)  y = Transpose<perm=[0, 2, 1]>(u)⟩ }",
    "LayerNorm without its mean": _NORM.replace("d = Sub(x, m)", "d = ⟨Sub(x, m)|Identity(x)⟩"),
    "LayerNorm by a cube": _NORM.replace("q = Mul(d, d)", "⟨q = Mul(d, d)|c = Mul(d, d)  q = Mul(c, d)⟩"),
    "LayerNorm's variance of n − 1": _NORM.replace("w = Add(v, e)", "⟨w = Add(v, e)|k = Constant<value_float=1.1428571>()  u_ = Mul(v, k)  w = Add(u_, e)⟩"),
    "LayerNorm's ε outside the root": _NORM.replace("w = Add(v, e)  r = Sqrt(w)", "⟨w = Add(v, e)  r = Sqrt(w)|w = Sqrt(v)  r = Add(w, e)⟩"),
    "LayerNorm's bias before its scale": _NORM.replace("u = Mul(t, s)  y = Add(u, b)", "⟨u = Mul(t, s)  y = Add(u, b)|u = Add(t, b)  y = Mul(u, s)⟩"),
    "InstanceNormalization over all channels": "g (float[n, 2, 9] x) => (float[n, 2, 9] y) <float[2] s = {1, 2}, float[2] b = {0.1, -1}, float[1] o = {1}, int64[3] i = {0, 2, 9}, int64[3] p = {0, 1, -1}, float[1] z = {0}, float[2, 1] ss = {1, 2}, float[2, 1] bb = {0.1, -1}> "
    "{ ⟨y = InstanceNormalization(x, s, b)|r = Reshape(x, p)  q = InstanceNormalization(r, o, z)  t = Reshape(q, i)  u = Mul(t, ss)  y = Add(u, bb)⟩ }",
    "a BatchNormalization's mean and variance swapped": "g (float[n, 2, 3] x) => (float[n, 2, 3] y) <float[2] s = {1, 2}, float[2] b = {3, 4}, float[2] u = {0.5, 2}, float[2] v = {1, 4}> { y = BatchNormalization(x, s, b, ⟨u, v|v, u⟩) }",
    "a BatchNormalization's ε": "g (float[n, 2, 3] x) => (float[n, 2, 3] y) <float[2] s = {1, 2}, float[2] b = {3, 4}, float[2] u = {0.5, -1}, float[2] v = {1, 4}> { y = BatchNormalization<epsilon=⟨0.00001|0.001⟩>(x, s, b, u, v) }",
    "a BatchNormalization folded without its root": "g (float[n, 2] x) => (float[n, 2] y) <float[2] s = {1, 2}, float[2] b = {3, 4}, float[2] u = {0.5, -1}, float[2] v = {1, 4}, float[2] k = {1, 0.5}, float[2] c = {2.5, 4.5}> "
    "{ ⟨y = BatchNormalization(x, s, b, u, v)|m = Mul(x, k)  y = Add(m, c)⟩ }",
    "LRN's window": "g (float[n, 6, 3, 2] x) => (float[n, 6, 3, 2] y) { y = LRN<size=⟨3|5⟩, alpha=0.5>(x) }",
    "L2 normalization by L1": _X + "{ y = LpNormalization<p=⟨2|1⟩>(x) }",
    # --- products ---
    "MatMul's operands swapped": "g (float[3, 3] x, float[3, 3] z) => (float[3, 3] y) { y = MatMul(⟨x, z|z, x⟩) }",
    "a square weight transposed": "g (float[n, 3] x) => (float[n, 3] y) <float[3, 3] w = {1, 2, 3, 4, 5, 6, 7, 8, 9}, float[3, 3] v = {1, 4, 7, 2, 5, 8, 3, 6, 9}> { y = MatMul(x, ⟨w|v⟩) }",
    "one weight of 64": "g (float[n, 8] x) => (float[n, 8] y) <float[8, 8] w = {" + _n(64) + "}, float[8, 8] v = {" + _n(64).replace("0.50", "0.51", 1) + "}> { y = MatMul(x, ⟨w|v⟩) }",
    "Gemm's alpha": "g (float[n, 3] x, float[3, 2] w, float[2] b) => (float[n, 2] y) { y = Gemm<alpha=⟨1.0|0.5⟩>(x, w, b) }",
    "Gemm's beta lost": "g (float[n, 3] x, float[3, 2] w, float[2] b) => (float[n, 2] y) { y = Gemm<beta=⟨0.5|1.0⟩>(x, w, b) }",
    "Gemm of a transposed weight": "g (float[n, 3] x, float[3, 3] w) => (float[n, 3] y) { y = Gemm<transB=⟨0|1⟩>(x, w) }",
    "Gemm's bias as a column": "g (float[3, 3] x, float[3, 3] w) => (float[3, 3] y) <float[1, 3] r = {1, 2, 3}, float[3, 1] c = {1, 2, 3}> { y = Gemm(x, w, ⟨r|c⟩) }",
    "a bias dropped": "g (float[n, 3] x) => (float[n, 3] y) <float[3, 3] w = {1, 2, 3, 4, 5, 6, 7, 8, 9}, float[3] b = {1, 2, 3}> { m = MatMul(x, w)  y = ⟨Add(m, b)|Identity(m)⟩ }",
    "two products reassociated wrongly": "g (float[2, 2] x) => (float[2, 2] y) <float[2, 2] a = {1, 2, 3, 4}, float[2, 2] b = {0, 1, -1, 2}> { p = MatMul(x, ⟨a|b⟩)  y = MatMul(p, ⟨b|a⟩) }",
    "Einsum's letters": 'g (float[2, 3, 3] x, float[2, 3, 3] z) => (float[2, 3, 3] y) { y = Einsum<equation=⟨"bij,bjk->bik"|"bij,bkj->bik"⟩>(x, z) }',
    "a bias along the other axis": "g (float[n, 3, 3] x) => (float[n, 3, 3] y) <float[3, 1] c = {1, 2, 3}, float[3] r = {1, 2, 3}> { y = Add(x, ⟨c|r⟩) }",
    # --- attention ---
    "a scale of 1/d for 1/√d": _ATTENTION.replace("{2.828427}", "{⟨2.828427|8⟩}"),
    "a scale in the fourth digit": _ATTENTION.replace("{2.828427}", "{⟨2.828427|2.8281⟩}"),
    "a causal mask off by one": _ATTENTION.replace("one = {1}", "one = {⟨1|0⟩}"),
    "a causal mask that lets one more through": _ATTENTION.replace("one = {1}", "one = {⟨1|2⟩}"),
    "a causal mask of the other side": _ATTENTION.replace("upper=1>(f, one)", "upper=⟨1|0⟩>(f, one)"),
    "a causal mask dropped": _ATTENTION.replace("a = Add(r, m)", "a = ⟨Add(r, m)|Identity(r)⟩"),
    "a mask too weak for large scores": _ATTENTION.replace("{-1e9}", "{⟨-1e9|-100⟩}"),
    "Q and K swapped": _ATTENTION.replace("(q, t)", "(⟨q|v⟩, t)"),
    "softmax over the queries": _ATTENTION.replace("w = Softmax<axis=-1>", "w = Softmax<axis=⟨-1|-2⟩>"),
    "a padding mask inverted": "g (float[b, s, 8] x, int64[b, s] attention_mask) => (float[b, s] y) <float o = {1}, float k = {-10000}, int64[1] i = {-1}> "
    "{ f = Cast<to=1>(attention_mask)  g_ = ⟨Sub(o, f)|Identity(f)⟩  m = Mul(g_, k)  r = ReduceSum<keepdims=0>(x, i)  a = Add(r, m)  y = Softmax(a) }",
    "a padding mask ignored": "g (float[b, s, 8] x, int64[b, s] attention_mask) => (float[b, s] y) <float o = {1}, float k = {-10000}, int64[1] i = {-1}> "
    "{ f = Cast<to=1>(attention_mask)  g_ = Sub(o, f)  m = Mul(g_, k)  r = ReduceSum<keepdims=0>(x, i)  a = ⟨Add(r, m)|Identity(r)⟩  y = Softmax(a) }",
    "an empty row of a mask": "g (float[b, s] x, int64[b, s] attention_mask) => (float[b, s] y) <float z = {0}, float lo = {-1e30}, int64[1] i = {-1}> "
    "{ c = Cast<to=9>(attention_mask)  m = Where(c, z, lo)  a = Add(x, m)  p = Softmax(a)  ⟨y = Identity(p)|f = Cast<to=1>(attention_mask)  y = Mul(p, f)⟩ }",
    "a float mask that is not read": "g (float[b, s] x, float[b, s] attention_mask) => (float[b, s] y) { a = ⟨Add(x, attention_mask)|Identity(x)⟩  y = Softmax(a) }",
    "pooling that counts padding": "g (float[b, s, 4] x, int64[b, s] attention_mask) => (float[b, 4] y) <int64[1] i = {1}, int64[1] j = {2}> "
    "{ f = Cast<to=1>(attention_mask)  u = Unsqueeze(f, j)  p = Mul(x, u)  s_ = ReduceSum<keepdims=0>(p, i)  ⟨c = ReduceSum<keepdims=0>(u, i)|o = Sign(u)  e = Exp(o)  l = Log(e)  q = Abs(l)  k = Shape<start=1, end=2>(x)  c0 = Cast<to=1>(k)  c = Identity(c0)⟩  y = Div(s_, c) }",
    "a rotation of the wrong half": "g (float[b, s, 4] x, float[s, 2] c) => (float[b, s, 4] y) "
    "{ a, d = Split<axis=-1, num_outputs=2>(x)  p = Mul(a, c)  q = Mul(d, c)  ⟨u = Sub(p, q)  v = Add(p, q)|u = Add(p, q)  v = Sub(p, q)⟩  y = Concat<axis=-1>(u, v) }",
    "rotary halves interleaved": "g (float[b, s, 4] x) => (float[b, s, 4] y) <int64[4] i = {0, 2, 1, 3}> { a, d = Split<axis=-1, num_outputs=2>(x)  m = Neg(d)  t = Concat<axis=-1>(m, a)  ⟨y = Identity(t)|y = Gather<axis=-1>(t, i)⟩ }",
    "positions off by one": "g (float[b, s, 2] x) => (float[b, s, 2] y) <float[64, 2] table = {" + _n(128) + "}, int64 z = {0}, int64 o = {1}, int64[1] zz = {0}, int64[1] oo = {1}> "
    "{ n = Shape<start=1, end=2>(x)  ⟨e = Slice(table, zz, n, zz)|n1 = Add(n, oo)  e = Slice(table, oo, n1, zz)⟩  y = Add(x, e) }",
    "grouped heads in the other order": "g (float[b, 2, s, 4] k) => (float[b, 4, s, 4] y) <int64[4] i = {0, 0, 1, 1}, int64[4] j = {0, 1, 0, 1}> { y = Gather<axis=1>(k, ⟨i|j⟩) }",
    # --- convolutions and pooling ---
    "asymmetric pads swapped": _IMAGE + _W + " { y = Conv<pads=⟨[0, 0, 1, 1]|[1, 1, 0, 0]⟩>(x, w) }",
    "SAME_UPPER became SAME_LOWER": _IMAGE + _W + ' { y = Conv<auto_pad=⟨"SAME_UPPER"|"SAME_LOWER"⟩, strides=[2, 2]>(x, w) }',
    "a convolution's weights flipped": _IMAGE + _W + " { ⟨v = Identity(w)|v = Transpose<perm=[0, 1, 3, 2]>(w)⟩  y = Conv(x, v) }",
    "a convolution's channels swapped": _IMAGE + _W + " { ⟨v = Identity(w)|v = Transpose<perm=[1, 0, 2, 3]>(w)⟩  y = Conv(x, v) }",
    "a convolution's bias dropped": _IMAGE + _W[:-1] + ", float[2] b = {1, 2}> { y = Conv(x, w⟨, b|⟩) }",
    "a convolution's dilation": _IMAGE + _W + " { y = Conv<dilations=⟨[2, 2]|[1, 1]⟩, pads=⟨[2, 2, 2, 2]|[1, 1, 1, 1]⟩>(x, w) }",
    "a convolution's stride": _IMAGE + _W + " { y = Conv<strides=⟨[1, 2]|[2, 1]⟩>(x, w) }",
    "groups merged": "g (float[n, 2, 6, 6] x) => (float[n, 2, 4, 4] y) <float[2, 1, 3, 3] w = {" + _n(18) + "}, float[2, 1, 3, 3] v = {" + _n(18) + "}> { ⟨y = Conv<group=2>(x, w)|c = Concat<axis=1>(w, v)  y = Conv(x, c)⟩ }",
    "a bias folded through padding": _IMAGE + _W[:-1] + ", float k = {0.5}, int64[4] i = {0, 1, 2, 3}> { ⟨a = Add(x, k)  y = Conv<pads=[1, 1, 1, 1]>(a, w)|z = Sub(x, x)  a = Add(z, k)  c = Conv(a, w)  p = Conv<pads=[1, 1, 1, 1]>(x, w)  m = GlobalAveragePool(c)  y = Add(p, m)⟩ }",
    "ConvTranspose as Conv": "g (float[n, 2, 6, 6] x) => (float[n, 2, h, w] y) " + _W + " { y = ⟨ConvTranspose<pads=[1, 1, 1, 1]>|Conv<pads=[1, 1, 1, 1]>⟩(x, w) }",
    "ConvTranspose's output padding": "g (float[n, 2, 6, 6] x) => (float[n, 2, h, w] y) " + _W + " { y = ConvTranspose<strides=[2, 2], pads=⟨[1, 1, 0, 0]|[0, 0, 1, 1]⟩>(x, w) }",
    "MaxPool became AveragePool": _IMAGE + "{ y = ⟨MaxPool|AveragePool⟩<kernel_shape=[2, 2], strides=[2, 2]>(x) }",
    "MaxPool padded with zeros": _IMAGE + "<int64[8] p = {0, 0, 1, 1, 0, 0, 1, 1}> { ⟨y = MaxPool<kernel_shape=[3, 3], pads=[1, 1, 1, 1]>(x)|a = Pad(x, p)  y = MaxPool<kernel_shape=[3, 3]>(a)⟩ }",
    "AveragePool that counts padding": _IMAGE + "{ y = AveragePool<kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=⟨0|1⟩>(x) }",
    "ceil_mode": "g (float[n, 2, s, s] x) => (float[n, 2, h, w] y) { y = MaxPool<kernel_shape=[2, 2], strides=[2, 2], ceil_mode=⟨0|1⟩>(x) }",
    "a pool's stride lost": _IMAGE + "{ y = MaxPool<kernel_shape=[2, 2]⟨, strides=[2, 2]|⟩>(x) }",
    "a pool's dilation": _IMAGE + "{ y = MaxPool<kernel_shape=[2, 2], dilations=⟨[1, 2]|[2, 1]⟩>(x) }",
    "GlobalAveragePool became GlobalMaxPool": _IMAGE + "{ y = ⟨GlobalAveragePool|GlobalMaxPool⟩(x) }",
    "LpPool of another p": _IMAGE + "{ y = LpPool<kernel_shape=[2, 2], p=⟨2|1⟩>(x) }",
    "a size baked into a global pool": "g (float[n, 2, s, s] x) => (float[n, 2, h, w] y) { ⟨y = GlobalAveragePool(x)|y = AveragePool<kernel_shape=[5, 5]>(x)⟩ }",
    # --- layout ---
    "Transpose's perm": "g (float[n, 3, 3] x) => (float[a, b, c] y) { y = Transpose<perm=⟨[0, 2, 1]|[0, 1, 2]⟩>(x) }",
    "Transpose's inverse perm": "g (float[3, 3, 3] x) => (float[3, 3, 3] y) { y = Transpose<perm=⟨[1, 2, 0]|[2, 0, 1]⟩>(x) }",
    "Reshape for Transpose": "g (float[3, 4] x) => (float[4, 3] y) <int64[2] s = {4, 3}> { y = ⟨Transpose(x)|Reshape(x, s)⟩ }",
    "Flatten's axis": "g (float[n, 2, 3] x) => (float[a, b] y) { y = Flatten<axis=⟨1|2⟩>(x) }",
    "Unsqueeze's axis": "g (float[3, 3] x) => (float[3, 3, 3] y) <int64[1] i = {⟨0|1⟩}> { u = Unsqueeze(x, i)  s = Transpose<perm=[1, 0]>(x)  k = Constant<value_ints=[2]>()  t = Unsqueeze(s, k)  y = Add(u, t) }",
    "Concat's operands swapped": "g (float[n, 4] x, float[n, 4] z) => (float[n, 8] y) { y = Concat<axis=1>(⟨x, z|z, x⟩) }",
    "Concat along the other axis": "g (float[1, 4, 4] x) => (float[a, b, c] y) { z = Neg(x)  k = Concat<axis=⟨1|2⟩>(x, z)  q = Flatten<axis=1>(k)  s = Constant<value_ints=[1, 4, 8]>()  y = Reshape(q, s) }",
    "Split's outputs swapped": "g (float[n, 4] x) => (float[n, 2] y) { a, b = Split<axis=1, num_outputs=2>(x)  y = Sub(⟨a, b|b, a⟩) }",
    "Split's sizes": "g (float[n, 6] x) => (float[n, 1] y) <int64[2] s = {⟨2, 4|4, 2⟩}, int64[1] i = {1}> { a, b = Split<axis=1>(x, s)  p = ReduceMax(a, i)  q = ReduceMin(b, i)  y = Sub(p, q) }",
    "Slice's start": "g (float[n, 8] x) => (float[n, 4] y) <int64[1] s = {⟨2|3⟩}, int64[1] e = {⟨6|7⟩}, int64[1] a = {1}> { y = Slice(x, s, e, a) }",
    "Slice's end": "g (float[n, 8] x) => (float[n, k] y) <int64[1] s = {2}, int64[1] e = {⟨6|5⟩}, int64[1] a = {1}> { y = Slice(x, s, e, a) }",
    "Slice's step": "g (float[n, 8] x) => (float[n, k] y) <int64[1] s = {0}, int64[1] e = {8}, int64[1] a = {1}, int64[1] t = {⟨2|3⟩}> { y = Slice(x, s, e, a, t) }",
    "a Slice backwards": "g (float[n, 4] x) => (float[n, 4] y) <int64[1] s = {-1}, int64[1] e = {-100}, int64[1] a = {1}, int64[1] t = {-1}> { y = ⟨Slice(x, s, e, a, t)|Identity(x)⟩ }",
    "a Slice by negative ends": "g (float[n, m] x) => (float[n, k] y) <int64[1] s = {0}, int64[1] e = {⟨-1|4⟩}, int64[1] a = {1}> { y = Slice(x, s, e, a) }",
    "a Slice of the first five taken for all": "g (float[n, m] x) => (float[n, k] y) <int64[1] s = {0}, int64[1] e = {5}, int64[1] a = {1}> { y = ⟨Slice(x, s, e, a)|Identity(x)⟩ }",
    "Gather's index": "g (float[n, 4] x) => (float[n] y) <int64 i = {⟨2|1⟩}> { y = Gather<axis=1>(x, i) }",
    "Gather's last taken for the fifth": "g (float[n, m] x) => (float[n] y) <int64 i = {⟨-1|4⟩}> { y = Gather<axis=1>(x, i) }",
    "Gather along the other axis": "g (float[4, 4] x, int64[3] i) => (float[a, b] y) { ⟨y = Gather<axis=0>(x, i)|t = Gather<axis=1>(x, i)  y = Transpose(t)⟩ }",
    "negative indices taken for none": "g (int64[n] i) => (float[n, 2] y) <float[5, 2] w = {" + _n(10) + "}, int64 z = {0}> { ⟨j = Identity(i)|j = Max(i, z)⟩  y = Gather(w, j) }",
    "GatherElements for Gather": "g (float[3, 3] x) => (float[3, 3] y) <int64[3, 3] i = {0, 1, 2, 2, 0, 1, 1, 1, 0}, int64[3] j = {0, 1, 2}> { y = ⟨GatherElements<axis=0>(x, i)|Gather<axis=0>(x, j)⟩ }",
    "GatherND's batch dims": "g (float[2, 2, 2] x) => (float[a, b] y) <int64[2, 1] i = {1, 0}> { y = GatherND<batch_dims=⟨1|0⟩>(x, i)⟨|⟩ }",
    "ScatterND's reduction": 'g (float[4, 2] x, float[2, 2] u) => (float[4, 2] y) <int64[2, 1] i = {1, 3}> { y = ScatterND<reduction=⟨"none"|"add"⟩>(x, i, u) }',
    "ScatterND's duplicates": 'g (float[4, 2] x, float[2, 2] u) => (float[4, 2] y) <int64[2, 1] i = {1, 1}> { y = ScatterND<reduction=⟨"add"|"none"⟩>(x, i, u) }',
    "ScatterElements along the other axis": "g (float[3, 3] x) => (float[3, 3] y) <int64[3, 3] i = {0, 1, 2, 2, 0, 1, 1, 2, 0}> { z = Neg(x)  y = ScatterElements<axis=⟨0|1⟩>(x, i, z) }",
    "Pad by the edge for a constant": 'g (float[n, 4] x) => (float[n, 6] y) <int64[4] p = {0, 1, 0, 1}> { y = Pad<mode=⟨"constant"|"edge"⟩>(x, p) }',
    "Pad's reflection": 'g (float[n, 4] x) => (float[n, 6] y) <int64[4] p = {0, 1, 0, 1}> { y = Pad<mode=⟨"reflect"|"edge"⟩>(x, p) }',
    "Pad's value lost": "g (float[n, 4] x) => (float[n, 6] y) <int64[4] p = {0, 1, 0, 1}, float v = {0.5}> { y = Pad(x, p⟨, v|⟩) }",
    "Pad's ends swapped": "g (float[n, 4] x) => (float[n, 5] y) <int64[4] p = {⟨0, 1, 0, 0|0, 0, 0, 1⟩}> { y = Pad(x, p) }",
    "Tile for Expand": "g (float[n, 2, 1] x) => (float[n, 6] y) <int64[3] t = {1, 1, 3}, int64[3] u = {1, 3, 1}, int64[2] s = {0, 6}> { a = Tile(x, ⟨t|u⟩)  y = Reshape(a, s) }",
    "DepthToSpace's order": 'g (float[n, 8, 2, 2] x) => (float[n, 2, 4, 4] y) { y = DepthToSpace<blocksize=2, mode=⟨"DCR"|"CRD"⟩>(x) }',
    "Resize's rounding": 'g (float[n, 1, 3, 3] x) => (float[n, 1, h, w] y) <float[4] s = {1, 1, 1.5, 1.5}> { y = Resize<mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode=⟨"floor"|"ceil"⟩>(x, , s) }',
    "Resize's coordinates": 'g (float[n, 1, 3, 3] x) => (float[n, 1, h, w] y) <float[4] s = {1, 1, 2, 2}> { y = Resize<mode="linear", coordinate_transformation_mode=⟨"half_pixel"|"align_corners"⟩>(x, , s) }',
    "Resize's mode": 'g (float[n, 1, 3, 3] x) => (float[n, 1, h, w] y) <float[4] s = {1, 1, 2, 2}> { y = Resize<mode=⟨"linear"|"nearest"⟩>(x, , s) }',
    "OneHot's values swapped": "g (int64[n] x) => (float[n, 5] y) <int64 d = {5}, float[2] v = {⟨0, 1|1, 0⟩}> { y = OneHot(x, d, v) }",
    "OneHot's axis": "g (int64[5] x) => (float[5, 5] y) <int64 d = {5}, float[2] v = {0, 1}> { y = OneHot<axis=⟨1|0⟩>(x, d, v) }",
    "CumSum exclusive": "g (float[n, 4] x) => (float[n, 4] y) <int64 a = {1}> { y = CumSum<exclusive=⟨0|1⟩>(x, a) }",
    "CumSum backwards": "g (float[n, 4] x) => (float[n, 4] y) <int64 a = {1}> { y = CumSum<reverse=⟨0|1⟩>(x, a) }",
    "Trilu off by one": "g (float[4, 4] x) => (float[4, 4] y) <int64 k = {⟨0|1⟩}> { y = Trilu(x, k) }",
    "EyeLike off by one": "g (float[n, m] x) => (float[n, m] y) { i = EyeLike<k=⟨0|1⟩>(x)  y = Mul(x, i) }",
    "NonZero transposed": "g (float[3, 3] x) => (int64[a, b] y) { t = NonZero(x)  k = Constant<value_ints=[1, 0]>()  y = ⟨Identity(t)|Gather<axis=0>(t, k)⟩ }",
    "Compress along the other axis": "g (float[3, 3] x) => (float[a, b] y) <bool[3] c = {1, 0, 1}> { ⟨y = Compress<axis=0>(x, c)|t = Compress<axis=1>(x, c)  y = Transpose(t)⟩ }",
    "ReverseSequence over the batch": "g (float[3, 3] x) => (float[3, 3] y) <int64[3] l = {3, 2, 1}> { y = ReverseSequence<time_axis=⟨0|1⟩, batch_axis=⟨1|0⟩>(x, l) }",
    "GridSample's corners": "g (float[1, 1, 4, 4] x, float[1, 2, 2, 2] z) => (float[1, 1, 2, 2] y) { y = GridSample<align_corners=⟨0|1⟩>(x, z) }",
    "Shape's part": "g (float[n, m] x) => (int64[1] y) { y = Shape<start=⟨0|1⟩, end=⟨1|2⟩>(x) }",
    "Size for Shape": "g (float[n, m] x) => (int64 y) <int64 z = {0}> { ⟨y = Size(x)|s = Shape(x)  y = Gather(s, z)⟩ }",
    "Unique without its order": "g (int64[n] x) => (int64[m] y) { y = Unique<sorted=⟨1|0⟩>(x) }",
    # --- sizes ---
    "the batch baked into Reshape": "g (float[n, 4] x) => (float[a, b] y) <int64[2] s = {⟨-1, 2|4, 2⟩}> { y = Reshape(x, s) }",
    "the length baked into Reshape": "g (float[n, m, 4] x) => (float[a, b] y) <int64[2] s = {0, -1}, int64[2] t = {-1, 20}> { y = ⟨Flatten(x)|Reshape(x, t)⟩ }",
    "a baked batch that broadcasts": "g (float[n, 4] x) => (float[n, 4] y) { s = Shape<end=1>(x)  c = Cast<to=1>(s)  y = Mul(x, ⟨c|k⟩)⟨|  ⟩ }".replace("{ s = ", "<float[1] k = {2}> { s = "),
    "a divisor that is a size": "g (float[n, m] x) => (float[n, 1] y) <int64[1] i = {1}, float k = {5}> { s = ReduceSum(x, i)  ⟨d0 = Shape<start=1>(x)  d = Cast<to=1>(d0)|d = Identity(k)⟩  y = Div(s, d) }",
    "an Expand baked": "g (float[n, m] x) => (float[n, m] y) <float[1] o = {1}, int64[2] k = {1, 5}> { s = Shape(x)  e = Expand(o, ⟨s|k⟩)  z = Mul(e, x)  c = ReduceSum<keepdims=0>(e)  y = Mul(z, c) }",
    "a Range baked": "g (float[n, m] x) => (float[n, r] y) <int64 z = {0}, int64 o = {1}, int64 k = {5}> { s = Shape(x)  ⟨l = Gather(s, o)|l = Identity(k)⟩  r = Range(z, l, o)  f = Cast<to=1>(r)  q = ReduceSum<keepdims=0>(f)  y = Add(x, q) }",
    "a position table cut at five": "g (int64[n, m] x) => (float[n, m] y) <float[64] t = {" + _n(64) + "}, int64 k = {⟨63|4⟩}, int64 z = {0}, int64 o = {1}> { s = Shape(x)  l = Gather(s, o)  r = Range(z, l, o)  q = Min(r, k)  e = Gather(t, q)  c = Cast<to=1>(x)  y = Add(c, e) }",
    "a dimension of one squeezed away": "g (float[n, m, 4] x) => (float[n, 4] y) <int64[1] i = {1}> { y = ⟨ReduceMax<keepdims=0>(x, i)|Gather<axis=1>(x, z)⟩ }".replace("<int64[1]", "<int64 z = {0}, int64[1]"),
    "two axes that are equal at first": "g (float[n, m, k] x) => (float[n, a, b] y) { s = Shape<start=1, end=2>(x)  t = Shape<start=⟨2|1⟩>(x)  d = Cast<to=1>(t)  p = ReduceSum<keepdims=0>(d)  y = Mul(x, p) }",
    "wrong for a batch of one": "g (float[n, 4] x) => (float[n, 4] y) <int64[1] o = {1}, float a = {2}, float b = {1}> { s = Shape<end=1>(x)  e = Equal(s, o)  k = Where(e, ⟨b|a⟩, b)  y = Mul(x, k) }",
    "wrong for odd lengths": "g (float[n, m] x) => (float[n, m] y) <int64[1] t = {2}, float a = {2}, float b = {1}, int64[1] z = {0}> { s = Shape<start=1>(x)  r = Mod(s, t)  e = Equal(r, z)  k = Where(e, b, ⟨b|a⟩)  y = Mul(x, k) }",
    "wrong for even lengths": "g (float[n, m] x) => (float[n, m] y) <int64[1] t = {2}, float a = {2}, float b = {1}, int64[1] z = {0}> { s = Shape<start=1>(x)  r = Mod(s, t)  e = Equal(r, z)  k = Where(e, ⟨b|a⟩, b)  y = Mul(x, k) }",
    "wrong beyond a length of 12": "g (float[n, m] x) => (float[n, m] y) <int64[1] t = {12}, float a = {2}, float b = {1}> { s = Shape<start=1>(x)  e = Greater(s, t)  k = Where(e, ⟨b|a⟩, b)  y = Mul(x, k) }",
    "wrong beyond a length of 40": "g (float[n, m] x) => (float[n, m] y) <int64[1] t = {40}, float a = {2}, float b = {1}> { s = Shape<start=1>(x)  e = Greater(s, t)  k = Where(e, ⟨b|a⟩, b)  y = Mul(x, k) }",
    "wrong beyond a batch of two": "g (float[n, 4] x) => (float[n, 4] y) <int64[1] t = {2}, float a = {2}, float b = {1}> { s = Shape<end=1>(x)  e = Greater(s, t)  k = Where(e, ⟨b|a⟩, b)  y = Mul(x, k) }",
    "wrong for long and short inputs alike": "g (float[n, p] x, float[n, q] z) => (float[n, r] y) <float a = {2}, float b = {1}> { s = Shape<start=1>(x)  t = Shape<start=1>(z)  e = Less(s, t)  k = Where(e, b, ⟨b|a⟩)  c = Concat<axis=1>(x, z)  y = Mul(c, k) }",
    "a flattened batch": "g (float[n, 2, 3] x) => (float[a, b] y) <int64[2] s = {-1, 3}, int64[2] t = {4, 3}> { y = Reshape(x, ⟨s|t⟩) }",
    "allowzero": "g (float[n, 4] x) => (float[a, b] y) <int64[2] s = {⟨0|2⟩, 4}> { y = Reshape(x, s) }",
    # --- embeddings ---
    "the last row of a table": "g (int64[n] ids) => (float[n, 2] y) <float[50, 2] w = {" + _n(100) + "}, float[50, 2] v = {" + _n(98) + ", 9, 9}> { y = Gather(⟨w|v⟩, ids) }",
    "a rare row of a table": "g (int64[n] ids) => (float[n, 2] y) <float[200, 2] w = {" + _n(400) + "}, float[200, 2] v = {" + _n(246) + ", 9, 9, " + ", ".join(_n(400).split(", ")[248:]) + "}> { y = Gather(⟨w|v⟩, ids) }",
    "two rows of a table swapped": "g (int64[n] ids) => (float[n, 1] y) <float[300, 1] w = {" + ", ".join(map(str, range(300))) + "}, float[300, 1] v = {" + ", ".join(map(str, [*range(140), 141, 140, *range(142, 300)])) + "}> { y = Gather(⟨w|v⟩, ids) }",
    "an offset into a table": "g (int64[n] ids) => (float[n, 2] y) <float[50, 2] w = {" + _n(100) + "}, int64 k = {⟨2|1⟩}> { j = Add(ids, k)  y = Gather(w, j) }",
    "the index of padding": "g (int64[n] ids) => (float[n, 2] y) <float[50, 2] w = {" + _n(100) + "}, int64 p = {⟨1|0⟩}, float z = {0}, int64[1] a = {1}> { e = Gather(w, ids)  q = Equal(ids, p)  u = Unsqueeze(q, a)  y = Where(u, z, e) }",
    # --- graphs ---
    "outputs swapped": "g (float[n, 4] x) => (float[n, 4] y, float[n, 4] z) { ⟨y|z⟩ = Tanh(x)  ⟨z|y⟩ = Sin(x) }",
    "an output taken a node too early": "g (float[n, 4] x) => (float[n, 4] y, float[n, 4] z) { y = Relu(x)  t = Neg(y)  z = ⟨Relu(t)|Identity(t)⟩ }",
    "a default folded": "g (float[n, 4] x, float[1] k) => (float[n, 4] y) <float[1] k = {2}, float[1] c = {2}> { y = Mul(x, ⟨k|c⟩) }",
    "If's branches swapped": "g (float[n] x, bool c) => (float[n] y) { y = If(c) <then_branch = t () => (float[n] p) { p = ⟨Neg|Abs⟩(x) }, else_branch = e () => (float[n] q) { q = ⟨Abs|Neg⟩(x) }> }",
    "If taken for its first branch": "g (float[n] x, int64 sr) => (float[n] y) <int64 k = {16000}> { c = Equal(sr, k)  y = If(c) <then_branch = t () => (float[n] p) { p = Neg(x) }, else_branch = e () => (float[n] q) { q = ⟨Abs|Neg⟩(x) }> }",
    "a Loop of one step less": "g (float[n] x) => (float[n] y) <int64 k = {⟨3|2⟩}, bool c = {1}> { y = Loop(k, c, x) <body = b (int64 i, bool g, float[n] h) => (bool d, float[n] o) { d = Identity(g)  o = Sin(h) }> }",
    "a Loop's length baked": "g (float[n] x) => (float[n] y) <int64 k = {2}, bool c = {1}> { ⟨l = Size(x)|l = Identity(k)⟩  y = Loop(l, c, x) <body = b (int64 i, bool g, float[n] h) => (bool d, float[n] o) { d = Identity(g)  o = Sin(h) }> }",
    "a Loop's condition ignored": "g (float[n] x) => (float[n] y) <int64 k = {5}, bool c = {1}, int64 t = {2}> { y = Loop(k, c, x) <body = b (int64 i, bool g, float[n] h) => (bool d, float[n] o) { ⟨d = Less(i, t)|d = Identity(g)⟩  o = Sin(h) }> }",
    "a Scan backwards": "g (float[4, 2] x, float[2] s) => (float[2] u, float[4, 2] y) { u, y = Scan<num_scan_inputs=1, scan_input_directions=⟨[0]|[1]⟩, body = b (float[2] h, float[2] v) => (float[2] o, float[2] r) { a = Sin(h)  o = Add(a, v)  r = Identity(o) }>(s, x) }",
    "an LSTM's gates in another order": _LSTM + "{ ⟨v = Identity(w)|a, b_, c_, d = Split<axis=1, num_outputs=4>(w)  v = Concat<axis=1>(a, c_, b_, d)⟩  y, p, q = LSTM<hidden_size=2>(x, v, r, c, , h) }",
    "an LSTM backwards": _LSTM + '{ y, p, q = LSTM<hidden_size=2, direction=⟨"forward"|"reverse"⟩>(x, w, r, c, , h) }',
    "an LSTM's bias dropped": _LSTM + "{ y, p, q = LSTM<hidden_size=2>(x, w, r, ⟨c|⟩, , h) }",
    "an LSTM's state dropped": _LSTM + "{ y, p, q = LSTM<hidden_size=2>(x, w, r, c⟨, , h|⟩) }",
    "an LSTM's halves of the bias": _LSTM + "{ ⟨v = Identity(c)|a, b_ = Split<axis=1, num_outputs=2>(c)  z = Sub(b_, b_)  v = Concat<axis=1>(a, z)⟩  y, p, q = LSTM<hidden_size=2>(x, w, r, v, , h) }",
    "an LSTM's clip": _LSTM + "{ y, p, q = LSTM<hidden_size=2⟨|, clip=0.5⟩>(x, w, r, c, , h) }",
    "a GRU's reset after the product": "g (float[t, b, 3] x) => (float[t, 1, b, 2] y) <float[1, 6, 3] w = {" + _n(18) + "}, float[1, 6, 2] r = {" + _n(12, 3) + "}, float[1, 12] c = {" + _n(12, 5) + "}> { y, p = GRU<hidden_size=2, linear_before_reset=⟨0|1⟩>(x, w, r, c) }",
    "an RNN's activation": 'g (float[t, b, 3] x) => (float[t, 1, b, 2] y) <float[1, 2, 3] w = {' + _n(6) + "}, float[1, 2, 2] r = {" + _n(4, 3) + '}> { y, p = RNN<hidden_size=2, activations=⟨["Tanh"]|["Relu"]⟩>(x, w, r) }',
    "an RNN's lengths ignored": "g (float[5, b, 3] x, int32[b] seq_lens) => (float[5, 1, b, 2] y) <float[1, 2, 3] w = {" + _n(6) + "}, float[1, 2, 2] r = {" + _n(4, 3) + "}> { y, p = RNN<hidden_size=2>(x, w, r, ⟨, seq_lens|⟩) }",
    "Dropout's ratio applied": _X + "<float k = {0.5}> { d = Dropout(x, k)  y = ⟨Identity(d)|Mul(d, k)⟩ }",
    "a sequence's element": "g (float[n] x, float[n] z) => (float[n] y) <int64 i = {⟨0|-1⟩}> { s = SequenceConstruct(x, z)  y = SequenceAt(s, i) }",
    "a shared weight changed for both": "g (float[n, 2] x) => (float[n, 2] y, float[n, 2] z) <float[2, 2] w = {1, 2, 3, 4}, float[2] s = {2, 3}> { a = MatMul(x, w)  y = Mul(a, s)  b = MatMul(x, w)  ⟨z = Identity(b)|z = Mul(b, s)⟩ }",
    "the wrong twin of two nodes": "g (float[n, 4] x) => (float[n, 4] y) { a = Softmax<axis=0>(x)  b = Softmax<axis=1>(x)  y = Sub(a, ⟨b|a⟩) }",
    "a value read from before an update": "g (float[n, 4] x, float[n, 4] z) => (float[n, 4] y) { a = Add(x, z)  b = Relu(a)  y = Add(b, ⟨b|a⟩) }",
}  # fmt: skip


def pair(template: str) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """The model as it is right, and as it is wrong."""
    return _parse(_MARK.sub(r"\1", template)), _parse(_MARK.sub(r"\2", template))


def _parse(text: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(text if text.startswith("<") else HEAD + text)
