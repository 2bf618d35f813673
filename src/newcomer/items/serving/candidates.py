"""Scoring of many candidates for one user and context: known items, items by their features alone, unknown ids."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import polars as pl

from newcomer.data.canonical import canonical, plain_name
from newcomer.data.click_log import ClickLog, EntityTable
from newcomer.data.io.frames import as_series
from newcomer.data.io.log_reader import items_and_conflicts, log_from_frame
from newcomer.errors import DataError
from newcomer.items.encoding.encoder import Encoder, Values
from newcomer.items.encoding.unseen_values import Unseen, unseen_by_item, unseen_of_items
from newcomer.items.serving.item_cache import ItemCache
from newcomer.items.serving.scoring import SCORE_COLUMNS, score_requests
from newcomer.items.serving.service import ItemService

OnUnknown = Literal["error", "null", "prior"]
"""An unknown id is an error, has no score, or is scored as an item about which nothing is known."""

ROW = re.compile(r"^candidates: row (\d+)\b")
"""Beginning of a message about a candidate."""

ITEM = "item_id"
"""Column with the candidates' ids; null for candidates given by their features."""


def score_candidates(
    service: ItemService,
    candidates: Sequence[str | int | Mapping[str, Any]],
    request: Mapping[str, Any],
    on_unknown: OnUnknown = "error",
    uncertainty: bool = False,
) -> tuple[pl.DataFrame, Unseen]:
    """Scores of these candidates, with a column `ITEM` and those of `SCORE_COLUMNS`, in order; and counts of unseen values.

    A candidate is an item's id, or a mapping of item fields, scored as a new item without being added (with an id of a known item:
    as that item). `request`: the user, its fields and the context fields by column. `uncertainty`: also compute `logit_std`.
    Raises DataError for values that cannot be read, and with `on_unknown` 'error' for unknown ids.
    """
    schema = service.learner.schema
    names, features = _parse(candidates, schema.item)
    ids = dict.fromkeys(name for name in names if name is not None)
    known = service.refreshed(ids, max_age=service.max_age, for_scores=True)
    missing = [n for n, name in enumerate(names) if name not in known.numbers]
    anonymous = [n for n in missing if n in features]  # and all without an id, which have features
    unknown = [n for n in missing if n not in features]
    if unknown and on_unknown == "error":
        n = unknown[0]
        where = f"candidates: row {n + 1}"
        if isinstance(candidates[n], Mapping):
            where += f", column '{schema.item}'"
        raise DataError(f"{where}: {service.not_known(str(names[n]))}")
    if on_unknown == "prior":
        anonymous = sorted([*anonymous, *unknown])
    placeholders = {n: f"\0{n}" for n in anonymous}
    if placeholders:
        rows = {placeholders[n]: features.get(n) for n in anonymous}
        known = _with_new_items(service, known, rows, {placeholders[n]: n for n in anonymous})
    names_of_rows = [placeholders.get(n, str(name)) for n, name in enumerate(names)]
    right = [n for n, name in enumerate(names_of_rows) if name in known.numbers]
    answers, unseen = pl.DataFrame(schema=SCORE_COLUMNS), Unseen()
    if right:
        log = _log([names_of_rows[n] for n in right], request, service)
        answers, unseen = score_requests(service, known, log, {}, "candidates", uncertainty)
        answers, unseen = _with_unseen_features(service, known, placeholders, right, answers, unseen)
    if len(right) < len(names):
        position = dict(zip(right, range(len(right)), strict=True))
        gathered = pl.Series([position.get(n) for n in range(len(names))], dtype=pl.UInt32)  # null: a row of nulls
        answers = answers.select(pl.all().gather(gathered)).with_columns(model=pl.lit(service.model))
    return pl.DataFrame([pl.Series(ITEM, names, dtype=pl.String), *answers]), unseen


def _with_unseen_features(
    service: ItemService,
    known: ItemCache,
    placeholders: Mapping[int, str],
    rows: Sequence[int],
    answers: pl.DataFrame,
    unseen: Unseen,
) -> tuple[pl.DataFrame, Unseen]:
    """Answers of these rows, and counts, with the unseen values of the candidates that were given by their features."""
    numbers = [known.numbers[name] for name in placeholders.values()]
    if not numbers or not known.item_features:
        return answers, unseen
    encoder, features = service.learner.encoder, [values[numbers] for values in known.item_features]
    counts = dict(zip(placeholders, unseen_by_item(encoder, features).tolist(), strict=True))
    more = pl.Series([counts.get(n, 0) for n in rows], dtype=pl.Int64)
    return answers.with_columns(pl.col("unseen") + more), unseen + unseen_of_items(encoder, features)


