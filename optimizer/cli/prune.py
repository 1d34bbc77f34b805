"""graphwright prune: w → 0 where |w| is small."""

from __future__ import annotations

import argparse
from pathlib import Path

from optimizer.cli.parser import Answer, Parser, number, rewriting


def arguments(p: Parser) -> None:
    p.rewriting(target="portable")
    how_much = p.add_mutually_exclusive_group(required=True)
    how_much.add_argument("--threshold", metavar="T", type=number, help="every weight with |w| < T becomes 0")
    how_much.add_argument(
        "--sparsity", metavar="R", type=number, help="the smallest share R of the weights becomes 0, 0 < R < 1"
    )
    p.add_argument(
        "--scope", choices=("tensor", "global"), default="tensor",
        help="--sparsity holds for each tensor, or for all together (default: %(default)s)",
    )  # fmt: skip
    p.ignore()


def run(args: argparse.Namespace) -> Answer:
    request = rewriting(args, "threshold", "sparsity", "scope", "ignore")
    from optimizer.driver import prune

    return prune.run(Path(args.model), **request)
