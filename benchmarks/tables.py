"""benchmarks/results/*.json → the tables of a Markdown page.

    python benchmarks/tables.py README.md       # rewrites what stands between <!-- table:NAME --> and <!-- /table -->
    python benchmarks/tables.py                 # prints every table

NAME is goals, nodes, time, command, memory, traps or mutants. A page is changed only where it has markers.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results") / "optimizers.json"
TRAPS = RESULTS.with_name("traps.json")
MUTANTS, RIGHT = RESULTS.with_name("mutants.json"), RESULTS.with_name("false_alarms.json")
BASELINE, OURS = "onnxsim", "graphwright"
PEERS = {"onnxsim": "onnxsim", "onnxslim": "OnnxSlim", "onnxscript": "onnxscript"}
TITLES = PEERS | {OURS: "Graphwright"}
BYTES_LIMIT = 1.01

Json = dict[str, Any]
NONE = "–"


# -------------------------------------------------------------------------------------------------- what was found out


def valid(verdict: Json, source: Json) -> bool:
    """It loads and is well-formed, wherever the source is, and is no larger than 1.01 times the source."""
    kept = all(verdict.get(key) or not source[key] for key in ("loads", "checks"))
    return "failed" not in verdict and kept and verdict["bytes"] <= BYTES_LIMIT * source["bytes"]


def best_peer(record: Json) -> int | None:
    """Fewest nodes that a peer's valid result leaves."""
    verdicts = (record["tools"].get(tool, {"failed": "not measured"}) for tool in PEERS)
    return min((verdict["nodes"] for verdict in verdicts if valid(verdict, record["source"])), default=None)


def wins(record: Json) -> bool | None:
    """Graphwright's result is valid, answers as the source does, and has no more nodes than the best valid peer's."""
    ours, best = record.get("tools", {}).get(OURS), best_peer(record) if "source" in record else None
    if ours is None or best is None:
        return None
    return valid(ours, record["source"]) and (ours["equal"] or not record["source"]["equal"]) and ours["nodes"] <= best


def cards(results: Json, table: str) -> Json:
    """The records of the models that have a card."""
    synthetic = {model for model in results.get(table, {}) if re.fullmatch(r"blocks-\d+|bert-base", model)}
    return {model: record for model, record in results.get(table, {}).items() if model not in synthetic}


def ratio(results: Json, table: str, model: str, base: str = BASELINE, key: str = "cpu") -> float | None:
    """Median over the rounds of Graphwright / base."""
    ours = results.get(table, {}).get(model, {}).get("tools", {}).get(OURS, {})
    return ours.get("ratio", {}).get(base, {}).get(key, {}).get("median")


def goals(results: Json) -> Iterable[tuple[str, str, float | None, float, bool]]:
    """(what, of what, found, asked for, whether more is better)"""
    verdicts = [win for record in cards(results, "nodes").values() if (win := wins(record)) is not None]
    share = sum(verdicts) / len(verdicts) if verdicts else None
    yield "nodes", f"of {len(verdicts)} models, at most the best valid peer's", share, 0.6, True
    for model, limit in (("blocks-2000", 0.7), ("blocks-20000", 0.6), ("bert-base", 0.3)):
        yield "time", f"{model}, of onnxsim's CPU s", ratio(results, "time", model), limit, False
    found = [value for model in cards(results, "time") if (value := ratio(results, "time", model)) is not None]
    yield "time", f"median of {len(found)} models", statistics.median(found) if found else None, 1.0, False
    yield "time", "a node, slowest size / fastest, 1k to 100k nodes", flatness(results), 1.5, False
    for base, limit in (("onnxsim", 0.25), ("onnxslim", 0.35)):
        for key in ("cpu", "wall"):
            worst = [ratio(results, "command", model, base, key) for model in results.get("command", {})]
            found = [value for value in worst if value is not None]
            what = f"worst of {len(found)} models, {TITLES[base]}'s, {key}"
            yield "command", what, max(found, default=None), limit, False
    yield "memory", "bert-base, peak RSS / file", peak(results, "bert-base", of_file=True), 1.3, False
    yield "memory", "3 GB of external data, peak RSS, MB", peak(results, "transformer-3gb"), 600, False


def flatness(results: Json) -> float | None:
    """Slowest CPU s a node over fastest, on graphs of 1k to 100k nodes."""
    sizes = {model: int(model.partition("-")[2]) for model in results.get("time", {}) if model.startswith("blocks-")}
    ours = {size: results["time"][model]["tools"].get(OURS, {}).get("cpu") for model, size in sizes.items()}
    paces = [cpu["median"] / size for size, cpu in ours.items() if cpu]
    return max(paces) / min(paces) if len(paces) > 1 else None


def peak(results: Json, model: str, *, of_file: bool = False) -> float | None:
    record = results.get("memory", {}).get(model, {})
    rss = record.get("tools", {}).get(OURS, {}).get("rss")
    return rss and (rss * 1e6 / record["bytes"] if of_file else rss)


# ------------------------------------------------------------------------------------------------------------- Markdown


