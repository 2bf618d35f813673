"""Examples for a classifier: pictures or texts, each with the name of its class."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from PIL.Image import Image

Picture = Image
Input = Picture | str
"""What a class learner is shown: a picture or a text."""


@dataclass(frozen=True)
class Examples:
    """`inputs[i]` belongs to class `labels[i]`; inputs may be read from disk only when asked for."""

    inputs: Sequence[Input]
    labels: Sequence[str]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def classes(self) -> list[str]:
        """The classes that occur, sorted."""
        return sorted(set(self.labels))

    def at(self, indices: Sequence[int]) -> "Examples":
        """These examples in this order.

        >>> Examples(["a", "b", "c"], ["x", "y", "x"]).at([2, 0]).labels
        ['x', 'x']
        """
        return Examples(Chosen(self.inputs, indices), [self.labels[i] for i in indices])


class Chosen(Sequence[Input]):
    """Some of a sequence, in an order of its own, without touching the rest."""

    def __init__(self, inputs: Sequence[Input], indices: Sequence[int]) -> None:
        self.inputs, self.indices = inputs, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]  # one rule for an index and a slice
        if isinstance(index, slice):
            return Chosen(self.inputs, self.indices[index])
        return self.inputs[self.indices[index]]

    def __iter__(self) -> Iterator[Input]:
        return (self.inputs[i] for i in self.indices)
