"""Run a recipe over a model: passes in order, fixpoints until nothing changes, and what each phase did."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

from optimizer.core.edit import Editor
from optimizer.core.errors import BadInput, ToolFailure
from optimizer.core.rule import Pass
from optimizer.driver import catalog
from optimizer.driver.recipe import Fixpoint, Recipe, Step

ROUNDS = 64  # each rule lowers its group's potential, so a fixpoint that takes longer is a bug


@dataclass(slots=True)
class Phase:
    """What the passes of one name did, all rounds together."""

    name: str
    rules: Counter[str] = field(default_factory=Counter[str])
    seconds: float = 0.0

    @property
    def edits(self) -> int:
        return self.rules.total()


def run(
    editor: Editor,
    recipe: Recipe,
    *,
    without: Collection[str] = (),
    own: Sequence[Pass] = (),
    progress: Callable[[str], None] | None = None,
) -> list[Phase]:
    """Apply the recipe through `editor`; the phases in the order in which they first ran.

    Args:
        without: names of rules and procedures to leave out.
        own: passes of the caller, which the recipe names like those of the catalog.
        progress: is told each pass as it begins.

    Raises:
        BadInput: a pass is unknown, or takes no such option.
        ToolFailure: a fixpoint never settles.
    """
    phases: dict[str, Phase] = {}
    mine = {p.name: p for p in own}
    for item in recipe:
        steps = item.steps if isinstance(item, Fixpoint) else (item,)
        for s in steps:
            if s.name not in mine:
                catalog.find(s.name)

    def once(step: Step) -> None:
        p = mine.get(step.name) or catalog.find(step.name)
        if step.options:
            raise BadInput(f"the pass {step.name!r} takes no option {step.options[0][0]!r}", fix="leave it out")
        if progress is not None:
            progress(step.name)
        phase = phases.setdefault(step.name, Phase(step.name))
        editor.phase = step.name
        before, start = len(editor.log), time.perf_counter()
        with nullcontext() if step.name in mine else catalog.blamed(step.name):
            p.run(editor, without=without)
        phase.seconds += time.perf_counter() - start
        phase.rules.update(e.rule for e in editor.log[before:])

    for item in recipe:
        if isinstance(item, Step):
            once(item)
            continue
        for _ in range(ROUNDS):
            before = len(editor.log)
            for s in item.steps:
                once(s)
            if len(editor.log) == before:
                break
        else:
            rules = Counter(e.rule for e in editor.log[-200:]).most_common(3)
            raise ToolFailure(
                f"the passes {' '.join(s.name for s in item.steps)} never settle",
                at=f"rules {', '.join(r for r, _ in rules)}",
                fix="this is a bug of graphwright: please report it, and meanwhile use --without RULE",
            )
    return list(phases.values())
