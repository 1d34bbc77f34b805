"""join(split(bytes)) = bytes: a model as a small skeleton and its weights, which are not parsed and not copied.

A skeleton is a whole, serialized ModelProto in which each large raw_data is replaced by a reference to the region where
it lies (`core.region`). The walk reads tags and lengths only, and enters only messages that can hold what it looks for.
Source: protobuf's encoding (protobuf.dev/programming-guides/encoding), the field numbers of onnx.proto.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from onnx import TensorProto

from optimizer.core.errors import BadInput
from optimizer.core.region import PEEK, TOKEN, Buffer, Region, reference

LARGE = 1 << 10  # bytes of raw_data from which a tensor stays in its file
DEPTH = 100  # messages inside messages, protobuf's own limit

Chunk = bytes | Region
Placed = tuple[int, list[Chunk]]  # fields of a TensorProto, and the number of the first

# message → field → message inside it that can hold a tensor
_CHILDREN: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 20: "TrainingInfo", 25: "Function"},
    "TrainingInfo": {1: "Graph", 2: "Graph"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Function": {7: "Node", 11: "Attribute"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "SparseTensor", 23: "SparseTensor"},
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
}
# Fields that hold one tensor: protobuf merges a second occurrence into the first, so such a pair is left to protobuf.
_SINGLE = {("Attribute", 5), ("Attribute", 22), ("SparseTensor", 1), ("SparseTensor", 2)}
_RAW_DATA, _EXTERNAL_DATA, _DATA_LOCATION = 9, 13, 14
_DEFAULT = bytes((_DATA_LOCATION << 3, TensorProto.DEFAULT))
_TOLD = "told"  # the entry of a reference that says that the tensor had the field data_location, with its default
_MANY = 256  # fields; a tensor with more keeps its numbers one by one and has no raw_data worth looking for


class Field(NamedTuple):
    """A field of a message: its tag begins at `start`, its payload is [begin, end)."""

    number: int
    kind: int
    start: int
    begin: int
    end: int


def split(buffer: Buffer) -> bytes:
    """The skeleton of a model: each raw_data of 1 KiB or more stays in the buffer, wherever in the model its tensor is.

    Raises:
        BadInput: the bytes are not protobuf.
    """

    def refer(begin: int, end: int) -> list[Chunk] | None:
        raw: Field | None = None
        told = False
        kept: list[Chunk] = []
        at = begin
        for i, f in enumerate(_fields(buffer, begin, end)):
            if f.number == _RAW_DATA and f.kind == 2 and raw is None:
                raw = f
            elif f.number == _DATA_LOCATION and f.end - f.begin == 1 and not buffer.peek(f.begin)[0]:
                told = True
            elif f.number in (_RAW_DATA, _EXTERNAL_DATA, _DATA_LOCATION) or i == _MANY:
                return None
            else:
                continue
            kept.append(Region(buffer, at, f.start - at))
            at = f.end
        if raw is None or raw.end - raw.begin < LARGE:
            return None
        t = TensorProto(external_data=reference(buffer.location, raw.begin, raw.end - raw.begin))
        t.data_location = TensorProto.EXTERNAL
        if told:
            t.external_data.add(key=_TOLD)
        return [*kept, Region(buffer, at, end - at), t.SerializeToString()]

    parts = _rebuild(buffer, 0, buffer.size, "Model", lambda begin, end: end - begin >= LARGE, refer, DEPTH)
    return gather(parts or [Region(buffer, 0, buffer.size)])


def join(skeleton: bytes) -> list[Chunk]:
    """The model of this skeleton, in pieces; byte for byte what protobuf would write if it held the weights."""
    return replace(skeleton, inline)


def replace(skeleton: bytes, put: Callable[[Region], Placed]) -> list[Chunk]:
    """The skeleton with the fields of `put(region)`, each at its number's place, where a reference stood."""
    token, marks = TOKEN.encode(), list[int]()
    at = skeleton.find(token)
    while at >= 0:
        marks.append(at)
        at = skeleton.find(token, at + 1)
    if not marks:
        return [skeleton]
    buffer = Buffer(skeleton)

    def holds(begin: int, end: int) -> bool:
        i = bisect_left(marks, begin)
        return i < len(marks) and marks[i] < end

    def fill(begin: int, end: int) -> list[Chunk] | None:
        t = TensorProto.FromString(skeleton[begin:end])
        region = Region.of(t)
        if region is None:
            return None
        number, fields = put(region)
        told = number == _RAW_DATA and any(e.key == _TOLD for e in t.external_data)
        out: list[Chunk] = []
        for f in _fields(buffer, begin, end):
            if f.number > number:
                out, fields = [*out, *fields], []
            if told and f.number > _DATA_LOCATION:
                out, told = [*out, _DEFAULT], False
            if f.number not in (_EXTERNAL_DATA, _DATA_LOCATION):
                out.append(skeleton[f.start : f.end])
        return [*out, *fields, *([_DEFAULT] if told else [])]

    return _rebuild(buffer, 0, buffer.size, "Model", holds, fill, DEPTH) or [skeleton]


