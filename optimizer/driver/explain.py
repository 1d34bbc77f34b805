"""Why a node is what it is: the rules there are, and the edits of a receipt's log that a node or value went through."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optimizer.core.errors import BadInput
from optimizer.core.model import graph_hash, read
from optimizer.core.text import did_you_mean, safe
from optimizer.driver import catalog
from optimizer.driver.presets import LEVELS, PRUNE, QUANTIZE
from optimizer.measure.diff import name_of, read_receipt
from optimizer.runtime.card import resolve

if TYPE_CHECKING:
    from optimizer.core.graph import Model, Node
    from optimizer.core.rule import Step

SCHEMA = "graphwright.explanation/1"
Row = Mapping[str, Any]  # one edit, as a receipt's log has it


@dataclass(frozen=True, slots=True)
class Explanation:
    """An explanation: `document` is its JSON ("kind" is catalog, rule or life), `screen` its text."""

    document: dict[str, Any]
    screen: str

    @property
    def exit_code(self) -> int:
        """Always 0: nothing is judged."""
        return 0

    def to_dict(self) -> dict[str, Any]:
        return {"schema": SCHEMA, **self.document}

    def __str__(self) -> str:
        return self.screen


def explain(out: str | os.PathLike[str] | None = None, name: str | None = None) -> Explanation:
    """Explain the catalog, one rule (or one pass), or the life of a node or value.

    Args:
        out: a result with its receipt beside it; None: `name` is a rule.
        name: a node or value, by its name before, after or in between; None: the whole catalog.

    Raises:
        BadInput: nothing is called so, or `out` has no receipt of its own.
    """
    if out is None:
        return _catalog() if name is None else _rule(name)
    if name is None:
        raise BadInput("a result alone explains nothing", at=str(out), fix=f"graphwright explain {out} NODE")
    return _life(resolve(out).path, name)


def describe_edit(row: Row) -> str:
    """One edit on one line: number, rule, fidelity, evidence, operators before and after, and what is equal."""
    scope = f" in {'/'.join(map(safe, row['scope']))}" if row["scope"] else ""
    before, after = (_operators(op for op, _ in row[side]) for side in ("gone", "new"))
    kept = all(a == b for a, b in row["equal"])  # only what is new takes the old name: no node, so a constant
    remains = "nothing" if not row["equal"] else "a constant" if kept else "a value that is there"
    pairs = [safe(a) if a == b else f"{safe(a)} → {safe(b)}" for a, b in row["equal"]]
    equal = f"     equal: {', '.join(pairs[:4])}{', …' if len(pairs) > 4 else ''}" if pairs else ""
    note = f"     {safe(row['note'])}" if row.get("note") else ""
    return (
        f"{row['id']} {safe(row['rule'])} ({row['fidelity']}, evidence {row['evidence']}){scope}   "
        f"{before or 'nothing'} → {after or remains}{equal}{note}"
    )


# ── the catalog ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _phases() -> dict[str, tuple[Step, ...]]:
    """Pass → its steps: in the order of the presets, then plugins by name."""
    order = re.findall(r"[\w.-]+", f"{LEVELS[2]} {PRUNE} {QUANTIZE}")
    known = catalog.all_passes()
    return {name: known[name].steps for name in dict.fromkeys([*order, *known]) if name in known}


def _catalog() -> Explanation:
    phases = _phases()
    width = max((len(step.name) for steps in phases.values() for step in steps), default=0)
    lines: list[str] = []
    for name, steps in phases.items():
        lines.append(name)
        lines += [f"  {step.name:{width}}  {step.fidelity.value:8}  {step.equation}" for step in steps]
    rows = [{"name": name, "rules": [_described(name, step) for step in steps]} for name, steps in phases.items()]
    return Explanation({"kind": "catalog", "phases": rows}, "\n".join(lines))


def _rule(name: str) -> Explanation:
    phases = _phases()
    found = [(phase, step) for phase, steps in phases.items() for step in steps if name in (step.name, phase)]
    if not found:
        if Path(name).is_file():
            fix = f"graphwright explain {name} NODE tells the life of a node"
        else:
            known = [*phases, *(step.name for steps in phases.values() for step in steps)]
            fix = did_you_mean(name, known) or "`graphwright explain` lists the rules"
        raise BadInput(f"no rule is called {safe(name)!r}", fix=fix)
    texts = [
        f"{step.name}   pass {phase}   {step.fidelity.value}   evidence {step.evidence.value}\n  {step.equation}"
        + (f"\n  where {step.domain}" if step.domain else "")
        for phase, step in found
    ]
    return Explanation({"kind": "rule", "rules": [_described(*f) for f in found]}, "\n".join(texts))


def _described(phase: str, step: Step) -> dict[str, Any]:
    return {
        "name": step.name,
        "pass": phase,
        "equation": step.equation,
        "fidelity": step.fidelity.value,
        "evidence": step.evidence.value,
        "domain": step.domain or None,
    }


# ── the life of a node or value ───────────────────────────────────────────────────────────────────────────────────────


def _life(out: Path, name: str) -> Explanation:
    model = read(out)
    try:
        receipt = read_receipt(out)
    except ValueError as error:
        raise BadInput(str(error), at=str(out), fix="run the verb that made it again") from error
    if receipt is None:
        raise BadInput(
            "there is no receipt beside this model, so nothing tells how it came about",
            at=str(out),
            fix=f"name a result of graphwright, with its {out.name}.receipt.json beside it",
        )
    if receipt["output"]["graph"] != graph_hash(model):
        raise BadInput("the receipt beside this model is of another one", at=str(out), fix="run the verb again")
    log: list[Row] = receipt["log"]
    maker = _makers(model)
    asked = {name}
    if name not in maker and name not in _names(log):  # a value that died inside an edit: its node did, too
        before = _makers(source) if (source := _input(receipt, out)) is not None else {}
        if name not in before:
            known = {*maker, *_names(log), *before}
            fix = did_you_mean(name, known) or f"graphwright inspect {out} shows what is in it"
            raise BadInput(f"no node and no value is, or was, called {safe(name)!r}", at=str(out), fix=fix)
        asked.add(name_of(node) if (node := before[name]) is not None else name)
    past = _ancestry(log, asked)
    future, left = _descent(log, asked)
    rows = sorted([*past, *(r for r in future if r not in past)], key=lambda row: row["id"])
    now = [n for n in left if n in maker]
    if now == [name] and not rows:
        state = "unchanged"
    elif now:
        state = f"now: {', '.join(map(safe, now))}"
    else:
        state = "now: gone"
    document = {"kind": "life", "name": name, "now": now, "edits": rows}
    return Explanation(document, "\n".join([f"{safe(name)}   {state}", *(f"  {describe_edit(r)}" for r in rows)]))


def _ancestry(log: Sequence[Row], names: Iterable[str]) -> list[Row]:
    """The edits that made these nodes or values, and what they were made of."""
    wanted, rows = set(names), list[Row]()
    for row in reversed(log):
        made = {n for _, n in row["new"]} | {new for _, new in [*row["equal"], *row.get("renamed", ())]}
        if made & wanted:
            rows.append(row)
            wanted |= {n for _, n in row["gone"]}
            wanted |= {old for old, new in [*row["equal"], *row.get("renamed", ())] if new in wanted}
    return rows


def _descent(log: Sequence[Row], names: Iterable[str]) -> tuple[list[Row], list[str]]:
    """The edits that these nodes or values went through, and what they are after the last."""
    living, rows = dict.fromkeys(names), list[Row]()
    for row in log:
        became = {old: [new] for old, new in [*row["equal"], *row.get("renamed", ())]}
        heirs = [n for _, n in row["new"]] or [new for _, new in row["equal"]]
        became |= {n: heirs for _, n in row["gone"]}
        if hit := [n for n in living if n in became]:
            rows.append(row)
            for n in hit:
                del living[n]
            living.update(dict.fromkeys(heir for n in hit for heir in became[n]))
    return rows, list(living)


def _makers(model: Model) -> dict[str, Node | None]:
    """Every node's and value's name → the node that is it, or makes it; None for inputs and constants."""
    found: dict[str, Node | None] = {}
    for graph in model.graphs():
        found.update((v.name, None) for v in (*graph.inputs, *graph.constants()))
        for node in graph:
            found.update((o.name, node) for o in node.outputs if o.name)
            found[name_of(node)] = node
    return found


def _names(log: Sequence[Row]) -> set[str]:
    """Every name that the log mentions."""
    pairs = (p for row in log for key in ("equal", "renamed") for p in row.get(key, ()))
    nodes = (n for row in log for side in ("gone", "new") for _, n in row[side])
    return {*nodes, *(n for pair in pairs for n in pair)}


def _input(receipt: Row, out: Path) -> Model | None:
    """The model that `out` was made from, if it is still where it was."""
    path = receipt["input"]["path"]
    for place in (Path(path), out.parent / path) if path else ():
        if place.is_file() and graph_hash(model := read(place)) == receipt["input"]["graph"]:
            return model
    return None


def _operators(ops: Iterable[str]) -> str:
    listed = [safe(op) for op in ops]
    if len(listed) <= 8:
        return ", ".join(listed)
    return ", ".join(f"{op} × {n}" if n > 1 else op for op, n in Counter(listed).most_common())
