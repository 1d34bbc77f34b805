"""graphwright validate: does RESULT compute what ORIGINAL computes?"""

from __future__ import annotations

import argparse

from optimizer.cli.parser import Answer, Parser, count


def arguments(p: Parser) -> None:
    p.model("original")
    p.model("result")
    p.feeds()
    p.dims("the size of a free dimension; all others are searched for")
    p.add_argument("--seeds", metavar="N", type=count, default=3, help="how many draws (default: %(default)s)")
    p.add_argument("--tolerance", metavar="T", type=float, help="the limit of every floating output")
    p.add_argument("--lossy", action="store_true", help="report the accuracy instead of judging it")
    p.custom_ops()
    p.judge(keep_failed=False)


def run(args: argparse.Namespace) -> Answer:
    import optimizer

    return optimizer.validate(
        args.original,
        args.result,
        feeds=args.feeds,
        dims=dict(args.dims),
        seeds=args.seeds,
        tolerance=args.tolerance,
        lossy=args.lossy or None,
        custom_ops=args.custom_ops,
        expect=args.expect,
        seed=args.seed,
    )
