"""What carries an attention mask: a value of −10⁴ or less, added or chosen on its way to a Softmax.

One scale for scores and −10⁴ (or the lowest float) leaves of the scores a single bit or nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from optimizer.core.graph import Model, Node, Value
from optimizer.runtime.observe import Range

LOWEST = -1e4
_CARRIES = frozenset(
    ["Add", "Cast", "Clip", "Concat", "Div", "Expand", "Gather", "Identity", "Max", "Min", "Mul", "Reshape", "Slice",
     "Split", "Squeeze", "Sub", "Tile", "Transpose", "Unsqueeze", "Where"]
)  # fmt: skip
_FLOATS = frozenset([1, 10, 11, 16])  # float32, float16, float64, bfloat16
_NORMALIZES = frozenset(["Softmax", "LogSoftmax"])


def on_mask_path(model: Model, ranges: Mapping[str, Range]) -> frozenset[Value]:
    """Every value between a mask and the Softmax it ends in, both included."""
    scores = [n.inputs[0] for n in model.nodes() if n.op in _NORMALIZES and not n.domain]
    before = _flood(scores, lambda v: v.producer.inputs if v.producer is not None and _carries(v.producer) else ())
    masks = [v for v in before if _is_low(v, ranges)]
    return frozenset(_flood(masks, lambda v: (o for n in v.uses if _carries(n) for o in n.outputs if o in before)))


def _flood(start: Iterable[Value | None], onward: Callable[[Value], Iterable[Value | None]]) -> dict[Value, None]:
    found: dict[Value, None] = {}
    todo = list(start)
    while todo:
        v = todo.pop()
        if v is not None and v not in found:
            found[v] = None
            todo += onward(v)
    return found


def _carries(n: Node) -> bool:
    return n.op in _CARRIES and not n.domain


def _is_low(v: Value, ranges: Mapping[str, Range]) -> bool:
    if v.name in ranges:
        return ranges[v.name].low <= LOWEST
    c = v.const if v.tensor is not None and v.tensor.dtype in _FLOATS else None
    return c is not None and bool((c <= LOWEST).any())
