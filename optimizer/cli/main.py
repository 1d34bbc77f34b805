"""`graphwright VERB …`: parse, call the verb, print its answer; the result on stdout, everything else on stderr."""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import math
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any, NoReturn, cast

from optimizer.cli.parser import EXIT_CODES, VERBS, Answer, HelpAsked, parser_of
from optimizer.core.errors import BadInput, GraphwrightError, ToolFailure
from optimizer.core.text import did_you_mean, safe

SLOW = {"optimize", "prune", "quantize", "validate", "bisect", "bench"}
HELP = "\n".join(
    ["usage: graphwright VERB MODEL … [flags]", "", "verbs"]
    + [f"  {verb:9} {what}" for verb, what in VERBS.items()]
    + ["", "graphwright VERB --help lists the flags of a verb. MODEL is an .onnx file or a model card (.toml).", ""]
    + [EXIT_CODES]
)


def run() -> NoReturn:
    """The console script: the process ends with the exit code."""
    gc.disable()  # one run, then the process ends: what is garbage can wait
    # threads of numpy's BLAS spin for a tenth of a second at its import; and with one, folding has one order of sums
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    code = main(sys.argv[1:])
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.flush()
    os._exit(code)  # unloading every library would take a tenth of the time of a small model


def main(argv: Sequence[str]) -> int:
    """One command line; prints, and returns the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            cast(Any, stream).reconfigure(errors="backslashreplace")  # a terminal that lacks ½ still gets the rest
    try:
        code = _main(list(argv))
        with _closed_pipe(sys.stdout):
            sys.stdout.flush()
    except KeyboardInterrupt:
        _say("interrupted")
        code = 130
    except Exception as error:
        code = _report(error, "-v" in argv or "--verbose" in argv)
    return code


def _main(argv: list[str]) -> int:
    verb = argv[0] if argv else "--help"
    if verb in ("-h", "--help", "help"):
        _print(HELP)
        return 0
    if verb == "--version":
        import optimizer

        _print(f"graphwright {optimizer.__version__}")
        return 0
    if verb not in VERBS:
        fix = did_you_mean(verb, VERBS) or "graphwright --help lists the verbs"
        what = f"the verb comes before its flags: {verb!r}" if verb.startswith("-") else f"unknown verb {verb!r}"
        raise BadInput(what, at="graphwright", fix=fix)
    module: Any = importlib.import_module(f"optimizer.cli.{verb}")
    try:
        args = parser_of(verb).parse(argv[1:])
    except HelpAsked as help:
        _print(str(help))
        return 0
    args.argv = argv
    # on stdout is the result alone: what a guest prints is not
    with (
        contextlib.redirect_stdout(sys.stderr),
        _warnings(args.quiet),
        _progress(verb, args.quiet) as args.progress,
    ):
        answer: Answer = module.run(args)
    if args.verbose:
        _print_edits(answer)
    _print(_json(answer.to_dict()) if args.format == "json" else str(answer))
    return module.exit_code(args, answer) if hasattr(module, "exit_code") else answer.exit_code


def _print_edits(answer: Answer) -> None:
    """A line an edit, on stderr."""
    log = getattr(answer, "log", ())
    if log:
        from optimizer.driver.explain import describe_edit
        from optimizer.driver.receipt import log_row

        for edit in log:
            _say(describe_edit(log_row(edit)))


@contextlib.contextmanager
def _warnings(quiet: bool) -> Generator[None]:
    """Python's warnings in our words, or not at all."""
    with warnings.catch_warnings():
        if quiet:
            warnings.simplefilter("ignore")
        warnings.showwarning = lambda message, *_, **__: _say(f"warning: {message}")
        yield


@contextlib.contextmanager
def _progress(verb: str, quiet: bool) -> Generator[Callable[[str], None] | None]:
    """A spinner on a terminal, for verbs that run models; what it yields is told what is being done."""
    if quiet or verb not in SLOW or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console

    with Console(stderr=True).status(verb) as status:
        yield lambda what: status.update(f"{verb}: {what}")


def _print(text: str) -> None:
    with _closed_pipe(sys.stdout):
        print("\n".join(map(safe, text.split("\n"))), flush=True)


def _say(text: str) -> None:
    with _closed_pipe(sys.stderr):
        print("\n".join(map(safe, text.split("\n"))), file=sys.stderr, flush=True)


@contextlib.contextmanager
def _closed_pipe(stream: Any) -> Generator[None]:
    """Whoever read us has left (`| head`): the rest goes nowhere, and the exit code stays that of the work."""
    try:
        yield
    except OSError as error:
        with contextlib.suppress(OSError, ValueError):  # what is buffered would be tried again when Python ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        if not isinstance(error, BrokenPipeError):
            raise


def _json(document: Any) -> str:
    return json.dumps(_finite(document), indent=2, default=os.fspath)


def _finite(x: Any) -> Any:
    """JSON knows no infinity and no NaN: null."""
    if isinstance(x, dict):
        return {str(key): _finite(value) for key, value in cast("dict[Any, Any]", x).items()}
    if isinstance(x, (list, tuple)):
        return [_finite(value) for value in cast("list[Any]", x)]
    return None if isinstance(x, float) and not math.isfinite(x) else x


def _report(error: Exception, verbose: bool) -> int:
    """Print an error as directions; returns its exit code."""
    if verbose:
        _say("".join(traceback.format_exception(error)).rstrip())
    known = error if isinstance(error, GraphwrightError) else _unexpected(error)
    lines = [("error", known.what), ("  at", known.at), ("  fix", known.fix)]
    _say("\n".join(f"{key}: {text}".replace("\n", "\n    ") for key, text in lines if text))
    return known.exit_code


def _unexpected(error: Exception) -> ToolFailure:
    if isinstance(error, OSError):
        what = error.strerror or str(error) or type(error).__name__
        return ToolFailure(
            what[:1].lower() + what[1:],
            at=str(error.filename) if error.filename else None,
            fix="check the disk and the permissions; -v shows where it happened",
        )
    if isinstance(error, MemoryError):
        return ToolFailure("out of memory", fix="run on a machine with more memory")
    root = Path(__file__).parents[2]
    frames = [(Path(f.filename), f.lineno) for f in traceback.extract_tb(error.__traceback__)]
    ours = [(p, line) for p, line in frames if any(p.is_relative_to(root / house) for house in ("optimizer", "passes"))]
    at = f"{ours[-1][0].relative_to(root)}:{ours[-1][1]}" if ours else None
    what = " ".join(f"{type(error).__name__}: {error}".split())
    return ToolFailure(
        f"a bug in graphwright: {what}", at=at, fix="run again with -v and report the traceback with the model"
    )
