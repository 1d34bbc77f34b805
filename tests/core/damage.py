"""Damage models and see what the file edge makes of them, in a child process, so that a crash is seen and not shared.

`python damage.py FIRST LAST` tries the damages with these numbers and prints a line for each that is answered wrongly.
"""

from __future__ import annotations

import faulthandler
import random
import sys
from collections import Counter

import numpy as np
from google.protobuf.message import DecodeError
from onnx import GraphProto, ModelProto, TensorProto, helper, numpy_helper, parser

from optimizer.core import model as edge
from optimizer.core.errors import GraphwrightError
from optimizer.core.graph import check

SECONDS = 5  # a damage that takes longer hangs

BODIES = """
<ir_version: 10, opset_import: ["" : 21, "local" : 1, "com.microsoft" : 1]>
g (float[n, 4] x, int64[k] ids, bool flag, int64 trip) => (float[n, 4] y, float[m] z, int64[k, 1] w)
<float[4] gamma = {1.0, 2.0, 3.0, 4.0}, int64[2] shape = {0, -1}, float[n, 4] a>
{
  a = Mul(x, gamma)
  c = If (flag) <
    then_branch = t () => (float[n, 4] d) { d = Relu(a) },
    else_branch = e () => (float[n, 4] f) { h = Add(a, gamma)  f = local.twice(h) }
  >
  y, z = Loop (trip, flag, c) <body = b (int64 i, bool go, float[n, 4] s) => (bool keep, float[n, 4] s2, float r) {
    keep = Identity(go)  s2 = Add(s, a)  r = Cast<to = 1>(i)
  }>
  one = Constant<value_ints = [1]>()
  w = Unsqueeze(ids, one)
  unread = com.microsoft.Gelu(c)
}
<domain: "local", opset_import: ["" : 21]> twice (x) => (y) { y = Add(x, x) }
"""


