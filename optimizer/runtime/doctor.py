"""What is installed here, and what can really run: a provider counts if a session of its own runs a node."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import platform
import re
import sys
import tempfile
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path
from typing import Any

from optimizer.core.errors import BadInput, GraphwrightError
from optimizer.core.target import cpu_features, host_row
from optimizer.core.text import did_you_mean
from optimizer.runtime import child
from optimizer.runtime.session import PROVIDERS, available, open_session

SCHEMA = "graphwright.doctor/1"
_LIBRARY = {"cuda": "onnxruntime_providers_cuda", "tensorrt": "onnxruntime_providers_tensorrt"}


@dataclass(frozen=True, slots=True)
class Provider:
    """Whether an execution provider can run here; if not, why, and what to do about it."""

    runs: bool
    why: str = ""
    fix: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Doctor:
    """What `doctor` found.

    Fields:
        versions: of python, graphwright, onnx, numpy and the runtime; None: not installed.
        wheels: the packages that install an onnxruntime, name → version; more than one is a fault.
        cpu: the instruction sets that matter; row: the target row of this machine.
        providers: "cpu", "cuda", "tensorrt" → whether they run.
        asked: the provider that must run, or None.
    """

    versions: dict[str, str | None]
    wheels: dict[str, str]
    cpu: list[str]
    row: str
    providers: dict[str, Provider]
    asked: str | None

    @property
    def exit_code(self) -> int:
        """4 where what was asked for cannot run, else 0."""
        return 4 if self.asked is not None and not self.providers[self.asked].runs else 0

    def to_dict(self) -> dict[str, Any]:
        """All fields, by name."""
        return {"schema": SCHEMA, **asdict(self)}

    def __str__(self) -> str:
        """The screen of `graphwright doctor`."""
        wheels = " + ".join(f"{name} {number}" for name, number in self.wheels.items())
        built = ", ".join(name for name, p in self.providers.items() if p.runs)
        runtime = f"{wheels} ({built or 'nothing runs'})" if wheels else "none"
        versions = " · ".join(f"{k} {v}" for k, v in self.versions.items() if k != "onnxruntime")
        lines = [f"{versions} · runtime {runtime}"]
        vnni = [f for f in self.cpu if f in ("avx512_vnni", "avx_vnni", "amx_int8")]
        features = ", ".join(self.cpu) or "features unknown"
        no_vnni = ", no vnni" if not vnni and self.row != "cpu-arm" else ""
        lines.append(f"cpu       {features}{no_vnni} → row {self.row}")
        lines += [
            f"{name:9} {'yes' if p.runs else f'no: {p.why}'}{f'      fix: {p.fix}' if p.fix else ''}"
            for name, p in self.providers.items()
            if name != "cpu" or not p.runs
        ]
        if len(self.wheels) > 1:
            lines.append(f"wheels    {wheels} overwrite each other      fix: {_untangle(self.wheels)}")
        return "\n".join(lines)


def doctor(*, provider: str | None = None) -> Doctor:
    """Look at what is installed, and run one node on each provider, in a child each.

    Args:
        provider: "cpu", "cuda" or "tensorrt" must run; None: nothing must.

    Raises:
        BadInput: there is no such provider.
    """
    if provider is not None and provider not in PROVIDERS:
        fix = did_you_mean(provider, PROVIDERS) or f"one of {', '.join(PROVIDERS)}"
        raise BadInput(f"unknown provider {provider!r}", fix=fix)
    wheels = _wheels()
    return Doctor(
        versions={
            "python": platform.python_version(),
            **{package: _version(package) for package in ("graphwright", "onnx", "numpy")},
            "onnxruntime": next(iter(wheels.values()), None),
        },
        wheels=wheels,
        cpu=sorted(cpu_features()),
        row=host_row(),
        providers={name: _examine(name, wheels) for name in PROVIDERS},
        asked=provider,
    )


def _wheels() -> dict[str, str]:
    """Installed packages that bring an `onnxruntime` module: they overwrite each other's files."""
    names = {d.metadata["Name"]: d.version for d in distributions()}
    runtimes = re.compile(r"onnxruntime(-(gpu|directml|openvino|qnn|rocm|migraphx|training.*))?", re.IGNORECASE)
    return {name: names[name] for name in sorted(filter(None, names)) if runtimes.fullmatch(name)}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _untangle(wheels: dict[str, str]) -> str:
    extra = "gpu" if "onnxruntime-gpu" in wheels else "cpu"
    return f"pip uninstall -y {' '.join(wheels)}, then pip install 'graphwright[{extra}]'"


def _examine(name: str, wheels: dict[str, str]) -> Provider:
    """Whether the provider runs, from a child: a library that crashes while it is loaded is only an answer."""
    extra = "cpu" if name == "cpu" else "gpu"
    if not wheels:
        return Provider(False, "no runtime is installed", f"pip install 'graphwright[{extra}]'")
    try:
        why, has_provider = child.call("optimizer.runtime.doctor:probe", provider=name, timeout=120)
    except GraphwrightError as error:
        return Provider(False, error.what, error.fix or "")
    if not why:
        return Provider(True)
    if len(wheels) > 1:
        return Provider(False, why, _untangle(wheels))
    if not has_provider:
        return Provider(False, why, f"pip install 'graphwright[{extra}]', after removing {' '.join(wheels)}")
    return Provider(False, why, _advice(name, why))


def _advice(provider: str, why: str) -> str:
    """What to install for the library that is missing."""
    if re.search(r"libnvinfer|nvonnxparser", why):
        major = re.search(r"\.so\.(\d+)", why)
        return f"pip install 'tensorrt{f'=={major[1]}.*' if major else ''}'"
    if re.search(r"libcuda\.so", why):
        return "install the NVIDIA driver"
    if ".so" in why or ".dll" in why:
        return "pip install 'graphwright[gpu]', or put the libraries on LD_LIBRARY_PATH"
    return f"check the GPU and its driver: nvidia-smi (for {provider})"


def probe(provider: str) -> tuple[str, bool]:
    """Run Relu on the provider. "" or why not, and whether the runtime was built with it. Only in a child."""
    runtime = available()
    if runtime is None:
        return "onnxruntime is installed but cannot be imported", False
    if PROVIDERS[provider] not in runtime.providers:
        return "the installed onnxruntime is built without it", False
    with tempfile.TemporaryDirectory(prefix="graphwright-") as folder:
        model = Path(folder, "relu.onnx")
        model.write_bytes(_relu())
        try:
            import numpy as np

            session = open_session(model, optimize=False, provider=provider)
            session.run({"x": np.ones(8, np.float32)})
        except GraphwrightError as error:
            return _missing_library(provider) or error.what, True
    return "", True


def _relu() -> bytes:
    """y = Relu(x), x float32 [8]"""
    from onnx import TensorProto, helper

    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [8]) for name in ("x", "y"))
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "relu", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return model.SerializeToString()


def _missing_library(provider: str) -> str:
    """Which library the provider's own library lacks, in the loader's words; "" if it loads."""
    package = importlib.util.find_spec("onnxruntime")
    if provider not in _LIBRARY or package is None or package.origin is None:
        return ""
    name = f"{_LIBRARY[provider]}.dll" if sys.platform == "win32" else f"lib{_LIBRARY[provider]}.so"
    folder = Path(package.origin).parent / "capi"
    shared = folder / name.replace(_LIBRARY[provider], "onnxruntime_providers_shared")
    try:
        for library in (shared, folder / name):
            ctypes.CDLL(os.fspath(library))
    except OSError as error:
        return re.sub(r"^(\S+): cannot open shared object file.*", r"\1 not found", str(error))
    return ""
