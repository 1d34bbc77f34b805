"""A trap: a legal model on which a careless rewrite goes wrong, and the judge of what came out.

The law: the result is well-formed, loads, keeps the interface, answers as the original does op by op, and is no larger.
Answers are those of ONNX Runtime with optimizations off, of onnx.reference where that has no kernel.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from answers import REGIMES, CannotRun, Feeds, Runner, bindings, differ_all, draw, feeds, interface
from onnx import ModelProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

ROUNDING = 64.0  # last places of the largest value: what reassociation may cost
MORE, ROOM = 1.01, 4096  # bytes of a result: 1.01 times the original's and a page
REDUCTIONS = frozenset(  # the order of summation is the runtime's, and another one where an operand is constant
    ["Conv", "ConvTranspose", "Einsum", "Gemm", "MatMul", "ReduceMean", "ReduceSum", "ReduceL2", "Softmax", "LSTM"]
)
Law = Callable[[list[Any]], str]
Run = Callable[[Feeds], list[Any]]


@dataclass(frozen=True)
class Trap:
    """A model in text, what it takes to be fooled, and feeds besides the drawn ones.

    Attributes:
        why: what a rewrite that goes wrong here has overlooked.
        law: for models that draw numbers, what their outputs must be like; nothing, or what is wrong.
        finite: a fused form is as right, so that where the original overflows, anything may come out.
        external: bytes from which on weights lie in a file of their own; None: all in one file.
        large: one drawn feed is enough, since the model is slow.
        only_given: nothing is drawn.
        by_reference: onnx.reference answers; the runtime computes float16 in float32, not op by op.
    """

    name: str
    why: str
    text: str
    feeds: tuple[Feeds, ...] = ()
    constants: tuple[tuple[str, Any], ...] = ()
    law: Law | None = None
    finite: bool = False
    external: int | None = None
    large: bool = False
    only_given: bool = False
    by_reference: bool = False
    edit: Callable[[ModelProto], None] | None = None

    def __str__(self) -> str:
        return self.name

    @cached_property
    def model(self) -> ModelProto:
        m = onnx.parser.parse_model(self.text)
        m.graph.initializer.extend(numpy_helper.from_array(np.asarray(x), name) for name, x in self.constants)
        if self.edit is not None:
            self.edit(m)
        return m

    @cached_property
    def original(self) -> Original:
        return Original(self)


def trap(name: str, why: str, graph: str, *given: Feeds, opset: int = 23, ir: int = 11, **options: Any) -> Trap:
    """A trap; `graph` is a graph at this opset and IR, or a whole model that begins with `<`."""
    text = graph.strip()
    if not text.startswith("<"):
        text = f'<ir_version: {ir}, opset_import: ["": {opset}]>\n{text}'
    constants = tuple(dict(options.pop("constants", {})).items())
    return Trap(re.sub(r"\W+", "_", name), why, text, given, constants, **options)


def save(t: Trap, path: Path) -> None:
    """Write the model, and its data beside it where the trap says so."""
    if t.external is None:
        onnx.save(t.model, path)
        return
    copy = ModelProto()
    copy.CopyFrom(t.model)  # which saving changes
    onnx.save(copy, path, save_as_external_data=True, location=f"{path.name}.data", size_threshold=t.external)


class Original:
    """What the original of a trap answers, each feed with its name."""

    def __init__(self, t: Trap) -> None:
        self.trap = t
        runner = _reference(t.model) if t.by_reference else Runner(t.model, may_refer=True)
        self.run: Run = runner
        self.refers = t.by_reference or (isinstance(runner, Runner) and runner.by_reference)
        self.given: list[tuple[str, Feeds]] = []
        self.answers: list[list[Any]] = []
        why = ""
        for name, x in _feeds(t):
            try:
                want = self.run(x)
            except CannotRun as e:
                why = f"{name}: {e}"
                continue
            self.given.append((name, x))
            self.answers.append(want)
        assert self.given, f"trap {t.name}: the original answers nothing: {why}"

    @cached_property
    def full(self) -> bool:
        """Whether onnx's own inference, too, finds nothing wrong."""
        return not checker(self.trap.model, full=True)


