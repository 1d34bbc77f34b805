"""graphwright optimize: rewrite a model by equations, and prove that the result computes the same."""

from __future__ import annotations

import argparse
from pathlib import Path

from optimizer.cli.parser import Answer, Parser, names, renaming, rewriting, shape


def arguments(p: Parser) -> None:
    p.rewriting(target="portable")
    p.recipe()
    p.add_argument("--keep-functions", action="store_true", help="do not inline the model's functions")
    p.dims("freeze a free dimension")
    p.add_argument(
        "--shape", dest="shapes", metavar="INPUT=SHAPE", action="append", type=shape, default=[],
        help="freeze an input's shape, as in x=1,3,224,224",
    )  # fmt: skip
    p.add_argument("--inputs", metavar="A,B", type=names, help="extract: these values become the inputs")
    p.add_argument("--outputs", metavar="C,D", type=names, help="extract: these values become the outputs")
    p.add_argument(
        "--rename", metavar="OLD=NEW", action="append", type=renaming, default=[], help="rename an input or output"
    )
    p.add_argument("--graphsurgeon", metavar="FILE.py:FN", help="your own function of an onnx_graphsurgeon.Graph")
    p.custom_ops()
    p.add_argument(
        "--verify", choices=("off", "each"), default="off",
        help="each: run every edit on its window before it is committed, and refuse it where it does not hold",
    )  # fmt: skip
    p.add_argument(
        "--refused", metavar="DIR", type=Path, help="where reproducers of refused edits go (default: OUT.refused)"
    )
    p.bench()
    p.add_argument("--hash", choices=("full",), help="the receipt holds the sha256 of every weight")


def run(args: argparse.Namespace) -> Answer:
    request = rewriting(
        args, "level", "passes", "inputs", "outputs", "without", "graphsurgeon", "keep_functions", "custom_ops",
        "bench", "verify", "refused",
    )  # fmt: skip
    from optimizer.driver import optimize

    return optimize.run(
        Path(args.model),
        dims=dict(args.dims),
        shapes=dict(args.shapes),
        rename=dict(args.rename),
        hash_full=args.hash == "full",
        **request,
    )
