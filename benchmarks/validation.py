"""What does validating a result cost `optimize`? → benchmarks/results/validation.json

    python benchmarks/validation.py [--models minilm,phi2] [--rounds 3]

CPU seconds of whole commands with and without `--no-validate`, interleaved, medians; and of these, what the runtime
takes for starting sessions and running the models, measured where the validation calls it. Asked is that the rest is
at most twice the command without validation.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from optimizers import machine, own_version, today

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).with_name("results") / "validation.json"
SCHEMA = "graphwright.benchmarks.validation/1"
LIMIT = 2.0


def command(card: Path, out: Path, *flags: str) -> float:
    """CPU seconds of `graphwright optimize`, its children included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    argv = [sys.executable, "-m", "optimizer", "optimize", str(card), "-o", str(out), "--force", "-q", *flags]
    subprocess.run(argv, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def runtime_seconds(card: Path, out: Path) -> float:
    """CPU seconds that one validation of `out` spends in the runtime; in a process of its own."""
    argv = [sys.executable, __file__, "--runtime", str(card), str(out)]
    done = subprocess.run(argv, check=True, capture_output=True, text=True)
    return float(done.stdout.splitlines()[-1])


def _in_the_runtime(card: str, out: str) -> float:
    import onnxruntime

    from optimizer.measure.judge import judge
    from optimizer.runtime.card import resolve

    spent = 0.0

    def timed(f: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal spent
            start = time.process_time()
            try:
                return f(*args, **kwargs)
            finally:
                spent += time.process_time() - start

        return call

    kind = onnxruntime.InferenceSession
    for name in ("__init__", "run"):
        setattr(kind, name, timed(getattr(kind, name)))
    judge(original=str(resolve(card).path), result=out, card=card)
    return spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", help="of models/, by name; all that there are")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runtime", nargs=2, metavar=("CARD", "RESULT"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.runtime:
        print(_in_the_runtime(*args.runtime))
        return
    names = args.models.split(",") if args.models else sorted(card.stem for card in (ROOT / "models").glob("*.toml"))
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {"models": {}}
    results |= {"schema": SCHEMA, "machine": machine(), "date": today(), "version": own_version(), "limit": LIMIT}
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            card, out = ROOT / "models" / f"{name}.toml", Path(folder, f"{name}.onnx")
            with_, without = zip(
                *((command(card, out), command(card, out, "--no-validate")) for _ in range(args.rounds)), strict=True
            )
            row = {
                "validated": statistics.median(with_),
                "not validated": statistics.median(without),
                "runtime": runtime_seconds(card, out),
            }
            rest = row["validated"] - row["not validated"] - row["runtime"]
            row = {k: round(x, 3) for k, x in row.items()} | {"ratio": round(rest / row["not validated"], 2)}
            results["models"][name] = row
            print(name, row, flush=True)
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    met = sum(row["ratio"] <= LIMIT for row in results["models"].values())
    print(f"{met} of {len(results['models'])} models within {LIMIT}")


if __name__ == "__main__":
    main()
