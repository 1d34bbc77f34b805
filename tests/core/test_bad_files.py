"""Whatever is wrong with a file, the answer is a sentence with directions; never a crash, a hang, another exception."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper, parser

from optimizer.core.errors import BadInput, ToolFailure
from optimizer.core.model import read, write

DAMAGE = Path(__file__).with_name("damage.py")


def damage(first: int, last: int) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(DAMAGE), str(first), str(last)],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "PYTHONFAULTHANDLER": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_damaged_models() -> None:
    report = damage(0, 2000)
    read_, refused, wrong = (int(part.split()[0]) for part in report.splitlines()[-1].split(", "))
    assert wrong == 0, report
    assert read_ > 200 and refused > 1000, "the damage is such that both happen"


@pytest.mark.slow
def test_many_damaged_models() -> None:
    report = damage(2000, 100_000)
    assert report.rstrip().endswith(" 0 wrong"), report


# ── what is no model ──────────────────────────────────────────────────────────────────────────────────────────────────


def refuses(source: object, *words: str) -> BadInput:
    with pytest.raises(BadInput) as e:
        read(source)
    text = str(e.value)
    assert e.value.fix, "every refusal says what to do"
    assert all(line.isprintable() for line in text.split("\n"))
    for w in words:
        assert w in text, (w, text)
    return e.value


def test_what_is_no_file(tmp_path: Path) -> None:
    refuses(tmp_path / "nothing.onnx", "does not exist", "nothing.onnx")
    refuses(tmp_path, "is a folder", str(tmp_path))
    refuses(str(tmp_path / "a\0b"), "cannot be opened", "\\x00")
    refuses(tmp_path / ("x" * 300), "cannot be opened", "too long")
    (tmp_path / "file").write_bytes(b"x")
    refuses(tmp_path / "file" / "model.onnx", "cannot be opened")
    os.mkfifo(tmp_path / "pipe")
    refuses(tmp_path / "pipe", "not a regular file")
    refuses(tmp_path / "a\x1b[2Jb", "a\\x1b[2Jb")
    refuses(3.5, "a float is no model", "onnx_ir.Model")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", ["has no bytes"]),
        (b"\x00" * 100, ["protobuf cannot parse it"]),
        (np.random.default_rng(0).bytes(4096), ["protobuf cannot parse it"]),
        (np.random.default_rng(1).bytes(5 << 20), ["is no protobuf field"]),
        (b'{"model": 1}\n' * 100, ["not an ONNX model"]),
        (TensorProto(name="t").SerializeToString(), ["not an ONNX model"]),
        (GraphProto(name="g").SerializeToString(), ["not an ONNX model"]),
        (ModelProto(ir_version=8, producer_name="p").SerializeToString(), ["holds no graph"]),
        (b"PK\x03\x04" + bytes(1000), ["not an ONNX model"]),
    ],
)
def test_what_is_no_model(data: bytes, words: list[str], tmp_path: Path) -> None:
    refuses(data, *words)
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    refuses(path, *words, str(path))


def test_every_truncation(tmp_path: Path) -> None:
    data = model("y = MatMul(x, w)", "float[4, 4] w = {1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16}").SerializeToString()
    for n in range(len(data)):
        try:
            read(data[:n])
        except BadInput as e:
            assert e.fix


# ── versions and operators ────────────────────────────────────────────────────────────────────────────────────────────


def model(body: str, initializers: str = "", *, ir: int = 8, opset: int = 17) -> ModelProto:
    head = f'<ir_version: {ir}, opset_import: ["" : {opset}, "custom" : 3]>'
    return parser.parse_model(f"{head} g (float[n, 4] x) => (float[n, 4] y) <{initializers}> {{ {body} }}")


def changed(change: Callable[[ModelProto], object], body: str = "y = Relu(x)", initializers: str = "") -> ModelProto:
    proto = model(body, initializers)
    change(proto)
    return proto


def test_versions() -> None:
    newest_ir, newest = onnx.IR_VERSION, onnx.defs.onnx_opset_version()
    read(model("y = Relu(x)", ir=newest_ir, opset=newest))
    refuses(
        model("y = Relu(x)", ir=newest_ir + 1),
        f"IR version {newest_ir + 1}",
        onnx.__version__,
        str(newest_ir),
        "--upgrade onnx",
    )
    refuses(
        model("y = Relu(x)", opset=newest + 1),
        f"opset {newest + 1}",
        onnx.__version__,
        f"up to {newest}",
        "--upgrade onnx",
    )
    refuses(model("y = Relu(x)", opset=6), "opset 6", "oldest one supported is 7", "version_converter")
    refuses(model("y = Relu(x)", ir=2), "IR version 2", "oldest one supported is 3")
    refuses(changed(lambda p: p.ClearField("opset_import")), "does not say which opset")
    refuses(changed(lambda p: p.opset_import.pop(0)), "does not say which opset", "(Relu)")
    refuses(changed(lambda p: p.opset_import.add(domain="ai.onnx", version=12)), "two opsets", "17 and 12")
    refuses(changed(lambda p: p.opset_import.add(domain="late")), "'late' without a version")
    refuses(changed(lambda p: p.opset_import.add(domain="ai.onnx.ml", version=99)), "opset 99 of 'ai.onnx.ml'")


def test_operators() -> None:
    refuses(model("y = Rellu(x)"), "no operator 'Rellu'", "domain of its own")
    refuses(model("y = Gelu(x)"), "no operator Gelu at opset 17", "20")
    refuses(model("y = Upsample(x, x)"), "no operator Upsample at opset 17")
    inner = "c = Cast<to=9>(x)  y = If (c) <then_branch = t () => (float[n] d) { d = Gone(x) }, else_branch = e () => (float[n] f) { f = Relu(x) }>"  # fmt: skip
    refuses(model(inner), "no operator 'Gone'")
    read(model("y = custom.Anything(x)"))
    read(model("y = SimplifiedLayerNormalization(x)"))
    text = '<ir_version: 8, opset_import: ["" : 17, "f" : 1]> g (float[n] x) => (float[n] y) { y = f.a(x) }'
    refuses(parser.parse_model(text + '<domain: "f", opset_import: ["" : 17]> a (x) => (y) { y = Nope(x) }'), "'Nope'", "function 'a'")  # fmt: skip
    circle = '<domain: "f", opset_import: ["" : 17, "f" : 1]> a (x) => (y) { y = f.b(x) }' \
             '<domain: "f", opset_import: ["" : 17, "f" : 1]> b (x) => (y) { y = f.a(x) }'  # fmt: skip
    refuses(parser.parse_model(text + circle), "call each other in a circle", "'a'", "'b'")


# ── the graph ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_graphs_that_are_none() -> None:
    refuses(model("y = Add(x, nowhere)"), "'nowhere' is read but nothing makes it", "(Add)")
    refuses(model("z = Relu(x)"), "nothing makes the graph's output 'y'")
    refuses(model("y = Relu(x) y = Neg(x)"), "'y' is made twice")
    refuses(model("x = Relu(x) y = Relu(x)"), "'x' is made twice")
    refuses(changed(lambda p: p.graph.input.append(p.graph.input[0])), "two inputs are called 'x'")
    twice = changed(lambda p: p.graph.initializer.append(p.graph.initializer[0]), "y = Add(x, w)", "float[1] w = {1.0}")
    refuses(twice, "two initializers are called 'w'")
    refuses(changed(lambda p: p.graph.initializer.append(numpy_helper.from_array(np.zeros(2)))), "has no name")


def test_unsorted_nodes_are_sorted_and_cycles_refused() -> None:
    m = read(model("y = Add(b, a) b = Neg(a) a = Relu(x)"))
    assert [n.op for n in m.graph] == ["Relu", "Neg", "Add"] and "sorted" in m.warnings[0]
    refuses(model("a = Add(x, b) b = Relu(a) y = Neg(b)"), "has a cycle")
    refuses(model("y = Add(x, y)"), "has a cycle")
    loop = "c = Cast<to=9>(x)  a = If (c) <then_branch = t () => (float[n] d) { d = Neg(a) }, else_branch = e () => (float[n] f) { f = Neg(x) }> y = Neg(a)"  # fmt: skip
    refuses(model(loop), "has a cycle")


def test_equal_node_names_are_legal() -> None:
    def name_all(p: ModelProto) -> None:
        for n in p.graph.node:
            n.name = "same"

    assert not read(changed(name_all, "a = Relu(x) y = Neg(a)")).warnings


@pytest.mark.parametrize("name", ["a\x1b[31mb", "a\nb", "a\x00b", "a\x7fb", "a\x9bb"])
def test_names_that_move_the_cursor(name: str) -> None:
    def value(p: ModelProto) -> None:
        p.graph.node[0].output[0] = p.graph.node[1].input[0] = name

    def node(p: ModelProto) -> None:
        p.graph.node[0].name = name

    def op(p: ModelProto) -> None:
        p.graph.node[0].op_type = name

    def domain(p: ModelProto) -> None:
        p.graph.node[0].domain = name

    for change in (value, node, op, domain):
        refuses(changed(change, "a = Relu(x) y = Neg(a)"), "is no printable text")


def test_text_that_is_not_utf8_is_refused_as_a_name_and_kept_elsewhere() -> None:
    proto = model("marker = Relu(x) y = Neg(marker)")
    proto.graph.doc_string = proto.producer_name = "remark"
    data = proto.SerializeToString()
    refuses(data.replace(b"marker", b"mark\xffr"), "is no printable text", "\\xff")
    latin = data.replace(b"remark", b"r\xe9mark")
    from optimizer.core.model import to_proto

    assert to_proto(read(latin)) == ModelProto.FromString(latin)


def test_nesting_is_limited(tmp_path: Path) -> None:
    def nested(depth: int) -> bytes:
        """`depth` If nodes inside each other, on the wire: protobuf's own writer refuses to write the deep ones."""
        big = numpy_helper.from_array(np.zeros(400, np.float32), "big")
        g = GraphProto(name="g", node=[NodeProto(op_type="Relu", input=["x"], output=["v"])], initializer=[big])
        g.output.append(helper.make_tensor_value_info("v", 1, ["n", 4]))
        body = g.SerializeToString()
        node = NodeProto(op_type="If", input=["c"], output=["v"]).SerializeToString()
        for _ in range(depth):
            attribute = _field(1, b"then_branch") + _field(6, body) + b"\xa0\x01\x05"
            outs = GraphProto(name="g", output=[helper.make_tensor_value_info("v", 1, ["n", 4])]).SerializeToString()
            body = _field(1, node + _field(5, attribute)) + outs
        inputs = [helper.make_tensor_value_info("x", 1, ["n", 4]), helper.make_tensor_value_info("c", 9, [])]
        head = ModelProto(ir_version=8, opset_import=[helper.make_opsetid("", 17)])
        return head.SerializeToString() + _field(7, body + GraphProto(input=inputs).SerializeToString())

    from optimizer.core import wire
    from optimizer.core.region import Buffer

    assert len(list(read(nested(20)).graphs())) == 21
    for depth in (40, 400):
        refuses(nested(depth), "protobuf cannot parse it")
    with pytest.raises(BadInput, match="more than 100 deep"):
        wire.split(Buffer(nested(400)))


