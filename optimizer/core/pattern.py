"""Patterns are equations: operators are algebra, `op.Name(…)` is the node itself.

A product is k · Π factorᵉ and a sum is c + Σ ± term, in the pattern and in the graph: however Mul, Div, Reciprocal,
Sqrt, Pow, Neg, Add, Sub and Sum of floats spell them, in any order and association. One object is one graph value.

    x, = values("x")
    0.5 * x * (1 + op.Erf(x / SQRT2))                 # any spelling of Gelu
    op.Transpose(op.Transpose(x, perm=p), perm=q)     # exactly these nodes; p and q capture attributes

An attribute that a node spells and its pattern does not name must have its default; `name=` captures the node and lifts
that, for the rule then sees to the attributes itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, NamedTuple

from onnx import AttributeProto

from optimizer.core import facts, form
from optimizer.core.graph import Attribute, Node, Value

# ── notation ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class Pattern:
    """What a graph value may be."""

    __slots__ = ()

    def __mul__(self, other: Pattern | float) -> Pattern:
        return _chain(Product, (self, 1), (other, 1))

    def __rmul__(self, other: float) -> Pattern:
        return _chain(Product, (other, 1), (self, 1))

    def __truediv__(self, other: Pattern | float) -> Pattern:
        return _chain(Product, (self, 1), (other, -1))

    def __rtruediv__(self, other: float) -> Pattern:
        return _chain(Product, (other, 1), (self, -1))

    def __pow__(self, exponent: float) -> Pattern:
        return _chain(Product, (self, exponent))

    def __neg__(self) -> Pattern:
        return _chain(Product, (-1.0, 1), (self, 1))

    def __add__(self, other: Pattern | float) -> Pattern:
        return _chain(Sum, (self, 1), (other, 1))

    def __radd__(self, other: float) -> Pattern:
        return _chain(Sum, (other, 1), (self, 1))

    def __sub__(self, other: Pattern | float) -> Pattern:
        return _chain(Sum, (self, 1), (other, -1))

    def __rsub__(self, other: float) -> Pattern:
        return _chain(Sum, (other, 1), (self, -1))

    def __or__(self, other: Pattern | float) -> Pattern:
        return Either((self, _lift(other)))

    def __ror__(self, other: float) -> Pattern:
        return Either((_lift(other), self))


@dataclass(eq=False)
class Anything(Pattern):
    """Any value; as an attribute, any attribute."""

    name: str


@dataclass(eq=False)
class Constant(Pattern):
    """Any constant; rules receive its array."""

    name: str


@dataclass(eq=False)
class Scalar(Pattern):
    """One constant number of any one-element shape; in a product its coefficient, in a sum its constant term."""

    name: str


@dataclass(eq=False)
class Rest(Pattern):
    """The other factors of a product with their exponents, or terms of a sum with their signs; None without any."""

    name: str


@dataclass(eq=False)
class Literal(Pattern):
    """This number, to the last place of the stored dtype and within `tolerance` (relative); zero exactly."""

    number: float
    tolerance: float = 0.0


@dataclass(eq=False)
class Optional(Pattern):
    """An operand that may be left out; what it captures is None then."""

    pattern: Pattern


@dataclass(eq=False)
class Either(Pattern):
    """The first of these that fits."""

    options: tuple[Pattern, ...]


@dataclass(eq=False)
class Let(Pattern):
    """A value of its own with a name: products and sums around it do not look inside."""

    name: str
    pattern: Pattern


@dataclass(eq=False)
class Call(Pattern):
    """A node of ai.onnx by its first output, operands and attributes as the newest opset has them."""

    op: str
    operands: tuple[Pattern, ...]
    attributes: dict[str, Any]
    name: str | None


@dataclass(eq=False)
class Chain(Pattern):
    """k·Πxᵉ or c+Σ±x: `constant`, and `parts` with exponents or signs.

    `tolerance` of the constant is relative in a product, absolute in a sum.
    """

    constant: float
    tolerance: float
    parts: tuple[tuple[Pattern, float], ...]
    scalar: Scalar | None
    rest: Rest | None


class Product(Chain):
    __slots__ = ()


class Sum(Chain):
    __slots__ = ()


Part = tuple["Pattern | float", float]


def _chain(kind: type[Chain], *given: Part) -> Pattern:
    """Σ or Π of the parts in normal form; an alternative that is such a chain itself is multiplied out."""
    for i, (p, e) in enumerate(given):
        if isinstance(p, Either) and e == int(e) and any(isinstance(o, kind) for o in p.options):
            return Either(tuple(_chain(kind, *given[:i], (o, e), *given[i + 1 :]) for o in p.options))
    product = kind is Product
    constant, tolerance = (1.0, 0.0) if product else (0.0, 0.0)
    scalar: Scalar | None = None
    rest: Rest | None = None
    parts: list[tuple[Pattern, float]] = []
    for p, e in given:
        p = _lift(p)
        if isinstance(p, Literal):
            number, spread, inner = p.number, p.tolerance if product else abs(p.number) * p.tolerance, ()
        elif isinstance(p, kind) and e == int(e):
            number, spread, inner = p.constant, p.tolerance, p.parts
            if (p.scalar is not None or p.rest is not None) and e != 1:
                raise TypeError("a scalar or the rest of a product or sum cannot be inverted")
            scalar, rest = scalar or p.scalar, rest or p.rest
        elif isinstance(p, (Scalar, Rest)):
            if e != 1:
                raise TypeError("a scalar or the rest of a product or sum cannot be inverted")
            scalar, rest = (p, rest) if isinstance(p, Scalar) else (scalar, p)
            continue
        else:
            parts.append((p, e))
            continue
        constant = constant * number**e if product else constant + number * e
        tolerance += spread * abs(e)
        parts += [(q, f * e) for q, f in inner]
    merged: dict[Pattern, float] = {}
    for p, e in parts:
        merged[p] = merged.get(p, 0) + e
    return kind(constant, tolerance, tuple(merged.items()), scalar, rest)


def _lift(x: Pattern | float) -> Pattern:
    return x if isinstance(x, Pattern) else Literal(x)


def values(names: str) -> tuple[Anything, ...]:
    """One pattern a name, each for any value: `x, y = values("x y")`."""
    return tuple(map(Anything, names.split()))


def const(names: str) -> Any:
    """One pattern a name, each for any constant: a tuple, or the one pattern if there is one name."""
    out = tuple(map(Constant, names.split()))
    return out[0] if len(out) == 1 else out


def scalar(name: str) -> Scalar:
    """One constant number of any one-element shape; in a product its coefficient (1), in a sum its constant (0)."""
    return Scalar(name)


def rest(name: str) -> Rest:
    """The other factors or terms, as [(Value, exponent or sign), …], or None."""
    return Rest(name)


def optional(pattern: Pattern) -> Optional:
    """An operand that may be left out."""
    return Optional(pattern)


def approx(number: float, tolerance: float) -> Literal:
    """A number that papers and exporters round: equal within a relative tolerance."""
    return Literal(number, tolerance)


def let(name: str, pattern: Pattern) -> Let:
    """A value with a name, which products and sums do not look into; `also=` may name it."""
    return Let(name, pattern)


def stash(pattern: Pattern) -> Pattern:
    """The value, or a Cast of it."""
    return pattern | op.Cast(pattern, to=...)


class Ops:
    """`op.Name(operands, attribute=…, name="node")`; an attribute is a value, a pattern to capture it, or `...`."""

    def __getattr__(self, op_type: str) -> Callable[..., Call]:
        def make(*operands: Pattern | float, name: str | None = None, **attributes: Any) -> Call:
            return Call(op_type, tuple(map(_lift, operands)), attributes, name)

        return make


op = Ops()


# ── normal forms of the graph ─────────────────────────────────────────────────────────────────────────────────────────

EPS = {1: 2.0**-23, 10: 2.0**-10, 11: 2.0**-52, 16: 2.0**-7}  # last place of float, float16, double, bfloat16
INTEGERS = frozenset((2, 3, 4, 5, 6, 7, 12, 13))
_SLACK = 2.0**-50  # of arithmetic on Python floats
_LIMIT = 32  # nodes of one product or sum: longer ones are cut, so that a sweep stays linear
_SMALL = 4096  # elements up to which two constants are compared

_PRODUCT = frozenset(("Mul", "Div", "Reciprocal", "Sqrt", "Pow", "Neg"))
_SUM = frozenset(("Add", "Sub", "Sum", "Neg"))
ALGEBRA = _PRODUCT | _SUM


def number(v: Value | None) -> float | int | None:
    """The one number of a numeric one-element constant, of any shape."""
    t = None if v is None or v.is_input else v.tensor
    if t is None or t.size != 1:
        return None
    if t.dtype in EPS:
        return float(t.numpy().item())
    return int(t.numpy().item()) if t.dtype in INTEGERS else None


class Normal(NamedTuple):
    """A product k·Πxᵉ or a sum c+Σ±x, the nodes that spell it, and the operators that make its items."""

    constant: float
    tolerance: float
    items: list[tuple[Value, float]]
    nodes: list[Node]
    makers: frozenset[str]


class Algebra:
    """Normal forms of float values, kept until the graph changes; only values read once are looked through."""

    def __init__(self) -> None:
        self._products: dict[Value, Normal] = {}
        self._sums: dict[Value, Normal] = {}

    def clear(self) -> None:
        """Forget: the graph has changed."""
        self._products.clear()
        self._sums.clear()

    def product(self, root: Value) -> Normal:
        found = self._products.get(root)
        if found is not None:
            return found
        k, tolerance = 1.0, 0.0
        factors: dict[Value, float] = {}
        nodes: list[Node] = []
        stack: list[tuple[Value, float]] = [(root, 1)]
        while stack:
            v, e = stack.pop()
            c = number(v) if v.tensor is not None else None
            if c:
                try:
                    k *= c**e
                    tolerance += EPS[v.dtype] * abs(e)
                    continue
                except OverflowError:
                    pass
            n = v.producer
            if n is not None and n.op in _PRODUCT and not n.domain and (v is root or _passable(v, root, nodes)):
                a, b = n.inputs[0], n.inputs[1] if len(n.inputs) > 1 else None
                assert a is not None
                if n.op in ("Mul", "Div"):
                    assert b is not None
                    stack += ((b, e if n.op == "Mul" else -e), (a, e))
                elif n.op == "Reciprocal":
                    stack.append((a, -e))
                elif n.op == "Neg":
                    stack.append((a, e))
                    k = -k if e % 2 else k
                else:
                    power = 0.5 if n.op == "Sqrt" else number(b)
                    if power is None or not math.isfinite(power * e) or (power != int(power) and abs(e) != 1):
                        factors[v] = factors.get(v, 0) + e
                        continue
                    if power == int(power):
                        stack.append((a, power * e))
                    else:  # √(a·b) is √a·√b only where both are positive: not looked into
                        factors[a] = factors.get(a, 0) + power * e
                nodes.append(n)
                continue
            factors[v] = factors.get(v, 0) + e
        if not k or not math.isfinite(k):
            k, tolerance, factors, nodes = 1.0, 0.0, {root: 1.0}, []
        out = self._products[root] = _normal(k, tolerance, [(v, e) for v, e in factors.items() if e], nodes)
        return out

    def sum(self, root: Value) -> Normal:
        found = self._sums.get(root)
        if found is not None:
            return found
        c, tolerance = 0.0, 0.0
        terms: list[tuple[Value, float]] = []
        nodes: list[Node] = []
        stack: list[tuple[Value, float]] = [(root, 1)]
        while stack:
            v, sign = stack.pop()
            x = number(v) if v.tensor is not None else None
            if x is not None and math.isfinite(x):
                c += sign * x
                tolerance += EPS[v.dtype] * abs(x)
                continue
            n = v.producer
            if n is not None and n.op in _SUM and not n.domain and (v is root or _passable(v, root, nodes)):
                nodes.append(n)
                first, *others = (x for x in n.inputs if x is not None)
                flip = -sign if n.op == "Sub" else sign
                stack += [(x, flip) for x in reversed(others)]
                stack.append((first, -sign if n.op == "Neg" else sign))
                continue
            terms.append((v, sign))
        if not math.isfinite(c):
            c, tolerance, terms, nodes = 0.0, 0.0, [(root, 1.0)], []
        out = self._sums[root] = _normal(c, tolerance, terms, nodes)
        return out


def _passable(v: Value, root: Value, nodes: list[Node]) -> bool:
    """Whether v is an inner value of the chain: read once, in the same graph."""
    return read_once(v) and v.graph is root.graph and len(nodes) < _LIMIT


def read_once(v: Value) -> bool:
    """Whether one operand of one node is all that reads v."""
    return len(v.uses) == 1 and not v.is_output and next(iter(v.uses.values())) == 1


def _normal(constant: float, tolerance: float, items: list[tuple[Value, float]], nodes: list[Node]) -> Normal:
    makers = frozenset(v.producer.op for v, _ in items if v.producer is not None)
    return Normal(constant, tolerance, items, nodes, makers)


# ── matching ──────────────────────────────────────────────────────────────────────────────────────────────────────────

Then = Callable[[], bool]  # what is left to match: True accepts, False asks for the next alternative


@dataclass(frozen=True, slots=True)
class Remainder:
    """What of the root's product or sum the pattern does not speak of."""

    product: bool
    constant: float
    items: list[tuple[Value, float]]


