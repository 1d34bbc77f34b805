"""The window verifier over the whole catalog: nothing that a rule does is refused."""

from __future__ import annotations

import pytest
from goldens import Golden, apply, goldens

from optimizer.core.edit import Editor, Evidence
from optimizer.core.model import read
from optimizer.measure.verify import Verifier

WHOLE = "inline_function"  # judged as whole models, in a process of its own
CHANGED = [g for g in goldens() if g.after is not None and g.rule != WHOLE]
DRAWS = {"decided_if-a-random-branch"}


@pytest.mark.parametrize("golden", CHANGED, ids=str)
def test_no_edit_of_a_golden_is_refused(golden: Golden) -> None:
    verifier = Verifier()
    editor = Editor(read(golden.before), gate=verifier)
    apply(golden.rule, editor)
    assert not verifier.refused, verifier.refused[0]
    verifier.stamp(editor)
    claims = [e for e in editor.log if e.equal]
    assert all(e.evidence in (Evidence.WINDOW, Evidence.SAMPLED) for e in claims) or str(golden) in DRAWS, (
        verifier.doubts
    )
