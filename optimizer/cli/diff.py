"""graphwright diff: what differs between two models."""

from __future__ import annotations

import argparse

from optimizer.cli.parser import Answer, Parser


def arguments(p: Parser) -> None:
    p.model("a")
    p.model("b")
    p.add_argument("--exit-code", action="store_true", help="exit 1 where they differ")


def run(args: argparse.Namespace) -> Answer:
    import optimizer

    return optimizer.diff(args.a, args.b)


def exit_code(args: argparse.Namespace, answer: Answer) -> int:
    return answer.exit_code if args.exit_code else 0