class Match:
    """What names stand for at one root; `inner` are the nodes covered, `remainder` is what must be put back."""

    __slots__ = ("algebra", "bound", "captured", "inner", "remainder", "root")

    def __init__(self, root: Value, algebra: Algebra) -> None:
        self.root, self.algebra = root, algebra
        self.bound: dict[int, Any] = {}  # by id of the pattern
        self.captured: dict[str, Any] = {}
        self.inner: dict[Node, None] = {}
        self.remainder: Remainder | None = None

    def cover(self, nodes: Iterable[Node], then: Then) -> bool:
        """Go on with these nodes covered."""
        new = [n for n in nodes if n not in self.inner]
        self.inner.update(dict.fromkeys(new))
        if then():
            return True
        for n in new:
            del self.inner[n]
        return False

    def capture(self, name: str, x: object, then: Then) -> bool:
        """Go on with `name` standing for x."""
        self.captured[name] = x
        if then():
            return True
        del self.captured[name]
        return False

    def bind(self, pattern: Anything | Constant | Scalar | Rest, x: Any, then: Then) -> bool:
        """Go on with the pattern standing for x, if it does not stand for something else already."""
        key = id(pattern)
        if key in self.bound:
            known = self.bound[key]
            return (known is x or _equal(known, x)) and then()
        self.bound[key] = x
        if self.capture(pattern.name, x, then):
            return True
        del self.bound[key]
        return False


