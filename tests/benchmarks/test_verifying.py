"""What `--verify each` costs on the model that the tables are measured on."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import synthetic

import optimizer


@pytest.mark.slow
def test_verifying_twelve_layers_costs_at_most_three_times_the_run(tmp_path: Path) -> None:
    """The verb without its judge; the least of three, in seconds of the processor."""
    path = synthetic.build("bert-base")

    def seconds(verify: str) -> float:
        began = time.process_time()
        optimizer.optimize(path, validate=False, verify=verify).save(tmp_path / "out.onnx", force=True)
        return time.process_time() - began

    off, each = (min(seconds(verify) for _ in range(3)) for verify in ("off", "each"))
    assert each <= 3 * off, f"{off:.2f} s without, {each:.2f} s with"
