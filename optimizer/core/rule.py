"""A rule is an equation that a pass applies: a pattern, what it becomes, and how equal the two are.

    @rule(0.5 * x * (1 + op.Erf(x / SQRT2)))
    def gelu(op, x):
        \"\"\"½·x·(1 + erf(x/√2)) → Gelu\"\"\"
        return op.Gelu(x)

A pass runs its steps in order: neighbouring rules in one sweep, outermost root first, then again where edits touched; a
procedure, which is no pattern, by itself. It ends when a round changes nothing, so that a second run changes nothing.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any, Concatenate, Generic, NoReturn, ParamSpec, TypeVar

import numpy as np

from optimizer.core.edit import Editor, Evidence, Fidelity, Ops
from optimizer.core.errors import BadInput, ToolFailure
from optimizer.core.form import Decline
from optimizer.core.graph import Graph, Node, Value, anchor
from optimizer.core.pattern import (
    ALGEBRA,
    EPS,
    Algebra,
    Compiled,
    Match,
    Option,
    Pattern,
    Remainder,
    Signature,
    read_once,
    signature_of,
)
from optimizer.core.tensor import SPILL, Array

ROUNDS = 64  # each rule lowers its pass's potential, so a pass that takes longer is a bug
EDITS = 64  # of one sweep, per node it began with
P = ParamSpec("P")
R = TypeVar("R")
_MALFORMED = (
    ArithmeticError,
    ValueError,
    IndexError,
)  # what arrays of sizes that do not fit, or axes without rank, raise


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """An equation: where `pattern` is found, its root (and `also`) becomes what `function` makes.

    `equation` is the docstring's first line, `domain` says in words where it holds, `asks` are the names that
    `function` wants besides `op`, `keep` whether inner nodes may live on, `shape` why shapes agree where dims do not
    prove it.
    """

    name: str
    equation: str
    compiled: Compiled
    function: Callable[..., Any]
    asks: tuple[str, ...]
    fidelity: Fidelity
    domain: str
    where: Callable[[Match], bool] | None
    also: tuple[str, ...]
    keep: bool
    shape: str
    evidence: Evidence = Evidence.LAW


@dataclass(frozen=True, slots=True, eq=False)
class Procedure:
    """A change of a graph that is no pattern; `equation` is its promise, the docstring's first line."""

    name: str
    equation: str
    function: Callable[[Editor, Graph], None]
    fidelity: Fidelity
    domain: str = ""
    evidence: Evidence = Evidence.LAW


@dataclass(frozen=True, slots=True, eq=False)
class Planned(Generic[P, R]):
    """A change that a plan decides: called with an editor and the plan, it writes what the plan says."""

    name: str
    equation: str
    function: Callable[Concatenate[Editor, P], R]
    fidelity: Fidelity
    domain: str = ""
    evidence: Evidence = Evidence.LAW

    def __call__(self, editor: Editor, *args: P.args, **kwargs: P.kwargs) -> R:
        with editor.under(self.name, self.fidelity, self.evidence):
            return self.function(editor, *args, **kwargs)


Step = Rule | Procedure | Planned[Any, Any]


def rule(
    pattern: Pattern,
    *,
    fidelity: Fidelity = Fidelity.ROUNDING,
    domain: str = "",
    where: Callable[..., bool] | None = None,
    also: Sequence[str] = (),
    keep: bool = False,
    shape: str = "",
) -> Callable[[Callable[..., Any]], Rule]:
    """The decorated function makes what the pattern becomes.

    It receives `op` (`op.Name(…)` stages a node in the newest form) and the captured names among its parameters:
    Values, nodes, numbers, and constants as arrays, floating ones as float64 (float32 above 1 MiB); `root` is the
    replaced Value. It returns the new value, with `also` a tuple; None, or `decline("why")`, leaves all as it was.

    Args:
        pattern: algebra (`x * op.Sigmoid(x)`) matches any spelling, and so is never EXACT; `op.Name(…)` is the node.
        fidelity: how equal both sides are, on the `domain` (in words) where they are.
        where: asked inside the match, of captured names, so that a no tries the next alternative.
        also: names of inner values that live on, and that the function replaces as well.
        keep: inner nodes may live on; without it the edit is no profit unless all the others go.
        shape: why the shapes agree where that is not provable from dims.

    Raises:
        TypeError: the function has no docstring, or asks for what the pattern does not capture.
    """
    compiled = Compiled(pattern)

    def make(function: Callable[..., Any]) -> Rule:
        name = function.__name__
        if fidelity is Fidelity.EXACT and compiled.algebraic:
            raise TypeError(f"rule {name}: algebra reorders operations, so it is not exact; write op.Mul, op.Add, …")
        asks = _asks(function, compiled, name)[1:]
        accept = partial(_accepts, compiled, where, _asks(where, compiled, name)) if where is not None else None
        if missing := set(also) - compiled.names:
            raise TypeError(f"rule {name}: also={sorted(missing)[0]!r} is not captured by the pattern")
        return Rule(
            name, _equation(function), compiled, function, asks, fidelity, domain, accept, tuple(also), keep, shape
        )

    return make


