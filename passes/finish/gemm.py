"""Matrix products with a bias become Gemm, where both are matrices."""

from __future__ import annotations

from typing import Any

from optimizer.core.pattern import op, values
from optimizer.core.rule import decline, rule

x, y, c = values("x y c")
_FLOATS = (1, 10, 11)  # what runtimes multiply; integer Gemm has no kernel


@rule(op.Add(op.MatMul(x, y), c))
def matmul_add(op: Any, x: Any, y: Any, c: Any) -> Any:
    """x·y + c → Gemm(x, y, c) for matrices"""
    if x.dtype not in _FLOATS or x.dims is None or y.dims is None or len(x.dims) != 2 or len(y.dims) != 2:
        return decline("not two float matrices")
    if c.dims is None or len(c.dims) > 2:
        return decline("the summand is no bias")
    own = (1,) * (2 - len(c.dims)) + tuple(c.dims)
    if any(d != 1 and d != e for d, e in zip(own, (x.dims[0], y.dims[1]))):
        return decline("the summand does not broadcast to the product")
    return op.Gemm(x, y, c)


RULES = (matmul_add,)
