"""Bisection: one wrong edit planted among many is found by its number, and shrunk to a few nodes."""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

import optimizer
from optimizer.core.edit import Editor
from optimizer.core.errors import BadInput
from optimizer.core.graph import Graph, Node
from optimizer.core.model import read
from optimizer.core.pattern import op, values
from optimizer.core.rule import Pass, procedure, rule
from optimizer.driver import pipeline, recipe
from optimizer.driver.bisect import Culprit, bisect
from passes.simplify import SIMPLIFY

BLOCKS = 205  # more than a thousand edits
RECIPE = "normalize (propagate fold simplify)* cleanup"

# node → what it wrongly becomes, given its operands; each keeps type and shape, and is wrong in another way
(x, y) = values("x y")
MISTAKES: dict[str, tuple[Any, str, Callable[..., Any]]] = {
    "a scale": (op.Identity(x, name="n"), "Identity_a", lambda op, x: op.Mul(x, 1.01)),
    "a sign": (op.Cast(x, name="n"), "Cast_e", lambda op, x: op.Abs(x)),
    "another function": (op.Sigmoid(x, name="n"), "Sigmoid_h", lambda op, x: op.HardSigmoid(x)),
    "another operation": (op.Add(x, y, name="n"), "Add_f", lambda op, a, b: op.Sub(a, b)),
    "a bound": (op.Cast(x, name="n"), "Cast_e", lambda op, x: op.Clip(x, -1.0, 1.0)),
    "a direction": (op.Transpose(x, name="n"), "Transpose_c", lambda op, x: op.Neg(op.Transpose(x, perm=[0, 2, 1]))),
    "a weight": (op.MatMul(x, y, name="n"), "MatMul_d", lambda op, x, w: op.MatMul(op.Add(x, 0.1), w)),
}


def planted(mistake: str, block: int) -> Pass:
    """`simplify` with one mistake, made once, at one node, somewhere among its edits."""
    pattern, name, wrong = MISTAKES[mistake]

    @rule(pattern, where=lambda n: n.name == f"{name}{block}", keep=True, shape="planted")
    def plant(op: Any, n: Node) -> Any:
        """one wrong edit"""
        return wrong(op, *n.inputs)

    return Pass("simplify", (plant, *SIMPLIFY.steps))


