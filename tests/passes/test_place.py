"""The placement is the cheapest one: by its own small cases, and against trying every division."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from passes.quantize.place import DEQUANTIZE, FIXED, LAYOUT, QUANTIZE, Flow, choose

BIG = 1_000_000


def cost(chosen: set[int], costs: dict[int, tuple[float, float]], flows: list[Flow]) -> float:
    """What `choose` minimizes, written down directly."""
    total = sum(as_integer if i in chosen else as_float for i, (as_float, as_integer) in costs.items())
    for flow in flows:
        turn = LAYOUT * flow.turns
        if flow.maker in chosen and any(r not in chosen for r in flow.readers):
            total += (DEQUANTIZE + turn) * flow.size + FIXED
        if flow.maker not in chosen and any(r in chosen for r in flow.readers):
            total += (QUANTIZE + turn) * flow.size + FIXED
    return total


@pytest.mark.parametrize("seed", range(40))
def test_no_division_is_cheaper(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = 8
    costs = {i: (float(rng.uniform(0, 2 * BIG)), float(rng.uniform(0, 2 * BIG))) for i in range(n)}
    flows = [
        Flow(
            maker=None if rng.random() < 0.2 else int(rng.integers(n)),
            readers=tuple(None if rng.random() < 0.2 else int(r) for r in rng.integers(0, n, rng.integers(1, 4))),
            size=int(rng.integers(1, 2 * BIG)),
            turns=bool(rng.random() < 0.5),
        )
        for _ in range(12)
    ]
    best = min(cost(set(some), costs, flows) for k in range(n + 1) for some in itertools.combinations(range(n), k))
    assert cost(choose(costs, flows), costs, flows) == pytest.approx(best, rel=1e-9)


def test_a_product_that_gains_less_than_its_conversions_cost_stays_float() -> None:
    flows = [Flow(None, (0,), BIG), Flow(0, (None,), BIG)]
    conversions = (QUANTIZE + DEQUANTIZE) * BIG + 2 * FIXED
    assert choose({0: (1.01 * conversions, 0.0)}, flows) == {0}
    assert choose({0: (0.99 * conversions, 0.0)}, flows) == set()


def test_a_cheap_op_between_two_products_follows_them() -> None:
    flows = [Flow(None, (0,), BIG), Flow(0, (1,), BIG), Flow(1, (2,), BIG), Flow(2, (None,), BIG)]
    costs = {0: (5.0 * BIG, BIG), 1: (0.1 * BIG, 0.2 * BIG), 2: (5.0 * BIG, BIG)}
    assert choose(costs, flows) == {0, 1, 2}


def test_a_value_is_converted_once_however_many_read_it() -> None:
    gain = 0.2 * BIG  # of each product: less than one conversion, more than a third of it
    costs = dict.fromkeys(range(3), (gain, 0.0))
    assert choose(costs, [Flow(None, (0, 1, 2), BIG)]) == {0, 1, 2}
    assert choose(costs, [Flow(None, (i,), BIG) for i in range(3)]) == set()
