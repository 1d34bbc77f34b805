"""How often does the validation fail what is right? → benchmarks/results/false_alarms.json

    python benchmarks/false_alarms.py [--seeds 20] [--only right|cards] [--models minilm,phi2]

Right are the rewrites of `right_rewrites.py`, and every model of `models/` after -O1 and -O2. Each is validated under
every seed at the defaults; asked is that none fails. Rows that the results hold already are not measured again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import right_rewrites
from checkers import graphwright

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).with_name("results") / "false_alarms.json"
SCHEMA = "graphwright.benchmarks.false-alarms/1"
FIRST_SEED = 100  # those of the defaults are what the limits were set on

Json = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--only", choices=("right", "cards"))
    parser.add_argument("--models", help="of models/, by name; all that there are")
    args = parser.parse_args()
    names = args.models.split(",") if args.models else sorted(card.stem for card in (ROOT / "models").glob("*.toml"))
    results: Json = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {"schema": SCHEMA, "rows": {}}
    with tempfile.TemporaryDirectory() as folder:
        for row, original, result, card in pairs(Path(folder), args.only, names, results["rows"]):
            began = time.perf_counter()
            verdicts: Counter[str] = Counter()
            whys: list[str] = []
            for seed in range(FIRST_SEED, FIRST_SEED + args.seeds):
                told = graphwright(original, result, {}, card=card, seed=seed)
                verdicts[told["verdict"]] += 1
                whys += [json.dumps(why, default=str, ensure_ascii=False)[:500] for why in told["failures"]]
            seconds = round((time.perf_counter() - began) / args.seeds, 3)
            results["rows"][row] = {**verdicts, "seconds": seconds, **({"why": whys[:3]} if whys else {})}
            lines = (f"{json.dumps(k, ensure_ascii=False)}: {json.dumps(v)}" for k, v in results["rows"].items())
            RESULTS.write_text(f'{{"schema": "{SCHEMA}", "rows": {{\n ' + ",\n ".join(lines) + "}}\n")
            if set(verdicts) != {"pass"}:
                print(row, dict(verdicts), *whys[:1], flush=True)
    total: Counter[str] = Counter()
    for row in results["rows"].values():
        total.update({key: n for key, n in row.items() if key in ("pass", "fail", "inconclusive")})
    print(len(results["rows"]), "rows:", dict(total))


def pairs(
    folder: Path, only: str | None, names: list[str], done: Json
) -> Iterator[tuple[str, Path, Path, Path | None]]:
    """(row, original, result, card)"""
    import optimizer
    from optimizer.runtime.card import resolve

    first, second = folder / "original.onnx", folder / "result.onnx"
    for kind, template in right_rewrites.TABLE.items() if only != "cards" else ():
        if kind not in done:
            for path, model in zip((first, second), right_rewrites.pair(template), strict=True):
                path.write_bytes(model.SerializeToString())
            yield kind, first, second, None
    for name in names if only != "right" else ():
        card = ROOT / "models" / f"{name}.toml"
        for level in (1, 2):
            if (row := f"{name} -O{level}") not in done:
                source = resolve(card)
                optimizer.optimize(str(source.path), level=level, validate=False).save(second, force=True)
                yield row, source.path, second, card


if __name__ == "__main__":
    main()
