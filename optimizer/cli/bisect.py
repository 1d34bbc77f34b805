"""graphwright bisect: which edit is the first bad one?"""

from __future__ import annotations

import argparse
from pathlib import Path

from optimizer.cli.parser import Answer, Parser


def arguments(p: Parser) -> None:
    p.model()
    p.add_argument("-o", dest="out", metavar="DIR", type=Path, help="the folder to write the reproducer into")
    p.add_argument("--force", action="store_true", help="write into a folder that is there already")
    p.recipe()
    p.target("portable")
    bad = p.add_mutually_exclusive_group()
    bad.add_argument(
        "--check", metavar="CMD",
        help="a command in which {} is a candidate: exit 0 good, 125 cannot tell, anything else bad",
    )  # fmt: skip
    bad.add_argument("--bench", action="store_true", help="bad is what is slower than the original")
    p.feeds()
    p.draws()
    p.custom_ops()


def run(args: argparse.Namespace) -> Answer:
    from optimizer.driver.bisect import bisect

    return bisect(
        args.model,
        level=args.level,
        passes=args.passes,
        without=args.without,
        target=args.target,
        check=args.check,
        bench=args.bench,
        feeds=args.feeds,
        dims=dict(args.dims),
        seeds=args.seeds,
        tolerance=args.tolerance,
        custom_ops=args.custom_ops,
        out=args.out,
        force=args.force,
        seed=args.seed,
        progress=args.progress,
    )
