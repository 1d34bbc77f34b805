"""A rule's pattern as a sampler: small graphs in which it may fire, spelled at random."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import numpy as np
from onnx import ModelProto, defs, helper, numpy_helper

from optimizer.core import pattern as P
from optimizer.core.rule import Rule

Dims = tuple[int, ...]
FLOAT, INT64, BOOL = 1, 7, 9
OPSETS = (18, 20, 22, 23)
BASES: tuple[Dims, ...] = ((3, 8), (2, 3, 4), (2, 4, 3, 3), (8,), (1, 5), (4, 4))


class Unknown(Exception):
    """The sampler knows no graph for this pattern."""


def sample(rule: Rule, random: Random) -> ModelProto:
    """A model of the pattern's nodes; whether it is legal, and the rule fires, is for the caller to see.

    Raises:
        Unknown: the pattern asks for what the sampler does not know.
    """
    s = _Sampler(random)
    option = random.choice(rule.compiled.options).pattern
    root = s.value(option, s.base)
    outputs = [root, *(n for n in s.named if random.random() < 0.1)]
    graph = helper.make_graph(
        s.nodes, rule.name, s.inputs,
        [helper.make_tensor_value_info(o, FLOAT, None) for o in dict.fromkeys(outputs)], s.constants,
    )  # fmt: skip
    return helper.make_model(
        graph, ir_version=10, opset_imports=[helper.make_opsetid("", random.choice(OPSETS))], producer_name="fuzz"
    )


def _conv(base: Dims, transposed: bool) -> list[Dims]:
    out = 3
    kernel = (2,) * (len(base) - 2)
    return [base, (base[1], out, *kernel) if transposed else (out, base[1], *kernel), (out,)]


class _Sampler:
    def __init__(self, random: Random) -> None:
        self.random = random
        self.base: Dims = random.choice(BASES)
        self.nodes: list[Any] = []
        self.inputs: list[Any] = []
        self.constants: list[Any] = []
        self.made: dict[int, str] = {}  # by id of the pattern: one object is one value
        self.dims: dict[str, Dims | None] = {}
        self.named: list[str] = []
        self.count = 0

    # ── values ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def name(self) -> str:
        self.count += 1
        return f"v{self.count}"

    def node(self, op: str, operands: Sequence[str], dims: Dims | None = None, **attributes: Any) -> str:
        out = self.name()
        self.nodes.append(helper.make_node(op, list(operands), [out], **attributes))
        self.dims[out] = dims if dims is not None else self.dims.get(operands[0]) if operands else None
        return out

    def constant(self, x: Any, dtype: Any = np.float32) -> str:
        name = self.name()
        array = np.asarray(x, dtype)
        self.constants.append(numpy_helper.from_array(array, name))
        self.dims[name] = array.shape
        return name

    def input(self, dims: Dims, dtype: int = FLOAT) -> str:
        name = self.name()
        shape: list[Any] = list(dims)
        if shape and self.random.random() < 0.5:
            shape[0] = "N"
        self.inputs.append(helper.make_tensor_value_info(name, dtype, shape))
        self.dims[name] = dims
        return name

    def weights(self, dims: Dims, positive: bool = False) -> str:
        x = np.random.default_rng(self.random.getrandbits(32)).standard_normal(dims)
        return self.constant(np.abs(x) + 0.1 if positive else x)

    # ── patterns ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def value(self, p: P.Pattern, want: Dims, make: Callable[[], str] | None = None) -> str:
        """A value that fits the pattern, of about these dims; `make` makes what the pattern leaves open."""
        if isinstance(p, P.Either):
            return self.value(self.random.choice(p.options), want, make)
        if isinstance(p, P.Optional):
            return self.value(p.pattern, want, make) if self.random.random() < 0.6 else ""
        if isinstance(p, P.Let):
            return self.value(p.pattern, want, make)
        if id(p) in self.made:
            return self.made[id(p)]
        out = self._new(p, want, make)
        self.made[id(p)] = out
        return out

    def _new(self, p: P.Pattern, want: Dims, make: Callable[[], str] | None) -> str:
        r = self.random
        if isinstance(p, P.Anything):
            return make() if make is not None else self.input(want)
        if isinstance(p, P.Constant):
            return make() if make is not None else self.weights(r.choice((want, want[-1:], (1,), ())))
        if isinstance(p, P.Scalar):
            return self.constant(np.full(r.choice(((), (1,))), r.choice((0.5, 2.0, 1e-3, 1e-5))))
        if isinstance(p, P.Literal):
            return self.constant(np.full(r.choice(((), (), (1,))), p.number))
        if isinstance(p, P.Product):
            return self._product(p, want)
        if isinstance(p, P.Sum):
            return self._sum(p, want)
        if isinstance(p, P.Call):
            return self._call(p, want)
        raise Unknown(type(p).__name__)

    def _product(self, p: P.Chain, want: Dims) -> str:
        r = self.random
        factors = [(self.value(q, want), e) for q, e in p.parts]
        k = p.constant * (r.choice((0.5, 2.0, 0.125)) if p.scalar is not None and r.random() < 0.7 else 1.0)
        if p.rest is not None and r.random() < 0.5:
            factors.append((self.input(want), 1))
        if k != 1 or r.random() < 0.05:
            if r.random() < 0.3 and k > 0:
                part = r.choice((0.5, 2.0, 3.0))
                factors += [(self.constant(k / part), 1), (self.constant(part), 1)]
            else:
                factors.append((self.constant(1 / k), -1) if r.random() < 0.5 else (self.constant(k), 1))
        r.shuffle(factors)
        above = [(v, e) for v, e in factors if e > 0] or [(self.constant(1.0), 1)]
        out = ""
        for v, e in above:
            v = self._power(v, e)
            out = v if not out else self.node("Mul", r.choice(((out, v), (v, out))), self._wider(out, v))
        for v, e in factors:
            if e < 0:
                v = self._power(v, -e)
                if r.random() < 0.7:
                    out = self.node("Div", (out, v), self._wider(out, v))
                else:
                    out = self.node("Mul", (out, self.node("Reciprocal", (v,))), self._wider(out, v))
        return out

    def _power(self, v: str, e: float) -> str:
        r = self.random
        if e == 1:
            return v
        if e == 2 and r.random() < 0.5:
            return self.node("Mul", (v, v))
        if e == 3 and r.random() < 0.5:
            return self.node("Mul", (self.node("Mul", (v, v)), v))
        if e == 0.5 and r.random() < 0.7:
            return self.node("Sqrt", (v,))
        return self.node("Pow", (v, self.constant(e)))

    def _sum(self, p: P.Chain, want: Dims) -> str:
        r = self.random
        terms = [(self.value(q, want), e) for q, e in p.parts]
        c = p.constant + (r.choice((0.5, 1e-3, 1e-5)) if p.scalar is not None else 0.0)
        if p.rest is not None and r.random() < 0.5:
            terms.append((self.input(want), r.choice((1, -1))))
        if c:
            terms.append((self.constant(-c), -1) if r.random() < 0.2 else (self.constant(c), 1))
        r.shuffle(terms)
        terms.sort(key=lambda term: term[1] < 0 and r.random() < 0.8)
        out = ""
        for v, e in terms:
            if not out:
                out = v if e > 0 else self.node("Neg", (v,))
            elif e > 0:
                out = self.node("Add", r.choice(((out, v), (v, out))), self._wider(out, v))
            else:
                out = self.node("Sub", (out, v), self._wider(out, v))
        return out

    def _wider(self, a: str, b: str) -> Dims | None:
        x, y = self.dims.get(a), self.dims.get(b)
        try:
            return None if x is None or y is None else np.broadcast_shapes(x, y)
        except ValueError:
            return None

    # ── nodes ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _call(self, p: P.Call, want: Dims) -> str:
        op = p.op
        operands: list[str] = []
        wants, dims = self._wants(op, want)
        for i, q in enumerate(p.operands):
            need = wants[i] if i < len(wants) else want
            operands.append(self.value(q, need, self._makes(op, i, operands, need)))
        if op in ("BatchNormalization",):
            dims = self.dims.get(operands[0])
        while operands and not operands[-1]:
            operands.pop()
        if not defs.has(op):
            raise Unknown(op)
        attributes = {
            a: x for a, want_ in p.attributes.items() if (x := self._attribute(op, a, want_, operands)) is not None
        }
        if p.name is not None and op in _FREE and self.random.random() < 0.7:
            attributes = {**self._free(op, operands), **attributes}
        if op == "Cast":
            attributes.setdefault("to", self.random.choice((1, 1, 10, 11, 7, 16)))
        out = self.node(op, operands, dims, **attributes)
        self.named.append(out)
        if op in _SHRINKS:
            shape = self.dims.get(operands[0])
            self.dims[out] = None if shape is None else (*shape[:-1], 1)
        return out

    def _wants(self, op: str, want: Dims) -> tuple[list[Dims], Dims | None]:
        """The dims of the operands, and of the result where it differs from the first."""
        if op in ("Conv", "ConvTranspose"):
            base = want if len(want) > 2 else (2, 3, 4, 4)
            given = _conv(base, op == "ConvTranspose")
            step = 1 if op == "ConvTranspose" else -1
            return given, (base[0], 3, *(d + step for d in base[2:]))
        if op in ("MatMul", "Gemm"):
            base = want if len(want) == 2 or (op == "MatMul" and len(want) > 2) else (3, 4)
            return [base, (base[-1], 5), (5,)], (*base[:-1], 5)
        return [], None

    def _makes(self, op: str, i: int, operands: list[str], need: Dims) -> Callable[[], str] | None:
        """What an open operand of this op is, where it is not as the first; integers are constants."""
        r = self.random
        shape = self.dims.get(operands[0]) if operands else None
        rank = len(shape) if shape is not None else len(need)
        if op == "BatchNormalization" and i:
            channels = shape[1] if shape is not None and len(shape) > 1 else 3
            return lambda: self.weights((channels,), positive=i == 4)
        if op.startswith("Reduce") and i == 1:
            return lambda: self.constant(r.choice(([-1], [-1], [rank - 1], [0])), np.int64)
        if op == "Reshape" and i == 1:
            size = math.prod(shape) if shape is not None else 1
            return lambda: self.constant(r.choice(([-1], [0, -1], [1, -1], [size], list(shape or (1,)))), np.int64)
        if op in ("Squeeze", "Unsqueeze") and i == 1:
            return lambda: self.constant(r.choice(([0], [-1], [1])), np.int64)
        if op == "Pad" and i == 1:
            pads = [0] * (2 * rank)
            if rank and r.random() < 0.5:
                pads[-1] = 1
            return lambda: self.constant(pads, np.int64)
        if op == "Split" and i == 1:
            last = shape[0] if shape else 1
            return lambda: self.constant([last], np.int64)
        if op in ("Gather", "Slice", "Expand", "Tile", "TopK") and i:
            return lambda: self.constant([1], np.int64)
        if op == "Where" and i == 0:
            return lambda: self.input(need, BOOL)
        if op in ("Not", "And", "Or", "Xor"):
            return lambda: self.input(need, BOOL)
        if op in ("Conv", "ConvTranspose", "MatMul", "Gemm") and i:
            return lambda: self.weights(need)
        if op in ("Clip", "Dropout") and i:
            return lambda: self.constant(r.choice((-1.0, 0.0, 0.5, 1.0, 6.0)))
        return None

    def _attribute(self, op: str, name: str, want: Any, operands: list[str]) -> Any:
        if want is ... or want is None:
            return self._free(op, operands).get(name)
        if isinstance(want, P.Scalar):
            return self.random.choice((1e-3, 1e-5, 0.1))
        if isinstance(want, P.Pattern):
            return self._free(op, operands).get(name)
        return want

    def _free(self, op: str, operands: list[str]) -> dict[str, Any]:
        """Attributes at will."""
        r = self.random
        shape = self.dims.get(operands[0]) if operands else None
        rank = len(shape) if shape is not None else 2
        perm = list(range(rank))
        r.shuffle(perm)
        return {
            "Transpose": {"perm": perm},
            "Concat": {"axis": r.randrange(max(rank, 1))},
            "Split": {"axis": 0},
            "Flatten": {"axis": r.randrange(rank + 1)},
            "Cast": {"to": r.choice((1, 10, 11, 7, 6, 16))},
            "Conv": {"pads": [1] * (2 * (rank - 2))} if r.random() < 0.5 else {},
            "Gemm": r.choice(({}, {"alpha": 0.5}, {"beta": 2.0})),
            "Softmax": {"axis": -1},
            "LayerNormalization": {"axis": -1},
            "BatchNormalization": {"epsilon": 1e-3},
        }.get(op, {})


_FREE = frozenset(("Transpose", "Concat", "Split", "Flatten", "Cast", "Conv", "Gemm", "Softmax", "LayerNormalization"))
_SHRINKS = frozenset(("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL2"))
