"""Examples from the columns of a frame, or from the rows of a Hugging Face dataset."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL.Image import Image

from newcomer.data.containers import as_list, is_missing, to_python
from newcomer.data.examples import Examples, Input, Subset
from newcomer.errors import DataError, nearest

ONE_SPLIT = "give one split, such as dataset['train']"


class DatasetInputs(Sequence[Any]):
    """One column of rows, read when it is indexed. An encoded image ({"bytes", "path"}) becomes its bytes or its path."""

    def __init__(self, rows: Any, column: str) -> None:
        self.rows, self.column = rows, column

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]  # one rule for an index and a slice
        if isinstance(index, slice):
            return Subset(self, range(len(self))[index])
        row = self.rows[range(len(self))[index]]
        if not isinstance(row, Mapping) or self.column not in row:
            raise DataError(f"rows[{index}]: no column '{self.column}'; every row needs one")
        return _input(row[self.column])

    def __iter__(self) -> Iterator[Input]:
        return (self[index] for index in range(len(self)))


def frame_examples(frame: Any, column: str, label: str) -> Examples:
    """Examples of a polars or pandas frame: see `Examples.from_frame`."""
    if hasattr(frame, "collect_schema") and hasattr(frame, "collect"):  # a lazy frame of polars
        frame = frame.collect()
    if not hasattr(frame, "columns") or not hasattr(frame, "to_dict"):
        raise DataError(f"frame: of type {type(frame).__name__}, where a polars or pandas frame was expected")
    for name in (column, label):
        _require_column(name, list(frame.columns), "frame")
    return Examples([_input(value) for value in as_list(frame[column], column)], frame[label])


def dataset_examples(rows: Any, column: str | None, label: str) -> Examples:
    """Examples of indexable rows: see `Examples.from_dataset`."""
    if isinstance(rows, (Mapping, str)) or not (hasattr(rows, "__getitem__") and hasattr(rows, "__len__")):
        raise DataError(f"rows: a {type(rows).__name__} is not a sequence of rows; {ONE_SPLIT}, without streaming")
    features = getattr(rows, "features", None) or {}
    columns = getattr(rows, "column_names", None)
    if columns is None:
        if not len(rows) or not isinstance(rows[0], Mapping):
            raise DataError("rows: empty, or not of mappings from column to value; give at least one row")
        columns = list(rows[0])
    for name in (label, *([column] if column is not None else [])):
        _require_column(name, list(columns), "rows")
    if column is None:
        column = _input_column(rows, [name for name in columns if name != label], features)
    # a dataset's column is read without decoding the images beside it
    labels = list(rows[label]) if hasattr(rows, "column_names") else [row.get(label) for row in rows]
    if names := getattr(features.get(label), "names", None):
        labels = [_class_of(value, names, index) for index, value in enumerate(labels)]
    return Examples(DatasetInputs(rows, column), labels)


def _input(value: Any) -> Any:
    if isinstance(value, Mapping) and value.keys() & {"bytes", "path"}:
        content, path = value.get("bytes"), value.get("path")
        return content if content is not None else None if path is None else Path(path)
    return value


def _input_column(rows: Any, columns: Sequence[str], features: Mapping[str, Any]) -> str:
    """The only image column, else the only text column; by the dataset's features, or by the first row."""
    if features:
        images = [name for name in columns if type(features.get(name)).__name__ == "Image"]
        texts = [name for name in columns if getattr(features.get(name), "dtype", "") in ("string", "large_string")]
    else:
        first = rows[0] if len(rows) else {}
        images = [name for name in columns if isinstance(_input(first.get(name)), (Image, bytes, Path))]
        texts = [name for name in columns if isinstance(first.get(name), str)]
    for candidates in (images, texts):
        if len(candidates) == 1:
            return candidates[0]
        if candidates:
            raise DataError(f"rows: columns {', '.join(candidates)} could be the input; give input='{candidates[0]}'")
    raise DataError(f"rows: no column of images or texts among {', '.join(columns) or 'none'}; give input='…'")


def _class_of(value: Any, names: Sequence[str], index: int) -> str:
    """Name of a class number."""
    number = to_python(value)
    if is_missing(number):
        raise DataError(f"rows[{index}]: no label; remove the row")
    if not isinstance(number, int) or not 0 <= number < len(names):
        raise DataError(f"rows[{index}]: label {number!r}, where a number from 0 to {len(names) - 1} was expected")
    return names[number]


def _require_column(name: str, columns: Sequence[Any], where: str) -> None:
    if name not in columns:
        raise DataError(f"{where}: no column '{name}'; {nearest(name, map(str, columns))}")
