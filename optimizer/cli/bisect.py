"""graphwright bisect: which edit is the first bad one?"""

from __future__ import annotations

import argparse
from pathlib import Path

from optimizer.cli.parser import Answer, Parser, count


def arguments(p: Parser) -> None:
    p.model()
    p.add_argument("-o", dest="out", metavar="DIR", type=Path, help="the folder to write the reproducer into")
    p.add_argument("--force", action="store_true", help="write into a folder that is there already")
    what = p.add_mutually_exclusive_group()
    what.add_argument("-O", dest="level", type=int, choices=(0, 1, 2), default=2, help="the level (default: 2)")
    what.add_argument("--passes", metavar="SPEC", help="names in order, ( … )* a fixpoint")
    p.target("portable")
    p.add_argument("--without", metavar="RULE", action="append", default=[], help="leave a rule out")
    bad = p.add_mutually_exclusive_group()
    bad.add_argument(
        "--check", metavar="CMD",
        help="a command in which {} is a candidate: exit 0 good, 125 cannot tell, anything else bad",
    )  # fmt: skip
    bad.add_argument("--bench", action="store_true", help="bad is what is slower than the original")
    p.feeds()
    p.dims("the size of a free dimension; all others are searched for")
    p.add_argument("--seeds", metavar="N", type=count, default=3, help="how many draws (default: %(default)s)")
    p.add_argument("--tolerance", metavar="T", type=float, help="the limit of every floating output")
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
