"""graphwright optimize: rewrite a model by equations, and prove that the result computes the same."""

from __future__ import annotations

import argparse
from pathlib import Path

from optimizer.cli.parser import Answer, Parser, names, needs_out, renaming, shape


def arguments(p: Parser) -> None:
    p.model()
    p.output()
    what = p.add_mutually_exclusive_group()
    what.add_argument(
        "-O", dest="level", type=int, choices=(0, 1, 2), default=2,
        help="0: only read and write; 1: exact rules; 2: rounding ones too (default)",
    )  # fmt: skip
    what.add_argument("--passes", metavar="SPEC", help="names in order, ( … )* a fixpoint, pass:key=value options")
    p.target("portable")
    p.add_argument("--without", metavar="RULE", action="append", default=[], help="leave a rule out")
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
    p.feeds()
    p.custom_ops()
    p.judge()
    p.add_argument(
        "--verify", choices=("off", "each"), default="off",
        help="each: run every edit on its window before it is committed, and refuse it where it does not hold",
    )  # fmt: skip
    p.add_argument(
        "--refused", metavar="DIR", type=Path, help="where reproducers of refused edits go (default: OUT.refused)"
    )
    p.add_argument("--bench", action="store_true", help="time the result against the original")
    p.add_argument("--hash", choices=("full",), help="the receipt holds the sha256 of every weight")


def run(args: argparse.Namespace) -> Answer:
    needs_out(args, "optimize")
    from optimizer.driver import optimize

    return optimize.run(
        Path(args.model),
        out=args.out,
        level=args.level,
        passes=args.passes,
        target=args.target,
        dims=dict(args.dims),
        shapes=dict(args.shapes),
        inputs=args.inputs,
        outputs=args.outputs,
        rename=dict(args.rename),
        without=args.without,
        graphsurgeon=args.graphsurgeon,
        keep_functions=args.keep_functions,
        feeds=args.feeds,
        custom_ops=args.custom_ops,
        validate=args.validate,
        bench=args.bench,
        expect=args.expect,
        verify=args.verify,
        refused=args.refused,
        seed=args.seed,
        force=args.force,
        dry_run=args.dry_run,
        keep_failed=args.keep_failed,
        hash_full=args.hash == "full",
        argv=args.argv,
        progress=args.progress,
    )
