"""Bytes and dtypes: what must not blow up, what must stay quantized, constants of rare types, external data."""

from __future__ import annotations

import ml_dtypes
import numpy as np

from traps.trap import floats, trap

BIG = (floats(*range(64 * 64)).reshape(64, 64) % 17 - 8) / 8

TRAPS = [
    trap("a large ConstantOfShape", "a million zeros are 8 bytes of shape", "g (float[1, 1] x) => (float[1024, 1024] y) <int64[2] s = {1024, 1024}> { c = ConstantOfShape(s)  y = Add(x, c) }", large=True),
    trap("a large Tile", "a row tiled a thousand times", "g (float[1, 1] x) => (float[1024, 512] y) <int64[2] r = {1024, 512}, float[1, 1] k = {2}> { t = Tile(k, r)  y = Add(x, t) }", large=True),
    trap("a large Expand", "one number expanded to a million", "g (float[1, 1] x) => (float[1024, 512] y) <int64[2] s = {1024, 512}, float k = {2}> { t = Expand(k, s)  y = Add(x, t) }", large=True),
    trap("a large Range", "a count of a million", "g (int64[1] x) => (int64[500000] y) <int64 a = {0}, int64 n = {500000}, int64 d = {1}> { r = Range(a, n, d)  y = Add(x, r) }", large=True),
    trap("a large OneHot", "an identity matrix is large", "g (float[1, 1] x) => (float[512, 512] y) <int64[512] i, int64 d = {512}, float[2] v = {0, 1}> { r = OneHot(i, d, v)  y = Add(x, r) }", constants={"i": np.arange(512)}, large=True),
    trap("a large EyeLike", "an identity matrix is large", "g (float[1, 1] x) => (float[512, 512] y) <int64[2] s = {512, 512}> { c = ConstantOfShape(s)  r = EyeLike(c)  y = Add(x, r) }", large=True),
    trap("a large outer sum of two vectors", "a column plus a row is a matrix", "g (float[1, 1] x) => (float[512, 512] y) { r = Add(a, b)  y = Mul(x, r) }", constants={"a": np.arange(512, dtype=np.float32).reshape(512, 1), "b": np.arange(512, dtype=np.float32)}, large=True),
    trap("a large Pad of a constant", "pads are bytes, too", "g (float[1, 1] x) => (float[601, 601] y) <int64[4] p = {300, 300, 300, 300}, float[1, 1] k = {1}> { r = Pad(k, p)  y = Add(x, r) }", large=True),
    trap("a large Resize of a constant", "enlarged it is bytes", "g (float[1, 1, 1, 1] x) => (float[1, 1, 512, 512] y) <float[4] s = {1, 1, 256, 256}, float[1, 1, 2, 2] k = {1, 2, 3, 4}> { r = Resize<mode = \"nearest\">(k, \"\", s)  y = Add(x, r) }", large=True),
    trap("a weight in int8 that is cast", "as float it is four times as large", "g (float[N, 64] x) => (float[N, 64] y) <float s = {0.1}> { f = Cast<to = 1>(w)  d = Mul(f, s)  y = MatMul(x, d) }", constants={"w": (BIG * 8).astype(np.int8)}),
    trap("a weight in float16 that is cast", "as float it is twice as large", "g (float[N, 64] x) => (float[N, 64] y) { f = Cast<to = 1>(w)  y = MatMul(x, f) }", constants={"w": BIG.astype(np.float16)}),
    trap("a quantized weight", "DequantizeLinear of a constant keeps the bytes small", "g (float[N, 64] x) => (float[N, 64] y) <float s = {0.1}, int8 z = {0}> { d = DequantizeLinear(w, s, z)  y = MatMul(x, d) }", constants={"w": (BIG * 8).astype(np.int8)}),
    trap("an embedding gathered by constants", "rows gathered twice are twice as large", "g (float[1, 1] x) => (float[256, 64] y) { e = Gather(w, i)  y = Add(x, e) }", constants={"w": BIG, "i": np.arange(256) % 64}),
    trap("quantized and dequantized", "a QDQ pair is a rounding, and wanted", "g (float[N] x) => (float[N] y) <float s = {0.1}, int8 z = {0}> { q = QuantizeLinear(x, s, z)  y = DequantizeLinear(q, s, z) }", {"x": floats(0.123, 55, -99)}),
    trap("dequantized and quantized with another scale", "a requantization is no no-op", "g (int8[N] x) => (int8[N] y) <float s = {0.1}, float t = {0.2}, int8 z = {0}> { d = DequantizeLinear(x, s, z)  y = QuantizeLinear(d, t, z) }"),
    trap("quantized with a zero point before a padded Conv", "a pad is 0, which is the zero point", "g (float[N, 1, 3, 3] x) => (float[N, 1, 3, 3] y) <float s = {0.1}, uint8 z = {100}, float[1, 1, 3, 3] w = {1, 2, 3, 4, 5, 6, 7, 8, 9}> { q = QuantizeLinear(x, s, z)  d = DequantizeLinear(q, s, z)  y = Conv<pads = [1, 1, 1, 1]>(d, w) }"),
    trap("quantized around a Relu", "with a zero point of −128 the quantization clips as Relu does, with another it does not", "g (float[N] x) => (float[N] y) <float s = {0.1}, int8 z = {-100}> { r = Relu(x)  q = QuantizeLinear(r, s, z)  y = DequantizeLinear(q, s, z) }", {"x": floats(-3, -1, 2, 99)}),
    trap("quantized by channel", "the axis of the scales", "g (float[N, 2] x) => (float[N, 2] y) <float[2] s = {0.1, 0.2}, int8[2] z = {0, 3}> { q = QuantizeLinear<axis = 1>(x, s, z)  y = DequantizeLinear<axis = 1>(q, s, z) }"),
    trap("quantized constants", "Q of a constant is the user's quantization", "g (float[N, 3] x) => (float[N, 3] y) <float[3] w = {0.123, 0.5, -3}, float s = {0.1}, int8 z = {0}> { q = QuantizeLinear(w, s, z)  d = DequantizeLinear(q, s, z)  y = Add(x, d) }"),
    trap("dynamically quantized", "scales are made from the data", "g (float[N, 3] x) => (uint8[N, 3] q, float s, uint8 z) { q, s, z = DynamicQuantizeLinear(x) }"),
    trap("MatMulInteger", "integers with zero points", "g (uint8[N, 3] x) => (int32[N, 2] y) <int8[3, 2] w = {1, -2, 3, -4, 5, -6}, uint8 z = {3}> { m = MatMulInteger(x, w, z)  k = Identity(m)  y = Add(k, k) }"),
    trap("twin quantizers", "two equal quantizers are one, or two; the answers are the same", "g (float[N] x) => (float[N] y, float[N] w) <float s = {0.1}, int8 z = {0}> { q = QuantizeLinear(x, s, z)  p = QuantizeLinear(x, s, z)  y = DequantizeLinear(q, s, z)  w = DequantizeLinear(p, s, z) }"),
    trap("bfloat16 constants", "bfloat16 has 8 digits", "g (float[N] x) => (float[N] y) <bfloat16 a = {16256}, bfloat16 b = {15360}> { c = Add(a, b)  f = Cast<to = 1>(c)  y = Add(x, f) }"),
    trap("float16 constants", "float16 rounds each step", "g (float16[N] x) => (float16[N] y) <float16 a = {15360}, float16 b = {4096}> { c = Add(a, b)  y = Mul(x, c) }", by_reference=True),
    trap("float8 constants", "float8 is a type of its own", "g (float[N, 2] x) => (float[N, 2] y) <float8e4m3fn[2] k = {56, 64}> { f = Cast<to = 1>(k)  y = Add(x, f) }"),
    trap("float8 that saturates", "a Cast to float8 saturates, or not", "g (float[N] x) => (float[N] y) { a = Cast<to = 19>(x)  y = Cast<to = 1>(a) }", {"x": floats(1e6, 1, -1e6)}),
    trap("int4 constants", "two int4 in a byte", "g (float[N, 3] x) => (float[N, 3] y) <float s = {0.5}> { f = DequantizeLinear(k, s)  y = Add(x, f) }", constants={"k": np.asarray([1, -2, 7]).astype(ml_dtypes.int4)}),
    trap("uint4 in blocks", "blocked scales", "g (float[N, 4] x) => (float[N, 2] y) <float[2, 2] s = {0.5, 1, 2, 3}> { f = DequantizeLinear<axis = 0, block_size = 2>(k, s)  y = MatMul(x, f) }", constants={"k": np.arange(8).reshape(4, 2).astype(ml_dtypes.uint4)}),
    trap("double constants", "double is no float", "g (double[N] x) => (double[N] y) <double a = {1e-17}, double one = {1}> { b = Add(one, a)  c = Sub(b, one)  y = Mul(x, c) }"),
    trap("bool constants", "a mask of constants", "g (float[3] x) => (float[3] y) <bool[3] a = {1, 0, 1}, bool[3] b = {1, 1, 0}, float z = {0}> { c = And(a, b)  n = Not(c)  y = Where(n, x, z) }"),
    trap("complex constants", "complex numbers stay", "g (float[N] x) => (float[N] y) <complex64[2] c> { y = Neg(x) }", constants={"c": np.asarray([1 + 2j, 3], np.complex64)}),
    trap("weights in a file of their own", "external data is read where it lies", "g (float[N, 64] x) => (float[N, 64] y) { t = Transpose(w)  y = MatMul(x, t) }", constants={"w": BIG}, external=64),
    trap("equal weights in a file of their own", "two equal external tensors", "g (float[N, 64] x) => (float[N, 64] y) { a = MatMul(x, w)  y = MatMul(a, v) }", constants={"w": BIG, "v": BIG.copy()}, external=64),
    trap("weights that lie in a function", "what is inlined was there before", "<ir_version: 10, opset_import: [\"\": 20, \"local\": 1]>\ng (float[2, 6, 4, 4] x) => (float[A, B, C, D] y) { y = local.f(x) }\n<domain: \"local\", opset_import: [\"\": 20]> f (x) => (y) { s = Constant<value = string {\"a text\"}>()  v = Constant<value = float[6] {1, 2, 3, 4, 5, 6}>()  w = Constant<value = float[6, 6, 2, 2] {-3,-2,-1,0,1,2,3,-3,-2,-1,0,1,2,3,-3,-2,-1,0,1,2,3,-3,-2,-1,0,1,2,3,-3,-2,-1,0,1,2,3,-3,-2,-1,0,1,2,3,-3,-2,-1,0,1,2,3,-3,-2,-1,0,1,2,3,-3,-2,-1,0,1,2,3,-3,-2,-1,0,1,2,3,-3,-2,-1,0,1,2,3,-3,-2,-1,0,1,2,3,-3,-2,-1,0,1,2,3,-3,-2,-1,0,1,2,3,-3,-2,-1,0,1,2,3,-3,-2,-1,0,1,2,3,-3,-2,-1,0,1,2,3,-3,-2,-1,0,1,2,3,-3,-2,-1,0,1,2,3,-3,-2,-1,0,1,2,3,-3,-2,-1,0}>()  c = Conv(x, w)  y = BatchNormalization(c, v, v, v, v) }"),
    trap("a sparse initializer", "a sparse constant is dense where it is read", "g (float[N, 4] x) => (float[N, 4] y) { y = Add(x, k) }",
         edit=lambda m: _sparse(m)),
]  # fmt: skip


def _sparse(m: object) -> None:
    from onnx import helper, numpy_helper

    values = numpy_helper.from_array(floats(3, 5), "k")
    at = numpy_helper.from_array(np.asarray([1, 3]), "k_at")
    m.graph.sparse_initializer.append(helper.make_sparse_tensor(values, at, [4]))  # type: ignore[attr-defined]
