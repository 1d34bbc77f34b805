"""Cards are checked line by line, models of every form become a file, and a card's Python runs only when called."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import onnx.parser
import pytest

from optimizer.core.errors import BadInput, EnvironmentNotAsAsked, ToolFailure
from optimizer.runtime.card import load_function, read_card, resolve
from optimizer.runtime.fetch import file_sha256

RELU = """<ir_version: 10, opset_import: ["": 20]>
g (float[n, 3] x) => (float[n, 3] y) { y = Relu(x) }"""

PYTHON = """
import os, pathlib
pathlib.Path(__file__).with_name("ran").write_text(str(os.getpid()))
import numpy as np, onnx

def feeds(seed):
    yield {"x": np.full((1, 3), seed, np.float32)}

def score(run):
    return float(run({"x": np.ones((1, 3), np.float32)})["y"].sum())

def negate(file):
    model = onnx.load(file)
    model.graph.node[0].op_type = "Neg"
    return model

def crash(file):
    os._exit(3)
"""


@pytest.fixture
def card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes a card beside model.onnx and mine.py."""
    monkeypatch.setenv("GRAPHWRIGHT_CACHE", str(tmp_path / "cache"))
    onnx.save(onnx.parser.parse_model(RELU), tmp_path / "model.onnx")
    (tmp_path / "mine.py").write_text(PYTHON)

    def write(text: str) -> Path:
        (tmp_path / "card.toml").write_text(text)
        return tmp_path / "card.toml"

    return write


def test_card_holds_what_it_says(card: Any, tmp_path: Path) -> None:
    path = card("""
path = "model.onnx"
feeds = "mine.py:feeds"
task = "mine.py:score"
task_name = "sum"
task_noise = 1
dims = [{ n = 1 }, { n = 3 }]
""")
    read = read_card(path)
    assert (read.path, read.model, read.source) == (path, tmp_path / "model.onnx", None)
    assert (read.task_name, read.task_noise, read.dims) == ("sum", 1, ({"n": 1}, {"n": 3}))
    assert resolve(path) == resolve(str(path))
    assert resolve(path).path == tmp_path / "model.onnx" and resolve(path).card == read
    assert not (tmp_path / "ran").exists()  # reading runs none of its Python

    assert next(read.load_feeds()(7))["x"].tolist() == [[7, 7, 7]]  # type: ignore[union-attr]
    assert read.load_task()(lambda feed: {"y": feed["x"]}) == 3
    with pytest.raises(BadInput, match="the card has no build"):
        read.load_build()


SOURCE = 'source = "a==1"\nmember = "m"\nsha256 = "' + "0" * 64 + '"\n'


@pytest.mark.parametrize(
    ("text", "line", "what", "fix"),
    [
        ('path = "model.onnx"\n\ntask_nmae = "x"', 3, "unknown key 'task_nmae'", "did you mean 'task_name'?"),
        ('path = "model.onnx"\nzzz = 1', 2, "unknown key 'zzz'", "the keys are source, member"),
        ('path = "model.onnx"\n[feed]\na = 1', 2, "unknown key 'feed'", "did you mean 'feeds'?"),
        ("path = 3", 1, "path is 3, expected a file", None),
        ('path = "model.onnx"\ntask = "mine.py"', 2, 'expected "file.py:function"', None),
        ('path = "model.onnx"\ntask = "mine.pi:score"', 2, 'expected "file.py:function"', None),
        ('path = "model.onnx"\ntask = "mime.py:score"', 2, "names a file that is not there", "mine.py?"),
        ('path = "model.onnx"\ntask_noise = "low"', 2, "task_noise is 'low', expected a number", None),
        ('path = "model.onnx"\ntask_noise = true', 2, "task_noise is True", None),
        ('path = "model.onnx"\ntask_noise = -0.1', 2, "task_noise is -0.1", None),
        ('path = "model.onnx"\ndims = { n = 1 }', 2, "dims is {'n': 1}, expected a list", None),
        ('path = "model.onnx"\ndims = [{ n = 0 }]', 2, "dims is", None),
        ('path = "model.onnx"\ndims = [{ n = "1" }]', 2, "dims is", None),
        ('path = "model.onnx"\n[[dims]]\nn = true', 2, "dims is", None),
        ('path = "model.onnx"\nsha256 = "b388"', 2, "sha256 is 'b388', expected 64", None),
        ('path = "model.onnx"\nmember = "m"', 2, "there is no source", None),
        ('licence = "MIT"', None, "either a source or a path", 'path = "model.onnx"'),
        (SOURCE + 'path = "model.onnx"', None, "either a source or a path", None),
        ('source = "a==1"\nmember = "m"', 1, "needs sha256", 'add sha256 = "…"'),
        ('source = "a==1', None, "not valid TOML: Illegal character '\\n'", None),
        ('path = "model.onnx"\npath = "b"', None, "not valid TOML: Cannot overwrite a value (at line 2", None),
    ],
)
def test_wrong_card_is_refused_at_its_line(text: str, line: int | None, what: str, fix: str | None, card: Any) -> None:
    path = card(text + "\n")
    with pytest.raises(BadInput) as refused:
        resolve(path)
    assert what in refused.value.what
    assert refused.value.at == (f"{path}:{line}" if line else str(path))
    assert (fix or "") in (refused.value.fix or "")


