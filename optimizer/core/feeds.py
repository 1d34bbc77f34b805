"""The protocol of data: what a model is fed, what comes out, and who makes it. Types only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]
    Datum = Array | list["Datum"] | dict[Any, "Datum"] | None
    """What one input or output holds: a tensor, a sequence, a map, or an absent optional."""

    Feed = Mapping[str, Datum]
    """One batch: the name of each input → its value."""

    Outputs = dict[str, Datum]
    """What one run gives: the name of each output → its value, in the model's order."""

    Feeds = Callable[[int], Iterator[Feed]]
    """A source of batches: seed → the batches of that seed, the same at every call."""

    Run = Callable[[Feed], Outputs]
    Task = Callable[[Run], float]
    """The user's score of a model, given as something that runs; higher is better."""

Binding = Mapping[str, int]
"""The sizes of a model's free dimensions: dimension name → size."""
