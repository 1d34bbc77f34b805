"""An editor under watch: after every commit the graph is checked, and what it refused has touched nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import onnx
from onnx import ModelProto

from optimizer.core.edit import Edit, Editor
from optimizer.core.graph import Model, check, lower


@dataclass(frozen=True)
class Commit:
    """One edit with the model as it was before and after it."""

    edit: Edit
    before: bytes
    after: bytes


class Watched(Editor):
    """Asserts the laws of single edits; `commits` are what happened, `undone` goes back step by step.

    Raises:
        AssertionError: a commit broke an invariant, a refusal changed the model, undo did not restore it.
    """

    def __init__(self, model: Model, *, checker: bool = True, **options: Any) -> None:
        """`checker`: onnx's own has its say after every commit as well."""
        super().__init__(model, **options)
        self._checker = checker
        self.commits: list[Commit] = []
        self._bytes = self.written()

    def written(self) -> bytes:
        return lower(self.model).SerializeToString(deterministic=True)

    def replace(self, *args: Any, **options: Any) -> bool:
        return self._watch(super().replace, *args, **options)

    def remove(self, *args: Any, **options: Any) -> bool:
        return self._watch(super().remove, *args, **options)

    def rename(self, *args: Any, **options: Any) -> None:
        self._watch(super().rename, *args, **options)

    def fix_initializers(self, *args: Any, **options: Any) -> bool:
        return self._watch(super().fix_initializers, *args, **options)

    def adopt(self, *args: Any, **options: Any) -> None:
        self._watch(super().adopt, *args, **options)

    def _watch(self, change: Callable[..., Any], *args: Any, **options: Any) -> Any:
        count, was = len(self.log), self._bytes
        answer = change(*args, **options)
        self._bytes = self.written()
        if len(self.log) == count:
            assert self._bytes == was, f"{self.rule}: refused ({self.why}), and the model changed"
            return answer
        assert len(self.log) == count + 1
        check(self.model)
        if self._checker:
            valid(ModelProto.FromString(self._bytes), f"after edit {self.log[-1].id} of {self.rule}")
        self.commits.append(Commit(self.log[-1], was, self._bytes))
        return answer

    def undo_all(self) -> None:
        """Back to the start, one edit at a time; each step restores the bytes."""
        for c in reversed(self.commits):
            self.undo(c.edit.id - 1)
            check(self.model)
            assert self.written() == c.before, f"undoing edit {c.edit.id} ({c.edit.rule}) did not restore the model"
        self.commits.clear()


def valid(model: ModelProto, when: str) -> None:
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as e:  # the checker's errors and the inference's share no base
        raise AssertionError(f"{when}: {e}\n{onnx.printer.to_text(model)}") from e