def test_model_beside_the_card_is_checked(card: Any, tmp_path: Path) -> None:
    digest = file_sha256(tmp_path / "model.onnx")
    assert resolve(card(f'path = "model.onnx"\nsha256 = "{digest}"\n')).path == tmp_path / "model.onnx"
    with pytest.raises(BadInput, match="another sha256"):
        resolve(card(f'path = "model.onnx"\nsha256 = "{"0" * 64}"\n'))
    with pytest.raises(BadInput, match="no such model") as refused:
        resolve(card('path = "modl.onnx"\n'))
    assert "model.onnx" in (refused.value.fix or "")


def test_models_of_every_form_become_a_file(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(RELU)
    file = tmp_path / "model.onnx"
    onnx.save(model, file)
    assert resolve(file).path == resolve(str(file)).path == file
    for form in (model, model.SerializeToString()):
        source = resolve(form)
        path = source.path
        assert onnx.load(path) == model and source.card is None
        del source
        gc.collect()
        assert not path.parent.exists()
    with pytest.raises(BadInput, match="no such model") as refused:
        resolve(tmp_path / "modell.onnx")
    assert "model.onnx" in (refused.value.fix or "")
    with pytest.raises(BadInput, match="a int is no model"):
        resolve(3)  # type: ignore[arg-type]


def test_built_model_is_built_once_in_a_child(card: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = card('path = "model.onnx"\nbuild = "mine.py:negate"\n')
    built = resolve(path).path
    assert onnx.load(built).graph.node[0].op_type == "Neg"
    assert (tmp_path / "ran").read_text() != str(os.getpid())
    assert capfd.readouterr() == ("", "building card\n")

    (tmp_path / "ran").unlink()
    assert resolve(path).path == built and not (tmp_path / "ran").exists()
    (tmp_path / "mine.py").write_text(PYTHON.replace('"Neg"', '"Abs"'))  # another builder builds again
    assert onnx.load(resolve(path).path).graph.node[0].op_type == "Abs"


def test_builder_that_dies_leaves_nothing(card: Any, tmp_path: Path) -> None:
    with pytest.raises(ToolFailure):
        resolve(card('path = "model.onnx"\nbuild = "mine.py:crash"\n'))
    with pytest.raises(BadInput, match="defines no function 'negat'") as refused:
        resolve(card('path = "model.onnx"\nbuild = "mine.py:negat"\n'))
    assert refused.value.fix == "did you mean 'negate'?"
    assert not list(tmp_path.glob("cache/built/*/*.onnx"))


def test_python_that_cannot_run_is_refused_with_directions(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("import no_such_package\n")
    with pytest.raises(EnvironmentNotAsAsked, match=r"mine\.py imports no_such_package") as missing:
        load_function(tmp_path / "mine.py", "feeds")
    assert "graphwright[models" in (missing.value.fix or "")
    (tmp_path / "theirs.py").write_text("1 / 0\n")
    with pytest.raises(BadInput, match="ZeroDivisionError"):
        load_function(tmp_path / "theirs.py", "feeds")
    with pytest.raises(BadInput, match="no such Python file"):
        load_function(tmp_path / "nobodys.py", "feeds")


def test_feeds_and_task_share_one_module(card: Any, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("state = []\ndef feeds(seed): return state\ndef score(run): return state\n")
    read = read_card(card('path = "model.onnx"\nfeeds = "mine.py:feeds"\ntask = "mine.py:score"\n'))
    assert read.load_feeds()(0) is read.load_task()(lambda feed: {})


def test_reading_a_card_loads_neither_numpy_nor_onnx(card: Any) -> None:
    path = card('path = "model.onnx"\n')
    code = f"import sys; from optimizer.runtime.card import resolve; resolve({str(path)!r})\n"
    code += "assert not {'numpy', 'onnx', 'onnxruntime'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)