Matcher = Callable[["Value | None", Match, Then], bool]


class Compiled:
    """A pattern as closures.

    `roots` are the operators its root may be, `needs` those without which a graph has no match, `names` what it
    captures, `constants` the names of arrays among them, `algebraic` whether products or sums occur, `depth` how many
    nodes lie between the root and what it looks at (a product or a sum is one).

    Raises:
        TypeError: the root is neither a node nor algebra, or a name stands for two things.
    """

    def __init__(self, pattern: Pattern) -> None:
        self.needs = _needs(pattern)
        self.depth = _depth(pattern)
        every = _distinct(pattern)
        self.algebraic = any(isinstance(p, Chain) for p in every)
        names: dict[str, Pattern] = {}
        for p in every:
            if not isinstance(p, (Anything, Constant, Scalar, Rest, Let, Call)) or p.name is None:
                continue
            other = names.setdefault(p.name, p)
            if other is not p and not (isinstance(other, Call) and isinstance(p, Call)):
                raise TypeError(f"the name {p.name!r} stands for two things in one pattern")
        self.names = frozenset(names)
        self.constants = frozenset(name for name, p in names.items() if isinstance(p, Constant))
        self.options = tuple(Option(p) for p in _options(pattern))
        self.roots = frozenset[str]().union(*(o.roots for o in self.options))

    def match(self, root: Value, algebra: Algebra, where: Callable[[Match], bool] | None = None) -> Match | None:
        """The first match at `root` that `where` accepts."""
        assert root.producer is not None
        signature = signature_of(root.producer)
        for option in self.options:
            if option.admits(signature) and (m := option.match(root, algebra, where)) is not None:
                return m
        return None


