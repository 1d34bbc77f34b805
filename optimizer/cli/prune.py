"""graphwright prune: w → 0 where |w| is small."""

from __future__ import annotations

import argparse
from pathlib import Path

from optimizer.cli.parser import Answer, Parser, needs_out


def arguments(p: Parser) -> None:
    p.model()
    p.output()
    how_much = p.add_mutually_exclusive_group(required=True)
    how_much.add_argument("--threshold", metavar="T", type=float, help="every weight with |w| < T becomes 0")
    how_much.add_argument("--sparsity", metavar="R", type=float, help="the smallest share R of the weights becomes 0")
    p.add_argument(
        "--scope", choices=("tensor", "global"), default="tensor",
        help="--sparsity holds for each tensor, or for all together (default: %(default)s)",
    )  # fmt: skip
    p.ignore()
    p.target("portable")
    p.feeds()
    p.judge()


def run(args: argparse.Namespace) -> Answer:
    needs_out(args, "prune")
    from optimizer.driver import prune

    return prune.run(
        Path(args.model),
        out=args.out,
        threshold=args.threshold,
        sparsity=args.sparsity,
        scope=args.scope,
        ignore=args.ignore,
        target=args.target,
        feeds=args.feeds,
        validate=args.validate,
        expect=args.expect,
        seed=args.seed,
        force=args.force,
        dry_run=args.dry_run,
        keep_failed=args.keep_failed,
        argv=args.argv,
        progress=args.progress,
    )
