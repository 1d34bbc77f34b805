"""onnx's own node tests, made once a process: about 1,900 models with inputs and what must come out."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cache

import numpy as np
from onnx import ModelProto


@dataclass(frozen=True)
class NodeCase:
    """A model of onnx's backend tests, its inputs and what must come out."""

    name: str
    model: ModelProto
    inputs: tuple[object, ...]
    outputs: tuple[object, ...]


@cache
def all_node_cases() -> list[NodeCase]:
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        cases = collect_testcases(None)
    return [NodeCase(c.name, c.model, *map(tuple, c.data_sets[0])) for c in cases if c.data_sets]
