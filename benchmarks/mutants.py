"""How many wrong rewrites does a validator let through? → benchmarks/results/mutants.json

    python benchmarks/mutants.py                        # everything that is not in the results yet
    python benchmarks/mutants.py --models tiny-0,phi2 --again --no-peers

Wrong rewrites are those of `wrong_rewrites.py` (a line each) and of `mutators.py` on the models below. One counts if
the oracle (`oracle.py`) finds a legal feed on which it differs; where it finds none the rewrite is listed as
equivalent. The peers are asked about the very same pairs. Each model runs in a child that the rest outlives.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).with_name("results") / "mutants.json"
SCHEMA = "graphwright.benchmarks.mutants/1"
CHUNKS = 6
CARDS = (
    *("partial_rotary", "smollm_1", "smollm_2", "phi2", "whisper_decoder", "bart_encoder", "pp_ocr_cls", "silero_vad"),
    *("light_shufflenet", "light_squeezenet", "magika", "phi4", "pp_ocr_det"),
)
MODELS = (*(f"tiny-{i}" for i in range(CHUNKS)), *CARDS)
PEERS = ("polygraphy", "onnxsim", "onnxslim")
SITES = 2  # of a kind in a model

Json = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--again", action="store_true", help="ask about what the results hold already, too")
    parser.add_argument("--no-peers", dest="peers", action="store_false")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        channel = os.fdopen(os.dup(1), "w", buffering=1)
        os.dup2(2, 1)
        for record in examine(args.child, peers=args.peers):
            channel.write(json.dumps(record) + "\n")
        return
    results: Json = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {"schema": SCHEMA, "models": {}}
    wanted = [m for m in args.models.split(",") if args.again or m not in results["models"]]

    def run(model: str) -> tuple[str, Json]:
        argv = [sys.executable, __file__, "--child", model, *([] if args.peers else ["--no-peers"])]
        env = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        with tempfile.TemporaryFile() as noise:
            done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=noise, text=True, env=env)
            noise.seek(0)
            last = noise.read().decode(errors="replace").strip().splitlines()[-1:]
        pairs = [json.loads(line) for line in done.stdout.splitlines()]
        return model, {"pairs": pairs, **({"died": " ".join(last)} if done.returncode else {})}

    from importlib import metadata

    with ThreadPoolExecutor(args.jobs) as pool:
        for model, record in pool.map(run, wanted):
            used = ("graphwright", "onnx", "onnxruntime", "numpy", *(PEERS if args.peers else ()))
            record["versions"] = {name: metadata.version(name) for name in used}
            record["date"] = time.strftime("%Y-%m-%d")
            results["models"][model] = record
            RESULTS.write_text(dump(results))
            print(summary(model, record), flush=True)


def dump(results: Json) -> str:
    """JSON with a pair a line."""
    heads = []
    for model, record in sorted(results["models"].items(), key=lambda item: MODELS.index(item[0])):
        rest = json.dumps({k: v for k, v in record.items() if k != "pairs"}, ensure_ascii=False)[:-1]
        pairs = ",\n   ".join(json.dumps(pair, ensure_ascii=False) for pair in record["pairs"])
        heads.append(f'{json.dumps(model)}: {rest}, "pairs": [\n   {pairs}]}}')
    return f'{{"schema": {json.dumps(SCHEMA)}, "models": {{\n ' + ",\n ".join(heads) + "}}\n"


def summary(model: str, record: Json) -> str:
    counted = [pair for pair in record["pairs"] if pair["group"] in ("plain", "size", "special")]
    killed = sum(pair["graphwright"] == "fail" for pair in counted)
    text = f"{model}: {killed} of {len(counted)} killed, {len(record['pairs']) - len(counted)} equivalent"
    survivors = [
        f"{p['kind']} @ {p['node']} [{p['group']}: {p['regime']}]" for p in counted if p["graphwright"] != "fail"
    ]
    return "\n   ".join([text + (f"  DIED {record['died']}" if "died" in record else ""), *survivors])


# --------------------------------------------------------------------------------------------------------- in a child


def examine(model: str, *, peers: bool) -> Iterator[Json]:
    """A record for every pair of one model: what the oracle and each checker say, and how long ours took."""
    with tempfile.TemporaryDirectory() as folder:
        if model.startswith("tiny-"):
            yield from _tiny(int(model.removeprefix("tiny-")), Path(folder), peers)
        else:
            yield from _card(ROOT / "models" / f"{model}.toml", Path(folder), peers)


def _tiny(chunk: int, folder: Path, peers: bool) -> Iterator[Json]:
    import wrong_rewrites
    from oracle import Oracle, reference_differs

    for kind, template in list(wrong_rewrites.TABLE.items())[chunk::CHUNKS]:
        a, b = wrong_rewrites.pair(template)
        (folder / "original.onnx").write_bytes(a.SerializeToString())
        (folder / "mutant.onnx").write_bytes(b.SerializeToString())
        base = base_of(folder / "original.onnx")
        oracle = Oracle(folder / "original.onnx", base=base, seconds=8)
        record = ask_all(kind, "", oracle, folder / "mutant.onnx", peers, None)
        if record is not None:
            found = oracle.difference(folder / "mutant.onnx")
            yield {**record, "reference": found and reference_differs(a, b, found)}


def _card(card: Path, folder: Path, peers: bool) -> Iterator[Json]:
    import itertools

    import onnx
    from mutators import mutants
    from oracle import Oracle

    from optimizer.runtime.card import resolve

    source = resolve(card)
    feeds = list(itertools.islice(source.card.load_feeds()(977), 4)) if source.card and source.card.feeds else []
    declared = [dict(d) for d in source.card.dims] if source.card else []
    base = declared[0] if declared else base_of(source.path)
    oracle = Oracle(source.path, base=base, others=declared[1:], feeds=feeds, seconds=25)
    feed = next((case.feed for case in oracle.cases if case.binding == base), None)
    for kind, node, spoilt in mutants(onnx.load(source.path), feed, sites=SITES, seed=1):
        path = folder / "mutant.onnx"
        path.write_bytes(spoilt.SerializeToString())
        record = ask_all(kind, node, oracle, path, peers, card)
        if record is not None:
            yield record


def base_of(path: Path) -> dict[str, int]:
    """The size that a rewrite may have been made at: the first that the original runs at."""
    import numpy as np
    from oracle import open_session

    from optimizer.runtime.feeds import draw, find_bindings
    from optimizer.runtime.interface import read_interface

    interface, session = read_interface(path), open_session(path)

    def runs(binding: Any) -> bool:
        try:
            session.run(None, draw(interface, binding, np.random.default_rng(5), "unit"))
        except Exception:
            return False
        return True

    return next(iter(find_bindings(interface, runs, count=1)), {})


def ask_all(kind: str, node: str, oracle: Any, mutant: Path, peers: bool, card: Path | None) -> Json | None:
    """What is said of one pair; None for a mutant that does not load: no tool lets that through."""
    import checkers
    from oracle import open_session

    try:
        open_session(mutant), open_session(mutant, optimize=True)
    except Exception:
        return None
    found = oracle.difference(mutant)
    began = time.perf_counter()
    try:
        verdict = checkers.graphwright(oracle.path, mutant, oracle.base, card=card)
    except Exception as error:
        verdict = {"verdict": f"error: {error}"}
    seconds = time.perf_counter() - began
    record = {
        "kind": kind,
        "node": node,
        "group": found.group if found else "equivalent",
        "regime": found.regime if found else "",
        "binding": found.binding if found else {},
        "error": found and (found.error if found.error < 1e300 else None),
        "graphwright": verdict["verdict"],
        "seconds": round(seconds, 2),
    }
    if peers:
        record |= {name: checkers.ask(c, oracle.path, mutant, oracle.base) for name, c in checkers.PEERS.items()}
    return record


if __name__ == "__main__":
    main()