def _field(number: int, payload: bytes) -> bytes:
    from optimizer.core.wire import field_of

    return field_of(number, payload)


# ── constants ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def with_weight(**fields: object) -> ModelProto:
    t = numpy_helper.from_array(np.arange(8, dtype=np.float32).reshape(2, 4), "w")
    for k, v in fields.items():
        t.ClearField(k)
        getattr(t, k).extend(v) if isinstance(v, list) else setattr(t, k, v)
    return changed(lambda p: p.graph.initializer.append(t), "y = Add(x, w)")


def test_constants() -> None:
    at = "initializer 'w'"
    refuses(with_weight(raw_data=bytes(31)), "needs 32 bytes and has 31", at)
    refuses(with_weight(raw_data=bytes(36)), "needs 32 bytes and has 36", at)
    refuses(with_weight(dims=[2, 5]), "needs 40 bytes and has 32", at)
    refuses(with_weight(dims=[-2, -4]), "negative dims [-2, -4]", at)
    refuses(with_weight(dims=[2**62, 8]), "needs", at)
    refuses(with_weight(data_type=0), "element type 0", at)
    refuses(with_weight(data_type=99), "element type 99", at)
    refuses(with_weight(data_type=TensorProto.INT4), "needs 4 bytes", at)
    refuses(with_weight(data_type=TensorProto.STRING), "needs 8 entries of string_data and has 0", at)
    typed = helper.make_tensor("w", TensorProto.FLOAT, [2], [1, 2])
    typed.float_data.append(3)
    refuses(
        changed(lambda p: p.graph.initializer.append(typed), "y = Add(x, w)"), "needs 2 entries of float_data and has 3"
    )
    short = numpy_helper.from_array(np.zeros(3, np.float32))
    short.dims[0] = 4
    attribute = changed(lambda p: p.graph.node.insert(0, helper.make_node("Constant", [], ["c"], "k", value=short)), "y = Add(x, c)")  # fmt: skip
    refuses(attribute, "needs 16 bytes and has 12", "attribute 'value' of node 'k' (Constant)")


