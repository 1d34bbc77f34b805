"""An edit replaces values by values claimed equal; the editor is the only way a graph changes.

Nodes built through the editor are not in the graph until `replace` accepts them. A refused edit has touched nothing,
so no rule needs rollback; every committed edit keeps its inverse steps, so `undo` restores the file byte for byte.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import numpy as np
from onnx import ModelProto, helper

from optimizer.core import form, transfer
from optimizer.core.dims import Dims
from optimizer.core.form import Decline, constant
from optimizer.core.graph import Attribute, Graph, Model, Node, Value, anchor, attach, copy_node, lift, use
from optimizer.core.target import PORTABLE, Target
from optimizer.core.tensor import BITS, Tensor, data_bytes, numpy_dtype


class Fidelity(StrEnum):
    EXACT = "exact"  # equal bits under op-by-op reference semantics
    ROUNDING = "rounding"  # equal over the reals on the rule's stated domain
    LOSSY = "lossy"  # judged by the task


class Evidence(StrEnum):
    LAW = "law"  # a shipped rule under the laws of the test suite
    WINDOW = "window"
    SAMPLED = "sampled"
    NONE = "none"  # a guest's, a user's


class Edit(NamedTuple):
    """One committed replacement.

    `equal` pairs old and new values claimed equal, `names` the same pairs by name (the old one's before, the new one's
    after the edit), `gone` and `new` are the nodes removed and added, `renamed` existing values that took another name.
    """

    id: int
    phase: str
    rule: str
    fidelity: Fidelity
    evidence: Evidence
    scope: tuple[str, ...]
    equal: tuple[tuple[Value, Value], ...]
    names: tuple[tuple[str, str], ...]
    gone: tuple[Node, ...]
    new: tuple[Node, ...]
    renamed: tuple[tuple[str, str], ...]
    note: str
    journal: tuple[tuple[Any, ...], ...]


class Proposal(NamedTuple):
    """What a gate is asked about: an edit that passed every guard and is not committed yet."""

    id: int
    rule: str
    graph: Graph
    equal: tuple[tuple[Value, Value], ...]
    gone: tuple[Node, ...]
    new: tuple[Node, ...]
    leaves: tuple[Value, ...]


class Gate(Protocol):
    """Asked last, because it is dear: a reason to refuse, or None."""

    def __call__(self, editor: Editor, proposal: Proposal, /) -> str | None: ...


class Ops:
    """`op.Name(operands in the newest form, **attributes)` stages a node and gives its output (a tuple if several)."""

    def __init__(self, editor: Editor) -> None:
        self._editor = editor

    def __getattr__(self, name: str) -> Callable[..., Any]:
        editor = self._editor

        def make(*operands: Any, outputs: int = 1, domain: str = "", **attributes: Any) -> Any:
            return editor.stage(name, operands, attributes, outputs, domain)

        return make


class Editor:
    """The only way a model's graphs change.

    Args:
        model: its main graph and all bodies are served by this one editor, so edits are numbered across them.
        target: what a staged node must be legal on.
        gate: asked last before a commit (bisect limit, verification).
        budget: how far the model's bytes may grow, as a factor.
    """

    def __init__(
        self, model: Model, *, target: Target = PORTABLE, gate: Gate | None = None, budget: float = 1.01
    ) -> None:
        self.model, self.target, self.gate = model, target, gate
        self.log: list[Edit] = []
        self.refused: Counter[tuple[str, str]] = Counter()
        self.why = ""
        self.op = Ops(self)
        self.phase = self.rule = ""
        self.fidelity, self.evidence = Fidelity.EXACT, Evidence.LAW
        self.touched: list[Node] = []  # nodes whose surroundings changed, in the order of the edits
        self._seen: dict[tuple[str, Graph], int] = {}
        self._notes: dict[tuple[str, Graph], dict[Any, Any]] = {}
        self._by_op: dict[Graph, tuple[int, dict[str, list[Node]]]] = {}
        self.bytes = _weight(model.graph) + _in_functions(model)
        self.limit = int(self.bytes * budget) + 512

    @contextmanager
    def under(
        self, rule: str, fidelity: Fidelity = Fidelity.EXACT, evidence: Evidence = Evidence.LAW
    ) -> Generator[Editor]:
        """Edits inside are logged under this rule."""
        was = self.rule, self.fidelity, self.evidence
        self.rule, self.fidelity, self.evidence = rule, fidelity, evidence
        try:
            yield self
        finally:
            self.rule, self.fidelity, self.evidence = was

    def news(self, reader: str, graph: Graph, ops: Collection[str] | None = None) -> Iterator[Node]:
        """Nodes that `reader` has not seen in their present surroundings: all at first, then what edits touched.

        Args:
            ops: only nodes of these operators of ai.onnx; the graph is walked once for all who ask so.
        """
        since = self._seen.get((reader, graph))
        self._seen[reader, graph] = len(self.touched)
        if since is None and ops is None:
            yield from graph
            return
        found: list[Node] = []
        if since is None:
            since, by_op = self._by_op.get(graph) or self._index(graph)
            found = sorted((n for op in ops or () for n in by_op.get(op, ())), key=_pos)
        for n in dict.fromkeys(found + self.touched[since:]):
            if n.graph is graph and (ops is None or (n.op in ops and not n.domain)):
                yield n

    def _index(self, graph: Graph) -> tuple[int, dict[str, list[Node]]]:
        """How much of `touched` there was when the graph was walked, and its nodes by operator."""
        by_op: dict[str, list[Node]] = {}
        for n in graph:
            by_op.setdefault(n.op, []).append(n)
        self._by_op[graph] = len(self.touched), by_op
        return self._by_op[graph]

    def notes(self, reader: str, graph: Graph) -> dict[Any, Any]:
        """What `reader` remembers of `graph` between its walks."""
        return self._notes.setdefault((reader, graph), {})

    def mark(self, reader: str) -> int | None:
        """How much of `touched` the reader has seen (None: nothing yet); from now on, all of it."""
        since = self._seen.get((reader, self.model.graph))
        self._seen[reader, self.model.graph] = len(self.touched)
        return since

    # ── staging: nothing in the graph knows these nodes yet ───────────────────────────────────────────────────────────

    def stage(
        self, op: str, operands: Sequence[Any], attributes: dict[str, Any], outputs: int = 1, domain: str = ""
    ) -> Any:
        """A new node outside the graph, its types inferred.

        Operands may be Values, None, or arrays and numbers: those take the dtype of the operands they share a type
        parameter with, floats without such the first floating dtype that the operator takes there; rounded once.

        Raises:
            Decline: no such op on the target at this opset, types do not fit, a number overflows, inference fails.
        """
        opset = self.model.opsets.get(domain, 1)
        ins = self._operands(op, operands, opset, domain)
        own: dict[str, Attribute] = {k: a for k, a in attributes.items() if a is not None}
        if not domain:
            form.spell(op, ins, own, opset)
        _coerce(op, opset, domain, own)
        node = Node(op, domain, "", None)
        node.inputs = ins
        node.set_attributes(own)
        node.outputs = [Value("", node) for _ in range(outputs)]
        if why := self.target.refuses(op, domain, opset, _dtypes(ins), frozenset(own), outputs):
            raise Decline(why)
        transfer.infer(node, self.model.opsets)
        return node.outputs[0] if outputs == 1 else tuple(node.outputs)

    def stage_like(
        self, node: Node, inputs: Sequence[Value | None] | None = None, **attributes: Attribute | None
    ) -> tuple[Value, ...]:
        """A copy of `node` outside the graph, with other inputs or attributes (None drops one).

        Raises:
            Decline: it has bodies, or the target does not take the new operands' types.
        """
        if node.bodies:
            raise Decline(f"{node.op}: a node with bodies is not copied")
        new = Node(node.op, node.domain, "", None)
        new.inputs = list(node.inputs if inputs is None else inputs)
        own = {k: a for k, a in {**node.attributes, **attributes}.items() if a is not None}
        new.set_attributes(own)
        new.outputs = [Value("", new) for _ in node.outputs]
        types, opset = _dtypes(new.inputs), self.model.opsets.get(node.domain, 1)
        if types != _dtypes(node.inputs) and (
            why := self.target.refuses(node.op, node.domain, opset, types, frozenset(own), len(new.outputs))
        ):
            raise Decline(why)
        transfer.infer(new, self.model.opsets)
        return tuple(new.outputs)

    def stage_body(self, body: Graph, given: Sequence[Value] = ()) -> list[Value]:
        """A copy of a body's nodes outside the graph, its inputs replaced by `given`; what are its outputs there."""
        mapping: dict[Value, Value] = dict(zip(body.inputs, given))
        for v in body.initializers:
            if v.tensor is not None:
                mapping.setdefault(v, constant(v.tensor))
        for n in body:
            held = n.attributes.get("value") if n.op == "Constant" and not n.domain else None
            if isinstance(held, Tensor):  # a node only because the body hands it out
                mapping[n.output] = constant(held)
                continue
            for v in copy_node(n, mapping).outputs:
                v.name = ""  # the original's is taken as long as the original lives
        return [mapping.get(v, v) for v in body.outputs]

    def _operands(self, op: str, operands: Sequence[Any], opset: int, domain: str) -> list[Value | None]:
        if all(x is None or isinstance(x, Value) for x in operands):
            return list(operands)
        parameters = _type_parameters(op, opset, domain)
        dtypes: dict[str, int] = {}
        for x, t in zip(operands, parameters):
            if isinstance(x, Value) and x.dtype:
                dtypes.setdefault(t, x.dtype)
        out: list[Value | None] = []
        for i, x in enumerate(operands):
            if x is None or isinstance(x, Value):
                out.append(x)
                continue
            if isinstance(x, Tensor):
                out.append(constant(x))
                continue
            parameter = parameters[min(i, len(parameters) - 1)] if parameters else ""
            dtype = dtypes.get(parameter)
            if dtype is None and (type(x) is float or getattr(x, "dtype", None) == np.float64):
                dtype = next((d for d in dtypes.values() if _is_float(op, opset, domain, parameter, d)), None)
            scalar = type(x) in (int, float) and x != 0  # zeros of both signs are equal
            out.append(constant(_number(x, dtype) if scalar else _rounded(np.asarray(x), dtype)))
        return out

    # ── replacing ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def no(self, why: str) -> bool:
        """Count a refusal; always False."""
        self.refused[self.rule, why] += 1
        self.why = why
        return False

    def replace(
        self, old: Sequence[Value], new: Sequence[Any], *, must_go: Sequence[Node] = (), shape: str = "", note: str = ""
    ) -> bool:
        """Let every reader of old[i] read new[i]; what nobody reads any more goes. False: refused, nothing touched.

        Args:
            old: values of one graph.
            new: staged or existing values, or arrays and Tensors (new constants).
            must_go: nodes without whose removal the edit is no profit.
            shape: why the shapes are equal where that is not provable from dims (a computed constant, an identity).
            note: kept in the log.
        """
        pairs = [(a, b if isinstance(b, Value) else constant(b)) for a, b in zip(old, new, strict=True) if a is not b]
        if not pairs:
            return self.no("nothing to replace")
        olds = dict(pairs)
        g = pairs[0][0].graph
        staged, leaves = _staged(pairs)
        claimed = bool(shape)
        outputs: list[tuple[Value, Value]] = []
        for a, b in pairs:
            if g is None or a.graph is not g:
                return self.no("replaces values of two graphs, or of none")
            if b in olds or len(olds) < len(pairs):
                return self.no("replaces a value twice")
            if a.is_input:
                return self.no("replaces an input")
            if _lost(a):
                return self.no("replaces a value that is gone")
            if a.is_output:
                outputs.append((a, b))
        assert g is not None
        for v in leaves:
            if why := _unreadable(v, g):
                return self.no(why)
        for a, b in pairs:
            if why := _differ(a, b, claimed):
                return self.no(why)

        gone = _dead(g, olds, leaves)
        for n in must_go:
            if n not in gone:
                return self.no("an inner value is used elsewhere")

        # outputs keep their names, and are made by a node of their graph
        for a, b in outputs:
            if b.tensor is not None:
                return self.no("a graph output would be a constant")
            if b.graph is not None and (b.graph is not g or b.is_input or b.is_output):
                return self.no("a graph output would need an Identity")
            if a in leaves:
                return self.no("an output that the new side reads would need another name")
        if len(outputs) > 1 and len({b for _, b in outputs}) < len(outputs):
            return self.no("one value would be two outputs")

        # order: behind the last leaf, before the first reader that stays; else the leaves' makers are pulled up
        readers: dict[Node, None] = {}
        inside: list[Node] = []  # readers in bodies
        first: Node | None = None
        after: Node | Graph = g
        last: Node | None = None  # the last node of the old side, to which the order stays close
        for a in olds:
            for u in a.uses:
                r: Node | None = u
                if u.graph is not g:
                    inside.append(u)
                    r = anchor(u, g)
                if r is not None and r not in gone:
                    readers[r] = None
                    if first is None or r.pos < first.pos:
                        first = r
            p = a.producer
            if p is not None and (last is None or p.pos > last.pos):
                last = p
        for v in leaves:
            p = v.producer
            if p is not None and p.graph is g and p.pos > after.pos:
                after = p
        moves: set[Node] = set()
        if first is not None and after.pos >= first.pos:
            todo = [v.producer for v in leaves if v.producer is not None]
            while todo:
                n = todo.pop()
                if n in moves or n.graph is not g or n.pos < first.pos:
                    continue
                if n in readers:
                    return self.no("cycle")
                moves.add(n)
                todo += [v.producer for v in n.reads() if v.producer is not None]
        elif staged:
            for n in gone:
                if last is None or n.pos > last.pos:
                    last = n
            if last is not None and last.pos > after.pos and (first is None or last.pos < first.pos):
                after = last

        growth = 0
        for n in staged:
            growth += _held(n)
        for v in leaves:
            if v.graph is None and v.tensor is not None:
                growth += v.tensor.nbytes
        if growth and self.bytes + growth > self.limit:
            growth -= _freed(g, olds, leaves, gone)
            if growth > 0 and self.bytes + growth > self.limit:
                return self.no("bytes over budget")

        proposal = Proposal(
            len(self.log) + 1, self.rule, g, tuple(pairs),
            tuple(sorted(gone, key=_pos)) if len(gone) > 1 else tuple(gone), tuple(staged), tuple(leaves),
        )  # fmt: skip
        if self.gate is not None and (why := self.gate(self, proposal)):
            return self.no(why)
        self._commit(proposal, first, after, sorted(moves, key=_pos), note)
        self.touched += (*staged, *readers, *inside)
        return True

    def _commit(self, p: Proposal, first: Node | None, after: Node | Graph, moves: list[Node], note: str) -> None:
        """Link the new nodes behind `after` (`moves` before the `first` reader), rewire, take out what is gone."""
        model, g = self.model, p.graph
        names = [a.name for a, _ in p.equal]
        outputs = {a for a, _ in p.equal if a.is_output}
        leaves, gone, own = p.leaves, p.gone, p.new
        journal: list[tuple[Any, ...]] = []
        renamed: list[tuple[str, str]] = []
        if g.owner is not None:
            _touch(g, journal)
        if moves:
            assert first is not None
            after = first.prev
            for n in moves:
                was = n.prev
                g.unlink(n)
                g.link(n, after)
                after = n
                journal.append((_move, g, n, was))
        for v in leaves:
            if v.graph is None:
                assert v.tensor is not None
                v.graph = g
                g.initializers[v] = None
                self.bytes += v.tensor.nbytes
                journal.append((self._forget, v))
        if own:
            stem = f"{self.rule or 'edit'}_{p.id}"
            for k, n in enumerate(own):
                g.link(n, after)
                after = n
                n.name = stem if k == 0 else f"{stem}_{k + 1}"
                while n.name in model.node_names:
                    n.name += "_"
                model.node_names.add(n.name)
                for o in n.outputs:
                    o.graph = g
                attach(n)
                self.bytes += _held(n)
                journal.append((self._unlink, n))

        for a, b in p.equal:
            for r in list(a.uses):
                if r in gone or r in own:
                    continue
                k = a.uses.pop(r)
                ins = r.inputs
                r.inputs = [b if x is a else x for x in ins]
                b.uses[r] = b.uses.get(r, 0) + k
                journal.append((_rewire, r, ins, a, b, k, r.dirty))
                r.dirty = True
                if r.graph is not g or r.bodies:
                    _rewire_bodies(r, a, b, journal)
            if a in outputs:
                journal.append((_output, g, list(g.outputs), a, b))
                g.outputs[:] = [b if x is a else x for x in g.outputs]
                a.is_output, b.is_output = False, True
            if b.producer in own:
                _hand_on(a, b)
        # the new value takes the name, unless it has one and need not change it; an output's name comes first
        for a, b in p.equal if len(p.equal) == 1 else sorted(p.equal, key=lambda pair: pair[0] not in outputs):
            if (b.name and a not in outputs) or a in leaves:
                continue
            if b.name:
                renamed.append((b.name, a.name))
                _rename(b, a.name, journal)
            else:
                b.name = a.name
            if a.producer is not None and a.producer not in gone:
                _rename(a, self._fresh(self.rule or "value", journal), journal)
        for n in gone:
            self._take(n, journal)
        for a, _ in p.equal:
            if a.tensor is not None and not a.uses:
                self._bury(a, journal)
        for v in leaves:
            if not v.name:
                v.name = self._fresh(self.rule or "const", journal)
        for n in own:
            opset = model.opsets.get(n.domain, 0)
            for i, o in enumerate(n.outputs):
                if not o.name and (o.uses or not form.optional_output(n.op, opset, n.domain, i)):
                    o.name = self._fresh(self.rule or "value", journal)
        self.log.append(
            Edit(
                p.id, self.phase, self.rule, self.fidelity, self.evidence, tuple(g.path()), p.equal,
                tuple([(was, b.name) for was, (_, b) in zip(names, p.equal)]),
                gone, own, tuple(renamed), note, tuple(journal),
            )
        )  # fmt: skip

    def remove(self, nodes: Sequence[Node], *, initializers: Sequence[Value] = ()) -> bool:
        """Remove nodes of one graph whose outputs only they read, and initializers that nobody reads."""
        gone = dict.fromkeys(nodes)
        g = nodes[0].graph if nodes else initializers[0].graph if initializers else None
        if g is None:
            return self.no("nothing to remove")
        if any(n.graph is not g for n in gone) or any(_lost(o) for n in gone for o in n.outputs):
            return self.no("removes nodes of two graphs, or what is gone")
        if any(o.is_output or any(anchor(u, g) not in gone for u in o.uses) for n in gone for o in n.outputs):
            return self.no("still read")
        if any(v.uses or v.is_output or v.is_input or v.tensor is None for v in initializers):
            return self.no("still read")
        proposal = Proposal(len(self.log) + 1, self.rule, g, (), tuple(gone), (), ())
        if self.gate is not None and (why := self.gate(self, proposal)):
            return self.no(why)
        journal: list[tuple[Any, ...]] = []
        _touch(g, journal)
        for n in sorted(gone, key=_pos, reverse=True):
            self._take(n, journal)
            self.touched += [v.producer for v in n.reads() if v.producer is not None]
        for v in initializers:
            self._bury(v, journal)
        self._log(g, gone=tuple(gone), note=", ".join(v.name for v in initializers[:8]), journal=journal)
        return True

    def _fresh(self, stem: str, journal: list[tuple[Any, ...]]) -> str:
        name = self.model.fresh_name(stem)
        journal.append((self.model.forget_name, name))
        return name

    def _take(self, n: Node, journal: list[tuple[Any, ...]]) -> None:
        """Take a node out of its graph, and the constants that only it read."""
        g, was, held = n.graph, n.prev, _held(n)
        assert g is not None
        attach(n, -1)
        g.unlink(n)
        self.bytes -= held
        journal.append((self._put_back, g, n, was, held))
        for v in n.reads() if n.bodies else n.inputs:
            if v is None:
                continue
            if v.tensor is None:
                self.touched += v.uses  # a value read once less is one that a pattern may look through
            elif not v.uses:
                self._bury(v, journal)

    def _bury(self, v: Value, journal: list[tuple[Any, ...]]) -> None:
        g = v.graph
        if g is not None and v.tensor is not None and v not in g.dead and not v.is_input and not v.is_output:
            _touch(g, journal)
            g.dead.add(v)
            self.bytes -= v.tensor.nbytes
            journal.append((self._exhume, v))

    # inverse steps

    def _put_back(self, g: Graph, n: Node, was: Any, held: int) -> None:
        g.link(n, was)
        attach(n)
        self.bytes += held

    def _exhume(self, v: Value) -> None:
        assert v.graph is not None and v.tensor is not None
        v.graph.dead.discard(v)
        self.bytes += v.tensor.nbytes

    def _forget(self, v: Value) -> None:
        assert v.graph is not None and v.tensor is not None
        v.graph.initializers.pop(v)
        self.bytes -= v.tensor.nbytes
        v.graph, v.name = None, ""

    def _unlink(self, n: Node) -> None:
        g = n.graph
        assert g is not None
        attach(n, -1)
        g.unlink(n)
        g.model.node_names.discard(n.name)
        self.bytes -= _held(n)
        for o in n.outputs:
            o.graph, o.name = None, ""

    def rename(self, values: Sequence[Value]) -> None:
        """Give values names that no other value of the model has."""
        journal: list[tuple[Any, ...]] = []
        renamed: list[tuple[str, str]] = []
        for v in values:
            if v.graph is not None:
                _touch(v.graph, journal)
            was = v.name
            _rename(v, self._fresh(was, journal), journal)
            renamed.append((was, v.name))
        self._log(self.model.graph, renamed=renamed, journal=journal)

    def fix_initializers(self, graph: Graph) -> bool:
        """Initializers leave the graph's inputs: from now on they are constants (the model's IR becomes 4 at least)."""
        fixed = [v for v in graph.inputs if v.tensor is not None]
        if not fixed:
            return self.no("no initializer is an input")
        was = list(graph.inputs), [(v, v.dims) for v in fixed], self.model.proto.ir_version
        journal: list[tuple[Any, ...]] = [(_unfix, self.model, graph, *was)]
        for v in fixed:
            assert v.tensor is not None
            v.is_input, v.dims = False, v.tensor.shape
            self.touched += v.uses
        graph.inputs[:] = [v for v in graph.inputs if v.is_input]
        self.model.proto.ir_version = max(4, self.model.proto.ir_version)
        self._log(graph, note=f"{len(fixed)} initializers", journal=journal)
        return True

    def set_opset(self, to: int) -> None:
        """The model says that it is of this opset of ai.onnx (and of an IR that may hold it); one edit.

        Whatever that opset spells or means otherwise must be replaced at once (`passes.quantize.opset`).
        """
        model = self.model
        was = model.opsets[""], model.proto.ir_version
        model.opsets[""] = to
        model.proto.ir_version = max(was[1], helper.OP_SET_ID_VERSION_MAP["ai.onnx", to])
        self._log(model.graph, note=f"opset {was[0]} → {to}", journal=[(_set_versions, model, *was)])

    def adopt(self, proto: ModelProto, note: str, gone: Sequence[Node] = ()) -> bool:
        """Go on with a model that someone else made of this one; one opaque edit, of which the gate sees the new graph.

        Raises:
            BadInput: the proto is no valid graph.
        """
        model, new = self.model, lift(proto)
        proposal = Proposal(len(self.log) + 1, self.rule, new.graph, (), tuple(gone), (), ())
        if self.gate is not None and (why := self.gate(self, proposal)):
            return self.no(why)
        journal = [(_restore, model, {k: getattr(model, k) for k in _ADOPTED}), (_set_bytes, self, self.bytes)]
        for k in _ADOPTED:
            setattr(model, k, getattr(new, k))
        for g in model.graphs():
            g.model = model
        self.bytes = _weight(model.graph) + _in_functions(model)
        self._seen.clear()
        self._notes.clear()
        self._by_op.clear()
        self.touched.clear()
        self._log(model.graph, gone=gone, note=note, journal=journal)
        return True

    def _log(
        self,
        graph: Graph,
        *,
        gone: Sequence[Node] = (),
        renamed: Sequence[tuple[str, str]] = (),
        note: str = "",
        journal: Sequence[tuple[Any, ...]] = (),
    ) -> None:
        """One edit that claims no pair of values equal."""
        self.log.append(
            Edit(
                id=len(self.log) + 1,
                phase=self.phase,
                rule=self.rule,
                fidelity=self.fidelity,
                evidence=self.evidence,
                scope=tuple(graph.path()),
                equal=(),
                names=(),
                gone=tuple(gone),
                new=(),
                renamed=tuple(renamed),
                note=note,
                journal=tuple(journal),
            )
        )

    def undo(self, to: int = 0) -> None:
        """Back to the state after edit `to` (0: before every edit)."""
        while len(self.log) > to:
            edit = self.log.pop()
            for f, *args in reversed(edit.journal):
                f(*args)
            self.touched += edit.gone
            for a, _ in edit.equal:
                self.touched += a.uses


