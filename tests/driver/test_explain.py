"""explain: every rule has its equation, and a name's life is followed through every edit of a real run."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import onnx.parser
import pytest

import optimizer
from optimizer.core.errors import BadInput
from optimizer.driver import optimize as driver
from optimizer.driver.explain import describe_edit

GELU = """
<ir_version: 8, opset_import: ["" : 20]>
g (float[N, 8] x) => (float[N, 8] y)
{
  [one_node] one = Constant<value = float {1.0}>()
  [root] r = Constant<value = float {1.4142135}>()
  [half_node] half = Constant<value = float {0.5}>()
  [plain] i = Identity(x)
  [block_Div] a = Div(i, r)
  [block_Erf] b = Erf(a)
  [block_Add] c = Add(b, one)
  [block_Mul] d = Mul(i, c)
  [block_Mul_1] e = Mul(d, half)
  [after] y = Neg(e)
}
"""


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("explain")
    source, out = folder / "in.onnx", folder / "out.onnx"
    onnx.save(onnx.parser.parse_model(GELU), source)
    driver.run(source, out, validate=False)
    return out


def test_the_catalog_lists_every_rule_with_its_equation() -> None:
    document = optimizer.explain().to_dict()
    assert document["schema"] == "graphwright.explanation/1"
    phases = [phase["name"] for phase in document["phases"]]
    assert phases[:4] == ["normalize", "propagate", "fold", "simplify"], "in the order of the presets"
    rules = [rule for phase in document["phases"] for rule in phase["rules"]]
    assert all(rule["equation"] and rule["fidelity"] in ("exact", "rounding", "lossy") for rule in rules)
    screen = str(optimizer.explain())
    assert all(f"  {rule['name']} " in screen and rule["equation"] in screen for rule in rules)


def test_a_rule_and_a_pass() -> None:
    text = str(optimizer.explain(name="gelu"))
    assert text.startswith("gelu   pass recognize   rounding   evidence law\n  ") and "→ Gelu" in text
    names = [rule["name"] for rule in optimizer.explain(name="cleanup").to_dict()["rules"]]
    assert "dead_code" in names and "gelu" not in names


@pytest.mark.parametrize(("rule", "phase"), [("prune", "prune"), ("quantize", "quantize"), ("raise_opset", "quantize")])
def test_what_a_plan_decides_is_in_the_catalog(rule: str, phase: str) -> None:
    found = optimizer.explain(name=rule).to_dict()["rules"]
    assert (rule, phase) in [(row["name"], row["pass"]) for row in found]
    with pytest.raises(BadInput, match=f"the pass '{phase}' writes a plan"):
        optimizer.optimize(onnx.parser.parse_model(GELU), passes=f"normalize {phase}", validate=False)


@pytest.mark.parametrize("name", ["block_Div", "block_Erf", "block_Mul_1"])
def test_a_node_of_the_original_became_the_fused_one(out: Path, name: str) -> None:
    life = optimizer.explain(out, name)
    now = life.to_dict()["now"]
    gelu = next(n.name for n in onnx.load(out).graph.node if n.op_type == "Gelu")
    assert now == [gelu]
    assert str(life).splitlines()[0] == f"{name}   now: {gelu}"
    assert any("Div, Erf, Add, Mul, Mul → Gelu" in line for line in str(life).splitlines())


def test_a_node_of_the_result_tells_what_it_was(out: Path) -> None:
    gelu = next(n.name for n in onnx.load(out).graph.node if n.op_type == "Gelu")
    edits = optimizer.explain(out, gelu).to_dict()["edits"]
    assert [row["rule"] for row in edits] == ["gelu"]
    assert ["Erf", "block_Erf"] in edits[0]["gone"]


def test_values_keep_their_life(out: Path) -> None:
    assert optimizer.explain(out, "e").to_dict()["now"] == ["e"], "the new value took the old one's name"
    assert "gelu" in str(optimizer.explain(out, "e"))
    absorbed = optimizer.explain(out, "b")
    assert "→ Gelu" in str(absorbed), "a value inside: what became of the node that made it"
    assert str(optimizer.explain(out, "after")) == "after   unchanged"
    assert "now: x" in str(optimizer.explain(out, "plain")).splitlines()[0]


def test_every_name_of_original_and_result_has_a_life(out: Path) -> None:
    source = onnx.parser.parse_model(GELU)
    names = [n for model in (source, onnx.load(out)) for node in model.graph.node for n in (node.name, *node.output)]
    for name in names:
        life = optimizer.explain(out, name)
        assert life.to_dict()["edits"] or "unchanged" in str(life), name


def test_unknown_names_are_asked_back(out: Path) -> None:
    with pytest.raises(BadInput, match="no node and no value") as error:
        optimizer.explain(out, "block_Erff")
    assert error.value.fix == "did you mean block_Erf?"
    with pytest.raises(BadInput) as error:
        optimizer.explain(name="gellu")
    assert error.value.fix == "did you mean gelu?"
    with pytest.raises(BadInput) as error:
        optimizer.explain(name=str(out))
    assert error.value.fix and "NODE" in error.value.fix
    with pytest.raises(BadInput):
        optimizer.explain(out)


def test_without_a_receipt_of_its_own_nothing_is_told(out: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone.onnx"
    alone.write_bytes(out.read_bytes())
    with pytest.raises(BadInput, match="no receipt"):
        optimizer.explain(alone, "e")
    receipt = Path(f"{alone}.receipt.json")
    receipt.write_bytes(Path(f"{out}.receipt.json").read_bytes())
    assert optimizer.explain(alone, "e").to_dict()["now"] == ["e"]
    model = onnx.load(alone)
    model.graph.node[0].op_type = "Relu"
    onnx.save(model, alone)
    with pytest.raises(BadInput, match="another one"):
        optimizer.explain(alone, "e")
    receipt.write_text("[")
    with pytest.raises(BadInput, match="cannot be read"):
        optimizer.explain(alone, "e")


def test_an_edit_is_one_line(out: Path) -> None:
    log = json.loads(Path(f"{out}.receipt.json").read_text())["log"]
    lines = [describe_edit(row) for row in log]
    assert all("\n" not in line for line in lines)
    assert lines[0] == f"{log[0]['id']} constant (exact, evidence law)   Constant → a constant     equal: one"
    scoped = describe_edit(
        {**log[0], "scope": ["If_0.then_branch"], "gone": [["Add", f"a{i}"] for i in range(9)], "note": "why"}
    )
    assert " in If_0.then_branch   Add × 9 → a constant " in scoped and scoped.endswith("     why")


STEPS = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[N, 8] x) => (float[N, 8] y)
<float[1] w = {3.0}, float[1] kept = {4.0}>
{
  [plain] a = Relu(x)  [lost] b = Identity(a)  [scaled] c = Mul(b, w)  [shifted] d = Add(c, kept)
  [after] y = Neg(d)
}
"""


