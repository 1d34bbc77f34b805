"""KEY OP VALUE: what a user demands of a result, as in `task>=-1%`, `speed>=1.2`, `nodes<=200`."""

from __future__ import annotations

import difflib
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optimizer.core.errors import BadInput
from optimizer.measure.size import show_bytes

KEYS = ("task", "sqnr", "speed", "nodes", "bytes")
_OPS: dict[str, Callable[[float, float], bool]] = {">=": operator.ge, "<=": operator.le, "==": operator.eq}

Measured = Mapping[str, tuple[float | None, float | None]]
"""Key → (of the result, of the original); None where it was not, or cannot be, measured."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """measured OP value, or with `relative` measured OP original + value·|original|."""

    text: str
    key: str
    op: str
    value: float
    relative: bool

    def check(self, measured: float | None, original: float | None) -> bool | None:
        """Whether it holds; None where what it needs was not measured."""
        if measured is None or (self.relative and original is None):
            return None
        bound = self.value
        if self.relative and original is not None:
            bound = original + self.value * abs(original)
        return _OPS[self.op](measured, bound)


def parse(text: str) -> Expectation:
    """An expectation from its text.

    Raises:
        BadInput: another key or operator, or a value that is no number; a key almost right is named.
    """
    match = re.fullmatch(r"\s*(\w+)\s*(>=|<=|==)\s*([-+.\deE]+)\s*(%?)\s*", text)
    if match is None:
        raise BadInput(f"not an expectation: {text!r}", fix="KEY OP VALUE, as in 'task>=-1%' or 'nodes<=200'")
    key, op, number, percent = match.groups()
    if key not in KEYS:
        near = difflib.get_close_matches(key, KEYS, 1)
        fix = f"did you mean {near[0]!r}?" if near else f"the keys are {', '.join(KEYS)}"
        raise BadInput(f"{key!r} cannot be expected", at=text, fix=fix)
    try:
        value = float(number)
    except ValueError:
        raise BadInput(f"{number!r} is no number", at=text) from None
    return Expectation(text, key, op, value / 100 if percent else value, bool(percent))


def check_all(expectations: Sequence[Expectation], measured: Measured) -> list[dict[str, Any]]:
    """Each expectation as the receipt has it: its text, what was measured, and whether it holds (None: unknown)."""
    outcomes: list[dict[str, Any]] = []
    for expectation in expectations:
        result, original = measured.get(expectation.key, (None, None))
        outcomes.append(
            {
                "expect": expectation.text,
                "result": result,
                "original": original,
                "holds": expectation.check(result, original),
            }
        )
    return outcomes


def exit_code(outcomes: Sequence[Mapping[str, Any]]) -> int:
    """1 where one does not hold, else 4 where one could not be measured, else 0."""
    return 1 if any(o["holds"] is False for o in outcomes) else 4 if any(o["holds"] is None for o in outcomes) else 0


def describe(outcome: Mapping[str, Any]) -> str:
    """One line of a screen: `expect task>=-1%   holds   0.498, original 0.512`."""
    wanted = parse(outcome["expect"])
    verdict = {True: "holds", False: "does not hold", None: "could not be measured"}[outcome["holds"]]
    show = _SHOWN[wanted.key]
    result, original = outcome["result"], outcome["original"]
    values = [show(result)] if result is not None else []
    if wanted.key == "bytes" and not wanted.relative and (result or 0) >= 10_000:  # to compare with what was typed
        values[0] += f" ({result:,} B)"
    values += [f"original {show(original)}"] if original is not None and wanted.key != "speed" else []
    return f"expect {wanted.text}   {verdict}" + (f"   {', '.join(values)}" if values else "")


_SHOWN: dict[str, Callable[[Any], str]] = {
    "task": "{:.4g}".format,
    "sqnr": "{:.1f} dB".format,
    "speed": "{:.2f}x".format,
    "nodes": "{:d}".format,
    "bytes": show_bytes,
}
