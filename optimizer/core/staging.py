"""Files that appear whole or not at all: written under temporary names beside their places, then renamed in order."""

from __future__ import annotations

import errno
import os
import secrets
import signal
import sys
import threading
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from optimizer.core.errors import BadInput, GraphwrightError, ToolFailure
from optimizer.core.graph import Model
from optimizer.core.region import MappedFile, Region
from optimizer.core.text import safe
from optimizer.core.wire import Chunk

_BULK = 1 << 16
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
# what the kernel answers where it cannot copy between these two files itself
_NO_KERNEL_COPY = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF, errno.ETXTBSY}


class Staged:
    """A file under a temporary name, to be called `target`."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = target.with_name(f".graphwright-{secrets.token_hex(8)}.tmp")
        self._file = self.path.open("xb")

    def write(self, chunks: Iterable[Chunk], offset: int | None = None) -> None:
        """Append the chunks, or write them at `offset`; regions of files are copied by the kernel where it can."""
        if offset is not None:
            self._file.seek(offset)
        for c in chunks:
            if not isinstance(c, Region):
                self._file.write(c)
            elif not self._kernel_copies(c):
                for block in c.blocks():
                    self._file.write(block)

    def _kernel_copies(self, region: Region) -> bool:
        copy = getattr(os, "copy_file_range", None)
        if copy is None or not isinstance(region.buffer, MappedFile) or region.length < _BULK:
            return False
        self._file.flush()
        at, end = region.offset, region.offset + region.length
        try:
            while at < end:
                n = copy(region.buffer.fd, self._file.fileno(), end - at, at)
                if not n:
                    break
                at += n
        except OSError as e:
            if e.errno not in _NO_KERNEL_COPY:
                raise
        rest = Region(region.buffer, at, end - at)
        for block in rest.blocks():
            self._file.write(block)
        return True

    def close(self) -> None:
        self._file.close()

    def discard(self) -> None:
        """Remove what was written, if it still lies under its temporary name."""
        with suppress(OSError):  # a full disk: nothing of this file is wanted any more
            self._file.close()
        self.path.unlink(missing_ok=True)


@contextmanager
def staged(model: Model, targets: list[Path], force: bool) -> Generator[list[Staged], None, None]:
    """Files that become `targets` at the end of the block, in this order, the model last.

    Of several, the old model is removed before the first is renamed, so that a kill leaves no model rather than a wrong
    one. On any failure, an interrupt and SIGTERM included, the temporary files go and the targets are as before.

    Raises:
        BadInput: a target exists and not `force`, holds weights that `model` still reads, or cannot be written.
        ToolFailure: the disk is full.
    """
    check_targets(model, targets, force)
    files: list[Staged] = []
    try:
        with terminate_as_exit():
            try:
                for t in targets:
                    files.append(Staged(t))
                yield files
                for f in files:
                    f.close()
                if len(files) > 1:
                    targets[-1].unlink(missing_ok=True)
                for f in files:
                    f.path.replace(f.target)
            finally:
                for f in files:
                    f.discard()
    except OSError as e:
        raise _told(e, targets[-1]) from e


def check_targets(model: Model, targets: Iterable[Path], force: bool) -> None:
    """Whether these files, and external data beside them, may be written.

    Raises:
        BadInput: one has no folder, exists and not `force`, is no regular file, or holds weights that `model` reads.
    """
    for target in targets:
        try:
            _check_target(model, target, force)
        except OSError as e:
            raise _told(e, target) from e


def _check_target(model: Model, target: Path, force: bool) -> None:
    at, rename = safe(str(target)), "give the output another name"
    if not target.parent.is_dir():
        code = errno.ENOTDIR if target.parent.exists() else errno.ENOENT
        raise OSError(code, os.strerror(code))
    if target.exists() and not target.is_file():
        raise BadInput("the output is not a regular file", at=at, fix="name a file")
    for place in (target, data_of(target)):  # data beside the output would be taken for its own
        if not force and (place.exists() or place.is_symlink()):
            raise BadInput("the output file exists already", at=safe(str(place)), fix="--force replaces it")
    source = model.source
    if source is None or not source.external:
        return
    if source.path is not None and _same(target, source.path):
        raise BadInput("a model with external data cannot be rewritten in place", at=at, fix=rename)
    if any(_same(place, f.path) for place in (target, data_of(target)) for f in source.external):
        raise BadInput("the output would replace weights that the input refers to", at=at, fix=rename)


def data_of(path: Path) -> Path:
    """Where the external data of the model at `path` goes."""
    return path.with_name(path.name + ".data")


def _same(a: Path, b: Path) -> bool:
    return a.exists() and b.exists() and a.samefile(b)


def _told(e: OSError, target: Path) -> GraphwrightError:
    at = safe(str(target))
    if e.errno in _FULL:
        return ToolFailure(
            f"the output could not be written: {e.strerror}", at=at, fix="make room on the disk; nothing was changed"
        )
    return BadInput(
        f"the output cannot be written here: {e.strerror or e}",
        at=at,
        fix="check that the folder exists and is writable",
    )


@contextmanager
def terminate_as_exit() -> Generator[None, None, None]:
    """SIGTERM ends the program as an exception would, so that temporary files go; the program's own handler stays."""
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    ):
        yield
        return

    def leave(_: int, __: FrameType | None) -> None:
        sys.exit(128 + signal.SIGTERM)

    signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
