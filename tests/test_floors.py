"""A floor imports only those below it (docs/design.md, the house)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_a_floor_imports_only_those_below_it() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter], cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
