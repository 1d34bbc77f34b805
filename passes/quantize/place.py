"""Σ time(node, its type) + Σ conversions → min: which nodes run in integers, as a minimum cut.

A node is on the integer side or on the float side. Each side has its time; a value that crosses from one to the other
is converted once, however many read it. The cheapest division is the minimum cut of the graph whose source is "integer"
and whose sink is "float" (project selection: Picard 1976), so it is exact for the times below, and chains of cheap ops
stay integers where converting at their ends costs more.

Times are nanoseconds by element of the output, or of the input, on one thread, fitted to profiles of nine models (1.32,
x86 with AVX2): what counts is their proportion.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from optimizer.core.form import attribute
from optimizer.core.graph import Node, Value
from optimizer.core.target import Target
from passes.quantize.kernels import factor

QUANTIZE, DEQUANTIZE = 0.33, 0.19
LAYOUT = 0.3  # of an image: integers lie channels last, floats in blocks of channels
FIXED = 3000.0  # of a node more: an integer kernel reads its scales, a conversion is a node of its own


@dataclass(frozen=True, slots=True)
class Time:
    """Of one op, as floats and as integers: ns a multiplication, and ns an element of the output."""

    float_mac: float
    integer_mac: float
    float_element: float
    integer_element: float


_DENSE, _DEPTHWISE, _GROUPED, _PRODUCT = "dense", "depthwise", "grouped", "product"
_PRODUCTS = {
    _DENSE: Time(1 / 43, 1 / 82, 0.08, 0.26),
    _DEPTHWISE: Time(1 / 22, 1 / 16, 0.18, 0.45),
    _GROUPED: Time(1 / 43, 1 / 120, 0.26, 1.24),
    _PRODUCT: Time(1 / 35, 1 / 84, 0.0, 0.31),
}
_WITH_VNNI = 0.5  # of the time of an integer multiplication
_ELEMENTS = {  # op → ns an element of the output as floats, as integers
    "Add": (0.23, 0.16),
    "Sum": (0.23, 0.16),
    "Mul": (0.35, 0.43),
    "Concat": (0.27, 0.22),
    "Sigmoid": (1.0, 0.36),
    "LeakyRelu": (0.23, 0.36),
    "AveragePool": (0.89, 11.6),
    "GlobalAveragePool": (0.21, 0.05),  # of the input
    "MaxPool": (1.07, 0.57),
    "Transpose": (0.32, 0.16),
    "Resize": (0.27, 1.25),
    **dict.fromkeys(("Slice", "Gather", "Expand", "Tile", "Split"), (0.3, 0.2)),
    **dict.fromkeys(("Reshape", "Squeeze", "Unsqueeze", "Flatten"), (0.0, 0.0)),
}
_SHUFFLE = 7.0  # a Transpose of bytes of rank 5 or more is not vectorized


def times(node: Node, dims: Mapping[str, tuple[int, ...]], target: Target) -> tuple[float, float]:
    """ns of `node` as floats and as integers, without conversions; 0 where its dims were not seen."""
    out, first = dims.get(node.output.name), _dims(node.inputs[0], dims)
    if out is None or first is None:
        return 0.0, 0.0
    size = math.prod(out)
    if factor(node):
        return size * 0.27, 0.0
    if node.op in _ELEMENTS:
        as_float, as_integer = _ELEMENTS[node.op]
        if node.op == "Transpose" and len(out) > 4:
            as_integer = _SHUFFLE
        n = math.prod(first) if node.op == "GlobalAveragePool" else size
        return n * as_float, n * as_integer + FIXED
    kind, terms = _product(node, first)
    t = _PRODUCTS[kind]
    mac = t.integer_mac * (_WITH_VNNI if target.weight_bits > 7 else 1)
    return size * (terms * t.float_mac + t.float_element), size * (terms * mac + t.integer_element) + FIXED


def _product(node: Node, first: tuple[int, ...]) -> tuple[str, int]:
    """The kind of a product, and how many terms each of its sums has."""
    if node.op != "Conv":
        return _PRODUCT, first[-2 if attribute(node, "transA") else -1] if first else 1
    weight = node.inputs[1]
    shape = [d if isinstance(d, int) else 1 for d in (weight.dims if weight is not None else None) or ()]
    groups = int(attribute(node, "group") or 1)
    kind = _DENSE if groups == 1 else _DEPTHWISE if shape[1:2] == [1] else _GROUPED
    return kind, math.prod(shape[1:])


def _dims(v: Value | None, dims: Mapping[str, tuple[int, ...]]) -> tuple[int, ...] | None:
    if v is None:
        return None
    return v.tensor.shape if v.tensor is not None else dims.get(v.name)


@dataclass(frozen=True, slots=True)
class Flow:
    """One value of so many elements: who makes it, who reads it (None: something that is float in any case).

    `turns` says that floats and integers lie in different order, as images do.
    """

    maker: Hashable | None
    readers: tuple[Hashable | None, ...]
    size: int
    turns: bool = False


def choose(costs: Mapping[Any, tuple[float, float]], flows: Iterable[Flow]) -> set[Any]:
    """Those keys of `costs` (ns as floats, ns as integers) that run in integers when all together is fastest."""
    import networkx as nx  # takes 0.2 s, which only quantizing should cost

    graph: Any = nx.DiGraph()
    integer, float_ = "integer", "float"
    graph.add_nodes_from((integer, float_))

    def edge(a: Hashable, b: Hashable, ns: float) -> None:
        """Paid if `a` is on the integer side and `b` on the float side."""
        ps = round(1000 * ns)  # integers, so that the cut does not depend on rounding
        before = graph.get_edge_data(a, b, {"capacity": 0})["capacity"]
        graph.add_edge(a, b, capacity=before + ps)

    for key, (as_float, as_integer) in costs.items():
        edge(integer, key, as_float)
        edge(key, float_, as_integer)
    for i, flow in enumerate(flows):
        layout = LAYOUT * flow.turns
        maker = float_ if flow.maker is None else flow.maker
        readers = [float_ if r is None else r for r in flow.readers]
        if flow.maker is not None:
            for r in readers:  # dequantized once if any reader is on the float side
                graph.add_edge((i, "dequantized"), r)
            edge(maker, (i, "dequantized"), (DEQUANTIZE + layout) * flow.size + FIXED)
        if any(r != float_ for r in readers):
            for r in readers:  # quantized once if any reader is on the integer side
                if r != float_:
                    graph.add_edge(r, (i, "quantized"))
            edge((i, "quantized"), maker, (QUANTIZE + layout) * flow.size + FIXED)
    _, (side, _) = cast("tuple[int, tuple[set[Any], set[Any]]]", nx.minimum_cut(graph, integer, float_))
    return side & costs.keys()
