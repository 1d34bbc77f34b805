"""graphwright validate: does RESULT compute what ORIGINAL computes?"""

from __future__ import annotations

import argparse

from optimizer.cli.parser import Answer, Parser
from optimizer.core.errors import BadInput


def arguments(p: Parser) -> None:
    p.model("original")
    p.add_argument("result", metavar="RESULT", nargs="?", help="left out with --golden: ORIGINAL is then the result")
    p.feeds()
    p.draws()
    p.add_argument("--lossy", action="store_true", help="report the accuracy instead of judging it")
    p.add_argument("--histogram", action="store_true", help="count the errors of every output by decade")
    p.add_argument("--provider", metavar="NAME", default="cpu", help="cpu, cuda or tensorrt (default: %(default)s)")
    p.add_argument(
        "--executor",
        metavar="NAME",
        default="onnxruntime",
        help="reference or float64: run both by onnx.reference too, instead of with optimizations off",
    )
    p.add_argument("--save-feeds", metavar="DIR", help="write inputs and expected outputs as test_data_set_N folders")
    p.add_argument("--golden", metavar="DIR", help="judge by such a folder, without the original")
    p.add_argument(
        "--layers", action="store_true", help="compare every value that the receipt beside RESULT claims equal too"
    )
    p.custom_ops()
    p.expect()


def run(args: argparse.Namespace) -> Answer:
    import optimizer

    if args.result is None and args.golden is None:
        fix = "name it, or give --golden DIR; graphwright validate --help"
        raise BadInput("the following arguments are required: RESULT", fix=fix)
    validation = optimizer.validate(
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
        provider=args.provider,
        executor=args.executor,
        golden=args.golden,
        save_feeds=args.save_feeds,
        histogram=args.histogram,
    )
    if not args.layers:
        return validation
    if args.result is None:
        raise BadInput("layers are compared between two models", at="graphwright validate", fix="name both models")
    from optimizer.measure.layers import Layered, layers

    found = layers(
        args.original,
        args.result,
        feeds=args.feeds,
        dims=dict(args.dims),
        tolerance=args.tolerance,
        custom_ops=args.custom_ops,
        seed=args.seed,
    )
    return Layered(validation, found)
