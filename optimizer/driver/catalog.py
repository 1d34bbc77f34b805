"""The passes there are: built-ins and plugins alike are entry points of the group `graphwright.passes`."""

from __future__ import annotations

import difflib
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

from optimizer.core.errors import BadInput

if TYPE_CHECKING:
    from optimizer.core.rule import Pass

GROUP = "graphwright.passes"


@cache
def _entries() -> dict[str, EntryPoint]:
    return {e.name: e for e in entry_points(group=GROUP)}


def names() -> tuple[str, ...]:
    """Names of all passes, sorted; nothing is imported."""
    return tuple(sorted(_entries()))


@cache
def find(name: str) -> Pass:
    """The pass of that name.

    Raises:
        BadInput: there is none; the nearest name is suggested.
    """
    found = _entries().get(name)
    if found is None:
        near = difflib.get_close_matches(name, names(), 1)
        fix = f"did you mean {near[0]!r}?" if near else f"the passes are {', '.join(names())}"
        raise BadInput(f"there is no pass {name!r}", fix=fix)
    return found.load()


def all_passes() -> list[Pass]:
    return [find(n) for n in names()]


def check_rule(name: str) -> str:
    """`name`, if some pass has such a rule.

    Raises:
        BadInput: none has.
    """
    rules = [s.name for p in all_passes() for s in p.steps]
    if name not in rules:
        near = difflib.get_close_matches(name, rules, 1)
        raise BadInput(
            f"there is no rule {name!r}",
            fix=f"did you mean {near[0]!r}?" if near else "`graphwright explain` lists them",
        )
    return name
