"""The file edge: read a model with its weights left where they lie, and write one whole or not at all."""

from __future__ import annotations

import gc
import hashlib
import os
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Union

from google.protobuf.message import DecodeError, EncodeError
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

from optimizer.core import wire
from optimizer.core.errors import BadInput, ToolFailure
from optimizer.core.external import attach
from optimizer.core.graph import Model, Source, lift, lower, set_field
from optimizer.core.region import TOKEN, Buffer, MappedFile, Region
from optimizer.core.staging import data_of, staged
from optimizer.core.tensor import Tensor
from optimizer.core.text import safe
from optimizer.core.valid import check_head, check_model

ModelLike = Union[str, "os.PathLike[str]", bytes, ModelProto, Any]  # also onnx_ir.Model, torch.onnx.ONNXProgram

LIMIT = (1 << 31) - 1  # bytes of one protobuf message
WHOLE = 1 << 22  # a smaller file is parsed as it is: the split would cost more than it saves
PAGE, LINE, PAGED = 4096, 64, 1 << 20  # in external data, tensors from 1 MiB begin a page, smaller ones a cache line


def read(source: ModelLike) -> Model:
    """The model in a file, in bytes, or in another library's hands; the caller's object is never changed.

    Raises:
        BadInput: it is no ONNX model, it is damaged, too old (IR < 3, opset < 7) or newer than the installed onnx.
        ToolFailure: the file cannot be read.
    """
    if isinstance(source, (str, os.PathLike)):
        return _read_file(Path(source))
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _read(Buffer(bytes(source)), None, None)
    proto, folder = _proto_of(source)
    try:
        buffer = Buffer(proto.SerializeToString())
    except EncodeError:
        skeleton, buffers = _taken_apart(proto)
        return _admit(skeleton, Source(None, sum(b.size for b in buffers), buffers), folder)
    return _read(buffer, None, folder)


def _read_file(path: Path) -> Model:
    at = safe(str(path))
    try:
        buffer = MappedFile(path)
    except FileNotFoundError as e:
        raise BadInput("the model file does not exist", at=at, fix="check the path") from e
    except IsADirectoryError as e:
        raise BadInput("the model is a folder", at=at, fix="name the .onnx file in it") from e
    except (OSError, ValueError) as e:
        why = safe(getattr(e, "strerror", None) or str(e))
        raise BadInput(
            f"the model file cannot be opened: {why}", at=at, fix="check the path and its permissions"
        ) from e
    try:
        return _read(buffer, path, path.parent)
    except BadInput as e:
        e.at = f"{at}: {e.at}" if e.at else at
        raise
    except OSError as e:
        raise ToolFailure(f"the model file cannot be read: {e.strerror}", at=at, fix="check the disk it lies on") from e


def _read(buffer: Buffer, path: Path | None, folder: Path | None) -> Model:
    if not buffer.size:
        raise BadInput("the model is empty: it has no bytes at all", fix="export or copy it again")
    skeleton = wire.split(buffer) if buffer.size >= WHOLE else wire.gather([Region(buffer, 0, buffer.size)])
    try:
        proto = ModelProto.FromString(skeleton)
    except DecodeError as e:
        raise BadInput(
            "this is not an ONNX model, or it is damaged: protobuf cannot parse it",
            fix="export or copy it again; a file that was cut in transfer looks like this",
        ) from e
    named = skeleton.count(b"location") > skeleton.count(TOKEN.encode())
    return _admit(proto, Source(path, buffer.size, (buffer,)), folder, external=named)


def _admit(proto: ModelProto, source: Source, folder: Path | None, *, external: bool = True) -> Model:
    """The graph of a proto that is ours, if it is a valid one; `external`: some of its data may lie in other files."""
    check_head(proto)
    if external:
        source = replace(source, external=attach(proto, folder))
    with no_collection():
        model = lift(proto, source)
    check_model(model)
    return model


def _taken_apart(proto: ModelProto) -> tuple[ModelProto, tuple[Buffer, ...]]:
    """A copy of a proto that is larger than one message may be, its large initializers left in buffers."""
    out = ModelProto()
    for f, x in proto.ListFields():
        if f.name != "graph":
            set_field(out, f.name, x)
    for f, x in proto.graph.ListFields():
        if f.name != "initializer":
            set_field(out.graph, f.name, x)
    buffers: list[Buffer] = []
    for t in proto.graph.initializer:
        raw = t.raw_data
        copy = out.graph.initializer.add()
        for f, x in t.ListFields():
            if f.name != "raw_data" or len(raw) < wire.LARGE:
                set_field(copy, f.name, x)
        if len(raw) >= wire.LARGE:
            buffers.append(Buffer(raw))
            Region(buffers[-1], 0, len(raw)).refer(copy)
    return out, tuple(buffers)


