"""`validate --layers`: every value that the log claims equal, on both sides, and the first pair that diverges.

The log says which value of the original is which value of the result; names alone do not, because a folded batch
normalization leaves a value of the old name with another meaning. Each pair has two errors. *Accumulated*: both models
run from their inputs. *Local*: the result's nodes between this pair and the pairs before it run on the original's
values, so that a mistake shows where it is made and nowhere else. The runtime's optimizations are off: looking at an
inner value then breaks no fusion of the runtime's. Both models run in slices, and values wait on disk, so that neither
the weights nor the values of a large model must be in memory together.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from onnx import GraphProto, ModelProto, TensorProto, TypeProto, ValueInfoProto

from optimizer.core import facts
from optimizer.core.errors import BadInput
from optimizer.core.graph import Graph, Model, Node, Value, copy_node, lower_graph
from optimizer.core.model import ModelLike, graph_hash, read, write
from optimizer.core.tensor import onnx_dtype
from optimizer.core.text import safe
from optimizer.measure.compare import Difference, compare
from optimizer.measure.diff import read_receipt
from optimizer.measure.noise import nudge, write_nudged
from optimizer.measure.verify import LIMITS
from optimizer.measure.window import as_double, doubled, materialize, stored_tensor
from optimizer.runtime import child
from optimizer.runtime.card import read_card, resolve
from optimizer.runtime.feeds import binding_of, check_feed, draw, feeds_source, find_bindings, open_feeds
from optimizer.runtime.interface import read_interface
from optimizer.runtime.session import SessionError, open_session

if TYPE_CHECKING:
    from optimizer.core.feeds import Feed
    from optimizer.measure.accuracy import Validation

SCHEMA = "graphwright.layers/1"
_SLICE = 400  # nodes that run at once
_FED = 1 << 20  # bytes from which a weight is handed over where it lies, rather than copied into the slice
_SPILLED = 1 << 20  # bytes from which a value waits on disk
_FLOORS = 8
_BROKEN = 1e-2  # a difference from double precision above which one of the two is wrong, not rounded
_WHOLE = 1 << 30  # bytes of weights up to which a model is one file
_GIVEN = "given:"
_BATCHES = 2  # of a user's own


# ── which values are equal ────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Pair:
    """A value of the original and one of the result, claimed equal by edits (none: untouched)."""

    original: str
    result: str
    edits: tuple[tuple[int, str], ...] = ()
    lossy: bool = False


def pairs_by_log(log: Sequence[Mapping[str, Any]], original: Model, result: Model) -> list[Pair]:
    """The pairs that the edits, one after the other, claim between two main graphs, in the result's order.

    Names only ever gain meanings here: what is gone is not in the result, because no name is given twice.
    """
    sources = [v.name for v in _computed(original.graph)]
    now: dict[str, dict[str, tuple[tuple[tuple[int, str], ...], bool]]] = {n: {n: ((), False)} for n in sources}

    def join(old: str, new: str, edit: tuple[int, str] | None, lossy: bool) -> None:
        for source, (edits, was_lossy) in list(now.get(old, {}).items()):
            known = now.setdefault(new, {})
            if source not in known or edit is not None:
                known[source] = ((*edits, edit) if edit is not None else edits, lossy or was_lossy)

    for row in log:
        if _is_opaque(row):
            ports = {v.name for v in (*result.graph.inputs, *result.graph.outputs)}
            now = {n: known for n, known in now.items() if n in ports}
            continue
        for old, new in row.get("renamed", ()):
            join(old, new, None, False)
        if row["scope"]:
            continue
        for old, new in row["equal"]:
            join(old, new, (row["id"], row["rule"]), row["fidelity"] == "lossy")
    there = [v.name for v in _computed(result.graph)]
    there += [v.name for v in result.graph.constants() if not v.is_input]
    return [Pair(source, name, *claim) for name in there for source, claim in now.get(name, {}).items()]


def _computed(g: Graph) -> Iterator[Value]:
    yield from (o for n in g for o in n.outputs if o.name)


def _is_opaque(row: Mapping[str, Any]) -> bool:
    """Whether an edit handed over another model, of which no name is known to mean what it did."""
    return row["phase"] == "guest" or str(row["rule"]).startswith("graphsurgeon:")


# ── running in slices ─────────────────────────────────────────────────────────────────────────────────────────────────


class _Source(Protocol):
    """Values by name."""

    def __getitem__(self, name: str, /) -> Any: ...


class _Store:
    """Values by name; large arrays wait on disk."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._values = folder, dict[str, Any]()
        folder.mkdir(parents=True, exist_ok=True)

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def __setitem__(self, name: str, value: Any) -> None:
        if isinstance(value, np.ndarray) and value.nbytes >= _SPILLED and value.dtype.kind in "fiub":
            path = self.folder / f"{len(self._values)}.npy"
            np.save(path, value)
            value = path
        self._values[name] = value

    def __getitem__(self, name: str) -> Any:
        value = self._values[name]
        return np.load(value, mmap_mode="r") if isinstance(value, Path) else value