def test_types_of_inputs() -> None:
    def elem(dtype: int) -> Callable[[ModelProto], None]:
        def change(p: ModelProto) -> None:
            p.graph.input[0].type.tensor_type.elem_type = dtype

        return change

    refuses(changed(elem(0)), "'x' has no element type")
    refuses(changed(elem(99)), "'x' has no element type", "99")
    refuses(changed(lambda p: p.graph.input[0].ClearField("type")), "'x' has no element type")


# ── external data ─────────────────────────────────────────────────────────────────────────────────────────────────────


def external(folder: Path, data: bytes | None = None, *, dims: tuple[int, ...] = (16, 32), dtype: int = 1, **where: object) -> Path:  # fmt: skip
    """A model whose weight of 2 KiB lies in `data.bin` beside it, described by `where`."""
    folder.mkdir(exist_ok=True)
    (folder / "data.bin").unlink(missing_ok=True)
    if data is not None:
        (folder / "data.bin").write_bytes(data)
    t = TensorProto(name="w", dims=dims, data_type=dtype, data_location=TensorProto.EXTERNAL)
    for k, v in ({"location": "data.bin"} | where).items():
        if v is not None:
            t.external_data.add(key=k, value=str(v))
    proto = changed(lambda p: p.graph.initializer.append(t), "y = MatMul(x, w)")
    path = folder / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


