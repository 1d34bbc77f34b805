"""Names out of a model are strangers' text: what of them may reach a terminal."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def safe(name: str | bytes) -> str:
    """The name with every unprintable character (controls, escapes, direction marks, …) as its Python escape."""
    text = name if isinstance(name, str) else name.decode(errors="backslashreplace")
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def did_you_mean(name: str, known: Iterable[str]) -> str | None:
    """`did you mean X?` where something known is called almost like it, else None."""
    near = difflib.get_close_matches(name, list(known), 1)
    return f"did you mean {safe(near[0])}?" if near else None