def bases() -> list[ModelProto]:
    """Models that together have every kind of message that a file can hold."""
    rng = np.random.default_rng(0)
    bodies = parser.parse_model(BODIES)
    bodies.metadata_props.add(key="author", value="nobody")
    bodies.graph.quantization_annotation.add(tensor_name="a")

    def one(node: object, tensors: dict[str, TensorProto], **attributes: object) -> ModelProto:
        inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 16])]
        n = helper.make_node(str(node), ["x", *tensors], ["y"], "node", **attributes)
        output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
        for name, t in tensors.items():
            t.name = name
        graph = helper.make_graph([n], "g", inputs, [output], list(tensors.values()))
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)

    raw = numpy_helper.from_array(rng.standard_normal((16, 32)).astype(np.float32))
    typed = helper.make_tensor("", TensorProto.FLOAT, [16, 8], rng.standard_normal(128))
    half = helper.make_tensor("", TensorProto.FLOAT16, [16], np.ones(16, np.float16))
    nibbles = helper.make_tensor("", TensorProto.INT4, [3, 5], [1] * 15)
    text = helper.make_tensor("", TensorProto.STRING, [2], [b"a", b"b"])
    out = [bodies, one("MatMul", {"w": raw}), one("MatMul", {"w": typed}), one("Cast", {}, to=10)]
    out += [one("Mul", {"h": half}), one("Concat", {"s": text}, axis=0), one("DequantizeLinear", {"q": nibbles})]
    sparse = one("MatMul", {})
    values = numpy_helper.from_array(rng.standard_normal(300).astype(np.float32), "w")
    indices = numpy_helper.from_array(np.arange(300))
    sparse.graph.sparse_initializer.add(values=values, indices=indices, dims=[16, 32])
    sparse.graph.node[0].input.append("w")
    out.append(sparse)
    constant = parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[n] x) => (float[n] y) { y = Add(x, c) }'
    )
    constant.graph.node.insert(0, helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.ones(300))))
    out.append(constant)
    sequence = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, ["n"]))
    graph = helper.make_graph(
        [helper.make_node("Optional", [], ["o"], type=sequence)],
        "g",
        [],
        [helper.make_value_info("o", helper.make_optional_type_proto(sequence))],
    )
    out.append(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    external = one("MatMul", {"w": TensorProto(dims=[16, 32], data_type=1, data_location=TensorProto.EXTERNAL)})
    external.graph.initializer[0].external_data.add(key="location", value="weights.bin")
    out.append(external)
    chain = GraphProto(name="chain")
    chain.input.append(helper.make_tensor_value_info("v0", TensorProto.FLOAT, ["n", 3]))
    chain.node.extend(helper.make_node("Relu", [f"v{i}"], [f"v{i + 1}"], f"n{i}") for i in range(40))
    chain.output.append(helper.make_tensor_value_info("v40", TensorProto.FLOAT, ["n", 3]))
    chain.value_info.extend(helper.make_tensor_value_info(f"v{i}", TensorProto.FLOAT, ["n", 3]) for i in range(1, 40))
    out.append(helper.make_model(chain, opset_imports=[helper.make_opsetid("", 13)], ir_version=7))
    trained = ModelProto()
    trained.CopyFrom(out[1])
    trained.training_info.add().algorithm.CopyFrom(out[1].graph)
    out.append(trained)
    deep = GraphProto(name="inner")
    deep.node.add(op_type="Constant", output=["v"]).attribute.add(name="value_float", type=1, f=1.0)
    deep.output.append(helper.make_tensor_value_info("v", TensorProto.FLOAT, []))
    for i in range(24):
        value = helper.make_tensor_value_info(f"v{i}", TensorProto.FLOAT, [])
        other = helper.make_graph(
            [helper.make_node("Identity", ["zero"], ["o"])], "o", [], [helper.make_value_info("o", value.type)]
        )
        deep = helper.make_graph(
            [helper.make_node("If", ["flag"], [f"v{i}"], then_branch=deep, else_branch=other)], "g", [], [value]
        )
    deep.input.append(helper.make_tensor_value_info("flag", TensorProto.BOOL, []))
    deep.initializer.append(numpy_helper.from_array(np.zeros((), np.float32), "zero"))
    out.append(helper.make_model(deep, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    return out


def damaged(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """The bytes with bits flipped, a part cut, copied, removed or overwritten, or lengths changed."""
    b = bytearray(data)
    at, size = rng.randrange(len(b)), 1 + int(rng.expovariate(1 / 16))
    match rng.randrange(8):
        case 0:
            for _ in range(rng.choice((1, 1, 2, 8))):
                b[rng.randrange(len(b))] ^= 1 << rng.randrange(8)
        case 1:
            del b[at:]
        case 2:
            other = rng.choice(others)
            start = rng.randrange(len(other))
            b[at : at + rng.choice((0, size))] = other[start : start + size]
        case 3:
            del b[at : at + size]
        case 4:
            b[at] = rng.choice((0, 1, 127, 128, 255))
        case 5:
            b[at:at] = b[at : at + size]
        case 6:
            b[at : at + 1] = rng.choice(
                (b"\xff" * 9 + b"\x01", b"\x80\x80\x80\x80\x08", b"\xff\xff\xff\xff\x07", b"\x80\x00")
            )
        case _:
            b[at : at + 4] = rng.randbytes(4)
    return bytes(b)


def verdict(data: bytes) -> str:
    """`refused` or `read`; anything else is wrong.

    What is read is what protobuf parses, apart from the order of nodes that had to be sorted, fields that this onnx
    does not know, and value_info of values that do not exist.
    """
    try:
        m = edge.read(data)
    except GraphwrightError as e:
        return (
            "refused"
            if e.exit_code == 2 and e.fix and str(e).replace("\n", "").isprintable()
            else f"no directions: {e!r}"
        )
    check(m)
    edge.graph_hash(m)
    edge.weights(m)
    try:
        want = ModelProto.FromString(data)
    except DecodeError:
        return "read what protobuf cannot"
    got = edge.to_proto(m)
    for p in (want, got):
        p.DiscardUnknownFields()
    _without_stale_info(want.graph)
    _without_stale_info(got.graph)
    if m.warnings:
        for p in (want, got):
            nodes = sorted(n.SerializeToString() for n in p.graph.node)
            del p.graph.node[:]
            p.graph.node.extend(map(type(p.graph.node.add()).FromString, nodes))
    return "read" if got == want else "read something else"


def _without_stale_info(g: GraphProto) -> None:
    made = {o for n in g.node for o in n.output} | {i.name for i in g.input} | {t.name for t in g.initializer}
    kept = [i for i in g.value_info if i.name in made]
    del g.value_info[:]
    g.value_info.extend(kept)


def main(first: int, last: int) -> None:
    files = [m.SerializeToString() for m in bases()]
    count: Counter[str] = Counter()
    for i in range(first, last):
        rng = random.Random(i)
        data = damaged(files[i % len(files)], files, rng)
        edge.WHOLE = rng.choice((0, 1 << 22))
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        try:
            answer = verdict(data)
        except Exception as e:
            answer = f"{type(e).__name__}: {e}"
            if "-v" in sys.argv:
                raise
        faulthandler.cancel_dump_traceback_later()
        count[answer if answer in ("read", "refused") else "wrong"] += 1
        if answer not in ("read", "refused"):
            print(f"damage {i} of base {i % len(files)}: {answer!r}")
    print(*(f"{count[k]} {k}" for k in ("read", "refused", "wrong")), sep=", ")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
