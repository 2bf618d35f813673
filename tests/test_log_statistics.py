"""Statistics of chunks equal those of the whole log, and so does what is fitted to them."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from newcomer.data.click_log import ClickLog, Column
from newcomer.data.io.chunked_log import ChunkedLog
from newcomer.data.io.log_reader import encode_column, log_from_frame, read_log
from newcomer.data.io.log_statistics import LogStatistics, decode_column
from newcomer.data.running_stats import RunningStats
from newcomer.data.schema import Field, Schema
from newcomer.data.vocabulary import StandardScaler, VectorScaler, Vocabulary
from newcomer.errors import DataError
from newcomer.items.encoding.encoder import Encoder
from test_chunked_log import SCHEMA as FILMS
from test_chunked_log import rows, table, things, written

SCHEMA = Schema(
    "film",
    "viewer",
    "liked",
    "seen",
    (
        *FILMS.fields,
        Field("page twice", "context", missing="mark", min_count=2, unseen="error"),
        Field("tags", "context", "multi", min_count=3),
        Field("words", "user", "text", min_count=2),
        Field("sight", "context", "vector", missing="mark"),
        Field("same", "context", "numeric"),
    ),
)


def frame(count: int, seed: int = 0) -> pl.DataFrame:
    chance = np.random.default_rng(seed)
    given = table(count, seed)
    viewers = given["viewer"].to_list()
    return given.with_columns(
        pl.Series(
            "page twice", [["home", "", "list", "rare"][n] for n in chance.choice(4, count, p=[0.5, 0.2, 0.25, 0.05])]
        ),
        pl.Series("tags", ["|".join("abcde"[: chance.integers(0, 6)]) for _ in range(count)]),
        pl.Series("words", [f"from town {int(name[1:]) % 4}" for name in viewers]),
        pl.Series("sight", [chance.normal(7, 2, 3).tolist() if chance.random() < 0.8 else None for _ in range(count)]),
        pl.lit(0.1).alias("same"),
    )


def fitted_plainly(log: ClickLog) -> dict[str, Any]:
    """The codings of a whole log, field by field as their definitions read."""
    items, users = np.unique(log.item), np.unique(log.user)
    tables = {"item": log.items.take(items).columns, "user": log.users.take(users).columns, "context": log.context}
    found: dict[str, Any] = {"viewer": tuple(log.users.ids[user] for user in users)}
    for field in log.schema.fields:
        column = tables[field.role][field.name]
        known = column.values[~np.isnan(column.values)] if field.is_numeric else column.values
        if field.is_numeric:
            deviation = float(known.std()) if len(set(known.tolist())) > 1 else 1.0
            found[field.name] = (float(known.mean()) if len(known) else 0.0, deviation)
        elif field.kind == "vector":
            vectors = known[~np.isnan(known).any(axis=1)].astype(float)
            deviation = float(np.sqrt(vectors.var(axis=0).mean())) if len(np.unique(vectors, axis=0)) > 1 else 1.0
            found[field.name] = (*vectors.mean(axis=0), deviation) if len(vectors) else (1.0,)
        else:
            said = [column.names[value] for value in known.ravel() if value >= 0]
            found[field.name] = tuple(sorted(name for name in set(said) if said.count(name) >= field.min_count))
    return found


def said(encoder: Encoder) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, coding in encoder.codings.items():
        match coding:
            case Vocabulary():
                found[name] = coding.names
            case StandardScaler():
                found[name] = (coding.mean, coding.deviation)
            case VectorScaler():
                found[name] = (*coding.mean, coding.deviation) if any(coding.mean) else (1.0,)  # where none is known
    return found


def agree(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Vocabularies exactly, scales to 1e-12."""
    assert one.keys() == other.keys()
    for name, value in one.items():
        if value and not isinstance(value[0], str):
            np.testing.assert_allclose(value, other[name], rtol=1e-12, atol=1e-12)
        else:
            assert value == other[name]


PARTS = st.lists(st.integers(0, 6), min_size=40, max_size=40)


