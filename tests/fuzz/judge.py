"""What the optimizer makes of a model, judged by our own comparison: nothing wrong, or what is.

The original's answers are ONNX Runtime's with optimizations off, onnx.reference's where it has no kernel. A difference
that reassociation may make counts only if it is far beyond what one unit in the last place of weights and inputs makes
of the original itself, and if nothing overflows inside of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

import numpy as np
import onnx
from answers import CannotRun, Feeds, Runner, differ_all, draw, interface
from onnx import ModelProto, TensorProto, ValueInfoProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from optimizer.core.edit import Edit, Editor, Fidelity
from optimizer.core.graph import lower
from optimizer.core.model import read
from optimizer.driver import pipeline, recipe
from optimizer.driver.presets import LEVELS

from .mutate import graphs

ROUNDING = 64.0  # last places of the largest value
NOISE = 16.0  # times what the last place of inputs and weights makes of the original
# the order of summation is the runtime's, and another where an operand became a constant; so are its approximations
INEXACT = frozenset(
    (
        *("Conv", "ConvTranspose", "Einsum", "Gemm", "MatMul", "ReduceMean", "ReduceSum", "ReduceL2", "Softmax"),
        *("LogSoftmax", "Exp", "Log", "Tanh", "Sigmoid", "Erf", "Softplus", "Pow", "Sin", "Cos", "Gelu", "HardSwish"),
    )
)
STEPS = recipe.parse(LEVELS[2])
Signature = tuple[str, tuple[str, ...], int, Any]


@dataclass
class Outcome:
    """`wrong` says what is, `rejected` why the model was not even asked about; neither: all is well."""

    wrong: str = ""
    rejected: str = ""
    firings: Counter[str] = field(default_factory=Counter[str])
    signatures: list[Signature] = field(default_factory=list)


def signature(e: Edit) -> Signature:
    """A firing's spelling, dtype and shape."""
    v = e.equal[0][0] if e.equal else None
    dims = None if v is None or v.dims is None else tuple(d if isinstance(d, int) else str(d) for d in v.dims)
    return e.rule, tuple(sorted(n.op for n in e.gone)), v.dtype if v is not None else 0, dims


def judge(model: ModelProto, number: int, *, twice: bool = True) -> Outcome:
    """Optimize at -O2 and compare.

    Args:
        number: what feeds are drawn from.
        twice: also ask that a second run changes nothing.
    """
    out = Outcome()
    try:
        original = Original(model, number, may_refer=number % 8 == 0)
    except Illegal as e:
        out.rejected = str(e)
        return out
    try:
        editor = Editor(read(model))
        pipeline.run(editor, STEPS)
        result = lower(editor.model)
    except Exception as e:  # whatever it is, it is a crash
        out.wrong = f"crash: {type(e).__name__}: {str(e)[:200]}"
        return out
    out.firings.update(e.rule for e in editor.log)
    out.signatures = [signature(e) for e in editor.log]
    out.wrong = original.compare(result, exact=all(e.fidelity is Fidelity.EXACT for e in editor.log))
    if not out.wrong and twice:
        out.wrong = _second(result)
    return out


def _second(result: ModelProto) -> str:
    again = Editor(read(result))
    pipeline.run(again, STEPS)
    return f"second run: found {[e.rule for e in again.log]}" if lower(again.model) != result else ""


class Illegal(Exception):
    """Nothing can be asked about this model: it is not well-formed, or answers nothing."""


class Original:
    """A legal model, feeds that it answers, and its answers.

    Raises:
        Illegal: onnx.checker or whoever runs it says no.
    """

    def __init__(self, model: ModelProto, number: int, *, may_refer: bool = False) -> None:
        self.model = model
        try:
            onnx.checker.check_model(model, full_check=True)
        except Exception as e:  # the checker's errors and the inference's share no base
            raise Illegal(f"checker: {str(e).strip()[:80]}") from e
        try:
            self.run = Runner(model, may_refer=may_refer)
        except CannotRun as e:
            raise Illegal(f"original: {str(e)[:80]}") from e
        except Exception as e:  # onnx.reference raises whatever numpy raises
            raise Illegal(f"reference: {type(e).__name__}") from e
        self.given: list[tuple[Feeds, list[Any]]] = []
        for x in feeds(model, number):
            try:
                self.given.append((x, self.run(x)))
            except CannotRun:
                continue
        if not self.given:
            raise Illegal("original: answers nothing")
        if any(not _declared(o, y) for _, answers in self.given for o, y in zip(model.graph.output, answers)):
            raise Illegal("outputs: declared with another shape")

    def compare(self, result: ModelProto, *, exact: bool) -> str:
        """How the result is not as good, or nothing."""
        try:
            onnx.checker.check_model(result, full_check=True)
        except Exception as e:  # as above
            return f"invalid: {str(e).strip()[:200]}"
        if interface(result) != interface(self.model):
            return "interface: changed"
        if result.ByteSize() > 1.01 * self.model.ByteSize() + 4096:
            return f"blown up: {self.model.ByteSize()} to {result.ByteSize()} bytes"
        return self.differs(result, exact=exact)

    def differs(self, result: ModelProto, *, exact: bool) -> str:
        """How the result answers otherwise, or nothing."""
        try:
            after = Runner(result, may_refer=self.run.by_reference)
        except CannotRun as e:
            return f"does not load: {e}"
        inexact = any(n.op_type in INEXACT for g in _all(self.model) for n in g)
        inner: _Inner | None = None
        for x, want in self.given:
            try:
                got = after(x)
            except CannotRun as e:
                if not _is_defined(self.model, x):
                    continue  # the runtime answers where the specification does not
                return f"does not run: {e}"
            told = differ_all(want, got, 0.0 if exact and not inexact else ROUNDING, finite_only=not exact)
            if not told:
                continue
            if not exact:
                inner = inner or _Inner(self.model)
                if inner.overflows(x):
                    continue
            if _within_noise(self.model, x, want, got):
                continue
            if self.run.by_reference:
                continue  # onnx.reference alone says so, and it is wrong on some ops
            if not _is_defined(self.model, x, want):
                continue
            return f"wrong: {told}"
        return ""