def inline(region: Region) -> Placed:
    """The field raw_data with these bytes."""
    return _RAW_DATA, [_tag(_RAW_DATA) + _varint(region.length), region]


def external(location: str, offset: int, length: int) -> Placed:
    """The fields external_data and data_location for `length` bytes at `offset` of the file `location`."""
    t = TensorProto(external_data=reference(location, offset, length), data_location=TensorProto.EXTERNAL)
    return _EXTERNAL_DATA, [t.SerializeToString()]


def nothing(_: Region) -> Placed:
    """No field at all: what is left says that a tensor is there, not what it holds."""
    return 0, []


def small(region: Region) -> Placed:
    """The bytes of a small tensor, nothing of a large one."""
    return inline(region) if region.length < LARGE else nothing(region)


def gather(chunks: Iterable[Chunk]) -> bytes:
    """The chunks as one piece; bytes of files are read past their maps."""
    return b"".join(b for c in chunks for b in (c.blocks() if isinstance(c, Region) else (c,)))


def _rebuild(
    buffer: Buffer,
    begin: int,
    end: int,
    message: str,
    wanted: Callable[[int, int], bool],
    tensor: Callable[[int, int], list[Chunk] | None],
    depth: int,
) -> list[Chunk] | None:
    """The message with its wanted tensors replaced and the lengths around them recomputed; None if nothing changed."""
    if not depth:
        raise BadInput(f"messages lie more than {DEPTH} deep in each other", fix="unnest the model's subgraphs")
    children = _CHILDREN[message]
    fields: Iterable[Field] = _fields(buffer, begin, end)
    twice: set[int] = set()
    if message in ("Attribute", "SparseTensor"):
        fields = [*fields]
        counts = Counter(f.number for f in fields)
        twice = {n for n, c in counts.items() if c > 1 and (message, n) in _SINGLE}
    out: list[Chunk] = []
    kept = begin
    for f in fields:
        child = children.get(f.number)
        if child is None or f.kind != 2 or f.number in twice or not wanted(f.begin, f.end):
            continue
        if child == "Tensor":
            parts = tensor(f.begin, f.end)
        else:
            parts = _rebuild(buffer, f.begin, f.end, child, wanted, tensor, depth - 1)
        if parts is not None:
            head = _tag(f.number) + _varint(sum(map(len, parts)))
            out += (Region(buffer, kept, f.start - kept), head, *parts)
            kept = f.end
    if not out:
        return None
    out.append(Region(buffer, kept, end - kept))
    return out


def _fields(buffer: Buffer, at: int, end: int) -> Iterator[Field]:
    """The fields of the message in [at, end), in the order of the file."""
    peek = buffer.peek
    while at < end:
        start = at
        head = peek(at)
        tag, n = _read(head, 0, at)
        kind = tag & 7
        begin = at = start + n
        if kind == 2:
            length, n = _read(head, n, at)
            begin = start + n
            at = begin + length
        elif kind == 0:
            _, n = _read(head, n, at)
            at = start + n
        elif kind == 5:
            at += 4
        elif kind == 1:
            at += 8
        else:
            raise _damaged(start)
        if at > end or not 8 <= tag < 1 << 32:
            raise _damaged(start)
        yield Field(tag >> 3, kind, start, begin, at)


def _read(head: memoryview, i: int, at: int) -> tuple[int, int]:
    """The varint at `head[i]`, and where it ends."""
    x = shift = 0
    for b in head[i : i + PEEK // 2]:
        i += 1
        x |= (b & 127) << shift
        if b < 128:
            return x, i
        shift += 7
    raise _damaged(at)


def field_of(number: int, payload: bytes) -> bytes:
    """A field of bytes, text or a message."""
    return _tag(number) + _varint(len(payload)) + payload


def _varint(n: int) -> bytes:
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    out.append(n)
    return bytes(out)


def _tag(number: int) -> bytes:
    return _varint(number << 3 | 2)


def _damaged(at: int) -> BadInput:
    return BadInput(
        f"the file is damaged: what stands at byte {at} is no protobuf field",
        fix="copy or export the model again; a file that was cut in transfer looks like this",
    )
