"""Logs with more fields of items than an int64 has bits: no two items are ever taken for one."""

from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from films import QUICK
from newcomer.data.schema import Field, Schema
from newcomer.items.encoding.encoder import Clicks
from newcomer.items.methods.emerg import EmerG
from newcomer.items.training.field_regularization import _event_counts
from newcomer.items.training.pretraining import unique_pairs
from newcomer.metrics.ranking import auc


def test_many_items_with_many_fields_stay_apart() -> None:
    """A log of 300,000 items with 45 fields of their own: item and fields shared one int64, and 262,144 items were left."""
    items = torch.arange(300_000)
    found, hidden, of = unique_pairs(items.flip(0), torch.zeros(len(items), 46, dtype=torch.bool))
    assert torch.equal(found, items)
    assert not hidden.any()
    assert torch.equal(found[of], items.flip(0))


@pytest.mark.parametrize("parts", [1, 2, 19, 20, 21, 46, 63, 64, 65, 200])
def test_rows_are_told_apart_as_by_a_plain_sorted_set(parts: int) -> None:
    """Logs with 60 to 64 fields of items, of which 62 ended in an IndexError and 64 in an AUC below chance."""
    chance = torch.Generator().manual_seed(parts)
    item = torch.randint(0, 5, (300,), generator=chance)
    hidden = torch.rand(300, parts, generator=chance) < 1 / parts
    rows = [(int(i), *map(bool, bits.tolist())) for i, bits in zip(item, hidden, strict=True)]
    plain = sorted(set(rows))
    found, bits, of = unique_pairs(item, hidden)
    assert [(int(i), *b.tolist()) for i, b in zip(found, bits, strict=True)] == plain
    assert [plain[n] for n in of.tolist()] == rows


@pytest.mark.parametrize("fields", [4, 63, 70])
def test_a_model_of_many_fields_learns_as_one_of_few(fields: int) -> None:
    """A log with 64 fields of items trained without a word to an AUC of .465, where 4 or 58 fields gave .967."""
    chance = np.random.default_rng(0)
    item, user = chance.integers(0, 30, 1500), chance.integers(0, 20, 1500)
    own = chance.integers(0, 3, (30, fields))
    log = pl.DataFrame({"i": item, "u": user, **{f"f{n}": own[item, n] for n in range(fields)}}).with_columns(
        click=(own[item, 0] > 0).astype(int), at=np.arange(1500)
    )
    schema = Schema("i", "u", "click", "at", tuple(Field(f"f{n}", "item") for n in range(fields)))
    settings: dict[str, Any] = QUICK | {"graph": "shared", "pretrain_epochs": 4, "meta_epochs": 0, "id_dropout": 0.2}
    model = EmerG(schema, **settings, field_dropout={"f1": 0.3}).learn(log)
    assert auc(log["click"], model.score(log)) > 0.95


def test_event_counts_beyond_int16_are_counted() -> None:
    """A user with 40,000 events of one item, whose count came out as −25,536."""
    codes = torch.cat([torch.full((40_000,), 1 + 2 * 1), torch.tensor([0 + 2 * 2])])
    nothing = torch.zeros(len(codes))
    clicks = Clicks(nothing.long(), nothing, nothing.long(), [], [codes])
    assert _event_counts([clicks], users=2, event_codes=2).to_dense().tolist() == [[0, 1], [40_000, 0]]
