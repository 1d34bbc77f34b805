"""What every later match profits from and no runtime misses: fewer, plainer nodes that compute the same bits."""

from __future__ import annotations

from optimizer.core.rule import Pass
from passes.simplify import bounds, branches, identities, shapes, transposes, twins, views

SIMPLIFY = Pass(
    "simplify",
    (
        *identities.STEPS, *bounds.RULES, *views.STEPS, *transposes.STEPS, *shapes.STEPS, *twins.STEPS, *branches.STEPS,
    ),
)  # fmt: skip
