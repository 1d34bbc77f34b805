"""The one door to onnxruntime: sessions that run where they were asked to, or say that they do not.

Asked for a provider that cannot run, onnxruntime prints a banner and runs on the CPU instead; here that is
EnvironmentNotAsAsked. onnxruntime is an optional dependency, imported inside functions only. Everything here belongs
inside a child process (`optimizer.runtime.child`), except `available`.
"""

from __future__ import annotations

import ctypes
import difflib
import os
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optimizer.core.errors import BadInput, EnvironmentNotAsAsked

if TYPE_CHECKING:
    from optimizer.core.feeds import Array, Feed, Outputs

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}
_BELOW = {"cpu": (), "cuda": ("cpu",), "tensorrt": ("cuda", "cpu")}  # who takes the nodes that a provider declines
_DEVICE = {"cpu": "cpu", "cuda": "cuda", "tensorrt": "cuda"}
_LONGEST = 300  # characters of a runtime's message: some repeat themselves for every level of nesting
_SILENT = 4  # the log level of fatal errors: all others come back as exceptions


class SessionError(BadInput):
    """The runtime refuses the model or a feed: it does not load, or a run raised."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """An installed onnxruntime; `providers` is what it was built with, not what this machine can run."""

    version: str
    providers: tuple[str, ...]


def available() -> Runtime | None:
    """The installed onnxruntime, or None."""
    try:
        import onnxruntime
    except ImportError:
        return None
    return Runtime(onnxruntime.__version__, tuple(onnxruntime.get_available_providers()))


class Session:
    """One loaded model.

    Fields:
        path: the model's file.
        provider: "cpu", "cuda" or "tensorrt".
        inputs, outputs: the names, in the model's order; overridable initializers are not among the inputs.
        placement: execution provider → how many nodes it took, counted before layout changes and level-2 fusions.
    """

    def __init__(self, path: str, provider: str, session: Any) -> None:
        self.path, self.provider, self._session = path, provider, session
        self.inputs: tuple[str, ...] = tuple(value.name for value in session.get_inputs())
        self.outputs: tuple[str, ...] = tuple(value.name for value in session.get_outputs())
        self.placement: Counter[str] = Counter()
        for part in session.get_provider_graph_assignment_info():
            self.placement[part.ep_name] += len(part.get_nodes())
        known = [*session.get_inputs(), *session.get_overridable_initializers()]
        self._types: dict[str, str] = {value.name: value.type for value in known}
        self._strange = any(value.type in _strange_types() for value in [*known, *session.get_outputs()])

    def run(self, feed: Feed) -> Outputs:
        """Every output of one run.

        Raises:
            SessionError: the runtime refused the feed or failed in a kernel.
        """
        try:
            if self._strange:
                values = {name: self._ort_value(name, value, "cpu") for name, value in feed.items()}
                results = map(_to_numpy, self._session.run_with_ort_values(list(self.outputs), values))
            else:
                results = self._session.run(list(self.outputs), dict(feed))
        except Exception as error:
            raise SessionError(f"the runtime failed to run the model: {_one_line(error)}", at=self.path) from error
        return dict(zip(self.outputs, results, strict=True))

    def prepare(self, feed: Feed) -> Callable[[], None]:
        """A run with its inputs already on the device, whose outputs stay there; returning, it has finished.

        Raises:
            SessionError: the feed holds what cannot be bound, or the run failed.
        """
        device = _DEVICE[self.provider]
        try:
            binding = self._session.io_binding()
            for name, value in feed.items():
                binding.bind_ortvalue_input(name, self._ort_value(name, value, device))
            for name in self.outputs:
                binding.bind_output(name, device)
        except Exception as error:
            raise SessionError(f"the feed cannot be bound: {_one_line(error)}", at=self.path) from error

        def run() -> None:
            try:
                self._session.run_with_iobinding(binding)
                binding.synchronize_outputs()
            except Exception as error:
                raise SessionError(f"the runtime failed to run the model: {_one_line(error)}", at=self.path) from error

        return run

    def end_profiling(self) -> str:
        """The file of the profile of a session that was opened with `profile_prefix`."""
        return self._session.end_profiling()

    def _ort_value(self, name: str, value: Any, device: str) -> Any:
        import numpy as np
        from onnxruntime import OrtValue

        array = np.ascontiguousarray(value) if np.ndim(value) else np.asarray(value)
        strange = _strange_types().get(self._types.get(name, ""))
        if strange is None:
            return OrtValue.ortvalue_from_numpy(array, device, 0)
        element, dtype = strange
        typed = array.astype(dtype)
        return OrtValue.ortvalue_from_numpy_with_onnx_type(typed.view(f"u{typed.itemsize}"), element)


class ReferenceSession:
    """One model, run by onnx.reference: a second opinion that shares no code with onnxruntime, and is slow.

    Fields:
        path: the model's file.
        inputs, outputs: the names, in the model's order; overridable initializers are not among the inputs.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Load a model; its local functions run as they are.

        Raises:
            SessionError: onnx.reference does not load it.
        """
        import onnx
        from onnx.reference import ReferenceEvaluator

        self.path = os.fspath(path)
        try:
            model = onnx.load(self.path)
            self._evaluator = ReferenceEvaluator(model)
        except Exception as error:
            raise SessionError(f"onnx.reference does not load the model: {_one_line(error)}", at=self.path) from error
        defaults = {tensor.name for tensor in model.graph.initializer}
        self.inputs: tuple[str, ...] = tuple(v.name for v in model.graph.input if v.name not in defaults)
        self.outputs: tuple[str, ...] = tuple(value.name for value in model.graph.output)

    def run(self, feed: Feed) -> Outputs:
        """Every output of one run.

        Raises:
            SessionError: onnx.reference refused the feed or failed in an op.
        """
        import numpy as np

        try:
            with np.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                results: Any = self._evaluator.run(None, dict(feed))
        except Exception as error:
            raise SessionError(f"onnx.reference failed to run the model: {_one_line(error)}", at=self.path) from error
        return dict(zip(self.outputs, results, strict=True))


def open_session(
    path: str | os.PathLike[str],
    *,
    optimize: bool,
    provider: str = "cpu",
    options: Mapping[str, str] | None = None,
    threads: int = 1,
    custom_ops: Sequence[str | os.PathLike[str]] = (),
    optimized_path: str | os.PathLike[str] | None = None,
    profile_prefix: str | os.PathLike[str] | None = None,
) -> Session:
    """Load a model with all of the runtime's own optimizations (`optimize`) or none.

    Args:
        provider: "cpu", "cuda" or "tensorrt"; nodes it declines go to the next lower one, and `placement` says so.
        options: the provider's options, in the runtime's own names.
        threads: of one operator; operators run one after the other.
        custom_ops: shared libraries of custom operators.
        optimized_path: where to write the graph the runtime ends with, weights in `….data` beside it, or None.
        profile_prefix: where to write the profile (see `Session.end_profiling`), or None.

    Raises:
        BadInput: an unknown provider.
        SessionError: the model does not load.
        EnvironmentNotAsAsked: no runtime is installed, or the provider did not take a single node.
    """
    if provider not in PROVIDERS:
        near = difflib.get_close_matches(provider, PROVIDERS, 1)
        raise BadInput(
            f"unknown provider {provider!r}",
            fix=f"did you mean {near[0]!r}?" if near else f"one of {', '.join(PROVIDERS)}",
        )
    ort = _import_runtime(provider)
    settings = ort.SessionOptions()
    level = ort.GraphOptimizationLevel
    settings.graph_optimization_level = level.ORT_ENABLE_ALL if optimize else level.ORT_DISABLE_ALL
    settings.intra_op_num_threads, settings.inter_op_num_threads = threads, 1
    settings.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    settings.log_severity_level = _SILENT
    settings.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if optimized_path is not None:
        settings.optimized_model_filepath = os.fspath(optimized_path)
        weights = f"{Path(optimized_path).name}.data"
        settings.add_session_config_entry("session.optimized_model_external_initializers_file_name", weights)
    if profile_prefix is not None:
        settings.enable_profiling = True
        settings.profile_file_prefix = os.fspath(profile_prefix)
    for library in custom_ops:
        try:
            settings.register_custom_ops_library(os.fspath(library))
        except Exception as error:
            raise BadInput(f"the custom operators do not load: {_one_line(error)}", at=os.fspath(library)) from error
    chain = [(PROVIDERS[provider], dict(options or {})), *(PROVIDERS[lower] for lower in _BELOW[provider])]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            session = Session(
                os.fspath(path), provider, ort.InferenceSession(os.fspath(path), settings, providers=chain)
            )
            used = session._session.get_providers()  # pyright: ignore[reportPrivateUsage]
    except Exception as error:
        raise SessionError(f"the runtime does not load the model: {_one_line(error)}", at=os.fspath(path)) from error
    if PROVIDERS[provider] not in used:
        raise EnvironmentNotAsAsked(
            f"the runtime could not start {PROVIDERS[provider]} and fell back to {', '.join(used)}",
            fix=f"graphwright doctor --provider {provider} names the missing library",
        )
    if session.placement and not session.placement[PROVIDERS[provider]]:
        raise EnvironmentNotAsAsked(
            f"{PROVIDERS[provider]} took none of the model's {session.placement.total()} nodes", at=os.fspath(path)
        )
    return session


def _import_runtime(provider: str) -> Any:
    """onnxruntime, with the libraries of the provider loaded."""
    installed = available()
    if installed is None:
        raise EnvironmentNotAsAsked("no runtime is installed", fix="pip install 'graphwright[cpu]'")
    if PROVIDERS[provider] not in installed.providers:
        raise EnvironmentNotAsAsked(
            f"the installed onnxruntime {installed.version} is built without {PROVIDERS[provider]}",
            fix="pip uninstall onnxruntime, then pip install 'graphwright[gpu]'",
        )
    import onnxruntime

    if provider != "cpu":
        onnxruntime.preload_dlls()  # finds the CUDA libraries that pip installed
    return onnxruntime


def _strange_types() -> dict[str, tuple[int, Any]]:
    """The tensor types that numpy lacks, as the runtime spells them → (ONNX element type, ml_dtypes type)."""
    import ml_dtypes
    from onnx import TensorProto

    return {
        "tensor(bfloat16)": (TensorProto.BFLOAT16, ml_dtypes.bfloat16),
        "tensor(float8e4m3fn)": (TensorProto.FLOAT8E4M3FN, ml_dtypes.float8_e4m3fn),
        "tensor(float8e4m3fnuz)": (TensorProto.FLOAT8E4M3FNUZ, ml_dtypes.float8_e4m3fnuz),
        "tensor(float8e5m2)": (TensorProto.FLOAT8E5M2, ml_dtypes.float8_e5m2),
        "tensor(float8e5m2fnuz)": (TensorProto.FLOAT8E5M2FNUZ, ml_dtypes.float8_e5m2fnuz),
    }


def _to_numpy(value: Any) -> Array:
    """An output that lies on the CPU, also of a type that numpy lacks."""
    import numpy as np

    strange = _strange_types().get(value.data_type())
    if strange is None:
        return value.numpy()
    bits = ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes())
    return np.frombuffer(bits, strange[1]).reshape(value.shape())


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).removeprefix("[ONNXRuntimeError] : ").split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
