"""Every rule of the catalog: what it does as text, and at least one case that it leaves alone."""

from __future__ import annotations

import pytest
from goldens import FOLDER, Golden, apply, goldens, rewritten, steps, text
from watched import valid

from optimizer.core.edit import Editor
from optimizer.core.graph import lower
from optimizer.core.model import read


@pytest.mark.parametrize("golden", goldens(), ids=str)
def test_rule_makes_of_it_what_the_file_says(golden: Golden) -> None:
    want = golden.before if golden.after is None else golden.after
    assert text(rewritten(golden)) == text(lower(read(want)))


@pytest.mark.parametrize("golden", goldens(), ids=str)
def test_file_holds_valid_models(golden: Golden) -> None:
    valid(golden.before, "before")
    if golden.after is not None:
        valid(golden.after, "after")


@pytest.mark.parametrize("rule", steps())
def test_rule_has_a_case_and_a_counterexample(rule: str) -> None:
    mine = [g for g in goldens() if g.rule == rule]
    assert any(g.after is not None for g in mine) or rule in ONLY_FACTS, f"tests/golden/{rule}.onnxtxt: no `before`"
    assert any(g.after is None for g in mine), f"tests/golden/{rule}.onnxtxt: no `keeps`"


ONLY_FACTS = {"analysis"}  # changes what is known, never the graph


def test_every_file_belongs_to_a_rule() -> None:
    assert not {p.stem for p in FOLDER.glob("*.onnxtxt")} - steps().keys()


@pytest.mark.parametrize("golden", [g for g in goldens() if g.after is not None], ids=str)
def test_rule_does_nothing_when_the_gate_says_no(golden: Golden) -> None:
    """A gate that refuses sees every edit before it happens; then nothing has happened."""
    asked: list[str] = []
    model = read(golden.before)
    before = lower(model).SerializeToString()
    if apply(golden.rule, Editor(model, gate=lambda _, p: asked.append(p.rule) or "no")) == 0:
        assert asked == [golden.rule] * len(asked) and asked
        assert lower(model).SerializeToString() == before
