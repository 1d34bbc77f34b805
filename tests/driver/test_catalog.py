"""The catalog with plugins: what is broken is called the plugin's, and disturbs nobody who did not ask for it."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import onnx
import onnx.parser
import pytest

import optimizer
from optimizer.cli.main import main
from optimizer.core.errors import BadInput, ToolFailure
from optimizer.driver import catalog

MODEL = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[N] x) => (float[N] y) { [neg] y = Neg(x) }
"""

Install = Callable[[str], None]


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Installs a distribution `demo 1.2` whose pass `mine` is `demo_plugin:MINE`, of that source."""

    def install(source: str) -> None:
        (tmp_path / "demo_plugin.py").write_text(textwrap.dedent(source))
        info = tmp_path / "demo-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: demo\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text("[graphwright.passes]\nmine = demo_plugin:MINE\n")
        monkeypatch.syspath_prepend(tmp_path)
        forget()

    yield install
    monkeypatch.undo()
    sys.modules.pop("demo_plugin", None)
    forget()


def forget() -> None:
    importlib.invalidate_caches()
    catalog._entries.cache_clear()
    catalog.find.cache_clear()


WORKS = '''
    from optimizer.core.rule import Pass, procedure

    @procedure()
    def look(editor, graph):
        """nothing → nothing"""
        # look

    MINE = Pass("mine", (look,))
'''


def test_a_plugin_is_a_pass_like_any_other(plugin: Install) -> None:
    plugin(WORKS)
    result = optimizer.optimize(onnx.parser.parse_model(MODEL), passes="normalize mine", validate=False)
    assert [p["name"] for p in result.receipt["phases"]] == ["normalize", "mine"]
    assert str(optimizer.explain(name="look")).startswith("look   pass mine   exact")


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("import no_such_module", "cannot be imported: ModuleNotFoundError: No module named 'no_such_module'"),
        ("1 / 0", "cannot be imported: ZeroDivisionError: division by zero"),
        ("x = 1", "cannot be imported: AttributeError: module 'demo_plugin' has no attribute 'MINE'"),
        ("MINE = 7", "is no Pass but of type int"),
        (WORKS.replace("# look", "{}['odd']"), "failed: KeyError: 'odd'"),
    ],
)
def test_what_is_broken_is_the_plugin_s(
    plugin: Install, source: str, what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plugin(source)
    with pytest.raises(ToolFailure) as error:
        optimizer.optimize(onnx.parser.parse_model(MODEL), passes="normalize mine", validate=False)
    assert error.value.what == f"the plugin pass 'mine' {what}"
    assert error.value.at is not None and error.value.at.startswith("demo 1.2, demo_plugin:MINE")
    onnx.save(onnx.parser.parse_model(MODEL), tmp_path / "m.onnx")
    code = main(["optimize", str(tmp_path / "m.onnx"), "--dry-run", "--passes", "mine"])
    shown = capsys.readouterr().err
    assert code == 3 and shown.startswith("error: the plugin pass 'mine' ") and "a bug in graphwright" not in shown
    assert "update or repair demo" in shown


def test_who_did_not_ask_for_a_broken_plugin_is_only_warned(plugin: Install) -> None:
    plugin("import no_such_module")
    model = onnx.parser.parse_model(MODEL)
    assert optimizer.optimize(model, validate=False).exit_code == 0
    with pytest.warns(UserWarning, match=r"the plugin pass 'mine' cannot be imported.*demo 1.2"):
        assert "gelu" in str(optimizer.explain())
    with pytest.warns(UserWarning, match="mine"):
        assert optimizer.optimize(model, without=["gelu"], validate=False).exit_code == 0


def test_directions_of_a_plugin_and_bugs_of_ours_stay_what_they_are(
    plugin: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin(WORKS)
    with pytest.raises(BadInput, match="mine says no"), catalog.blamed("mine"):
        raise BadInput("mine says no")
    with pytest.raises(KeyError), catalog.blamed("fold"):
        raise KeyError("ours")
