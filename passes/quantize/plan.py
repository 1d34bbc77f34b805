"""x ≈ s·(q − z): which values become 8-bit integers, with which scale, and which nodes stay in float, and why.

Activations are uint8 with s = (high − low)/255 over what calibration saw, 0 included; weights are int8, symmetric, with
one scale an output channel, s_c = max |w_c| / q_max; a bias is int32 with s = s_x·s_c, so that it is added as it is.
On x86 without VNNI two products are summed in 16 bits: 2·255·q_max ≤ 32767 wants q_max = 64.

Sources: ONNX QuantizeLinear; what the runtime takes is in `passes.quantize.kernels`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from optimizer.core.edit import Edit
from optimizer.core.graph import Model, Node, Value
from optimizer.core.target import Target
from optimizer.core.tensor import Array
from optimizer.runtime.observe import Range
from passes.quantize.kernels import Kernel, clip_bounds, factor, is_constant, kernel_of
from passes.quantize.masks import on_mask_path
from passes.quantize.place import Flow, choose, times
from passes.select import named_by, origins

FLOAT = 1
_LARGEST = 1e30  # beyond it a "range" is a sentinel
_LEAST_SCALE = 2.0**-60
_FORBIDDEN = 1e12  # ns: more than any model takes
_MULTIPLIES = frozenset(["Conv", "ConvTranspose", "Einsum", "Gemm", "GRU", "LSTM", "MatMul", "RNN"])


@dataclass(frozen=True, slots=True)
class Quantized:
    """How one value is represented: x ≈ scale·(q − zero_point).

    Fields:
        dtype: "uint8", "int8" or "int32".
        axis: along which scales differ; None: one scale.
        scale: float32, one or one a channel.
        group: the value whose scale it shares, itself if none.
        why: the op that asks for it.
    """

    value: str
    dtype: str
    scale: tuple[float, ...]
    zero_point: int
    axis: int | None
    group: str
    why: str

    def to_dict(self) -> dict[str, Any]:
        scale = self.scale[0] if self.axis is None else list(self.scale)
        row = {"dtype": self.dtype, "axis": self.axis, "group": self.group, "scale": scale}
        return {**row, "zero_point": self.zero_point, "why": self.why}


@dataclass(frozen=True, slots=True)
class Unit:
    """Nodes that the runtime takes as one integer kernel, named by their first outputs: `MatMul, Add, Relu`.

    Fields:
        quantized: the last output is an integer one, that all its readers read dequantized.
        multiplies: it is a product, not one of those that only keep integers between products.
    """

    nodes: tuple[str, ...]
    kernel: str
    quantized: bool
    multiplies: bool


@dataclass(frozen=True, slots=True)
class QuantPlan:
    """What becomes of a model: values by name, kernels in the graph's order, and why other products stay float."""

    values: Mapping[str, Quantized]
    units: tuple[Unit, ...]
    left: Mapping[str, str]

    def of(self, value: str, node: str) -> Quantized:
        """How the node with this first output reads a value: constants may be read in several ways."""
        return self.values.get(f"{value}@{node}") or self.values[value]

    def to_dict(self) -> dict[str, Any]:
        """The receipt's "plan": value → {dtype, axis, group, scale, zero_point, why}; float products → {dtype, why}."""
        kept = {name: {"dtype": "float32", "why": why} for name, why in self.left.items()}
        return {**{name: q.to_dict() for name, q in self.values.items()}, **kept}