def grid(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def number(value: float | None, digits: int = 2) -> str:
    if value is None:
        return NONE
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.{digits}f}"


def ranged(found: Json | None) -> str:
    """median [min, max]"""
    if not found:
        return NONE
    return f"{number(found['median'])} [{number(found['min'])}, {number(found['max'])}]"


def note(results: Json, tables: Iterable[str]) -> str:
    """What was measured, on what, when: of these very records, which may be of several runs."""
    records = [record for table in tables for record in results.get(table, {}).values()]
    used: dict[str, set[str]] = {tool: set() for tool in TITLES}
    for tool, version in (item for record in records for item in record.get("versions", {}).items()):
        used[tool].add(version)
    tools = ", ".join(f"{TITLES[tool]} {' and '.join(sorted(found))}" for tool, found in used.items() if found)
    days = " to ".join(sorted({record["date"] for record in records}))
    machine = "{cpu}, {cores} cores, {memory_gb} GB, Python {python}".format_map(results["machine"])
    return f"{tools or 'nothing measured'}; {machine}; {days}."


def ordered(records: Json) -> list[tuple[str, Json]]:
    """By name, numbers in it by size."""
    return sorted(records.items(), key=lambda item: [p.zfill(9) if p.isdigit() else p for p in item[0].split("-")])


def table_goals(results: Json) -> str:
    rows = []
    for what, of, found, asked, more in goals(results):
        met = NONE if found is None else "yes" if (found >= asked if more else found <= asked) else "**no**"
        rows.append((what, of, f"{'≥' if more else '≤'} {asked:g}", number(found), met))
    return grid(("", "", "goal", "found", "met"), rows)


def table_nodes(results: Json) -> str:
    """In bold the least of the valid results; † not valid; ≠ answers differ."""

    def cell(record: Json, tool: str) -> str:
        verdict, source = record["tools"].get(tool), record["source"]
        if verdict is None or "failed" in verdict:
            return NONE if verdict is None else "failed"
        marks = "†" * (not valid(verdict, source)) + " ≠" * (not verdict["equal"])
        least = min(v["nodes"] for v in record["tools"].values() if "failed" not in v and valid(v, source))
        return (f"**{verdict['nodes']}**" if not marks and verdict["nodes"] == least else str(verdict["nodes"])) + marks

    rows = [
        (model, str(record["source"]["nodes"]), *(cell(record, tool) for tool in TITLES))
        for model, record in ordered(results.get("nodes", {}))
        if "source" in record
    ]
    legend = (
        "Nodes left, subgraphs and functions counted, Constant not. † not valid: does not load, fails onnx.checker, or "
        "is larger than 1.01 times the source. ≠ answers differ from the source's by more than 1e-5 of scale."
    )
    return f"{grid(('model', 'source', *TITLES.values()), rows)}\n\n{legend}"


def table_time(results: Json) -> str:
    """CPU seconds of the baseline, ratios of the others in the same rounds."""
    others = [tool for tool in TITLES if tool != BASELINE]
    rows = []
    for model, record in ordered(results.get("time", {})):
        tools = record.get("tools", {})
        ratios = [ranged(tools.get(tool, {}).get("ratio", {}).get(BASELINE, {}).get("cpu")) for tool in others]
        seconds = [number(tools.get(tool, {}).get("cpu", {}).get("median"), 3) for tool in (BASELINE, OURS)]
        rows.append((model, *seconds, *ratios))
    head = ("model", "onnxsim, CPU s", "Graphwright, CPU s", *(f"{TITLES[tool]} / onnxsim" for tool in others))
    legend = "Load, passes and save in one warm process a tool, one thread: median [least, most] of the paired rounds."
    return f"{grid(head, rows)}\n\n{legend}"


def table_command(results: Json) -> str:
    return _commands(
        results, "command", lambda found: f"{ranged(found.get('cpu'))} / {ranged(found.get('wall'))}",
        "CPU / wall seconds of the whole command, imports included (Graphwright with `--no-validate`).",
    )  # fmt: skip


def table_memory(results: Json) -> str:
    return _commands(
        results, "memory", lambda found: number(found.get("rss")),
        "Peak RSS of the whole command in MB, mapped files included (Graphwright with `--no-validate`).",
    )  # fmt: skip


def _commands(results: Json, table: str, cell: Callable[[Json], str], legend: str) -> str:
    tools = [tool for tool in TITLES if tool != "onnxscript"]
    rows = [
        (model, *("failed" if "failed" in (found := record["tools"].get(tool, {})) else cell(found) for tool in tools))
        for model, record in ordered(results.get(table, {}))
        if "tools" in record
    ]
    return f"{grid(('model', *(TITLES[tool] for tool in tools)), rows)}\n\n{legend}"


TABLES: dict[str, Callable[[Json], str]] = {
    "goals": table_goals,
    "nodes": table_nodes,
    "time": table_time,
    "command": table_command,
    "memory": table_memory,
}