def _staged(pairs: Sequence[tuple[Value, Value]]) -> tuple[list[Node], dict[Value, None]]:
    """Nodes not in a graph yet, in topological order, and the leaves they (and the new values) stand on."""
    staged: list[Node] = []
    leaves: dict[Value, None] = {}
    seen: set[Node] = set()
    for _, b in pairs:
        if b.producer is None or b.graph is not None:  # most new values exist already
            leaves[b] = None
            continue
        stack: list[tuple[Value, bool]] = [(b, False)]
        while stack:
            v, done = stack.pop()
            p = v.producer
            if p is None or v.graph is not None:
                leaves[v] = None
                continue
            if done:
                staged.append(p)
            elif p not in seen:
                seen.add(p)
                stack.append((v, True))
                stack += [(x, False) for x in reversed(list(p.reads()))]
    return staged, leaves


def _dead(g: Graph, olds: Mapping[Value, Value], leaves: Mapping[Value, None]) -> dict[Node, None]:
    """The nodes that nobody needs once nobody reads `olds`; what the new side reads stays alive."""
    gone: dict[Node, None] = {}
    todo = [a.producer for a in olds if a not in leaves]
    while todo:
        n = todo.pop()
        if n is None or n in gone or n.graph is not g:
            continue
        for o in n.outputs:
            if o in leaves:
                break
            if o in olds:
                continue
            if o.is_output:
                break
            for u in o.uses:
                if u not in gone and (u.graph is g or anchor(u, g) not in gone):
                    break
            else:
                continue
            break
        else:
            gone[n] = None
            todo += [v.producer for v in (n.reads() if n.bodies else n.inputs) if v is not None]
    return gone


