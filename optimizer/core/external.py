"""External data lies in regular files in or below the model's folder, reached by no link; it is mapped, not loaded."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto

from optimizer.core.errors import BadInput
from optimizer.core.region import MappedFile, Region
from optimizer.core.tensor import BITS, data_bytes
from optimizer.core.text import safe


def attach(proto: ModelProto, folder: Path | None) -> tuple[MappedFile, ...]:
    """Let every tensor with external data refer to its mapped file instead; returns the files, each opened once.

    Args:
        proto: ours to change.
        folder: where the model file lies, None if it came without one.

    Raises:
        BadInput: the data is missing, too short, not of the length that its tensor needs, or outside of the folder.
    """
    files: dict[str, MappedFile] = {}
    for t in _tensors(proto):
        if t.data_location == TensorProto.EXTERNAL and Region.of(t) is None:
            _attach(t, folder, files)
    return tuple(files.values())


def _attach(t: TensorProto, folder: Path | None, files: dict[str, MappedFile]) -> None:
    at = f"tensor {t.name!r}"
    where = {e.key: str(e.value) for e in t.external_data}  # what is not UTF-8 comes as bytes
    location = where.get("location", "")
    at = f"{at}, external data {location!r}"
    if folder is None:
        raise BadInput(
            "the model refers to external data, but came without a folder", at=at, fix="give the model's path"
        )
    file = files.get(location)
    if file is None:
        file = files[location] = _open(location, folder, at)
    if not BITS.get(t.data_type) or any(d < 0 for d in t.dims):
        raise BadInput(
            f"a tensor of element type {t.data_type} and dims {list(t.dims)} cannot have external data",
            at=at,
            fix="export the model again",
        )
    need = data_bytes(t.data_type, t.dims)
    offset, length = _number(where, "offset", 0, at), _number(where, "length", need, at)
    if length != need:
        raise BadInput(
            f"the type and dims need {need} bytes of external data, the model names {length}",
            at=at,
            fix="export the model again",
        )
    if offset + length > file.size:
        raise BadInput(
            f"external data ends at byte {offset + length}, but the file has {file.size}",
            at=at,
            fix="copy the data file again; it was cut, or belongs to another model",
        )
    Region(file, offset, length).refer(t)


def _number(where: dict[str, str], key: str, default: int, at: str) -> int:
    text = where.get(key)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise BadInput(f"the {key} of external data is no size: {text!r}", at=at, fix="export the model again")
    return int(text)


def _open(location: str, folder: Path, at: str) -> MappedFile:
    """The file at `location` below `folder`."""
    parts = PurePosixPath(location).parts
    if (
        not parts
        or ".." in parts
        or location.startswith("/")
        or "\\" in location
        or "\0" in location
        or Path(location).is_absolute()
    ):
        raise BadInput(
            "external data must lie in the model's folder",
            at=at,
            fix="move the data beside the model and name it relative to it",
        )
    path = folder
    for part in parts:
        path = path / part
        if path.is_symlink():
            raise BadInput(
                "external data is reached through a link", at=at, fix="put the file itself in the link's place (cp -L)"
            )
    try:
        file = MappedFile(path, getattr(os, "O_NOFOLLOW", 0))
    except FileNotFoundError as e:
        raise BadInput(
            "the external data file is missing", at=at, fix=f"copy {safe(path.name)} beside the model"
        ) from e
    except OSError as e:
        raise BadInput(
            f"the external data cannot be read: {e.strerror or e}", at=at, fix="check the file's kind and permissions"
        ) from e
    if file.links > 1:
        raise BadInput(
            "external data is a hard link to a file that also lies elsewhere", at=at, fix="put a copy in its place"
        )
    return file


def _tensors(proto: ModelProto) -> Iterator[TensorProto]:
    """Every TensorProto of a model."""
    yield from _of_graph(proto.graph)
    for f in proto.functions:
        yield from _of_function(f)
    for t in proto.training_info:
        yield from _of_graph(t.initialization)
        yield from _of_graph(t.algorithm)


def _of_graph(g: GraphProto) -> Iterator[TensorProto]:
    yield from g.initializer
    for s in g.sparse_initializer:
        yield s.values
        yield s.indices
    yield from _of_nodes(g.node)


def _of_function(f: FunctionProto) -> Iterator[TensorProto]:
    yield from _of_nodes(f.node)
    yield from _of_attributes(f.attribute_proto)


def _of_nodes(nodes: Iterable[NodeProto]) -> Iterator[TensorProto]:
    for n in nodes:
        yield from _of_attributes(n.attribute)


def _of_attributes(attributes: Iterable[AttributeProto]) -> Iterator[TensorProto]:
    for a in attributes:
        if a.HasField("t"):
            yield a.t
        yield from a.tensors
        for s in (a.sparse_tensor,) if a.HasField("sparse_tensor") else a.sparse_tensors:
            yield s.values
            yield s.indices
        for g in (a.g,) if a.HasField("g") else a.graphs:
            yield from _of_graph(g)
