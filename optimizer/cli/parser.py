"""Arguments of the verbs: an unknown flag is told what it was probably meant to be, before argparse has a say."""

from __future__ import annotations

import argparse
import difflib
import importlib
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, Protocol

from optimizer.core.errors import BadInput
from optimizer.core.text import safe

VERBS = {
    "optimize": "rewrite a model by equations, and prove that it still computes the same",
    "prune": "set small weights to zero",
    "quantize": "make weights and activations int8, calibrated on data",
    "validate": "judge whether one model computes what another does",
    "bisect": "find the first edit that makes a result bad",
    "bench": "time a model, or two against each other",
    "diff": "show what differs between two models",
    "inspect": "show what is in a model",
    "explain": "show the rules, or why a node of a result is what it is",
    "doctor": "show what is installed here, and what can run",
}
_SHAPE = "--shape INPUT=1,3,224,224"
_SPELLED = {"--output": "-o OUT", "--out": "-o OUT", "--input-shape": _SHAPE, "--overwrite-input-shape": _SHAPE}
"""Flags of other tools for what a flag of ours does."""
_ABSENT = {"--opset": "a model keeps its opset: export it at the one you want"}
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
                raise self._bad(f"unknown flag {flag}", self._meant(flag))
        known, left = self.parse_known_intermixed_args(argv)
        if left:
            raise self._bad(f"unexpected argument {left[0]!r}")
        return known

    def print_help(self, file: Any = None) -> NoReturn:
        raise HelpAsked(self.format_help().rstrip())

    def error(self, message: str) -> NoReturn:
        raise self._bad(message)

    def _meant(self, flag: str) -> str | None:
        """What an unknown flag was meant to be: one of this verb, else what other verb takes it."""
        known = list(self._option_string_actions)
        if flag in _ABSENT:
            return _ABSENT[flag]
        if (ours := _SPELLED.get(flag, "")) and ours.split()[0] in known:
            return f"did you mean {ours}?"
        longer = next((k for k in known if flag.startswith("--") and len(flag) > 3 and k.startswith(flag)), None)
        names = {k.lstrip("-"): k for k in known if len(k) > 2}  # two dashes in common are no likeness
        near = difflib.get_close_matches(flag.lstrip("-"), names, 1, cutoff=0.75) if len(flag) > 2 else []
        if found := longer or (names[near[0]] if near else None):
            return f"did you mean {found}?"
        others = [verb for verb in VERBS if flag in parser_of(verb)._option_string_actions]
        return f"{flag} is a flag of graphwright {' and of graphwright '.join(others[:2])}" if others else None

    def _bad(self, what: str, fix: str | None = None) -> BadInput:
        return BadInput(safe(what), at=self.prog, fix=fix or f"{self.prog} --help lists what it takes")

    # ── arguments that several verbs share ────────────────────────────────────────────────────────────────────────────

    def model(self, name: str = "model") -> None:
        self.add_argument(name, metavar=name.upper(), help="an .onnx file or a model card (.toml)")

    def rewriting(self, *, target: str) -> None:
        """What every verb takes that writes a model; `rewriting` hands it on."""
        self.model()
        self.add_argument("-o", dest="out", metavar="OUT", type=Path, help="the .onnx file to write")
        self.add_argument("--force", action="store_true", help="write over existing files")
        self.add_argument("--dry-run", action="store_true", help="write nothing, and judge nothing")
        self.target(target)
        self.feeds()
        self.add_argument("--no-validate", dest="validate", action="store_false", help="do not run the result")
        self.add_argument("--keep-failed", action="store_true", help="write a result that failed to OUT.failed.onnx")
        self.expect()

    def target(self, default: str) -> None:
        self.add_argument("--target", metavar="ROW", default=default, help="where it will run (default: %(default)s)")

    def recipe(self) -> None:
        what = self.add_mutually_exclusive_group()
        what.add_argument(
            "-O", dest="level", type=int, choices=(0, 1, 2), default=2,
            help="0: only read and write; 1: exact rules; 2: rounding ones too (default)",
        )  # fmt: skip
        what.add_argument("--passes", metavar="SPEC", help="names in order, ( … )* a fixpoint, pass:key=value options")
        self.add_argument("--without", metavar="RULE", action="append", default=[], help="leave a rule out")

    def draws(self) -> None:
        """How the judge draws: its seeds, and a limit instead of the types' own."""
        self.dims("the size of a free dimension; all others are searched for")
        self.add_argument("--seeds", metavar="N", type=count, default=3, help="how many draws (default: %(default)s)")
        self.add_argument("--tolerance", metavar="T", type=number, help="the limit of every floating output")

    def bench(self) -> None:
        self.add_argument("--bench", action="store_true", help="time the result against the original")

    def expect(self) -> None:
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
            "--custom-ops", metavar="LIB.so", action="append", type=library, default=[],
            help="a library of custom operators for the runtime",
        )  # fmt: skip

    def ignore(self) -> None:
        self.add_argument(
            "--ignore", metavar="GLOB", action="append", default=[], help="leave nodes of such a name as they are"
        )


def parser_of(verb: str) -> Parser:
    """The parser of a verb, with its arguments."""
    parser = Parser(verb, VERBS[verb])
    importlib.import_module(f"optimizer.cli.{verb}").arguments(parser)
    return parser


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


def library(text: str) -> Path:
    if not Path(text).is_file():
        raise argparse.ArgumentTypeError(f"there is no file {text!r}")
    return Path(text)


def number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number, as in 0.3") from None


def count(text: str) -> int:
    try:
        return _count(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 1") from None


_REWRITING = (
    *("out", "force", "dry_run", "target", "feeds", "seed", "validate", "keep_failed", "expect", "argv", "progress"),
)


def rewriting(args: argparse.Namespace, *own: str) -> dict[str, Any]:
    """The arguments of `Parser.rewriting`, and a verb's `own`, for the driver.

    Raises:
        BadInput: there is no file to write, and it is no dry run.
    """
    if args.out is None and not args.dry_run:
        raise BadInput(
            "nowhere to write the result", at=f"graphwright {args.argv[0]}", fix="add -o OUT.onnx, or --dry-run"
        )
    return {name: getattr(args, name) for name in (*_REWRITING, *own)}
