"""onnx's own node tests, read once a session."""

from __future__ import annotations

import pytest
from node_suite import NodeCase, all_node_cases


@pytest.fixture(scope="session")
def node_cases() -> list[NodeCase]:
    return all_node_cases()
