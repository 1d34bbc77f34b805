"""`python -m optimizer` is `graphwright`."""

from optimizer.cli.main import run

run()
