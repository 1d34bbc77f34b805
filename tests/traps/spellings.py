"""Old opsets and IR versions: the same operator, spelled and meant otherwise."""

from __future__ import annotations

import numpy as np

from traps.trap import floats, trap

TRAPS = [
    trap("Softmax before 13", "axis 1 means all axes from 1 on at once", "g (float[N, 2, 3] x) => (float[N, 2, 3] y) { y = Softmax<axis = 1>(x) }", opset=12, ir=7),
    trap("Softmax by default before 13", "the default axis was 1", "g (float[N, 2, 3] x) => (float[N, 2, 3] y) { a = Softmax(x)  y = Neg(a) }", opset=9, ir=4),
    trap("LogSoftmax before 13", "axis 0 means all axes", "g (float[2, 3] x) => (float[2, 3] y) { y = LogSoftmax<axis = 0>(x) }", opset=11, ir=6),
    trap("Clip with attributes", "before 11 the bounds were attributes", "g (float[N] x) => (float[N] y) { z = Clip<min = -2.0, max = -1.0>(x)  y = Clip<min = 0.0, max = 1.0>(z) }", opset=10, ir=5),
    trap("Clip by default before 11", "no bounds are the lowest and the largest float: an infinity is clipped", "g (float[N] x) => (float[N] y) { y = Clip(x) }", opset=10, ir=5),
    trap("Upsample", "Upsample is no Resize", "g (float[1, 1, 2, 2] x) => (float[1, 1, 4, 4] y) <float[4] s = {1, 1, 2, 2}> { y = Upsample<mode = \"nearest\">(x, s) }", opset=9, ir=4),
    trap("Resize at 10", "Resize at 10 has other coordinates", "g (float[1, 1, 4, 4] x) => (float[1, 1, 2, 2] y) <float[4] s = {1, 1, 0.5, 0.5}> { y = Resize<mode = \"nearest\">(x, s) }", opset=10, ir=5),
    trap("Slice with attributes", "before 10 starts and ends were attributes", "g (float[N, 4] x) => (float[N, 2] y) { z = Slice<axes = [1], starts = [0], ends = [9223372036854775807]>(x)  y = Slice<axes = [1], starts = [-3], ends = [-1]>(z) }", opset=9, ir=4),
    trap("Pad with attributes", "before 11 the pads were attributes", "g (float[N, 2] x) => (float[N, 3] y) { z = Pad<pads = [0, 0, 0, 0]>(x)  y = Pad<pads = [0, 1, 0, 0], value = 2.0>(z) }", opset=9, ir=4),
    trap("Squeeze and Unsqueeze with attributes", "before 13 axes were attributes", "g (float[N, 1, 3] x) => (float[N, 3, 1] y) { s = Squeeze<axes = [1]>(x)  y = Unsqueeze<axes = [2]>(s) }", opset=11, ir=6),
    trap("ReduceSum with attributes", "before 13 axes were attributes", "g (float[N, 3] x) => (float[N] y) { y = ReduceSum<axes = [-1], keepdims = 0>(x) }", opset=11, ir=6),
    trap("Split with attributes", "before 13 the parts were an attribute", "g (float[N, 5] x) => (float[N, 2] a, float[N, 3] b) { a, b = Split<axis = 1, split = [2, 3]>(x) }", opset=11, ir=6),
    trap("Dropout at 7", "before 12 the ratio was an attribute, and nothing trained", "g (float[N] x) => (float[N] y) { z = Dropout<ratio = 0.5>(x)  y = Neg(z) }", opset=7, ir=3),
    trap("Dropout at 7 whose mask is read", "the mask was no bool before 10", "g (float[N] x) => (float[N] y, float[N] m) { y, m = Dropout(x) }", opset=7, ir=3),
    trap("Dropout with its mask", "the mask of an inference is all true", "g (float[N] x) => (float[N] y, bool[N] m) { y, m = Dropout(x) }"),
    trap("Dropout whose training is an input", "whether it trains is known at run time only", "g (float[N] x, bool t) => (float[N] y) <float r = {0.5}> { y = Dropout(x, r, t) }", {"x": floats(1, 2, 3), "t": np.asarray(False)}, only_given=True),
    trap("BatchNormalization at 7", "spatial is no attribute any more", "g (float[N, 1, 2, 2] x) => (float[N, 2, 2, 2] y) <float[2, 1, 1, 1] w = {1, 2}, float[2] s = {1, -2}, float[2] v = {0.5, 2}> { c = Conv(x, w)  y = BatchNormalization(c, s, s, s, v) }", opset=7, ir=3,
         edit=lambda m: [m.graph.input.add(name=t.name, type=_type(t)) for t in m.graph.initializer] and None),
    trap("Cast to a type by number", "to is a number since 6", "g (float[N] x) => (float[N] y) { i = Cast<to = 7>(x)  y = Cast<to = 1>(i) }", {"x": floats(1.5, -2.5)}, opset=8, ir=3),
    trap("TopK with an attribute", "before 10 k was an attribute", "g (float[N, 4] x) => (float[N, 2] v, int64[N, 2] i) { v, i = TopK<k = 2>(x) }", opset=9, ir=4),
    trap("Flatten before negative axes", "opset 9 has axis 1 by default", "g (float[N, 2, 3] x) => (float[N, 6] y) { a = Flatten(x)  y = Flatten(a) }", opset=9, ir=4),
    trap("Gemm that broadcasts, at 7", "C spreads one way", "g (float[N, 3] x) => (float[N, 2] y) <float[3, 2] w = {1, 2, 3, 4, 5, 6}, float[2] b = {1, -1}> { m = MatMul(x, w)  y = Add(m, b) }", opset=8, ir=4),
    trap("Gelu at an opset without it", "opset 19 has no Gelu", "g (float[N, 8] x) => (float[N, 8] y) <float r = {1.41421356}, float one = {1}, float h = {0.5}> { a = Div(x, r)  b = Erf(a)  c = Add(b, one)  d = Mul(x, c)  y = Mul(d, h) }", opset=19, ir=9, finite=True),
    trap("Equal of floats and ints by opset", "Equal compares floats since 11", "g (int64[N] x) => (bool[N] y) <int64 k = {1}> { a = Equal(x, k)  b = Not(a)  y = Not(b) }", opset=7, ir=3,
         edit=lambda m: [m.graph.input.add(name=t.name, type=_type(t)) for t in m.graph.initializer] and None),
    trap("Constant with value_float", "Constant has six spellings since 12", "g (float[N] x) => (float[N] y) { a = Constant<value_float = 2.0>()  b = Constant<value_floats = [3.0]>()  c = Add(a, b)  y = Mul(x, c) }", opset=12, ir=7),
    trap("Constant with value_ints", "they are int64", "g (float[N, 6] x) => (float[A, B] y) { s = Constant<value_ints = [-1, 3]>()  y = Reshape(x, s) }", opset=13, ir=7),
    trap("ReduceMean at 17 and 18", "at 17 axes are an attribute", "g (float[N, 3] x) => (float[N, 1] y) { y = ReduceMean<axes = [-1]>(x) }", opset=17, ir=8),
    trap("Shape before 15", "no start, no end", "g (float[N, 6] x) => (float[N, 2, 3] y) <int64 zero = {0}, int64[2] t = {2, 3}, int64[1] a = {0}> { s = Shape(x)  n = Gather(s, zero)  u = Unsqueeze<axes = [0]>(n)  c = Concat<axis = 0>(u, t)  y = Reshape(x, c) }", opset=11, ir=6),
    trap("Pow of an int by a float", "the result has the base's type", "g (int32[N] x) => (int32[N] y) <float k = {2}> { y = Pow(x, k) }", {"x": np.asarray([1, -2, 3], np.int32)}),
    trap("two opsets of one domain spelled twice", "an import may be spelled ai.onnx", "<ir_version: 8, opset_import: [\"ai.onnx\": 17]>\ng (float[N] x) => (float[N] y) { a = Relu(x)  y = Relu(a) }"),
]  # fmt: skip


def _type(t: object) -> object:
    from onnx import helper

    return helper.make_tensor_type_proto(t.data_type, t.dims)  # type: ignore[attr-defined]
