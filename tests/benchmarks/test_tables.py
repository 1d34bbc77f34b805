"""The tables say what the results hold: who is valid, who has least, and what was not measured."""

from __future__ import annotations

from typing import Any

import pytest
from tables import TABLES, best_peer, goals, render_traps, rewrite, wins


def verdict(nodes: int, **other: Any) -> dict[str, Any]:
    return {"nodes": nodes, "bytes": 100, "loads": True, "checks": True, "equal": True, "error": 0.0} | other


def record(ours: dict[str, Any], **peers: dict[str, Any]) -> dict[str, Any]:
    versions = dict.fromkeys((*peers, "graphwright"), "1.0")
    tools = {**peers, "graphwright": ours}
    return {"source": verdict(100), "tools": tools, "versions": versions, "date": "2026-01-01"}


def results(**tables: Any) -> dict[str, Any]:
    return {"machine": {"cpu": "C", "cores": 2, "memory_gb": 8, "python": "3.11"}, **tables}


def test_only_valid_peers_are_to_be_beaten() -> None:
    peers = {"onnxsim": verdict(50), "onnxslim": verdict(10, checks=False), "onnxscript": verdict(20, bytes=102)}
    assert best_peer(record(verdict(50), **peers)) == 50
    assert wins(record(verdict(50), **peers))
    assert not wins(record(verdict(51), **peers))


@pytest.mark.parametrize("flaw", [{"equal": False}, {"checks": False}, {"bytes": 102}, {"failed": "died"}])
def test_a_wrong_result_of_ours_does_not_win(flaw: dict[str, Any]) -> None:
    assert wins(record(verdict(1, **flaw), onnxsim=verdict(50))) is False


def test_without_a_valid_peer_nothing_is_claimed() -> None:
    assert wins(record(verdict(1), onnxsim={"failed": "died"})) is None


def test_goals_count_cards_and_leave_open_what_was_not_measured() -> None:
    nodes = {
        "minilm": record(verdict(40), onnxsim=verdict(50)),
        "magika": record(verdict(60), onnxsim=verdict(50)),
        "bert-base": record(verdict(40), onnxsim=verdict(50)),
    }
    found = {of: value for _, of, value, _, _ in goals(results(nodes=nodes))}
    assert found.pop("of 2 models, at most the best valid peer's") == 0.5
    assert set(found.values()) == {None}


def test_time_a_node_is_flat_if_sizes_agree() -> None:
    def cpu(seconds: float) -> dict[str, Any]:
        return {"tools": {"graphwright": {"cpu": {"median": seconds}}}}

    found = goals(results(time={"blocks-1000": cpu(1.0), "blocks-2000": cpu(2.0), "blocks-4000": cpu(5.0)}))
    assert next(value for _, of, value, _, _ in found if of.startswith("a node")) == pytest.approx(1.25)


def test_a_page_changes_only_between_its_markers() -> None:
    page = "before\n<!-- table:nodes -->\nold\n<!-- /table -->\nafter\n"
    new = rewrite(page, results(nodes={"minilm": record(verdict(40), onnxsim=verdict(50, checks=False))}))
    assert new.startswith("before\n<!-- table:nodes -->\n") and new.endswith("\n<!-- /table -->\nafter\n")
    assert "| minilm | 100 | 50† | – | – | **40** |" in new and "old" not in new
    assert rewrite(new, results(nodes={})) != new


def test_every_table_renders_without_results() -> None:
    page = "".join(f"<!-- table:{name} -->\n<!-- /table -->\n" for name in TABLES)
    assert "nothing measured" in rewrite(page, results())


def test_traps_are_counted_by_kind() -> None:
    traps = {
        "a": {"onnxsim": "ok", "graphwright": "ok"},
        "b": {"onnxsim": "wrong: 1 instead of 2", "graphwright": "ok"},
        "c": {"onnxsim": "does not load: no kernel", "graphwright": "blown up: 1 to 9 bytes"},
    }
    page = render_traps({"traps": traps, "versions": {"onnxsim": "1.0"}, "date": "2026-01-01"})
    assert "| tool | ok | wrong | broken | interface | refused | larger | dims |" in page
    assert "| onnxsim | 1 | 1 | 1 | 0 | 0 | 0 | 0 |" in page
    assert "| Graphwright | 2 | 0 | 0 | 0 | 0 | 1 | 0 |" in page
    assert page.endswith("onnxsim 1.0; 2026-01-01.")
