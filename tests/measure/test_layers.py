"""Layer by layer through the log: pairs by claims and not by names, no false alarm, and the first mistake named."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, helper, numpy_helper

import optimizer
from optimizer.core.edit import Editor, Fidelity
from optimizer.core.errors import BadInput
from optimizer.core.graph import Graph
from optimizer.core.model import graph_hash, read, write
from optimizer.core.pattern import op, values
from optimizer.core.rule import Pass, Step, procedure, rule
from optimizer.driver import pipeline, recipe
from optimizer.driver.presets import LEVELS
from optimizer.driver.receipt import log_row, text
from optimizer.measure import layers as subject
from optimizer.measure.layers import Layers, pairs_by_log

(x,) = values("x")
PLAIN: dict[str, Any] = {"feeds": None, "dims": {}, "tolerance": None, "custom_ops": [], "card": None, "seed": 0}
RNG = np.random.default_rng(3)


def layers(original: Path, result: Path) -> Layers:
    """The comparison in this process, which is quicker than in a child."""
    return subject.from_report(subject.look(str(original), str(result), **PLAIN))


def convolutions() -> ModelProto:
    """Three convolutions with batch normalization; the values before it stay named alike, with another meaning."""
    tensors, nodes, h = [], [], "x"
    for i in range(3):
        for name, a in {
            "w": RNG.normal(size=(4, 4, 3, 3)), "g": RNG.uniform(0.5, 2, 4), "b": RNG.normal(size=4),
            "m": RNG.normal(size=4), "v": RNG.uniform(0.5, 2, 4),
        }.items():  # fmt: skip
            tensors.append(numpy_helper.from_array(np.asarray(a, np.float32), f"{name}{i}"))
        nodes += [
            helper.make_node("Conv", [h, f"w{i}"], [f"c{i}"], pads=[1, 1, 1, 1]),
            helper.make_node("BatchNormalization", [f"c{i}", *(f"{k}{i}" for k in "gbmv")], [f"n{i}"]),
            helper.make_node("Relu", [f"n{i}"], [f"r{i}"]),
        ]
        h = f"r{i}"
    return _model([*nodes, helper.make_node("Identity", [h], ["y"])], tensors, ["n", 4, 6, 6])


def _model(nodes: list[Any], tensors: list[Any], shape: list[Any], opset: int = 17) -> ModelProto:
    ports = [helper.make_tensor_value_info(name, 1, shape) for name in "xy"]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def chain(length: int) -> ModelProto:
    nodes = [
        helper.make_node(("Neg", "Identity", "Abs")[k % 3], [f"h{k}" if k else "x"], [f"h{k + 1}"])
        for k in range(length)
    ]
    return _model([*nodes, helper.make_node("Softsign", [f"h{length}"], ["y"])], [], ["n", 3])


def made(model: ModelProto, folder: Path, *, own: tuple[Pass, ...] = (), spec: str = LEVELS[2]) -> tuple[Path, Path]:
    """The model and what a recipe makes of it, with its receipt beside it."""
    original, out = folder / "in.onnx", folder / "out.onnx"
    onnx.save(model, original)
    editor = Editor(read(original))
    facts = {"graph": graph_hash(editor.model)}
    pipeline.run(editor, recipe.parse(spec), own=own)
    write(editor.model, out)
    receipt = {"input": facts, "output": {"graph": graph_hash(read(out))}, "plan": None, "validation": {}}
    Path(f"{out}.receipt.json").write_text(text(receipt, [log_row(e) for e in editor.log]))
    return original, out


def test_after_folding_batch_norms_nothing_is_a_false_alarm(tmp_path: Path) -> None:
    original, out = made(convolutions(), tmp_path)
    assert [n.op_type for n in onnx.load(out).graph.node] == ["Conv", "Relu"] * 3
    found = layers(original, out)
    assert found.verdict == "pass", str(found)
    pairs = {(p.original, p.result) for p in found.layers}
    assert {("n0", "n0"), ("r0", "r0"), ("n2", "n2"), ("y", "y"), ("r2", "y")} <= pairs
    assert not any(a.startswith("c") for a, _ in pairs), "what is before a batch norm is gone, whatever is called so"
    rules = {p.original: [r for _, r in p.edits] for p in found.layers}
    assert rules["n1"] == ["conv_batch_norm"]
    assert 0 < max(p.local for p in found.layers) < 1e-5


def test_every_claimed_pair_of_the_log_is_compared(tmp_path: Path) -> None:
    original, out = made(convolutions(), tmp_path)
    log = json.loads(Path(f"{out}.receipt.json").read_text())["log"]
    there = {o for n in onnx.load(out).graph.node for o in n.output}
    claimed = {new for row in log for _, new in row["equal"] if new in there}
    assert claimed <= {p.result for p in layers(original, out).layers}


def wrongly(name: str, op_type: str, make: Callable[..., Any]) -> Pass:
    @procedure(fidelity=Fidelity.ROUNDING)
    def mistake(editor: Editor, graph: Graph) -> None:
        """wrong"""
        for n in list(graph):
            if n.op == op_type and n.output.name == name and not editor.notes("mistake", graph):
                editor.notes("mistake", graph)["done"] = True
                editor.replace([n.output], [make(editor.op, *n.inputs)], shape="planted")

    return Pass("planted", (mistake,))


@pytest.mark.parametrize(
    ("name", "op_type", "make"),
    [
        ("r1", "Relu", lambda op, v: op.Mul(op.Relu(v), 1.001)),
        ("r0", "Relu", lambda op, v: op.Abs(v)),
        ("n2", "Conv", lambda op, v, w, b: op.Conv(v, w, None, pads=[1, 1, 1, 1])),
    ],
)
def test_the_first_mistake_is_named_and_no_later_one(
    name: str, op_type: str, make: Callable[..., Any], tmp_path: Path
) -> None:
    spec = "normalize (propagate fold simplify)* finish planted cleanup"
    original, out = made(convolutions(), tmp_path, own=(wrongly(name, op_type, make),), spec=spec)
    found = layers(original, out)
    assert found.verdict == "fail" and found.exit_code == 1
    bad = [p for p in found.layers if p.diverges]
    assert [p.original for p in bad] == [name], "the local error shows where the mistake is made, and nowhere else"
    assert found.first is not None and found.first.edits[-1][1] == "mistake"
    behind = [p for p in found.layers if p.original[0] == "r" and p.original[1] >= name[1]]
    assert all(p.accumulated > p.limit for p in behind), "while every value behind it is off"
    assert f"(edit {found.first.edits[-1][0]}, rule mistake)" in str(found).splitlines()[0]


def test_slices_give_what_one_run_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original, out = made(chain(40), tmp_path)
    whole = subject.look(str(original), str(out), **PLAIN)
    monkeypatch.setattr(subject, "_SLICE", 3)
    monkeypatch.setattr(subject, "_SPILLED", 0)
    monkeypatch.setattr(subject, "_FED", 0)
    monkeypatch.setattr(subject, "_WHOLE", 0)
    assert subject.look(str(original), str(out), **PLAIN) == whole
    assert whole["verdict"] == "pass" and len(whole["layers"]) > 25


def test_merged_values_and_constants_are_pairs_too(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Sigmoid", ["x"], ["a"]), helper.make_node("Sigmoid", ["x"], ["b"]),
        helper.make_node("Sqrt", ["k"], ["s"]), helper.make_node("Add", ["a", "b"], ["t"]),
        helper.make_node("Mul", ["t", "s"], ["y"]),
    ]  # fmt: skip
    k = numpy_helper.from_array(np.asarray([1.0, 2.0, 3.0], np.float32), "k")
    original, out = made(_model(nodes, [k], ["n", 3]), tmp_path)
    found = {(p.original, p.result): p for p in layers(original, out).layers}
    (kept,) = {r for o, r in found if o in ("a", "b")}
    assert {("a", kept), ("b", kept), ("s", "s")} <= set(found)
    assert not any(p.diverges for p in found.values())


def test_names_of_bodies_are_not_those_of_the_graph() -> None:
    """A value of a body that is renamed, because one of the graph is called alike, renames nothing there."""
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]>\n'
        "g (bool c, float[n] x) => (float[n] y) { a = Neg(x)  b = If(c) <then_branch = t () => (float[n] p)"
        " { a = Abs(x)  p = Exp(a) }, else_branch = e () => (float[n] q) { a = Exp(x)  q = Abs(a) }>  y = Add(a, b) }"
    )
    before = read(proto)
    editor = Editor(read(proto))
    pipeline.run(editor, recipe.parse("normalize"))
    log = [log_row(e) for e in editor.log]
    assert any(r.get("renamed") for r in log)
    assert {(p.original, p.result) for p in pairs_by_log(log, before, editor.model)} == {
        ("a", "a"),
        ("b", "b"),
        ("y", "y"),
    }


def test_what_a_guest_left_is_only_its_outputs(tmp_path: Path) -> None:
    """No name means what it did after someone else had the model."""
    log = [
        {
            "id": 1,
            "phase": "guest",
            "rule": "graphsurgeon:f",
            "scope": [],
            "equal": [],
            "gone": [],
            "new": [],
            "fidelity": "rounding",
        }
    ]
    model = read(chain(4))
    assert {p.result for p in pairs_by_log(log, model, model)} == {"y"}


def test_random_numbers_are_not_compared(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("RandomNormalLike", ["x"], ["r"]), helper.make_node("Identity", ["r"], ["i"]),
        helper.make_node("Add", ["x", "i"], ["y"]),
    ]  # fmt: skip
    found = layers(*made(_model(nodes, [], ["n", 3]), tmp_path))
    assert found.verdict == "pass" and found.skipped["that draw numbers"] == 2


def test_rounding_that_a_cancellation_amplifies_is_none_of_the_edits_fault(tmp_path: Path) -> None:
    """(x + 1e4) · 1 − 1e4 loses its last places in any order."""
    big = numpy_helper.from_array(np.asarray(1e4, np.float32), "k")
    nodes = [
        helper.make_node("Add", ["x", "k"], ["a"]), helper.make_node("Sub", ["a", "k"], ["b"]),
        helper.make_node("Exp", ["b"], ["y"]),
    ]  # fmt: skip

    @rule(op.Sub(op.Add(x, 1e4), 1e4))
    def cancels(op: Any, x: Any) -> Any:
        """(x + k) − k → x"""
        return op.Identity(x)

    own: tuple[Step, ...] = (cancels,)
    original, out = made(
        _model(nodes, [big], ["n", 3]),
        tmp_path,
        own=(Pass("planted", own),),
        spec="normalize propagate planted cleanup",
    )
    found = layers(original, out)
    (pair,) = [p for p in found.layers if p.original == "b"]
    assert pair.local > pair.limit and not pair.diverges
    assert found.verdict == "pass"


def test_without_a_receipt_there_are_directions(tmp_path: Path) -> None:
    original, out = made(chain(3), tmp_path)
    with pytest.raises(BadInput, match="another original"):
        other = tmp_path / "other.onnx"
        onnx.save(chain(4), other)
        layers(other, out)
    onnx.save(chain(2), out)
    with pytest.raises(BadInput, match="of another model"):
        layers(original, out)
    Path(f"{out}.receipt.json").unlink()
    with pytest.raises(BadInput, match="no receipt beside the result"):
        layers(original, out)


def test_the_verb(tmp_path: Path) -> None:
    original, out = made(chain(3), tmp_path)
    command = [sys.executable, "-m", "optimizer", "validate", str(original), str(out), "--layers", "--seeds", "1"]
    done = subprocess.run([*command, "--format", "json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["verdict"] == "pass" and answer["layers"]["verdict"] == "pass"
    assert str(layers(original, out)).startswith("none diverges  ")
    assert callable(optimizer.layers)
