"""error = max |a − b| / max |a|, whatever the type, and inf where there is nothing to subtract."""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizer.measure.compare import compare, sqnr_db


def test_error_is_of_the_scale() -> None:
    found = compare(np.array([[1.0, -4.0]], "f"), np.array([[1.5, -4.0]], "f"))
    assert found.error == 0.125 and found.index == (0, 0) and (found.original, found.result) == (1.0, 1.5)
    assert (found.signal, found.noise) == (17, 0.25)


def test_error_is_absolute_where_the_original_is_all_zero() -> None:
    assert compare(np.zeros(2, "f"), np.array([0, 1e-3], "f")).error == pytest.approx(1e-3)


def test_index_is_the_first_beyond_the_limit() -> None:
    a, b = np.ones(4), np.array([1, 1.01, 1, 1.5])
    assert compare(a, b, 1e-3).index == (1,) and compare(a, b, 0.1).index == (3,) and compare(a, b, 1).index == (3,)
    assert compare(a, b, 1e-3).error == 0.5, "the error is the worst one all the same"


@pytest.mark.parametrize(
    ("a", "b", "what"),
    [
        (np.zeros(2), np.zeros((2, 1)), "shape [2, 1] instead of [2]"),
        (np.zeros(2), np.zeros(2, "f"), "dtype float32 instead of float64"),
        (np.array([1, np.nan]), np.array([1, 2.0]), "NaN or infinity"),
        (np.array([1, 2.0]), np.array([1, np.nan]), "NaN or infinity"),
        (np.array([np.inf]), np.array([-np.inf]), "NaN or infinity"),
        (np.array([np.inf]), np.array([np.nan]), "NaN or infinity"),
        (np.array(["a", "b"], object), np.array(["a", "c"], object), "other text"),
        ([np.zeros(1)], [np.zeros(1)] * 2, "sequence of 1 against 2"),
        ([np.zeros(1)], np.zeros(1), "sequence of 1 against a tensor"),
        ({"a": 1}, {"b": 1}, "other keys"),
        (None, np.zeros(1), "absent"),
    ],
)
def test_incomparable(a: Any, b: Any, what: str) -> None:
    found = compare(a, b, 1e9)
    assert found.error == math.inf and what in found.what


@pytest.mark.parametrize(
    "x",
    [
        np.array([np.nan, np.inf, -np.inf, 0, -0.0]), np.zeros((0, 3)), np.array(3), np.array(["x"], object),
        [np.ones(2), np.zeros(0)], {"a": np.ones(1), 2: 3.5}, None, np.array([True, False]), np.array([1 + 2j]),
        np.arange(3).astype(ml_dtypes.bfloat16), np.arange(3).astype(ml_dtypes.float8_e4m3fn),
    ],
    ids=str,
)  # fmt: skip
def test_equal_to_itself(x: Any) -> None:
    assert compare(x, x).error == 0 and compare(x, x).what == ""


def test_nothing_is_asked_where_the_original_is_not_finite_if_so_wished() -> None:
    a, b = np.array([np.nan, np.inf, 1.0]), np.array([0.0, 5.0, 1.0])
    assert compare(a, b, finite_only=True).error == 0 and compare(a, b).error == math.inf
    assert compare(b, a, finite_only=True).error == math.inf, "finite must stay finite"


def test_integers_beyond_float64_differ() -> None:
    a, b = np.array([2**53], "i8"), np.array([2**53 + 1], "i8")
    found = compare(a, b)
    assert found.error > 0 and (found.original, found.result) == (2**53, 2**53 + 1)
    assert compare(np.array([2**64 - 1], "u8"), np.array([2**64 - 2], "u8")).error > 0


def test_bool_and_small_floats() -> None:
    assert compare(np.array([True]), np.array([False])).error == 1
    a = np.array([1, 2], ml_dtypes.bfloat16)
    assert compare(a, (a * 1.5).astype(a.dtype)).error == 0.5


def test_place_in_a_sequence_comes_first() -> None:
    found = compare([np.ones(2), np.ones(2)], [np.ones(2), np.array([1.0, 3.0])])
    assert found.index == (1, 1) and found.error == 2 and found.signal == 4


@given(st.lists(st.floats(-1e6, 1e6), min_size=1), st.floats(-0.5, 0.5))
def test_scaling_by_1_plus_e_is_an_error_of_e(values: list[float], e: float) -> None:
    a = np.array(values)
    a = np.where(np.abs(a) < 1e-9, 1.0, a)
    assert compare(a, a * (1 + e)).error == pytest.approx(abs(e), rel=1e-6, abs=1e-12)


def test_sqnr() -> None:
    assert sqnr_db(100, 1) == 20 and sqnr_db(1, 0) == math.inf and sqnr_db(0, 1) == -math.inf