Signature = tuple[str, ...]  # an operator and what each of its operands is


def signature_of(node: Node) -> Signature:
    """The node's operator, and of each operand: its maker's, `#1` a constant of one element, `#` any other, else ``."""
    kinds = [node.op]
    for v in node.inputs:
        if v is None:
            kinds.append("")
        elif v.producer is not None:
            kinds.append(v.producer.op)
        elif v.tensor is None or v.is_input:
            kinds.append("")
        else:
            kinds.append("#1" if math.prod(v.tensor.shape) == 1 else "#")
    return tuple(kinds)


class Option:
    """One alternative at the root of a pattern, and the operators that its root may be; compiled at its first match."""

    __slots__ = ("_compiled", "pattern", "roots")

    def __init__(self, pattern: Pattern) -> None:
        self.pattern, self.roots = pattern, _roots(pattern)
        self._compiled: tuple[Check, Matcher] | None = None

    def admits(self, signature: Signature) -> bool:
        """Whether a node of this signature may match: asked once a signature, for most nodes fail by it."""
        op, *kinds = signature
        if op not in self.roots:
            return False
        p = self.pattern
        while isinstance(p, Let):
            p = p.pattern
        if not isinstance(p, Call):
            return True
        wanted = p.operands[:1] if op in form.MOVED else p.operands
        if len(wanted) == len(p.operands) == 2 and op in facts.COMMUTATIVE:
            return _all_admit(wanted, kinds) or _all_admit(wanted, kinds[::-1])
        return _all_admit(wanted, kinds)

    def match(self, root: Value, algebra: Algebra, where: Callable[[Match], bool] | None = None) -> Match | None:
        """The first match at `root`, whose node has an admitted signature, that `where` accepts."""
        if self._compiled is None:
            self._compiled = _possible(self.pattern) or _anything, _compile(self.pattern, True)
        possible, matcher = self._compiled
        if not possible(root):
            return None
        m = Match(root, algebra)
        return m if matcher(root, m, _accept if where is None else partial(where, m)) else None