def _feeds(t: Trap) -> list[tuple[str, Feeds]]:
    out = [(f"given {i}", x) for i, x in enumerate(t.feeds)]
    if t.only_given or not all(i.type.HasField("tensor_type") for i in t.model.graph.input):
        return out
    given = {x.name: numpy_helper.to_array(x) for x in t.model.graph.initializer}
    may = [i.name for i in t.model.graph.input if i.name in given]
    regimes = REGIMES[:1] if t.large else [r for r in REGIMES if not (t.finite and r == "large")]
    for sizes in list(bindings(t.model))[: 1 if t.large else 4]:
        for k, regime in enumerate(regimes):
            x = feeds(t.model, sizes, regime, 17 + k)
            out.append((f"{regime} {sizes}", x))
            if may and t.model.ir_version >= 4:
                random = np.random.default_rng(k)
                other = {n: draw(given[n].dtype, given[n].shape, regime, random) for n in may}
                out.append((f"{regime} {sizes}, defaults overridden", x | other))
    return out


def verdict(t: Trap, result: ModelProto, *, bits: bool = False, finite: bool | None = None) -> str:
    """Nothing if the result keeps the law, else `KIND: how not`; the caller's file may hold what it likes.

    Args:
        bits: equal answers have equal bits, sums apart; otherwise they may differ as reassociation does.
        finite: where the original is not finite, anything may come out; None: as the trap says.
    """
    o = t.original
    loose = t.finite if finite is None else finite
    ulps = ROUNDING if not bits else 4.0 if any(n.op_type in REDUCTIONS for n in t.model.graph.node) else 0.0
    if told := checker(result, full=o.full):
        return f"invalid: {told}"
    if (was := _ports(t.model)) != (now := _ports(result)):
        return f"interface: {now} instead of {was}"
    try:
        run = _reference(result) if t.by_reference else Runner(result, may_refer=o.refers)
    except CannotRun as e:
        return f"does not load: {e}"
    for (name, x), want in zip(o.given, o.answers):
        try:
            got = run(x)
        except CannotRun as e:
            return f"does not run: {name}: {e}"
        told = t.law(got) if t.law is not None else differ_all(want, got, ulps, finite_only=loose)
        if told:
            return f"wrong: {name}: {told}"
    size, limit = result.ByteSize(), int(MORE * t.model.ByteSize()) + ROOM
    if size > limit:
        return f"blown up: {t.model.ByteSize()} to {size} bytes"
    return (
        "" if interface(result) == interface(t.model) else "dims: the interface declares other sizes or names of them"
    )


def _ports(model: ModelProto) -> list[list[str]]:
    """Names and types of the inputs that must be given, of those that may be, and of the outputs; no sizes."""
    out: list[list[str]] = []
    for side in interface(model):
        infos = [onnx.ValueInfoProto.FromString(i) for i in side]
        kinds = [i.type.tensor_type.elem_type or i.type.WhichOneof("value") for i in infos]
        out.append([f"{i.name} {kind}" for i, kind in zip(infos, kinds)])
    return out


def _reference(model: ModelProto) -> Run:
    evaluator = ReferenceEvaluator(model)

    def run(given: Feeds) -> list[Any]:
        try:
            with np.errstate(all="ignore"):
                return list(evaluator.run(None, given))
        except Exception as e:
            raise CannotRun(str(e)) from e

    return run


def checker(m: ModelProto, *, full: bool) -> str:
    """What onnx.checker says against it, or nothing."""
    try:
        onnx.checker.check_model(m, full_check=full)
    except Exception as e:  # the checker's errors and the inference's share no base
        return str(e).strip().splitlines()[0][:200] if str(e).strip() else type(e).__name__
    return ""


def floats(*xs: float) -> Any:
    return np.asarray(xs, np.float32)


def ints(*xs: int) -> Any:
    return np.asarray(xs, np.int64)


def strings(*xs: str) -> Any:
    return np.asarray(xs, object)


def all_differ(outputs: Sequence[Any]) -> str:
    """For outputs that are drawn: no two are equal."""
    same = any(np.array_equal(a, b) for i, a in enumerate(outputs) for b in outputs[:i])
    return "two draws are one" if same else ""


def fake_type(name: str, dims: Sequence[int | str], dtype: int = 1) -> Callable[[ModelProto], None]:
    """Puts a value_info into the model: what it says may be a lie."""

    def edit(m: ModelProto) -> None:
        m.graph.value_info.append(helper.make_tensor_value_info(name, dtype, list(dims)))

    return edit