def _declared(o: ValueInfoProto, y: Any) -> bool:
    """Whether an answer is of the shape that its output declares, which no checker asks of what lies behind a body."""
    t = o.type.tensor_type
    if not isinstance(y, np.ndarray) or not t.HasField("shape"):
        return True
    return len(t.shape.dim) == y.ndim and all(
        not d.HasField("dim_value") or d.dim_value == n for d, n in zip(t.shape.dim, y.shape)
    )


def feeds(model: ModelProto, number: int) -> Iterator[Feeds]:
    """Two bindings of the dim names, two regimes of values each, all drawn from the number."""
    random = Random(number)
    names = dict.fromkeys(
        d.dim_param for i in model.graph.input for d in i.type.tensor_type.shape.dim if not d.HasField("dim_value")
    )
    first = {n: (3, 5, 7, 2, 4, 6)[k % 6] for k, n in enumerate(names)}
    bindings = [first, {n: random.choice((0, 1, 2, 4)) for n in names}] if names else [first]
    flat = len(list(graphs(model.graph))) == 1 and not model.functions
    regimes = ["signed", random.choice(("zeros", "positive", "large", "special") if flat else ("zeros", "positive"))]
    defaults = {t.name: t for t in model.graph.initializer}
    for sizes in bindings:
        for k, regime in enumerate(regimes):
            draws = np.random.default_rng(number * 4 + k)
            x: Feeds = {}
            for i in model.graph.input:
                t = i.type.tensor_type
                shape = [d.dim_value if d.HasField("dim_value") else sizes[d.dim_param] for d in t.shape.dim]
                if i.name not in defaults:
                    x[i.name] = draw(helper.tensor_dtype_to_np_dtype(t.elem_type), shape, regime, draws)
                elif k and model.ir_version >= 4:  # the default is overridden by something near it
                    was = numpy_helper.to_array(defaults[i.name])
                    x[i.name] = was * was.dtype.type(2) if was.dtype.kind == "f" else was
            yield x


def _all(model: ModelProto) -> Any:
    yield from (g.node for g in graphs(model.graph))
    yield from (f.node for f in model.functions)


class _Inner:
    """Whether a value inside the original's main graph is not finite where its inputs are."""

    def __init__(self, model: ModelProto) -> None:
        m = ModelProto.FromString(model.SerializeToString())
        have = {o.name for o in m.graph.output}
        for n in m.graph.node:
            for o in n.output:
                if o and o not in have:
                    m.graph.output.add(name=o)
        try:
            self.run: Runner | None = Runner(m)
        except CannotRun:
            self.run = None

    def overflows(self, x: Feeds) -> bool:
        if self.run is None:
            return False
        try:
            values = self.run(x)
        except CannotRun:
            return False
        return any(isinstance(v, np.ndarray) and v.dtype.kind == "f" and not np.isfinite(v).all() for v in values)


def _within_noise(model: ModelProto, x: Feeds, want: list[Any], got: list[Any]) -> bool:
    """Whether the difference is what a last place of inputs and weights makes."""
    draws = np.random.default_rng(0)
    noise = [np.zeros(np.shape(w)) for w in want]
    for _ in range(3):
        moved = ModelProto.FromString(model.SerializeToString())
        for t in moved.graph.initializer:
            if t.data_type in (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16):
                t.CopyFrom(numpy_helper.from_array(_moved(numpy_helper.to_array(t), draws), t.name))
        try:
            other = Runner(moved)({k: _moved(v, draws) for k, v in x.items()})
        except CannotRun:
            return False
        for n, w, o in zip(noise, want, other):
            if not isinstance(w, np.ndarray) or w.dtype.kind != "f" or np.shape(o) != np.shape(w):
                continue
            with np.errstate(all="ignore"):
                np.maximum(n, np.nan_to_num(np.abs(o.astype(float) - w.astype(float)), posinf=0.0), out=n)
    for n, w, g in zip(noise, want, got):
        if not isinstance(w, np.ndarray) or w.dtype.kind != "f":
            if differ_all([w], [g]):
                return False
            continue
        if np.shape(w) != np.shape(g) or w.dtype != g.dtype:
            return False
        a, b = w.astype(float), np.asarray(g).astype(float)
        with np.errstate(all="ignore"):
            bad = np.isfinite(a) & ~(np.abs(a - b) <= NOISE * max(float(n.max(initial=0.0)), 0.0))
        if bad.any():
            return False
    return True


def _moved(x: Any, draws: np.random.Generator) -> Any:
    if not isinstance(x, np.ndarray) or x.dtype.kind != "f":
        return x
    with np.errstate(all="ignore"):
        return np.nextafter(x, np.where(draws.random(x.shape) < 0.5, -np.inf, np.inf).astype(x.dtype))


def _is_defined(model: ModelProto, x: Feeds, want: list[Any] | None = None) -> bool:
    """Whether onnx.reference, the second judge, answers the original, and as the runtime does: else it is in doubt."""
    try:
        with np.errstate(all="ignore"):
            other = list(ReferenceEvaluator(model).run(None, dict(x)))
    except Exception:  # it raises whatever numpy raises
        return False
    return want is None or not differ_all(want, other, 4096.0, finite_only=True)