def _all_admit(patterns: Iterable[Pattern], kinds: Sequence[str]) -> bool:
    return all(_admits(p, kinds[i] if i < len(kinds) else "") for i, p in enumerate(patterns))


def _admits(p: Pattern, kind: str) -> bool:
    """Whether a value of this kind may be what the pattern speaks of."""
    if isinstance(p, Let):
        return _admits(p.pattern, kind)
    if isinstance(p, Constant):
        return kind.startswith("#")
    if isinstance(p, Scalar | Literal):
        return kind == "#1"
    if isinstance(p, Either):
        return any(_admits(o, kind) for o in p.options)
    heads = _heads(p)
    return heads is None or kind in heads


Check = Callable[["Value | None"], bool]


def _options(p: Pattern) -> Iterator[Pattern]:
    """The alternatives at the root."""
    if isinstance(p, Either):
        for o in p.options:
            yield from _options(o)
    else:
        yield p


def _anything(v: Value | None) -> bool:
    return True


def _accept() -> bool:
    return True


def _possible(p: Pattern) -> Check | None:
    """A cheap necessary condition of a match: the operators, and where constants stand; None: nothing can be said.

    Most roots fail here, before anything is captured.
    """
    if isinstance(p, Let):
        return _possible(p.pattern)
    if isinstance(p, Constant):
        return lambda v: v is not None and v.is_const
    if isinstance(p, Scalar | Literal):
        return lambda v: v is not None and v.is_const and v.tensor is not None and v.tensor.size == 1
    if isinstance(p, Either):
        options = [_possible(o) for o in p.options]
        known = [o for o in options if o is not None]
        return (lambda v: any(o(v) for o in known)) if len(known) == len(options) else None
    if isinstance(p, Chain):
        heads = _heads(p)
        if heads is None:
            return None
        return lambda v: v is not None and v.producer is not None and v.producer.op in heads
    if not isinstance(p, Call):
        return None
    op = p.op
    checks = [(i, c) for i, a in enumerate(p.operands) if (c := _possible(a)) is not None]
    if not checks or (op in form.MOVED and checks[0][0]):
        return lambda v: v is not None and v.producer is not None and v.producer.op == op
    if op in form.MOVED:
        checks = checks[:1]
    swap = len(p.operands) == 2 and op in facts.COMMUTATIVE

    def possible(v: Value | None) -> bool:
        n = v.producer if v is not None else None
        if n is None or n.op != op:
            return False
        ins = n.inputs
        for i, check in checks:
            if i >= len(ins) or not check(ins[i]):
                break
        else:
            return True
        return swap and len(ins) == 2 and all(check(ins[1 - i]) for i, check in checks)

    return possible