@settings(max_examples=40, deadline=None)
@given(PARTS, st.integers(0, 9))
def test_a_survey_of_any_parts_in_any_order_is_that_of_the_whole(parts: list[int], seed: int) -> None:
    log = log_from_frame(frame(40, seed), SCHEMA)
    whole, chunked = LogStatistics(SCHEMA).add(log), LogStatistics(SCHEMA)
    for part in range(6, -1, -1):
        chunked.add(log.take(np.array(parts) == part))
    assert things(chunked.items) == things(whole.items)
    assert things(chunked.users) == things(whole.users)
    assert (chunked.rows, chunked.first, chunked.last) == (40, log.time.min(), log.time.max())
    assert chunked.events.tolist() == [int((log.item == n).sum()) for n in range(len(log.items))]
    assert chunked.clicks.tolist() == [int(log.label[log.item == n].sum()) for n in range(len(log.items))]
    agree(said(Encoder.fit(chunked)), said(Encoder.fit(log)))
    assert list(Encoder.fit(chunked).codings) == list(Encoder.fit(log).codings)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(0, 9))
def test_fitted_statistics_equal_their_definitions(count: int, seed: int) -> None:
    log = log_from_frame(frame(60, seed), SCHEMA).take(np.arange(count))  # its tables hold more than its rows
    encoder = Encoder.fit(log)
    agree(said(encoder), fitted_plainly(log))
    assert encoder.codings["page twice"].to_json()["unseen"] == "error"


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_survey_of_files_is_that_of_the_log_in_them(tmp_path: Path, kind: str) -> None:
    source = written(table(50), tmp_path, kind, 3)
    chunked, whole = LogStatistics.of(ChunkedLog(source, FILMS, rows=4)), read_log(source, FILMS)
    agree(said(Encoder.fit(chunked)), said(Encoder.fit(whole)))
    assert things(chunked.items) == things(whole.items)


@pytest.mark.parametrize(
    ("column", "role", "value"),
    [("title", "item", "other"), ("genres", "item", "c|d"), ("minutes", "item", "1.5"), ("zip", "user", None)],
)
def test_chunks_that_contradict_each_other_are_the_error_of_the_whole(
    tmp_path: Path, column: str, role: Any, value: str | None
) -> None:
    given = table(12).with_columns(film=pl.lit("f1"), viewer=pl.lit("v1"), title=pl.lit("t"), genres=pl.lit("b|c"))
    given = given.with_columns(minutes=pl.lit("1"), zip=pl.lit("1"), look=pl.lit("[1]"))
    held = [value if n >= 8 else old for n, old in enumerate(given[column].to_list())]
    schema = Schema("film", "viewer", "liked", "seen", (Field(column, role, FILMS_KIND[column], missing="mark"),))
    source = written(given.with_columns(pl.Series(column, held)), tmp_path, "csv")
    with pytest.raises(DataError) as whole:
        read_log(source, schema)
    with pytest.raises(DataError) as chunked:
        LogStatistics.of(ChunkedLog(source, schema, rows=4))
    assert "in rows 1 and 9" in str(whole.value)
    assert str(chunked.value) == str(whole.value)


FILMS_KIND: dict[str, Any] = {field.name: field.kind for field in FILMS.fields}


@pytest.mark.parametrize("role", ["item", "context"])
def test_vectors_of_two_lengths_are_an_error(tmp_path: Path, role: Any) -> None:
    schema = Schema("film", "viewer", "liked", "seen", (Field("look", role, "vector"),))
    given = {"film": ["a", "b"], "viewer": ["v", "w"], "liked": [0, 1], "seen": [1, 2], "look": ["[1, 2]", "[1, 2, 3]"]}
    pl.DataFrame(given).write_csv(tmp_path / "log.csv")
    with pytest.raises(DataError, match="has vectors of 2 and of 3 numbers"):
        Encoder.fit(LogStatistics.of(ChunkedLog(tmp_path / "log.csv", schema, rows=1)))


def test_memory_of_the_statistics_pass_does_not_grow_with_events() -> None:
    log = log_from_frame(frame(40), SCHEMA)
    statistics = LogStatistics(SCHEMA).add(log)
    size = statistics.items, statistics.users
    for _ in range(3):
        statistics.add(log)
    assert things(statistics.items) == things(size[0])
    assert things(statistics.users) == things(size[1])
    assert (statistics.rows, int(statistics.events.sum())) == (160, 160)


def test_an_empty_log_has_empty_statistics() -> None:
    statistics = LogStatistics(SCHEMA).add(log_from_frame(frame(5), SCHEMA).take(np.arange(0)))
    assert (statistics.rows, statistics.first, len(statistics.items), statistics.events.tolist()) == (0, None, 0, [])


