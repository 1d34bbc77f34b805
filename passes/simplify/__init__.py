"""What every later match profits from and no runtime misses: fewer, plainer nodes that compute the same bits."""

from __future__ import annotations

from optimizer.core.rule import Pass
from passes.simplify import branches, identities, shapes, twins, views

SIMPLIFY = Pass("simplify", (*identities.STEPS, *views.STEPS, *shapes.STEPS, *twins.STEPS, *branches.STEPS))
