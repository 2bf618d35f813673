"""Text classification data sets in CSV or parquet: one text column, one label column."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from newcomer.data.class_names import class_name
from newcomer.data.containers import is_missing
from newcomer.data.examples import Examples
from newcomer.data.io.tables import read_table, require_columns
from newcomer.data.io.train_test_split import Part, require_no_share, stratified
from newcomer.data.paths import locate
from newcomer.errors import DataError

BANKING77 = (
    "download train.csv and test.csv from https://github.com/PolyAI-LDN/task-specific-datasets/tree/master/banking_data "
    "and put both into data/banking77/"
)


def class_table(
    file: Path, text: str, label: str, left_out: list[str] | None = None, domain: str | None = None
) -> Examples:
    """Examples of a table, in order, with domains if the column `domain` is given. Rows are counted from 1, without the header.

    With a list `left_out`, rows without text, label or domain are skipped and reported there. Raises DataError for an unreadable
    file, a missing column, a row without text, label or domain, and if no row is left.
    """
    table, names = read_table(file), [text, label] if domain is None else [text, label, domain]
    require_columns(table.columns, names, str(file))
    columns = [_as_text(table[name], file, label=number > 0) for number, name in enumerate(names)]
    complete = set(range(len(table)))
    for column, values in zip(names, columns, strict=True):
        blank = [row for row, value in enumerate(values) if is_missing(value)]
        if blank and left_out is None:
            raise DataError(f"{file}: row {blank[0] + 1} is empty in column '{column}'; fill it or remove the row")
        if blank and left_out is not None:
            left_out.append(f"{file}: column '{column}' is empty in {row_ranges([row + 1 for row in blank])}")
        complete -= set(blank)
    if not complete:
        raise DataError(f"{file}: no row has both '{text}' and '{label}'; fill them")
    texts, labels, *domains = ([values[row] for row in sorted(complete)] for values in columns)
    return Examples(texts, labels, domains=domains[0] if domains else ())


def row_ranges(rows: Sequence[int]) -> str:
    """Compact list of row numbers.

    >>> row_ranges([3]), row_ranges([2, 4, 5, 6])
    ('row 3', 'rows 2, 4-6')
    """
    found: list[list[int]] = []
    for row in rows:
        if found and row == found[-1][-1] + 1:
            found[-1] = [found[-1][0], row]
        else:
            found.append([row])
    return ("row " if len(rows) == 1 else "rows ") + ", ".join("-".join(map(str, span)) for span in found)


def _as_text(column: pl.Series, file: Path, *, label: bool = False) -> list[str | None]:
    """Text or integer column as text; a label column may also hold whole floats and booleans."""
    kind = column.dtype
    if label and (kind == pl.Boolean or kind.is_float() or kind.is_decimal()) and _is_whole(column):
        return [_label(value, f"{file}: row {row}") for row, value in enumerate(column.to_list(), 1)]
    if not (kind.is_integer() or kind in (pl.String, pl.Categorical, pl.Enum, pl.Null)):
        raise DataError(f"{file}: column '{column.name}' holds {kind.base_type()}, not text")
    return column.cast(pl.String).to_list()


def _is_whole(column: pl.Series) -> bool:
    numbers = column.cast(pl.Float64).fill_nan(None).drop_nulls()
    return bool((numbers.round() == numbers).all())


def _label(value: object, where: str) -> str | None:
    if is_missing(value):
        return None
    try:
        return class_name(value)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None


def text_table(
    train: str,
    test: str | None = None,
    *,
    text: str = "text",
    label: str = "label",
    domain: str | None = None,
    test_share: Part | None = None,
    seed: int = 0,
) -> tuple[Examples, Examples]:
    """Training and test examples from two tables; `text`, `label` and `domain` name the columns, the last for `DomainIncremental`.

    Of a single table `test_share` of each class, in each domain (a fifth by default), drawn from the seed, is for testing. Raises
    DataError: see `class_table` and `stratified`.
    """
    get = f"give a CSV or parquet file with the columns '{text}' and '{label}'"
    first = class_table(locate(train, "a table of texts", get), text, label, domain=domain)
    if test is None:
        return stratified(first, test_share, seed, train)
    require_no_share(test_share, test)
    return first, class_table(locate(test, "a table of texts", get), text, label, domain=domain)


def banking77(path: str = "banking77") -> tuple[Examples, Examples]:
    """Banking77 (Casanueva et al. 2020): bank customers' questions and 77 intents, as its two CSV files."""
    root = locate(path, "Banking77", BANKING77)
    return class_table(root / "train.csv", "text", "category"), class_table(root / "test.csv", "text", "category")
