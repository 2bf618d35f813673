"""Computed embeddings, such as smoothed values and user histories, and the plain tables that they fold into."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from newcomer.data.click_log import ClickLog, Column
from newcomer.data.io.chunked_log import ChunkedLog
from newcomer.data.io.log_reader import log_from_rows, read_log
from newcomer.data.schema import Field, Schema
from newcomer.errors import LearnerError, SettingError
from newcomer.items.methods.emerg import EmerG
from newcomer.items.methods.id_tuning import IdTuning
from newcomer.items.training import field_regularization as reading
from newcomer.items.training.field_regularization import _event_counts
from newcomer.items.training.training_data import InMemory, training_data
from newcomer.nn.ctr.computed_embeddings import UserHistoryEmbedding, _SparseProduct
from newcomer.nn.ctr.field_embeddings import FieldEmbeddings
from newcomer.shapes import Tensor

SCHEMA = Schema("film", "viewer", fields=(Field("year", "item"), Field("mood", "item"), Field("age", "user")))
CPU = torch.device("cpu")
SHORT: dict[str, Any] = {"width": 4, "pretrain_epochs": 1, "batch_size": 32, "meta_epochs": 1, "tower": [4]}


def films(seed: int = 0, rows: int = 240) -> ClickLog:
    """12 films of as many years, but for one of which the year is not known."""
    chance = np.random.default_rng(seed)
    film, viewer = np.arange(rows) % 12, chance.integers(0, 9, rows)
    return log_from_rows(
        SCHEMA,
        film=[f"f{n:02d}" for n in film],
        viewer=[f"v{n}" for n in viewer],
        year=["unknown" if n == 5 else str(1990 + n) for n in film],
        mood=[f"m{n % 3}" for n in film],
        age=[str(n % 4) for n in viewer],
        label=(chance.random(rows) < 0.3 + 0.04 * film).astype(int).tolist(),
        time=list(range(rows)),
    )


def lent(smooth: float) -> tuple[EmerG, FieldEmbeddings, Tensor]:
    """A network whose years are read so, before any training, and the table as it was."""
    learner = EmerG(SCHEMA, smoothing_bandwidth={"year": smooth}, **SHORT)
    old = InMemory(films(), torch.device("cpu"))
    learner._create_network(old.encoder)
    before = learner.network.item_fields.tables[0].detach().clone()
    learner.regularization.attach(learner.network, old.encoder, old)
    return learner, learner.network.item_fields, before


def test_a_smoothed_value_is_the_weighted_mean_and_non_numeric_values_keep_their_own() -> None:
    learner, fields, table = lent(2.0)
    names = learner.encoder.codings["year"].names  # type: ignore[union-attr]
    values = torch.arange(2, 2 + len(names))
    found = fields([values, torch.zeros(len(values), dtype=torch.long)])[:, 0]
    for place, name in enumerate(names):
        if name == "unknown":
            torch.testing.assert_close(found[place], table[2 + place])
            continue
        weights = [0.0 if n == "unknown" else np.exp(-(((int(n) - int(name)) / 2.0) ** 2) / 2) for n in names]
        mean = sum(w * table[2 + n] for n, w in enumerate(weights)) / sum(weights)
        torch.testing.assert_close(found[place], mean)


def test_a_narrow_kernel_smooths_nothing_and_a_wide_one_averages_all() -> None:
    numbers = torch.tensor([2, 3, 4, 8])
    _, fields, table = lent(1e-3)
    torch.testing.assert_close(fields([numbers, numbers * 0])[:, 0], table[numbers])
    _, fields, _ = lent(1e6)
    found = fields([torch.tensor([2, 3, 4, 12]), numbers * 0])[:, 0]
    torch.testing.assert_close(found, found[:1].expand_as(found))


def test_a_category_named_nan_leaves_smoothing_finite() -> None:
    log = films()
    strange = Column.of_names(["nan" if name == "unknown" else name for name in log.items.columns["year"].texts()])
    items = replace(log.items, columns={**log.items.columns, "year": strange})
    learner = EmerG(SCHEMA, smoothing_bandwidth={"year": 2.0}, **SHORT).learn(replace(log, items=items))
    assert learner.network.item_fields.tables[0].isfinite().all()
    assert np.isfinite(learner.score(log)).all()


def test_folded_tables_equal_the_computed_embeddings() -> None:
    _, fields, _ = lent(2.0)
    values = [torch.arange(13), torch.zeros(13, dtype=torch.long)]
    before = fields(values)
    fields.fold()
    torch.testing.assert_close(fields(values), before)
    assert not fields.computed
    assert all(table.requires_grad for table in fields.tables)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.integers(1, 7), st.integers(0, 10**6))
def test_user_histories_are_sums_without_the_current_row(users: int, events: int, seed: int) -> None:
    chance = torch.Generator().manual_seed(seed)
    times = torch.randint(0, 3, (users, events), generator=chance)
    history = UserHistoryEmbedding(times, width=3, init_std=1.0)
    for user in range(users):
        for own in range(-1, events):
            if own >= 0 and not times[user, own]:
                continue
            left = times[user].clone()
            if own >= 0:
                left[own] -= 1
            slow = (
                sum((left[d] * history.codes[d] for d in range(events)), torch.zeros(3))
                / max(int(left.sum()), 1) ** 0.5
            )
            torch.testing.assert_close(history(torch.tensor([user + users * (1 + own)]))[0], slow)
    alone = torch.cat([history(torch.tensor([user])) for user in range(users)])
    torch.testing.assert_close(history.table(), alone)


def test_the_user_history_of_a_row_does_not_leak_its_label() -> None:
    """With one label flipped, that row's history is the same."""
    log = films()
    turned = log.take(np.arange(len(log)))
    turned.label[7] = 1 - turned.label[7]
    found = []
    for one in (log, turned):
        learner = EmerG(SCHEMA, user_history=True, **SHORT)
        old = InMemory(one, torch.device("cpu"), user_history=True)
        torch.manual_seed(0)
        learner._create_network(old.encoder)
        learner.regularization.attach(learner.network, old.encoder, old)
        (row,) = torch.nonzero((old.clicks.item == int(log.item[7])) & (torch.arange(len(log)) == 7))[0].tolist()
        found.append(learner.network.row_fields(old.clicks.values(torch.tensor([row])))[:, -1])
    torch.testing.assert_close(found[0], found[1])


