"""The passes there are: built-ins and plugins alike are entry points of the group `graphwright.passes`."""

from __future__ import annotations

import difflib
import traceback
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import EntryPoint, entry_points

from optimizer.core.errors import BadInput, GraphwrightError, ToolFailure
from optimizer.core.rule import Pass

GROUP = "graphwright.passes"
_OWN = "graphwright"


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
        ToolFailure: a plugin's pass that cannot be imported, or is none.
    """
    entry = _entries().get(name)
    if entry is None:
        near = difflib.get_close_matches(name, names(), 1)
        fix = f"did you mean {near[0]!r}?" if near else f"the passes are {', '.join(names())}"
        raise BadInput(f"there is no pass {name!r}", fix=fix)
    with _blamed(name, "cannot be imported"):
        found = entry.load()
    if not isinstance(found, Pass):
        raise _failure(name, f"is no Pass but of type {type(found).__name__}")
    return found


def all_passes() -> dict[str, Pass]:
    """Every pass by name; a plugin that is broken is left out with a warning, for nobody asked for it."""
    found: dict[str, Pass] = {}
    for name in names():
        try:
            found[name] = find(name)
        except ToolFailure as error:
            warnings.warn(f"{error.what} ({error.at})", stacklevel=2)
    return found


def check_rule(name: str) -> str:
    """`name`, if some pass has such a rule.

    Raises:
        BadInput: none has.
    """
    rules = [s.name for p in all_passes().values() for s in p.steps]
    if name not in rules:
        near = difflib.get_close_matches(name, rules, 1)
        raise BadInput(
            f"there is no rule {name!r}",
            fix=f"did you mean {near[0]!r}?" if near else "`graphwright explain` lists them",
        )
    return name


@contextmanager
def blamed(name: str) -> Generator[None]:
    """Whatever a plugin's pass raises inside is the plugin's failure; a bug of ours stays one.

    Raises:
        ToolFailure: of the plugin, with its distribution.
    """
    with _blamed(name, "failed"):
        yield


@contextmanager
def _blamed(name: str, what: str) -> Generator[None]:
    try:
        yield
    except (GraphwrightError, OSError, MemoryError):  # these say what happened themselves
        raise
    except Exception as error:
        if _distribution(name) == _OWN:
            raise
        why = " ".join(f"{type(error).__name__}: {error}".split())
        last = traceback.extract_tb(error.__traceback__)[-1]
        raise _failure(name, f"{what}: {why}", f"{last.filename}:{last.lineno}") from error


def _distribution(name: str) -> str:
    dist = _entries()[name].dist
    return dist.name if dist is not None else "?"


def _failure(name: str, what: str, line: str = "") -> ToolFailure:
    entry = _entries()[name]
    version = f" {entry.dist.version}" if entry.dist is not None else ""
    where = _distribution(name)
    return ToolFailure(
        f"the plugin pass {name!r} {what}",
        at=", ".join(filter(None, (f"{where}{version}", entry.value, line))),
        fix=f"update or repair {where}, or leave {name!r} out of --passes; -v shows the traceback",
    )
