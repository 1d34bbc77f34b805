"""What optimize, prune and quantize return: the model, its receipt, and the screen that the command line prints."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnx import ModelProto

from optimizer.core import model as file_edge
from optimizer.core.edit import Edit
from optimizer.core.model import Lowered
from optimizer.core.text import safe
from optimizer.driver import receipt as receipts
from optimizer.measure import expect as expectation
from optimizer.measure.size import show_bytes

if TYPE_CHECKING:
    from optimizer.measure.accuracy import Validation
    from optimizer.measure.speed import Bench


_JUDGED = ("task", "agreement", "note")  # lines of the judge that are lines of ours


class Result:
    """A rewritten model with the account of how it came about.

    Attributes:
        receipt: the receipt without its log (`graphwright.receipt/1`).
        log: every edit, in order.
        validation, bench: the judges' objects; None where they were not asked.
        exit_code: 0 done · 1 a negative verdict · 4 inconclusive or not validated though asked.
    """

    def __init__(
        self,
        lowered: Lowered,
        receipt: dict[str, Any],
        log: Sequence[Edit],
        *,
        validation: Validation | None = None,
        bench: Bench | None = None,
        lines: Sequence[str] = (),
        name: str = "model",
        exit_code: int = 0,
    ) -> None:
        self._lowered = lowered
        self.receipt, self.log = receipt, log
        self.validation, self.bench, self.exit_code = validation, bench, exit_code
        self._lines, self._name = lines, name

    @property
    def model(self) -> ModelProto:
        """The result as a ModelProto.

        Raises:
            ToolFailure: it is larger than 2 GiB; use `save`.
        """
        return self._lowered.to_proto()

    def save(self, path: str | os.PathLike[str], *, force: bool = False) -> list[Path]:
        """Write the model, its data where external, and its receipt beside it.

        Raises:
            BadInput: the place is taken or cannot be written to.
            ToolFailure: the disk is full.
        """
        with file_edge.no_collection():
            files = self._lowered.write(path, force=force)
            self.receipt["output"] |= {
                "path": str(path),
                "bytes": sum(f.stat().st_size for f in files),
                "weights": self._lowered.weights(),
            }
            beside = Path(f"{path}.receipt.json")
            beside.write_text(self.receipt_text(), encoding="utf-8")
            return [*files, beside]

    def receipt_text(self) -> str:
        return receipts.text(self.receipt, [receipts.log_row(e) for e in self.log])

    def why_negative(self) -> str:
        """What a negative verdict rests on, in one line."""
        reasons: list[str] = []
        if self.validation is not None:
            reasons += [line for line in str(self.validation).splitlines() if line.startswith("fail  ")]
        reasons += [expectation.describe(o) for o in self.receipt["expect"] if o["holds"] is False]
        more = f", and {len(reasons) - 1} more" if len(reasons) > 1 else ""
        kind, _, what = " ".join(reasons[0].split()).partition(" ")
        head = {"fail": "the result is not the original", "expect": "an expectation is not met"}[kind]
        return f"{head}: {what}{more}"

    def to_dict(self) -> dict[str, Any]:
        """The receipt without its log."""
        return self.receipt

    def __str__(self) -> str:
        """The screen of the verb that made this result."""
        r = self.receipt
        before, after = r["nodes"]["before"], r["nodes"]["after"]
        target = (
            r["target"]["asked"]
            if r["target"]["asked"] == r["target"]["row"]
            else f"{r['target']['asked']} ({r['target']['row']})"
        )
        out = Path(r["output"]["path"]).name if r["output"]["path"] else "(not written)"
        opset = r["output"]["opset"].get("", 0)
        raised = r["input"]["opset"].get("", 0)
        phases = " · ".join(f"{p['name']} {p['edits']}" for p in r["phases"])
        opset = f"opset {opset}" if raised == opset else f"opset {raised} → {opset}"
        lines = [
            f"{safe(self._name)} → {safe(out)}        {r['level']}  {target}  {opset}",
            f"nodes      {sum(before.values())} → {sum(after.values())}{_changes(before, after)}",
            self._file_line(),
            f"phases     {phases or 'none'} edits    {sum(p['seconds'] for p in r['phases']):.2f} s",
            *self._lines,
        ]
        if r.get("verified"):
            lines.append(f"verified   {r['verified']['summary']}")
        lines += self._verdict()
        if self.bench is not None:
            lines.append(f"speed      {_first_line(self.bench)}")
        lines += [f"expect     {expectation.describe(o).removeprefix('expect ')}" for o in r["expect"]]
        lines += [f"warning    {safe(w)}" for w in r["warnings"]]
        if r["output"]["path"]:
            why = f"why a node is what it is: graphwright explain {safe(out)} NODE"
            lines.append(f"receipt    {safe(out)}.receipt.json        {why}")
        return "\n".join(lines)

    def _file_line(self) -> str:
        r = self.receipt
        size = f"{show_bytes(r['input']['bytes'])} → {show_bytes(r['output']['bytes'])}"
        session = self.validation.session_ms if self.validation is not None else None
        return f"file       {size}" + (f"    session start {session[0]:.0f} → {session[1]:.0f} ms" if session else "")

    def _verdict(self) -> list[str]:
        v = self.validation
        if v is None:
            row = self.receipt["validation"]
            return [f"validated  {row['verdict']}: {row.get('why', '')}"]
        first, *rest = str(v).splitlines()
        lines = [f"validated  {first}"]
        for line in rest:
            key, _, text = line.partition("  ")
            if key != "warning":  # the receipt has them all
                lines.append(f"{key:<10} {text.strip()}" if key in _JUDGED else f"           {line}")
        return lines


def _changes(before: dict[str, int], after: dict[str, int]) -> str:
    """The ops whose number changed most."""
    delta = {op: after.get(op, 0) - before.get(op, 0) for op in {*before, *after}}
    changed = sorted((op for op in delta if delta[op]), key=lambda op: (-abs(delta[op]), op))
    shown = ", ".join(f"{safe(op)} {before.get(op, 0)}→{after.get(op, 0)}" for op in changed[:6])
    return f"          {shown}{'  …' if len(changed) > 6 else ''}" if shown else ""


def _first_line(x: object) -> str:
    return str(x).splitlines()[0]
