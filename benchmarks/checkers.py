"""What tells a wrong result from a right one: our validation at its defaults, and the peers' checkers at theirs.

Each answers True for "wrong", False for "right", None where it does not decide. Models are files.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx

Binding = Mapping[str, int]
Checker = Callable[[Path, Path, Binding], bool | None]


def graphwright(
    original: Path, result: Path, base: Binding, *, card: Path | None = None, seed: int = 0
) -> dict[str, Any]:
    """The validation's own document: as `graphwright validate` with no flag, in this process."""
    from optimizer.measure.judge import judge

    return judge(original=str(original), result=str(result), card=card and str(card), seeds=[seed, seed + 1, seed + 2])


def polygraphy(original: Path, result: Path, base: Binding) -> bool | None:
    """`polygraphy run A --onnxrt`, then B, compared with the default tolerances."""
    from polygraphy.backend.onnxrt import OnnxrtRunner, SessionFromOnnx
    from polygraphy.comparator import Comparator, CompareFunc, DataLoader
    from polygraphy.logger import G_LOGGER

    G_LOGGER.module_severity = G_LOGGER.CRITICAL
    runners = [OnnxrtRunner(SessionFromOnnx(str(path)), name=path.stem) for path in (original, result)]
    results = Comparator.run(runners, data_loader=DataLoader())
    return not bool(Comparator.compare_accuracy(results, compare_func=CompareFunc.simple()))


def onnxsim(original: Path, result: Path, base: Binding) -> bool | None:
    """`onnxsim` with three checks; it asks for the sizes of free dimensions, so it is told those of the rewrite."""
    from onnxsim.model_checking import compare

    a, b = onnx.load(original), onnx.load(result)
    shapes = {
        value.name: [
            d.dim_value or base.get(d.dim_param or f"{value.name}[{i}]", 1)
            for i, d in enumerate(value.type.tensor_type.shape.dim)
        ]
        for value in a.graph.input
    }
    return not compare(b, a, 3, shapes, verbose=False)


def onnxslim(original: Path, result: Path, base: Binding) -> bool | None:
    """`onnxslim --model-check`."""
    from onnxslim.utils import check_result, gen_onnxruntime_input_data, onnxruntime_inference

    a, b = onnx.load(original), onnx.load(result)
    data = gen_onnxruntime_input_data(a)
    return not check_result(onnxruntime_inference(a, data)[0], onnxruntime_inference(b, data)[0])


PEERS: dict[str, Checker] = {"polygraphy": polygraphy, "onnxsim": onnxsim, "onnxslim": onnxslim}


def ask(checker: Checker, original: Path, result: Path, base: Binding) -> bool | None:
    """A checker's answer with its prints dropped; an error that only the result raises says "wrong"."""

    def attempt(a: Path, b: Path) -> bool | None:
        np.random.seed(0)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            try:
                return checker(a, b, base)
            except (Exception, SystemExit):
                return None

    answer = attempt(original, result)
    return answer if answer is not None else (True if attempt(original, original) is False else None)