def _parse(
    candidates: Sequence[str | int | Mapping[str, Any]], item: str
) -> tuple[list[str | None], dict[int, dict[str, Any]]]:
    """Canonical ids, None if a candidate has none; and the features of candidates that have some."""
    rows = {n: one for n, one in enumerate(candidates) if type(one) is not str and isinstance(one, Mapping)}
    given = [rows[n].get(item) if n in rows else candidate for n, candidate in enumerate(candidates)]
    names: list[str | None] = [plain_name(value) for value in given]
    if None in names:
        names = canonical(as_series(item, given, "candidates"), "candidates").to_list()
    features = {
        n: {key: value for key, value in candidate.items() if key != item}
        for n, candidate in rows.items()
        if set(candidate) - {item}
    }
    for n, name in enumerate(names):
        if name is None and n not in features:
            raise DataError(f"candidates: row {n + 1}, column '{item}' is empty; give an item's id, or its fields")
    return names, features


def _with_new_items(
    service: ItemService, known: ItemCache, rows: Mapping[str, Mapping[str, Any] | None], numbers: Mapping[str, int]
) -> ItemCache:
    """The cache with temporary items, of these fields or, where None, with all fields missing."""
    schema, encoder, device = service.learner.schema, service.learner.encoder, service.learner.device
    tables = []
    for part, fields in (
        ({name: row for name, row in rows.items() if row is not None}, schema.fields),
        (
            {name: {} for name, row in rows.items() if row is None},
            tuple(replace(field, missing="mark") for field in schema.fields),
        ),
    ):
        if part:
            tables.append(_item_table(part, replace(schema, fields=fields), numbers))
    for table in tables:
        features = [values.to(device) for values in _encoded(encoder, table, numbers)]
        state = service.learner.cold_state(features, len(table))
        known = known.with_new(table.ids, features, state, service.learner.network.precompute(state))
    return known


def _encoded(encoder: Encoder, table: EntityTable, numbers: Mapping[str, int]) -> Values:
    """The items' fields. Raises DataError, with its number, for a candidate with a value that cannot be encoded."""
    try:
        return encoder.items(table)
    except DataError:
        for n, name in enumerate(table.ids):
            try:
                encoder.items(table.take(np.array([n])))
            except DataError as error:
                raise DataError(f"candidates: row {numbers[name] + 1}, {error}") from None
        raise


def _item_table(rows: Mapping[str, Mapping[str, Any]], schema: Any, numbers: Mapping[str, int]) -> EntityTable:
    names = list(rows)
    columns = dict.fromkeys(key for row in rows.values() for key in row)
    unknown = next((key for key in columns if key not in {field.name for field in schema.of("item")}), None)
    if unknown is not None:
        name = next(name for name in names if unknown in rows[name])
        raise DataError(f"candidates: row {numbers[name] + 1}, column '{unknown}' is no field of an item; leave it out")
    required = [field.name for field in schema.of("item") if field.missing == "error"]
    for name, row in rows.items():
        if absent := [field for field in required if field not in row]:
            raise DataError(f"candidates: row {numbers[name] + 1}, column '{absent[0]}' is missing; give it")
    frame = pl.DataFrame(
        [
            pl.Series(schema.item, names),
            *(as_series(key, [row.get(key) for row in rows.values()], "candidates") for key in columns),
        ]
    )
    try:
        return items_and_conflicts(frame, schema, "candidates")[0]
    except DataError as error:
        raise DataError(
            ROW.sub(lambda row: f"candidates: row {numbers[names[int(row[1]) - 1]] + 1}", str(error))
        ) from None


def _log(ids: Sequence[str], request: Mapping[str, Any], service: ItemService) -> ClickLog:
    """One row a candidate: the request is read once."""
    schema = service.learner.schema
    one = service.reader.requests([{**request, schema.item: "?"}])
    if one is None:
        columns = [as_series(key, [value], "request") for key, value in request.items()]
        frame = pl.DataFrame([*columns, pl.Series(schema.item, ["?"])])
        one = log_from_frame(frame, schema, items=False, labels=False, where="request")
    distinct = {name: n for n, name in enumerate(sorted(set(ids)))}
    zeros = np.zeros(len(ids), dtype=np.int64)
    return replace(
        one.take(zeros),
        items=EntityTable(tuple(distinct), {}),
        item=np.array([distinct[name] for name in ids], dtype=np.int32),
        row=np.arange(len(ids)),
    )
