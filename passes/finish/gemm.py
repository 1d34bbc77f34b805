"""MatMul and Add of matrices are one Gemm; after recognition, for a Gemm hides the Add that idioms look for."""

from __future__ import annotations

from typing import Any

from optimizer.core.graph import Value
from optimizer.core.pattern import op, values
from optimizer.core.rule import rule

a, w, b = values("a w b")
_DTYPES = (1, 10, 11)  # float, float16, double: what runtimes have a Gemm for


def is_gemm(a: Value, w: Value, b: Value) -> bool:
    """Whether a·w is a product of matrices, and the constant b spreads over it without making it larger."""
    if a.dims is None or w.dims is None or b.dims is None or not b.is_const or a.dtype not in _DTYPES:
        return False
    if len(a.dims) != 2 or len(w.dims) != 2 or len(b.dims) > 2:
        return False
    rows, columns = a.dims[0], w.dims[1]
    return all(d in (1, size) for d, size in zip(b.dims[::-1], (columns, rows)))


@rule(op.MatMul(a, w) + b, where=is_gemm)
def gemm(op: Any, a: Value, w: Value, b: Value) -> Any:
    """A·W + b → Gemm, for matrices and a constant b"""
    return op.Gemm(a, w, b)


RULES = (gemm,)