def _freed(g: Graph, olds: Mapping[Value, Value], leaves: Mapping[Value, None], gone: Mapping[Node, None]) -> int:
    """Bytes of the constants that go with `olds` and `gone`."""
    freed = sum(map(_held, gone))
    for v in {**olds, **{v: None for n in gone for v in n.reads()}}:
        if v.tensor is None or v in leaves or v.is_input or v.is_output:
            continue
        if v in olds or all(anchor(u, g) in gone for u in v.uses):
            freed += v.tensor.nbytes
    return freed


def _pos(n: Node) -> int:
    return n.pos


def _dtypes(values: Sequence[Value | None]) -> tuple[int | None, ...]:
    return tuple([v.dtype if v is not None else None for v in values])


def _lost(v: Value) -> bool:
    """Whether v was removed, by itself or with a body around it."""
    g = v.graph
    if g is None or v in g.dead or ((p := v.producer) is not None and p.graph is None):
        return True
    while g.owner is not None:
        g = g.owner.graph
        if g is None:
            return True
    return False


def _unreadable(v: Value, g: Graph) -> str:
    """Why a node of `g` must not read `v`, or nothing."""
    if v.graph is None:
        return "" if v.tensor is not None else "reads a value that nothing makes"
    if _lost(v):
        return "reads a value that is gone"
    if not v.name:
        return "reads an output that is left out"
    inner: Graph | None = g
    while inner is not None and inner is not v.graph:
        owner = inner.owner
        inner = owner.graph if owner is not None else None
        if owner is not None and inner is v.graph and v.producer is not None and v.producer.pos >= owner.pos:
            return "reads a value that is made later"
    return "" if inner is v.graph else "reads a value of an inner scope"