@dataclass(slots=True, eq=False)
class _Candidate:
    """A unit under consideration: the node that multiplies (or keeps integers), and what is absorbed behind it."""

    node: Node
    kernel: Kernel
    tail: list[Node] = field(default_factory=list["Node"])

    @property
    def outputs(self) -> list[Value]:
        return (self.tail[-1] if self.tail else self.node).outputs

    @property
    def out(self) -> Value:
        return self.outputs[0]

    @property
    def nodes(self) -> list[Node]:
        return [self.node, *self.tail]

    @property
    def data(self) -> Iterator[Value]:
        for i in self.kernel.data(self.node):
            v = self.node.inputs[i]
            assert v is not None
            yield v

    @property
    def weight(self) -> Value | None:
        v = self.node.inputs[1] if self.kernel.weighted else None
        return v if is_constant(v) else None

    @property
    def bias(self) -> Value | None:
        """The constant vector that is added: an operand of the node, or of the Add behind a MatMul."""
        k = self.kernel.bias
        if 0 <= k < len(self.node.inputs):
            return self.node.inputs[k]
        add = self.tail[0] if self.tail and self.tail[0].op == "Add" else None
        return next((v for v in add.inputs if is_constant(v)), None) if add is not None else None


def watched(model: Model) -> list[str]:
    """The names of the values whose ranges `plan` asks for."""
    return [v.name for v in dict.fromkeys(_floats(model)) if v.dtype == FLOAT and v.name]


def _floats(model: Model) -> Iterator[Value]:
    for n in model.nodes():
        if kernel_of(n) is not None or (not n.domain and (n.op in ("Softmax", "Where") or clip_bounds(n))):
            yield from (v for v in (*n.inputs, *n.outputs) if v is not None and not v.is_const)


def plan(
    model: Model,
    ranges: Mapping[str, Range],
    target: Target,
    *,
    ignore: Sequence[str] = (),
    log: Sequence[Edit] = (),
    keep: Mapping[str, str] | None = None,
    everywhere: bool = False,
) -> QuantPlan:
    """Place integers where the target's runtime has kernels for them; nothing is changed.

    Args:
        model: at opset 13 or later, its types known.
        ranges: of the values that `watched` names, as calibration saw them.
        target: says how many bits of a weight are significant.
        ignore: globs of names of nodes that stay float; log: the edits so far, so that replaced nodes' names count.
        keep: more nodes that stay float, by the name of their first output → why.
        everywhere: products are integers wherever they can be, not only where that is faster.

    Raises:
        BadInput: a glob matches nothing.
    """
    return _Planner(model, ranges, target, ignore, log, keep or {}).plan(everywhere)