def test_external_data_that_is_fine(tmp_path: Path) -> None:
    data = np.arange(1024, dtype=np.float32)
    for where, start in (
        ({}, 0),
        ({"offset": 2048}, 512),
        ({"offset": 4, "length": 2048}, 1),
        ({"location": "./data.bin"}, 0),
        ({"location": "sub/../data.bin"}, None),
    ):
        path = external(tmp_path, data.tobytes(), **where)
        if start is None:
            refuses(path, "must lie in the model's folder")
            continue
        v = next(iter(read(path).graph.initializers))
        assert v.const is not None and np.array_equal(v.const, data[start : start + 512].reshape(16, 32))


def test_external_data_that_is_not_there(tmp_path: Path) -> None:
    refuses(external(tmp_path), "external data file is missing", "'data.bin'", "tensor 'w'", "copy data.bin")
    refuses(external(tmp_path, bytes(2047)), "ends at byte 2048, but the file has 2047")
    refuses(external(tmp_path, bytes(4096), offset=2049), "ends at byte 4097")
    refuses(external(tmp_path, bytes(4096), offset=10**18), "but the file has 4096")
    refuses(external(tmp_path, bytes(4096), length=2044), "need 2048 bytes", "2044")
    refuses(external(tmp_path, bytes(4096), length=4096), "need 2048 bytes", "4096")
    for bad in (-1, "1e3", "0x10", "", " 4", "1_0", "９", "9" * 30):
        refuses(external(tmp_path, bytes(4096), offset=bad), "offset of external data is no size")
        refuses(external(tmp_path, bytes(4096), length=bad), "length of external data is no size")
    refuses(external(tmp_path, bytes(4096), dims=(-1, 4)), "cannot have external data")
    refuses(external(tmp_path, bytes(4096), dtype=TensorProto.STRING), "cannot have external data")
    refuses(external(tmp_path, bytes(4096), dtype=77), "element type 77")
    refuses(external(tmp_path, bytes(4096), location=None, loc="data.bin"), "does not say where")
    refuses(external(tmp_path, bytes(2048)).read_bytes(), "came without a folder", "give the model's path")


