"""The algebra of dims agrees with the integers: every law, for random polynomials under random bindings."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from optimizer.core.dims import (
    Dim,
    Poly,
    apply,
    at_most,
    evaluate,
    is_unknown,
    mentions,
    named,
    never_negative,
    never_zero,
    product,
    quotient,
    unknown,
)

NAMES = "abs"
FUNCTIONS: dict[str, Any] = {"min": min, "max": max, "floordiv": lambda a, b: a // b, "mod": lambda a, b: a % b}
S, T = named("s"), named("t")


def random_dim(r: Random, depth: int = 3) -> Dim:
    kind = r.choice(
        ["int", "name", "name"] if depth == 0 else ["int", "name", "sum", "difference", "product", "function"]
    )
    if kind == "int":
        return r.choice([0, 1, 2, 3, 7, -1, -4])
    if kind == "name":
        return named(r.choice(NAMES))
    a, b = random_dim(r, depth - 1), random_dim(r, depth - 1)
    if kind == "function":
        f = apply(r.choice(list(FUNCTIONS)), a, b)
        return a if f is None else f
    return a + b if kind == "sum" else a - b if kind == "difference" else a * b


def bindings(r: Random) -> list[dict[str, int]]:
    return [{n: r.choice([0, 1, 2, 3, 5, 12]) for n in NAMES} for _ in range(6)]


def at(d: Dim, b: dict[str, int]) -> int | None:
    """The size, None where it is not defined."""
    try:
        return evaluate(d, b.__getitem__)
    except ZeroDivisionError:
        return None


CASES = [(r, random_dim(r), random_dim(r), bindings(r)) for r in map(Random, range(3000))]


def test_sums_and_products() -> None:
    for _, x, y, bs in CASES:
        for b in bs:
            p, q = at(x, b), at(y, b)
            if p is None or q is None:
                continue
            for got, want in (
                (x + y, p + q),
                (x - y, p - q),
                (x * y, p * q),
                (-1 * x, -p),
                (product([x, y, x]), p * q * p),
            ):
                assert at(got, b) in (want, None) and (at(got, b) is not None or isinstance(got, Poly))


def test_equal_is_equal_under_every_binding() -> None:
    for _, x, y, bs in CASES:
        z = (x + y) * (x - y)
        w = x * x - y * y
        assert z == w and hash(z) == hash(w) and str(z) == str(w)
        if x == y:
            assert all(at(x, b) == at(y, b) for b in bs)
        assert (x - x) == 0 and x + 0 == x and x * 1 == x and x * 0 == 0 and x + y == y + x


def test_a_constant_is_an_int() -> None:
    for x in (S - S, S * 0, S + 3 - S, quotient(S * 4, S)):
        assert isinstance(x, int)
    for _, x, _, _ in CASES:
        assert isinstance(x, int) or any(x.terms)


def test_functions() -> None:
    for _, x, y, bs in CASES:
        for name, f in FUNCTIONS.items():
            d = apply(name, x, y)
            for b in bs:
                p, q = at(x, b), at(y, b)
                if p is None or q is None or (q == 0 and name in ("floordiv", "mod")):
                    continue
                if d is not None and at(d, b) is not None:
                    assert at(d, b) == f(p, q), f"{name}({x}, {y}) is {d}"


def test_quotients_are_exact() -> None:
    found = 0
    for _, x, y, bs in CASES:
        for a, c in ((x * y, y), (x, y), (x * y + y, y)):
            q = quotient(a, c)
            if q is None:
                continue
            found += 1
            for b in bs:
                p, d, e = at(a, b), at(c, b), at(q, b)
                if p is not None and d and e is not None:
                    assert e * d == p, f"({a}) / ({c}) is {q}"
    assert found > 3000


@pytest.mark.parametrize(
    ("a", "b", "q"),
    [
        (6, 3, 2), (7, 3, None), (S, 0, None), (0, S, 0), (S * 6, 3, S * 2), (S * 6, 4, None),
        (S * T * 6, S * 2, T * 3), (S + 1, S, None), ((S + 1) * 5, S + 1, 5), ((S + 1) * T, S + 1, T),
        ((S - T) * -2, S - T, -2), (S * S + S, S, S + 1),
    ],
)  # fmt: skip
def test_quotient(a: Dim, b: Dim, q: Dim | None) -> None:
    assert quotient(a, b) == q


def test_bounds_hold() -> None:
    for _, x, y, bs in CASES:
        low = at_most(x, y)
        for b in bs:
            p, q = at(x, b), at(y, b)
            if p is None or q is None:
                continue
            assert not never_negative(x) or p >= 0, f"{x} is {p}"
            assert not never_zero(x) or p >= 1, f"{x} is {p}"
            assert low is None or (p <= q if low else q <= p), f"{x} and {y}"


def test_bounds_are_found() -> None:
    m = apply("min", S, 512)
    assert m is not None
    assert never_negative(S * 3 + T) and never_negative(m) and not never_negative(S - 1)
    assert never_zero(S + 1) and not never_zero(S) and not never_zero(0) and never_zero(4)
    assert at_most(S, S + T) is True and at_most(S + 1, S) is False and at_most(S, 512) is None
    assert (apply("max", S, 0), apply("min", S, S + 1), apply("max", m, S), apply("min", m, 512)) == (S, S, S, m)
    assert (apply("mod", S * 6, 3), apply("floordiv", S * 6, 3), apply("mod", S, 0)) == (0, S * 2, None)


def test_functions_are_canonical() -> None:
    assert apply("floordiv", 7, 2) == 3 and apply("mod", -7, 3) == 2 and apply("min", 7, 2) == 2
    assert apply("min", S, 512) == apply("min", 512, S) and apply("max", S, T) == apply("max", T, S)
    low, rest = apply("max", S - 1, 0), apply("mod", S - 1, 4)
    assert low is not None and rest is not None
    assert never_negative(low) and never_negative(rest) and apply("max", low * 2, 0) == low * 2


def test_mentions() -> None:
    m = apply("min", S, 512)
    assert m is not None
    assert mentions(m, "min", S) and mentions(m, "min", 512)
    assert (
        not mentions(m, "max", S)
        and not mentions(m + 1, "min", S)
        and not mentions(S, "min", S)
        and not mentions(3, "min", 3)
    )


def test_text() -> None:
    assert str(S * T * 2 + 1) == "1+2*s*t" and str(apply("floordiv", S - 1, 2)) == "floordiv(-1+s,2)"


def test_names_are_only_names() -> None:
    assert str(S * 2) == "2*s" and named("2*s") != S * 2 and named("s") == S
    assert unknown("v") != unknown("v") and is_unknown(unknown("v") * 2 + S) and not is_unknown(S) and not is_unknown(3)
    assert S != 1 and not isinstance(S, int) and S != "s"