@cache
def _depth(p: Pattern) -> int:
    own = 1 if isinstance(p, Call | Chain) else 0
    return own + max(map(_depth, _children(p)), default=0)


def _equal(a: Any, b: Any) -> bool:
    """Constants are equal by content, if they are small; numbers and lists as they are."""
    if not isinstance(a, Value) or not isinstance(b, Value):
        return type(a) is type(b) and not isinstance(a, Value) and a == b
    x, y = a.tensor, b.tensor
    if x is None or y is None or a.is_input or b.is_input:
        return False
    return x.dtype == y.dtype and x.shape == y.shape and x.size <= _SMALL and bool((x.numpy() == y.numpy()).all())


def _compile(p: Pattern, root: bool = False) -> Matcher:
    if isinstance(p, Anything):
        return lambda v, m, then: v is not None and m.bind(p, v, then)
    if isinstance(p, Constant):
        return lambda v, m, then: v is not None and v.is_const and m.bind(p, v, then)
    if isinstance(p, Scalar):
        return lambda v, m, then: (c := number(v)) is not None and m.bind(p, c, then)
    if isinstance(p, Literal):
        return _literal(p)
    if isinstance(p, Optional):
        inner = _compile(p.pattern)
        return lambda v, m, then: then() if v is None else inner(v, m, then)
    if isinstance(p, Either):
        options = [_compile(o, root) for o in p.options]
        return _once(p, lambda v, m, then: any(o(v, m, then) for o in options))
    if isinstance(p, Let):
        name, named = p.name, _compile(p.pattern, root)
        return _once(p, lambda v, m, then: named(v, m, partial(m.capture, name, v, then)))
    if isinstance(p, Call):
        return _once(p, _call(p))
    if isinstance(p, Chain):
        return _once(p, _terms(p, root))
    raise TypeError(f"{p} stands for no value by itself: it belongs into a product or a sum")


def _once(p: Pattern, matcher: Matcher) -> Matcher:
    """One Python object is one graph value, or equal small constants."""
    key = id(p)

    def match(v: Value | None, m: Match, then: Then) -> bool:
        bound = m.bound
        if key in bound:
            known = bound[key]
            return (known is v or _equal(known, v)) and then()
        bound[key] = v
        if matcher(v, m, then):
            return True
        del bound[key]
        return False

    return match


def _literal(p: Literal) -> Matcher:
    want, tolerance = p.number, p.tolerance

    def match(v: Value | None, m: Match, then: Then) -> bool:
        c = number(v)
        if c is None or v is None:
            return False
        return abs(c - want) <= (EPS.get(v.dtype, 0.0) + tolerance) * abs(want) and then()

    return match


def _call(p: Call) -> Matcher:
    op, name = p.op, p.name
    operands = [_compile(a) for a in p.operands]
    count = len(operands)
    least = max((i + 1 for i, a in enumerate(p.operands) if not isinstance(a, Optional)), default=0)
    swap = count == 2 and op in facts.COMMUTATIVE
    attributes = _attributes(p)

    def match(v: Value | None, m: Match, then: Then) -> bool:
        n = v.producer if v is not None else None
        if n is None or n.op != op or n.domain or n.outputs[0] is not v or n.bodies:
            return False
        ins = form.operands(n)
        given = len(ins)
        while given and ins[given - 1] is None:
            given -= 1
        if not least <= given <= count:
            return False
        taken = attributes(n)
        if taken is None:
            return False

        def operand(i: int, ins: list[Value | None]) -> bool:
            if i == count:
                return then() if name is None else m.capture(name, n, then)
            return operands[i](ins[i] if i < given else None, m, partial(operand, i + 1, ins))

        def inputs() -> bool:
            return operand(0, ins) or (swap and operand(0, ins[1::-1]))

        go: Then = partial(m.cover, (n,), inputs)
        for pattern, x in taken:
            go = partial(m.bind, pattern, x, go)
        return go()

    return match