def test_rows_of_new_items_see_the_whole_user_history_and_unknown_users_none() -> None:
    learner = IdTuning(SCHEMA, user_history=True, width=4, hidden=[4], pretrain_epochs=1, meta_epochs=1).learn(films())
    assert learner.nodes[-1].name == reading.USER_HISTORY
    assert learner.network.fields == len(learner.nodes)
    known = len(learner.encoder.codings["viewer"].names)  # type: ignore[union-attr]
    table = learner.network.row_fields.tables[-1]
    assert table.shape == (known + 2, 4)
    assert (table[:2] == 0).all()
    assert (table[2:] != 0).any(dim=1).all()


def test_dropped_fields_are_learned_from_fewer_rows() -> None:
    """Where no row sees a field its table stays where it began; the others move."""
    began = {}

    class Noting(EmerG):
        def _create_network(self, encoder: Any) -> None:
            super()._create_network(encoder)
            began[self.name] = [table.detach().clone() for table in self.network.item_fields.tables]

    learner = Noting(SCHEMA, field_dropout={"mood": 1.0}, weight_decay=0.0, **SHORT).learn(films())
    year, mood = learner.network.item_fields.tables
    assert torch.equal(mood, began["emerg"][1])
    assert not torch.equal(year, began["emerg"][0])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"smoothing_bandwidth": {"yeer": 1.0}},
            r"smoothing_bandwidth names 'yeer', which is no categorical field; did you mean 'year'\?",
        ),
        ({"field_dropout": {"age": 0.5}}, r"field_dropout names 'age', which is no field of items"),
        ({"smoothing_bandwidth": {"year": 0.0}}, r"smoothing_bandwidth = .* input should be greater than 0"),
        ({"field_dropout": {"year": 2.0}}, r"field_dropout = .* less than or equal to 1"),
    ],
)
def test_invalid_regularization_settings_are_refused_at_once(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        EmerG(SCHEMA, **settings)


def test_names_that_are_no_numbers_cannot_be_smoothed() -> None:
    with pytest.raises(
        LearnerError, match=r"smoothing_bandwidth names 'mood', none of whose values is a number \('m0'\)"
    ):
        EmerG(SCHEMA, smoothing_bandwidth={"mood": 1.0}, **SHORT).learn(films())


def test_a_field_named_like_the_user_history_is_refused() -> None:
    with pytest.raises(SettingError, match="makes a field 'user_history', which the log has already"):
        EmerG(Schema("i", "u", fields=(Field("user_history", "user"),)), user_history=True)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")  # the first one of a process
def test_the_sums_of_user_histories_have_their_gradients_of_first_and_second_order() -> None:
    dense = torch.randint(0, 3, (5, 7)).double()
    matrices = dense.to_sparse_csr(), dense.t().to_sparse_csr()
    codes = torch.randn(7, 2, dtype=torch.float64, requires_grad=True)

    def squares(codes: torch.Tensor) -> torch.Tensor:
        product: torch.Tensor = _SparseProduct.apply(*matrices, codes)  # type: ignore[no-untyped-call]
        return product.square()

    torch.testing.assert_close(squares(codes), (dense @ codes).square())
    assert torch.autograd.gradcheck(squares, codes)
    assert torch.autograd.gradgradcheck(squares, codes)


def test_the_sums_of_user_histories_are_kept_while_their_embeddings_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    history, users = UserHistoryEmbedding(torch.tensor([[0, 2], [1, 1]]), width=3, init_std=1.0), torch.arange(2)
    made = list[int]()
    product = history._product

    def watched() -> torch.Tensor:
        made.append(1)
        return product()

    monkeypatch.setattr(history, "_product", watched)
    history(users).sum().backward()
    history(users).sum().backward()
    assert len(made) == 2  # gradients go through it
    with torch.inference_mode():
        first = history(users)
    history.codes.requires_grad_(False)
    for _ in range(3):
        assert torch.equal(history(users), first)
    assert len(made) == 3
    history.codes.data += 1  # which no version counter tells
    torch.testing.assert_close(history(users), first + torch.tensor([[2**0.5], [2**0.5]]))
    assert len(made) == 4
    scale = torch.ones(3, requires_grad=True)
    (history(users) * scale).sum().backward()  # what was kept may be part of another graph
    assert scale.grad is not None
    assert len(made) == 4


def test_user_histories_take_memory_by_the_events_not_by_users_times_items() -> None:
    """As a table it would be 80 GB."""
    places = torch.tensor([[0, 7, 199_999], [0, 99_999, 99_999]])
    times = torch.sparse_coo_tensor(places, torch.tensor([1, 4, 1]), (200_000, 100_000), check_invariants=True)
    history = UserHistoryEmbedding(times, width=2, init_std=1.0)
    found = history(torch.tensor([0, 7, 199_999, 5, 199_999 + 200_000 * 100_000]))
    first, last = history.codes[0], history.codes[99_999]
    torch.testing.assert_close(found, torch.stack([first, 2 * last, last, 0 * last, 0 * last]))


def test_user_histories_of_a_log_in_files_are_those_of_the_log_in_memory(tmp_path: Path) -> None:
    """The counts, and what every row leaves out of them; with all rows in one chunk the model, too."""
    draw = np.random.default_rng(0)
    columns = {name: draw.integers(0, count, 120) for name, count in (("film", 9), ("viewer", 7), ("label", 2))}
    frame = pl.DataFrame({**columns, "time": range(120)})
    frame = frame.with_columns(year=pl.col("film") % 3, mood=pl.col("film") % 2, age=pl.col("viewer") % 4)
    frame.write_csv(tmp_path / "log.csv")

    def learned(log: ClickLog | ChunkedLog) -> EmerG:
        return EmerG(SCHEMA, user_history=True, **SHORT | {"batch_size": 500}).learn(log)

    whole, one, four = (ChunkedLog(tmp_path / "log.csv", SCHEMA, rows=rows) for rows in (200, 200, 31))
    memory = training_data(read_log(tmp_path / "log.csv", SCHEMA), CPU, user_history=True)
    for files in (whole, four):
        data = training_data(files, CPU, user_history=True)
        counts = [_event_counts(of.clicks_by_part(), data.encoder.users, 18).to_dense() for of in (data, memory)]
        assert torch.equal(*counts)
        assert counts[0].sum() == 120
        rows = [torch.cat([part.of_rows[-1] for part in of.clicks_by_part()]).sort().values for of in (data, memory)]
        assert torch.equal(*rows)
    tables = [learned(log).network.row_fields.tables[-1] for log in (one, read_log(tmp_path / "log.csv", SCHEMA))]
    torch.testing.assert_close(*tables, rtol=1e-4, atol=1e-5)
    assert learned(four).network.row_fields.tables[-1].shape == tables[0].shape