@dataclass(slots=True)
class _Slice:
    """Consecutive nodes as a model: what it is fed, and what comes out of it."""

    proto: ModelProto
    inputs: list[str]
    weights: dict[str, Any]
    outputs: list[str]

    def read(self, store: _Source, source: _Source) -> dict[str, Any]:
        """The values of the inputs: those marked as given out of `source`."""
        return {n: source[n.removeprefix(_GIVEN)] if n.startswith(_GIVEN) else store[n] for n in self.inputs}


def _segment(g: Graph, name: str, given: Mapping[str, str]) -> list[Node]:
    """The nodes that make a value out of what is given, in order."""
    found: set[Node] = set()
    todo = [o for n in g for o in n.outputs if o.name == name]
    while todo:
        v = todo.pop()
        n = v.producer
        if n is None or n.graph is not g or n in found or (v.name in given and v.name != name):
            continue
        found.add(n)
        todo += n.reads()
    return sorted(found, key=lambda n: n.pos)


class _Sliced:
    """The main graph of a model, run slice by slice.

    Args:
        wanted: names of the values to look at.
        given: names of values whose readers read what is given instead of what is computed.
    """

    def __init__(self, model: Model, wanted: Iterable[str], given: Iterable[str] = ()) -> None:
        self.model, self.wanted, self.given = model, set(wanted), set(given)
        g = model.graph
        nodes = list(g)
        values = [o for n in nodes for o in n.outputs]
        # a sequence cannot be declared at the edge of a slice without its type: such a model runs as one
        size = len(nodes) if any(v.type is not None for v in values) else _SLICE
        self.groups = [nodes[k : k + size] for k in range(0, len(nodes), max(size, 1))]
        self.last = {v: k for k, group in enumerate(self.groups) for n in group for v in n.reads()}

    def run(
        self, stores: Sequence[_Store], sources: Sequence[_Source], custom_ops: Sequence[str], folder: Path
    ) -> None:
        """Fill the stores, one a batch, that hold the graph's inputs already; `sources` hold what is given."""
        for k, group in enumerate(self.groups):
            part = self.slice(k, group, stores[0], sources[0])
            if not part.outputs:
                continue  # nobody reads what these make
            path = folder / "slice.onnx"
            path.write_bytes(part.proto.SerializeToString())
            session = open_session(path, optimize=False, custom_ops=custom_ops)
            for store, source in zip(stores, sources, strict=True):
                for name, value in session.run({**part.weights, **part.read(store, source)}).items():
                    store[name] = value

    def trial(self, custom_ops: Sequence[str], folder: Path) -> Callable[[Feed], None]:
        """A run that tells whether the model takes a feed, without all of it in memory."""

        def run(feed: Feed) -> None:
            store = _Store(folder / "trial")
            for name, value in feed.items():
                store[name] = value
            self.run([store], [store], custom_ops, folder)

        return run

    def slice(self, k: int, group: Sequence[Node], store: _Store, source: _Source) -> _Slice:
        """The k-th nodes as a model, with inputs of the types that `store` and `source` hold."""
        graph = Graph(self.model, None, GraphProto())
        mapping: dict[Value, Value] = {}
        inputs: dict[str, Any] = {}
        weights: dict[str, Any] = {}
        m = ModelProto()
        m.CopyFrom(self.model.proto)
        del m.opset_import[:]
        for domain, version in self.model.opsets.items():
            m.opset_import.add(domain=domain, version=version)
        m.graph.name = "slice"
        for n in group:
            for v in n.reads():
                if v in mapping:
                    continue
                name = f"{_GIVEN}{v.name}" if v.name in self.given else v.name
                mapping[v] = Value(name, None, graph)
                if v.tensor is not None and (not v.is_input or v.name not in store):
                    if v.tensor.nbytes < _FED or v.tensor.dtype == TensorProto.STRING:
                        m.graph.initializer.append(stored_tensor(v.tensor, v.name))
                    else:
                        weights[v.name] = v.tensor.numpy()
                        inputs[v.name] = weights[v.name]
                else:
                    inputs[name] = source[v.name] if v.name in self.given else store[v.name]
            copy = copy_node(n, mapping)
            for was, o in zip(n.outputs, copy.outputs):
                o.graph, o.name = graph, was.name
                if was.name in self.given:
                    del mapping[was]
            graph.link(copy, graph.prev)
        lower_graph(graph, m.graph)
        for n in m.graph.node:
            materialize(n)
        types = {i.name: i.type for i in self.model.graph.proto.input}
        m.graph.input.extend(_declared(name, x, types) for name, x in inputs.items())
        outputs = [
            o.name for n in group for o in n.outputs if o.name and (o.name in self.wanted or self.last.get(o, -1) > k)
        ]
        m.graph.output.extend(ValueInfoProto(name=name) for name in outputs)
        return _Slice(m, [n for n in inputs if n not in weights], weights, outputs)


