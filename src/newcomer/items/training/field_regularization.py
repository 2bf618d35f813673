"""Regularization of field embeddings in pre-training: kernel smoothing, field dropout, user history; folded into tables after."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from newcomer.data.schema import Field, Schema
from newcomer.data.vocabulary import Vocabulary
from newcomer.errors import LearnerError, SettingError, nearest
from newcomer.items.encoding.encoder import Clicks, Encoder
from newcomer.items.networks.item_network import ItemNetwork
from newcomer.items.training.training_data import TrainingData
from newcomer.nn.ctr.computed_embeddings import SmoothedEmbedding, UserHistoryEmbedding
from newcomer.nn.ctr.field_embeddings import CategoricalSize, FieldEmbeddings, FieldSize
from newcomer.shapes import Int, Tensor
from newcomer.training.settings import Rate, Share

USER_HISTORY = "user_history"
"""Name of the field made of a user's events on old items."""


@dataclass(frozen=True)
class FieldRegularization:
    """Options of pre-training that change how fields are embedded.

    `smoothing_bandwidth` (field → bandwidth): kernel-smooths the embeddings of ordinal categories such as years: a value's vector
    is the mean over all values seen in pre-training, with weights exp(−(difference / bandwidth)² / 2).

    `user_history`: adds a field, the user's events on old items (clicked, shown but not clicked). An old item's own row is left
    out. Users who share the vector of unknown ones have no history.

    `field_dropout` (item field → rate): share of rows in pre-training without that field.
    """

    smoothing_bandwidth: Mapping[str, Rate] = field(default_factory=dict)
    user_history: bool = False
    field_dropout: Mapping[str, Share] = field(default_factory=dict)

    def validate(self, schema: Schema) -> None:
        """Raises SettingError for a field that does not exist or has the wrong kind."""
        for name in self.smoothing_bandwidth:
            known = {node.name: node for node in schema.fields if node.kind == "categorical"}
            if name not in known:
                raise SettingError(
                    f"smoothing_bandwidth names '{name}', which is no categorical field; {nearest(name, known)}"
                )
        for name in self.field_dropout:
            item_fields = [node.name for node in schema.of("item")]
            if name not in item_fields:
                raise SettingError(
                    f"field_dropout names '{name}', which is no field of items; {nearest(name, item_fields)}"
                )
        if self.user_history and USER_HISTORY in [node.name for node in schema.nodes]:
            raise SettingError(
                f"user_history = true makes a field '{USER_HISTORY}', which the log has already; rename that column"
            )

    def nodes(self, schema: Schema) -> tuple[Field, ...]:
        """The interacting fields, in order."""
        return (*schema.nodes, *([Field(USER_HISTORY, "user")] if self.user_history else []))

    def field_dropout_rates(self, schema: Schema) -> list[float]:
        """Dropout rate of each item field."""
        return [self.field_dropout.get(node.name, 0.0) for node in schema.of("item")]

    def sharded(self, sizes: Sequence[FieldSize], fields: Sequence[Field], least: int) -> list[FieldSize]:
        """The sizes, tables of at least so many rows sharded; those that are computed, as `user_history` at the end, stay whole."""
        plain = [field.name not in self.smoothing_bandwidth for field in fields] + [False] * (len(sizes) - len(fields))
        return [
            replace(size, is_sharded=True)
            if is_plain and isinstance(size, CategoricalSize) and size.count >= least
            else size
            for size, is_plain in zip(sizes, plain, strict=True)
        ]

    def attach(self, network: ItemNetwork, encoder: Encoder, old: TrainingData) -> None:
        """Replace embedding tables by computed ones, until they are folded."""
        for fields, tables in ((encoder.item_fields, network.item_fields), (encoder.row_fields, network.row_fields)):
            for index, one in enumerate(fields):
                if one.name in self.smoothing_bandwidth:
                    coding = encoder.codings[one.name]
                    assert isinstance(coding, Vocabulary)  # as every categorical field has
                    _smooth(tables, index, coding, self.smoothing_bandwidth[one.name])
        if self.user_history:
            event_counts = _event_counts(old.clicks_by_part(), users=encoder.users, event_codes=2 * len(old.items))
            index = len(network.row_fields.sizes) - 1
            network.row_fields.replace_table(
                index, UserHistoryEmbedding(event_counts, network.width, network.init_std).to(event_counts.device)
            )


def _smooth(tables: FieldEmbeddings, index: int, coding: Vocabulary, width: float) -> None:
    numbers = [_number(name) for name in coding.names]
    if all(number is None for number in numbers):
        raise LearnerError(
            f"smoothing_bandwidth names '{coding.field}', none of whose values is a number ('{coding.names[0]}')"
        )
    kernel, rows = torch.eye(len(coding)), torch.tensor([n for n, x in enumerate(numbers, start=2) if x is not None])
    known = torch.tensor([number for number in numbers if number is not None])
    weights = torch.exp(-(((known[:, None] - known) / width) ** 2) / 2)
    kernel[rows[:, None], rows] = weights / weights.sum(dim=1, keepdim=True)
    table = tables.tables[index]
    tables.replace_table(index, SmoothedEmbedding(table, kernel.to(table)))


def _event_counts(parts: Iterable[Clicks], users: int, event_codes: int) -> Int[Tensor, "user code"]:
    """Number of occurrences of each event code per user, sparse."""
    found: Tensor | None = None
    for clicks in parts:
        code = clicks.of_rows[-1]
        code = code[code >= users]
        places = torch.stack([code % users, code // users - 1])
        once = torch.ones_like(code)
        counts = torch.sparse_coo_tensor(places, once, (users, event_codes), check_invariants=True).coalesce()
        found = counts if found is None else (found + counts).coalesce()
    assert found is not None  # a log without events is refused before
    return found


def _number(name: str) -> float | None:
    try:
        number = float(name)
    except ValueError:
        return None
    return number if math.isfinite(number) else None  # 'nan' and 'inf' lie nowhere on the line
