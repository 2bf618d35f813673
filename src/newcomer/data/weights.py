"""Frequency weights of a click log: a labelled row of weight w counts as w equal rows.

They enter likelihoods, losses and metrics. Numbers of events, such as those of a warm-up's window or at which probabilities are
calibrated, count rows. There is no weight 0: a row that counts nothing is left out of the log.
"""

import polars as pl

from newcomer.data.click_log import ClickLog
from newcomer.data.io.column_parsing import parse_column, row_number
from newcomer.data.schema import Field, Schema
from newcomer.errors import DataError

LEAST, GREATEST = 1e-6, 1e4
"""Bounds of a weight: those up to which MAP estimates converge (`nn.optim.map_logistic`)."""


def parse_weights(frame: pl.DataFrame, schema: Schema, where: str) -> pl.Series:
    """The weight column as numbers. Raises DataError, with file and row, for a missing one, and one out of bounds."""
    assert schema.weight is not None
    field = Field(schema.weight, "context", "numeric")
    found = parse_column(frame, field, where, schema.missing_values, "leave the row out")
    wrong = ~found.is_between(LEAST, GREATEST)
    if wrong.any():
        at = int(wrong.arg_true()[0])
        raise DataError(
            f"{where}: row {row_number(frame, wrong)}, weight '{schema.weight}' is {found[at]:g}; give how many equal rows it "
            f"stands for, from {LEAST:g} to {GREATEST:g}, and leave rows out that count nothing"
        )
    return found


def require_weights(log: ClickLog, schema: Schema, where: str = "table") -> None:
    """Raises DataError for labelled events without the weights that this schema names: they were read under another one."""
    if schema.weight is not None and log.weight is None:
        raise DataError(
            f"{where}: the events have no weights '{schema.weight}'; read them with the schema of the model"
        )
