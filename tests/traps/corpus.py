"""All traps, by name."""

from __future__ import annotations

from itertools import chain

from traps import flow, idioms, interface, numerics, shapes, sharing, size, spellings
from traps.trap import Trap

THEMES = (interface, sharing, numerics, shapes, idioms, flow, spellings, size)


def traps() -> dict[str, Trap]:
    """Every trap.

    Raises:
        ValueError: two have one name.
    """
    out: dict[str, Trap] = {}
    for t in chain.from_iterable(theme.TRAPS for theme in THEMES):
        if out.setdefault(t.name, t) is not t:
            raise ValueError(f"two traps are called {t.name}")
    return out