def table_traps(document: Json) -> str:
    """How many of the traps each tool came through, and what became of it in the others."""
    verdicts: dict[str, list[str]] = {}
    for record in document.get("traps", {}).values():
        for tool, verdict in record.items():
            verdicts.setdefault(tool, []).append(verdict.partition(":")[0])
    rows = [
        (TITLES.get(tool, tool), str(said.count("ok")), *(str(sum(map(said.count, kinds))) for kinds in KINDS.values()))
        for tool, said in verdicts.items()
    ]
    legend = (
        "Tiny legal models, tests/traps. Wrong: other answers than the original's, op by op. Broken: fails "
        "onnx.checker, does not load, or does not run. Interface: an input or output is gone, or a default can no "
        "longer be overridden. Refused: an exception or a crash. Larger: more than 1.01 times the bytes and 4 kB. "
        "Dims: declares other sizes of inputs or outputs. onnxruntime is its basic level."
    )
    return f"{grid(('tool', 'ok', *KINDS), rows)}\n\n{legend}"


KINDS = {
    "wrong": ("wrong",),
    "broken": ("invalid", "does not load", "does not run"),
    "interface": ("interface",),
    "refused": ("crash",),
    "larger": ("blown up",),
    "dims": ("dims",),
}


def render_traps(document: Json) -> str:
    versions = ", ".join(f"{TITLES.get(tool, tool)} {v}" for tool, v in document.get("versions", {}).items())
    return f"{table_traps(document)}\n\n{versions or 'nothing measured'}; {document.get('date', NONE)}."


GROUPS = {"all": ("plain", "size", "special"), "another size": ("size",), "special values": ("special",)}
CHECKERS = {"graphwright": "Graphwright", "polygraphy": "Polygraphy", "onnxsim": "onnxsim", "onnxslim": "OnnxSlim"}


def table_mutants(document: Json, right: Json) -> str:
    """Which share of the wrong rewrites each validator fails, asked about the same pairs; then the false alarms."""
    records = document.get("models", {}).values()
    pairs = [pair for record in records for pair in record["pairs"] if "polygraphy" in pair]
    rows = []
    for tool, title in CHECKERS.items():
        row = [title]
        for groups in GROUPS.values():
            killed = [pair[tool] in ("fail", True) for pair in pairs if pair["group"] in groups]
            row.append(f"{sum(killed) / len(killed):.1%} ({sum(killed)} of {len(killed)})" if killed else NONE)
        rows.append(row)
    kinds = {pair["kind"] for pair in pairs if pair["group"] in GROUPS["all"]}
    cards = [model for model in document.get("models", {}) if not model.startswith("tiny-")]
    tiny = sum(len(record["pairs"]) for model, record in document.get("models", {}).items() if model not in cards)
    verdicts = list(right.get("rows", {}).values())
    alarms, runs = (sum(row.get(key, 0) for row in verdicts for key in keys) for keys in (("fail",), ("pass", "fail")))
    equivalent = sum(pair["group"] == "equivalent" for pair in pairs)
    legend = (
        f"Wrong rewrites of {len(kinds)} kinds, of {tiny} tiny models and {len(cards)} of models/. One counts if an "
        "oracle finds a legal feed with an error of more than ten noise floors. Another size, special values: only "
        f"such data shows it. Not counted: {equivalent} that are equivalent as far as the oracle can tell. Every tool "
        "at its defaults; onnxsim asks for sizes, and is told those of the rewrite.\n\n"
        f"False alarms of Graphwright: {alarms} in {runs} validations of {len(verdicts)} right rewrites, each under "
        "other seeds."
    )
    return f"{grid(('killed', *GROUPS), rows)}\n\n{legend}"


def render_mutants(document: Json, right: Json) -> str:
    versions = {k: v for record in document.get("models", {}).values() for k, v in record["versions"].items()}
    days = " to ".join(sorted({record["date"] for record in document.get("models", {}).values()}))
    named = ", ".join(f"{CHECKERS.get(tool, tool)} {version}" for tool, version in versions.items())
    return f"{table_mutants(document, right)}\n\n{named or 'nothing measured'}; {days or NONE}."


def render(name: str, results: Json) -> str:
    if name == "mutants":
        return render_mutants(*(json.loads(path.read_text()) if path.exists() else {} for path in (MUTANTS, RIGHT)))
    if name == "traps":
        return render_traps(json.loads(TRAPS.read_text()) if TRAPS.exists() else {})
    return f"{TABLES[name](results)}\n\n{note(results, TABLES.keys() if name == 'goals' else [name])}"


def rewrite(page: str, results: Json) -> str:
    """The page with every marked table replaced. KeyError: a marker names no table."""
    marked = re.compile(r"(<!-- table:(\w+) -->\n).*?(<!-- /table -->)", re.DOTALL)
    return marked.sub(lambda found: f"{found[1]}{render(found[2], results)}\n{found[3]}", page)


def main() -> None:
    results = json.loads(RESULTS.read_text())
    for page in map(Path, sys.argv[1:]):
        page.write_text(rewrite(page.read_text(), results))
    if not sys.argv[1:]:
        print("\n\n".join(f"## {name}\n\n{render(name, results)}" for name in (*TABLES, "traps", "mutants")))


if __name__ == "__main__":
    main()