def test_external_data_does_not_leave_the_folder(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(2048))
    folder = tmp_path / "folder"
    for location in ("../secret", str(secret), "sub/../../secret", "..", ".", "", "..\\secret", "C:\\secret", "a\0b"):
        refuses(external(folder, location=location), "must lie in the model's folder")
    (folder / "data.bin").unlink(missing_ok=True)
    path = external(folder)
    (folder / "data.bin").symlink_to(secret)
    refuses(path, "reached through a link", "cp -L")
    (folder / "data.bin").unlink()
    os.link(secret, folder / "data.bin")
    refuses(path, "hard link")
    path = external(folder, location="sub/data.bin")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "data.bin").write_bytes(bytes(2048))
    (folder / "sub").symlink_to(tmp_path / "outside")
    refuses(path, "reached through a link")


def test_external_data_that_is_no_file(tmp_path: Path) -> None:
    path = external(tmp_path)
    (tmp_path / "data.bin").mkdir()
    refuses(path, "cannot be read", "not a regular file")
    (tmp_path / "data.bin").rmdir()
    os.mkfifo(tmp_path / "data.bin")
    refuses(path, "cannot be read", "not a regular file")


def test_external_data_everywhere(tmp_path: Path) -> None:
    """In attributes, bodies, functions, sparse tensors and training graphs, the same rules hold."""
    t = TensorProto(name="w", dims=[16, 32], data_type=1, data_location=TensorProto.EXTERNAL)
    t.external_data.add(key="location", value="../secret")
    constant = helper.make_node("Constant", [], ["c"], value=t)
    body = helper.make_graph([constant], "b", [], [helper.make_tensor_value_info("c", 1, [16, 32])])
    places: list[Callable[[ModelProto], object]] = [
        lambda p: p.graph.node.append(constant),
        lambda p: p.graph.node.append(helper.make_node("If", ["x"], ["i"], then_branch=body, else_branch=body)),
        lambda p: p.functions.add(name="f", domain="custom").node.append(constant),
        lambda p: p.graph.sparse_initializer.add(values=t, dims=[512]),
        lambda p: p.training_info.add().algorithm.node.append(constant),
        lambda p: p.graph.node.append(helper.make_node("Tensors", [], ["t"], domain="custom", ts=[t])),
    ]
    for place in places:
        path = tmp_path / "model.onnx"
        path.write_bytes(changed(place).SerializeToString())
        refuses(path, "must lie in the model's folder", "'../secret'")


def test_a_file_that_is_cut_while_it_is_used(tmp_path: Path) -> None:
    path = external(tmp_path, bytes(2048))
    m = read(path)
    os.truncate(tmp_path / "data.bin", 100)
    with pytest.raises(ToolFailure, match="was cut while it was in use") as e:
        write(m, tmp_path / "out.onnx", external=False)
    assert e.value.fix and not (tmp_path / "out.onnx").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data.bin", "model.onnx"]
