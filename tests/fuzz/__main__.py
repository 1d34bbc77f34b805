"""Look for a wrong answer among random graphs.

    python -m tests.fuzz [--count 10000] [--first 0] [--jobs 1] [--rule NAME]     # of seeds, tables of firings at the end
    python -m tests.fuzz --show NUMBER                                            # one graph, as text, and its outcome

A failing graph is shrunk and printed; its number makes it again as long as the goldens are the same. Exit 1 if there
was one.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "passes")]


def main() -> int:
    import onnx

    from fuzz.campaign import Campaign, run
    from fuzz.generate import graph_of
    from fuzz.judge import judge

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--rule", action="append", default=[], help="seeds of this rule only; repeats")
    parser.add_argument("--show", type=int)
    options = parser.parse_args()
    if options.show is not None:
        made = graph_of(options.show, options.rule)
        if made is None:
            print("nothing legal came of it")
            return 0
        print(made[0], onnx.printer.to_text(made[1]), judge(made[1], options.show), sep="\n\n")
        return 0
    found: Campaign = run(range(options.first, options.first + options.count), options.rule, jobs=options.jobs)
    print(found)
    for failure in found.wrong:
        print(f"\n{failure}", flush=True)
    return 1 if found.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
