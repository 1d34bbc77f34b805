"""KEY OP VALUE means what it says, and a slip is named."""

from __future__ import annotations

import pytest

from optimizer.core.errors import BadInput
from optimizer.measure.expect import Expectation, check_all, describe, exit_code, parse


@pytest.mark.parametrize(
    ("text", "key", "op", "value", "relative"),
    [
        ("task>=-1%", "task", ">=", -0.01, True),
        (" sqnr >= 25 ", "sqnr", ">=", 25, False),
        ("speed>=1.0", "speed", ">=", 1, False),
        ("nodes<=200", "nodes", "<=", 200, False),
        ("bytes<=-30%", "bytes", "<=", -0.3, True),
        ("bytes<=1e6", "bytes", "<=", 1e6, False),
        ("nodes==0%", "nodes", "==", 0, True),
    ],
)
def test_parse(text: str, key: str, op: str, value: float, relative: bool) -> None:
    assert parse(text) == Expectation(text, key, op, value, relative)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("taks>=1", "did you mean 'task'?"),
        ("latency<=3", "the keys are task, sqnr, speed, nodes, bytes"),
        ("task=1", "KEY OP VALUE"),
        ("task>1", "KEY OP VALUE"),
        ("task>=", "KEY OP VALUE"),
        (">=1", "KEY OP VALUE"),
        ("task>=1.2.3", "no number"),
        ("task>=1%%", "KEY OP VALUE"),
        ("", "KEY OP VALUE"),
    ],
)
def test_slips(text: str, says: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse(text)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("text", "measured", "original", "holds"),
    [
        ("task>=-1%", 0.507, 0.512, True),
        ("task>=-1%", 0.506, 0.512, False),
        ("task>=-1%", -1.005, -1.0, True),  # 1 % of a negative score is worse, not better
        ("task>=-1%", -1.02, -1.0, False),
        ("task>=0.5", 0.5, None, True),
        ("task>=-1%", 0.5, None, None),
        ("task>=0.5", None, 0.5, None),
        ("bytes<=-30%", 69, 100, True),
        ("bytes<=-30%", 71, 100, False),
        ("nodes==0%", 100, 100, True),
        ("nodes==7", 8, 100, False),
        ("sqnr>=25", float("inf"), None, True),
    ],
)
def test_check(text: str, measured: float | None, original: float | None, holds: bool | None) -> None:
    assert parse(text).check(measured, original) is holds


def test_outcomes_and_their_exit_code() -> None:
    wanted = [parse("task>=-1%"), parse("nodes<=10"), parse("sqnr>=25")]
    outcomes = check_all(wanted, {"task": (0.512, 0.512), "nodes": (11, 20), "sqnr": (None, None)})
    assert [outcome["holds"] for outcome in outcomes] == [True, False, None]
    assert exit_code(outcomes) == 1 and exit_code(outcomes[::2]) == 4 and exit_code(outcomes[:1]) == 0
    assert exit_code([]) == 0
    assert check_all([parse("speed>=1")], {})[0]["holds"] is None
    assert [describe(outcome) for outcome in outcomes] == [
        "expect task>=-1%   holds   0.512, original 0.512",
        "expect nodes<=10   does not hold   11, original 20",
        "expect sqnr>=25   could not be measured",
    ]


@pytest.mark.parametrize(
    ("text", "measured", "says"),
    [
        ("bytes<=-30%", (50 << 20, 60 << 20), "does not hold   50.0 MiB, original 60.0 MiB"),
        ("bytes<=60000000", (50 << 20, 60 << 20), "holds   50.0 MiB (52,428,800 B), original 60.0 MiB"),
        ("bytes<=3", (3, 4000), "holds   3 B, original 4000 B"),
        ("nodes<=20000", (12345, 98765), "holds   12345, original 98765"),
        ("sqnr>=25", (19.2264, None), "does not hold   19.2 dB"),
        ("sqnr>=25", (float("inf"), None), "holds   inf dB"),
        ("speed>=1.5", (1.6321, 1.0), "holds   1.63x"),
        ("task>=-1%", (0.49151, 0.5067), "does not hold   0.4915, original 0.5067"),
    ],
)
def test_figures_are_shown_as_the_screens_show_them(text: str, measured: tuple[float, float], says: str) -> None:
    expectation = parse(text)
    (outcome,) = check_all([expectation], {expectation.key: measured})
    assert describe(outcome) == f"expect {text}   {says}"
