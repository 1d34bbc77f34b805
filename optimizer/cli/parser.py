"""Arguments of the verbs: an unknown flag is told what it was probably meant to be, before argparse has a say."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, Protocol

from optimizer.core.errors import BadInput
from optimizer.core.text import did_you_mean, safe

EXIT_CODES = """exit codes
  0  done; validated, or validation was declined by --no-validate
  1  negative verdict: validation failed, an --expect does not hold, diff --exit-code found a difference
  2  usage or bad input
  3  the tool failed
  4  inconclusive, or the environment is not as asked"""


class Answer(Protocol):
    """What every verb returns: `str` is its screen, `to_dict` its JSON, `exit_code` its verdict."""

    @property
    def exit_code(self) -> int: ...
    def to_dict(self) -> dict[str, Any]: ...


class HelpAsked(Exception):
    """--help: its text is the answer, and printed as one."""


class Parser(argparse.ArgumentParser):
    """The arguments of one verb; whatever is wrong with them is a BadInput."""

    def __init__(self, verb: str, description: str) -> None:
        super().__init__(
            prog=f"graphwright {verb}",
            description=description,
            epilog=EXIT_CODES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self.add_argument("--format", choices=("text", "json"), default="text", help="a screen, or one JSON document")
        self.add_argument("-q", "--quiet", action="store_true", help="no progress and no warnings")
        self.add_argument("-v", "--verbose", action="store_true", help="a line per edit; tracebacks of errors")

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        """The arguments, positionals anywhere among the flags.

        Raises:
            BadInput: an unknown flag, a value that does not fit, something missing or left over.
            HelpAsked: --help is among them.
        """
        for token in argv:
            if token == "--":
                break
            flag = token.partition("=")[0] if token.startswith("--") else token[:2]
            if re.fullmatch(r"--?[A-Za-z][^ ]*", token) and flag not in self._option_string_actions:
                flags = [known for known in self._option_string_actions if known.startswith("--") or len(flag) == 2]
                raise self._bad(f"unknown flag {flag}", did_you_mean(flag, flags))
        known, left = self.parse_known_intermixed_args(argv)
        if left:
            raise self._bad(f"unexpected argument {left[0]!r}")
        return known

    def print_help(self, file: Any = None) -> NoReturn:
        raise HelpAsked(self.format_help().rstrip())

    def error(self, message: str) -> NoReturn:
        raise self._bad(message)

    def _bad(self, what: str, fix: str | None = None) -> BadInput:
        return BadInput(safe(what), at=self.prog, fix=fix or f"{self.prog} --help lists what it takes")

    # ── arguments that several verbs share ────────────────────────────────────────────────────────────────────────────

    def model(self, name: str = "model") -> None:
        self.add_argument(name, metavar=name.upper(), help="an .onnx file or a model card (.toml)")

    def output(self) -> None:
        self.add_argument("-o", dest="out", metavar="OUT", type=Path, help="the .onnx file to write")
        self.add_argument("--force", action="store_true", help="write over existing files")
        self.add_argument("--dry-run", action="store_true", help="write nothing, and judge nothing")

    def target(self, default: str) -> None:
        self.add_argument("--target", metavar="ROW", default=default, help="where it will run (default: %(default)s)")

    def judge(self, *, keep_failed: bool = True) -> None:
        if keep_failed:
            self.add_argument("--no-validate", dest="validate", action="store_false", help="do not run the result")
            self.add_argument(
                "--keep-failed", action="store_true", help="write a result that failed to OUT.failed.onnx"
            )
        self.add_argument(
            "--expect", metavar="EXPR", action="append", default=[],
            help="KEY OP VALUE: task, sqnr, speed, nodes or bytes; >=, <= or ==; as in 'task>=-1%%'",
        )  # fmt: skip

    def feeds(self) -> None:
        self.add_argument("--feeds", metavar="FEEDS", help="inputs: FILE.npz, a folder of them, FILE.py:FN, or random")
        self.add_argument("--seed", type=int, default=0, help="of whatever is drawn (default: %(default)s)")

    def dims(self, help: str) -> None:
        self.add_argument("--dim", dest="dims", metavar="NAME=N", action="append", type=size, default=[], help=help)

    def custom_ops(self) -> None:
        self.add_argument(
            "--custom-ops", metavar="LIB.so", action="append", type=Path, default=[],
            help="a library of custom operators for the runtime",
        )  # fmt: skip

    def ignore(self) -> None:
        self.add_argument(
            "--ignore", metavar="GLOB", action="append", default=[], help="leave nodes of such a name as they are"
        )


def _named(expected: str, value: Callable[[str], Any]) -> Callable[[str], tuple[str, Any]]:
    """A reader of NAME=VALUE; the name may hold an equals sign, the value not."""

    def read(text: str) -> tuple[str, Any]:
        name, equals, rest = text.rpartition("=")
        try:
            if not (name and equals and rest):
                raise ValueError
            return name, value(rest)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not {expected}") from None

    return read


def _count(text: str) -> int:
    """A number of things, so at least 1."""
    n = int(text)
    if n < 1:
        raise ValueError
    return n


size = _named("NAME=N, as in batch=1", _count)
shape = _named("INPUT=SHAPE, as in x=1,3,224,224", lambda text: tuple(map(_count, text.split(","))))
renaming = _named("OLD=NEW", str)


def names(text: str) -> list[str]:
    """A,B as a list."""
    return text.split(",")


def count(text: str) -> int:
    try:
        return _count(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 1") from None


def needs_out(args: argparse.Namespace, verb: str) -> None:
    """Without --dry-run, there must be a file to write.

    Raises:
        BadInput: there is none.
    """
    if args.out is None and not args.dry_run:
        raise BadInput("nowhere to write the result", at=f"graphwright {verb}", fix="add -o OUT.onnx, or --dry-run")
