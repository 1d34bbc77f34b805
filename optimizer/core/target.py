"""Targets are rows: where a model will run, what is legal there, and how it is quantized there."""

from __future__ import annotations

import platform
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from onnx import TensorProto

from optimizer.core import form
from optimizer.core.errors import BadInput


@dataclass(frozen=True, slots=True)
class Target:
    """One place to run.

    Args:
        name: as typed and recorded; a pinned runtime version follows behind `@`.
        providers: execution providers in the runtime's own names, most wanted first.
        contrib: domains beyond ai.onnx whose operators may be written.
        weight_bits: significant bits of int8 weights (7 where 16-bit pair sums saturate: x86 without VNNI).
        activation: dtype of quantized activations in a QDQ model, or "" where the target has no such style.
    """

    name: str
    providers: tuple[str, ...] = ("CPUExecutionProvider",)
    contrib: frozenset[str] = field(default_factory=frozenset)
    weight_bits: int = 8
    activation: str = ""

    def refuses(
        self,
        op: str,
        domain: str,
        opset: int,
        dtypes: tuple[int | None, ...],
        attributes: frozenset[str] = frozenset(),
        outputs: int = 1,
    ) -> str | None:
        """Why this operation cannot be written for the target, or None.

        Args:
            dtypes: element types of the operands; 0 where it is not known, None where one is left out.
            attributes: names of those that are written.
            outputs: how many there are.
        """
        if domain:
            return None if domain in self.contrib else f"{domain}.{op} is not an operator of target {self.name}"
        return _refuses(op, opset, dtypes, attributes, outputs)


@lru_cache(None)
def _refuses(
    op: str, opset: int, dtypes: tuple[int | None, ...], attributes: frozenset[str], outputs: int
) -> str | None:
    s = form.schema(op, opset)
    if s is None:
        return f"{op} is no operator of opset {opset}"
    if not s.min_input <= len(dtypes) <= s.max_input:
        return f"{op} at opset {opset} does not take {len(dtypes)} inputs"
    if not s.min_output <= outputs <= s.max_output:
        return f"{op} at opset {opset} does not give {outputs} outputs"
    for name in sorted(attributes - s.attributes.keys()):
        return f"{op} at opset {opset} has no attribute {name}"
    for name in sorted(k for k, a in s.attributes.items() if a.required and k not in attributes):
        return f"{op} at opset {opset} wants the attribute {name}"
    parameters = list(s.inputs)
    bound: dict[str, int] = {}
    for i, dtype in enumerate(dtypes):
        p = parameters[min(i, len(parameters) - 1)]
        if dtype is None and p.option == p.option.Single:
            return f"{op} at opset {opset} wants the operand {p.name}"
        if not dtype:
            continue
        if f"tensor({TensorProto.DataType.Name(dtype).lower()})" not in p.types:
            return f"{op} at opset {opset} does not take {TensorProto.DataType.Name(dtype).lower()}"
        if p.is_homogeneous and bound.setdefault(p.type_str, dtype) != dtype:
            return f"{op}: operands of one type parameter differ in dtype"
    return None


PORTABLE = Target("portable")
ROWS = {
    t.name: t
    for t in (
        PORTABLE,
        Target("cpu-vnni", weight_bits=8, activation="uint8"),
        Target("cpu-avx2", weight_bits=7, activation="uint8"),
        Target("cpu-arm", weight_bits=8, activation="uint8"),
    )
}


def cpu_features(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """Instruction sets that matter for integer kernels, in the system's names; empty where it does not tell."""
    try:
        text = cpuinfo.read_text(errors="replace")
    except OSError:
        return frozenset()
    flags = {
        w for line in text.splitlines() if line.partition(":")[0].strip() in ("flags", "Features") for w in line.split()
    }
    return frozenset(flags & {"avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"})


def host_row() -> str:
    """The `cpu` row of this machine."""
    if platform.machine().lower() in ("aarch64", "arm64"):
        return "cpu-arm"
    return "cpu-vnni" if cpu_features() & {"avx512_vnni", "avx_vnni", "amx_int8"} else "cpu-avx2"


def target(name: str) -> Target:
    """The row called `name`; `cpu` asks the host.

    Raises:
        BadInput: there is no such row.
    """
    row = ROWS.get(host_row() if name == "cpu" else name)
    if row is None:
        raise BadInput(f"unknown target {name!r}", fix=f"choose one of: cpu, {', '.join(ROWS)}")
    return row
