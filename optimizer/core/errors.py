"""Errors are directions: what happened, where, and what to do next; each kind carries an exit code."""

from __future__ import annotations


class GraphwrightError(Exception):
    """An error with directions.

    Args:
        what: one sentence, what happened.
        at: the file, node or line it happened at, or None.
        fix: the next step for the user, or None.
    """

    exit_code = 3

    def __init__(self, what: str, *, at: str | None = None, fix: str | None = None) -> None:
        super().__init__(what)
        self.what, self.at, self.fix = what, at, fix

    def __str__(self) -> str:
        lines = [self.what]
        if self.at:
            lines.append(f"  at: {self.at}")
        if self.fix:
            lines.append(f"  fix: {self.fix}")
        return "\n".join(lines)


class BadInput(GraphwrightError):
    """The usage or an input is not acceptable; nothing was written."""

    exit_code = 2


class ValidationFailed(GraphwrightError):
    """The result is not the original; `result` is what failed."""

    exit_code = 1

    def __init__(self, what: str, *, at: str | None = None, fix: str | None = None, result: object = None) -> None:
        super().__init__(what, at=at, fix=fix)
        self.result = result


class ToolFailure(GraphwrightError):
    """The tool itself failed: a full disk, a dead child process, a bug."""

    exit_code = 3


class EnvironmentNotAsAsked(GraphwrightError):
    """What was asked for cannot run here, or the verdict is inconclusive."""

    exit_code = 4