_MEANINGLESS = frozenset(("momentum",))  # of BatchNormalization: only training reads it
_FLATTENING = frozenset(("Softmax", "LogSoftmax", "Hardmax"))  # before opset 13 over all axes from `axis` on

Taken = list[tuple[Any, Attribute]]


def _attributes(p: Call) -> Callable[[Node], Taken | None]:
    """None if an attribute is not as wanted, else the attributes to capture."""
    op, wanted, named = p.op, p.attributes, p.name is not None
    moved = {name for _, name, _ in form.MOVED.get(op, ())}

    def check(n: Node) -> Taken | None:
        spelled = n.attributes
        if spelled and any(isinstance(a, AttributeProto) for a in spelled.values()):
            return None
        opset = n.graph.opset if n.graph is not None else form.newest()
        if op == "Resize" and opset < 11:  # other operands, and other coordinates
            return None
        if op in _FLATTENING and opset < 13:
            rank = _rank(n)
            if rank is None or (form.attribute(n, "axis") or 0) % rank != rank - 1:
                return None
        taken: Taken = []
        for a, want in wanted.items():
            if want is ...:
                continue
            x = form.attribute(n, a)
            if a == "axis":
                x, want = _axis(n, x), _axis(n, want)
            if isinstance(want, Pattern):
                taken.append((want, x))
            elif isinstance(want, float) and isinstance(x, float):
                if abs(x - want) > EPS[1] * abs(want):
                    return None
            elif x != want:
                return None
        if not named:
            for a, x in spelled.items():
                if a in wanted or a in moved or a in _MEANINGLESS:
                    continue
                if x != form.defaults(op, opset, "").get(a):
                    return None
        return taken

    return check


def _axis(n: Node, axis: Any) -> Any:
    """The axis modulo the rank; one that counts in the output, or may be the rank itself, only if it is negative."""
    rank = _rank(n)
    if not isinstance(axis, int) or rank is None or n.op == "OneHot":
        return axis
    return axis + rank if axis < 0 else axis


def _rank(n: Node) -> int | None:
    x = n.inputs[0] if n.inputs else None
    return None if x is None or x.dims is None else len(x.dims)


def _terms(p: Chain, root: bool) -> Matcher:
    """Σ or Π: each part takes an item of its sign or exponent, the most specific first."""
    product = isinstance(p, Product)
    unit = 1.0 if product else 0.0
    parts = sorted(p.parts, key=lambda part: _generality(part[0]))
    matchers = [_part(q, e, product) for q, e in parts]
    count = len(parts)
    heads = [h for q, _ in parts if (h := _heads(q)) is not None]
    constant, scalar, rest = p.constant, p.scalar, p.rest
    splits = product and (root or rest is not None)

    def match(v: Value | None, m: Match, then: Then) -> bool:
        if v is None or v.dtype not in EPS:
            return False
        normal = m.algebra.product(v) if product else m.algebra.sum(v)
        if len(normal.items) < count:
            return False
        for h in heads:
            if h.isdisjoint(normal.makers):
                return False
        loose = root and v is m.root
        tolerance = p.tolerance + normal.tolerance
        left = normal.constant / constant if product else normal.constant - constant
        if scalar is None:
            if abs(normal.constant - constant) <= ((tolerance + _SLACK) * abs(constant) if product else tolerance):
                left = unit
            elif not loose:
                return False

        def done(items: list[tuple[Value, float]]) -> bool:
            go = then
            if rest is not None:
                go, items = partial(m.bind, rest, items or None, go), []
            if scalar is not None:
                go = partial(m.bind, scalar, left, go)
            over = unit if scalar is not None else left
            if not items and over == unit:
                return go()
            if not loose:
                return False
            m.remainder = Remainder(product, over, items)
            return go()

        def assign(i: int, items: list[tuple[Value, float]]) -> bool:
            if i == count:
                return done(items)
            for j, (x, e) in enumerate(items):
                matcher = matchers[i](e)
                left_over = items[:j] + items[j + 1 :]
                if matcher is None and splits:  # x² holds a factor x
                    matcher, want = matchers[i](parts[i][1]), parts[i][1]
                    if matcher is None or want not in (1, -1) or e != int(e) or e * want <= 1:
                        continue
                    left_over = [*items[:j], (x, e - want), *items[j + 1 :]]
                if matcher is not None and matcher(x, m, partial(assign, i + 1, left_over)):
                    return True
            return False

        return m.cover(normal.nodes, partial(assign, 0, normal.items))

    return match


