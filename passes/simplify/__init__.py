"""What every later match profits from and no runtime misses: fewer, plainer nodes that compute the same bits."""

from __future__ import annotations

from optimizer.core.rule import Pass, Rule
from passes.simplify import bounds, branches, identities, shapes, transposes, twins, views

_STEPS = (
    *identities.STEPS, *bounds.RULES, *views.STEPS, *transposes.STEPS, *shapes.STEPS, *twins.STEPS, *branches.STEPS,
)  # fmt: skip
_RULES = tuple(s for s in _STEPS if isinstance(s, Rule))  # neighbours, so that one sweep serves them all

SIMPLIFY = Pass("simplify", (*_RULES, *(s for s in _STEPS if not isinstance(s, Rule))))
