"""graphwright explain: the catalog, one rule, or why a node of a result is what it is."""

from __future__ import annotations

import argparse

from optimizer.cli.parser import Answer, Parser


def arguments(p: Parser) -> None:
    p.usage = "%(prog)s [RULE | OUT NODE]"
    p.add_argument(
        "what", nargs="*", metavar="RULE | OUT NODE",
        help="nothing: the catalog by phase; a rule: its equation; a result and a node or value: its life",
    )  # fmt: skip


def run(args: argparse.Namespace) -> Answer:
    from optimizer.core.errors import BadInput

    if len(args.what) > 2:
        raise BadInput(
            f"unexpected argument {args.what[2]!r}", at="graphwright explain", fix="give a RULE, or OUT and a NODE"
        )
    import optimizer

    *out, name = args.what or [None]
    return optimizer.explain(*out, name=name)
