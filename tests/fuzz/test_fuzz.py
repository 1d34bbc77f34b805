"""Random graphs, seeded from the rules' own patterns and goldens, come out right; the shrinker shrinks."""

from __future__ import annotations

import onnx
import pytest
from onnx import ModelProto

from fuzz.campaign import Campaign, run
from fuzz.generate import graph_of
from fuzz.judge import judge
from fuzz.shrink import shrink

COUNT = 2000


def assert_right(found: Campaign) -> None:
    assert not found.wrong, f"{found}\n" + "\n\n".join(map(str, found.wrong[:3]))
    assert found.judged > 0.6 * found.asked, f"too few are legal: {found.rejected}"


def part(at: int, parts: int, count: int) -> range:
    return range(count * at // parts, count * (at + 1) // parts)


@pytest.mark.parametrize("at", range(4))
def test_two_thousand_graphs(at: int) -> None:
    assert_right(run(part(at, 4, COUNT)))


@pytest.mark.slow
@pytest.mark.parametrize("at", range(8))
def test_twenty_thousand_graphs(at: int) -> None:
    """Every rule fires, and often other than in its golden."""
    assert_right(run(part(at, 8, 10 * COUNT)))


def test_the_number_makes_the_graph() -> None:
    assert [graph_of(k) for k in range(20)] == [graph_of(k) for k in range(20)]


WRONG = """
<ir_version: 11, opset_import: ["": 23]>
g (float[N, 4] x, float[N, 4] z) => (float[N, 4] y, float[N, 4] w) <float k = {2}, float h = {3}> {
    a = Neg(x)  b = Mul(a, k)  c = Softplus(b)  d = Add(c, z)  e = Tanh(d)  y = Mul(e, h)  f = Abs(z)  w = Exp(f)
}
"""


def test_shrinking_leaves_what_fails() -> None:
    """What fails here is a Softplus that an output depends on."""

    def fails(m: ModelProto) -> bool:
        return judge(m, 0).rejected == "" and any(n.op_type == "Softplus" for n in m.graph.node)

    small = shrink(onnx.parser.parse_model(WRONG), fails)
    assert [n.op_type for n in small.graph.node] == ["Softplus"]
    assert len(small.graph.input) == len(small.graph.output) == 1 and not small.graph.initializer
