"""Encoder of log values as tensors: vocabularies and scales, fitted on the training data."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from newcomer.data.click_log import ClickLog, Column, EntityTable
from newcomer.data.io.log_statistics import LogStatistics, ValueCounts
from newcomer.data.labels import LabelStatistics
from newcomer.data.running_stats import RunningStats
from newcomer.data.schema import NOBODY, Field, Schema
from newcomer.data.vocabulary import UNSEEN, HashBuckets, StandardScaler, VectorScaler, Vocabulary, coding_from_json
from newcomer.data.weights import require_weights
from newcomer.errors import DataError, DataWarning
from newcomer.items.encoding.text_encoder import TextEncoder
from newcomer.nn.ctr.field_embeddings import CategoricalSize, FieldSize, NumericSize
from newcomer.settings import Json
from newcomer.shapes import Float, Int, Tensor

Values = list[Tensor]
"""One tensor a field: Int[thing], Int[thing most], Float[thing] or Float[thing number]; see `nn.ctr.field_embeddings`."""

Coding = Vocabulary | HashBuckets | StandardScaler | VectorScaler | TextEncoder


SCALE_FROM = 10
"""Rows from which on a table has another scale of labels if most of them are beyond those of training."""


@dataclass(frozen=True)
class Clicks:
    """Encoded events, sorted by time where that matters; user fields are stored once per user."""

    item: Int[Tensor, " row"]
    """Number of the item among those the learner knows."""
    label: Float[Tensor, " row"]
    user: Int[Tensor, " row"]
    of_users: Values
    of_rows: Values
    weight: Float[Tensor, " row"] | None = None
    """Number of equal events that each one stands for; None: 1 each. See `data.weights`."""

    def __len__(self) -> int:
        return len(self.item)

    def values(self, rows: Int[Tensor, " row"]) -> Values:
        """User and context fields of these rows."""
        user = self.user.index_select(0, rows)  # faster than by brackets
        return [
            *(values.index_select(0, user) for values in self.of_users),
            *(values.index_select(0, rows) for values in self.of_rows),
        ]

    def weights(self, rows: Int[Tensor, "*row"]) -> Float[Tensor, "*row"]:
        """Weights of these rows."""
        return self.label.new_ones(rows.shape) if self.weight is None else self.weight[rows]

    def by_row(self, rows: Int[Tensor, " row"] | None = None) -> Self:
        """These rows, all by default, with user fields repeated per row."""
        rows = torch.arange(len(self), device=self.item.device) if rows is None else rows
        at = torch.arange(len(rows), device=rows.device)
        return replace(
            self,
            item=self.item[rows],
            label=self.label[rows],
            user=at,
            of_users=[],
            of_rows=self.values(rows),
            weight=None if self.weight is None else self.weight[rows],
        )

    def blank(self) -> Self:
        """One row of the first item and of no user, without values."""
        item, *values = (v.new_zeros(1, *v.shape[1:]) for v in (self.item, self.label, *self.of_users, *self.of_rows))
        users = len(self.of_users)
        return replace(
            self,
            item=item,
            label=values[0],
            user=item,
            of_users=values[1 : 1 + users],
            of_rows=values[1 + users :],
            weight=None,
        )

    def tensors(self) -> dict[str, Tensor]:
        """Events with user fields per row, by name, for a store."""
        weight = {} if self.weight is None else {"weight": self.weight}
        fields = {f"row.{n}": values for n, values in enumerate(self.of_rows)}
        return {"item": self.item, "label": self.label} | weight | fields

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Self:
        item = tensors["item"]
        fields = [tensors[f"row.{n}"] for n in range(sum(key.startswith("row.") for key in tensors))]
        users = torch.arange(len(item), device=item.device)
        return cls(item, tensors["label"], users, [], fields, tensors.get("weight"))

    def to(self, device: torch.device) -> Self:
        return replace(
            self,
            item=self.item.to(device),
            label=self.label.to(device),
            user=self.user.to(device),
            of_users=[values.to(device) for values in self.of_users],
            of_rows=[values.to(device) for values in self.of_rows],
            weight=None if self.weight is None else self.weight.to(device),
        )


class Encoder:
    """Encodings of all fields but the item's id, fitted once on the training rows."""

    def __init__(
        self,
        schema: Schema,
        codings: Mapping[str, Coding],
        user_history: bool = False,
        labels: LabelStatistics | None = None,
        clock: str | None = None,
    ) -> None:
        self.schema, self.codings = schema, dict(codings)
        self.labels = labels
        """The labels of training as they were written, where a threshold makes clicks of them and it is known."""
        self.clock = clock
        """What all times of training were counted in; None where that differs or is not known. See `data.time_units`."""
        self.user_history = user_history
        """Whether events have a user-history field; see `nn.ctr.computed_embeddings.UserHistoryEmbedding`."""

    @classmethod
    def fit(
        cls,
        rows: ClickLog | LogStatistics,
        user_history: bool = False,
        user_min_count: int = 1,
        user_buckets: int | None = None,
    ) -> Self:
        """What occurs in these rows: counted once an item, once a user, and row by row for context fields and users' ids.

        `user_min_count`, `user_buckets`: see `items.configuration.Pretraining`.
        """
        survey = rows if isinstance(rows, LogStatistics) else LogStatistics(rows.schema).add(rows)
        schema, items, users = survey.schema, survey.items, survey.users
        ids = survey.users_with(user_min_count) if user_min_count > 1 else dict.fromkeys(users.ids)
        coding = (
            Vocabulary(schema.user, tuple(ids))
            if user_buckets is None
            else HashBuckets.fit(schema.user, ids, user_buckets)
        )
        codings: dict[str, Coding] = {schema.user: coding}
        codings |= {field.name: _fit(field, items.columns[field.name]) for field in schema.of("item")}
        codings |= {field.name: _fit(field, users.columns[field.name]) for field in schema.of("user")}
        codings |= {field.name: _fit_context(field, survey.context[field.name]) for field in schema.of("context")}
        return cls(
            schema,
            codings,
            user_history,
            survey.labels,
            None if survey.times is None else survey.times.unit(schema.time),
        )

    def item_sizes(self) -> list[FieldSize]:
        """Size of each item field: number of categories, or dimension."""
        return [_size(self.codings[field.name]) for field in self.item_fields]

    def row_sizes(self) -> list[FieldSize]:
        """Size of each user and context field."""
        sizes = [_size(self.codings[field.name]) for field in self.row_fields]
        return [*sizes, sizes[0]] if self.user_history else sizes  # a vector each user

    @property
    def users(self) -> int:
        """Number of user codes, 'missing' and 'unseen' included."""
        size = _size(self.codings[self.schema.user])
        assert isinstance(size, CategoricalSize)  # an id is a name
        return size.count

    @cached_property
    def item_fields(self) -> tuple[Field, ...]:
        """The fields of an item, without its id."""
        return self.schema.of("item")

    @cached_property
    def row_fields(self) -> tuple[Field, ...]:
        """The fields of an event: user id, user fields, context fields."""
        return (Field(self.schema.user, "user"), *self.schema.of("user"), *self.schema.of("context"))

    def items(self, table: EntityTable) -> Values:
        """Encode the items' fields. Raises DataError, which names no row, for a value that cannot be encoded."""
        return [self._tensor(field.name, table.columns[field.name]) for field in self.item_fields]

    def clicks(
        self,
        log: ClickLog,
        item: NDArray[np.integer[Any]],
        event_code: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> Clicks:
        """Encode the log's events; `item`: each event's item row in the learner.

        `event_code` maps items and labels to event codes, so that an old item's event is left out of its user's history; None: no
        event is in the history.
        """
        columns = {self.schema.user: self._users(log.users), **log.users.columns}
        user_fields = [field for field in self.row_fields if field.role == "user"]
        clicks = Clicks(
            item=torch.from_numpy(item.astype(np.int64)),
            label=torch.from_numpy(log.label.copy()),
            user=torch.from_numpy(log.user.astype(np.int64)),
            of_users=[self._tensor(field.name, columns[field.name]) for field in user_fields],
            of_rows=[self._tensor(field.name, log.context[field.name]) for field in self.schema.of("context")],
            weight=None if log.weight is None else torch.from_numpy(log.weight).float(),
        )
        if self.user_history:
            codes = clicks.of_users[0][clicks.user]
            if event_code is not None:  # what unknown users have in common has no history
                events = self.users * (1 + event_code(clicks.item, clicks.label))
                codes = codes + torch.where(codes == UNSEEN, 0, events)
            clicks.of_rows.append(codes)
        return clicks

    def require_labels(self, log: ClickLog, where: str = "table") -> None:
        """Raises DataError for events whose labels are of another kind than those of training, such as 0 and 1 for stars, and for
        events without the weights of the schema.

        DataWarning: where those of many items and users all stay far below the highest of training.
        """
        require_weights(log, self.schema, where)
        if log.labels is None or self.schema.clicked_from is None:
            return
        threshold = self.schema.clicked_from
        training = self.labels or LabelStatistics.unknown(threshold)
        if why := training.mismatch(log.labels):
            raise self._of_another_kind(why, where)
        users = {log.users.ids[user] for user in np.unique(log.user)}
        if reason := training.range_mismatch(log.labels, min(len(np.unique(log.item)), len(users))):
            warnings.warn(
                f"{where}: labels '{self.schema.label}' {reason}; clicks are labels from {threshold:g} on: see that they are of "
                "the same scale as in training",
                DataWarning,
                stacklevel=3,
            )

    def require_values(self, log: ClickLog, where: str) -> None:
        """Raises DataError for values of users and context that cannot be encoded, and for labels beyond those of training.

        The message names no row; it begins with `where` if the scale of the labels is another one.
        """
        self._require_codes(self.row_fields[1:], {**log.users.columns, **log.context})
        if log.labels is not None and self.schema.clicked_from is not None:
            training = self.labels or LabelStatistics.unknown(self.schema.clicked_from)
            outside = training.outside(log.labels)
            if outside is None:
                return
            if len(log) >= SCALE_FROM and training.share_outside(log.labels) > 0.5:
                raise self._of_another_kind(str(training.mismatch(log.labels)), where)
            raise DataError(
                f"label '{self.schema.label}' is {outside:g}, but those of training were from {training.lowest:g} to "
                f"{training.highest:g}; clicks are labels from {self.schema.clicked_from:g} on: write numbers of the same scale"
            )

    def require_item_values(self, table: EntityTable) -> None:
        """Raises DataError, which names no row, for values of items that cannot be encoded."""
        self._require_codes(self.item_fields, table.columns)

    def _require_codes(self, fields: Sequence[Field], columns: Mapping[str, Column]) -> None:
        for field in fields:
            if _may_refuse(self.codings[field.name]):
                self._tensor(field.name, columns[field.name])

    def require_no_run(self, count: int, before: int, where: str = "table") -> None:
        """Raises DataError for labels from 0 to 1 that come one a call, where those of training were of another scale."""
        training = self.labels or LabelStatistics.unknown(self.schema.clicked_from or 0)
        if why := training.run_mismatch(count, before):
            raise self._of_another_kind(why, where)

    def only_unit(self, log: ClickLog) -> bool | None:
        """Whether all labels are from 0 to 1; None where those of training were so too."""
        training = self.labels or LabelStatistics.unknown(self.schema.clicked_from or 0)
        if log.labels is None or not training.negative_log_probability(1):
            return None
        return log.labels.unit == log.labels.count

    def _of_another_kind(self, why: str, where: str) -> DataError:
        return DataError(
            f"{where}: labels '{self.schema.label}' {why}; clicks are labels from {self.schema.clicked_from:g} on: "
            "write numbers of the same scale as in training"
        )

    def to_json(self) -> list[Json]:
        labels = [] if self.labels is None else [{"labels": self.labels.to_json()}]
        clock = [] if self.clock is None else [{"clock": self.clock}]
        return [coding.to_json() for coding in self.codings.values()] + labels + clock

    @classmethod
    def from_json(cls, schema: Schema, table: Sequence[Mapping[str, Json]], user_history: bool = False) -> Self:
        labels = [LabelStatistics.from_json(part["labels"]) for part in table if "labels" in part]
        clock = next((str(part["clock"]) for part in table if "clock" in part), None)
        codings = {coding["field"]: _coding(coding) for coding in table if "field" in coding}
        return cls(schema, codings, user_history, labels[0] if labels else None, clock)

    def _users(self, users: EntityTable) -> Column:
        """The ids of users. Nobody's is no value, unless it was there when the model learned: then it is a user like others."""
        coding = self.codings[self.schema.user]
        known = isinstance(coding, HashBuckets) or (isinstance(coding, Vocabulary) and NOBODY in coding)
        return Column(
            users.ids,
            np.array([-1 if id == NOBODY and not known else n for n, id in enumerate(users.ids)], dtype=np.int64),
        )

    def _tensor(self, name: str, column: Column) -> Tensor:
        return torch.from_numpy(self.codings[name].encode(column))


def event_codes(item: Int[Tensor, " row"], label: Float[Tensor, " row"]) -> Int[Tensor, " row"]:
    """Codes of (item, label): 2 · item + label."""
    return 2 * item + label.long()


def _fit_context(field: Field, statistics: RunningStats | ValueCounts) -> Coding:
    if isinstance(statistics, ValueCounts):
        return _fit(field, statistics.column, statistics.counts)
    return StandardScaler.of(field.name, statistics) if field.is_numeric else VectorScaler.of(field.name, statistics)


def _fit(field: Field, column: Column, times: NDArray[np.int64] | None = None) -> Coding:
    if field.is_numeric:
        return StandardScaler.fit(field.name, column)
    if field.kind == "vector":
        return VectorScaler.fit(field.name, column)
    if field.encoder is not None:
        return TextEncoder.fit(field.name, column, field.encoder, times)
    return Vocabulary.fit(field.name, column, field.unseen, field.min_count, times)


def _may_refuse(coding: Coding) -> bool:
    """Whether there are values of this field that cannot be encoded."""
    return isinstance(coding, VectorScaler) or (isinstance(coding, Vocabulary) and coding.unseen == "error")


def _size(coding: Coding) -> FieldSize:
    match coding:
        case Vocabulary() | HashBuckets():
            return CategoricalSize(len(coding))
        case StandardScaler():
            return NumericSize()
        case _:
            return NumericSize(len(coding))


def _coding(table: Mapping[str, Json]) -> Coding:
    return TextEncoder.from_json(table) if "encoder" in table else coding_from_json(table)


def concat_values(parts: Sequence[Values]) -> Values:
    """Concatenate encoded fields; multi-valued fields are padded to the longest."""
    return [_concat(list(values)) for values in zip(*parts, strict=True)]


def concat_clicks(parts: Sequence[Clicks]) -> Clicks:
    """Concatenate events that have their user fields per row."""
    item, label = torch.cat([part.item for part in parts]), torch.cat([part.label for part in parts])
    fields = concat_values([part.of_rows for part in parts])
    weight = None
    if any(part.weight is not None for part in parts):
        weight = torch.cat([torch.ones_like(part.label) if part.weight is None else part.weight for part in parts])
    return Clicks(item, label, torch.arange(len(item), device=item.device), [], fields, weight)


def _concat(values: list[Tensor]) -> Tensor:
    if values[0].ndim == 1:
        return torch.cat(values)
    widest = max(value.shape[1] for value in values)
    return torch.cat([torch.nn.functional.pad(value, (0, widest - value.shape[1])) for value in values])