def procedure(
    *, fidelity: Fidelity = Fidelity.EXACT, domain: str = ""
) -> Callable[[Callable[[Editor, Graph], None]], Procedure]:
    """The decorated `f(editor, graph)` changes one graph, through the editor; it is called for every graph."""

    def make(function: Callable[[Editor, Graph], None]) -> Procedure:
        return Procedure(function.__name__, _equation(function), function, fidelity, domain)

    return make


def planned(
    name: str, *, fidelity: Fidelity = Fidelity.LOSSY, domain: str = ""
) -> Callable[[Callable[Concatenate[Editor, P], R]], Planned[P, R]]:
    """The decorated `f(editor, plan)` writes a plan; its verb makes the plan, so a recipe cannot call it."""

    def make(function: Callable[Concatenate[Editor, P], R]) -> Planned[P, R]:
        return Planned(name, _equation(function), function, fidelity, domain)

    return make


def decline(why: str) -> NoReturn:
    """Leave the rule without an edit; `why` is counted as a near miss.

    Raises:
        Decline: always.
    """
    raise Decline(why)


def _equation(function: Callable[..., Any]) -> str:
    if not function.__doc__:
        raise TypeError(f"{function.__name__} has no docstring: its first line is the equation")
    return function.__doc__.strip().partition("\n")[0]


def _asks(function: Callable[..., Any], compiled: Compiled, name: str) -> tuple[str, ...]:
    """The parameters that the match fills; those it does not know must have defaults."""
    given = {"op", "root", *compiled.names}
    code, defaults = function.__code__, function.__defaults__ or ()
    positional, named = code.co_argcount, code.co_kwonlyargcount
    optional = {*code.co_varnames[positional - len(defaults) : positional], *(function.__kwdefaults__ or ())}
    out: list[str] = []
    for parameter in code.co_varnames[: positional + named]:
        if parameter in given:
            out.append(parameter)
        elif parameter not in optional:
            raise TypeError(f"rule {name}: {parameter!r} is not captured by the pattern")
    return tuple(out)


def _accepts(compiled: Compiled, where: Callable[..., bool], asks: tuple[str, ...], m: Match) -> bool:
    try:
        return bool(where(**{a: _argument(compiled, m, a) for a in asks}))
    except _MALFORMED:
        return False


def _argument(compiled: Compiled, m: Match, name: str) -> Any:
    if name == "root":
        return m.root
    x = m.captured.get(name)
    return _array(x) if isinstance(x, Value) and name in compiled.constants else x


def _array(v: Value) -> Array:
    """The constant's data; floats as float64, where that is larger than 1 MiB as float32."""
    t = v.tensor
    assert t is not None
    x = t.numpy()
    if t.dtype not in EPS:
        return x
    return x.astype(np.float64 if t.nbytes <= SPILL else np.result_type(np.float32, x.dtype), copy=False)


# ── rewriting ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def rewrite(editor: Editor, rules: Sequence[Rule], reader: str = "") -> int:
    """One sweep over every graph, from the outputs back, then over what edits touched; the number of edits.

    A named `reader` who comes again sees only what edits touched since, and what lies within reach of the rules behind
    it; it must bring the same rules.

    Raises:
        ToolFailure: the rules undo each other's work without end.
    """
    model = editor.model
    since = editor.mark(reader) if reader else None
    seen = len(editor.touched)
    if since == seen:
        return 0  # it has seen everything
    present = {n.op for n in model.nodes() if not n.domain}
    rules = [r for r in rules if r.compiled.needs <= present]
    options: dict[str, list[tuple[Rule, Option]]] = {}  # by the operator of the root
    for r in rules:
        for option in r.compiled.options:
            for name in option.roots & present:
                options.setdefault(name, []).append((r, option))
    if not options:
        return 0
    reach = max(r.compiled.depth for r in rules)
    admitted: dict[Signature, list[tuple[Rule, Option]]] = {}
    algebra = Algebra()
    start = len(editor.log)
    limit = EDITS * (100 + sum(len(g) for g in model.graphs()))
    for n, distance in _walk(editor, since, reach):
        if n.op not in options or n.domain:
            continue
        root = n.outputs[0]
        if not root.uses and not root.is_output:
            continue  # dead: nothing would be replaced
        signature = signature_of(n)
        candidates = admitted.get(signature)
        if candidates is None:
            candidates = admitted[signature] = [(r, o) for r, o in options[n.op] if o.admits(signature)]
        for r, option in candidates:
            if r.compiled.depth < distance:
                continue  # what was touched is too far away for it to see
            m = option.match(root, algebra, r.where)
            if m is not None and _apply(editor, r, m):
                algebra.clear()
                break
        if len(editor.log) - start > limit:
            _never_settles(editor, start)
    if reader and all(n.op in present for n in editor.touched[seen:]):  # else a rule left out above may have its turn
        editor.mark(reader)
    return len(editor.log) - start


