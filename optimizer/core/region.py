"""Weights stay where they lie: a region of a mapped file (or buffer), and how a TensorProto refers to one."""

from __future__ import annotations

import itertools
import mmap
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray
from onnx import StringStringEntryProto, TensorProto

from optimizer.core.errors import ToolFailure

BLOCK = 1 << 22
PEEK = 20  # bytes of the longest tag and length
_AHEAD = 1 << 14

# The location of a reference begins with it: no model can name one, because nobody outside this process knows it.
TOKEN = os.urandom(16).hex()
_serial = itertools.count()
_buffers: WeakValueDictionary[str, Buffer] = WeakValueDictionary()


class Buffer:
    """Bytes in memory that regions may point into."""

    __slots__ = ("__weakref__", "_view", "location", "size")

    def __init__(self, data: bytes | memoryview = b"") -> None:
        self._view = memoryview(data)
        self.size = len(data)
        self.location = f"{TOKEN}{next(_serial)}"
        _buffers[self.location] = self

    def view(self, offset: int, length: int) -> memoryview:
        return self._view[offset : offset + length]

    def peek(self, offset: int) -> memoryview:
        """At least `PEEK` bytes from `offset` on, fewer only at the end."""
        return self._view[offset : offset + PEEK]

    def blocks(self, offset: int, length: int) -> Iterator[bytes | memoryview]:
        yield self.view(offset, length)


class MappedFile(Buffer):
    """A regular file opened once and mapped read-only: a path that is later replaced or renamed loses nothing.

    Raises:
        OSError: it cannot be opened, or is no regular file (`IsADirectoryError` for a folder).
    """

    __slots__ = ("_ahead", "_ahead_at", "fd", "links", "mtime_ns", "path")

    def __init__(self, path: Path, flags: int = 0) -> None:
        super().__init__()
        self.path = path
        self._ahead, self._ahead_at = memoryview(b""), 0
        # without O_NONBLOCK a pipe under this name would make us wait for its writer
        self.fd = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | flags)
        status = os.fstat(self.fd)
        if not stat.S_ISREG(status.st_mode):
            raise (IsADirectoryError if stat.S_ISDIR(status.st_mode) else OSError)(f"{path} is not a regular file")
        self.size, self.mtime_ns, self.links = status.st_size, status.st_mtime_ns, status.st_nlink

    def view(self, offset: int, length: int) -> memoryview:
        if offset + length > len(self._view) and self.size:
            self._view = memoryview(mmap.mmap(self.fd, self.size, access=mmap.ACCESS_READ))
        return super().view(offset, length)

    def peek(self, offset: int) -> memoryview:
        i = offset - self._ahead_at
        if not 0 <= i <= len(self._ahead) - PEEK:
            self._ahead, self._ahead_at, i = memoryview(os.pread(self.fd, _AHEAD, offset)), offset, 0
        return self._ahead[i : i + PEEK]

    def blocks(self, offset: int, length: int) -> Iterator[bytes | memoryview]:
        """The bytes in blocks of 4 MiB, read past the map so that they never count as resident memory."""
        end = offset + length
        while offset < end:
            block = os.pread(self.fd, min(BLOCK, end - offset), offset)
            if not block:
                raise ToolFailure(
                    f"{self.path.name!r} was cut while it was in use: it ends at byte {offset}, {end} were promised",
                    at=str(self.path),
                    fix="run again, and let nothing write to the file meanwhile",
                )
            offset += len(block)
            yield block

    def __del__(self) -> None:
        if hasattr(self, "fd"):
            os.close(self.fd)


class Region:
    """`length` bytes at `offset` of a buffer."""

    __slots__ = ("buffer", "length", "offset")

    def __init__(self, buffer: Buffer, offset: int, length: int) -> None:
        self.buffer, self.offset, self.length = buffer, offset, length

    @staticmethod
    def of(t: TensorProto) -> Region | None:
        """Where the data of a tensor lies if its proto refers to a buffer of this process, else None."""
        if t.data_location != TensorProto.EXTERNAL:
            return None
        where = {e.key: e.value for e in t.external_data}
        location = str(where.get("location"))  # what is not UTF-8 comes as bytes
        if not location.startswith(TOKEN):
            return None
        buffer = _buffers.get(location)
        if buffer is None:
            raise ToolFailure(
                f"the file that held tensor {t.name!r} was let go of", fix="keep the Model that was read from it"
            )
        return Region(buffer, int(where["offset"]), int(where["length"]))

    def refer(self, t: TensorProto) -> None:
        """Make `t` refer to these bytes."""
        del t.external_data[:]
        t.external_data.extend(reference(self.buffer.location, self.offset, self.length))
        t.data_location = TensorProto.EXTERNAL

    def view(self) -> memoryview:
        return self.buffer.view(self.offset, self.length)

    def blocks(self) -> Iterator[bytes | memoryview]:
        return self.buffer.blocks(self.offset, self.length)

    def __len__(self) -> int:
        return self.length


def reference(location: str, offset: int, length: int) -> list[StringStringEntryProto]:
    """The external_data entries naming `length` bytes at `offset` of `location`."""
    entries = {"location": location, "offset": str(offset), "length": str(length)}
    return [StringStringEntryProto(key=k, value=v) for k, v in entries.items()]


class _Scratch(MappedFile):
    """New weights spill here, so that a model larger than memory can be rewritten; it vanishes with the process."""

    def __init__(self) -> None:
        self.out, name = tempfile.mkstemp(prefix="graphwright-")
        super().__init__(Path(name))
        Path(name).unlink()

    def put(self, data: memoryview) -> Region:
        offset = -(-self.size // mmap.ALLOCATIONGRANULARITY) * mmap.ALLOCATIONGRANULARITY
        try:
            done = 0
            while done < len(data):
                done += os.pwrite(self.out, data[done:], offset + done)
        except OSError as e:
            raise ToolFailure(
                f"new weights could not be laid aside: {e.strerror}",
                at=tempfile.gettempdir(),
                fix="make room there, or name another folder in TMPDIR",
            ) from e
        self.size = offset + len(data)
        return Region(self, offset, len(data))


_scratch: _Scratch | None = None


def spill(array: NDArray[Any]) -> Region:
    """The bytes of an array in a mapped scratch file."""
    global _scratch
    if _scratch is None:
        _scratch = _Scratch()
    return _scratch.put(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
