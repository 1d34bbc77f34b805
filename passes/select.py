"""Which nodes a user's globs name: by their own names, or by those of the nodes they came from."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

from optimizer.core.edit import Edit
from optimizer.core.errors import BadInput
from optimizer.core.graph import Node


def origins(log: Iterable[Edit]) -> dict[Node, frozenset[str]]:
    """Node → the names of the nodes it replaced, over all edits; nodes that the file held are not listed."""
    found: dict[Node, frozenset[str]] = {}
    for edit in log:
        names = frozenset(n.name for n in edit.gone).union(*(found.get(n, ()) for n in edit.gone))
        for n in edit.new:
            found[n] = found.get(n, frozenset()) | names
    return found


def named_by(
    globs: Sequence[str], nodes: Iterable[Node], came_from: Mapping[Node, frozenset[str]] | None = None
) -> set[Node]:
    """The nodes that a glob matches.

    Raises:
        BadInput: a glob matches nothing.
    """
    names = {n: {n.name, *(came_from or {}).get(n, ())} for n in nodes}
    found: set[Node] = set()
    for glob in globs:
        hits = {n for n, own in names.items() if any(fnmatchcase(name, glob) for name in own)}
        if not hits:
            known = sorted({name for own in names.values() for name in own if name})
            near = difflib.get_close_matches(glob, known, 1, cutoff=0.4) or known[:1]
            raise BadInput(
                f"no node that could be left out is called {glob!r}",
                fix=f"a name to match is {near[0]!r}" if near else "there is no such node in the model",
            )
        found |= hits
    return found
