"""No trap fools -O1 or -O2: the same answers, to the bit where every edit is exact, and the law of `traps.trap`."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import ModelProto

from optimizer import optimize
from optimizer.core.edit import Editor, Fidelity
from optimizer.core.graph import lower
from optimizer.core.model import read
from optimizer.driver import pipeline, recipe
from optimizer.driver.presets import LEVELS
from traps.corpus import traps
from traps.trap import Trap, checker, save, verdict

TRAPS = list(traps().values())


def optimized(model: ModelProto, level: int) -> tuple[ModelProto, bool]:
    """The result, and whether every edit was exact."""
    editor = Editor(read(model))
    pipeline.run(editor, recipe.parse(LEVELS[level]))
    return lower(editor.model), all(e.fidelity is Fidelity.EXACT for e in editor.log)


@pytest.mark.parametrize("level", (1, 2))
@pytest.mark.parametrize("trap", TRAPS, ids=str)
def test_trap(trap: Trap, level: int) -> None:
    result, exact = optimized(trap.model, level)
    assert exact or level == 2, "-O1 has exact rules only"
    told = verdict(trap, result, bits=exact, finite=not exact)
    assert not told, f"{trap.why}: {told}"


@pytest.mark.parametrize("trap", TRAPS, ids=str)
def test_second_run_changes_nothing(trap: Trap) -> None:
    once, _ = optimized(trap.model, 2)
    again, _ = optimized(once, 2)
    assert again == once


@pytest.mark.parametrize("trap", TRAPS, ids=str)
def test_trap_is_legal(trap: Trap) -> None:
    assert not checker(trap.model, full=False)
    assert trap.original.given


def test_there_are_enough() -> None:
    assert len(TRAPS) >= 150


@pytest.mark.parametrize("trap", [t for t in TRAPS if t.external is not None], ids=str)
def test_weights_in_a_file_of_their_own(trap: Trap, tmp_path: Path) -> None:
    save(trap, tmp_path / "in.onnx")
    optimize(tmp_path / "in.onnx", validate=False).save(tmp_path / "out.onnx")
    told = verdict(trap, onnx.load(tmp_path / "out.onnx"), bits=True)
    assert not told, told