def _part(q: Pattern, want: float, product: bool) -> Callable[[float], Matcher | None]:
    """The matcher of a part for an item of this exponent or sign; −(k·x) is (−k)·x."""
    matcher = _compile(q)
    flipped = None
    if not product and isinstance(q, Product) and q.scalar is None:
        flipped = _compile(replace(q, constant=-q.constant))
    return lambda e: matcher if e == want else flipped


def _generality(p: Pattern) -> int:
    if isinstance(p, Call):
        return 0
    if isinstance(p, Chain):
        return 1
    if isinstance(p, Let):
        return _generality(p.pattern)
    if isinstance(p, Either):
        return max(2, *map(_generality, p.options))
    return 3 if isinstance(p, Constant) else 4


def _heads(p: Pattern) -> frozenset[str] | None:
    """Operators one of which makes any value that fits; None where it may be anything."""
    if isinstance(p, Call):
        return frozenset((p.op,))
    if isinstance(p, Let):
        return _heads(p.pattern)
    if isinstance(p, Either):
        options = [_heads(o) for o in p.options]
        return None if any(h is None for h in options) else frozenset().union(*(h for h in options if h is not None))
    if not isinstance(p, Chain):
        return None
    own = _PRODUCT if isinstance(p, Product) else _SUM
    if len(p.parts) != 1 or p.parts[0][1] != 1:
        return own
    only = _heads(p.parts[0][0])
    return None if only is None else own | only


def _children(p: Pattern) -> tuple[Pattern, ...]:
    if isinstance(p, Call):
        return (*p.operands, *(a for a in p.attributes.values() if isinstance(a, Pattern)))
    if isinstance(p, Chain):
        return (*(q for q, _ in p.parts), *(s for s in (p.scalar, p.rest) if s is not None))
    if isinstance(p, Either):
        return p.options
    return (p.pattern,) if isinstance(p, (Let, Optional)) else ()


@cache
def _needs(p: Pattern) -> frozenset[str]:
    if isinstance(p, Optional):
        return frozenset()
    inner = [_needs(q) for q in _children(p)]
    if isinstance(p, Either):
        return frozenset.intersection(*inner)
    return frozenset((p.op,) if isinstance(p, Call) else ()).union(*inner)


def _distinct(p: Pattern) -> list[Pattern]:
    """The pattern and all that it is made of, each once."""
    found = {p: None}
    todo = [p]
    while todo:
        for q in _children(todo.pop()):
            if q not in found:
                found[q] = None
                todo.append(q)
    return list(found)


def _roots(p: Pattern) -> frozenset[str]:
    if isinstance(p, Call):
        return frozenset((p.op,))
    if isinstance(p, Let):
        return _roots(p.pattern)
    if isinstance(p, Either):
        return frozenset().union(*map(_roots, p.options))
    if isinstance(p, Sum):
        return _SUM - {"Neg"}
    if isinstance(p, Product):
        power = len(p.parts) == 1 and p.parts[0][1] != 1
        return _PRODUCT - {"Neg"} if power else frozenset(("Mul", "Div"))
    raise TypeError("the root of a pattern is a node or a formula")
