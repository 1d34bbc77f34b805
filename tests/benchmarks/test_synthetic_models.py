"""What the tables are measured on is what its name says, and the same on every machine."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import synthetic
from peers import count_bytes, judge


def test_a_block_has_twenty_nodes() -> None:
    ops = [node.op_type for node in synthetic.blocks(20).graph.node]
    assert len(ops) == 20
    assert {op: ops.count(op) for op in ("MatMul", "Identity", "Transpose", "Sigmoid", "Cast", "Shape", "Reshape")} == {
        "MatMul": 1, "Identity": 1, "Transpose": 3, "Sigmoid": 2, "Cast": 1, "Shape": 1, "Reshape": 1,
    }  # fmt: skip
    assert len(synthetic.blocks(100).graph.node) == 100


def test_nodes_are_whole_blocks() -> None:
    with pytest.raises(ValueError, match="multiple of 20"):
        synthetic.blocks(30)


def test_equal_on_every_run() -> None:
    assert synthetic.blocks(40) == synthetic.blocks(40)


def test_blocks_run(tmp_path: Path) -> None:
    path = tmp_path / "blocks.onnx"
    onnx.save(synthetic.blocks(60), path)
    verdict = judge(str(path), str(path))
    assert verdict["loads"] and verdict["checks"] and verdict["equal"], verdict["why"]


def test_a_transformer_runs_from_external_data(tmp_path: Path) -> None:
    size = {"layers": 1, "hidden": 16, "heads": 2, "vocabulary": 11, "positions": 8}
    inside = synthetic.transformer(synthetic.Builder(pool=16 * 64), **size)
    with (tmp_path / "weights").open("wb") as data:
        beside = synthetic.transformer(synthetic.Builder(data, pool=16 * 64), **size)
    onnx.save(inside, tmp_path / "inside.onnx")
    (tmp_path / "beside.onnx").write_bytes(beside.SerializeToString())
    verdict = judge(str(tmp_path / "inside.onnx"), str(tmp_path / "beside.onnx"))
    assert verdict["checks"] and verdict["equal"] and verdict["error"] == 0, verdict["why"]
    assert count_bytes(str(tmp_path / "beside.onnx")) > (tmp_path / "weights").stat().st_size > 1000


def test_an_unknown_name_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHWRIGHT_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match="no such model"):
        synthetic.build("blocks-many")
    assert synthetic.build("blocks-20").is_relative_to(tmp_path)
