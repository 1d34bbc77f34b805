"""The graph of a number: seeds, changes, neighbours and bodies all drawn from it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from random import Random

from goldens import goldens, steps
from onnx import ModelProto

from optimizer.core.rule import Rule

from .mutate import loosen, mutate
from .sample import Unknown, sample
from .splice import complete, splice, wrap


@cache
def _rules() -> tuple[Rule, ...]:
    return tuple(s for s in steps().values() if isinstance(s, Rule))


@cache
def _names() -> tuple[str, ...]:
    return tuple(sorted({g.rule for g in goldens() if g.after is not None}))


def seed_of(random: Random, names: Sequence[str] = ()) -> tuple[str, ModelProto]:
    """A golden's `before` (now and then a `keeps`), or a rule's pattern at random, changed; with the rule's name.

    Raises:
        Unknown: the rule's pattern cannot be sampled.
    """
    name = random.choice(names or _names())
    pool = [r for r in _rules() if r.name == name]
    if pool and random.random() < 0.4:
        model, where = sample(pool[0], random), f"{name} (pattern)"
    else:
        cases = [g for g in goldens() if g.rule == name and (g.after is not None or random.random() < 0.2)]
        golden = random.choice(cases or [g for g in goldens() if g.rule == name])
        model, where = ModelProto.FromString(golden.before.SerializeToString()), str(golden)
    flaws = random.choice((0, 0, 0, 0, 1, 1, 2))
    done = mutate(model, random, random.choice((0, 1, 2, 3)), flaws)
    if not complete(model):
        raise Unknown(f"{where}: illegal after {done}")
    return f"{where} {' '.join(done)}".strip(), model


def graph_of(number: int, names: Sequence[str] = ()) -> tuple[str, ModelProto] | None:
    """A model and what it was made of; None where that came out illegal.

    Args:
        names: of the rules that seeds come from; default: all.
    """
    random = Random(number)
    seeds: list[tuple[str, ModelProto]] = []
    for _ in range(random.choice((1, 1, 2, 2, 3))):
        for _ in range(4):
            try:
                found = seed_of(random, names)
            except Unknown:
                continue
            if not seeds or _together(seeds[0][1], found[1]):
                seeds.append(found)
                break
    if not seeds:
        return None
    text = " + ".join(t for t, _ in seeds)
    if any(not i.type.HasField("tensor_type") for _, m in seeds for i in m.graph.input):
        return text, seeds[0][1]
    plain = len(seeds) == 1 and random.random() < 0.2
    model = seeds[0][1] if plain else splice([m for _, m in seeds], random)
    if not model.functions and random.random() < 0.25:
        try:
            model = wrap(model, random)
        except Exception:  # a body that cannot be one
            return None
        text += " in a body"
        loosen(model)
    return text, model


def _together(a: ModelProto, b: ModelProto) -> bool:
    """Whether both may lie in one model."""
    imports = [{o.domain: o.version for o in m.opset_import} for m in (a, b)]
    return imports[0] == imports[1] and a.ir_version == b.ir_version and not b.functions
