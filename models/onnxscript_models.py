"""The transformer graphs that onnxscript tests its fusions on, with seeded weights, narrowed: the same nodes, smaller.

Each is a Python module of the wheel, exported once by PyTorch's Dynamo or TorchScript exporter, and has one or two
layers of its model. At full width they take up to 11 GB; vocabularies, hidden sizes and heads are cut in the text.
"""

from __future__ import annotations

import importlib.util
import math
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import numpy as np
import onnx
import onnx_ir as ir

Arrays = dict[str, np.ndarray]

VOCABULARY = 512

RECIPES: dict[str, tuple[str, dict[str, str]]] = {  # module -> what makes the test case, and how its text is narrowed
    "_bart_encoder": ("bart_encoder_test", {"1024": "512"}),
    "_whisper_encoder": ("whisper_encoder_test", {}),
    "_whisper_decoder": ("whisper_decoder_test", {"51865": "512"}),
    "_smollm_1": (
        "smollm_test_1",
        {"49152": "512", "2048": "256", "8192": "640", "32, 64": "4, 64", "1, 32, 10, 64": "1, 4, 10, 64"},
    ),
    "_smollm_2": (
        "smollm_test_2",
        {"49152": "512", "2048": "256", "8192": "640", "32, 64": "4, 64"}
        | {f"1, 32, {n}, 64": f"1, 4, {n}, 64" for n in (16, 46)},
    ),
    "_phi2lm": (
        "phi2lm_test",
        {"51200": "512", "2560": "320", "10240": "640", '"s34", 32': '"s34", 4', "32, 80": "4, 80"},
    ),
    "_phi4lm": (
        "phi4lm_test",
        {
            "100352": "512",
            "5120": "1024",
            "6400": "1280",
            "7680": "1536",
            "1280": "256",
            "35840": "1280",
            "17920": "640",
        }
        | {"40": "8", "10": "2"},
    ),
    "_rotary_embedding_models": ("partial_rotary_test_case", {}),
}


def build(file: Path) -> onnx.ModelProto:
    """Run one of those modules, narrowed, with weights of N(0, 1/fan_in) in place of U(0, 1), which saturates."""
    factory, narrow = RECIPES[file.stem]
    text = file.read_text(encoding="utf-8")
    if narrow:
        wide = "|".join(sorted(map(re.escape, narrow), key=len, reverse=True))
        text = re.sub(rf"(?<![\w.])(?:{wide})(?![\w.])", lambda found: narrow[found[0]], text)
    rng = np.random.default_rng(0)

    def weights(*shape: int) -> np.ndarray:
        if len(shape) == 1 or shape[0] == 1:  # a bias, the scale of a norm, or inverse frequencies
            return rng.random(shape)
        return rng.normal(0, 1 / math.sqrt(math.prod(shape[1:])), shape)

    with tempfile.TemporaryDirectory() as folder, patch("numpy.random.rand", weights):
        module_file = Path(folder, file.name)
        module_file.write_text(text, encoding="utf-8")  # onnxscript reads the source of a function from its file
        spec = importlib.util.spec_from_file_location(file.stem, module_file)
        assert spec is not None and spec.loader is not None, "a .py file always has a loader"
        module = importlib.util.module_from_spec(spec)
        with patch.dict(sys.modules, {module.__name__: module}):  # and looks its module up by name
            spec.loader.exec_module(module)
            return ir.to_proto(getattr(module, factory)().get_onnx_model())


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.normal(size=shape).astype(np.float32)


def words(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.integers(0, VOCABULARY, shape)


def bart_encoder(seed: int) -> Iterator[Arrays]:
    rng = np.random.default_rng(seed)
    for length in (16, 7, 64) * 5:
        yield {"input_ids": words(rng, 1, length)}


def whisper_encoder(seed: int) -> Iterator[Arrays]:
    rng = np.random.default_rng(seed)
    for _ in range(4):
        yield {"audio_features": normal(rng, 1, 80, 3000)}


def whisper_decoder(seed: int) -> Iterator[Arrays]:
    rng = np.random.default_rng(seed)
    for _ in range(16):
        past = {f"past_key_values_0_{i}": normal(rng, 1, 6, 32, 64) for i in range(4)}
        ids = words(rng, 1, 1).astype(np.int32)
        yield {"decoder_input_ids": ids, "encoder_hidden_states": normal(rng, 1, 1500, 384), **past}


def smollm_1(seed: int) -> Iterator[Arrays]:
    """10 words, of which the last may be padding."""
    rng = np.random.default_rng(seed)
    for kept in (10, 8, 5, 10) * 4:
        mask = (np.arange(10) < kept).astype(np.float32)
        yield {"input0": words(rng, 1, 10), "input1": mask[None], "input2": np.arange(10)[None]}


def smollm_2(seed: int) -> Iterator[Arrays]:
    rng = np.random.default_rng(seed)
    for _ in range(16):
        past = {f"past_key_values_0_{i}": normal(rng, 1, 4, 16, 64) for i in range(2)}
        yield {"input_ids": words(rng, 1, 30), "position_ids": np.arange(16, 46)[None], **past}


def phi2(seed: int) -> Iterator[Arrays]:
    return phi(seed, {f"past_key_values_{kind}_cache_0": (4, 80) for kind in ("key", "value")})


def phi4(seed: int) -> Iterator[Arrays]:
    return phi(seed, {f"past_key_values_{kind}_cache_{i}": (2, 128) for kind in ("key", "value") for i in (0, 1)})


def phi(seed: int, caches: dict[str, tuple[int, int]]) -> Iterator[Arrays]:
    """Prompts and single words behind a past, whose first words the mask may hide; a cache has (heads, size)."""
    rng = np.random.default_rng(seed)
    for batch, new, past, hidden in ((1, 1, 12, 0), (2, 7, 5, 2), (1, 16, 1, 0), (3, 1, 20, 3)) * 4:
        mask = np.ones((batch, past + new), np.int64)
        mask[0, :hidden] = 0
        cache = {name: normal(rng, batch, heads, past, size) for name, (heads, size) in caches.items()}
        yield {"input_ids": words(rng, batch, new), "attention_mask": mask, **cache}


def rotary(seed: int) -> Iterator[Arrays]:
    rng = np.random.default_rng(seed)
    for batch, length in ((1, 8), (2, 5), (3, 33)) * 5:
        yield {
            "query": normal(rng, batch, 32, length, 80),
            "position_ids": rng.integers(0, 100) + np.arange(length)[None].repeat(batch, 0),
        }
