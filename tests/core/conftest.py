"""onnx's own node tests, read once a session."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pytest
from onnx import ModelProto


@dataclass(frozen=True)
class NodeCase:
    """A model of onnx's backend tests, its inputs and what must come out."""

    name: str
    model: ModelProto
    inputs: tuple[object, ...]
    outputs: tuple[object, ...]


@lru_cache(None)
def all_node_cases() -> list[NodeCase]:
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        cases = collect_testcases(None)
    return [NodeCase(c.name, c.model, *map(tuple, c.data_sets[0])) for c in cases if c.data_sets]


@pytest.fixture(scope="session")
def node_cases() -> list[NodeCase]:
    return all_node_cases()
