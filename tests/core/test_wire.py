"""join(split(x)) = x, byte for byte, wherever in a model the weights are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, SparseTensorProto, TensorProto, helper, numpy_helper

from optimizer.core import wire
from optimizer.core.errors import BadInput
from optimizer.core.region import TOKEN, Buffer, MappedFile, Region

STORED = sorted(Path(onnx.__file__).parent.glob("backend/test/data/**/*.onnx"))


def weight(name: str = "w", n: int = 400) -> TensorProto:
    return numpy_helper.from_array(np.random.default_rng(0).standard_normal(n).astype(np.float32), name)


def empty() -> ModelProto:
    return ModelProto(ir_version=8, graph=GraphProto(name="g", doc_string="after the initializers"))


def there_and_back(data: bytes) -> tuple[bytes, int]:
    """The model after split and join, and how many tensors were left in the buffer between."""
    buffer = Buffer(data)
    skeleton = wire.split(buffer)
    left = skeleton.count(TOKEN.encode())
    proto = ModelProto.FromString(skeleton)
    return wire.gather(wire.join(proto.SerializeToString())), left


def test_node_tests_of_onnx_byte_for_byte(node_cases: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "LARGE", 1)
    split = 0
    for case in node_cases:
        data = case.model.SerializeToString()
        again, left = there_and_back(data)
        assert again == data, case.name
        split += left > 0
    assert split, "some of them hold tensors"


def test_stored_models_byte_for_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "LARGE", 4)
    for path in STORED:
        data = ModelProto.FromString(path.read_bytes()).SerializeToString()
        assert there_and_back(data)[0] == data, path
    assert len(STORED) > 100


def in_attribute(p: ModelProto, **fields: Any) -> None:
    p.graph.node.add(op_type="Op").attribute.append(AttributeProto(name="a", **fields))


def in_body(p: ModelProto) -> None:
    inner = GraphProto(initializer=[weight()], node=[NodeProto(attribute=[AttributeProto(g=GraphProto(initializer=[weight()]))])])  # fmt: skip
    in_attribute(p, g=inner)
    in_attribute(p, graphs=[inner, GraphProto(), inner])


SPARSE = SparseTensorProto(values=weight(), indices=numpy_helper.from_array(np.arange(400)), dims=[1000])
PLACES: dict[str, tuple[Callable[[ModelProto], Any], int]] = {
    "initializer": (lambda p: p.graph.initializer.extend([weight(), weight("s", 4), weight("v")]), 2),
    "tensor of an attribute": (lambda p: in_attribute(p, t=weight()), 1),
    "tensors of an attribute": (lambda p: in_attribute(p, tensors=[weight(), weight("s", 4), weight()]), 2),
    "bodies": (in_body, 6),
    "sparse initializer": (lambda p: p.graph.sparse_initializer.append(SPARSE), 2),
    "sparse tensor of an attribute": (lambda p: in_attribute(p, sparse_tensor=SPARSE), 2),
    "sparse tensors of an attribute": (lambda p: in_attribute(p, sparse_tensors=[SPARSE, SPARSE]), 4),
    "function": (lambda p: p.functions.add(name="f").node.add().attribute.add(t=weight()), 1),
    "default of a function's attribute": (lambda p: p.functions.add(name="f").attribute_proto.add(t=weight()), 1),
    "training": (lambda p: p.training_info.add().initialization.initializer.append(weight()), 1),
}


@pytest.mark.parametrize("place", PLACES)
def test_every_place_that_can_hold_a_tensor(place: str) -> None:
    add, tensors = PLACES[place]
    proto = empty()
    add(proto)
    data = proto.SerializeToString()
    assert there_and_back(data) == (data, tensors)


def test_what_follows_raw_data_stays_behind_it() -> None:
    t = weight()
    t.doc_string = "number 12"
    t.metadata_props.add(key="number", value="16")
    t.segment.begin = 0
    for told in (False, True):  # onnx.load leaves data_location = DEFAULT behind where data was external
        if told:
            t.data_location = TensorProto.DEFAULT
        proto = empty()
        proto.graph.initializer.append(t)
        data = proto.SerializeToString()
        assert there_and_back(data) == (data, 1)
    assert data.index(b"number 12") > data.index(t.raw_data), "or the test shows nothing"


def test_an_external_reference_is_what_protobuf_would_write() -> None:
    t = weight()
    t.metadata_props.add(key="number", value="16")
    proto = empty()
    proto.graph.initializer.append(t)
    skeleton = wire.split(buffer := Buffer(proto.SerializeToString()))
    got = wire.gather(wire.replace(skeleton, lambda r: wire.external("out.data", 4096, r.length)))
    t.ClearField("raw_data")
    for key, value in (("location", "out.data"), ("offset", "4096"), ("length", "1600")):
        t.external_data.add(key=key, value=value)
    t.data_location = TensorProto.EXTERNAL
    proto.graph.initializer[0].CopyFrom(t)
    assert ModelProto.FromString(got) == proto
    assert ModelProto.FromString(got).SerializeToString() == got
    bare = ModelProto.FromString(wire.gather(wire.replace(skeleton, wire.nothing))).graph.initializer[0]
    assert not bare.HasField("raw_data") and not bare.external_data and not bare.HasField("data_location")
    assert buffer.size


def tensor_bytes(*fields: bytes) -> bytes:
    return wire.field_of(7, wire.field_of(5, b"".join(fields)))


NAME, RAW, DIMS = wire.field_of(8, b"w"), wire.field_of(9, bytes(2000)), b"\x08\xf4\x03\x10\x01"
LOCATION = TensorProto(external_data=[{"key": "location", "value": "x"}]).SerializeToString()


@pytest.mark.parametrize(
    ("data", "left"),
    [
        (tensor_bytes(DIMS, NAME, RAW), 1),
        (tensor_bytes(RAW, NAME, DIMS), 1),
        (tensor_bytes(RAW, RAW, NAME), 0),
        (tensor_bytes(RAW, LOCATION), 0),
        (tensor_bytes(RAW, b"\x70\x01"), 0),
        (tensor_bytes(RAW, b"\x70\x00"), 1),
        (tensor_bytes(wire.field_of(9, bytes(1023))), 0),
        (tensor_bytes(wire.field_of(9, bytes(1024))), 1),
        (tensor_bytes(b"\x08\x01" * 300, RAW), 0),
        (tensor_bytes(DIMS, RAW) + tensor_bytes(DIMS, RAW), 2),
    ],
    ids=[
        "plain",
        "out of order",
        "raw_data twice",
        "also external",
        "location wrong",
        "location told",
        "small",
        "large",
        "many",
        "two graphs",
    ],
)
def test_unusual_spellings_mean_what_protobuf_reads(data: bytes, left: int) -> None:
    again, found = there_and_back(data)
    assert found == left
    assert ModelProto.FromString(again) == ModelProto.FromString(data)


def test_a_tensor_field_that_comes_twice_is_merged_by_protobuf_alone() -> None:
    for attribute in (
        wire.field_of(5, DIMS + RAW) + wire.field_of(5, NAME + RAW),
        wire.field_of(22, wire.field_of(1, DIMS + RAW)) + wire.field_of(22, wire.field_of(1, NAME)),
        wire.field_of(22, wire.field_of(1, DIMS + RAW) + wire.field_of(1, NAME + RAW)),
    ):
        data = wire.field_of(7, wire.field_of(1, wire.field_of(5, attribute)))
        again, left = there_and_back(data)
        assert left == 0 and ModelProto.FromString(again) == ModelProto.FromString(data)


@pytest.mark.parametrize(
    "data",
    [
        b"\x3a",  # a length is missing
        b"\x3a\x05ab",  # the payload is too short
        b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",  # a length of 2^64
        b"\x08" + b"\x80" * 10 + b"\x00",  # a varint without end
        b"\x0d\x00\x00",  # four bytes are missing
        b"\x09" + bytes(7),  # eight are
        b"\x3b\x3c",  # groups
        b"\x3f\x00",  # a wire type that does not exist
        b"\x00\x00",  # field 0
        b"\xfa\xff\xff\xff\xff\x0f\x00",  # a tag above 32 bits
        wire.field_of(7, bytes(1100) + b"\x2a\xff\x7f"),  # a length that leaves its message
    ],
)
def test_lengths_are_checked(data: bytes) -> None:
    with pytest.raises(BadInput, match="is no protobuf field") as e:
        wire.split(Buffer(data))
    assert e.value.fix


def test_a_file_is_walked_without_being_mapped(tmp_path: Path) -> None:
    proto = empty()
    proto.graph.initializer.extend(weight(f"w{i}", 50_000) for i in range(30))
    proto.graph.node.extend(helper.make_node("Relu", [f"v{i}"], [f"v{i + 1}"]) for i in range(2000))
    data = proto.SerializeToString()
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    file = MappedFile(path)
    skeleton = wire.split(file)
    assert skeleton.count(TOKEN.encode()) == 30
    assert wire.gather(wire.join(skeleton)) == data
    assert not len(file._view), "neither split nor join has mapped the file"
    maps = Path("/proc/self/maps")
    assert not maps.exists() or str(path) not in maps.read_text()


def test_a_reference_keeps_to_its_process() -> None:
    proto = empty()
    proto.graph.initializer.append(weight())
    other = Buffer(proto.SerializeToString())
    skeleton = wire.split(other)
    t = ModelProto.FromString(skeleton).graph.initializer[0]
    region = Region.of(t)
    assert region is not None and bytes(region.view()) == weight().raw_data
    t.external_data[0].value = "0" * len(t.external_data[0].value)
    assert Region.of(t) is None, "an ordinary name of a file"
