"""A child answers, fails or dies, and the parent always knows which."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from optimizer.core.errors import BadInput, EnvironmentNotAsAsked, ToolFailure
from optimizer.runtime import child
from optimizer.runtime.child import ChildDied, call, stage

HERE = "test_child"  # this file is importable under the name pytest gives it: its folder is on sys.path


def echo(**arguments: object) -> dict[str, object]:
    os.write(1, b"a native banner on stdout\n")
    print("a Python print on stdout")
    return {"pid": os.getpid(), "main": sys.modules["__main__"].__spec__.name, **arguments}  # type: ignore[union-attr]


def refuse(kind: str) -> None:
    if kind == "ours":
        raise EnvironmentNotAsAsked("no such provider", at="cuda", fix="plug in a card")
    raise KeyError("nobody's")


def crash(where: str) -> None:
    stage("original")
    stage(where)
    ctypes.string_at(0)


def sleep() -> None:
    time.sleep(60)


def leave() -> None:
    print("the last words", file=sys.stderr)
    os._exit(7)


def unspeakable() -> object:
    return object()


def threads() -> str:
    return os.environ["OMP_NUM_THREADS"]


def test_result_comes_back_clean_of_what_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    got = call(f"{HERE}:echo", word="½", numbers=[1, float("inf")], path=Path("/a"))
    assert got["pid"] != os.getpid() and got["main"] == "optimizer.runtime.child"
    assert got["word"] == "½" and got["numbers"] == [1, float("inf")] and got["path"] == "/a"
    assert capfd.readouterr() == ("", "")


def test_our_errors_travel_with_their_directions() -> None:
    with pytest.raises(EnvironmentNotAsAsked) as caught:
        call(f"{HERE}:refuse", kind="ours")
    assert (caught.value.what, caught.value.at, caught.value.fix) == ("no such provider", "cuda", "plug in a card")


def test_foreign_errors_become_tool_failures_with_the_traceback_as_a_note() -> None:
    with pytest.raises(ToolFailure, match="KeyError") as caught:
        call(f"{HERE}:refuse", kind="other")
    assert caught.value.at is not None and "test_child.py" in caught.value.at
    assert "Traceback" in caught.value.__notes__[0]


def test_crash_names_the_signal_and_the_last_stage() -> None:
    seen: list[str] = []
    with pytest.raises(ChildDied, match="SIGSEGV") as caught:
        call(f"{HERE}:crash", on_stage=seen.append, where="result")
    assert caught.value.stage == "result" and seen == ["original", "result"]


def test_death_quotes_the_last_line_of_stderr() -> None:
    with pytest.raises(ChildDied, match=r"exit code 7\): the last words"):
        call(f"{HERE}:leave")


def test_timeout_kills() -> None:
    started = time.monotonic()
    with pytest.raises(ChildDied, match=r"within 0\.5 s"):
        call(f"{HERE}:sleep", timeout=0.5)
    assert time.monotonic() - started < 10


def test_result_that_is_no_json_is_the_tools_failure() -> None:
    with pytest.raises(ToolFailure, match="TypeError"):
        call(f"{HERE}:unspeakable")


def test_numeric_libraries_get_one_thread() -> None:
    assert call(f"{HERE}:threads") == "1"


def test_stage_is_silent_outside_a_child() -> None:
    stage("nothing")
    assert child._channel is None  # pyright: ignore[reportPrivateUsage]


def test_callers_main_is_not_run_again(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("from optimizer.runtime.child import call\nprint('once')\nprint(call('builtins:dict', a=1))\n")
    root = str(Path(child.__file__).parents[2])
    done = subprocess.run(
        [sys.executable, str(script)], env={**os.environ, "PYTHONPATH": root}, cwd=tmp_path, capture_output=True
    )
    assert done.stdout.decode().splitlines() == ["once", "{'a': 1}"], done.stderr.decode()


def test_bad_input_keeps_its_exit_code() -> None:
    assert BadInput("x").exit_code == 2 and ChildDied("x").exit_code == 3