@given(st.data())
def test_a_column_decoded_and_encoded_is_the_column(data: st.DataObject) -> None:
    kind: Any = data.draw(st.sampled_from(["categorical", "multi", "numeric", "vector"]))
    numbers = st.floats(-9, 9, width=32)
    cells: dict[str, st.SearchStrategy[Any]] = {
        "categorical": st.text(max_size=2),
        "multi": st.lists(st.text(min_size=1, max_size=2), unique=True, max_size=4),
        "numeric": numbers,
        "vector": st.lists(numbers, min_size=2, max_size=2),
    }
    types = {
        "categorical": pl.String(),
        "multi": pl.List(pl.String),
        "numeric": pl.Float64(),
        "vector": pl.List(pl.Float32),
    }
    cell = cells[kind] if kind in ("numeric", "multi") else st.none() | cells[kind]
    series = pl.Series("x", data.draw(st.lists(cell, min_size=1, max_size=8)), dtype=types[kind])
    field = Field("x", "item", kind, missing="mark")
    column = encode_column(series, field)
    again = encode_column(decode_column(column, "x"), field)
    assert (again.names, again.values.shape) == (column.names, column.values.shape)
    np.testing.assert_array_equal(again.values, column.values)


NUMBERS = st.lists(st.floats(-1e6, 1e6) | st.just(float("nan")), max_size=30)


@given(st.lists(NUMBERS, min_size=1, max_size=5))
def test_running_stats_of_parts_equal_those_of_all(parts: list[list[float]]) -> None:
    together = sum((RunningStats.of(np.array(part)) for part in parts[1:]), start=RunningStats.of(np.array(parts[0])))
    numbers = [number for part in parts for number in part if not np.isnan(number)]
    assert together.count == len(numbers)
    if numbers:
        largest = max(1.0, *map(abs, numbers))
        np.testing.assert_allclose(together.mean, np.mean(numbers), atol=1e-12 * largest)
        np.testing.assert_allclose(together.variance, np.var(numbers), atol=1e-12 * largest**2)


@given(st.lists(st.tuples(st.floats(-1e3, 1e3), st.integers(1, 5)), min_size=1, max_size=9))
def test_a_number_counted_several_times_is_several_numbers(counted: list[tuple[float, int]]) -> None:
    numbers, times = (np.array(column) for column in zip(*counted, strict=True))
    once, plain = RunningStats.of(numbers, times), RunningStats.of(np.repeat(numbers, times))
    assert once.count == plain.count
    np.testing.assert_allclose([once.mean, once.variance], [plain.mean, plain.variance], rtol=1e-12, atol=1e-9)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = np.random.default_rng(0).normal(3, 2, (50, 4))
    whole = RunningStats.of(vectors)
    monkeypatch.setattr("newcomer.data.running_stats.BLOCK", 12)
    for values, times in ((vectors, None), (vectors, np.ones(50, dtype=np.int64))):
        blocks = RunningStats.of(values, times)
        np.testing.assert_allclose([blocks.mean, blocks.variance], [whole.mean, whole.variance], rtol=1e-12)


def test_equal_numbers_have_no_deviation_however_they_are_parted() -> None:
    for parts in ([3], [1, 2], [1, 1, 1]):
        spread = sum(
            (RunningStats.of(np.full(n, 0.1)) for n in parts[1:]), start=RunningStats.of(np.full(parts[0], 0.1))
        )
        assert float(spread.variance) == 0
        assert StandardScaler.of("x", spread).encode(Column.of_numbers([0.1])).tolist() == [0.0]


def test_training_reads_the_rows_of_the_statistics_pass(tmp_path: Path) -> None:
    files = ChunkedLog(written(table(30), tmp_path, "parquet"), FILMS, rows=7)
    encoder = Encoder.fit(LogStatistics.of(files))
    whole = files.read(*files.chunks)
    clicks = encoder.clicks(whole, whole.item)
    for chunk in files.chunks:
        log = files.read(chunk)
        assert rows(log) == rows(whole.take(log.row))
        part = encoder.clicks(log, np.searchsorted(whole.items.ids, np.array(log.items.ids)[log.item]))
        at = np.arange(len(log))
        for mine, theirs in zip(part.values(_long(at)), clicks.values(_long(log.row)), strict=True):
            np.testing.assert_array_equal(
                mine.numpy(), theirs.numpy()[..., : mine.shape[-1]] if mine.ndim > 1 else theirs
            )


def _long(rows: Any) -> Any:
    import torch

    return torch.from_numpy(rows)
