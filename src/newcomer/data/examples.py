"""Examples for a classifier: pictures or texts, each with the name of its class."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from newcomer.data.class_names import class_names
from newcomer.data.inputs import Input, as_inputs
from newcomer.data.io.image_decoding import Picture
from newcomer.errors import DataError

__all__ = ["Chosen", "Examples", "Input", "Picture"]


@dataclass(frozen=True, init=False)
class Examples:
    """`inputs[i]` belongs to class `labels[i]`; inputs may be read from disk only when asked for.

    - `inputs`: texts, or pictures: of PIL, paths, bytes of files, or arrays of uint8 (height × width × 3). A list, a tuple, a
      column of pandas, polars or numpy, a generator, or a sequence that reads inputs when it is asked for them.
    - `labels`: texts or whole numbers, in any such container. Each becomes the name of its class: see `class_name`.

    >>> Examples(["my card", "no money"], [1, 2.0]).labels
    ['1', '2']

    Raises DataError for an input that is none or is empty, a label that is missing or none, and where there are more of one.
    """

    inputs: Sequence[Input]
    labels: Sequence[str]

    def __init__(self, inputs: Any, labels: Any) -> None:
        object.__setattr__(self, "inputs", as_inputs(inputs))
        object.__setattr__(self, "labels", class_names(labels))
        if len(self.inputs) != len(self.labels):
            raise DataError(f"{len(self.inputs)} inputs, but {len(self.labels)} labels; give one label an input")

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

    @classmethod
    def from_folder(cls, path: str | Path) -> "Examples":
        """The pictures of a folder, in which every folder is a class; one that has `train/` is read from there.

        Raises DataError for a class without pictures and for a file that is none.
        """
        from newcomer.data.io.example_sources import class_folders  # which needs this module

        return class_folders(Path(path))

    @classmethod
    def from_table(cls, path: str | Path, *, text: str = "text", label: str = "label") -> "Examples":
        """The rows of a CSV or parquet table; `text` and `label` name its columns.

        Raises DataError for a file that cannot be read, a missing column, and a row without text or class.
        """
        from newcomer.data.io.text_tables import class_table  # which needs this module

        return class_table(Path(path), text, label)


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


def require_examples(given: object, what: str) -> None:
    """Raises DataError unless these are `Examples`; `what` begins the message."""
    if not isinstance(given, Examples):
        raise DataError(f"{what}: of type {type(given).__name__}, where Examples(inputs, labels) were expected")