@pytest.fixture
def guested(tmp_path: Path) -> Path:
    """A result whose guest made, changed and removed something, one of each kind."""
    (tmp_path / "guest.py").write_text(
        """
def change(graph):
    import onnx_graphsurgeon as gs
    nodes = {n.name: n for n in graph.nodes}
    nodes["after"].op = "Abs"
    nodes["scaled"].inputs[1].values = nodes["scaled"].inputs[1].values * 2
    (y,) = graph.outputs
    made = gs.Variable("made", "float32", ["N", 8])
    graph.nodes.append(gs.Node("Ceil", "made_Ceil", inputs=[y], outputs=[made]))
    graph.outputs = [made]
    nodes["scaled"].inputs[0] = nodes["plain"].outputs[0]
    graph.cleanup()
"""
    )
    source, out = tmp_path / "in.onnx", tmp_path / "out.onnx"
    onnx.save(onnx.parser.parse_model(STEPS), source)
    driver.run(source, out, passes="", graphsurgeon=f"{tmp_path}/guest.py:change", validate=False)
    return out


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("plain", "unchanged"),
        ("kept", "unchanged"),
        ("shifted", "unchanged"),
        ("after", "graphsurgeon:change changed it, or what it reads"),
        ("scaled", "graphsurgeon:change changed it, or what it reads"),
        ("w", "graphsurgeon:change changed it, or what it reads"),
        ("made_Ceil", "graphsurgeon:change made it, or what became it"),
        ("made", "graphsurgeon:change made it, or what became it"),
        ("lost", "now: gone; graphsurgeon:change removed it"),
    ],
)
def test_what_a_guest_changed_is_not_called_unchanged(guested: Path, name: str, state: str) -> None:
    first, *edits = str(optimizer.explain(guested, name)).splitlines()
    assert first == f"{name}   {state}"
    assert bool(edits) == (state != "unchanged")
    if edits:
        assert edits[0].startswith("  1 graphsurgeon:change (rounding, evidence none)   opaque: ")
        assert edits[0].endswith("guest.py:change")