def _differ(a: Value, b: Value, claimed: bool) -> str:
    """Why the type of b is not, or not provably, that of a (`claimed`: the caller vouches for what is unknown)."""
    known = (a.dtype or a.type is not None) and (b.dtype or b.type is not None)
    if known and (a.dtype != b.dtype or (a.type is None) != (b.type is None)):
        return "type differs"
    if not claimed and (not a.dtype or a.dtype != b.dtype or a.type is not None):
        return "type not proven"
    x, y = a.dims, b.dims
    if x is not None and y is not None:
        if x == y:
            return ""
        if len(x) != len(y) or any(type(d) is int and type(e) is int and d != e for d, e in zip(x, y)):
            return "shape differs"
    return "" if claimed else "shape not proven"


def _held(n: Node) -> int:
    """Bytes of the constants that a node holds itself: a Constant's value, and what lies in its bodies."""
    if n.op != "Constant" and not n.bodies:
        return 0
    return sum(t.nbytes for t in n.attributes.values() if isinstance(t, Tensor)) + sum(map(_weight, n.bodies))


def _weight(g: Graph) -> int:
    return sum(v.tensor.nbytes for v in g.constants() if v.tensor is not None) + sum(map(_held, g))


def _in_functions(model: Model) -> int:
    """What the constants of the model's functions weigh, however often they are called."""
    total = 0
    nodes = [n for f in model.proto.functions for n in f.node]
    for n in nodes:  # grows while it is walked
        for a in n.attribute:
            bodies = [a.g, *a.graphs]
            nodes += [m for g in bodies for m in g.node]
            tensors = (a.t, *a.tensors, *(t for g in bodies for t in g.initializer))
            total += sum(data_bytes(t.data_type, t.dims) for t in tensors if t.data_type in BITS)
    return total


