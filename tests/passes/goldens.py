"""Golden files: what a rule does, and what it must leave alone, as text.

One file a rule, `tests/golden/NAME.onnxtxt`, in sections that begin with a line `before`, `after` or `keeps`, each with
an optional remark behind a colon:

    before: two in a row
    g (float[N] x) => (float[N] y) { z = Relu(x)  y = Relu(z) }
    after
    g (float[N] x) => (float[N] y) { y = Relu(x) }
    keeps: another activation between them
    …

A section is a graph as `onnx.parser` reads it, at opset 23 and IR 11, or a whole model that begins with `<`. `before`
becomes `after`; `keeps` stays as it is. `python tests/passes/goldens.py NAME…` writes what follows each `before` anew.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import onnx
from onnx import AttributeProto, GraphProto, ModelProto, TensorProto, numpy_helper

from optimizer.core.edit import Editor
from optimizer.core.graph import lower
from optimizer.core.model import read
from optimizer.core.rule import Pass, Planned, Step
from optimizer.driver.catalog import all_passes
from passes.propagate import analysis

FOLDER = Path(__file__).parents[1] / "golden"
HEAD = '<ir_version: 11, opset_import: ["": 23]>\n'
_SECTION = re.compile(r"^(before|after|keeps)(?:: *(.*))?$", re.MULTILINE)


@dataclass(frozen=True)
class Golden:
    """One case of a rule; without `after` the model stays as it is."""

    rule: str
    title: str
    before: ModelProto
    after: ModelProto | None

    def __str__(self) -> str:
        return f"{self.rule}-{self.title.replace(' ', '-')}"


@cache
def steps() -> dict[str, Step]:
    """Every rule and procedure of the catalog by name; what a plan decides is tested with its plan."""
    return {s.name: s for p in all_passes().values() for s in p.steps if not isinstance(s, Planned)}


@cache
def goldens() -> tuple[Golden, ...]:
    return tuple(g for path in sorted(FOLDER.glob("*.onnxtxt")) for g in parse(path.stem, path.read_text()))


def parse(rule: str, text: str) -> list[Golden]:
    """The cases of one file.

    Raises:
        ValueError: a section is no ONNX text, or `before` and `after` do not alternate.
    """
    parts = _SECTION.split(text)
    if parts[0].strip():
        raise ValueError(f"{rule}: text before the first section")
    out: list[Golden] = []
    for at in range(1, len(parts), 3):
        kind, title, body = parts[at], parts[at + 1] or "", parts[at + 2]
        model = _model(rule, title, body)
        if kind == "after":
            if not out or out[-1].after is not None or parts[at - 3] != "before":
                raise ValueError(f"{rule}: `after` without `before`")
            out[-1] = Golden(rule, out[-1].title, out[-1].before, model)
        else:
            out.append(Golden(rule, f"{'keeps ' if kind == 'keeps' else ''}{title or len(out)}", model, None))
    if any(p == "before" and parts[i + 3 : i + 4] != ["after"] for i, p in enumerate(parts) if i % 3 == 1):
        raise ValueError(f"{rule}: `before` without `after`")
    return out


def _model(rule: str, title: str, body: str) -> ModelProto:
    try:
        return onnx.parser.parse_model(body if body.lstrip().startswith("<") else HEAD + body)
    except onnx.parser.ParseError as e:
        raise ValueError(f"{rule}: {title}: {e.args[0].decode()}") from e


def apply(rule: str, editor: Editor) -> int:
    """The rule alone, on what the analysis knows, until nothing changes; the number of edits."""
    return Pass("golden", (analysis, steps()[rule])).run(editor)


def rewritten(golden: Golden) -> ModelProto:
    model = read(golden.before)
    apply(golden.rule, Editor(model))
    return lower(model)


def text(model: ModelProto) -> str:
    """The model as text that is equal for equal graphs: without node names and inner types, tensors by value."""
    m = ModelProto()
    m.CopyFrom(model)
    m.ClearField("producer_name")
    m.ClearField("producer_version")
    _plain(m.graph)
    return onnx.printer.to_text(m)


def _plain(g: GraphProto) -> None:
    del g.value_info[:]
    g.name = "g"
    for t in g.initializer:
        _spelled(t)
    for n in g.node:
        n.ClearField("name")
        attributes = sorted(n.attribute, key=lambda a: a.name)
        del n.attribute[:]
        n.attribute.extend(attributes)
        for a in n.attribute:
            if a.type == AttributeProto.GRAPH:
                _plain(a.g)
            elif a.type == AttributeProto.TENSOR:
                _spelled(a.t)
                a.t.ClearField("name")


def _spelled(t: TensorProto) -> None:
    """Numbers that the printer shows in full."""
    if t.data_type not in (TensorProto.STRING, TensorProto.FLOAT16, TensorProto.BFLOAT16):
        spelled = numpy_helper.from_array(numpy_helper.to_array(t), t.name)
        t.CopyFrom(spelled)


def write(rule: str) -> None:
    """What follows each `before` of a rule's file becomes what the rule makes now."""
    path = FOLDER / f"{rule}.onnxtxt"
    parts = _SECTION.split(path.read_text())
    out, at = [], 1
    while at < len(parts):
        kind, title, body = parts[at], parts[at + 1], parts[at + 2]
        at += 3
        if kind == "after":
            continue
        out.append(f"{kind}{f': {title}' if title else ''}\n{body.strip()}\n")
        if kind == "before":
            made = text(rewritten(Golden(rule, title or "", _model(rule, title or "", body), None)))
            out.append("after\n" + _short(made))
    path.write_text("\n".join(out))


def _short(made: str) -> str:
    head, _, graph = made.partition("g (")
    plain = re.sub(r"\s", "", head) == re.sub(r"\s", "", HEAD)
    return ("" if plain else head) + "g (" + graph.strip() + "\n"


if __name__ == "__main__":
    import sys

    for name in sys.argv[1:]:
        write(name)
