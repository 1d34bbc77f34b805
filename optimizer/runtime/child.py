"""Whatever runs a model runs here: one function, in a process of its own, whose crash is only an answer.

`call("package.module:function", x=1)` starts `python -m optimizer.runtime.child`, hands it the function's name and its
JSON-able arguments, and returns its JSON-able result. A fresh interpreter is used, never a fork, so that the caller's
`__main__` is not run twice and a runtime's threads are not inherited. The child's real stdout is the channel back; its
file descriptor 1 then points to stderr, because native runtimes print banners on stdout.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, cast

from optimizer.core.errors import GraphwrightError, ToolFailure

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

_channel: IO[str] | None = None  # in a child: where messages to the parent go


class ChildDied(ToolFailure):
    """The child ended without an answer: a crash in native code, a kill, or too much time.

    `stage` is the last thing it announced, "" if nothing: it tells which model was at work.
    """

    def __init__(self, what: str, *, at: str | None = None, fix: str | None = None, stage: str = "") -> None:
        super().__init__(what, at=at or stage or None, fix=fix)
        self.stage = stage


def stage(what: str) -> None:
    """Announce, from inside a child, what is about to be done; a no-op anywhere else."""
    _send({"stage": what})


def call(
    function: str,
    /,
    *,
    timeout: float | None = None,
    on_stage: Callable[[str], None] | None = None,
    **arguments: Any,
) -> Any:
    """function(**arguments), run in a child process.

    Args:
        function: "module:name", importable under the caller's `sys.path`.
        timeout: seconds after which the child is killed, or None.
        on_stage: is handed what the child announces by `stage`, as it comes.
        arguments: JSON-able; paths become strings.

    Raises:
        GraphwrightError: the one raised in the child, with its type, `at` and `fix`.
        ToolFailure: any other exception in the child; its traceback is attached as a note.
        ChildDied: the child gave no answer.
    """
    announced, answer, timed_out = "", cast("dict[str, Any] | None", None), threading.Event()
    with tempfile.TemporaryFile() as noise:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "optimizer.runtime.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=noise,
            text=True,
            encoding="utf-8",
            env={**os.environ, **ONE_THREAD, "PYTHONPATH": os.pathsep.join(_search_path())},
        )
        assert process.stdin is not None and process.stdout is not None

        def expire() -> None:
            timed_out.set()
            process.kill()

        alarm = threading.Timer(timeout or 0, expire)
        try:
            if timeout is not None:
                alarm.start()
            try:
                with process.stdin as request:
                    json.dump({"function": function, "arguments": arguments}, request, default=os.fspath)
            except BrokenPipeError:
                pass  # it died at once; what it left on stderr says why
            for line in process.stdout:
                message = json.loads(line)
                if "stage" not in message:
                    answer = message
                    continue
                announced = message["stage"]
                if on_stage is not None:
                    on_stage(announced)
            process.wait()
        finally:
            alarm.cancel()
            process.kill()
            process.wait()
            process.stdout.close()
        if answer is None:
            noise.seek(0)
            raise _obituary(function, process.returncode, announced, timeout if timed_out.is_set() else None, noise)
    if "error" in answer:
        raise _revive(answer["error"])
    return answer["result"]


def _search_path() -> list[str]:
    """The parent's own `sys.path`, so that an uninstalled checkout and its plugins import as they did."""
    return list(dict.fromkeys(str(Path(entry or ".").absolute()) for entry in sys.path))


def _obituary(function: str, code: int, announced: str, timeout: float | None, noise: IO[bytes]) -> ChildDied:
    if timeout is not None:
        return ChildDied(f"the child process running {function} did not finish within {timeout:g} s", stage=announced)
    how = f"exit code {code}"
    if code < 0:
        try:
            how = signal.Signals(-code).name
        except ValueError:
            how = f"signal {-code}"
    last = noise.read().decode(errors="replace").strip().splitlines()[-1:]
    fix = "give the machine more memory" if code == -9 else None
    return ChildDied(": ".join([f"the child process running {function} died ({how})", *last]), fix=fix, stage=announced)


def _revive(error: dict[str, Any]) -> GraphwrightError:
    kind: Any = importlib.import_module(error["module"])
    for name in error["kind"].split("."):
        kind = getattr(kind, name)
    raised: GraphwrightError = kind(error["what"], at=error["at"], fix=error["fix"])
    raised.add_note(error["traceback"])
    return raised


def _send(message: dict[str, Any]) -> None:
    if _channel is not None:
        _channel.write(json.dumps(message, default=os.fspath) + "\n")
        _channel.flush()


def _describe(error: Exception) -> dict[str, Any]:
    """An exception as a message; one that is not ours becomes a ToolFailure at the line that raised it."""
    last = traceback.extract_tb(error.__traceback__)[-1:]
    ours = error if isinstance(error, GraphwrightError) else None
    kind = type(ours) if ours else ToolFailure
    return {
        "module": kind.__module__,
        "kind": kind.__qualname__,
        "what": ours.what if ours else f"{type(error).__name__}: {error}",
        "at": ours.at if ours else next((f"{frame.filename}:{frame.lineno}" for frame in last), None),
        "fix": ours.fix if ours else None,
        "traceback": "".join(traceback.format_exception(error)),
    }


def serve() -> None:
    """Read one request from stdin, answer it on what was stdout."""
    global _channel
    _channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    request = json.load(sys.stdin)
    module, _, name = request["function"].partition(":")
    try:
        result = getattr(importlib.import_module(module), name)(**request["arguments"])
        _send({"result": result})
    except Exception as error:
        _send({"error": _describe(error)})


if __name__ == "__main__":
    # `-m` runs this file as __main__; the functions it calls import it by its name, and must find the same channel.
    importlib.import_module("optimizer.runtime.child").serve()