@lru_cache(None)
def _type_parameters(op: str, opset: int, domain: str) -> list[str]:
    """The type parameters of the operands in the newest form, in which they are given."""
    if not domain:
        opset = max(opset, *(since for _, _, since in form.MOVED.get(op, ())), 0)
    s = form.schema(op, opset, domain)
    if s is None:
        return []
    out: list[str] = []
    for p in s.inputs:
        variadic = p.option == p.option.Variadic
        out += [p.type_str] * (64 if variadic else 1)
    return out


_FLOATS = {1: "tensor(float)", 10: "tensor(float16)", 11: "tensor(double)", 16: "tensor(bfloat16)"}


@lru_cache(None)
def _is_float(op: str, opset: int, domain: str, parameter: str, dtype: int) -> bool:
    """Whether the dtype is floating and the type parameter may be it."""
    s = form.schema(op, opset, domain)
    allowed = next((c.allowed_type_strs for c in s.type_constraints if c.type_param_str == parameter), ()) if s else ()
    return _FLOATS.get(dtype) in allowed


def _rounded(x: np.ndarray[Any, Any], dtype: int | None) -> np.ndarray[Any, Any]:
    """x in the dtype of its fellow operands; float64 without one becomes float32."""
    if x.dtype == object:
        x = np.asarray(x.tolist())
    if dtype is None:
        return x.astype(np.float32) if x.dtype == np.float64 else x.astype(np.int64) if x.dtype == np.int32 else x
    want = numpy_dtype(dtype)
    if x.dtype == want:
        return x
    with np.errstate(over="ignore", invalid="ignore"):
        y = x.astype(want)
    if (
        x.dtype.kind == "f"
        and want.kind in "fV"
        and not np.array_equal(np.isfinite(y.astype(np.float64)), np.isfinite(x))
    ):
        raise Decline("a constant overflows the model's dtype")
    if want.kind in "iub" and not np.array_equal(y.astype(np.float64), x.astype(np.float64)):
        raise Decline("a constant does not fit the model's dtype")
    return y


