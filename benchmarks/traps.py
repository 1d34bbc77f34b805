"""The traps of tests/traps, set for every optimizer → benchmarks/results/traps.json.

    python benchmarks/traps.py [--tools onnxsim,graphwright] [--traps NAME,…]

Runs in an environment made of benchmarks/requirements.txt. Each tool rewrites a file in a child process, with its
default passes; the same judge looks at every result: well-formed, loads, same interface, same answers op by op, no
larger. A verdict is "ok" or `KIND: what`, KIND one of `KINDS`.

    python benchmarks/traps.py TOOL      # a child: a JSON request a line on stdin, a JSON answer a line on stdout
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections import Counter
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import peers

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "traps.json"
SCHEMA = "graphwright.benchmarks.traps/1"
KINDS = ("wrong", "does not run", "does not load", "invalid", "interface", "crash", "blown up", "dims")
LIMIT = 60.0  # seconds a trap
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "passes")]


def onnxruntime(source: str, result: str) -> None:
    """What the runtime makes of it at its basic level, which changes no standard operator into its own."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = result
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


TOOLS = {**peers.TOOLS, "onnxruntime": onnxruntime}


def answer(tool: str, trap: str) -> dict[str, Any]:
    """The verdict on what a tool makes of a trap."""
    import onnx
    from traps.corpus import traps
    from traps.trap import save, verdict

    t = traps()[trap]
    with tempfile.TemporaryDirectory() as folder:
        source, result = Path(folder, "source.onnx"), Path(folder, "result.onnx")
        save(t, source)
        try:
            TOOLS[tool](str(source), str(result))
            made = onnx.load(result)
        except Exception as e:
            text = str(e).strip().splitlines()
            return {"verdict": f"crash: {type(e).__name__}: {text[0][:200] if text else ''}"}
        return {"verdict": verdict(t, made) or "ok"}


def measure(tools: list[str], names: list[str]) -> dict[str, dict[str, str]]:
    """Trap → tool → verdict; a child that dies is a crash, and the next trap gets another child."""
    from optimizers import Child, tell

    out: dict[str, dict[str, str]] = {name: {} for name in names}
    for tool in tools:
        child = Child(tool, script="traps.py")
        for name in names:
            reply = child.ask(LIMIT, trap=name)
            if "failed" in reply:
                child.__exit__()
                child = Child(tool, script="traps.py")
            out[name][tool] = reply.get("verdict") or f"crash: {reply['failed']}"
        child.__exit__()
        kinds = Counter(v[tool].partition(":")[0] for v in out.values())
        tell(f"{tool}: {dict(kinds)}")
    return out


def main() -> None:
    from optimizers import machine, own_version, today
    from traps.corpus import traps

    parser = argparse.ArgumentParser(description="The traps, set for every optimizer.")
    parser.add_argument("--tools", type=lambda s: s.split(","), default=list(TOOLS), help=",".join(TOOLS))
    parser.add_argument("--traps", type=lambda s: s.split(","), default=list(traps()), help="names; default: all")
    options = parser.parse_args()
    found = measure(options.tools, options.traps)
    old = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"traps": {}, "versions": {}}
    versions = {t: own_version() if t == "graphwright" else metadata.version(t) for t in options.tools}
    merged = {name: old["traps"].get(name, {}) | found.get(name, {}) for name in traps()}
    document = {
        "schema": SCHEMA,
        "machine": machine(),
        "date": today(),
        "versions": old["versions"] | versions,
        "traps": merged,
    }
    RESULTS.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    if len(sys.argv) == 2 and sys.argv[1] in TOOLS:
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        peers.serve(partial(answer, sys.argv[1]))
    else:
        main()
