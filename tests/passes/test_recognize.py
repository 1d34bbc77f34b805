"""Idioms in published models, raised to an opset that has their operations: all found, and the answers stay."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from answers import OFF, Runner, differ_all, feeds
from onnx import parser, version_converter

from optimizer.core.edit import Editor
from optimizer.core.model import read, to_proto
from optimizer.core.propagate import propagate
from optimizer.driver import pipeline, recipe
from optimizer.driver.presets import LEVELS
from optimizer.runtime.card import resolve
from optimizer.runtime.feeds import draw
from optimizer.runtime.interface import read_interface
from passes.recognize import RECOGNIZE

MODELS = Path(__file__).parents[2] / "models"
IDIOMS = {  # layers of each architecture, and what each layer holds
    "minilm": {"gelu": 3},
    "whisper_encoder": {"gelu": 3},
    "phi2": {"gelu_tanh": 1},
    "phi4": {"rms_norm": 5},
    "smollm_1": {"rms_norm": 3},
    "pp_ocr_rec": {"layer_norm": 5, "hard_swish": 28},
    "magika": {"gelu_tanh": 2},
}


@pytest.mark.parametrize("name", IDIOMS)
def test_every_idiom_of_a_model_is_found(name: str, tmp_path: Path) -> None:
    source = resolve(MODELS / f"{name}.toml")
    raised = version_converter.convert_version(onnx.load(source.path), 23)
    path = tmp_path / "raised.onnx"
    onnx.save(raised, path)
    editor = Editor(read(path))
    pipeline.run(editor, recipe.parse(LEVELS[2]))
    rules = {s.name for s in RECOGNIZE.steps}
    assert Counter(e.rule for e in editor.log if e.rule in rules) == IDIOMS[name]
    assert not [why for why in editor.refused if why[0] in rules]

    assert source.card is not None
    before, after = Runner(raised, OFF), Runner(to_proto(editor.model), OFF)
    random = np.random.default_rng(0)
    interface = read_interface(path)
    binding = next(iter(source.card.dims or [{}]))
    feed = draw(interface, binding, random, "normal")
    for a, b in zip(before(feed), after(feed)):
        assert a.shape == b.shape and a.dtype == b.dtype
        assert np.abs(a - b).max(initial=0) <= 1e-5 * np.abs(a).max(initial=1e-30)


def test_casts_stay_where_scale_and_shift_are_in_float32() -> None:
    """The runtime's own fusion makes an invalid node of this, so only its unoptimized answer counts."""
    m = parser.parse_model("""<ir_version: 11, opset_import: ["": 23]>
        g (float16[N, 8] x) => (float16[N, 8] y)
          <float[8] g = {1,2,3,4,5,6,7,8}, float[8] b = {8,7,6,5,4,3,2,1}, float e = {1e-5}, float two = {2},
           int64[1] a = {-1}> {
            c = Cast<to = 1>(x)
            m = ReduceMean(c, a)  d = Sub(c, m)  p = Pow(d, two)  v = ReduceMean(p, a)
            ve = Add(v, e)  s = Sqrt(ve)  n = Div(d, s)  w = Mul(n, g)  z = Add(w, b)
            y = Cast<to = 10>(z)
        }""")
    model = read(m)
    propagate(model)
    editor = Editor(model)
    RECOGNIZE.run(editor)
    assert [n.op for n in model.graph] == ["Cast", "LayerNormalization", "Cast"]
    given = feeds(m, {"N": 5}, "signed", 1)
    assert not differ_all(Runner(m, OFF)(given), Runner(to_proto(model), OFF)(given), 2.0)


def test_recognized_before_products_with_a_bias_become_gemm() -> None:
    m = parser.parse_model("""<ir_version: 11, opset_import: ["": 23]>
        g (float[N, 3] x) => (float[N, 2] y)
          <float[3, 2] w = {1,2,3,4,5,6}, float[2] b = {7,8}, float r = {1.41421356}, float one = {1}, float h = {0.5}> {
            p = MatMul(x, w)  q = Add(p, b)
            a = Div(q, r)  e = Erf(a)  c = Add(e, one)  d = Mul(q, c)  y = Mul(d, h)
        }""")
    editor = Editor(read(m))
    pipeline.run(editor, recipe.parse(LEVELS[2]))
    assert [n.op for n in editor.model.graph] == ["Gemm", "Gelu"]
    order = LEVELS[2].split()
    assert order.index("recognize") < order.index("finish")
