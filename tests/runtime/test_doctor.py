"""doctor: believes what runs, names what is missing, and says what to install."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import optimizer
from optimizer.core.errors import BadInput, ToolFailure
from optimizer.core.target import host_row
from optimizer.runtime import doctor as module


def test_the_cpu_runs_here() -> None:
    found = optimizer.doctor()
    assert found.providers["cpu"].runs and found.exit_code == 0
    assert found.row == host_row() and f"→ row {found.row}" in str(found)
    json.dumps(found.to_dict())


def test_what_was_asked_for_decides_the_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    for runs in (True, False):
        monkeypatch.setattr(module, "_examine", lambda name, wheels, runs=runs: module.Provider(runs, "broken", "mend"))
        assert optimizer.doctor(provider="cuda").exit_code == (0 if runs else 4)
        assert optimizer.doctor().exit_code == 0
    assert "cuda      no: broken      fix: mend" in str(optimizer.doctor(provider="cuda"))


def test_an_unknown_provider_is_bad_input() -> None:
    with pytest.raises(BadInput) as error:
        optimizer.doctor(provider="tensorrrt")
    assert error.value.fix == "did you mean tensorrt?"


def test_without_a_runtime_everything_else_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_wheels", dict)
    found = optimizer.doctor(provider="cuda")
    assert found.exit_code == 4 and "runtime none" in str(found)
    assert found.providers["cpu"].fix == "pip install 'graphwright[cpu]'"
    assert found.providers["cuda"].fix == "pip install 'graphwright[gpu]'"


def test_two_wheels_overwrite_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_wheels", lambda: {"onnxruntime": "1.32.0", "onnxruntime-gpu": "1.31.1"})
    monkeypatch.setattr(module.child, "call", lambda *_, **__: ("libcublasLt.so.13 not found", True))
    found = optimizer.doctor()
    fix = "pip uninstall -y onnxruntime onnxruntime-gpu, then pip install 'graphwright[gpu]'"
    assert f"onnxruntime 1.32.0 + onnxruntime-gpu 1.31.1 overwrite each other      fix: {fix}" in str(found)
    assert found.providers["cuda"].fix == fix


@pytest.mark.parametrize(
    ("why", "built", "fix"),
    [
        ("libcublasLt.so.13 not found", True, "pip install 'graphwright[gpu]', or put"),
        ("libnvinfer.so.10 not found", True, "pip install 'tensorrt==10.*'"),
        ("libcuda.so.1 not found", True, "NVIDIA driver"),
        ("it fell back to CPUExecutionProvider", True, "nvidia-smi"),
        ("the installed onnxruntime is built without it", False, "'graphwright[gpu]', after removing onnxruntime"),
    ],
)
def test_advice_fits_what_is_missing(why: str, built: bool, fix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_wheels", lambda: {"onnxruntime": "1.32.0"})
    monkeypatch.setattr(module.child, "call", lambda *_, **__: (why, built))
    provider = optimizer.doctor().providers["cuda"]
    assert not provider.runs and provider.why == why and fix in provider.fix


def test_a_provider_that_crashes_is_only_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(*_: object, **__: object) -> None:
        raise ToolFailure("the child process died (SIGSEGV)")

    monkeypatch.setattr(module.child, "call", dies)
    assert optimizer.doctor().providers["cuda"] == module.Provider(False, "the child process died (SIGSEGV)")


def test_the_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider's library that links to one that is nowhere: the loader's own words."""

    class Package:
        origin = str(tmp_path / "onnxruntime" / "__init__.py")

    def load(path: str) -> None:
        if "cuda" in path:
            raise OSError("libcublasLt.so.13: cannot open shared object file: No such file or directory")

    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: Package)
    monkeypatch.setattr(module.ctypes, "CDLL", load)
    assert module._missing_library("cuda") == "libcublasLt.so.13 not found"
    assert module._missing_library("cpu") == ""
