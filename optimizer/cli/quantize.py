"""graphwright quantize: float32 → int8 by QuantizeLinear and DequantizeLinear, calibrated on data."""

from __future__ import annotations

import argparse
from pathlib import Path

from optimizer.cli.parser import Answer, Parser, count, rewriting


def arguments(p: Parser) -> None:
    p.rewriting(target="cpu")
    p.add_argument(
        "--samples", metavar="N", type=count, default=128, help="how many to calibrate on (default: %(default)s)"
    )
    p.ignore()
    p.bench()


def run(args: argparse.Namespace) -> Answer:
    request = rewriting(args, "samples", "ignore", "bench")
    from optimizer.driver import quantize

    return quantize.run(Path(args.model), **request)
