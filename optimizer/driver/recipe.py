"""`a b:key=value (c d)*`: pass names in order, options behind a colon, `( … )*` until nothing changes any more."""

from __future__ import annotations

import re
from dataclasses import dataclass

from optimizer.core.errors import BadInput

_TOKEN = re.compile(r"\s*(\(|\)\*|[\w.-]+(?::[\w.-]+=[^\s()]+)*)")


@dataclass(frozen=True, slots=True)
class Step:
    """One pass with its options."""

    name: str
    options: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Fixpoint:
    """Steps repeated until a round changes nothing."""

    steps: tuple[Step, ...]


Recipe = tuple[Step | Fixpoint, ...]


def parse(text: str) -> Recipe:
    """The recipe that `text` spells.

    Raises:
        BadInput: it does not follow the grammar; the place is named.
    """
    out: list[Step | Fixpoint] = []
    inner: list[Step] | None = None
    at = 0
    while text[at:].strip():
        m = _TOKEN.match(text, at)
        if m is None:
            raise _wrong(text, at)
        token, at = m.group(1), m.end()
        if token == "(":
            if inner is not None:
                raise _wrong(text, m.start(1))
            inner = []
        elif token == ")*":
            if not inner:
                raise _wrong(text, m.start(1))
            out.append(Fixpoint(tuple(inner)))
            inner = None
        else:
            name, *options = token.split(":")
            step = Step(name, tuple((k, v) for k, _, v in (o.partition("=") for o in options)))
            (out if inner is None else inner).append(step)
    if inner is not None:
        raise _wrong(text, len(text))
    return tuple(out)


def _wrong(text: str, at: int) -> BadInput:
    return BadInput(
        f"the passes {text!r} cannot be read at character {at + 1}",
        fix="write names in order, `( … )*` for a fixpoint: 'normalize (propagate fold simplify)* cleanup'",
    )
