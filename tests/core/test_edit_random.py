"""Random rewrites of random graphs: refused ones touch nothing, others mean what they say, undo restores the file."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import onnx
import onnx.printer
import onnxruntime
from onnx import ModelProto
from random_models import Rewrite, naive, random_model, random_rewrite, runnable

from optimizer.core.edit import Editor
from optimizer.core.graph import Model, check, lift, lower
from optimizer.core.propagate import propagate

REWRITES = 20  # a model


def session(model: ModelProto) -> onnxruntime.InferenceSession:
    o = onnxruntime.SessionOptions()
    o.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    o.log_severity_level = 3
    o.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), o, providers=["CPUExecutionProvider"])


def run(model: ModelProto, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    s = session(runnable(model))
    return s.run(None, {i.name: feeds[i.name] for i in s.get_inputs()})


def same(got: list[np.ndarray], want: list[np.ndarray]) -> bool:
    return all(
        g.shape == w.shape and np.allclose(g, w, atol=1e-5, equal_nan=True) for g, w in zip(got, want, strict=True)
    )


def shadowed(model: Model) -> set[str]:
    """Names in a body that a graph around it has as well: a reader there would read another value."""
    names = {
        g: {v.name for v in (*g.inputs, *g.constants(), *(o for n in g for o in n.outputs))} for g in model.graphs()
    }
    found: set[str] = set()
    for g in names:
        outer = g.owner and g.owner.graph
        while outer:
            found |= names[g] & names[outer]
            outer = outer.owner and outer.owner.graph
    return found - {""}


class Story:
    """The rewrites of one seed; `python tests/core/test_edit_random.py SEED` tells it."""

    def __init__(self, seed: int, equal: bool) -> None:
        self.proto, self.feeds = random_model(seed)
        self.random = Random(seed)
        self.model = lift(self.proto)
        propagate(self.model)
        self.editor = Editor(self.model, budget=1e6 if self.random.random() < 0.8 else 1.01)
        self.equal = equal
        self.states = [self.bytes()]
        self.refused = self.committed = 0
        self.told: list[str] = []

    def bytes(self) -> bytes:
        return lower(self.model).SerializeToString()

    def proposal(self) -> Rewrite | None:
        return random_rewrite(self.editor, self.random, equal=self.equal)

    def remove(self) -> bool:
        g = self.random.choice(list(self.model.graphs()))
        nodes = list(g)
        some = self.random.sample(nodes, min(len(nodes), self.random.randint(1, 2)))
        self.told.append(f"remove {some}")
        return self.editor.remove(some)

    def step(self, oracle: bool) -> None:
        e = self.editor
        before = self.states[-1]
        rewrite = None
        if not self.equal and self.random.random() < 0.1:
            done = self.remove()
        else:
            rewrite = self.proposal()
            if rewrite is None:
                return
            self.told.append(rewrite.text)
            wanted = naive(self.model, ModelProto.FromString(before), rewrite) if oracle and rewrite.naive else None
            done = e.replace(rewrite.old, rewrite.new, **rewrite.options)
        self.told[-1] += "" if done else f"  refused: {e.why}"
        after = self.bytes()
        if not done:
            self.refused += 1
            assert after == before, "a refused edit changed the graph"
            return
        self.committed += 1
        check(self.model)
        assert not shadowed(self.model)
        self.states.append(after)
        assert len(self.states) == len(e.log) + 1
        if rewrite is not None and wanted is not None:
            result = ModelProto.FromString(after)
            onnx.checker.check_model(runnable(result))
            ordered = lower(lift(wanted))  # the naive result lists its nodes in any order
            got, want = run(result, self.feeds), run(ordered, self.feeds)
            assert same(got, want), "not what the rewrite means"
        if self.random.random() < 0.1:
            self.undo()

    def undo(self, to: int | None = None) -> None:
        to = self.random.randint(0, len(self.editor.log)) if to is None else to
        self.told.append(f"undo to {to}")
        self.editor.undo(to)
        check(self.model)
        assert self.bytes() == self.states[to], "undo did not restore the file"
        del self.states[to + 1 :]


def tell(seed: int, equal: bool = False, oracle: float = 1.0) -> Story:
    story = Story(seed, equal)
    assert story.bytes() == lower(lift(story.proto)).SerializeToString()
    try:
        check(story.model)
        for _ in range(REWRITES):
            story.step(story.random.random() < oracle)
        if equal:
            got, want = (run(m, story.feeds) for m in (lower(story.model), story.proto))
            assert same(got, want), "equal rewrites changed the answers"
        story.undo(0)
    except Exception as e:
        e.add_note(f"seed {seed}, equal={equal}:\n  " + "\n  ".join(story.told))
        raise
    return story


def total(seeds: range, **options: Any) -> tuple[int, int]:
    stories = [tell(s, **options) for s in seeds]
    return sum(s.committed for s in stories), sum(s.refused for s in stories)


def test_ten_thousand_rewrites() -> None:
    committed, refused = total(range(530), oracle=0.15)
    assert committed + refused >= 10_000 and committed > 3_000


def test_equal_rewrites_keep_the_answers() -> None:
    committed, _ = total(range(5000, 5100), equal=True, oracle=0.0)
    assert committed > 1_000


if __name__ == "__main__":
    import sys

    story = tell(int(sys.argv[1]), equal=len(sys.argv) > 2)
    print(onnx.printer.to_text(story.proto), *story.told, sep="\n")
