"""graphwright inspect: what is in a model."""

from __future__ import annotations

import argparse

from optimizer.cli.parser import Answer, Parser


def arguments(p: Parser) -> None:
    p.model()
    p.add_argument("--census", action="store_true", help="also the operators that the runtime ends with")


def run(args: argparse.Namespace) -> Answer:
    import optimizer

    return optimizer.inspect(args.model, census=args.census)
