"""1 - Σ edit distance / Σ length: how much of 48 lines of text is read, rendered in the font that Pillow carries."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import onnx
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from optimizer import fetch

Arrays = dict[str, np.ndarray]

MODEL = (
    "rapidocr-onnxruntime==1.4.4",
    "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx",
    "48fc40f24f6d2a207a2b1091d3437eb3cc3eb6b676dc3ef9c37384005483683b",
)
HEIGHT = 48  # of the model's input

SCORED = """\
Every rewrite explained|Total: 1,284.50 EUR|Invoice No. 2024-0317|Platform 9, 14:35|Do not fold or bend
quick brown foxes jump|GRAPH OPTIMIZER|Kilometres 42.195|Flour 250 g, sugar 80 g|Exit through gate B17
the lazy dog sleeps|Order #58213|Tel. 030 901 820|Room 404 not found|Wednesday, 7 August
Boil for 12 minutes|NO PARKING|Page 3 of 17|Caution: hot surface|Temperature 21.5 C
Signed and dated|https://onnx.ai|Lot 7741 use by 06/29|Quantity 36|Left luggage office
Yours sincerely|KEEP DRY|Batch size 64|Row 12 Seat 8|Made in Portugal
mind the gap|5 for the price of 4|Vitamin B12|Serial 9XK3-77QD|Fragile, handle with care
Departures|Street lamp 118|Net weight 454 g|Chapter 11|a+b=c
Open 9 to 5|Balance 73.08|Voltage 230 V|Library hours|Zebra crossing
Please ring twice|Winter timetable|Model T-800"""
FED = """\
Return within 30 days|Account 6610 2249|Coffee 2.40|SECOND FLOOR|Next train 08:12|pull to open
Weight 1.75 kg|Arrivals hall|Ticket 00418|Paper and card only|Jump over the fence|Size XL
Best before 11/30|Emergency exit|Ref. QZ-5521|lower case letters|UPPER CASE|Fix the hinge"""


def render(text: str, rng: np.random.Generator) -> np.ndarray:
    """A line of text as a camera may give it: float32 [3, 48, width] in [-1, 1]; width a multiple of 8."""
    font = ImageFont.load_default(float(rng.uniform(18, 40)))
    left, top, right, bottom = (round(edge) for edge in font.getbbox(text))
    ink, paper = sorted(rng.integers(0, 256, 2)) if rng.random() < 0.8 else (230, 25)
    ink, paper = (ink, paper) if abs(paper - ink) > 90 else (ink // 3, 255 - (255 - paper) // 3)
    image = Image.new("L", (right - left + 12, bottom - top + 10), int(paper))
    ImageDraw.Draw(image).text((6 - left, 5 - top), text, int(ink), font)
    image = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0, 0.8))))
    width = max(8, round(image.width * HEIGHT / image.height / 8) * 8)
    pixels = np.asarray(image.resize((width, HEIGHT), Image.Resampling.BILINEAR), np.float32)
    noisy = np.clip(pixels + rng.normal(0, 8, pixels.shape), 0, 255)
    return np.broadcast_to(noisy / 127.5 - 1, (3, HEIGHT, width)).astype(np.float32)


def lines(texts: str) -> list[str]:
    return texts.replace("\n", "|").split("|")


def feeds(seed: int) -> Iterator[Arrays]:
    """Lines that are not scored, one to three a batch, padded with 0 to the widest: x, float32 [N, 3, 48, W]."""
    rng = np.random.default_rng(seed)
    for i in range(64):
        images = [render(text, rng) for text in rng.choice(lines(FED), 1 + i % 3)]
        widest = max(image.shape[2] for image in images)
        yield {"x": np.stack([np.pad(image, ((0, 0), (0, 0), (0, widest - image.shape[2]))) for image in images])}


def feeds_cls(seed: int) -> Iterator[Arrays]:
    """The same lines for the orientation classifier, every other one upside down: x, float32 [N, 3, 48, 192]."""
    for i, feed in enumerate(feeds(seed)):
        x = np.pad(feed["x"], ((0, 0), (0, 0), (0, 0), (0, 192)))[..., :192]
        yield {"x": np.ascontiguousarray(x[..., ::-1, ::-1] if i % 2 else x)}


def feeds_det(seed: int) -> Iterator[Arrays]:
    """Pages of such lines for the detector: x, float32 [1, 3, H, W], both sides multiples of 32."""
    rng = np.random.default_rng(seed)
    for i in range(16):
        page = np.full((1, 3, 160 + 32 * (i % 4), 320 + 64 * (i % 3)), 0.9, np.float32)
        for top in range(8, page.shape[2] - HEIGHT, 56):
            line = render(str(rng.choice(lines(FED))), rng)[:, :, : page.shape[3] - 16]
            page[0, :, top : top + HEIGHT, 8 : 8 + line.shape[2]] = line
        yield {"x": page}


def score(run: Callable[[Arrays], Arrays]) -> float:
    """1 - Σ edit distance / Σ length, at most 1, by the best path of CTC, one line at a time."""
    metadata = {entry.key: entry.value for entry in onnx.load(fetch(*MODEL)).metadata_props}
    alphabet = ["", *metadata["character"].splitlines(), " "]
    rng = np.random.default_rng(0)
    distance = length = 0
    for text in lines(SCORED):
        (probabilities,) = run({"x": render(text, rng)[None]}).values()
        read = "".join(alphabet[i] for i in best_path(probabilities[0]))
        distance += edit_distance(read, text)
        length += len(text)
    return 1 - distance / length


def best_path(probabilities: np.ndarray) -> Iterator[int]:
    """CTC: the argmax of each step of [steps, classes], repeats merged, blanks (0) dropped."""
    best = probabilities.argmax(1)
    changed = np.diff(best, prepend=0) != 0
    return (int(i) for i in best[changed & (best != 0)])


def edit_distance(a: str, b: str) -> int:
    """Levenshtein: d(i, j) = min(d(i-1, j) + 1, d(i, j-1) + 1, d(i-1, j-1) + [aᵢ ≠ bⱼ])."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        corner, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            corner, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, corner + (x != y))
    return row[-1]
