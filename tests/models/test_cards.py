"""Every card of the repository: its model loads, its feeds run and differ, its task scores what fp32 should."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from optimizer.runtime.card import Card, read_card, resolve
from optimizer.runtime.feeds import draw, free_dims
from optimizer.runtime.interface import read_interface
from optimizer.runtime.session import open_session

MODELS = Path(__file__).parents[2] / "models"
CARDS = sorted(MODELS.glob("*.toml"))

SCORES = {  # name -> what the original scores, with room for another CPU, font renderer or zlib
    "minilm": (0.49, 0.52),
    "pp_ocr_rec": (0.94, 0.99),
    "silero_vad": (0.95, 0.99),
    "dnsmos": (0.85, 1.0),
    "magika": (0.93, 1.0),
}


def open_model(path: Path) -> Callable[[Any], Any]:
    return open_session(path, optimize=True).run


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.stem)
def test_card_resolves_and_its_feeds_run(path: Path) -> None:
    source = resolve(path)
    assert source.card is not None and source.card.licence
    run = open_model(source.path)
    feeds = source.card.load_feeds()
    batches: list[Any] = list(islice(feeds(0), 2))
    for one, again in zip(batches, feeds(0)):
        assert all(np.array_equal(one[name], again[name]) for name in one), "the same seed draws the same data"
    outputs = [run(batch) for batch in batches]
    for output in outputs:
        assert all(np.isfinite(array).all() for array in output.values() if array.dtype.kind == "f")
    # A model that answers the same to everything would hide every mistake.
    other = run({name: np.asarray(np.flip(array)) for name, array in batches[0].items()})
    moved = [rms(other[name] - array) / rms(array) for name, array in outputs[0].items() if array.dtype.kind == "f"]
    assert max(moved) > 0.01, f"the outputs hardly depend on the inputs: {moved}"


def rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(x, dtype=np.float64))))


@pytest.mark.parametrize("name", [path.stem for path in CARDS if read_card(path).task])
def test_task_scores_the_original_well_and_noise_badly(name: str) -> None:
    source = resolve(MODELS / f"{name}.toml")
    assert source.card is not None
    score, run = source.card.load_task(), open_model(source.path)
    shapes: list[dict[str, tuple[int, ...]]] = []

    def observed(feed: Any) -> Any:
        outputs = run(feed)
        shapes.append({key: array.shape for key, array in outputs.items()})
        return outputs

    low, high = SCORES[name]
    original = score(observed)
    assert low <= original <= high

    rng, replay = np.random.default_rng(0), iter(shapes)
    noise = score(lambda feed: {key: rng.random(shape, np.float32) for key, shape in next(replay).items()})
    assert noise < original - 5 * source.card.task_noise, "a task must tell the model from noise"


@pytest.mark.parametrize("path", [path for path in CARDS if read_card(path).dims], ids=lambda path: path.stem)
def test_bindings_fix_every_free_dimension_and_run(path: Path) -> None:
    source = resolve(path)
    assert source.card is not None and len(source.card.dims) >= 2
    interface, run = read_interface(source.path), open_model(source.path)
    for binding in source.card.dims:
        assert binding.keys() == free_dims(interface).keys()
        assert run(draw(interface, binding, np.random.default_rng(0)))


def test_nothing_is_calibrated_on_what_is_scored() -> None:
    ocr, speech, lee = python("pp_ocr.py"), python("speech.py"), python("minilm.py")
    assert not set(ocr["lines"](ocr["FED"])) & set(ocr["lines"](ocr["SCORED"]))
    assert not set(speech["FED"]) & set(speech["SCORED"])
    scored, fed = (lee["lee"](name).splitlines() for name in ("lee.cor", "lee_background.cor"))
    assert len(scored) == 50 and len(fed) == 300 and not set(scored) & set(fed)


def python(name: str) -> dict[str, Any]:
    """What a card's Python file defines."""
    return runpy.run_path(str(MODELS / name))


def test_speech_steps_as_the_published_wrapper_does() -> None:
    """16 kHz: 512 samples behind the 64 before them; 8 kHz: 256 behind 32."""
    speech = python("speech.py")
    for rate, chunk, context in ((16000, 512, 64), (8000, 256, 32)):
        x = np.arange(3 * chunk, dtype=np.float32)[None]
        steps = list(speech["steps"](x, rate))
        assert [step.shape for step in steps] == [(1, context + chunk)] * 3
        assert not steps[0][0, :context].any()
        assert np.array_equal(steps[1][0], x[0, chunk - context : 2 * chunk])
    rates = {int(feed["sr"]) for feed in islice(read_card(MODELS / "silero_vad.toml").load_feeds()(0), 4)}  # type: ignore[call-overload]
    assert rates == {8000, 16000}


def test_light_cnn_keeps_its_old_form() -> None:
    model = onnx.load(resolve(MODELS / "light_resnet50.toml").path)
    inputs = {value.name for value in model.graph.input}
    assert model.ir_version == 3 and {tensor.name for tensor in model.graph.initializer} <= inputs
    made = {output: node.op_type for node in model.graph.node for output in node.output}
    norms = [node for node in model.graph.node if node.op_type == "BatchNormalization"]
    assert len(norms) == 53 and all(made[node.input[0]] == "Conv" for node in norms)


def test_every_card_and_file_is_used() -> None:
    named = {value.partition(":")[0] for path in CARDS for value in functions(read_card(path))}
    assert named == {path.name for path in MODELS.glob("*.py")}


def functions(card: Card) -> list[str]:
    return [value for value in (card.feeds, card.task, card.build) if value]
