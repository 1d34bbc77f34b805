"""Why a node is what it is: the rules there are, and the edits of a receipt's log that a node or value went through."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optimizer.core.errors import BadInput
from optimizer.core.graph import Node, Value
from optimizer.core.model import graph_hash, read
from optimizer.core.text import did_you_mean, safe
from optimizer.driver import catalog
from optimizer.driver.presets import LEVELS, PRUNE, QUANTIZE
from optimizer.measure.diff import name_of, read_receipt, same_attribute, same_tensor
from optimizer.runtime.card import resolve

if TYPE_CHECKING:
    from optimizer.core.graph import Model
    from optimizer.core.rule import Step

SCHEMA = "graphwright.explanation/1"
Row = Mapping[str, Any]  # one edit, as a receipt's log has it
_Makers = dict[str, Node | Value]
_INLINES = "inline_function"  # besides guests the only edit that goes on with a model of other names, listing none


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
        raise _alone(str(out))
    return _life(resolve(out).path, name)


def describe_edit(row: Row) -> str:
    """One edit on one line: number, rule, fidelity, evidence, operators before and after, and what is equal."""
    scope = f" in {'/'.join(map(safe, row['scope']))}" if row["scope"] else ""
    before, after = (_operators(op for op, _ in row[side]) for side in ("gone", "new"))
    was = {new: old for old, new in row.get("renamed", ())}
    kept = all(a == b and a not in was for a, b in row["equal"])  # only what is new takes the old name: a constant
    remains = "nothing" if not row["equal"] else "a constant" if kept else "a value that is there"
    started = "nothing" if not row["equal"] else "a constant" if kept else "a value"
    pairs = [safe(was.get(a, a)) if a == b else f"{safe(a)} → {safe(b)}" for a, b in row["equal"]]
    pairs = [f"{safe(a)} (was {pair})" if a in was and a == b else pair for (a, b), pair in zip(row["equal"], pairs)]
    equal = f"     equal: {', '.join(pairs[:4])}{', …' if len(pairs) > 4 else ''}" if pairs else ""
    note = f"     {safe(row['note'])}" if row.get("note") else ""
    what = "opaque: lists nothing of what it changed" if _is_guest(row) else f"{before or started} → {after or remains}"
    head = f"{row['id']} {safe(row['rule'])} ({row['fidelity']}, evidence {row['evidence']}){scope}"
    return f"{head}   {what}{equal}{note}"


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
            raise _alone(name)
        known = [*phases, *(step.name for steps in phases.values() for step in steps)]
        fix = did_you_mean(name, known) or "`graphwright explain` lists the rules"
        raise BadInput(f"no rule is called {safe(name)!r}", fix=fix)
    texts = [
        f"{step.name}   pass {phase}   {step.fidelity.value}   evidence {step.evidence.value}\n  {step.equation}"
        + (f"\n  where {step.domain}" if step.domain else "")
        for phase, step in found
    ]
    return Explanation({"kind": "rule", "rules": [_described(*f) for f in found]}, "\n".join(texts))


def _alone(out: str) -> BadInput:
    what = "of a result, one node or value is explained, and none is named"
    return BadInput(what, at=out, fix=f"graphwright explain {out} NODE; graphwright diff ORIGINAL {out} lists nodes")


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
    here = _makers(model)
    opaque = [row for row in log if _is_guest(row) or row["rule"] == _INLINES]
    is_known = name in here or name in _names(log)
    is_new = _made_constant(name, here, log)
    source = _input(receipt, out) if opaque or not is_known or is_new else None
    before = _makers(source) if source is not None else None
    asked = {name}
    if not is_known:  # a value that died inside an edit: its node did, too
        if before is None or name not in before:
            known = {*here, *_names(log), *(before or ())}
            fix = did_you_mean(name, known) or f"graphwright inspect {out} shows what is in it"
            raise BadInput(f"no node and no value is, or was, called {safe(name)!r}", at=str(out), fix=fix)
        asked.add(_name(before[name]))
    past = _ancestry(log, asked)
    future, left = _descent(log, asked)
    rows = [*past, *(r for r in future if r not in past)]
    now = [n for n in left if n in here]
    state = "unchanged" if now == [name] and not rows else f"now: {', '.join(map(safe, now)) or 'gone'}"
    if is_new and (before is None or name not in before):
        rows, state = is_new, "made for what reads it" if before is not None else "perhaps made for what reads it"
    made = {n for row in past for _, n in row["new"]}
    roots = {*asked, *(n for row in past for _, n in row["gone"])} - made
    what, whose = _doubt(opaque, roots, before, here, None if rows else name)
    if whose:
        rules = " or ".join(dict.fromkeys(safe(row["rule"]) for row in whose))
        state = f"{state.removeprefix('unchanged')}; {rules} {what}".removeprefix("; ")
    rows = sorted([*whose, *(r for r in rows if r not in whose)], key=lambda row: row["id"])
    document = {"kind": "life", "name": name, "now": now, "edits": rows}
    return Explanation(document, "\n".join([f"{safe(name)}   {state}", *(f"  {describe_edit(r)}" for r in rows)]))


def _made_constant(name: str, here: _Makers, log: Sequence[Row]) -> list[Row]:
    """Of a constant that no edit lists: those that made its readers, and it with them if the original has none such."""
    value = here.get(name)
    if not isinstance(value, Value) or value.tensor is None or name in _names(log):
        return []
    readers = {name_of(node) for node in value.uses}
    return [row for row in log if any(n in readers for _, n in row["new"])]


def _is_guest(row: Row) -> bool:
    """Whether an edit is a guest's: it lists nothing, and so may have changed anything."""
    return row["evidence"] == "none" and not (row["equal"] or row["gone"] or row["new"])


