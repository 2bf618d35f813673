"""Examples for a classifier: images or texts, each with the name of its class."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from newcomer.data.class_names import class_names
from newcomer.data.inputs import Input, as_inputs
from newcomer.data.io.image_decoding import PILImage
from newcomer.errors import DataError
from newcomer.printable import counted, listed

__all__ = ["Examples", "Input", "PILImage", "Subset"]


@dataclass(frozen=True, init=False)
class Examples:
    """Labelled inputs of a classifier: `inputs[i]` belongs to class `labels[i]`; inputs may be loaded lazily.

    - `inputs`: texts or images (PIL images, paths, encoded bytes, uint8 arrays of height × width × 3) in a list, tuple,
      generator, pandas, polars or numpy column, or in a sequence that loads an input when it is indexed.
    - `labels`: texts or whole numbers in any such container, converted to class names by `class_name`.
    - `unlabelled`: further inputs of any classes, known or not. Nothing is learned of them: they say how features change while
      the backbone is trained on the others (`nn.features.drift_map`).
    - `domains`: where each input comes from, such as 'sketch' or 'photo', named as labels are; none by default. Only
      `DomainIncremental` and splits read them, learners do not.

    >>> Examples(["my card", "no money"], [1, 2.0]).labels
    ['1', '2']

    Raises DataError for an empty or unsupported input, a missing or unsupported label or domain, and different numbers of inputs,
    labels and domains.
    """

    inputs: Sequence[Input]
    labels: Sequence[str]
    unlabelled: Sequence[Input] = ()
    domains: Sequence[str] = ()

    def __init__(self, inputs: Any, labels: Any, unlabelled: Any = (), domains: Any = ()) -> None:
        object.__setattr__(self, "inputs", as_inputs(inputs))
        object.__setattr__(self, "labels", class_names(labels))
        object.__setattr__(self, "unlabelled", as_inputs(unlabelled, "unlabelled"))
        object.__setattr__(self, "domains", class_names(domains, "domains"))
        if len(self.inputs) != len(self.labels):
            raise DataError(f"{len(self.inputs)} inputs, but {len(self.labels)} labels; give one label per input")
        if self.domains and len(self.domains) != len(self.labels):
            raise DataError(f"{len(self.inputs)} inputs, but {len(self.domains)} domains; give one per input, or none")

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        classes = self.classes
        names = f": {listed(classes)}" if classes else ""
        more = f", {len(self.unlabelled)} unlabelled" if self.unlabelled else ""
        more += f", {counted(len(set(self.domains)), 'domain')}" if self.domains else ""
        return f"Examples({counted(len(self), 'input')}, {counted(len(classes), 'class', 'classes')}{names}{more})"

    @property
    def classes(self) -> list[str]:
        """The classes that occur, sorted."""
        return sorted(set(self.labels))

    def select(self, indices: Sequence[int]) -> "Examples":
        """Subset of the examples, in the order of `indices`, with all that is unlabelled.

        >>> Examples(["a", "b", "c"], ["x", "y", "x"]).select([2, 0]).labels
        ['x', 'x']
        """
        domains = [self.domains[i] for i in indices] if self.domains else ()
        return Examples(Subset(self.inputs, indices), [self.labels[i] for i in indices], self.unlabelled, domains)

    @classmethod
    def from_folder(cls, path: str | Path) -> "Examples":
        """Images of a folder with one subfolder per class; if it has `train/`, the training images in there.

        Raises DataError for a class without images and for a file that is not an image.
        """
        from newcomer.data.io.example_sources import class_folders  # circular import

        return class_folders(Path(path))

    @classmethod
    def from_table(cls, path: str | Path, *, text: str = "text", label: str = "label") -> "Examples":
        """Rows of a CSV or parquet table; `text` and `label` name its columns.

        Raises DataError for an unreadable file, a missing column, and a row without text or label.
        """
        from newcomer.data.io.text_tables import class_table  # circular import

        return class_table(Path(path), text, label)

    @classmethod
    def from_frame(cls, frame: Any, *, input: str = "text", label: str = "label") -> "Examples":
        """Rows of a polars or pandas frame; column `input` holds texts, paths or images.

        >>> import polars as pl
        >>> Examples.from_frame(pl.DataFrame({"text": ["my card", "no money"], "label": ["lost", "failed"]}))
        Examples(2 inputs, 2 classes: 'failed', 'lost')

        Raises DataError for anything but a frame, a missing column, and a row without input or label.
        """
        from newcomer.data.io.table_examples import frame_examples  # circular import

        return frame_examples(frame, input, label)

    @classmethod
    def from_dataset(cls, rows: Any, *, input: str | None = None, label: str = "label") -> "Examples":
        """Rows of one split of a Hugging Face dataset, or of any sequence of mappings. Inputs are read when they are used.

        - `input`: column of the images or texts; by default the only image column, else the only text column.
        - `label`: column of the classes; the numbers of a `ClassLabel` feature become its names.

        >>> Examples.from_dataset([{"text": "my card", "label": 1}, {"text": "no money", "label": 0}]).labels
        ['1', '0']

        Raises DataError for a stream or several splits, a missing column, several columns that could be the input, and a row
        without label.
        """
        from newcomer.data.io.table_examples import dataset_examples  # circular import

        return dataset_examples(rows, input, label)


class Subset(Sequence[Input]):
    """Lazy subset of a sequence, in the order of `indices`."""

    def __init__(self, inputs: Sequence[Input], indices: Sequence[int]) -> None:
        self.inputs, self.indices = inputs, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]  # one rule for an index and a slice
        if isinstance(index, slice):
            return Subset(self.inputs, self.indices[index])
        return self.inputs[self.indices[index]]

    def __iter__(self) -> Iterator[Input]:
        return (self.inputs[i] for i in self.indices)


def require_examples(given: object, what: str) -> None:
    """Raises DataError unless these are `Examples`; `what` begins the message."""
    if not isinstance(given, Examples):
        raise DataError(
            f"{what}: of type {type(given).__name__}, where Examples(inputs, labels) were expected; for a folder or table: "
            "Examples.from_folder(path), Examples.from_table(path)"
        )
