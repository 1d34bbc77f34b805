"""A → B: which nodes became which, exactly where our own log tells it, else by names and operators.

A receipt beside one of the files holds the log that made it. It is believed only if the hashes in it are those of the
two files at hand; read backwards, it also pairs a result with another result of the same input.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, takewhile, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from optimizer.core.model import graph_hash, read
from optimizer.core.tensor import PLAIN, Tensor
from optimizer.core.text import safe
from optimizer.measure.inspect import describe_value, dtype_name, inputs_of, show_type
from optimizer.measure.size import count_ops
from optimizer.runtime.card import called, resolve

if TYPE_CHECKING:
    from optimizer.core.graph import Model, Node, Value
    from optimizer.runtime.card import ModelLike

SCHEMA = "graphwright.diff/1"
_SHOWN = 20  # lines of one kind on the screen; the JSON has all
_BLOCK = 1 << 22


class Name(NamedTuple):
    """A node: the bodies it lies in, its operator, and its name (without one: that of its first output)."""

    scope: tuple[str, ...]
    op: str
    name: str


class Step(NamedTuple):
    """One edit of a log, or its inverse: the nodes `gone` became the nodes `new`."""

    id: int
    rule: str
    gone: tuple[Name, ...]
    new: tuple[Name, ...]


@dataclass(slots=True)
class Hunk:
    """Nodes of A that became nodes of B; `edits` are (rule, id) of the log, none where names alone tell."""

    removed: list[Name] = field(default_factory=list[Name])
    added: dict[Name, tuple[str, int] | None] = field(default_factory=dict[Name, "tuple[str, int] | None"])
    edits: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])

    def to_dict(self) -> dict[str, Any]:
        return {
            "removed": [_row(n) for n in self.removed],
            "added": [_row(n) | ({"rule": e[0], "edit": e[1]} if e else {}) for n, e in self.added.items()],
            "edits": [{"rule": rule, "edit": number} for rule, number in self.edits],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Diff:
    """What differs between two models.

    Fields:
        a, b: names of the files.
        by: "log" (pairs are exact) or "name"; why: what kept a receipt that is there from being used, else "".
        nodes: how many, in A and in B, those of bodies and functions included; matched: how many pairs.
        ops: operator → (A, B), where the numbers differ.
        opset: domain → (A, B); None where a model has no such domain.
        hunks: what was removed and what stands in its place.
        changed: matched nodes that differ: {node, what, a, b}.
        interface: {kind, name, a, b}; None where one side has none.
        weights: {name, a, b, change}; None where one side has none, `change` is max |a − b| where types agree.
        functions: names of the functions that differ.
    """

    a: str
    b: str
    by: str
    why: str
    nodes: tuple[int, int]
    matched: int
    ops: dict[str, tuple[int, int]]
    opset: dict[str, tuple[int | None, int | None]]
    hunks: list[Hunk]
    changed: list[dict[str, Any]]
    interface: list[dict[str, Any]]
    weights: list[dict[str, Any]]
    functions: list[str]

    @property
    def same(self) -> bool:
        """Whether nothing differs: nodes, attributes, wiring, weights, interface, opsets, functions."""
        found = (self.hunks, self.changed, self.interface, self.weights, self.functions)
        return not any(found) and all(a == b for a, b in self.opset.values())

    @property
    def exit_code(self) -> int:
        """1 where they differ: the verdict of `--exit-code`."""
        return 0 if self.same else 1

    def to_dict(self) -> dict[str, Any]:
        """All fields, by name, and `same`."""
        fields = {f: getattr(self, f) for f in self.__slots__}
        return {"schema": SCHEMA, "same": self.same, **fields, "hunks": [h.to_dict() for h in self.hunks]}

    def __str__(self) -> str:
        """The screen of `graphwright diff`."""
        before, after = self.nodes
        why = f" ({self.why})" if self.why else ""
        opsets = [
            f"opset {f'{domain} ' if domain else ''}{'none' if a is None else a} {'=' if a == b else '→'} "
            f"{'none' if b is None else b}"
            for domain, (a, b) in self.opset.items()
            if a != b or not domain
        ]
        lines = [
            f"nodes {before} {'=' if before == after else '→'} {after}   "
            f"matched {self.matched} by {'the log' if self.by == 'log' else 'name'}{why}   "
            f"interface {'differs' if self.interface else 'same'}   {'   '.join(opsets)}"
        ]
        lines += _cut([_show_change(c["kind"], c["name"], c["a"], c["b"], show_type) for c in self.interface])
        lines += _cut([line for group in _alike(self.hunks) for line in _show_hunks(group)])
        lines += _cut([_show_changed(c) for c in self.changed])
        lines += [f"~ function {safe(name)}" for name in self.functions]
        lines += _weight_lines(self.weights)
        return "\n".join(lines)


def diff(a: ModelLike, b: ModelLike) -> Diff:
    """What differs between two models.

    Args:
        a, b: a path, a card, bytes or a ModelProto each; receipts are looked for beside paths.

    Raises:
        BadInput: one of them is no model.
    """
    sources = resolve(a), resolve(b)
    first, second = (read(s.path) for s in sources)
    paths = [s.path if isinstance(m, (str, os.PathLike)) else None for s, m in zip(sources, (a, b))]
    steps, exact, why = _log_between(paths, (first, second))
    left, right = _by_name(first), _by_name(second)
    pairs, hunks = _pairs_by_name(left, right) if steps is None else _pairs_by_log(steps, left, right)
    in_functions, functions = _functions(first, second)
    ops = count_ops(first), count_ops(second)
    domains = sorted({*first.opsets, *second.opsets})
    return Diff(
        a=called(sources[0]) if paths[0] else "a",
        b=called(sources[1]) if paths[1] else "b",
        by="name" if steps is None else "log",
        why=why,
        nodes=(ops[0].total(), ops[1].total()),
        matched=len(pairs) + in_functions,
        ops={op: (ops[0][op], ops[1][op]) for op in sorted({*ops[0], *ops[1]}) if ops[0][op] != ops[1][op]},
        opset={d: (first.opsets.get(d), second.opsets.get(d)) for d in domains},
        hunks=hunks,
        changed=[] if exact else _changes(pairs),
        interface=_interface(first, second),
        weights=_weights(first, second),
        functions=functions,
    )


def name_of(node: Node) -> str:
    """A node's name; without one, that of its first output, as in a receipt's log."""
    return node.name or next((o.name for o in node.outputs if o.name), "")


def read_receipt(model: Path) -> dict[str, Any] | None:
    """The receipt beside a model file, or None.

    Raises:
        ValueError: it cannot be read.
    """
    try:
        return json.loads(Path(f"{model}.receipt.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ValueError(f"{model.name}.receipt.json cannot be read: {error}") from error


# ── by the log ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _log_between(paths: Sequence[Path | None], models: Sequence[Model]) -> tuple[list[Step] | None, bool, str]:
    """The steps from the first model to the second, whether they leave the rest alone, and else why there are none."""
    receipts: list[dict[str, Any] | None] = []
    for path in paths:
        try:
            receipts.append(read_receipt(path) if path else None)
        except ValueError as error:
            return None, False, str(error)
    if not any(receipts):
        return None, False, ""
    hashes = [graph_hash(m) for m in models]
    match [_made(r, h) for r, h in zip(receipts, hashes)]:
        case [_, (source, log)] if source == hashes[0]:
            return log, True, ""
        case [(source, log), _] if source == hashes[1]:
            return _backwards(log), True, ""
        case [(one, undone), (other, done)] if one == other:  # equal names need not be equal edits
            return [*_backwards(undone), *done], False, ""
        case _:
            return None, False, "no receipt beside them tells how one came from the other"


def _made(receipt: Mapping[str, Any] | None, result: str) -> tuple[str, list[Step]] | None:
    """The hash of the input that became `result`, and how; None where the receipt is of something else."""
    if receipt is None or receipt["output"]["graph"] != result:
        return None
    return receipt["input"]["graph"], [_step(row) for row in receipt["log"]]


def _step(row: Mapping[str, Any]) -> Step:
    scope = tuple(row["scope"])
    gone, new = (tuple(Name(scope, op, name) for op, name in row[side]) for side in ("gone", "new"))
    return Step(row["id"], row["rule"], gone, new)


def _backwards(log: Sequence[Step]) -> list[Step]:
    return [step._replace(gone=step.new, new=step.gone) for step in reversed(log)]


def _pairs_by_log(
    steps: Sequence[Step], left: Mapping[Name, list[Node]], right: Mapping[Name, list[Node]]
) -> tuple[list[tuple[Node, Node]], list[Hunk]]:
    """What no step removed is itself; the rest are the steps, joined where one removes what another added."""
    hunks: list[Hunk] = []
    home: dict[Name, Hunk] = {}  # nodes added so far that still live
    original = Counter({key: len(nodes) for key, nodes in left.items()})
    named = chain(left, right, *(chain(step.gone, step.new) for step in steps))
    owners = {(name.scope[:-1], name.scope[-1].rpartition(".")[0]) for name in named if name.scope}

    def join(hunk: Hunk, earlier: Hunk) -> None:
        if earlier is not hunk:
            hunk.removed[:0], hunk.edits[:0] = earlier.removed, earlier.edits
            hunk.added |= earlier.added
            home.update(dict.fromkeys(earlier.added, hunk))
            earlier.removed, earlier.added, earlier.edits = [], {}, []

    for step in steps:
        hunk = Hunk(edits=[(step.rule, step.id)])
        for node in step.gone:
            is_owner = (node.scope, node.name) in owners or (node.scope, node.op) in owners
            for lost in [node, *(n for n in home if _lies_in(n, node))] if is_owner else [node]:
                if lost in home:
                    earlier = home.pop(lost)
                    del earlier.added[lost]
                    join(hunk, earlier)
                elif original[lost]:
                    original[lost] -= 1
                    hunk.removed.append(lost)
                else:  # it came with the body of an added node
                    join(hunk, next((h for n, h in home.items() if _lies_in(lost, n)), hunk))
        for node in step.new:
            hunk.added[node] = step.rule, step.id
            home[node] = hunk
        hunks.append(hunk)
    for hunk in hunks:  # two results made the same of it
        if sorted(hunk.removed) == sorted(hunk.added):
            hunk.removed, hunk.added = [], {}
    removed = Counter(chain.from_iterable(h.removed for h in hunks))
    added = Counter(chain.from_iterable(h.added for h in hunks))
    pairs: list[tuple[Node, Node]] = []
    for key in {**left, **right}:
        one, other = left.get(key, [])[removed[key] :], right.get(key, [])[added[key] :]
        pairs += zip(one, other)
        for _ in one[len(other) :]:
            _hunk_around(key, hunks, lambda h: h.removed).removed.append(key)
        for _ in other[len(one) :]:
            _hunk_around(key, hunks, lambda h: h.added).added[key] = None
    first, second = ({key: i for i, key in enumerate(side)} for side in (left, right))
    for hunk in hunks:  # in the order of the graphs
        hunk.removed.sort(key=lambda n: first.get(n, 0))
        hunk.added = dict(sorted(hunk.added.items(), key=lambda x: second.get(x[0], 0)))
    return pairs, [h for h in hunks if h.removed or h.added]


def _lies_in(name: Name, owner: Name) -> bool:
    """Whether a node lies in a body of `owner`, which a path calls by its name, or without one by its operator."""
    depth = len(owner.scope)
    inside = len(name.scope) > depth and name.scope[:depth] == owner.scope
    return inside and name.scope[depth].rpartition(".")[0] in (owner.name, owner.op)


def _hunk_around(name: Name, hunks: list[Hunk], side: Callable[[Hunk], Iterable[Name]]) -> Hunk:
    """The hunk of the node in whose body this one lies; without one, a new hunk."""
    found = (h for h in hunks for owner in side(h) if _lies_in(name, owner)) if name.scope else iter(())
    if (hunk := next(found, None)) is None:
        hunks.append(hunk := Hunk())
    return hunk


# ── by name ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _by_name(model: Model) -> dict[Name, list[Node]]:
    found: dict[Name, list[Node]] = defaultdict(list)
    for graph in model.graphs():
        scope = tuple(graph.path())
        for node in graph:
            found[Name(scope, node.op, name_of(node))].append(node)
    return dict(found)


def _name(node: Node) -> Name:
    return Name(tuple(node.graph.path()) if node.graph is not None else (), node.op, name_of(node))


def _pairs_by_name(
    left: Mapping[Name, list[Node]], right: Mapping[Name, list[Node]]
) -> tuple[list[tuple[Node, Node]], list[Hunk]]:
    """Nodes of one operator and one name are pairs, then those of one operator and one output; the rest are hunks."""
    pairs: list[tuple[Node, Node]] = []
    lone: tuple[dict[Node, Name], dict[Node, Name]] = {}, {}
    for key in {**left, **right}:
        one, other = left.get(key, []), right.get(key, [])
        pairs += zip(one, other)
        lone[0].update(dict.fromkeys(one[len(other) :], key))
        lone[1].update(dict.fromkeys(other[len(one) :], key))
    made = {(key.scope, key.op, node.outputs[0].name): node for node, key in lone[1].items() if node.outputs}
    for node, key in [*lone[0].items()]:
        twin = made.pop((key.scope, key.op, node.outputs[0].name), None) if node.outputs else None
        if twin is not None:
            pairs.append((node, twin))
            del lone[0][node], lone[1][twin]
    return pairs, _regions(*lone)


def _regions(left: Mapping[Node, Name], right: Mapping[Node, Name]) -> list[Hunk]:
    """Unpaired nodes that hang together: by an edge, or by a value of one name that both sides make."""
    above: dict[Any, Any] = {}

    def find(x: Any) -> Any:
        while above.setdefault(x, x) is not x:
            x = above[x]
        return x

    for side in (left, right):
        for node, key in side.items():
            find(node)
            for v in node.inputs:
                if v is not None and v.producer in side:
                    above[find(node)] = find(v.producer)
            for v in node.outputs:
                above[find((key.scope, v.name))] = find(node)
    hunks: dict[Any, Hunk] = defaultdict(Hunk)
    for node, key in left.items():
        hunks[find(node)].removed.append(key)
    for node, key in right.items():
        hunks[find(node)].added[key] = None
    return list(hunks.values())


def _changes(pairs: Sequence[tuple[Node, Node]]) -> list[dict[str, Any]]:
    """Attributes and operands in which the nodes of a pair differ."""
    there, back = dict(pairs), {other: one for one, other in pairs}
    rows: list[dict[str, Any]] = []
    for one, other in pairs:
        found: list[tuple[str, str | None, str | None]] = []
        for key in sorted({*one.attributes, *other.attributes}):
            x, y = one.attributes.get(key), other.attributes.get(key)
            if not same_attribute(x, y):
                found.append((key, _show_attribute(x), _show_attribute(y)))
        if one.domain != other.domain:
            found.append(("domain", one.domain, other.domain))
        for i, (x, y) in enumerate(zip_longest(one.inputs, other.inputs)):
            if not _same_operand(x, y, there, back):
                found.append((f"input {i}", x and x.name, y and y.name))
        if len(one.outputs) != len(other.outputs):
            found.append(("outputs", str(len(one.outputs)), str(len(other.outputs))))
        node = _row(_name(one)) if found else {}
        rows += [{"node": node, "what": what, "a": a, "b": b} for what, a, b in found]
    return rows


def _same_operand(x: Value | None, y: Value | None, there: Mapping[Node, Node], back: Mapping[Node, Node]) -> bool:
    """Whether two nodes read the same: outputs of a pair, values of one name, or equal constants.

    A value of one name whose maker has no partner counts as the same: the maker is in a hunk.
    """
    if x is None or y is None:
        return x is y
    p, q = x.producer, y.producer
    if p is not None and q is not None and p in there and q in back:
        return there[p] is q and p.outputs.index(x) == q.outputs.index(y)
    if x.name == y.name:
        return True
    a, b = _constant_of(x), _constant_of(y)
    return a is not None and b is not None and same_tensor(a, b)


def _constant_of(v: Value) -> Tensor | None:
    if v.tensor is None and v.producer is not None and v.producer.op == "Constant":
        value = v.producer.attributes.get("value")
        return value if isinstance(value, Tensor) else None
    return v.tensor


def same_attribute(x: Any, y: Any) -> bool:
    """Whether two attributes are equal; bodies count as equal here."""
    if isinstance(x, Tensor) and isinstance(y, Tensor):
        return same_tensor(x, y)
    if _holds_graph(x) and _holds_graph(y):
        return True  # their nodes are compared
    return x == y or repr(x) == repr(y)  # NaN is NaN


def _holds_graph(x: Any) -> bool:
    return hasattr(x, "graphs") and bool(x.HasField("g") or x.graphs)


def _show_attribute(x: Any) -> str | None:
    if x is None:
        return None
    text = repr(x) if isinstance(x, (int, float, str, bytes, list, Tensor)) else "…"
    return text if len(text) <= 60 else f"{text[:60]}…"


# ── weights, interface, functions ─────────────────────────────────────────────────────────────────────────────────────


def same_tensor(x: Tensor, y: Tensor) -> bool:
    """Equal dtype, shape and bytes; read block by block, and only if the first two agree."""
    if x is y:
        return True
    if (x.dtype, x.shape, x.nbytes) != (y.dtype, y.shape, y.nbytes):
        return False
    a, b = x.numpy().reshape(-1), y.numpy().reshape(-1)
    if x.dtype in PLAIN:
        a, b = a.view(np.uint8), b.view(np.uint8)
    return all(np.array_equal(a[i : i + _BLOCK], b[i : i + _BLOCK]) for i in range(0, max(len(a), 1), _BLOCK))


def _weights(a: Model, b: Model) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    left, right = _initializers(a), _initializers(b)
    for key in {**left, **right}:
        x, y = left.get(key), right.get(key)
        if x is not None and y is not None and same_tensor(x, y):
            continue
        types = [None if t is None else {"dtype": dtype_name(t.dtype), "dims": list(t.shape)} for t in (x, y)]
        change = _largest_change(x, y) if x is not None and y is not None else None
        rows.append({"name": key[1], "scope": list(key[0]), "a": types[0], "b": types[1], "change": change})
    return rows


def _initializers(model: Model) -> dict[tuple[tuple[str, ...], str], Tensor]:
    return {
        (tuple(graph.path()), v.name): v.tensor
        for graph in model.graphs()
        for v in graph.initializers
        if v.tensor is not None
    }


def _largest_change(x: Tensor, y: Tensor) -> float | None:
    """max |x − y| of numbers of one type and shape."""
    if (x.dtype, x.shape) != (y.dtype, y.shape) or x.dtype not in PLAIN or not x.size:
        return None
    a, b = x.numpy().reshape(-1), y.numpy().reshape(-1)
    blocks = (slice(i, i + _BLOCK) for i in range(0, len(a), _BLOCK))
    wide = np.complex128 if a.dtype.kind == "c" else np.float64
    with np.errstate(all="ignore"):
        return max(float(np.max(np.abs(a[s].astype(wide) - b[s].astype(wide)))) for s in blocks)


def _interface(a: Model, b: Model) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for kind, one, other in (
        ("input", inputs_of(a), inputs_of(b)),
        ("output", a.graph.outputs, b.graph.outputs),
    ):
        left, right = ({d["name"]: d for d in map(describe_value, values)} for values in (one, other))
        for name in {**left, **right}:
            if left.get(name) != right.get(name):
                rows.append({"kind": kind, "name": name, "a": left.get(name), "b": right.get(name)})
        if left.keys() == right.keys() and list(left) != list(right):
            rows.append({"kind": f"order of {kind}s", "name": "", "a": list(left), "b": list(right)})
    return rows


def _functions(a: Model, b: Model) -> tuple[int, list[str]]:
    """Nodes of the functions that are the same, and the names of the others."""
    same = [k for k, f in a.functions.items() if k in b.functions and f == b.functions[k]]
    others = sorted({f"{domain}.{name}" for domain, name in {*a.functions, *b.functions} - set(same)})
    return sum(len(a.functions[k].node) for k in same), others


# ── the screen ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _row(name: Name) -> dict[str, Any]:
    return {"op": name.op, "name": name.name, "scope": list(name.scope)}


def _alike(hunks: Iterable[Hunk]) -> list[list[Hunk]]:
    """Hunks of the same operators and rules: the same thing at several places."""
    groups: dict[Any, list[Hunk]] = defaultdict(list)
    for h in hunks:
        added = tuple((n.op, e and e[0]) for n, e in h.added.items())
        groups[tuple(n.op for n in h.removed), added, tuple(rule for rule, _ in h.edits)].append(h)
    return list(groups.values())


def _show_hunks(group: Sequence[Hunk]) -> list[str]:
    first, edits = group[0], _show_edits(group)

    def line(sign: str, sides: Sequence[Sequence[Name]]) -> str:
        n = len(sides[0])
        where = _place([_common([name.name for name in side]) for side in sides])
        times = f" × {len(sides)}" if len(sides) > 1 else ""
        return f"{sign} {_show_ops(name.op for name in sides[0])}   {where}   ({n} node{'s' * (n != 1)}){times}"

    if not first.added:
        return [line("-", [h.removed for h in group]) + edits]
    if not first.removed:
        return [line("+", [list(h.added) for h in group]) + edits]
    added = _show_ops(name.op for name in first.added)
    where = edits or f"   {_place([_common([name.name for name in h.added]) for h in group])}"
    return [line("-", [h.removed for h in group]), f"+ {added:<21}{where}"]


def _show_edits(group: Sequence[Hunk]) -> str:
    rules = list(dict.fromkeys(rule for rule, _ in group[0].edits))
    numbers = sorted(n for h in group for _, n in h.edits)
    if not rules:
        return ""
    shown = ", ".join(map(str, numbers[:3])) + (", …" if len(numbers) > 3 else "")
    return f"   rule{'s' * (len(rules) != 1)} {', '.join(map(safe, rules))}, edit{'s' * (len(numbers) != 1)} {shown}"


def _show_ops(ops: Iterable[str]) -> str:
    listed = [safe(op) for op in ops]
    if len(listed) <= 8:
        return " ".join(listed)
    return " ".join(f"{op}×{n}" if n > 1 else op for op, n in Counter(listed).most_common())


def _common(names: Sequence[str]) -> str:
    """The path that the names share: /encoder/layer.0 of /encoder/layer.0/Add and /encoder/layer.0/Mul."""
    levels = zip(*(name.split("/") for name in names))
    shared = [level[0] for level in takewhile(lambda level: len(set(level)) == 1, levels)]
    return "/".join(shared) or names[0]


def _place(places: Sequence[str]) -> str:
    """One place, or the pattern that several follow: /encoder/layer.*/output."""
    patterns = {re.sub(r"\d+", "*", p) for p in places}
    if len(set(places)) == 1:
        return safe(places[0])
    return safe(patterns.pop()) if len(patterns) == 1 else f"{safe(places[0])}, …"


def _show_change(what: str, name: str, a: Any, b: Any, show: Callable[[Any], str]) -> str:
    if what.startswith("order"):
        return f"~ {what}  {', '.join(map(safe, a))} → {', '.join(map(safe, b))}"
    sign = "+" if a is None else "-" if b is None else "~"
    texts = [safe(show(x)) for x in (a, b) if x is not None]
    return f"{sign} {safe(what)} {safe(name)}  {' → '.join(texts)}"


def _show_changed(change: Mapping[str, Any]) -> str:
    node, (a, b) = change["node"], (safe(change[side] or "none") for side in ("a", "b"))
    return f"~ {safe(node['op'])}   {safe(node['name'])}   {safe(change['what'])} {a} → {b}"


def _weight_lines(weights: Sequence[Mapping[str, Any]]) -> list[str]:
    if not weights:
        return []
    changed = [w for w in weights if w["a"] and w["b"]]
    gone, new = sum(w["b"] is None for w in weights), sum(w["a"] is None for w in weights)
    lines = [f"weights {len(changed)} changed, {gone} gone, {new} new"]
    for w in changed:
        a, b = (show_type({**w[side], "default": False}) for side in ("a", "b"))
        change = "" if w["change"] is None else f"   by at most {w['change']:.3g}"
        lines.append(f"~ {safe(w['name'])}  {a}{f' → {b}' if a != b else ''}{change}")
    return lines[:1] + _cut(lines[1:])


def _cut(lines: list[str]) -> list[str]:
    return lines if len(lines) <= _SHOWN else [*lines[:_SHOWN], f"… {len(lines) - _SHOWN} more (--format json)"]
