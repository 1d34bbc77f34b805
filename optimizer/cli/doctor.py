"""graphwright doctor: what is installed here, and what can run."""

from __future__ import annotations

import argparse

from optimizer.cli.parser import Answer, Parser


def arguments(p: Parser) -> None:
    p.add_argument("--provider", metavar="PROVIDER", help="exit 4 unless it can run: cpu, cuda or tensorrt")


def run(args: argparse.Namespace) -> Answer:
    import optimizer

    return optimizer.doctor(provider=args.provider)
