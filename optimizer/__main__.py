"""`python -m optimizer` is `graphwright`."""

import sys

from optimizer.cli.main import run

sys.exit(run())
