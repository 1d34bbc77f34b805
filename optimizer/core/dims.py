"""A dimension is an integer or a polynomial over named dimensions; equal canonical polynomials are equal sizes.

`Dim = int | Poly`. A Poly is a sum of integer multiples of products of atoms; an atom is a dimension's name or an
opaque function of dims (`min`, `max`, `floordiv`, `mod`). Every named dimension is a size, so it is never negative.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import count
from typing import NamedTuple


class Fn(NamedTuple):
    """An opaque function of two dims, `min(s, 512)` say: equal only to itself."""

    name: str
    a: Dim
    b: Dim

    def __str__(self) -> str:
        return f"{self.name}({self.a},{self.b})"


Atom = str | Fn
Monomial = tuple[Atom, ...]

_FN: dict[str, Callable[[int, int], int]] = {
    "min": min,
    "max": max,
    "floordiv": lambda a, b: a // b,
    "mod": lambda a, b: a % b,
}


class Poly:
    """Σ cᵢ · Πatoms, with at least one atom; a constant is a plain int and never a Poly."""

    __slots__ = ("_hash", "_text", "terms")

    def __init__(self, terms: dict[Monomial, int]) -> None:
        self.terms = terms
        self._hash = 0
        self._text = ""

    def __add__(self, other: Dim) -> Dim:
        terms = dict(self.terms)
        for k, c in _terms(other).items():
            terms[k] = terms.get(k, 0) + c
        return _normal(terms)

    __radd__ = __add__

    def __mul__(self, other: Dim) -> Dim:
        terms: dict[Monomial, int] = {}
        theirs = _terms(other)
        for k, c in self.terms.items():
            for j, d in theirs.items():
                m = tuple(sorted(k + j, key=str)) if k and j else k + j
                terms[m] = terms.get(m, 0) + c * d
        return _normal(terms)

    __rmul__ = __mul__

    def __sub__(self, other: Dim) -> Dim:
        return self + other * -1

    def __rsub__(self, other: Dim) -> Dim:
        return self * -1 + other

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Poly) and self.terms == other.terms)

    def __hash__(self) -> int:
        if not self._hash:
            self._hash = hash(frozenset(self.terms.items()))
        return self._hash

    def __str__(self) -> str:
        if not self._text:
            parts = [
                "*".join(([str(c)] if c != 1 or not k else []) + [str(a) for a in k]) for k, c in self.terms.items()
            ]
            self._text = "+".join(sorted(parts))
        return self._text

    __repr__ = __str__


Dim = int | Poly
Dims = tuple[Dim, ...]

_named: dict[str, Poly] = {}
_serial = count()


def _terms(x: Dim) -> dict[Monomial, int]:
    return x.terms if isinstance(x, Poly) else {(): x} if x else {}


def _normal(terms: dict[Monomial, int]) -> Dim:
    terms = {k: c for k, c in terms.items() if c}
    if not terms:
        return 0
    if len(terms) == 1 and () in terms:
        return terms[()]
    return Poly(terms)


def named(name: str) -> Poly:
    """The dimension called `name`; what the name looks like means nothing."""
    known = _named.get(name)
    if known is None:
        known = _named[name] = Poly({(name,): 1})
    return known


def unknown(of: str = "") -> Poly:
    """A dimension of which nothing is known (of the value called `of`): equal to nothing but itself."""
    return Poly({(f"{of}#{next(_serial)}",): 1})


def is_unknown(d: Dim) -> bool:
    """Whether a dimension that has no name in any file takes part in `d`."""
    return not isinstance(d, int) and "#" in str(d)


def product(dims: Iterable[Dim]) -> Dim:
    """Π dims, 1 for none."""
    out: Dim = 1
    for d in dims:
        out = out * d
    return out


def quotient(a: Dim, b: Dim) -> Dim | None:
    """a / b where b divides a exactly for every binding, else None. (0/0 counts as the symbolic quotient.)"""
    if b == 0:
        return None
    if isinstance(a, int) and isinstance(b, int):
        return a // b if a % b == 0 else None
    if a == b:
        return 1
    divisor = _terms(b)
    if len(divisor) != 1:
        # (Σ tᵢ)·k / (Σ tᵢ): try the quotient that the leading terms suggest
        (lead, c) = next(iter(divisor.items()))
        for k, d in _terms(a).items():
            q = _divide_monomial(k, d, lead, c)
            if q is not None and b * _normal({q[0]: q[1]}) == a:
                return _normal({q[0]: q[1]})
        return None
    ((lead, c),) = divisor.items()
    out: dict[Monomial, int] = {}
    for k, d in _terms(a).items():
        q = _divide_monomial(k, d, lead, c)
        if q is None:
            return None
        out[q[0]] = q[1]
    return _normal(out)


def _divide_monomial(k: Monomial, d: int, lead: Monomial, c: int) -> tuple[Monomial, int] | None:
    rest = list(k)
    for atom in lead:
        if atom not in rest:
            return None
        rest.remove(atom)
    return (tuple(rest), d // c) if d % c == 0 else None


def apply(name: str, a: Dim, b: Dim) -> Dim | None:
    """`name(a, b)` in closed form where one is known, else an opaque atom; None where it is undefined."""
    if name in ("floordiv", "mod") and b == 0:
        return None
    if isinstance(a, int) and isinstance(b, int):
        return _FN[name](a, b)
    if name == "floordiv" and (q := quotient(a, b)) is not None:
        return q
    if name == "mod" and quotient(a, b) is not None:
        return 0
    if name in ("min", "max"):
        low = at_most(a, b)
        if low is not None:
            return (a if low else b) if name == "min" else (b if low else a)
        a, b = sorted((a, b), key=str)
    return Poly({(Fn(name, a, b),): 1})


def at_most(a: Dim, b: Dim) -> bool | None:
    """True where a ≤ b for every binding, False where b ≤ a for every binding, None where neither is known."""
    d = b - a
    if never_negative(d) or mentions(a, "min", b) or mentions(b, "max", a):
        return True
    return False if never_negative(d * -1) or mentions(b, "min", a) or mentions(a, "max", b) else None


def never_negative(d: Dim) -> bool:
    """Whether d ≥ 0 for every binding of its names (sufficient: no negative coefficient)."""
    if isinstance(d, int):
        return d >= 0
    return all(c >= 0 and all(_atom_never_negative(a) for a in k) for k, c in d.terms.items())


def _atom_never_negative(a: Atom) -> bool:
    if isinstance(a, str):
        return True
    if a.name == "max":
        return never_negative(a.a) or never_negative(a.b)
    if a.name == "mod":
        return never_negative(a.b)
    return never_negative(a.a) and never_negative(a.b)


def never_zero(d: Dim) -> bool:
    """Whether d ≥ 1 for every binding of its names."""
    return d > 0 if isinstance(d, int) else never_negative(d - 1)


def vanishes_with(x: Dim, d: Dim) -> bool:
    """Whether x is 0 wherever d is.

    Sufficient: the terms of d only add up, and each term of x has all names of one of them.
    """
    if x == 0 or never_zero(d) or x == d:
        return True
    if isinstance(x, int) or isinstance(d, int) or not never_negative(d):
        return False
    return any(all(set(k) <= set(t) for t in x.terms) for k in d.terms)


def evaluate(d: Dim, binding: Callable[[str], int]) -> int:
    """The size of `d` when each name has the size `binding(name)`."""
    if isinstance(d, int):
        return d
    total = 0
    for k, c in d.terms.items():
        for a in k:
            c *= binding(a) if isinstance(a, str) else _FN[a.name](evaluate(a.a, binding), evaluate(a.b, binding))
        total += c
    return total


def mentions(d: Dim, fn: str, other: Dim) -> bool:
    """Whether `d` is exactly the atom `fn(…, other)`: `min(s, 512)` mentions s."""
    if isinstance(d, int) or len(d.terms) != 1:
        return False
    ((k, c),) = d.terms.items()
    return c == 1 and len(k) == 1 and isinstance(k[0], Fn) and k[0].name == fn and other in (k[0].a, k[0].b)
