"""Item fields of requests and events that contradict the features with which their items were added."""

import warnings
from collections.abc import Iterator
from dataclasses import replace

import polars as pl
import torch

from newcomer.data.io.column_parsing import ROW, parse_column
from newcomer.data.io.log_reader import encode_column
from newcomer.data.schema import Field
from newcomer.errors import DataError, DataWarning
from newcomer.items.encoding.encoder import Encoder
from newcomer.items.serving.item_cache import ItemCache
from newcomer.items.serving.serialization import equal_values

ITEM, VALUE, COUNT = "item ", "value ", "count "


def item_fields_in(frame: pl.DataFrame, encoder: Encoder) -> bool:
    """Whether the table has item fields, which requests and events do not need."""
    return any(field.name in frame.columns for field in encoder.item_fields)


def warn_of_other_features(frame: pl.DataFrame, encoder: Encoder, known: ItemCache, where: str) -> None:
    """DataWarning for each item field with other values than the features of the known items, which are used.

    Missing values are not compared. The table has a column `ROW`.
    """
    for number, field in enumerate(encoder.item_fields):
        if field.name not in frame.columns:
            continue
        try:
            lines = list(_differing(frame, field, number, encoder, known, where))
        except DataError as error:
            lines = [f"{error}"]
        for line in lines:
            warnings.warn(f"{line}; the features that an item was added with are used", DataWarning, stacklevel=4)


def _differing(
    frame: pl.DataFrame, field: Field, number: int, encoder: Encoder, known: ItemCache, where: str
) -> Iterator[str]:
    schema = encoder.schema
    ids = parse_column(frame, Field(schema.item, "item"), where, schema.missing_values).alias(ITEM)
    values = parse_column(frame, replace(field, missing="mark"), where, schema.missing_values).alias(VALUE)
    present = values.is_not_nan() if field.is_numeric else values.is_not_null()
    rows = pl.DataFrame([ids, values, frame[ROW]]).filter(present & ids.is_in(list(known.numbers)))
    given = rows.group_by(ITEM, VALUE, maintain_order=True).agg(pl.len().alias(COUNT), pl.col(ROW).first())
    if not len(given):
        return
    encoded = torch.from_numpy(encoder.codings[field.name].encode(encode_column(given[VALUE], field)))
    at = torch.tensor([known.numbers[name] for name in given[ITEM]])
    stored = known.item_features[number].cpu()[at]
    other = given.filter(~pl.Series(equal_values(encoded, stored).numpy()))
    if len(other):
        yield (
            f"{where}: column '{field.name}': {other[COUNT].sum():,} of {len(frame):,} rows have another value than the item has, "
            f"such as that of item '{other[ITEM][0]}' in row {other[ROW][0] + 1}"
        )