class _Planner:
    def __init__(
        self,
        model: Model,
        ranges: Mapping[str, Range],
        target: Target,
        ignore: Sequence[str],
        log: Sequence[Edit],
        keep: Mapping[str, str],
    ) -> None:
        self.model, self.ranges, self.target = model, ranges, target
        self.largest = 64 if target.weight_bits == 7 else 127
        self.masked = on_mask_path(model, ranges)
        kernels = {n: kernel_of(n) for n in model.nodes()}
        nodes = [n for n, k in kernels.items() if k is not None or (n.op in _MULTIPLIES and not n.domain)]
        self.ignored = named_by(ignore, nodes, origins(log))
        self.left: dict[str, str] = {}
        self.alive: dict[Node, _Candidate] = {}  # by every node of the unit
        absorbed: set[Node] = set()
        for n in nodes:
            if n in absorbed:
                continue
            kernel = kernels[n]
            c = _Candidate(n, kernel, self._tail(n, kernel)) if kernel is not None else None
            why = keep.get(n.output.name) or (self._refuses(c) if c is not None else f"{n.op} has no integer kernel")
            if c is not None and not why:
                absorbed.update(c.tail)
                self.alive.update(dict.fromkeys(c.nodes, c))
            elif n.op in _MULTIPLIES:
                self.left[n.name or n.output.name] = why

    def plan(self, everywhere: bool) -> QuantPlan:
        self._settle(everywhere)
        values = {v.name: q for v, q in self._activations().items()}
        units: list[Unit] = []
        for c in dict.fromkeys(self.alive.values()):
            names = tuple(n.output.name for n in c.nodes)
            units.append(Unit(names, c.kernel.name, self._gives_integers(c), c.kernel.weighted))
            for v, q in self._constants(c, values):
                same = values.setdefault(v.name, q)
                if (same.dtype, same.axis, same.scale) != (q.dtype, q.axis, q.scale):
                    values[f"{v.name}@{names[0]}"] = q
        return QuantPlan(values, tuple(units), self.left)

    # --- which nodes ---

    def _tail(self, n: Node, kernel: Kernel | None) -> list[Node]:
        """What the runtime absorbs behind a node: MatMul's bias, then a Relu, or a Clip from 0."""
        tail: list[Node] = []
        if kernel is None or kernel.keeps:
            return tail
        out = n.output
        reader = _only_reader(out)
        if n.op == "MatMul" and is_constant(n.inputs[1]) and reader is not None and reader.op == "Add":
            other = [v for v in reader.inputs if v is not out]
            if len(other) == 1 and is_constant(other[0]) and other[0] is not None and other[0].rank == 1:
                tail.append(reader)
                reader = _only_reader(reader.output)
        if reader is not None and not reader.domain and reader.graph is n.graph and clip_bounds(reader):
            tail.append(reader)
        return tail if not any(t in self.ignored for t in tail) else []

    def _refuses(self, c: _Candidate) -> str:
        """Why a node stays float whatever its neighbours are, or ""."""
        n = c.node
        if n in self.ignored:
            return "ignored"
        if why := c.kernel.refuses(n):
            return why
        if any(v.dtype != FLOAT for v in (*c.data, c.out)):
            return "not float32"
        if any(v in self.masked for v in (*c.data, *c.outputs)):
            return "mask path"
        for v in (*c.data, *(() if c.kernel.gives_floats else c.outputs)):
            if why := self._unusable(v):
                return why
        for w in (c.weight, c.bias):
            if w is not None and (w.dtype != FLOAT or not np.isfinite(_array(w)).all()):
                return f"a constant is not of finite float32 numbers: {w.name}"
        return ""

    def _unusable(self, v: Value) -> str:
        if v.is_const:
            return "" if _array(v).size and np.isfinite(_array(v)).all() else f"not finite: {v.name}"
        r = self.ranges.get(v.name)
        if r is None:
            return f"inside a loop, where no range is observed: {v.name}"
        if r.low > r.high:
            return f"the feeds never reach it: {v.name}"
        if not math.isfinite(r.low) or not math.isfinite(r.high) or max(-r.low, r.high) > _LARGEST:
            return f"not finite: {v.name}"
        return ""

    def _settle(self, everywhere: bool) -> None:
        """Of what could run in integers, keep what makes the whole fastest."""
        units = list(dict.fromkeys(self.alive.values()))
        number = {c: i for i, c in enumerate(units)}
        dims = {name: r.dims for name, r in self.ranges.items()}
        images = any(n.op == "Conv" for n in self.alive)
        flows: list[Flow] = []
        for v in dict.fromkeys(v for c in units for v in (*c.data, *c.outputs) if not v.is_const):
            maker = self._unit_making(v)
            readers = [number[self.alive[r]] if self._reads_integers(r, v) else None for r in v.uses]
            flows.append(
                Flow(
                    maker=number[maker] if maker is not None and not maker.kernel.gives_floats else None,
                    readers=(*readers, *([None] if v.is_output else [])),
                    size=math.prod(dims.get(v.name, ())),
                    turns=images and len(dims.get(v.name, ())) == 4,
                )
            )
        costs = {i: times(c.node, dims, self.target) for c, i in number.items()}
        if everywhere:
            costs |= {i: (_FORBIDDEN, costs[i][1]) for c, i in number.items() if c.kernel.weighted}
        chosen = choose(costs, flows)
        for c, i in number.items():
            if i not in chosen:
                for n in c.nodes:
                    del self.alive[n]
                if c.kernel.weighted:
                    self.left[c.node.name or c.node.output.name] = "float is faster there"

    def _unit_making(self, v: Value) -> _Candidate | None:
        c = self.alive.get(v.producer) if v.producer is not None else None
        return c if c is not None and any(v is o for o in c.outputs) else None

    def _reads_integers(self, reader: Node, v: Value) -> bool:
        c = self.alive.get(reader)
        return c is not None and any(x is v for x in c.data)

    def _gives_integers(self, c: _Candidate) -> bool:
        """Whether the unit's output is one of integers: where it may be float, if any reader takes integers."""
        return not c.kernel.gives_floats or any(self._reads_integers(r, c.out) for r in c.out.uses)

    # --- with which scales ---

    def _groups(self) -> dict[Value, tuple[Value, float]]:
        """Each value of a unit that keeps integers → the first one of its group, and the proportion to its scale."""
        found: dict[Value, tuple[Value, float]] = {}
        for c in dict.fromkeys(self.alive.values()):  # in the graph's order
            if c.kernel.keeps:
                x = next(c.data)
                first, proportion = found.setdefault(x, (x, 1.0))
                found.update(dict.fromkeys(c.outputs, (first, proportion * (factor(c.node) or 1.0))))
        return found

    def _activations(self) -> dict[Value, Quantized]:
        """How each value that integer nodes read or give is represented."""
        groups = self._groups()
        members: dict[Value, list[tuple[Value, float]]] = {}
        for v, (first, proportion) in groups.items():
            members.setdefault(first, []).append((v, proportion))
        found: dict[Value, Quantized] = {}
        for c in dict.fromkeys(self.alive.values()):
            for v in (*c.data, *(c.outputs if self._gives_integers(c) else ())):
                first, proportion = groups.get(v, (v, 1.0))
                ranges = [(a / p, b / p) for m, p in members.get(first, [(v, 1.0)]) for a, b in [self._range(m)]]
                low, high = min(0.0, *(a for a, _ in ranges)), max(0.0, *(b for _, b in ranges))
                scale = max((high - low) / 255, _LEAST_SCALE)
                zero = round(min(max(-low / scale, 0), 255))
                why = f"{c.node.op} {c.node.name}".rstrip()
                scale = float(np.float32(scale * proportion))
                found.setdefault(v, Quantized(v.name, "uint8", (scale,), zero, None, first.name, why))
        return found

    def _range(self, v: Value) -> tuple[float, float]:
        if v.is_const:
            a = _array(v)
            return float(a.min()), float(a.max())
        r = self.ranges[v.name]
        return r.low, r.high

    def _constants(self, c: _Candidate, values: Mapping[str, Quantized]) -> Iterator[tuple[Value, Quantized]]:
        """A unit's weight and bias; a channel whose bias would not fit int32 gets a larger scale."""
        w, b = c.weight, c.bias
        if w is None:
            return
        axis = c.kernel.axis(c.node)
        a = _array(w)
        largest = np.abs(a).max(axis=tuple(i for i in range(a.ndim) if i != axis)).astype(np.float64)
        scale = np.maximum(np.where(largest > 0, largest / self.largest, 1.0), _LEAST_SCALE)
        step = values[next(c.data).name].scale[0]
        if b is not None:
            scale = np.maximum(scale, np.abs(_array(b)) / (step * 2.0**30))
        why = f"{c.node.op} {c.node.name}".rstrip()
        scales = scale.astype(np.float32)
        yield w, Quantized(w.name, "int8", tuple(scales.tolist()), 0, axis, w.name, why)
        if b is not None:
            yield b, Quantized(b.name, "int32", tuple((np.float32(step) * scales).tolist()), 0, 0, w.name, why)


def _only_reader(v: Value) -> Node | None:
    """The node that alone reads a value which is no output."""
    if v.is_output or len(v.uses) != 1:
        return None
    (reader,), (count,) = v.uses.keys(), v.uses.values()
    return reader if count == 1 and reader.graph is v.graph else None


def _array(v: Value) -> Array:
    a = v.const
    assert a is not None
    return a
