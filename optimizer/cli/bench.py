"""graphwright bench: how long A takes, and how much faster B is."""

from __future__ import annotations

import argparse
from typing import Any

from optimizer.cli.parser import Answer, Parser, count, number, renaming


def arguments(p: Parser) -> None:
    p.model("a")
    p.add_argument("b", metavar="B", nargs="?", help="an .onnx file or a model card, timed in pairs with A")
    p.add_argument(
        "--provider", metavar="PROVIDER", type=provider, default=("cpu", {}),
        help="cpu, cuda or tensorrt, and its options: tensorrt:KEY=VALUE,KEY=VALUE (default: cpu)",
    )  # fmt: skip
    p.add_argument("--threads", metavar="N", type=count, default=1, help="of one operator (default: %(default)s)")
    p.dims("the size of a free dimension")
    p.feeds()
    p.add_argument(
        "--time", dest="seconds", metavar="S", type=number, default=30.0, help="seconds to spend (default: 30)"
    )
    p.expect()


def provider(text: str) -> tuple[str, dict[str, Any]]:
    """NAME[:KEY=VALUE,…]"""
    name, _, options = text.partition(":")
    return name, dict(map(renaming, options.split(","))) if options else {}


def run(args: argparse.Namespace) -> Answer:
    import optimizer

    name, options = args.provider
    return optimizer.bench(
        args.a,
        args.b,
        provider=name,
        options=options,
        threads=args.threads,
        dims=dict(args.dims),
        feeds=args.feeds,
        seconds=args.seconds,
        expect=args.expect,
        seed=args.seed,
    )
