"""Kinds of wrong rewrite of any graph: each changes one node of a real model as a faulty pass would.

A kind names the ops that it applies to and a function that changes a node in place and says whether it did.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

Change = Callable[["Site"], bool]


@dataclass(slots=True)
class Site:
    """One node of a model that is being spoilt, with what a pass would know of it."""

    model: ModelProto
    graph: GraphProto
    node: NodeProto
    sizes: dict[str, np.ndarray]  # integer values at the base binding, main graph only
    constants: dict[str, np.ndarray] = field(default_factory=dict)

    def constant(self, slot: int) -> np.ndarray | None:
        return self.constants.get(self.node.input[slot]) if slot < len(self.node.input) else None

    def fresh(self, array: np.ndarray) -> str:
        name = f"spoilt_{len(self.model.graph.initializer)}"
        self.model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def set_constant(self, slot: int, array: np.ndarray) -> bool:
        old = self.constant(slot)
        if old is None or (old.shape == array.shape and np.array_equal(old, array, equal_nan=old.dtype.kind == "f")):
            return False
        self.node.input[slot] = self.fresh(array.astype(old.dtype))
        return True

    def get(self, name: str, default: Any = None) -> Any:
        return next((helper.get_attribute_value(a) for a in self.node.attribute if a.name == name), default)

    def set(self, name: str, value: Any) -> bool:
        for i, attribute in enumerate(self.node.attribute):
            if attribute.name == name:
                del self.node.attribute[i]
                break
        self.node.attribute.append(helper.make_attribute(name, value))
        return True

    def drop(self, slot: int = 0) -> bool:
        """The node becomes an Identity of one operand."""
        self.node.op_type, kept = "Identity", self.node.input[slot]
        del self.node.input[:], self.node.attribute[:], self.node.output[1:]
        self.node.domain = ""
        self.node.input.append(kept)
        return True

    def insert(self, *nodes: tuple[str, list[str], dict[str, Any]], slot: int = 0) -> bool:
        """Nodes between the first output and its readers; "x" is the value, "y" what is read, others are between."""
        if not self.node.output or not self.node.output[slot]:
            return False
        name, at = self.node.output[slot], list(self.graph.node).index(self.node)
        self.node.output[slot] = f"{name}_right"
        fresh = {"x": f"{name}_right", "y": name}
        for op, names, attributes in reversed(nodes):
            *ins, out = [fresh.get(n, n if n.startswith("spoilt_") else f"{name}_{n}") for n in names]
            self.graph.node.insert(at + 1, helper.make_node(op, ins, [out], **attributes))
        return True


def retype(op: str) -> Change:
    def change(site: Site) -> bool:
        site.node.op_type = op
        return True

    return change


def drop(slot: int = 0) -> Change:
    return lambda site: slot < len(site.node.input) and site.drop(slot)


def swap(a: int, b: int) -> Change:
    def change(site: Site) -> bool:
        ins = site.node.input
        if len(ins) <= max(a, b) or ins[a] == ins[b]:
            return False
        ins[a], ins[b] = ins[b], ins[a]
        return True

    return change


def attribute(name: str, new: Callable[[Any], Any], default: Any = None) -> Change:
    def change(site: Site) -> bool:
        old = site.get(name, default)
        if old is None:
            return False
        value = new(copy.copy(list(old)) if isinstance(old, (list, tuple)) else old)
        return value is not None and value != old and site.set(name, value)

    return change


def operand(slot: int, new: Callable[[np.ndarray], Any]) -> Change:
    def change(site: Site) -> bool:
        old = site.constant(slot)
        if old is None or old.dtype == object:
            return False
        with np.errstate(all="ignore"):
            value = new(old.copy())
        return value is not None and site.set_constant(slot, np.asarray(value))

    return change


def unplug(slot: int) -> Change:
    def change(site: Site) -> bool:
        if slot >= len(site.node.input) or not site.node.input[slot]:
            return False
        if slot == len(site.node.input) - 1:
            site.node.input.pop()
        else:
            site.node.input[slot] = ""
        return True

    return change


def bake(slot: int) -> Change:
    """What the operand happens to be at the base binding becomes a constant."""

    def change(site: Site) -> bool:
        if slot >= len(site.node.input) or site.constant(slot) is not None:
            return False
        value = site.sizes.get(site.node.input[slot])
        if value is None:
            return False
        site.node.input[slot] = site.fresh(value)
        return True

    return change


def bake_output(site: Site) -> bool:
    value = site.sizes.get(site.node.output[0])
    if value is None:
        return False
    del site.node.input[:], site.node.attribute[:]
    site.node.input.append(site.fresh(value))
    site.node.op_type = "Identity"
    return True


def outputs(a: int, b: int) -> Change:
    def change(site: Site) -> bool:
        outs = site.node.output
        if len(outs) <= max(a, b) or not outs[a] or not outs[b]:
            return False
        outs[a], outs[b] = outs[b], outs[a]
        return True

    return change


def either(*changes: Change) -> Change:
    return lambda site: any(change(site) for change in changes)


def bodies_swapped(site: Site) -> bool:
    a, b = (next(x for x in site.node.attribute if x.name == f"{name}_branch") for name in ("then", "else"))
    a.g.CopyFrom((kept := copy.deepcopy(a.g)) and b.g)
    b.g.CopyFrom(kept)
    return True


def where(test: str, limit: float, instead: float | None = None) -> Change:
    """Beyond (`Less` or `Greater` than) a magnitude, another value."""

    def change(site: Site) -> bool:
        t, v = site.fresh(np.float32(limit)), site.fresh(np.float32(0 if instead is None else instead))
        return site.insert(
            ("Abs", ["x", "a"], {}), (test, ["a", t, "c"], {}), ("Where", ["c", v, "x", "y"], {})
        )  # fmt: skip

    return change


def at(value: float, instead: float) -> Change:
    def change(site: Site) -> bool:
        t, v = site.fresh(np.float32(value)), site.fresh(np.float32(instead))
        return site.insert(("Equal", ["x", t, "c"], {}), ("Where", ["c", v, "x", "y"], {}))

    return change


def scaled(factor: float) -> Change:
    return lambda site: site.insert(("Mul", ["x", site.fresh(np.float32(factor)), "y"], {}))


def through(element: int) -> Change:
    return lambda site: site.insert(
        ("Cast", ["x", "a"], {"to": element}), ("Cast", ["a", "y"], {"to": TensorProto.FLOAT})
    )


def _moved(values: Any, i: int = 0, by: int = 1) -> Any:
    values[i] += by
    return values


def _poke(array: np.ndarray, place: float, value: float | None = None) -> np.ndarray | None:
    """One element is another number."""
    if array.dtype.kind != "f" or array.size < 8:
        return None
    i = int(place * (array.size - 1))
    array.flat[i] = -array.flat[i] - 0.1 if value is None else value
    return array


def _row(array: np.ndarray, place: float) -> np.ndarray | None:
    if array.dtype.kind != "f" or array.ndim != 2 or len(array) < 8:
        return None
    array[int(place * (len(array) - 1))] += 1
    return array


def _reversed_pads(pads: list[int]) -> list[int] | None:
    half = len(pads) // 2
    return (
        pads[half:] + pads[:half]
        if pads[:half] != pads[half:]
        else [p + 1 for p in pads[:half]] + [max(p - 1, 0) for p in pads[half:]]
    )


def _square(array: np.ndarray) -> np.ndarray | None:
    return array.swapaxes(-1, -2) if array.ndim >= 2 and array.shape[-1] == array.shape[-2] else None


def _numbers(array: np.ndarray, new: Callable[[np.ndarray], Any]) -> Any:
    return new(array) if array.dtype.kind == "f" and array.size == 1 and np.isfinite(array).all() else None


ANY_FLOAT = (
    *("Add", "Mul", "MatMul", "Conv", "Relu", "Div", "Sub", "Concat"),
    *("Transpose", "Reshape", "Gemm", "Sigmoid", "Tanh", "LSTM", "Clip", "Softmax"),
)

MUTATORS: dict[str, tuple[tuple[str, ...], Change]] = {
    # --- ops ---
    "drop Relu": (("Relu",), drop()),
    "Relu → Abs": (("Relu",), retype("Abs")),
    "drop an activation": (("Sigmoid", "Tanh", "HardSwish", "HardSigmoid", "LeakyRelu", "Gelu", "Erf", "Elu"), drop()),
    "another activation": (
        ("Sigmoid", "Tanh"),
        lambda s: retype("Tanh" if s.node.op_type == "Sigmoid" else "Sigmoid")(s),
    ),
    "drop Clip": (("Clip",), drop()),
    "Clip: upper bound ×1.5": (("Clip",), either(attribute("max", lambda v: v * 1.5), operand(2, lambda v: v * 1.5))),
    "Clip: no lower bound": (("Clip",), either(attribute("min", lambda v: -1e30), operand(1, lambda v: v * 0 - 1e30))),
    "Add → Sub": (("Add",), retype("Sub")),
    "Sub: operands swapped": (("Sub",), swap(0, 1)),
    "Div: operands swapped": (("Div",), swap(0, 1)),
    "Mul → Add": (("Mul",), retype("Add")),
    "Div → Mul": (("Div",), retype("Mul")),
    "drop a bias": (("Add",), lambda s: s.constant(1) is not None and s.drop(0)),
    "drop a residual": (("Add",), lambda s: s.constant(0) is None and s.constant(1) is None and s.drop(0)),
    "drop a scale": (("Mul", "Div"), lambda s: s.constant(1) is not None and s.drop(0)),
    "drop a gate": (("Mul",), lambda s: s.constant(0) is None and s.constant(1) is None and s.drop(1)),
    "drop Sqrt": (("Sqrt",), drop()),
    "Pow: exponent + 1": (("Pow",), operand(1, lambda v: v + 1)),
    "Neg dropped": (("Neg",), drop()),
    "Sin ↔ Cos": (("Sin", "Cos"), lambda s: retype("Cos" if s.node.op_type == "Sin" else "Sin")(s)),
    "Max → Min": (("Max", "ReduceMax"), lambda s: retype(s.node.op_type.replace("Max", "Min"))(s)),
    "Equal negated": (("Equal",), lambda s: s.insert(("Not", ["x", "y"], {}))),
    "Less → LessOrEqual": (("Less", "Greater"), lambda s: retype(s.node.op_type + "OrEqual")(s)),
    "LessOrEqual → Less": (
        ("LessOrEqual", "GreaterOrEqual"),
        lambda s: retype(s.node.op_type.removesuffix("OrEqual"))(s),
    ),
    "Where: branches swapped": (("Where",), swap(1, 2)),
    "Where: always the first": (("Where",), drop(1)),
    "Where: always the second": (("Where",), drop(2)),
    "Not dropped": (("Not",), drop()),
    "And → Or": (("And", "Or"), lambda s: retype("Or" if s.node.op_type == "And" else "And")(s)),
    "Cast dropped through int32": (
        ("Cast",),
        lambda s: (
            s.get("to") == TensorProto.INT64
            and s.insert(
                ("Cast", ["x", "a"], {"to": TensorProto.INT32}), ("Cast", ["a", "y"], {"to": TensorProto.INT64})
            )
        ),
    ),
    "Cast through uint8": (
        ("Cast",),
        lambda s: (
            s.get("to") == TensorProto.INT64
            and s.insert(
                ("Cast", ["x", "a"], {"to": TensorProto.UINT8}), ("Cast", ["a", "y"], {"to": TensorProto.INT64})
            )
        ),
    ),
    "Identity of the wrong operand": (
        ("Concat",),
        lambda s: len(s.node.input) == 2 and s.node.input[0] != s.node.input[1] and swap(0, 1)(s),
    ),
    # --- attributes ---
    "Softmax: axis − 1": (("Softmax",), attribute("axis", lambda a: a - 1 if a else a + 1, -1)),
    "Softmax → LogSoftmax": (("Softmax",), retype("LogSoftmax")),
    "Concat: axis": (("Concat",), attribute("axis", lambda a: a - 1 if a > 0 else a + 1)),
    "Gather: axis": (("Gather",), attribute("axis", lambda a: 0 if a else 1, 0)),
    "Gather: index + 1": (("Gather",), operand(1, lambda v: v + 1)),
    "Gather: index − 1": (("Gather",), operand(1, lambda v: v - 1)),
    "Transpose: last two": (("Transpose",), attribute("perm", lambda p: [*p[:-2], p[-1], p[-2]])),
    "Transpose: first two": (("Transpose",), attribute("perm", lambda p: [p[1], p[0], *p[2:]])),
    "Transpose as a Reshape": (
        ("Transpose",),
        lambda s: (
            s.get("perm") is not None
            and s.insert(
                ("Transpose", ["x", "a"], {"perm": [s.get("perm").index(i) for i in range(len(s.get("perm")))]}),
                ("Shape", ["x", "b"], {}),
                ("Reshape", ["a", "b", "y"], {}),
            )
        ),
    ),
    "Flatten: axis": (("Flatten",), attribute("axis", lambda a: a + 1, 1)),
    "epsilon × 100": (
        (
            "BatchNormalization",
            "LayerNormalization",
            "InstanceNormalization",
            "SkipLayerNormalization",
            "SimplifiedLayerNormalization",
        ),
        attribute("epsilon", lambda e: e * 100, 1e-5),
    ),
    "keepdims flipped": (
        ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL2", "ArgMax"),
        attribute("keepdims", lambda k: 1 - k, 1),
    ),
    "ReduceMean → ReduceMax": (("ReduceMean",), retype("ReduceMax")),
    "reduction: axis": (
        ("ReduceMean", "ReduceSum", "ReduceMax"),
        either(attribute("axes", lambda a: [a[0] - 1 if a[0] else 1, *a[1:]]), operand(1, lambda a: a - 1)),
    ),
    "ArgMax: last index": (("ArgMax",), attribute("select_last_index", lambda v: 1, 0)),
    "Trilu: other side": (("Trilu",), attribute("upper", lambda u: 1 - u, 1)),
    "Trilu: k + 1": (("Trilu",), operand(1, lambda k: k + 1)),
    "Gemm: transB": (
        ("Gemm",),
        lambda s: (
            (w := s.constant(1)) is not None and _square(w) is not None and s.set("transB", 1 - s.get("transB", 0))
        ),
    ),
    "Gemm: alpha": (("Gemm",), attribute("alpha", lambda a: a * 1.01, 1.0)),
    "Gemm: beta 0": (("Gemm",), lambda s: len(s.node.input) > 2 and s.set("beta", 0.0)),
    "Conv: pads moved": (("Conv", "MaxPool", "AveragePool"), attribute("pads", _reversed_pads)),
    "Conv: dilation": (("Conv",), attribute("dilations", lambda d: [2] * len(d))),
    "Conv: auto_pad": (
        ("Conv",),
        lambda s: (
            s.get("auto_pad", b"") in (b"SAME_UPPER", b"SAME_LOWER")
            and s.set("auto_pad", "SAME_LOWER" if s.get("auto_pad") == b"SAME_UPPER" else "SAME_UPPER")
        ),
    ),
    "Conv: weights flipped": (("Conv",), operand(1, lambda w: w[..., ::-1] if w.shape[-1] > 1 else None)),
    "Conv: output channels swapped": (("Conv",), operand(1, lambda w: np.roll(w, 1, 0) if len(w) > 1 else None)),
    "Conv: bias dropped": (("Conv", "Gemm"), unplug(2)),
    "MaxPool → AveragePool": (
        ("MaxPool",),
        lambda s: (
            not s.get("ceil_mode", 0)
            and len(s.node.output) == 1
            and not s.get("storage_order", 0)
            and retype("AveragePool")(s)
        ),
    ),
    "pool: ceil_mode": (("MaxPool", "AveragePool"), attribute("ceil_mode", lambda c: 1 - c, 0)),
    "pool: count_include_pad": (("AveragePool",), attribute("count_include_pad", lambda c: 1 - c, 0)),
    "GlobalAveragePool → GlobalMaxPool": (("GlobalAveragePool",), retype("GlobalMaxPool")),
    "Resize: nearest_mode": (
        ("Resize",),
        lambda s: s.get("mode", b"nearest") == b"nearest" and s.set("nearest_mode", "ceil"),
    ),
    "LSTM: direction": (
        ("LSTM",),
        lambda s: s.get("direction", b"forward") == b"forward" and s.set("direction", "reverse"),
    ),
    "LSTM: gates": (("LSTM",), operand(1, lambda w: np.concatenate([np.split(w, 4, 1)[i] for i in (0, 2, 1, 3)], 1))),
    "LSTM: bias dropped": (("LSTM",), unplug(3)),
    "LSTM: state dropped": (("LSTM",), unplug(5)),
    "LSTM: h and c swapped": (("LSTM",), outputs(1, 2)),
    "If: branches swapped": (("If",), bodies_swapped),
    "Split: outputs swapped": (("Split",), outputs(0, 1)),
    "CumSum: exclusive": (("CumSum",), attribute("exclusive", lambda e: 1 - e, 0)),
    # --- operands ---
    "Slice: start + 1": (("Slice",), operand(1, lambda v: v + 1)),
    "Slice: end − 1": (("Slice",), operand(2, lambda v: np.where(v > 1 << 30, -1, v - 1))),
    "Slice: step 2": (("Slice",), operand(4, lambda v: v * 2)),
    "Pad: amounts reversed": (("Pad",), either(operand(1, lambda v: v[::-1]), attribute("pads", lambda p: p[::-1]))),
    "Pad: another mode": (("Pad",), attribute("mode", lambda m: "edge" if m != b"edge" else "reflect", b"constant")),
    "BatchNormalization: mean dropped": (("BatchNormalization",), operand(3, lambda v: v * 0)),
    "BatchNormalization: scale and bias swapped": (("BatchNormalization",), swap(1, 2)),
    "BatchNormalization: variance as deviation": (("BatchNormalization",), operand(4, lambda v: v * v)),
    "a scalar's third digit": (
        ("Add", "Mul", "Sub", "Div", "Pow", "Max", "Min"),
        either(
            operand(1, lambda v: _numbers(v, lambda x: x * 1.003)),
            operand(0, lambda v: _numbers(v, lambda x: x * 1.003)),
        ),
    ),
    "a scalar's fifth digit": (
        ("Add", "Mul", "Sub", "Div"),
        either(
            operand(1, lambda v: _numbers(v, lambda x: x * 1.00003)),
            operand(0, lambda v: _numbers(v, lambda x: x * 1.00003)),
        ),
    ),
    "a scalar's sixth digit": (
        ("Add", "Mul", "Sub", "Div"),
        either(
            operand(1, lambda v: _numbers(v, lambda x: x * 1.000004)),
            operand(0, lambda v: _numbers(v, lambda x: x * 1.000004)),
        ),
    ),
    "ε × 1000": (
        ("Add", "Max"),
        either(
            operand(1, lambda v: _numbers(v, lambda x: x * 1000 if abs(x.item()) < 1e-3 else None)),
            operand(0, lambda v: _numbers(v, lambda x: x * 1000 if abs(x.item()) < 1e-3 else None)),
        ),
    ),
    "ε dropped": (
        ("Add", "Max"),
        either(
            operand(1, lambda v: _numbers(v, lambda x: x * 0 if abs(x.item()) < 1e-3 else None)),
            operand(0, lambda v: _numbers(v, lambda x: x * 0 if abs(x.item()) < 1e-3 else None)),
        ),
    ),
    "a constant of a comparison + 1": (
        ("Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual"),
        either(
            operand(1, lambda v: v + 1 if v.dtype.kind in "iuf" else None),
            operand(0, lambda v: v + 1 if v.dtype.kind in "iuf" else None),
        ),
    ),
    "a mask's −∞ as −10": (
        ("Where", "Mul", "Add"),
        either(
            *(
                operand(i, lambda v: np.where(v < -1e3, -10, v) if v.dtype.kind == "f" and v.size == 1 else None)
                for i in (1, 0, 2)
            )
        ),
    ),
    "one weight": (("MatMul", "Conv", "Gemm", "LSTM"), operand(1, lambda w: _poke(w, 0.4))),
    "a weight transposed": (("MatMul",), operand(1, _square)),
    "a weight through half": (
        ("MatMul", "Conv", "Gemm"),
        operand(1, lambda w: w.astype(np.float16) if w.dtype == np.float32 else None),
    ),
    "a weight's sixth digit": (
        ("MatMul", "Conv", "Gemm"),
        operand(1, lambda w: w * np.float32(1.000004) if w.dtype == np.float32 else None),
    ),
    "a row of a table: the last": (("Gather",), operand(0, lambda w: _row(w, 1))),
    "a row of a table: the first": (("Gather",), operand(0, lambda w: _row(w, 0))),
    "a row of a table: a rare one": (("Gather",), operand(0, lambda w: _row(w, 0.6137))),
    "MatMul: operands swapped": (("MatMul",), swap(0, 1)),
    "ScatterND: updates dropped": (("ScatterND",), drop()),
    # --- sizes ---
    "a Shape baked": (("Shape",), bake_output),
    "a size baked": (
        ("Gather", "Slice", "Squeeze", "Cast", "Unsqueeze", "Concat", "Mul", "Add", "Sub", "Div"),
        bake_output,
    ),
    "a Reshape baked": (("Reshape",), bake(1)),
    "an Expand baked": (("Expand", "Tile"), bake(1)),
    "a Slice's end baked": (("Slice",), bake(2)),
    "a Range baked": (("Range",), bake(1)),
    "a ConstantOfShape baked": (("ConstantOfShape",), bake(0)),
    "a Resize baked": (("Resize", "Upsample"), either(bake(3), bake(2))),
    "a Reshape's −1 baked": (
        ("Reshape",),
        lambda s: (shape := s.sizes.get(f"shape of {s.node.output[0]}")) is not None and s.set_constant(1, shape),
    ),
    # --- values ---
    "×1.001": (ANY_FLOAT, scaled(1.001)),
    "×1.00002": (ANY_FLOAT, scaled(1.00002)),
    "×1.000004": (ANY_FLOAT, scaled(1.000004)),
    "through half": (ANY_FLOAT, through(TensorProto.FLOAT16)),
    "through bfloat16": (ANY_FLOAT, through(TensorProto.BFLOAT16)),
    "wrong at zero": (ANY_FLOAT, at(0, 0.5)),
    "wrong at one": (ANY_FLOAT, at(1, 2)),
    "wrong beyond 20": (ANY_FLOAT, where("Greater", 20, 20)),
    "wrong beyond 500": (ANY_FLOAT, where("Greater", 500, 0)),
    "wrong below 10⁻³": (ANY_FLOAT, where("Less", 1e-3, 0)),
    "wrong below 10⁻⁶": (ANY_FLOAT, where("Less", 1e-6, 1e-2)),
    "half's overflow": (ANY_FLOAT, where("Greater", 65504, np.inf)),
}


def mutants(
    model: ModelProto, feed: dict[str, Any] | None, *, sites: int, seed: int
) -> Iterator[tuple[str, str, ModelProto]]:
    """(kind, node, mutant) for every kind that applies, at up to `sites` of its nodes: the first, and random ones."""
    rng = np.random.default_rng(seed)
    sizes = _sizes(model, feed) if feed is not None else {}
    for kind, (ops, change) in MUTATORS.items():
        places = [i for i, (_, node) in enumerate(_nodes(model.graph)) if node.op_type in ops]
        order = [*places[:1], *(places[1:][i] for i in rng.permutation(max(len(places) - 1, 0)))]
        done = 0
        for place in order[: 12 * sites]:
            if done == sites:
                break
            spoilt = copy.deepcopy(model)
            graph, node = list(_nodes(spoilt.graph))[place]
            name = node.output[0]
            if change(Site(spoilt, graph, node, sizes, _constants(spoilt.graph))):
                done += 1
                yield kind, name, spoilt
    yield from _swapped_outputs(model)


def _swapped_outputs(model: ModelProto) -> Iterator[tuple[str, str, ModelProto]]:
    """Two outputs of one type change places: their producers, not their names."""
    outs = model.graph.output
    for i in range(len(outs) - 1):
        if outs[i].type == outs[i + 1].type:
            spoilt = copy.deepcopy(model)
            names = {outs[i].name: outs[i + 1].name, outs[i + 1].name: outs[i].name}
            for _, node in _nodes(spoilt.graph):
                for k, name in enumerate(node.input):
                    node.input[k] = names.get(name, name)
                for k, name in enumerate(node.output):
                    node.output[k] = names.get(name, name)
            yield "outputs swapped", outs[i].name, spoilt
            return


def _sizes(model: ModelProto, feed: dict[str, Any]) -> dict[str, np.ndarray]:
    """Integer values of the main graph at one feed; for a Reshape's output, its shape."""
    probe = copy.deepcopy(model)
    try:
        probe = onnx.shape_inference.infer_shapes(probe)
    except Exception:
        return {}
    integers = {
        v.name for v in probe.graph.value_info if v.type.tensor_type.elem_type in (TensorProto.INT64, TensorProto.INT32)
    }
    constants = _constants(model.graph)
    wanted = [o for n in probe.graph.node for o in n.output if o in integers and o not in constants]
    shapes = [n.output[0] for n in probe.graph.node if n.op_type == "Reshape"]
    known = {o.name for o in probe.graph.output}
    probe.graph.output.extend(
        helper.make_empty_tensor_value_info(n) for n in dict.fromkeys(wanted + shapes) if n not in known
    )
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(probe.SerializeToString(), options, providers=["CPUExecutionProvider"])
        values = dict(zip([o.name for o in session.get_outputs()], session.run(None, feed), strict=True))
    except Exception:
        return {}
    found = {name: values[name] for name in wanted if name in values and values[name].size <= 16}
    return found | {f"shape of {name}": np.array(values[name].shape, np.int64) for name in shapes}


def _nodes(graph: GraphProto) -> Iterator[tuple[GraphProto, NodeProto]]:
    for node in graph.node:
        yield graph, node
        for attribute_ in node.attribute:
            for body in (*attribute_.graphs, *([attribute_.g] if attribute_.HasField("g") else [])):
                yield from _nodes(body)


def _constants(graph: GraphProto) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    graphs = {id(graph): graph}
    for owner, node in _nodes(graph):
        graphs[id(owner)] = owner
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            found[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    for owner in graphs.values():
        found |= {t.name: numpy_helper.to_array(t) for t in owner.initializer}
    return found


def save(model: ModelProto, path: Path) -> Path:
    path.write_bytes(model.SerializeToString())
    return path