def blocks(count: int) -> ModelProto:
    """A chain of blocks, of which most is removed: five edits each; a mistake in any of them lasts to the output."""
    rng = np.random.default_rng(0)
    nodes: list[Any] = []
    weights: list[TensorProto] = []
    x = "x"
    for i in range(count):
        w = rng.standard_normal((8, 8)).astype(np.float32) / 3
        weights += [
            numpy_helper.from_array(w, f"w{i}"),
            numpy_helper.from_array(rng.standard_normal(8).astype(np.float32), f"bias{i}"),
        ]
        ops = [("Identity", [x]), ("Transpose", ["a"]), ("Transpose", ["b"]), ("MatMul", ["c", f"w{i}"]),
               ("Cast", ["d"]), ("Add", ["e", f"bias{i}"]), ("Identity", ["f"]), ("Sigmoid", ["g"]), ("Sigmoid", ["g"]),
               ("Mul", ["h", "j"]), ("Sub", ["k", "a"])]  # fmt: skip
        attributes = {"Transpose": {"perm": [0, 2, 1]}, "Cast": {"to": 1}}
        for (kind, ins), out in zip(ops, "abcdefghjkl"):
            ins = [f"{n}{i}" if len(n) == 1 and n != "x" else n for n in ins]
            nodes.append(helper.make_node(kind, ins, [f"{out}{i}"], f"{kind}_{out}{i}", **attributes.get(kind, {})))
        x = f"l{i}"
    shape = ["n", 4, 8]
    graph = helper.make_graph(
        [*nodes, helper.make_node("Neg", [x], ["y"])], "blocks",
        [helper.make_tensor_value_info("x", 1, shape)], [helper.make_tensor_value_info("y", 1, shape)], weights,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def trial(path: Path, mistake: str, block: int, out: Path | None = None) -> tuple[int, int, Culprit]:
    """The number of the planted edit, that of all edits, and what bisection says."""
    own = planted(mistake, block)
    editor = Editor(read(path))
    pipeline.run(editor, recipe.parse(RECIPE), own=(own,))
    (wrong,) = [e for e in editor.log if e.rule == "plant"]
    return wrong.id, len(editor.log), bisect(path, passes=RECIPE, own=(own,), out=out)


@pytest.mark.parametrize(("mistake", "block"), [("a scale", 5), ("another function", 3)])
def test_the_planted_edit_is_found(mistake: str, block: int, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(blocks(12), path)
    wrong, edits, found = trial(path, mistake, block, tmp_path / "out")
    assert 10 < wrong < edits - 10
    assert found.verdict == "bad" and found.exit_code == 1
    assert found.edit is not None and (found.edit["id"], found.edit["rule"]) == (wrong, "plant")
    assert found.edits == edits and found.nodes is not None and max(found.nodes) <= 10
    assert found.seconds["search"] + found.seconds["reproducer"] < 14 * found.seconds["validation"]
    _reproduces(tmp_path / "out")


def _reproduces(folder: Path) -> None:
    assert {f.name for f in folder.iterdir()} == {"README", "before.onnx", "after.onnx", "feeds.npz"}
    judged = optimizer.validate(folder / "before.onnx", folder / "after.onnx", feeds=str(folder / "feeds.npz"))
    assert judged.verdict == "fail"
    assert "graphwright validate before.onnx after.onnx --feeds feeds.npz" in (folder / "README").read_text()


@pytest.mark.slow
def test_a_hundred_trials_among_a_thousand_edits(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(blocks(BLOCKS), path)
    nodes: list[int] = []
    factors: list[float] = []
    for seed in range(100):
        mistake = [*MISTAKES][seed % len(MISTAKES)]
        wrong, edits, found = trial(path, mistake, random.Random(seed).randrange(BLOCKS))
        assert edits >= 1000
        assert found.edit is not None and found.edit["id"] == wrong, f"{mistake}, seed {seed}: {found}"
        assert found.nodes is not None
        nodes.append(found.nodes[0])
        factors.append(1 + (found.seconds["search"] + found.seconds["reproducer"]) / found.seconds["validation"])
    print(f"nodes: median {statistics.median(nodes)}, most {max(nodes)}")
    print(f"times of one validation: median {statistics.median(factors):.1f}, most {max(factors):.1f}")
    assert statistics.median(nodes) <= 10 and max(factors) <= 15


def test_a_good_result_is_good(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(blocks(3), path)
    found = bisect(path)
    assert (found.verdict, found.exit_code, found.edit) == ("good", 0, None)
    assert str(found) == f"good  nothing is wrong after all {found.edits} edits"


def test_a_check_of_ones_own_needs_no_runtime_and_may_not_know(tmp_path: Path) -> None:
    """Good as long as there are two Sigmoids; what has an odd number of nodes cannot be told."""
    path = tmp_path / "m.onnx"
    onnx.save(blocks(1), path)
    tried: list[int] = []

    def check(candidate: Path) -> bool | None:
        ops = [n.op_type for n in onnx.load(candidate).graph.node]
        tried.append(len(ops))
        return ops.count("Sigmoid") == 2

    found = bisect(path, check=check)
    assert found.edit is not None and found.edit["rule"] == "equal_nodes"
    assert found.what == "the check calls the result bad"
    found = bisect(
        path, check=lambda candidate: check(candidate) if len(onnx.load(candidate).graph.node) in (12, 5, 6) else None
    )
    assert found.verdict == "inconclusive" and found.exit_code == 4
    assert "the first bad edit is one of" in found.what
    found = bisect(path, check=lambda _: False)
    assert found.what == "the check calls the original bad as well" and found.exit_code == 4


def test_a_command_is_asked_as_git_bisect_would(tmp_path: Path) -> None:
    path, script = tmp_path / "m.onnx", tmp_path / "check.py"
    onnx.save(blocks(1), path)
    script.write_text(
        "import sys, onnx\n"
        "ops = [n.op_type for n in onnx.load(sys.argv[1]).graph.node]\n"
        "sys.exit(0 if 'Cast' in ops else 3)\n"
    )
    command = [sys.executable, "-m", "optimizer", "bisect", str(path), "--check", f"{sys.executable} {script} {{}}"]
    done = subprocess.run([*command, "--format", "json"], capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    answer = json.loads(done.stdout)
    assert answer["verdict"] == "bad" and answer["edit"]["rule"] == "cast_to_same"
    assert answer["edits"] >= 5 and answer["trials"] >= 2


def test_directions() -> None:
    model = blocks(1)
    with pytest.raises(BadInput, match="does not say where the candidate goes"):
        bisect(model, check="true")
    with pytest.raises(BadInput, match="cannot be run"):
        bisect(model, check="/no/such/program {}")
    with pytest.raises(BadInput, match="no rule"):
        bisect(model, without=["nonsense"])


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="exists"):
        bisect(blocks(1), out=tmp_path)


def test_a_result_that_does_not_run_is_bisected_too() -> None:
    """An edit that makes the model fail: there is no output to compare."""

    @procedure()
    def breaks(editor: Editor, graph: Graph) -> None:
        """a target of the wrong size"""
        for n in list(graph):
            if n.op == "Neg" and n.inputs[0] is not None and not editor.notes("breaks", graph):
                editor.notes("breaks", graph)["done"] = True
                bad = editor.op.Reshape(n.inputs[0], np.array([7, 4, 8]))
                editor.replace([n.output], [editor.op.Neg(bad)], shape="claimed")

    own = Pass("simplify", (*SIMPLIFY.steps, breaks))
    found = bisect(blocks(2), passes=RECIPE, own=(own,))
    assert found.edit is not None and found.edit["rule"] == "breaks"


def test_an_edit_that_asks_no_gate_is_counted_too(tmp_path: Path) -> None:
    """Names and inputs change without a gate; the numbers stay those of the log."""
    path = tmp_path / "m.onnx"
    model = blocks(2)
    model.ir_version = 3
    for t in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)))
    onnx.save(model, path)
    wrong, _, found = trial(path, "a scale", 1)
    assert found.edit is not None and found.edit["id"] == wrong
