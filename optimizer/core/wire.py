"""join(split(bytes)) = bytes: a model file taken apart into a small skeleton and its weights, which are neither parsed nor copied.

A skeleton is a whole, serialized ModelProto in which each large `raw_data` is replaced by a reference to the region where
it lies (`core.region`). The walk reads tags and lengths only, and goes only into messages that can hold what it looks for.
Source: protobuf's encoding, and the field numbers of onnx.proto.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from onnx import TensorProto

from optimizer.core.errors import BadInput
from optimizer.core.region import TOKEN, Buffer, Region, reference

LARGE = 1 << 10  # bytes of raw_data from which a tensor stays in its file
DEPTH = 100  # protobuf's own limit for messages inside messages

Chunk = bytes | memoryview | Region
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
_MANY = 256  # fields; a tensor with more keeps its numbers one by one and has no raw_data worth looking for


class Field(NamedTuple):
    """A field of a message: its tag begins at `start`, its payload is [begin, end)."""

    number: int
    kind: int
    start: int
    begin: int
    end: int


def split(buffer: Buffer) -> bytes:
    """The skeleton of the model in `buffer`: each raw_data of 1 KiB or more stays there, wherever in the model its tensor is.

    Raises:
        BadInput: the bytes are not protobuf.
    """
    view = buffer.view(0, buffer.size)

    def refer(begin: int, end: int) -> list[Chunk] | None:
        raw: Field | None = None
        for i, f in enumerate(_fields(view, begin, end)):
            if (
                f.number in (_EXTERNAL_DATA, _DATA_LOCATION)
                or (f.number == _RAW_DATA and raw is not None)
                or i == _MANY
            ):
                return None
            if f.number == _RAW_DATA and f.kind == 2:
                raw = f
        if raw is None or raw.end - raw.begin < LARGE:
            return None
        return [view[begin : raw.start], view[raw.end : end], _entries(buffer.location, raw.begin, raw.end - raw.begin)]

    parts = _rebuild(view, 0, len(view), "Model", lambda begin, end: end - begin >= LARGE, refer, DEPTH)
    return bytes(view) if parts is None else b"".join(bytes(p) if isinstance(p, Region) else p for p in parts)


def join(skeleton: bytes) -> list[Chunk]:
    """The model whose skeleton this is, in pieces; byte for byte what protobuf would write had it held the weights."""
    return replace(skeleton, inline)


def replace(skeleton: bytes, put: Callable[[Region], Placed]) -> list[Chunk]:
    """The skeleton with the fields of `put(region)`, each at its number's place, where a reference stood."""
    view = memoryview(skeleton)
    token, marks = TOKEN.encode(), list[int]()
    at = skeleton.find(token)
    while at >= 0:
        marks.append(at)
        at = skeleton.find(token, at + 1)

    def holds(begin: int, end: int) -> bool:
        i = bisect_left(marks, begin)
        return i < len(marks) and marks[i] < end

    def fill(begin: int, end: int) -> list[Chunk] | None:
        region = Region.of(TensorProto.FromString(view[begin:end]))
        if region is None:
            return None
        number, fields = put(region)
        head: list[Chunk] = []
        tail: list[Chunk] = []
        for f in _fields(view, begin, end):
            if f.number not in (_EXTERNAL_DATA, _DATA_LOCATION):
                (head if f.number < number else tail).append(view[f.start : f.end])
        return [*head, *fields, *tail]

    if not marks:
        return [skeleton]
    return _rebuild(view, 0, len(view), "Model", holds, fill, DEPTH) or [skeleton]


def inline(region: Region) -> Placed:
    """The field raw_data with these bytes."""
    return _RAW_DATA, [_tag(_RAW_DATA) + _varint(region.length), region]


def external(location: str, offset: int, length: int) -> Placed:
    """The fields external_data and data_location for `length` bytes at `offset` of the file `location`."""
    return _EXTERNAL_DATA, [_entries(location, offset, length)]


def nothing(_: Region) -> Placed:
    """No field at all: what is left says that a tensor is there, not what it holds."""
    return 0, []


def _entries(location: str, offset: int, length: int) -> bytes:
    t = TensorProto(external_data=reference(location, offset, length), data_location=TensorProto.EXTERNAL)
    return t.SerializeToString()


def _rebuild(
    view: memoryview,
    begin: int,
    end: int,
    message: str,
    wanted: Callable[[int, int], bool],
    tensor: Callable[[int, int], list[Chunk] | None],
    depth: int,
) -> list[Chunk] | None:
    """The message with its wanted tensors replaced and the lengths around them recomputed; None where nothing changed."""
    if not depth:
        raise BadInput(f"messages lie more than {DEPTH} deep in each other", fix="unnest the model's subgraphs")
    children = _CHILDREN[message]
    fields: Iterable[Field] = _fields(view, begin, end)
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
            parts = _rebuild(view, f.begin, f.end, child, wanted, tensor, depth - 1)
        if parts is not None:
            out += (view[kept : f.start], _tag(f.number) + _varint(sum(map(len, parts))), *parts)
            kept = f.end
    if not out:
        return None
    out.append(view[kept:end])
    return out


def _fields(view: memoryview, at: int, end: int) -> Iterator[Field]:
    """The fields of the message in [at, end), in the order of the file."""
    while at < end:
        start = at
        tag, at = _read(view, at, end)
        kind = tag & 7
        begin = at
        if kind == 2:
            length, begin = _read(view, at, end)
            at = begin + length
        elif kind == 0:
            _, at = _read(view, at, end)
        elif kind == 5:
            at += 4
        elif kind == 1:
            at += 8
        else:
            raise _damaged(start)
        if at > end or not 8 <= tag < 1 << 32:
            raise _damaged(start)
        yield Field(tag >> 3, kind, start, begin, at)


def _read(view: memoryview, at: int, end: int) -> tuple[int, int]:
    """The varint at `at`, and where it ends."""
    x = shift = 0
    for i in range(at, min(end, at + 10)):
        b = view[i]
        x |= (b & 127) << shift
        if b < 128:
            return x, i + 1
        shift += 7
    raise _damaged(at)


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
