"""A product with a matrix takes operands of any rank: Reshapes around it go."""

from __future__ import annotations

from typing import Any

import numpy as np

from optimizer.core.graph import Value
from optimizer.core.pattern import let, op, read_once, values
from optimizer.core.rule import decline, rule
from passes.simplify.shapes import canonical

x, a, w, b = values("x a w b")
rows = let("rows", op.Reshape(x, a, allowzero=...))
product = let("product", op.MatMul(rows, w))


def by_rows(x: Value, rows: Value, w: Value, product: Value, root: Value) -> bool:
    """Whether the rows of a matrix are multiplied, and nobody else wants them or the product so."""
    known = x.dims is not None and root.dims is not None and rows.dims is not None and w.dims is not None
    return known and len(rows.dims or ()) > 0 and len(w.dims or ()) == 2 and read_once(product)


@rule(op.Reshape(product, b, allowzero=...), where=by_rows, keep=True)
def matmul_of_rows(op: Any, x: Value, rows: Value, w: Value, product: Value, root: Value) -> Any:
    """Reshape(Reshape(x)·W) → x·W, where x has the rows already; else one of the two Reshapes goes"""
    assert x.dims is not None and rows.dims is not None and w.dims is not None and root.dims is not None
    inner, columns = rows.dims[-1], w.dims[-1]
    if x.dims and x.dims[-1] == inner:
        made = op.MatMul(x, w)
        if made.dims == root.dims:
            return made
        entries = canonical(made.dims, root.dims)
        return decline("no constant target") if entries is None else op.Reshape(made, np.asarray(entries, np.int64))
    if not root.dims or root.dims[-1] != columns or not read_once(rows):
        decline("the rows are parted")
    entries = canonical(x.dims, (*root.dims[:-1], inner))
    return (
        decline("no constant target") if entries is None else op.MatMul(op.Reshape(x, np.asarray(entries, np.int64)), w)
    )


RULES = (matmul_of_rows,)
