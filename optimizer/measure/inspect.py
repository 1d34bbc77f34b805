"""What is in a model: its interface, operators and parameters, read off the file without touching a weight."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from optimizer.core.graph import Value, set_type
from optimizer.core.model import read
from optimizer.core.tensor import numpy_dtype
from optimizer.core.text import safe
from optimizer.measure.size import count_ops, show_bytes
from optimizer.runtime import child
from optimizer.runtime.card import called, resolve

if TYPE_CHECKING:
    from optimizer.core.graph import Model
    from optimizer.core.tensor import Tensor
    from optimizer.runtime.card import ModelLike

SCHEMA = "graphwright.inspection/1"
_SHOWN = 8  # of a list, on the screen; the JSON has all


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What `inspect` found.

    Fields:
        name: of the file, a card's model by the card's name, "model" for one in memory.
        ir, opset: versions; opset by domain.
        bytes: of the file and its external data.
        nodes: how many, those of bodies and functions included; ops: the same by operator, most frequent first.
        parameters: dtype → {count, bytes} of all constants, the most bytes first.
        inputs, outputs: {name, dtype, dims, default}; dims is None where the rank is unknown, default says whether an
            input may be left out.
        dims: the names of the free dimensions of the inputs.
        external: files that hold weights; subgraphs, functions: how many bodies, and the functions' names.
        producer: name and version; metadata: the model's own properties.
        census: the fused operators that the runtime ends with, or None.
    """

    name: str
    ir: int
    opset: dict[str, int]
    bytes: int
    nodes: int
    ops: dict[str, int]
    parameters: dict[str, dict[str, int]]
    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]]
    dims: list[str]
    external: list[str]
    subgraphs: int
    functions: list[str]
    producer: str
    metadata: dict[str, str]
    warnings: list[str]
    census: dict[str, int] | None

    @property
    def exit_code(self) -> int:
        """Always 0: nothing is judged."""
        return 0

    def to_dict(self) -> dict[str, Any]:
        """All fields, by name."""
        return {"schema": SCHEMA, **{f: getattr(self, f) for f in self.__slots__}}

    def __str__(self) -> str:
        """The screen of `graphwright inspect`."""
        opsets = ", ".join(f"{domain} {n}".strip() for domain, n in self.opset.items())
        total = sum(p["count"] for p in self.parameters.values())
        large = [dtype for dtype, p in self.parameters.items() if p["count"] * 100 >= total]
        dtypes = f" ({', '.join(large)})" if large else ""
        lines = [
            f"{safe(self.name)}   IR {self.ir}, opset {opsets}, {show_bytes(self.bytes)}, {self.nodes} nodes, "
            f"{_count(total)} parameters{dtypes}   producer {safe(self.producer) or 'unknown'}",
            f"in  {_list(map(_describe, self.inputs))}     out  {_list(map(_describe, self.outputs))}",
            f"ops {_list(f'{safe(op)} {n}' for op, n in self.ops.items())}     subgraphs {self.subgraphs}   "
            f"functions {len(self.functions)}   external data {_list(map(safe, self.external))}",
        ]
        if self.census is not None:
            lines.append(f"census {_list(f'{safe(op)} {n}' for op, n in self.census.items())}")
        return "\n".join(lines + [f"warning {safe(w)}" for w in self.warnings])


