"""The least and the largest number that chosen values take over batches of data: what calibration rests on.

The model itself is made to reduce each value to three small outputs, so that memory stays what a run needs, whatever
the number of values and batches. A value inside an If is handed out of its branch, where the branch not taken hands
out nothing; one inside a Loop or Scan is not observed. What the runtime would have fused across an observed value is
computed unfused, which differs by rounding.
"""

from __future__ import annotations

import itertools
import math
import os
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optimizer.core.errors import BadInput
from optimizer.runtime import child
from optimizer.runtime.card import Card, read_card
from optimizer.runtime.feeds import check_feed, draw, find_bindings, open_feeds
from optimizer.runtime.interface import Interface, read_interface
from optimizer.runtime.session import Session, open_session

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto

    from optimizer.core.feeds import Binding, Feed

_APART = 1_000_003  # calibration draws other data than validation, which draws from `seed` on


@dataclass(frozen=True, slots=True)
class Range:
    """What was seen of one value: low ≤ x ≤ high in every batch, and its dims where it was largest.

    A value that no batch reached has low > high; NaN is not seen, infinity is.
    """

    low: float
    high: float
    dims: tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.dims)


@dataclass(frozen=True, slots=True)
class Observation:
    """The ranges by name of value, over so many batches from `source`."""

    ranges: Mapping[str, Range]
    batches: int
    source: str


def observe(
    model: str | os.PathLike[str],
    values: Collection[str],
    *,
    feeds: str,
    samples: int = 128,
    card: Card | None = None,
    seed: int = 0,
) -> Observation:
    """Run `model` over up to `samples` batches and watch `values`, in a child.

    Args:
        model: a file, in which no two values of any graphs share a name; another is written beside it for the while.
        values: names of floating values; those that no run can hand out are missing from the answer.
        feeds: FEEDS, "card" for those of `card`, or "random" for drawn data.

    Raises:
        BadInput: the feeds do not fit or hold no batch.
        ToolFailure: the child failed.
    """
    seen = child.call(
        "optimizer.runtime.observe:watch",
        model=Path(model).absolute(),
        values=sorted(values),
        feeds=feeds,
        samples=samples,
        card=card and card.path.absolute(),
        seed=seed + _APART,
    )
    ranges = {name: Range(low, high, tuple(shape)) for name, (low, high, shape) in seen["ranges"].items()}
    return Observation(ranges, seen["batches"], feeds)


def watch(model: str, values: list[str], feeds: str, samples: int, card: str | None, seed: int) -> dict[str, Any]:
    """{"ranges": {value: [low, high, dims]}, "batches": n}. Only in a child."""
    import numpy as np

    interface = read_interface(model)
    # beside the model: the runtime refuses weights that lie outside of the folder of a model
    with tempfile.NamedTemporaryFile(dir=Path(model).parent, prefix=".observed-", suffix=".onnx") as file:
        proto, outputs = _instrumented(Path(model), set(values))
        file.write(proto.SerializeToString())
        file.flush()
        session = open_session(file.name, optimize=True)
        ranges: dict[str, tuple[float, float, list[int]]] = {v: (math.inf, -math.inf, []) for v in outputs}
        batches = 0
        for feed in itertools.islice(batches_of(interface, session, feeds, card, seed), samples):
            got = session.run(check_feed(feed, interface))
            batches += 1
            for value, names in outputs.items():
                a, b, shape = (np.asarray(got[name]) for name in names)
                low, high, largest = ranges[value]
                larger = shape.size and (shape.prod() > math.prod(largest) or not largest)
                dims = shape.tolist() if larger else largest
                ranges[value] = min(low, *a.ravel().tolist()), max(high, *b.ravel().tolist()), dims
    if not batches:
        raise BadInput("the feeds hold no batch", at=feeds, fix="FILE.npz, a folder of them, or FILE.py:FUNCTION")
    return {"ranges": ranges, "batches": batches}