@lru_cache(1024, typed=True)
def _number(x: float, dtype: int | None) -> Tensor:
    return Tensor.of(_rounded(np.asarray(x), dtype))


@lru_cache(None)
def _float_attributes(op: str, opset: int, domain: str) -> frozenset[str]:
    s = form.schema(op, opset, domain)
    if s is None:
        return frozenset()
    return frozenset(k for k, a in s.attributes.items() if a.type in (a.type.FLOAT, a.type.FLOATS))


def _coerce(op: str, opset: int, domain: str, attributes: dict[str, Attribute]) -> None:
    """Python numbers as the schema's attribute types want them: epsilon=1 is 1.0."""
    floats = _float_attributes(op, opset, domain)
    for k, a in attributes.items():
        if isinstance(a, np.ndarray):
            a = attributes[k] = a.tolist()
        if k in floats:
            attributes[k] = [float(x) for x in a] if isinstance(a, (list, tuple)) else float(a)


def _hand_on(a: Value, b: Value) -> None:
    """b is a: what was known of a is known of b, and facts only get better."""
    b.dtype = b.dtype or a.dtype
    b.type = b.type or a.type
    b.known = a.known if b.known is None else b.known
    if a.dims is not None and a.dims != b.dims:
        transfer.improve(b, a.dims)


