"""How fields are read while shared weights are learned; what comes of it are plain tables, at no cost afterwards."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from newcomer.data.schema import Field, Schema
from newcomer.data.vocabulary import Vocabulary
from newcomer.errors import LearnerError, SettingError, nearest
from newcomer.items.encoding.encoder import Clicks, Encoder
from newcomer.items.networks.item_network import ItemNetwork
from newcomer.items.training.training_data import InMemory, Lessons
from newcomer.nn.ctr.computed_embeddings import Smoothed, Tastes
from newcomer.nn.ctr.field_embeddings import FieldEmbeddings
from newcomer.shapes import Int, Tensor

TASTES = "tastes"
"""The name of the field that a user's deeds among the old items make."""

MOST = 2**30
"""Bytes of the table of deeds at most."""


@dataclass(frozen=True)
class Reading:
    """`smooth`: of fields whose values are numbers by name, such as years, how far apart two may be to say nearly the same.

    A value's vector is then the mean over all values' that pre-training saw, each weighed by exp(−(difference / smooth)² / 2).

    `tastes`: there is one field more, a user's deeds among the old items: what was clicked, and what was shown and was not. Of an
    old item's own row its deed is left out.

    `drop`: of the items' fields, the share of rows in pre-training that do not see it, so that the model works without.
    """

    smooth: Mapping[str, float] = field(default_factory=dict)
    tastes: bool = False
    drop: Mapping[str, float] = field(default_factory=dict)

    def require(self, schema: Schema) -> None:
        """Raises SettingError for a field that is not there or cannot be read so."""
        for name in self.smooth:
            known = {node.name: node for node in schema.fields if node.kind == "categorical"}
            if name not in known:
                raise SettingError(f"smooth names '{name}', which is no categorical field; {nearest(name, known)}")
        for name in self.drop:
            own = [node.name for node in schema.of("item")]
            if name not in own:
                raise SettingError(f"drop names '{name}', which is no field of items; {nearest(name, own)}")
        if self.tastes and TASTES in [node.name for node in schema.nodes]:
            raise SettingError(f"tastes = true makes a field '{TASTES}', which the log has already; rename that column")

    def nodes(self, schema: Schema) -> tuple[Field, ...]:
        """All fields that can interact, in order."""
        return (*schema.nodes, *([Field(TASTES, "user")] if self.tastes else []))

    def shares(self, schema: Schema) -> list[float]:
        """Of each field of the items, what `drop` says."""
        return [self.drop.get(node.name, 0.0) for node in schema.of("item")]

    def lend(self, network: ItemNetwork, encoder: Encoder, old: Lessons) -> None:
        """Until their tables are folded, fields are computed.

        Raises LearnerError for `tastes` of users and items that are too many, or of a log that is read in pieces.
        """
        for fields, tables in ((encoder.item_fields, network.item_fields), (encoder.row_fields, network.row_fields)):
            for place, one in enumerate(fields):
                if one.name in self.smooth:
                    coding = encoder.codings[one.name]
                    assert isinstance(coding, Vocabulary)  # as every categorical field has
                    _smooth(tables, place, coding, self.smooth[one.name])
        if self.tastes:
            if not isinstance(old, InMemory):
                raise LearnerError("tastes = true needs a log in memory, and this one is read in pieces; leave it out")
            times = _times(old.clicks, users=encoder.users, deeds=2 * len(old.items))
            place = len(network.row_fields.sizes) - 1
            network.row_fields.lend(place, Tastes(times, network.width, network.deviation).to(times.device))


def _smooth(tables: FieldEmbeddings, place: int, coding: Vocabulary, width: float) -> None:
    numbers = [_number(name) for name in coding.names]
    if all(number is None for number in numbers):
        raise LearnerError(f"smooth names '{coding.field}', none of whose values is a number ('{coding.names[0]}')")
    kernel, rows = torch.eye(len(coding)), torch.tensor([n for n, x in enumerate(numbers, start=2) if x is not None])
    known = torch.tensor([number for number in numbers if number is not None])
    weights = torch.exp(-(((known[:, None] - known) / width) ** 2) / 2)
    kernel[rows[:, None], rows] = weights / weights.sum(dim=1, keepdim=True)
    table = tables.tables[place]
    tables.lend(place, Smoothed(table, kernel.to(table)))


def _times(clicks: Clicks, users: int, deeds: int) -> Int[Tensor, "user deed"]:
    """How often each user did each deed; in as few bytes as hold the most."""
    code = clicks.of_rows[-1]
    most = int(torch.unique(code, return_counts=True)[1].max())
    kind = torch.int16 if most <= torch.iinfo(torch.int16).max else torch.int32
    if kind.itemsize * users * deeds > MOST:
        raise LearnerError(
            f"tastes = true needs a table of {users:,} users by {deeds // 2:,} old items, which is too large; leave it out"
        )
    times = torch.zeros(users, deeds, dtype=kind, device=code.device)
    return times.index_put_((code % users, code // users - 1), times.new_ones(len(code)), accumulate=True)


def _number(name: str) -> float | None:
    try:
        number = float(name)
    except ValueError:
        return None
    return number if math.isfinite(number) else None  # 'nan' and 'inf' lie nowhere on the line
