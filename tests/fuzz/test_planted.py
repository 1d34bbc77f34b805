"""A guard of the editor that is skipped is noticed: by its tests, by random rewrites, by the traps, or by random graphs."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from traps.corpus import traps
from traps.trap import verdict

from fuzz.generate import graph_of
from fuzz.judge import judge
from optimizer.core import edit
from optimizer.core.edit import Editor
from optimizer.core.graph import check, lower
from optimizer.core.model import read
from optimizer.driver import pipeline, recipe
from optimizer.driver.presets import LEVELS

STEPS = recipe.parse(LEVELS[2])
GRAPHS, STORIES = 400, 150
_REFUSAL = re.compile(r'return self\.no\("([^"]+)"\)')
_REASON = re.compile(r'return "([a-z][^"]+)"')
HARMLESS = {
    "nothing to replace",  # an edit of nothing, logged
    "nothing to remove",
}


def _methods() -> dict[str, tuple[Any, str]]:
    """Where refusals are spelled: the editor's methods, and the functions that give their reasons."""
    return {
        "replace": (Editor, "replace"),
        "remove": (Editor, "remove"),
        "_unreadable": (edit, "_unreadable"),
        "_differ": (edit, "_differ"),
    }


def guards() -> Iterator[tuple[str, str]]:
    """Every reason to refuse an edit, with where it is spelled."""
    for where, (owner, name) in _methods().items():
        source = inspect.getsource(getattr(owner, name))
        found = _REFUSAL.findall(source) if owner is Editor else _REASON.findall(source)
        for why in dict.fromkeys(found):
            if why not in HARMLESS:
                yield where, why


def without(where: str, why: str) -> Callable[..., Any]:
    """That method, going on where it would refuse for this reason."""
    owner, name = _methods()[where]
    source = textwrap.dedent(inspect.getsource(getattr(owner, name)))
    if owner is Editor:
        source = source.replace(f'return self.no("{why}")', "pass")
    else:
        source = source.replace(f'return "{why}"', 'return ""')
        source = source.replace(f'else "{why}"', 'else ""')
    space: dict[str, Any] = dict(vars(edit))
    exec(compile(source, f"<{where} without {why!r}>", "exec"), space)
    return space[name]


def noticed() -> str:
    """By what the planted bug is noticed first, or nothing."""
    searches = (("tests", _by_tests), ("random rewrites", _by_rewrites), ("traps", _by_traps), ("fuzz", _by_graphs))
    for name, search in searches:
        if search():
            return name
    return ""


def _by_tests() -> bool:
    """The editor's own tests, those without parameters."""
    import test_edit

    for name, test in vars(test_edit).items():
        if name.startswith("test_") and not inspect.signature(test).parameters:
            try:
                test()
            except Exception:  # an assertion, or what follows from the planted bug
                return True
    return False


def _by_rewrites() -> bool:
    from test_edit_random import tell

    for seed in range(STORIES):
        try:
            tell(seed, oracle=1.0)
        except Exception:  # whatever it is, the story is not told to the end
            return True
    return False


def _by_traps() -> bool:
    for t in traps().values():
        try:
            editor = Editor(read(t.model))
            pipeline.run(editor, STEPS)
            check(editor.model)
            if verdict(t, lower(editor.model), finite=True):
                return True
        except Exception:  # as above
            return True
    return False


def _by_graphs() -> bool:
    for number in range(GRAPHS):
        made = graph_of(number)
        if made is not None and judge(made[1], number, twice=False).wrong:
            return True
    return False


@pytest.mark.parametrize(("where", "why"), guards())
def test_a_guard_that_is_skipped_is_noticed(where: str, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, name = _methods()[where]
    monkeypatch.setattr(owner, name, without(where, why))
    assert noticed(), f"nobody notices that {where} no longer says {why!r}"
