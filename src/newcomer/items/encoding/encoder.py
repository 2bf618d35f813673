"""From a log's values to the tensors that a network reads, by what was there when it learned."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from newcomer.data.click_log import Column, Log, Table
from newcomer.data.io.log_statistics import Counted, Survey
from newcomer.data.labels import Labels
from newcomer.data.running_stats import Spread
from newcomer.data.schema import NOBODY, Field, Schema
from newcomer.data.vocabulary import Scale, VectorScale, Vocabulary, coding_from_json
from newcomer.errors import DataError, DataWarning
from newcomer.items.encoding.text_encoder import Sentences
from newcomer.nn.ctr.field_embeddings import FieldSize, Names, Numbers
from newcomer.settings import Json
from newcomer.shapes import Float, Int, Tensor

Values = list[Tensor]
"""One tensor a field: Int[thing], Int[thing most], Float[thing] or Float[thing number]; see `nn.ctr.field_embeddings`."""

Coding = Vocabulary | Scale | VectorScale | Sentences


@dataclass(frozen=True)
class Clicks:
    """Encoded events, in the order of time where that matters; a user's fields are kept once a user."""

    item: Int[Tensor, " row"]
    """Number of the item among those the learner knows."""
    label: Float[Tensor, " row"]
    user: Int[Tensor, " row"]
    of_users: Values
    of_rows: Values

    def __len__(self) -> int:
        return len(self.item)

    def values(self, rows: Int[Tensor, " row"]) -> Values:
        """The user's and the context's fields of these rows."""
        user = self.user[rows]
        return [values[user] for values in self.of_users] + [values[rows] for values in self.of_rows]

    def by_row(self, rows: Int[Tensor, " row"] | None = None) -> Self:
        """These rows, all by default, with nothing kept once a user: each stands for itself."""
        rows = torch.arange(len(self), device=self.item.device) if rows is None else rows
        at = torch.arange(len(rows), device=rows.device)
        return replace(
            self, item=self.item[rows], label=self.label[rows], user=at, of_users=[], of_rows=self.values(rows)
        )

    def tensors(self) -> dict[str, Tensor]:
        """Events that stand for themselves, by name: what a store keeps."""
        return {"item": self.item, "label": self.label} | {f"row.{n}": values for n, values in enumerate(self.of_rows)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Self:
        item = tensors["item"]
        fields = [tensors[f"row.{n}"] for n in range(sum(key.startswith("row.") for key in tensors))]
        return cls(item, tensors["label"], torch.arange(len(item), device=item.device), [], fields)

    def to(self, device: torch.device) -> Self:
        return replace(
            self,
            item=self.item.to(device),
            label=self.label.to(device),
            user=self.user.to(device),
            of_users=[values.to(device) for values in self.of_users],
            of_rows=[values.to(device) for values in self.of_rows],
        )


class Encoder:
    """The codings of all fields but the item's id: fitted once, on the rows that may be learned from, and never changed."""

    def __init__(
        self,
        schema: Schema,
        codings: Mapping[str, Coding],
        tastes: bool = False,
        labels: Labels | None = None,
        clock: str | None = None,
    ) -> None:
        self.schema, self.codings = schema, dict(codings)
        self.labels = labels
        """The labels of training as they were written, where a threshold makes clicks of them and it is known."""
        self.clock = clock
        """What all times of training were counted in; None where that differs or is not known. See `data.clocks`."""
        self.tastes = tastes
        """Whether rows have one field more: what their user did among the old items; see `nn.ctr.computed_embeddings.Tastes`."""

    @classmethod
    def fit(cls, rows: Log | Survey, tastes: bool = False) -> Self:
        """What occurs in these rows: counted once an item, once a user, and row by row for context fields."""
        survey = rows if isinstance(rows, Survey) else Survey(rows.schema).add(rows)
        schema, items, users = survey.schema, survey.items, survey.users
        codings: dict[str, Coding] = {schema.user: Vocabulary(schema.user, tuple(dict.fromkeys(users.ids)))}
        codings |= {field.name: _fit(field, items.columns[field.name]) for field in schema.of("item")}
        codings |= {field.name: _fit(field, users.columns[field.name]) for field in schema.of("user")}
        codings |= {field.name: _fit_seen(field, survey.context[field.name]) for field in schema.of("context")}
        return cls(schema, codings, tastes, survey.labels, min(survey.clocks) if len(survey.clocks) == 1 else None)

    def item_sizes(self) -> list[FieldSize]:
        """What a network embeds for each field of an item: so many values, or so many numbers."""
        return [_size(self.codings[field.name]) for field in self.item_fields]

    def row_sizes(self) -> list[FieldSize]:
        """The same for the fields of an event."""
        sizes = [_size(self.codings[field.name]) for field in self.row_fields]
        return [*sizes, sizes[0]] if self.tastes else sizes  # a vector each user

    @property
    def users(self) -> int:
        """How many values of the user's id are known, those for none and for any other included."""
        size = _size(self.codings[self.schema.user])
        assert isinstance(size, Names)  # an id is a name
        return size.count

    @property
    def item_fields(self) -> tuple[Field, ...]:
        """The fields of an item, its id left out."""
        return self.schema.of("item")

    @property
    def row_fields(self) -> tuple[Field, ...]:
        """The fields of an event: the user's, the id first, then the context's."""
        return (Field(self.schema.user, "user"), *self.schema.of("user"), *self.schema.of("context"))

    def items(self, table: Table) -> Values:
        return [self._tensor(field.name, table.columns[field.name]) for field in self.item_fields]

    def clicks(
        self, log: Log, item: NDArray[np.integer[Any]], deed: Callable[[Tensor, Tensor], Tensor] | None = None
    ) -> Clicks:
        """The log's events, `item` numbering their items as the learner does.

        `deed`, of items and labels: which deed of its user each row is, so that his tastes leave it out; by default none is one.
        """
        columns = {self.schema.user: self._users(log.users), **log.users.columns}
        user_fields = [field for field in self.row_fields if field.role == "user"]
        clicks = Clicks(
            item=torch.from_numpy(item.astype(np.int64)),
            label=torch.from_numpy(log.label.copy()),
            user=torch.from_numpy(log.user.astype(np.int64)),
            of_users=[self._tensor(field.name, columns[field.name]) for field in user_fields],
            of_rows=[self._tensor(field.name, log.context[field.name]) for field in self.schema.of("context")],
        )
        if self.tastes:
            codes = clicks.of_users[0][clicks.user]
            clicks.of_rows.append(codes if deed is None else codes + self.users * (1 + deed(clicks.item, clicks.label)))
        return clicks

    def require_labels(self, log: Log, where: str = "table") -> None:
        """Raises DataError for events whose labels are of another kind than those of training, such as 0 and 1 for stars.

        DataWarning: where those of many items and users all stay far below the highest of training.
        """
        if log.labels is None or self.schema.clicked_from is None:
            return
        threshold = self.schema.clicked_from
        training = self.labels or Labels.unknown(threshold)
        if why := training.unlike(log.labels):
            raise self._of_another_kind(why, where)
        users = {log.users.ids[user] for user in np.unique(log.user)}
        if said := training.beyond(log.labels, min(len(np.unique(log.item)), len(users))):
            warnings.warn(
                f"{where}: labels '{self.schema.label}' {said}; clicks are labels from {threshold:g} on: see that they are of the "
                "same scale as in training",
                DataWarning,
                stacklevel=3,
            )

    def require_no_run(self, count: int, before: int, where: str = "table") -> None:
        """Raises DataError for labels from 0 to 1 that come one a call, where those of training were of another scale."""
        training = self.labels or Labels.unknown(self.schema.clicked_from or 0)
        if why := training.unlike_run(count, before):
            raise self._of_another_kind(why, where)

    def only_unit(self, log: Log) -> bool | None:
        """Whether all labels are from 0 to 1; None where those of training were so too."""
        training = self.labels or Labels.unknown(self.schema.clicked_from or 0)
        if log.labels is None or not training.surprise(1):
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
    def from_json(cls, schema: Schema, table: Sequence[Mapping[str, Json]], tastes: bool = False) -> Self:
        labels = [Labels.from_json(part["labels"]) for part in table if "labels" in part]
        clock = next((str(part["clock"]) for part in table if "clock" in part), None)
        codings = {coding["field"]: _coding(coding) for coding in table if "field" in coding}
        return cls(schema, codings, tastes, labels[0] if labels else None, clock)

    def _users(self, users: Table) -> Column:
        """The ids of users. Nobody's is no value, unless it was there when the model learned: then it is a user like others."""
        coding = self.codings[self.schema.user]
        known = isinstance(coding, Vocabulary) and NOBODY in coding.names
        return Column(
            users.ids,
            np.array([-1 if id == NOBODY and not known else n for n, id in enumerate(users.ids)], dtype=np.int64),
        )

    def _tensor(self, name: str, column: Column) -> Tensor:
        return torch.from_numpy(self.codings[name].encode(column))


def deeds(item: Int[Tensor, " row"], label: Float[Tensor, " row"]) -> Int[Tensor, " row"]:
    """Numbers of what was done: item by item, first not clicked, then clicked."""
    return 2 * item + label.long()


def _fit_seen(field: Field, seen: Spread | Counted) -> Coding:
    if isinstance(seen, Counted):
        return _fit(field, seen.column, seen.times)
    return Scale.of(field.name, seen) if field.is_numeric else VectorScale.of(field.name, seen)


def _fit(field: Field, column: Column, times: NDArray[np.int64] | None = None) -> Coding:
    if field.is_numeric:
        return Scale.fit(field.name, column)
    if field.kind == "vector":
        return VectorScale.fit(field.name, column)
    if field.encoder is not None:
        return Sentences.fit(field.name, column, field.encoder, times)
    return Vocabulary.fit(field.name, column, field.unseen, field.min_count, times)


def _size(coding: Coding) -> FieldSize:
    match coding:
        case Vocabulary():
            return Names(len(coding))
        case Scale():
            return Numbers()
        case _:
            return Numbers(len(coding))


def _coding(table: Mapping[str, Json]) -> Coding:
    return Sentences.from_json(table) if "encoder" in table else coding_from_json(table)


def joined(parts: Sequence[Values]) -> Values:
    """The things of one part after those of another; fields of several values filled up to the most that any has."""
    return [_joined(list(values)) for values in zip(*parts, strict=True)]


def joined_clicks(parts: Sequence[Clicks]) -> Clicks:
    """Events that stand for themselves, one part after the other."""
    item, label = torch.cat([part.item for part in parts]), torch.cat([part.label for part in parts])
    return Clicks(
        item, label, torch.arange(len(item), device=item.device), [], joined([part.of_rows for part in parts])
    )


def _joined(values: list[Tensor]) -> Tensor:
    if values[0].ndim == 1:
        return torch.cat(values)
    most = max(value.shape[1] for value in values)
    return torch.cat([torch.nn.functional.pad(value, (0, most - value.shape[1])) for value in values])