def _touch(g: Graph, journal: list[tuple[Any, ...]]) -> None:
    """Mark the body, and those around it, as no longer what their protos say."""
    body: Graph | None = g
    while body is not None and body.owner is not None:
        if not body.touched:
            journal.append((_untouch, body))
            body.touched = True
        body = body.owner.graph


def _rewire_bodies(owner: Node, a: Value, b: Value, journal: list[tuple[Any, ...]]) -> None:
    """A reader inside a body, or a body that hands `a` out: its own graph changes as well."""
    if owner.graph is not None and owner.graph is not a.graph:
        _touch(owner.graph, journal)
    for body in owner.bodies:
        if any(x is a for x in body.outputs):
            _touch(body, journal)
            journal.append((_outputs, body, list(body.outputs)))
            body.outputs[:] = [b if x is a else x for x in body.outputs]


def _rename(v: Value, name: str, journal: list[tuple[Any, ...]]) -> None:
    journal.append((_unname, v, v.name, [(n, n.dirty) for n in v.uses], v.producer and v.producer.dirty))
    v.name = name
    if v.producer is not None:
        v.producer.dirty = True
    for r in v.uses:
        r.dirty = True
        if r.graph is not None and r.graph is not v.graph:
            _touch(r.graph, journal)
        for b in r.bodies:
            if any(x is v for x in b.outputs):
                _touch(b, journal)


