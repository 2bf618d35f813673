"""Tables of texts: CSV or parquet, one column with the text, one with the name of its class."""

from pathlib import Path

import polars as pl

from newcomer.data.examples import Examples
from newcomer.data.places import locate
from newcomer.data.tables import read_table, require_columns
from newcomer.errors import DataError

BANKING77 = (
    "download train.csv and test.csv from https://github.com/PolyAI-LDN/task-specific-datasets/tree/master/banking_data "
    "and put both into data/banking77/"
)


def class_table(file: Path, text: str, label: str) -> Examples:
    """The examples of one table, in its order.

    Raises DataError for a file that cannot be read, a missing column, and a row without text or class.
    """
    table = read_table(file)
    require_columns(table.columns, [text, label], str(file))
    for column in (text, label):
        kind = table[column].dtype
        if not (kind.is_integer() or kind in (pl.String, pl.Categorical, pl.Enum)):
            raise DataError(f"{file}: column '{column}' holds {kind.base_type()}, not text")
        blank = table[column].cast(pl.String).str.strip_chars().fill_null("") == ""
        if blank.any():
            raise DataError(
                f"{file}: row {blank.arg_true()[0] + 1} has nothing in column '{column}'; fill or remove it"
            )
    return Examples(table[text].cast(pl.String).to_list(), table[label].cast(pl.String).to_list())


def text_table(train: str, test: str, *, text: str = "text", label: str = "label") -> tuple[Examples, Examples]:
    """Training and test examples of two tables; `text` and `label` name the columns.

    Raises DataError: see `class_table`.
    """
    get = f"give a CSV or parquet file with the columns '{text}' and '{label}'"
    files = [locate(file, "a table of texts", get) for file in (train, test)]
    return class_table(files[0], text, label), class_table(files[1], text, label)


def banking77(path: str = "banking77") -> tuple[Examples, Examples]:
    """Banking77 (Casanueva et al. 2020): bank customers' questions and 77 intents, as its two CSV files."""
    root = locate(path, "Banking77", BANKING77)
    return class_table(root / "train.csv", "text", "category"), class_table(root / "test.csv", "text", "category")