@contextmanager
def no_collection() -> Generator[None, None, None]:
    """Without garbage collection: a lift makes many objects and no garbage."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _proto_of(source: Any) -> tuple[ModelProto, Path | None]:
    """The ModelProto of an object in memory, and the folder of its external data."""
    if isinstance(source, ModelProto):
        return source, None
    if isinstance(proto := getattr(source, "model_proto", None), ModelProto):  # torch.onnx.ONNXProgram
        return proto, None
    ir = sys.modules.get("onnx_ir")
    if ir is not None and isinstance(source, ir.Model):
        folders = {
            Path(t.base_dir)
            for v in source.graph.initializers.values()
            if isinstance(t := v.const_value, ir.ExternalTensor)
        }
        if len(folders) > 1:
            raise BadInput(
                "the model's external data lies in several folders", fix="save it with onnx_ir.save and name the file"
            )
        return ir.to_proto(source), next(iter(folders), None)
    raise BadInput(
        f"a {type(source).__name__} is no model",
        fix="give a path, bytes, an onnx.ModelProto, an onnx_ir.Model or a torch.onnx.ONNXProgram",
    )


class Lowered:
    """A model as it will be written: lowered once, then written, hashed and accounted for as often as asked.

    The model must not change while this is in use.

    Attributes:
        skeleton: the serialized model, its mapped weights left as references.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self._proto = lower(model)
        try:
            self.skeleton = self._proto.SerializeToString(deterministic=True)
        except EncodeError as e:
            raise ToolFailure("the model without its weights is larger than 2 GiB, which no ONNX file can hold") from e
        self._written: tuple[Path, dict[_Place, tuple[Path, int]]] | None = None

    def write(self, path: str | os.PathLike[str], *, external: bool | None = None, force: bool = False) -> list[Path]:
        """See `write`."""
        path = Path(path)
        chunks = wire.join(self.skeleton)
        size = sum(map(len, chunks))
        if external is None:
            external = size > LIMIT or bool(self.model.source and self.model.source.external)
        if not external:
            if size > LIMIT:
                raise ToolFailure(
                    "the model is larger than 2 GiB, so its weights must be external",
                    at=safe(str(path)),
                    fix="leave `external` open",
                )
            with staged(self.model, [path], force) as (file,):
                file.write(chunks)
            self._written = path, {place: (path, at) for place, at in _offsets(chunks)}
            return [path]
        data = data_of(path)
        if not data.name.isprintable():
            raise BadInput(
                "no model can refer to data beside this output: its name is no printable text",
                at=safe(str(path)),
                fix="give the output another name",
            )
        places: dict[_Place, int] = {}
        laid: list[tuple[int, Region]] = []
        end = 0

        def lay(region: Region) -> wire.Placed:
            nonlocal end
            if region.length < wire.LARGE:
                return wire.inline(region)
            key = _place(region)
            if key not in places:
                align = PAGE if region.length >= PAGED else LINE
                places[key] = -(-end // align) * align
                end = places[key] + region.length
                laid.append((places[key], region))
            return wire.external(data.name, places[key], region.length)

        whole = Buffer(self.skeleton)  # constants made on the way are regions of it, as long as it lives
        chunks = wire.replace(wire.split(whole), lay)
        with staged(self.model, [data, path], force) as (data_file, file):
            for offset, region in laid:
                data_file.write([region], offset)
            file.write(chunks)
        self._written = path, {key: (data, at) for key, at in places.items()}
        return [path, data]

    def to_proto(self) -> ModelProto:
        """See `to_proto`."""
        chunks = wire.join(self.skeleton)
        if sum(map(len, chunks)) > LIMIT:
            raise ToolFailure(
                "the model is larger than 2 GiB, which no ModelProto can hold", fix="save it to a file instead"
            )
        return ModelProto.FromString(wire.gather(chunks))

    @cached_property
    def graph(self) -> str:
        """sha256 of the model without the contents of its weights of 1 KiB or more, wherever these lie."""
        return _hash(self._proto)

    def weights(self, *, full: bool = False) -> list[dict[str, Any]]:
        """`weights` of the files written last; as long as none is, of where the weights lie until then."""
        if self._written is None:
            return weights(self.model, full=full, as_read=False)
        path, placed = self._written
        names = {p: (p.name, p.stat().st_mtime_ns) for p in {path, *(p for p, _ in placed.values())}}

        def lies(t: Tensor) -> _Lies:
            file, offset = (path, None) if t.region is None else placed.get(_place(t.region), (path, None))
            return *names[file], offset

        return _rows(self.model, lies, full)


def write(
    model: Model, path: str | os.PathLike[str], *, external: bool | None = None, force: bool = False
) -> list[Path]:
    """Write the model to `path` (weights to `path`.data where they are external): the files appear whole or not at all.

    Args:
        model: may have been read from `path` itself.
        path: the .onnx file.
        external: weights of 1 KiB or more go beside the model; None: as the input had it, or if it exceeds 2 GiB.
        force: replace existing files.

    Returns:
        the files written, the model first.

    Raises:
        BadInput: the place is taken or cannot be written to.
        ToolFailure: the disk is full, or the model cannot be one file.
    """
    return Lowered(model).write(path, external=external, force=force)


_Place = tuple[str, int, int]  # of a region: its buffer, its offset in it, its length


def _place(region: Region) -> _Place:
    return region.buffer.location, region.offset, region.length


def _offsets(chunks: Iterable[wire.Chunk]) -> Iterator[tuple[_Place, int]]:
    """Where in their file the chunks that are regions begin."""
    at = 0
    for c in chunks:
        if isinstance(c, Region):
            yield _place(c), at
        at += len(c)


def to_proto(model: Model) -> ModelProto:
    """The model with all its weights as one ModelProto.

    Raises:
        ToolFailure: it is larger than 2 GiB.
    """
    return Lowered(model).to_proto()


def graph_hash(model: Model) -> str:
    """sha256 of the model without the contents of its weights of 1 KiB or more, wherever these lie."""
    return _hash(lower(model))


def _hash(q: ModelProto) -> str:
    """Of a proto that nobody else needs: it loses its weights."""
    _strip_graph(q.graph)
    for f in q.functions:
        _strip_nodes(f.node)
    return "sha256:" + hashlib.sha256(q.SerializeToString(deterministic=True)).hexdigest()


def _strip_graph(g: GraphProto) -> None:
    for t in g.initializer:
        _strip(t)
    for s in g.sparse_initializer:
        _strip(s.values)
        _strip(s.indices)
    _strip_nodes(g.node)


_NO_TENSOR = frozenset(
    (AttributeProto.INT, AttributeProto.INTS, AttributeProto.FLOAT, AttributeProto.FLOATS, AttributeProto.STRING)
)


def _strip_nodes(nodes: Sequence[NodeProto]) -> None:
    for n in nodes[:]:
        for a in n.attribute[:]:
            if a.type in _NO_TENSOR:
                continue
            if a.HasField("t"):
                _strip(a.t)
            if a.HasField("g"):
                _strip_graph(a.g)
            for t in (*a.tensors, *(t for s in (a.sparse_tensor, *a.sparse_tensors) for t in (s.values, s.indices))):
                _strip(t)
            for g in a.graphs:
                _strip_graph(g)


def _strip(t: TensorProto) -> None:
    """Take a large tensor's data out; a small one's lies in the proto, wherever it came from."""
    region = Region.of(t)
    if region is None and len(t.raw_data) < wire.LARGE:
        return
    for field in ("raw_data", "external_data", "data_location"):
        t.ClearField(field)
    if region is not None and region.length < wire.LARGE:
        t.raw_data = bytes(region.view())


def weights(model: Model, *, full: bool = False, as_read: bool = True) -> list[dict[str, Any]]:
    """One row a weight of 1 KiB or more: name, length, and what identifies it.

    That is where it lies (file, its mtime, and the offset where the weight was left in it), else its sha256.

    Args:
        as_read: nothing has changed since the model was read, so that every weight lies in its files.
        full: every weight's sha256.
    """
    source = model.source
    folder = source.path.parent if source is not None and source.path is not None else Path()
    lies_in = (*source.buffers, *source.external) if source is not None else ()
    files: dict[Buffer, tuple[str, int]] = {
        f: (os.path.relpath(f.path, folder), f.mtime_ns) for f in lies_in if isinstance(f, MappedFile)
    }
    whole = files.get(source.buffers[0]) if as_read and source is not None and source.buffers else None

    def lies(t: Tensor) -> _Lies | None:
        if t.region is None:
            return None if whole is None else (*whole, None)
        file = files.get(t.region.buffer)
        return None if file is None else (*file, t.region.offset)

    return _rows(model, lies, full)


_Lies = tuple[str, int, int | None]  # a file's name, its mtime, and the offset in it if that is known


def _rows(model: Model, lies: Callable[[Tensor], _Lies | None], full: bool) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for name, t in _weights(model):
        at = lies(t)
        file, mtime, offset = at if at is not None else (None, None, None)
        row: dict[str, Any] = {"name": name, "file": file, "offset": offset, "length": t.nbytes, "mtime_ns": mtime}
        if full or at is None:
            digest = hashlib.sha256()
            for block in t.blocks():
                digest.update(block)
            row["sha256"] = digest.hexdigest()
        rows.append(row)
    return rows


def _weights(model: Model) -> Iterator[tuple[str, Tensor]]:
    """What the receipt speaks of: numbers of 1 KiB or more."""
    return ((name, t) for name, t in _tensors(model) if t.dtype != TensorProto.STRING and t.nbytes >= wire.LARGE)


def _tensors(model: Model) -> Iterator[tuple[str, Tensor]]:
    """Initializers and the tensors that nodes hold, in all graphs."""
    for g in model.graphs():
        for v in g.constants():
            if v.tensor is not None:
                yield v.name, v.tensor
        for n in g:
            protos = n.proto.attribute if n.proto is not None else ()
            if n.proto is None or (protos and any(a.type == AttributeProto.TENSOR for a in protos)):
                yield from ((n.outputs[0].name, t) for t in n.attributes.values() if isinstance(t, Tensor))