def inspect(model: ModelLike, *, census: bool = False) -> Inspection:
    """What is in a model.

    Args:
        model: a path, a card, bytes or a ModelProto.
        census: also load it, in a child, and count the fused operators that the runtime ends with.

    Raises:
        BadInput: it is no model, or with `census` does not load.
        EnvironmentNotAsAsked: `census` without a runtime.
    """
    source = resolve(model)
    m = read(source.path)
    in_file = isinstance(model, (str, os.PathLike))
    ops = count_ops(m)
    return Inspection(
        name=called(source) if in_file else "model",
        ir=m.proto.ir_version,
        opset=dict(sorted(m.opsets.items())),
        bytes=(m.source.size + sum(f.size for f in m.source.external)) if m.source else 0,
        nodes=ops.total(),
        ops=dict(ops),
        parameters=_parameters(m),
        inputs=[describe_value(v) for v in inputs_of(m)],
        outputs=[describe_value(v) for v in m.graph.outputs],
        dims=sorted({d for v in inputs_of(m) for d in describe_value(v)["dims"] or () if isinstance(d, str)}),
        external=[f.path.name for f in m.source.external] if m.source else [],
        subgraphs=sum(1 for _ in m.graphs()) - 1,
        functions=[f"{domain}.{name}" for domain, name in m.functions],
        producer=f"{m.proto.producer_name} {m.proto.producer_version}".strip(),
        metadata={p.key: p.value for p in m.proto.metadata_props},
        warnings=list(m.warnings),
        census=child.call("optimizer.runtime.kernels:census", path=source.path.absolute()) if census else None,
    )


def inputs_of(model: Model) -> list[Value]:
    """The inputs; before IR 4 every initializer had to be listed among them and could not be overridden."""
    return [v for v in model.graph.inputs if v.tensor is None or model.proto.ir_version >= 4]


def describe_value(v: Value) -> dict[str, Any]:
    """An input or output: name, dtype, dims (a size, a name, or None), and whether an initializer stands in for it."""
    info = v.graph.infos.get(v.name) if v.graph is not None else None
    if info is not None and not v.dtype and v.type is None:  # an output's type is only declared until it is inferred
        declared = Value(v.name)
        set_type(declared, info.type)
        v = declared
    dims = None if v.dims is None else [d if isinstance(d, int) else None if "#" in str(d) else str(d) for d in v.dims]
    kind = v.type.WhichOneof("value").removesuffix("_type") if v.type is not None else dtype_name(v.dtype)
    return {"name": v.name, "dtype": kind, "dims": dims, "default": v.tensor is not None}


def dtype_name(dtype: int) -> str:
    """An ONNX element type as numpy, or ml_dtypes, calls it."""
    if not dtype:
        return "?"
    name = numpy_dtype(dtype).name
    return "string" if name in ("object", "str") else name


def show_type(value: dict[str, Any]) -> str:
    """dtype and dims of a described value: `int64 [batch, 3]`."""
    dims = value["dims"]
    shape = "" if dims is None else f" [{', '.join('?' if d is None else safe(str(d)) for d in dims)}]"
    return f"{value['dtype']}{shape}{' (has a default)' if value['default'] else ''}"


def _describe(value: dict[str, Any]) -> str:
    return f"{safe(value['name'])} {show_type(value)}"


def _parameters(model: Model) -> dict[str, dict[str, int]]:
    """dtype → {count, bytes}: initializers and what Constant nodes hold, in all graphs."""
    found: dict[str, dict[str, int]] = {}
    for tensor in _constants(model):
        entry = found.setdefault(dtype_name(tensor.dtype), {"count": 0, "bytes": 0})
        entry["count"] += tensor.size
        entry["bytes"] += tensor.nbytes
    return dict(sorted(found.items(), key=lambda x: (-x[1]["bytes"], x[0])))


def _constants(model: Model) -> Iterable[Tensor]:
    for graph in model.graphs():
        yield from (v.tensor for v in graph.initializers if v.tensor is not None)
        yield from (t for n in graph if n.op == "Constant" and (t := n.attributes.get("value")) is not None)


def _list(items: Iterable[str]) -> str:
    shown = list(items)
    more = f", … {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    return ", ".join(shown[:_SHOWN]) + more if shown else "none"


def _count(n: int) -> str:
    """17.3 M for 17313024."""
    for unit, factor in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if n >= factor:
            return f"{n / factor:.1f} {unit}"
    return str(n)