def batches_of(interface: Interface, session: Session, feeds: str, card: str | None, seed: int) -> Iterator[Feed]:
    """The batches of FEEDS; "random" ones without end, at sizes that `session` runs at. Only in a child."""
    known = read_card(card) if card else None
    if feeds != "random":
        yield from open_feeds(feeds, known)(seed)
        return
    import numpy as np

    def runs(binding: Binding) -> bool:
        try:
            session.run(draw(interface, binding, np.random.default_rng(seed)))
        except BadInput:
            return False
        return True

    declared = [dict(d) for d in known.dims] if known is not None else []
    bindings = declared or find_bindings(interface, runs)
    if not bindings:
        raise BadInput("the model runs at none of the sizes that were tried", fix="--feeds FEEDS")
    for i, binding in enumerate(itertools.cycle(bindings)):
        yield draw(interface, binding, np.random.default_rng([seed, i]))


# --- the model that watches itself ------------------------------------------------------------------------------------


def _instrumented(model: Path, values: set[str]) -> tuple[ModelProto, dict[str, list[str]]]:
    """The model with more outputs: value → the names of its minimum, maximum and shape."""
    import onnx

    proto = onnx.load(model, load_external_data=False)
    taken = {name for graph in _graphs(proto.graph) for node in graph.node for name in node.output}
    names = (name for i in itertools.count() if (name := f"observed_{i}") not in taken)
    found = _hand_out(proto.graph, values, names)
    proto.graph.output.extend(_declared(itertools.chain(*found.values())))
    return proto, found


def _hand_out(graph: GraphProto, values: set[str], names: Iterator[str]) -> dict[str, list[str]]:
    """Make `graph` compute minimum, maximum and shape of its own values and of those in its branches."""
    from onnx import TensorProto, helper

    found: dict[str, list[str]] = {}
    nodes: list[NodeProto] = []

    def reduce(value: str) -> None:
        x, low, high, shape = (next(names) for _ in range(4))
        nodes.append(helper.make_node("Cast", [value], [x], to=TensorProto.FLOAT))
        nodes.append(helper.make_node("ReduceMin", [x], [low], keepdims=0))
        nodes.append(helper.make_node("ReduceMax", [x], [high], keepdims=0))
        nodes.append(helper.make_node("Shape", [value], [shape]))
        found[value] = [low, high, shape]

    for value in graph.input:
        if value.name in values:
            reduce(value.name)
    for node in graph.node:
        nodes.append(node)
        branches = [a.g for a in node.attribute] if node.op_type == "If" else []
        for branch in branches:
            for value, inner in _hand_out(branch, values, names).items():
                for other in branches:
                    if other is not branch:
                        other.node.extend(_nothing(inner))
                    other.output.extend(_declared(inner))
                found[value] = [next(names) for _ in inner]
                node.output.extend(found[value])
        for value in node.output:
            if value in values and value not in found:
                reduce(value)
    del graph.node[:]
    graph.node.extend(nodes)
    return found


def _nothing(names: list[str]) -> list[NodeProto]:
    """What the branch that was not taken hands out: no number is in [inf, -inf]."""
    import numpy as np
    from onnx import helper, numpy_helper

    empty = (np.float32(np.inf), np.float32(-np.inf), np.zeros(0, np.int64))
    return [
        helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.asarray(x)))
        for name, x in zip(names, empty)
    ]


def _declared(names: Iterable[str]) -> list[ValueInfoProto]:
    """minimum, maximum, shape; minimum, maximum, shape; …"""
    from onnx import TensorProto, helper

    types = itertools.cycle(((TensorProto.FLOAT, []), (TensorProto.FLOAT, []), (TensorProto.INT64, [None])))
    return [helper.make_tensor_value_info(name, *kind) for name, kind in zip(names, types)]


def _graphs(graph: GraphProto) -> Iterator[GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for body in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _graphs(body)
