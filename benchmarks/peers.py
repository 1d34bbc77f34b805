"""The optimizers compared, each as `file in, file out`, and one judge for all of their results.

    python benchmarks/peers.py NAME      # a JSON request a line on stdin, a JSON answer a line on stdout

NAME is a tool (answer: CPU and wall seconds of load + passes + save), `judge` or `locate`. Whatever a tool does to its
process, its memory, its threads or its stdout, it does to a child that the benchmark can outlive.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx

# Largest error an output may have, relative to the largest magnitude of that output; other types are exact.
LIMITS = {"float64": 1e-12, "float32": 1e-5, "float16": 5e-3, "bfloat16": 4e-2}
SEEDS = (0, 1)


# ------------------------------------------------------------------------------------- load + passes + save, in process
# Each tool as its own documentation calls it, in the fastest of the ways it offers, with its default passes.


def onnxsim(source: str, result: str) -> None:
    import onnxsim

    onnxsim.simplify(source, output_path=result)


def onnxslim(source: str, result: str) -> None:
    import onnx
    import onnxslim

    onnx.save(onnxslim.slim(source), result)


def onnxscript(source: str, result: str) -> None:
    import onnx_ir
    import onnxscript.optimizer

    onnx_ir.save(onnxscript.optimizer.optimize(onnx_ir.load(source)), result)


def graphwright(source: str, result: str) -> None:
    import optimizer

    optimizer.optimize(source, validate=False).save(result, force=True)


TOOLS: dict[str, Callable[[str, str], None]] = {
    tool.__name__: tool for tool in (onnxsim, onnxslim, onnxscript, graphwright)
}

# Whole commands; onnxscript has none.
COMMANDS: dict[str, Callable[[str, str], list[str]]] = {
    "onnxsim": lambda source, result: ["onnxsim", source, result],
    "onnxslim": lambda source, result: ["onnxslim", source, result],
    "graphwright": lambda source, result: [
        "graphwright", "optimize", source, "-o", result, "--no-validate", "--force",
    ],
}  # fmt: skip


def timed(tool: Callable[[str, str], None], source: str, result: str) -> dict[str, float]:
    """CPU seconds (all threads and children) and wall seconds of one call."""
    start, cpu = time.perf_counter(), cpu_seconds()
    tool(source, result)
    return {"cpu": cpu_seconds() - cpu, "wall": time.perf_counter() - start}


def cpu_seconds() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


# ------------------------------------------------------------------------------------------------------- models, judge


def locate(model: str) -> dict[str, Any]:
    """The file of a card (`models/NAME.toml`) or of a synthetic model's name, and the sha256 of its bytes."""
    import hashlib

    if model.endswith(".toml"):
        from optimizer.runtime.card import resolve

        path = resolve(model).path
    else:
        import synthetic

        path = synthetic.build(model)
    with path.open("rb") as file:
        return {"path": str(path), "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def judge(source: str, result: str, card: str | None = None) -> dict[str, Any]:
    """What `result` is worth: its nodes and bytes; whether it loads, is well-formed, and answers as `source` does.

    nodes: of the graph, all subgraphs and functions, Constant not counted. loads: a session opens with the runtime's
    optimizations off. checks: `onnx.checker` with full_check. equal: every output agrees on seeded inputs; error: the
    worst relative error, null where shapes, types or non-finite values differ. why: what said no.
    """
    import onnx

    whys: list[str] = []

    def attempt(question: Callable[[], Any]) -> tuple[bool, Any]:
        try:
            return True, question()
        except Exception as error:
            whys.append(f"{type(error).__name__}: {error}"[:300])
            return False, None

    checks, _ = attempt(lambda: onnx.checker.check_model(result, full_check=True))
    loads, _ = attempt(lambda: open_session(result))
    answered, differences = attempt(lambda: compare(source, result, card)) if loads else (False, None)
    whys += [difference.why for difference in differences or () if not difference.equal]
    return {
        "nodes": count_nodes(result),
        "bytes": count_bytes(result),
        "loads": loads,
        "checks": checks,
        "equal": answered and all(difference.equal for difference in differences),
        "error": max((d.error for d in differences if d.error is not None), default=None) if answered else None,
        "why": "; ".join(whys[:3]) or None,
    }


def count_nodes(model: str) -> int:
    import onnx

    bodies = bodies_of(onnx.load(model, load_external_data=False))
    return sum(node.op_type != "Constant" for body in bodies for node in body.node)


def count_bytes(model: str) -> int:
    """Of the file and of every data file that an initializer lies in."""
    import onnx

    bodies = bodies_of(onnx.load(model, load_external_data=False))
    tensors = (tensor for body in bodies if isinstance(body, onnx.GraphProto) for tensor in body.initializer)
    entries = (entry for tensor in tensors for entry in tensor.external_data if entry.key == "location")
    data = {Path(model).parent / entry.value for entry in entries}
    return sum(path.stat().st_size for path in (Path(model), *data))


def bodies_of(model: onnx.ModelProto) -> list[onnx.GraphProto | onnx.FunctionProto]:
    """The graph, the functions, and the graphs in attributes of their nodes, however deep."""
    bodies = [model.graph, *model.functions]
    for body in bodies:  # grows while it is walked
        for node in body.node:
            for attribute in node.attribute:
                bodies += [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]
    return bodies


def open_session(model: str) -> Any:
    import onnxruntime

    onnxruntime.set_default_logger_severity(4)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


@dataclass(frozen=True, slots=True)
class Difference:
    """Of one output on one batch; error is relative to the largest magnitude, None where it has no meaning."""

    equal: bool
    error: float | None = None
    why: str = ""


def compare(source: str, result: str, card: str | None) -> list[Difference]:
    """Outputs of `result` against those of `source`, by name, over the seeds; one session open at a time.

    A removed input is not fed; a removed or renamed output is an error. RuntimeError: the source does not run.
    """
    session = open_session(source)
    names = [output.name for output in session.get_outputs()]
    batches = [feeds(session, card, seed) for seed in SEEDS]
    expected = [session.run(names, batch) for batch in batches]
    session = open_session(result)
    taken = {value.name for value in session.get_inputs()}
    answers = [session.run(names, {name: batch[name] for name in batch if name in taken}) for batch in batches]
    return [difference(*triple) for e, a in zip(expected, answers, strict=True) for triple in zip(names, e, a)]


def difference(name: str, expected: Any, answer: Any) -> Difference:
    """max |a - b| / max |a|, where shape, type and every NaN and infinity agree; exact for what is not floating."""
    import numpy as np

    if not isinstance(expected, np.ndarray):  # sequences, maps
        return Difference(expected == answer, why=f"{name}: values differ")
    if expected.shape != answer.shape or expected.dtype != answer.dtype:
        return Difference(False, why=f"{name}: {expected.dtype}{expected.shape} became {answer.dtype}{answer.shape}")
    limit = LIMITS.get(expected.dtype.name)
    if limit is None:
        return Difference(bool(np.array_equal(expected, answer)), why=f"{name}: values differ")
    a, b = expected.astype(np.float64), answer.astype(np.float64)
    finite = np.isfinite(a)
    if not np.array_equal(np.where(finite, 0, a), np.where(np.isfinite(b), 0, b), equal_nan=True):
        return Difference(False, why=f"{name}: NaN or infinity in other places")
    scale = np.abs(a[finite]).max(initial=0) or 1
    error = float(np.abs(a[finite] - b[finite]).max(initial=0) / scale)
    return Difference(error <= limit, error, f"{name}: error {error:.1e} of scale")


def feeds(session: Any, card: str | None, seed: int) -> dict[str, Any]:
    """One batch: the card's own where it has feeds, else drawn by type and shape, free dimensions bound by the card."""
    import numpy as np

    bindings: Mapping[str, int] = {}
    if card is not None:
        from optimizer.runtime.card import read_card

        read = read_card(card)
        if read.feeds is not None:
            return next(read.load_feeds()(seed))
        bindings = read.dims[0] if read.dims else {}
    rng = np.random.default_rng(seed)

    def draw(type_: str, shape: list[int]) -> np.ndarray:
        dtype = {"float": "float32", "double": "float64"}.get(kind := type_[len("tensor(") : -1], kind)
        if dtype.startswith("float"):
            return rng.standard_normal(shape).astype(dtype)
        return rng.integers(0, 2, shape).astype(dtype)  # a mask, a flag, and an index that every table has

    return {
        value.name: draw(value.type, [side if isinstance(side, int) else bindings.get(side, 2) for side in value.shape])
        for value in session.get_inputs()
    }


# -------------------------------------------------------------------------------------------------------------- a child


def serve(answer: Callable[..., Mapping[str, Any]]) -> None:
    """Answer requests until stdin closes; what the tools print goes to stderr."""
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    for line in sys.stdin:
        try:
            reply = answer(**json.loads(line))
        except Exception as error:
            reply = {"failed": f"{type(error).__name__}: {error}"[:300]}
        channel.write(json.dumps(reply) + "\n")


if __name__ == "__main__":
    name = sys.argv[1]
    serve({"judge": judge, "locate": locate}.get(name) or partial(timed, TOOLS[name]))