# inverse steps
def _set_bytes(editor: Editor, n: int) -> None:
    editor.bytes = n


def _move(g: Graph, n: Node, was: Any) -> None:
    g.unlink(n)
    g.link(n, was)


def _rewire(r: Node, ins: list[Value | None], a: Value, b: Value, k: int, dirty: bool) -> None:
    r.inputs = ins
    use(b, r, -k)
    use(a, r, k)
    r.dirty = dirty


def _output(g: Graph, outputs: list[Value], a: Value, b: Value) -> None:
    g.outputs[:] = outputs
    a.is_output, b.is_output = True, False


def _outputs(g: Graph, outputs: list[Value]) -> None:
    g.outputs[:] = outputs


def _unname(v: Value, name: str, dirty: list[tuple[Node, bool]], producer: bool | None) -> None:
    v.name = name
    if v.producer is not None and producer is not None:
        v.producer.dirty = producer
    for n, d in dirty:
        n.dirty = d


def _unfix(
    model: Model, g: Graph, inputs: list[Value], fixed: list[tuple[Value, Dims | None]], ir_version: int
) -> None:
    g.inputs[:] = inputs
    for v, dims in fixed:
        v.is_input, v.dims = True, dims
    model.proto.ir_version = ir_version


_ADOPTED = ("proto", "graph", "functions", "opsets", "names", "node_names")


def _set_versions(model: Model, opset: int, ir_version: int) -> None:
    model.opsets[""], model.proto.ir_version = opset, ir_version


def _restore(model: Model, was: dict[str, Any]) -> None:
    for k, x in was.items():
        setattr(model, k, x)


def _untouch(g: Graph) -> None:
    g.touched = False
