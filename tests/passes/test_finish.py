"""What a Gemm takes, asked of the values themselves: the editor would refuse the rest only later."""

from __future__ import annotations

import numpy as np
import pytest

from optimizer.core.dims import Dim, named
from optimizer.core.form import constant
from optimizer.core.graph import Value
from optimizer.core.tensor import numpy_dtype
from passes.finish.gemm import is_gemm

FLOAT, FLOAT16, DOUBLE, BFLOAT16, INT32 = 1, 10, 11, 16, 6
N = named("N")


def value(dtype: int, *dims: Dim) -> Value:
    v = Value("v")
    v.dtype, v.dims = dtype, dims
    return v


def bias(dtype: int, *dims: int) -> Value:
    return constant(np.ones(dims, numpy_dtype(dtype)))


@pytest.mark.parametrize("dims", [(2,), (1, 2), (1,), (), (1, 1)])
def test_a_bias_that_spreads(dims: tuple[int, ...]) -> None:
    assert is_gemm(value(FLOAT, N, 3), value(FLOAT, 3, 2), bias(FLOAT, *dims))


def test_a_bias_by_row_where_the_rows_are_known() -> None:
    assert is_gemm(value(FLOAT, 5, 3), value(FLOAT, 3, 2), bias(FLOAT, 5, 1))
    assert not is_gemm(value(FLOAT, N, 3), value(FLOAT, 3, 2), bias(FLOAT, 5, 1))


@pytest.mark.parametrize("dims", [(3,), (5, 2), (1, 1, 2), (2, 1)])
def test_a_bias_that_makes_the_result_larger_or_fails(dims: tuple[int, ...]) -> None:
    assert not is_gemm(value(FLOAT, N, 3), value(FLOAT, 3, 2), bias(FLOAT, *dims))


def test_a_bias_is_constant() -> None:
    assert not is_gemm(value(FLOAT, N, 3), value(FLOAT, 3, 2), value(FLOAT, 2))


@pytest.mark.parametrize("dtype", [FLOAT16, FLOAT, DOUBLE, BFLOAT16, INT32])
def test_dtypes_that_runtimes_have_a_gemm_for(dtype: int) -> None:
    assert is_gemm(value(dtype, N, 3), value(dtype, 3, 2), bias(dtype, 2)) is (dtype in (FLOAT16, FLOAT, DOUBLE))


@pytest.mark.parametrize(("a", "w"), [((N, 5, 3), (3, 2)), ((3,), (3, 2)), ((N, 3), (4, 3, 2)), ((N, 3), (3,))])
def test_only_matrices(a: tuple[Dim, ...], w: tuple[Dim, ...]) -> None:
    assert not is_gemm(value(FLOAT, *a), value(FLOAT, *w), bias(FLOAT, 2))
    unknown = value(FLOAT)
    unknown.dims = None
    assert not is_gemm(unknown, value(FLOAT, 3, 2), bias(FLOAT, 2))
