"""Graphwright optimizes ONNX models: every rewrite explained, every result proved against the original.

    import optimizer
    result = optimizer.optimize("model.onnx")
    result.save("out.onnx")

Importing this loads neither onnx nor a runtime; a verb loads what it needs when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from optimizer.core.errors import BadInput, EnvironmentNotAsAsked, GraphwrightError, ToolFailure, ValidationFailed

if TYPE_CHECKING:
    from optimizer.driver.bisect import bisect
    from optimizer.driver.explain import explain
    from optimizer.driver.optimize import optimize
    from optimizer.driver.prune import prune
    from optimizer.driver.quantize import quantize
    from optimizer.measure.accuracy import validate
    from optimizer.measure.diff import diff
    from optimizer.measure.inspect import inspect
    from optimizer.measure.layers import layers
    from optimizer.measure.speed import bench
    from optimizer.runtime.doctor import doctor
    from optimizer.runtime.fetch import fetch

    __version__: str

__all__ = [
    "BadInput", "EnvironmentNotAsAsked", "GraphwrightError", "ToolFailure", "ValidationFailed", "__version__",
    "bench", "bisect", "diff", "doctor", "explain", "fetch", "inspect", "layers", "optimize", "prune", "quantize",
    "validate",
]  # fmt: skip

_HOME = {
    "optimize": "optimizer.driver.optimize",
    "prune": "optimizer.driver.prune",
    "quantize": "optimizer.driver.quantize",
    "validate": "optimizer.measure.accuracy",
    "bench": "optimizer.measure.speed",
    "bisect": "optimizer.driver.bisect",
    "diff": "optimizer.measure.diff",
    "inspect": "optimizer.measure.inspect",
    "layers": "optimizer.measure.layers",
    "explain": "optimizer.driver.explain",
    "doctor": "optimizer.runtime.doctor",
    "fetch": "optimizer.runtime.fetch",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        found = version("graphwright")
    elif name in _HOME:
        found = getattr(importlib.import_module(_HOME[name]), name)
    else:
        raise AttributeError(f"module 'optimizer' has no attribute {name!r}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