def test_without_the_original_a_guest_may_have_changed_anything(guested: Path) -> None:
    guested.with_name("in.onnx").unlink()
    first = str(optimizer.explain(guested, "plain")).splitlines()[0]
    assert first == "plain   graphsurgeon:change may have changed it (the original is not at hand to compare with)"


def test_what_was_inlined_was_not_there_before(tmp_path: Path) -> None:
    source, out = tmp_path / "in.onnx", tmp_path / "out.onnx"
    text = """
    <ir_version: 8, opset_import: ["" : 17, "local" : 1]>
    g (float[N] x) => (float[N] y) { [call] a = local.twice(x)  [own] y = Neg(a) }
    <domain: "local", opset_import: ["" : 17]>
    twice (u) => (v) { [inner] v = Add(u, u) }
    """
    onnx.save(onnx.parser.parse_model(text), source)
    driver.run(source, out, passes="normalize", validate=False)
    inlined = next(n.name for n in onnx.load(out).graph.node if n.op_type == "Add")
    first, edit = str(optimizer.explain(out, inlined)).splitlines()
    assert first == f"{inlined}   inline_function made it, or what became it" and "inline_function" in edit
    assert str(optimizer.explain(out, "own")) == "own   unchanged"


def test_a_constant_that_becomes_another_and_an_output_that_keeps_its_name(tmp_path: Path) -> None:
    source, out = tmp_path / "in.onnx", tmp_path / "out.onnx"
    onnx.save(onnx.parser.parse_model(STEPS.replace("[after] y = Neg(d)", "[after] y = Identity(d)")), source)
    driver.run(source, out, validate=False)
    row = {**json.loads(Path(f"{out}.receipt.json").read_text())["log"][0], "gone": [], "equal": [["w", "w"]]}
    assert "   a constant → a constant     equal: w" in describe_edit(row)
    assert "Identity → a value that is there     equal: y (was " in str(optimizer.explain(out, "y"))


def test_a_constant_that_a_rule_made_is_not_called_unchanged(tmp_path: Path) -> None:
    source, out = tmp_path / "in.onnx", tmp_path / "out.onnx"
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N, 1, 4, 4] x) => (float[N, 1, 4, 4] y)
    <float[1, 1, 1, 1] w = {2}, float[1] b = {5}, float[1] v = {7}>
    { m = Conv(x, w)  y = BatchNormalization(m, b, b, b, v) }
    """
    onnx.save(onnx.parser.parse_model(text), source)
    driver.run(source, out, validate=False)
    before = {"w", "b", "v"}
    graph = onnx.load(out).graph
    before |= {n.name for n in graph.node}  # numbered like the constants that its rule made
    made = [t.name for t in graph.initializer if t.name not in before]
    assert made
    for name in made:
        first, *edits = str(optimizer.explain(out, name)).splitlines()
        assert first == f"{name}   made for what reads it" and edits
    source.unlink()
    assert "perhaps made for" in str(optimizer.explain(out, made[0]))
