"""Sessions run what they are given, where they were asked to, and refuse with directions."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx.parser
import pytest

from optimizer.core.errors import BadInput, EnvironmentNotAsAsked
from optimizer.runtime import session as door
from optimizer.runtime.session import SessionError, available, open_session

RELU = """<ir_version: 10, opset_import: ["": 20]>
g (float[n, 3] x) => (float[n, 3] y, int64[2] s) { y = Relu(x)  s = Shape(x) }"""


@pytest.fixture
def save(tmp_path: Path) -> Any:
    def write(text: str, name: str = "m.onnx") -> Path:
        onnx.save(onnx.parser.parse_model(text), tmp_path / name)
        return tmp_path / name

    return write


@pytest.mark.parametrize("optimize", [False, True])
def test_run(save: Any, optimize: bool) -> None:
    session = open_session(save(RELU), optimize=optimize)
    assert (session.inputs, session.outputs) == (("x",), ("y", "s"))
    got = session.run({"x": np.array([[-1, 0, 2]], "f")})
    assert got["y"].tolist() == [[0, 0, 2]] and got["s"].tolist() == [1, 3]
    assert session.placement == {"CPUExecutionProvider": 2}


def test_prepared_run_repeats(save: Any) -> None:
    run = open_session(save(RELU), optimize=True).prepare({"x": np.ones((2, 3), "f")})
    assert run() is None and run() is None


@pytest.mark.parametrize("name", ["bfloat16", "float8e4m3fn", "float8e5m2"])
def test_types_that_numpy_lacks(save: Any, name: str) -> None:
    dtype = getattr(ml_dtypes, {"bfloat16": "bfloat16"}.get(name, name.replace("float8", "float8_")))
    text = f"""<ir_version: 10, opset_import: ["": 21]>
    g ({name}[n] x) => ({name}[n] y) {{ f = Cast<to=1>(x)  z = Neg(f)  y = CastLike(z, x) }}"""
    got = open_session(save(text), optimize=True).run({"x": np.array([1, -0.5, 2]).astype(dtype)})["y"]
    assert got.dtype == dtype and got.astype("f").tolist() == [-1, 0.5, -2]


def test_sequences_come_back_as_lists(save: Any) -> None:
    text = """<ir_version: 10, opset_import: ["": 20]>
    g (float[4] x) => (seq(float[2]) y) { y = SplitToSequence<axis=0>(x) }"""
    text = text.replace("SplitToSequence<axis=0>(x)", "SplitToSequence<axis=0>(x, s)").replace(
        "g (float[4] x) =>", "g (float[4] x, int64 s) =>"
    )
    got = open_session(save(text), optimize=False).run({"x": np.arange(4, dtype="f"), "s": np.array(2)})["y"]
    assert [part.tolist() for part in got] == [[0, 1], [2, 3]]


def test_broken_model_is_a_session_error(save: Any, tmp_path: Path) -> None:
    (tmp_path / "no.onnx").write_bytes(b"no model")
    for path in (tmp_path / "no.onnx", tmp_path / "missing.onnx", save(RELU.replace("Relu", "Rely"))):
        with pytest.raises(SessionError, match="does not load") as caught:
            open_session(path, optimize=False)
        assert caught.value.at == str(path) and caught.value.exit_code == 2 and "\n" not in caught.value.what


def test_refused_feed_is_a_session_error(save: Any) -> None:
    session = open_session(save(RELU), optimize=False)
    with pytest.raises(SessionError, match="failed to run"):
        session.run({"x": np.ones((2, 4), "f")})
    with pytest.raises(SessionError, match="failed to run"):
        session.prepare({"x": np.ones((2, 4), "f")})()


def test_unknown_provider(save: Any) -> None:
    with pytest.raises(BadInput, match="unknown provider") as caught:
        open_session(save(RELU), optimize=False, provider="cudda")
    assert caught.value.fix == "did you mean 'cuda'?"


BUILT_WITH = (available() or door.Runtime("", ())).providers


@pytest.mark.skipif("CUDAExecutionProvider" in BUILT_WITH, reason="built with CUDA")
def test_provider_that_is_not_built_in(save: Any) -> None:
    with pytest.raises(EnvironmentNotAsAsked, match="built without CUDA") as caught:
        open_session(save(RELU), optimize=False, provider="cuda")
    assert caught.value.fix is not None and "graphwright[gpu]" in caught.value.fix


class _Lies:
    """onnxruntime-gpu on a machine without a GPU: it lists CUDA, starts without complaint and runs on the CPU."""

    def __init__(self, ort: Any, used: list[str], nodes: dict[str, int]) -> None:
        self._ort, self._used, self._nodes = ort, used, nodes
        self.__version__ = ort.__version__

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ort, name)

    def get_available_providers(self) -> list[str]:
        return list(door.PROVIDERS.values())

    def preload_dlls(self) -> None: ...

    def InferenceSession(self, path: str, settings: Any, providers: Any) -> Any:
        lies = self

        class Pretend(self._ort.InferenceSession):
            def get_providers(self) -> list[str]:
                return lies._used

            def get_provider_graph_assignment_info(self) -> list[Any]:
                def part(name: str, count: int) -> Any:
                    return type("Part", (), {"ep_name": name, "get_nodes": lambda self: [None] * count})()

                return [part(name, count) for name, count in lies._nodes.items()]

        return Pretend(path, settings, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize(
    ("used", "nodes", "says"),
    [
        (["CPUExecutionProvider"], {"CPUExecutionProvider": 2}, "fell back"),
        (["CUDAExecutionProvider", "CPUExecutionProvider"], {"CPUExecutionProvider": 2}, "took none"),
        (["CUDAExecutionProvider", "CPUExecutionProvider"], {"CUDAExecutionProvider": 2}, None),
    ],
)
def test_silent_fallback_is_found(
    save: Any, monkeypatch: pytest.MonkeyPatch, used: list[str], nodes: dict[str, int], says: str | None
) -> None:
    import onnxruntime

    monkeypatch.setitem(sys.modules, "onnxruntime", _Lies(onnxruntime, used, nodes))  # type: ignore[arg-type]
    if says is None:
        assert open_session(save(RELU), optimize=False, provider="cuda").placement == nodes
        return
    with pytest.raises(EnvironmentNotAsAsked, match=says):
        open_session(save(RELU), optimize=False, provider="cuda")


def test_no_runtime(save: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # type: ignore[arg-type]
    assert available() is None
    with pytest.raises(EnvironmentNotAsAsked) as caught:
        open_session(save(RELU), optimize=False)
    assert caught.value.fix == "pip install 'graphwright[cpu]'"


def test_importing_the_door_does_not_open_it() -> None:
    code = "import sys, optimizer.runtime.session; print('onnxruntime' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_optimized_graph_is_written(save: Any, tmp_path: Path) -> None:
    open_session(save(RELU), optimize=True, optimized_path=tmp_path / "o.onnx")
    assert {node.op_type for node in onnx.load(tmp_path / "o.onnx").graph.node} == {"Relu", "Shape"}


def test_custom_ops_that_do_not_load(save: Any, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="custom operators"):
        open_session(save(RELU), optimize=False, custom_ops=[tmp_path / "no.so"])