def _declared(name: str, value: Any, types: Mapping[str, TypeProto]) -> ValueInfoProto:
    """An input of the type that the model declares, or that the array has; its rank alone, since batches differ."""
    if not isinstance(value, np.ndarray):
        return ValueInfoProto(name=name, type=types.get(name))
    i = ValueInfoProto(name=name)
    i.type.tensor_type.elem_type = onnx_dtype(value.dtype)
    i.type.tensor_type.shape.SetInParent()
    for _ in value.shape:
        i.type.tensor_type.shape.dim.add()
    return i


# ── the comparison ────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Layer:
    """One pair, compared: errors of scale, and where the worse of the local ones lies."""

    original: str
    result: str
    edits: tuple[tuple[int, str], ...]
    local: float
    accumulated: float
    limit: float
    diverges: bool
    what: str = ""
    index: tuple[Any, ...] = ()
    before: Any = None
    after: Any = None


@dataclass(frozen=True, slots=True)
class Layers:
    """Every claimed pair of two models, compared.

    Fields:
        verdict: "pass": none diverges · "fail" · "inconclusive": nothing could be run.
        layers: one entry a pair, in the result's order.
        skipped: why pairs were not compared → how many.
        bindings: the sizes at which both were run.
    """

    verdict: str
    layers: tuple[Layer, ...] = ()
    skipped: Mapping[str, int] = field(default_factory=dict[str, int])
    bindings: tuple[Mapping[str, int], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 none diverges · 1 a pair does · 4 inconclusive."""
        return {"pass": 0, "fail": 1}.get(self.verdict, 4)

    @property
    def first(self) -> Layer | None:
        """The first diverging pair."""
        return next((x for x in self.layers if x.diverges), None)

    def to_dict(self) -> dict[str, Any]:
        return {"schema": SCHEMA, "optimizations": "off", **asdict(self)}

    def __str__(self) -> str:
        lines: list[str] = []
        touched = sum(bool(x.edits) for x in self.layers)
        seen = f"{len(self.layers)} pairs by the log, {touched} of them through edits, optimizations off"
        bad = [x for x in self.layers if x.diverges]
        if bad:
            x = bad[0]
            lines.append(f"diverges  {_named(x)}: local error {x.local:.1e} of scale, limit {x.limit:.0e}")
            where = f"at {list(x.index)}: {x.before} became {x.after}" if not x.what else x.what
            lines.append(f"          {where}; accumulated {x.accumulated:.1e}")
            lines.append(f"          {len(bad)} of {seen}")
        elif self.layers:
            local = max(self.layers, key=lambda x: x.local)
            total = max(self.layers, key=lambda x: x.accumulated)
            lines.append(f"none diverges  {seen}")
            lines.append(f"          worst local error {local.local:.1e} of scale, {_named(local)}")
            lines.append(f"          worst accumulated error {total.accumulated:.1e} of scale, {_named(total)}")
        else:
            lines.append("inconclusive  no pair was compared")
        if self.skipped:
            lines.append("          not compared: " + ", ".join(f"{n} {why}" for why, n in self.skipped.items()))
        return "\n".join([*lines, *(f"note  {n}" for n in self.notes)])


@dataclass(frozen=True, slots=True)
class Layered:
    """A validation, and the layers of the same two models."""

    validation: Validation
    layers: Layers

    @property
    def exit_code(self) -> int:
        """1 if either is negative, 4 if either is inconclusive."""
        codes = self.validation.exit_code, self.layers.exit_code
        return 1 if 1 in codes else max(codes)

    def to_dict(self) -> dict[str, Any]:
        return {**self.validation.to_dict(), "layers": self.layers.to_dict()}

    def __str__(self) -> str:
        first, *rest = str(self.layers).splitlines()
        return "\n".join([str(self.validation), f"layers    {first}", *rest])


def _named(x: Layer) -> str:
    names = safe(x.original) if x.original == x.result else f"{safe(x.original)} → {safe(x.result)}"
    edit = f" (edit {x.edits[-1][0]}, rule {safe(x.edits[-1][1])})" if x.edits else " (untouched)"
    return f'"{names}"{edit}'


def layers(
    original: ModelLike,
    result: ModelLike,
    *,
    feeds: Any = None,
    dims: Mapping[str, int] | None = None,
    tolerance: float | None = None,
    custom_ops: Sequence[str | Path] = (),
    seed: int = 0,
) -> Layers:
    """Compare every value that the receipt beside `result` claims equal to one of `original`.

    Args:
        feeds, dims, tolerance, custom_ops, seed: as in `validate`.

    Raises:
        BadInput: there is no receipt of how one was made from the other; no such model, feeds or dimension.
        EnvironmentNotAsAsked: no runtime is installed.
        ToolFailure: the child died.
    """
    first, second = resolve(original), resolve(result)
    with tempfile.TemporaryDirectory(prefix="graphwright-") as folder:
        report: dict[str, Any] = child.call(
            "optimizer.measure.layers:look",
            original=first.path.absolute(),
            result=second.path.absolute(),
            feeds=feeds_source(feeds, Path(folder)),
            dims=dict(dims or {}),
            tolerance=tolerance,
            custom_ops=[str(Path(p).absolute()) for p in custom_ops],
            card=first.card.path.absolute() if first.card is not None else None,
            seed=seed,
        )
    return from_report(report)


def from_report(report: Mapping[str, Any]) -> Layers:
    """What `look` found, as an object."""
    rows: list[dict[str, Any]] = [dict(row) for row in report["layers"]]
    for row in rows:
        row["edits"], row["index"] = tuple(map(tuple, row["edits"])), tuple(row["index"])
    found = tuple(Layer(**row) for row in rows)
    return Layers(
        verdict=report["verdict"],
        layers=found,
        skipped=report["skipped"],
        bindings=tuple(report["bindings"]),
        notes=tuple(report["notes"]),
    )


def look(
    original: str,
    result: str,
    feeds: str | None,
    dims: Mapping[str, int],
    tolerance: float | None,
    custom_ops: Sequence[str],
    card: str | None,
    seed: int,
) -> dict[str, Any]:
    """The fields of `Layers`. Only in a child."""
    first, second = read(original), read(result)
    log = _log(Path(original), Path(result), first, second)
    skipped = Counter[str]()
    pairs = list(_comparable(pairs_by_log(log, first, second), first, second, skipped))
    skipped["in bodies"] += sum(len(row["equal"]) for row in log if row["scope"])
    with tempfile.TemporaryDirectory(prefix="graphwright-") as scratch:
        looking = _Looking(first, second, pairs, custom_ops, Path(scratch), tolerance)
        batches, bindings = _batches(original, first, feeds, dims, card, seed, custom_ops, Path(scratch))
        found = looking.compare(batches)
    skipped.update(looking.skipped)
    verdict = "inconclusive" if not found else "fail" if any(x.diverges for x in found) else "pass"
    return {
        "verdict": verdict,
        "layers": [asdict(x) for x in found],
        "skipped": {why: n for why, n in skipped.items() if n},
        "bindings": bindings,
        "notes": [],
    }


def _log(original: Path, result: Path, first: Model, second: Model) -> list[dict[str, Any]]:
    fix = "make the result with graphwright, and keep its receipt beside it"
    try:
        receipt = read_receipt(result)
    except ValueError as error:
        raise BadInput(str(error), at=str(result), fix=fix) from error
    if receipt is None:
        raise BadInput("no receipt beside the result tells which values are equal", at=str(result), fix=fix)
    if receipt["output"]["graph"] != graph_hash(second):
        raise BadInput("the receipt beside the result is of another model", at=str(result), fix=fix)
    if receipt["input"]["graph"] != graph_hash(first):
        raise BadInput("the result was made from another original", at=str(original), fix="name the one in its receipt")
    return receipt["log"]


def _comparable(pairs: Sequence[Pair], first: Model, second: Model, skipped: Counter[str]) -> Iterator[Pair]:
    """Pairs but those of values that are drawn anew at every run."""
    for model, side in ((first, "original"), (second, "result")):
        drawn = {o.name for n in model.graph if _draws(n) for o in n.outputs}
        skipped["that draw numbers"] += sum(getattr(p, side) in drawn for p in pairs)
        pairs = [p for p in pairs if getattr(p, side) not in drawn]
    yield from pairs


def _draws(n: Node) -> bool:
    if n.bodies:
        return any(_draws(m) for b in n.bodies for m in b)
    return n.op in facts.RANDOM or (n.op in ("Dropout", "BatchNormalization") and not facts.pure(n))


def _batches(
    original: str,
    model: Model,
    feeds: str | None,
    dims: Mapping[str, int],
    card: str | None,
    seed: int,
    custom_ops: Sequence[str],
    folder: Path,
) -> tuple[list[Feed], list[dict[str, int]]]:
    """Some of the user's own batches, else of the card's, else drawn ones at two bindings."""
    interface = read_interface(original)
    own = read_card(card) if card is not None else None
    source = "card" if feeds is None and own is not None and own.feeds is not None else feeds
    if source not in (None, "random"):
        found = [feed for _, feed in zip(range(_BATCHES), open_feeds(source, own)(seed))]
        found = [check_feed(feed, interface) for feed in found]
        return found, [binding_of(feed, interface) for feed in found]
    run: Callable[[Feed], object]
    if _weighs(model) < _WHOLE:
        run = open_session(original, optimize=False, custom_ops=custom_ops).run
    else:
        run = _Sliced(model, [v.name for v in model.graph.outputs]).trial(custom_ops, folder)
    drawn: dict[tuple[tuple[str, int], ...], Feed] = {}

    def runs(binding: Mapping[str, int]) -> bool:
        for regime in ("normal", "unit", "zeros"):
            feed = draw(interface, binding, np.random.default_rng([seed, len(drawn)]), regime)
            try:
                run(feed)
            except SessionError:
                continue
            drawn[tuple(binding.items())] = feed
            return True
        return False

    declared = [{**d, **dims} for d in own.dims] if own is not None else []
    bindings = [d for d in declared if runs(d)][:2] or find_bindings(interface, runs, dims, count=2)
    return [drawn[tuple(b.items())] for b in bindings if tuple(b.items()) in drawn], [dict(b) for b in bindings]


def _weighs(model: Model) -> int:
    """Bytes of its constants."""
    return sum(t.nbytes for g in model.graphs() for v in g.constants() if (t := v.tensor) is not None)


class _Looking:
    def __init__(
        self,
        first: Model,
        second: Model,
        pairs: Sequence[Pair],
        custom_ops: Sequence[str],
        folder: Path,
        tolerance: float | None,
    ) -> None:
        self.first, self.second, self.pairs = first, second, pairs
        self.custom_ops, self.folder, self.tolerance = custom_ops, folder, tolerance
        self.skipped = Counter[str]()
        self.constants = {v.name: v.tensor for v in second.graph.constants() if v.tensor is not None and not v.is_input}

    def compare(self, batches: Sequence[Feed]) -> list[Layer]:
        """Both models, run three times each at most: as they are, and cut at every pair."""
        if not batches or not self.pairs:
            return []
        truth = self._run("original", self.first, {p.original for p in self.pairs}, batches)
        arrays = [p for p in self.pairs if all(isinstance(s[p.original], np.ndarray) for s in truth)]
        computed = [p for p in self.pairs if p.result not in self.constants]
        result = self._run("result", self.second, {p.result for p in computed}, batches)
        given = {p.result: p.original for p in reversed(arrays) if p.result not in self.constants}
        local = self._run("local", self.second, {p.result for p in computed}, batches, given, truth)
        found = [self._layer(p, truth, result, local) for p in self.pairs]
        suspects = [k for k, x in enumerate(found) if x.diverges and not x.what]
        if suspects:
            # the result makes in one step what the original made on the way from one of these to the next
            alike = {found[k].result: [p for p in self.pairs if p.result == found[k].result] for k in suspects}
            floors = self._floors([p for some in alike.values() for p in some], arrays, truth, batches)
            for k in suspects:
                floor = max(floors[p.original] for p in alike[found[k].result])
                if found[k].local <= _FLOORS * floor:
                    found[k] = replace(found[k], diverges=False)
        return found

    def _run(
        self,
        kind: str,
        model: Model,
        wanted: set[str],
        batches: Sequence[Feed],
        given: Mapping[str, str] | None = None,
        truth: Sequence[_Source] = (),
    ) -> list[_Store]:
        child.stage(f"{kind}: running in slices, optimizations off")
        stores = [_Store(self.folder / kind / f"{k}") for k in range(len(batches))]
        for store, batch in zip(stores, batches):
            for name, value in batch.items():
                store[name] = value
        sources: Sequence[_Source] = [_Renamed(t, given or {}) for t in truth] or stores
        _Sliced(model, wanted, given or ()).run(stores, sources, self.custom_ops, self.folder)
        return stores

    def _layer(self, p: Pair, truth: Sequence[_Store], result: Sequence[_Store], local: Sequence[_Store]) -> Layer:
        worst, total, limit = Difference(), 0.0, 0.0
        constant = self.constants.get(p.result)
        for a, b, c in zip(truth, result, local):
            want = a[p.original]
            limit = self._limit(want)
            near, far = (constant.numpy(),) * 2 if constant is not None else (c[p.result], b[p.result])
            found = compare(want, near, limit, finite_only=True)
            worst = max(worst, found, key=lambda d: d.error)
            total = max(total, compare(want, far, limit, finite_only=True).error)
        diverges = worst.error > limit and not p.lossy
        return Layer(
            p.original, p.result, p.edits, min(worst.error, 1e308), min(total, 1e308), limit, diverges, worst.what,
            worst.index, worst.original, worst.result,
        )  # fmt: skip

    def _limit(self, value: Any) -> float:
        name = value.dtype.name if isinstance(value, np.ndarray) else ""
        if name not in LIMITS:
            return 0.0
        return self.tolerance if self.tolerance is not None else LIMITS[name]

    def _floors(
        self, suspects: Sequence[Pair], arrays: Sequence[Pair], truth: Sequence[_Store], batches: Sequence[Feed]
    ) -> dict[str, float]:
        """How far each value of the original is from itself when weights, and what is before it, move a last place.

        A model of more than 1 GiB keeps its weights.
        """
        path = self.folder / "nudged.onnx"
        model = self.first
        if _weighs(model) < _WHOLE:
            write(model, self.folder / "plain.onnx", external=False)
            write_nudged(str(self.folder / "plain.onnx"), path, np.random.default_rng(0))
            model = read(path)
        given = {p.original: p.original for p in arrays}
        moved = [_Moved(t, k) for k, t in enumerate(truth)]
        wanted = {p.original for p in suspects}
        inputs = [{name: _moved(x, name, k) for name, x in batch.items()} for k, batch in enumerate(batches)]
        again = self._run("floor", model, wanted, inputs, given, moved)
        return {
            name: max(
                max(compare(t[name], s[name], 0.0, finite_only=True).error, self._own_error(name, given, t, batch))
                for t, s, batch in zip(truth, again, batches)
            )
            for name in wanted
        }

    def _own_error(self, name: str, given: Mapping[str, str], truth: _Store, batch: Feed) -> float:
        """How far a value of the original is from what double precision makes of the values before it; 0: unknown.

        What cancels loses places that moving the inputs does not show.
        """
        from onnx.reference import ReferenceEvaluator

        segment = _segment(self.first.graph, name, given)
        store = _Store(self.folder / "double")
        for key, value in batch.items():
            store[key] = value
        try:
            part = _Sliced(self.first, {name}, given).slice(0, segment, store, truth)
            feed = {**part.weights, **part.read(store, truth)}
            model = doubled(part.proto)
            with np.errstate(all="ignore"):
                (true,) = ReferenceEvaluator(model).run([name], {k: as_double(x) for k, x in feed.items()})
        except Exception:  # whatever a reference operator raises, or a value that a loop hands on
            return 0.0
        want = truth[name]
        error = compare(np.asarray(true).astype(np.float64), want.astype(np.float64), 0.0, finite_only=True).error
        return error if error <= _BROKEN else 0.0


class _Renamed:
    """The original's values under the result's names."""

    def __init__(self, store: _Source, names: Mapping[str, str]) -> None:
        self.store, self.names = store, names

    def __getitem__(self, name: str) -> Any:
        return self.store[self.names[name]]


class _Moved:
    """Values moved up or down in their last place, the same at every look."""

    def __init__(self, store: _Store, seed: int) -> None:
        self.store, self.seed = store, seed

    def __getitem__(self, name: str) -> Any:
        return _moved(self.store[name], name, self.seed)


def _moved(x: Any, name: str, seed: int) -> Any:
    return nudge(x, np.random.default_rng([seed, *name.encode()]))
