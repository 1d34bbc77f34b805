"""How many of 52 made-up files of 13 kinds are recognized; what is fed are other files of those kinds."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import sqlite3
import tarfile
import wave
import zipfile
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

from optimizer import fetch

Arrays = dict[str, np.ndarray]

CONFIG = (
    "magika==1.0.3",
    "magika/models/standard_v3_3/config.min.json",
    "ae24c742205358f6ff6dfd5facb6743fb69743dbba8373e73da58ff0cbd695db",
)
WORDS = ("apple", "river", "stone", "cloud", "paper", "green", "table", "music", "window", "garden", "number", "silver")
KINDS = ("csv", "gif", "gzip", "html", "ini", "json", "pickle", "png", "python", "sqlite", "tar", "wav", "zip")


def make(kind: str, rng: np.random.Generator) -> bytes:
    """A file of some hundred to some thousand bytes, of one of the KINDS."""
    rows = [
        (str(w), int(n), float(x)) for w, n, x in zip(rng.choice(WORDS, 80), rng.integers(0, 9999, 80), rng.random(80))
    ]
    text, file = " ".join(word for word, _, _ in rows), io.BytesIO()
    match kind:
        case "csv":
            return "\r\n".join(["name,count,share", *(f"{w},{n},{x:.3f}" for w, n, x in rows)]).encode()
        case "gif" | "png":
            pixels = rng.integers(0, 256, (12, 12, 3), np.uint8).repeat(4, 0).repeat(4, 1)
            Image.fromarray(pixels).save(file, kind)
        case "gzip":
            file.write(gzip.compress(text.encode(), mtime=0))
        case "html":
            body = "".join(f"<li><a href='/{w}/{n}'>{w}</a> {x:.2f}</li>\n" for w, n, x in rows)
            head = f"<!DOCTYPE html><html><head><title>{rows[0][0]}</title></head>"
            return f"{head}<body><ul>{body}</ul></body></html>".encode()
        case "ini":
            return "".join(f"[{w}{n}]\npath = /srv/{w}\nlimit = {n}\nratio={x:.2f}\n\n" for w, n, x in rows).encode()
        case "json":
            return json.dumps([{"name": w, "count": n, "share": x} for w, n, x in rows], indent=2).encode()
        case "pickle":
            return pickle.dumps(rows)
        case "python":
            functions = (
                f"def {w}_{n}(value, limit={n}):\n    if value > {x:.3f}:\n        return os.path.join({w!r}, value)\n"
                for w, n, x in rows
            )
            return "\n\n".join(["import os", *functions]).encode()
        case "sqlite":
            with sqlite3.connect(":memory:") as table:
                table.execute("create table stock (name text, count integer, share real)")
                table.executemany("insert into stock values (?, ?, ?)", rows)
                table.commit()
                return table.serialize()
        case "tar":
            with tarfile.open(fileobj=file, mode="w") as archive:
                entry = tarfile.TarInfo(f"{rows[0][0]}.txt")
                entry.size = len(text)
                archive.addfile(entry, io.BytesIO(text.encode()))
        case "wav":
            with wave.open(file, "wb") as sound:
                sound.setparams((1, 2, 8000, 0, "NONE", ""))
                sound.writeframes((rng.normal(0, 3000, 4000)).astype("<i2").tobytes())
        case _:
            with zipfile.ZipFile(file, "w") as archive:
                archive.writestr(zipfile.ZipInfo(f"{rows[0][0]}.txt"), text)
    return file.getvalue()


def cut(data: bytes) -> np.ndarray:
    """The first and the last 1,024 bytes without outer white space, filled up with 256: int32 [2048]."""
    head, tail = data[:4096].lstrip()[:1024], data[-4096:].rstrip()[-1024:]
    return np.array([*head, *[256] * (1024 - len(head)), *[256] * (1024 - len(tail)), *tail], np.int32)


def feeds(seed: int) -> Iterator[Arrays]:
    """Files of all kinds, one to three a batch: bytes, int32 [N, 2048]."""
    rng = np.random.default_rng([1, seed])
    for i in range(64):
        yield {"bytes": np.stack([cut(make(kind, rng)) for kind in rng.choice(KINDS, 1 + i % 3)])}


def score(run: Callable[[Arrays], Arrays]) -> float:
    """The mean probability of the right kind, in [0, 1], over four files of each."""
    labels = json.loads(fetch(*CONFIG).read_bytes())["target_labels_space"]
    rng = np.random.default_rng(0)
    kinds = KINDS * 4
    (probabilities,) = run({"bytes": np.stack([cut(make(kind, rng)) for kind in kinds])}).values()
    return float(np.mean([p[labels.index(kind)] for p, kind in zip(probabilities, kinds)]))
