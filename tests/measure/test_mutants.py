"""A slice of the mutation suite: lines of `benchmarks/wrong_rewrites.py` fail and lines of `right_rewrites.py` pass.

The whole of it, on real models too, against an oracle and beside the peers: `python benchmarks/mutants.py`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from optimizer.measure.judge import judge

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import right_rewrites
import wrong_rewrites
from oracle import Oracle

SUBTLE = "a subtraction's constant in the sixth digit"
"""Differs by less than ten noise floors on most data: the one line that the defaults let through."""


def verdict(template: str, folder: Path) -> str:
    for name, model in zip(("a", "b"), wrong_rewrites.pair(template), strict=True):
        (folder / f"{name}.onnx").write_bytes(model.SerializeToString())
    return judge(original=str(folder / "a.onnx"), result=str(folder / "b.onnx"))["verdict"]


@pytest.mark.parametrize("kind", [kind for kind in wrong_rewrites.TABLE if kind != SUBTLE][::5])
def test_wrong_rewrites_fail(tmp_path: Path, kind: str) -> None:
    assert verdict(wrong_rewrites.TABLE[kind], tmp_path) == "fail"


@pytest.mark.parametrize("kind", list(right_rewrites.TABLE)[::3])
def test_right_rewrites_pass(tmp_path: Path, kind: str) -> None:
    assert verdict(right_rewrites.TABLE[kind], tmp_path) == "pass"


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in wrong_rewrites.TABLE if kind != SUBTLE])
def test_every_wrong_rewrite_fails(tmp_path: Path, kind: str) -> None:
    assert verdict(wrong_rewrites.TABLE[kind], tmp_path) == "fail"


def test_every_line_is_a_rewrite() -> None:
    for table in (wrong_rewrites.TABLE, right_rewrites.TABLE):
        for kind, template in table.items():
            before, after = wrong_rewrites.pair(template)
            assert before != after, kind


@pytest.mark.parametrize(
    ("kind", "group"),
    [("Relu dropped", "plain"), ("wrong beyond a length of 12", "size"), ("wrong beyond 65504", "special")],
)
def test_oracle_says_what_it_takes(tmp_path: Path, kind: str, group: str) -> None:
    before, after = wrong_rewrites.pair(wrong_rewrites.TABLE[kind])
    for name, model in (("a", before), ("b", after)):
        (tmp_path / f"{name}.onnx").write_bytes(model.SerializeToString())
    oracle = Oracle(tmp_path / "a.onnx", base={"n": 2, "m": 5}, seconds=4)
    found = oracle.difference(tmp_path / "b.onnx")
    assert found is not None and found.group == group and found.error > 10 * found.floor
    assert oracle.difference(tmp_path / "a.onnx") is None, "a model does not differ from itself"
    assert all(np.asarray(value).size for value in found.feed.values())
