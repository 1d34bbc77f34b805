"""Names out of a model are strangers' text: what of them may reach a terminal."""

from __future__ import annotations


def safe(name: str | bytes) -> str:
    """The name with every character that is not printable (controls, escapes, direction marks, …) as its Python escape."""
    text = name if isinstance(name, str) else name.decode(errors="backslashreplace")
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
