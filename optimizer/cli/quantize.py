"""graphwright quantize: float32 → int8 by QuantizeLinear and DequantizeLinear, calibrated on data."""

from __future__ import annotations

import argparse
from pathlib import Path

from optimizer.cli.parser import Answer, Parser, count, needs_out


def arguments(p: Parser) -> None:
    p.model()
    p.output()
    p.feeds()
    p.add_argument(
        "--samples", metavar="N", type=count, default=128, help="how many to calibrate on (default: %(default)s)"
    )
    p.ignore()
    p.target("cpu")
    p.judge()
    p.add_argument("--bench", action="store_true", help="time the result against the original")


def run(args: argparse.Namespace) -> Answer:
    needs_out(args, "quantize")
    from optimizer.driver import quantize

    return quantize.run(
        Path(args.model),
        out=args.out,
        feeds=args.feeds,
        samples=args.samples,
        ignore=args.ignore,
        target=args.target,
        validate=args.validate,
        bench=args.bench,
        expect=args.expect,
        seed=args.seed,
        force=args.force,
        dry_run=args.dry_run,
        keep_failed=args.keep_failed,
        argv=args.argv,
        progress=args.progress,
    )