def _walk(editor: Editor, since: int | None, reach: int) -> Iterator[tuple[Node, int]]:
    """Outermost roots first (LayerNorm before the RMSNorm inside it), then what edits touched and what lies behind.

    With each node, how far before it the nearest touched one lies.
    """
    model, at = editor.model, len(editor.touched) if since is None else since
    if since is None:
        for g in list(model.graphs()):
            if g.owner is None or anchor(g.owner, model.graph) is not None:
                for n in reversed(g):
                    yield n, 0
    while at < len(editor.touched):
        news = _behind(editor.touched[at:], reach)
        at = len(editor.touched)
        for n, left in news:
            if n.graph is not None and (n.graph is model.graph or anchor(n, model.graph) is not None):
                yield n, reach - left


def _behind(nodes: Sequence[Node], reach: int) -> list[tuple[Node, int]]:
    """These nodes and those up to `reach` readers behind them, the outermost first, with what is left of the reach.

    A product or sum is one reader.
    """
    left = dict.fromkeys(nodes, reach)
    todo = deque(left)
    while todo:
        n = todo.popleft()
        own = left[n]
        for o in n.outputs:
            inner = read_once(o)
            for u in o.uses:
                steps = own if inner and u.op in ALGEBRA else own - 1
                if steps > left.get(u, -1):
                    left[u] = steps
                    todo.append(u)
    return sorted(left.items(), key=lambda item: -item[0].pos)


def _apply(editor: Editor, r: Rule, m: Match) -> bool:
    """Replace the match by what the rule makes of it; False if it, or the editor, declines."""
    with editor.under(r.name, r.fidelity, r.evidence):
        try:
            made = r.function(editor.op, **{a: _argument(r.compiled, m, a) for a in r.asks})
            if made is None:
                return editor.no("declined")
            new = list(made) if isinstance(made, tuple) else [made]
            if m.remainder is not None:
                new[0] = _put_back(editor.op, new[0], m.remainder)
        except Decline as e:
            return editor.no(str(e))
        except _MALFORMED as e:
            return editor.no(f"the model is malformed, or the rule wrong: {e}")
        old = [m.root, *(_value(m.captured[a]) for a in r.also)]
        inner = () if r.keep else [n for n in m.inner if n.outputs[0] not in old]
        return editor.replace(old, new, must_go=inner, shape=r.shape)


def _value(x: Value | Node) -> Value:
    return x if isinstance(x, Value) else x.output


def _put_back(op: Ops, y: Any, left: Remainder) -> Any:
    """y with the factors, or terms, of the root that the pattern does not speak of."""
    for v, e in left.items:
        if not left.product:
            y = op.Add(y, v) if e > 0 else op.Sub(y, v)
            continue
        if abs(e) == 0.5:
            v = op.Sqrt(v)
        elif e != int(e) or abs(e) > 3:
            v, e = op.Pow(v, np.asarray(e)), 1
        for _ in range(max(1, abs(int(e)))):
            y = op.Mul(y, v) if e > 0 else op.Div(y, v)
    if left.constant == (1.0 if left.product else 0.0):
        return y
    if left.product:
        return op.Neg(y) if left.constant == -1 else op.Mul(y, left.constant)
    return op.Add(y, left.constant)


def _never_settles(editor: Editor, start: int) -> NoReturn:
    names = Counter(e.rule for e in editor.log[start:][-200:]).most_common(3)
    raise ToolFailure(
        "the rules never settle: each goes on changing what another made",
        at=f"rule {', '.join(name for name, _ in names)}",
        fix="leave one out with --without RULE; if it is not your own, please report it",
    )


# ── passes ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, eq=False)
class Pass:
    """Rules and procedures, in order."""

    name: str
    steps: tuple[Step, ...]
    doc: str = ""

    def run(self, editor: Editor, *, without: Collection[str] = ()) -> int:
        """Apply the steps to every graph until a round changes nothing; the number of edits.

        Args:
            without: names of steps to leave out.

        Raises:
            BadInput: a step writes a plan, which only its verb makes.
            ToolFailure: the steps never settle.
        """
        start = len(editor.log)
        steps = [s for s in self.steps if s.name not in without]
        if any(isinstance(s, Planned) for s in steps):
            raise BadInput(
                f"the pass {self.name!r} writes a plan, and a list of passes makes none",
                fix=f"graphwright {self.name} makes one and writes it",
            )
        for _ in range(ROUNDS):
            before = len(editor.log)
            for at, (is_rule, group) in enumerate(groupby(steps, lambda s: isinstance(s, Rule))):
                if is_rule:
                    rewrite(editor, [s for s in group if isinstance(s, Rule)], f"{self.name}:{at}")
                else:
                    for s in group:
                        _proceed(editor, s)
            if len(editor.log) == before:
                return len(editor.log) - start
        _never_settles(editor, start)


def _proceed(editor: Editor, s: Step) -> None:
    assert isinstance(s, Procedure)
    with editor.under(s.name, s.fidelity, s.evidence):
        for g in list(editor.model.graphs()):
            s.function(editor, g)