def _doubt(
    opaque: Sequence[Row], roots: Collection[str], before: _Makers | None, here: _Makers, name: str | None
) -> tuple[str, list[Row]]:
    """What edits that list nothing may have to do with a life, and which of them; none where they have nothing.

    Args:
        roots: the names that the life began with, as far as the log tells.
        before, here: the original and the result by name; None where it is not at hand.
        name: what it is about, if the log has no edit of it.
    """
    guests = [row for row in opaque if _is_guest(row)]
    if before is None:
        return "may have changed it (the original is not at hand to compare with)", list(opaque)
    if not all(n in before for n in roots):
        return "made it, or what became it", list(opaque)
    if name is None:
        return "may have changed it before", guests
    if name not in here:
        return "removed it", guests
    return ("", []) if _same(before[name], here[name]) else ("changed it, or what it reads", guests)


def _same(a: Node | Value, b: Node | Value) -> bool:
    """Whether two of one name are alike: operator, attributes and names around a node, the data of a constant."""
    if isinstance(a, Node) and isinstance(b, Node):
        return (
            (a.domain, a.op) == (b.domain, b.op)
            and [v and v.name for v in a.inputs] == [v and v.name for v in b.inputs]
            and [v.name for v in a.outputs] == [v.name for v in b.outputs]
            and a.attributes.keys() == b.attributes.keys()
            and all(same_attribute(x, b.attributes[k]) for k, x in a.attributes.items())
        )
    if isinstance(a, Node) or isinstance(b, Node):
        return False
    if a.tensor is None or b.tensor is None:
        return a.tensor is b.tensor and (a.dtype, a.dims) == (b.dtype, b.dims)
    return same_tensor(a.tensor, b.tensor)


def _name(x: Node | Value) -> str:
    return name_of(x) if isinstance(x, Node) else x.name


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


def _makers(model: Model) -> _Makers:
    """Every node's and value's name → the node that is it, or makes it; inputs and constants are themselves."""
    found: _Makers = {}
    for graph in model.graphs():
        found.update((v.name, v) for v in (*graph.inputs, *graph.constants()))
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
