"""A log read in chunks equals the log read as a whole."""

import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from newcomer.data.click_log import ClickLog, Column, EntityTable
from newcomer.data.io import csv_chunking as lines
from newcomer.data.io.chunked_log import Chunk, ChunkedLog
from newcomer.data.io.log_reader import read_log
from newcomer.data.io.shuffle import ShuffledPasses, earliest_events, latest_events
from newcomer.data.schema import Field, Schema
from newcomer.errors import DataError, SettingError

SCHEMA = Schema(
    "film",
    "viewer",
    "liked",
    "seen",
    (
        Field("title", "item"),
        Field("genres", "item", "multi"),
        Field("minutes", "item", "numeric", missing="mark"),
        Field("look", "item", "vector", missing="mark"),
        Field("zip", "user"),
        Field("page", "context", missing="mark"),
        Field("price", "context", "numeric"),
    ),
)
TITLES = ['The "Sea"', "two\nlines", 'comma, quote\n"', "Ünïcode", "plain\r\n\n"]


def table(count: int, seed: int = 0) -> pl.DataFrame:
    """Rows with all that makes a CSV file hard to cut."""
    chance = np.random.default_rng(seed)
    film, viewer = chance.integers(0, 9, count), chance.integers(0, 15, count)
    return pl.DataFrame(
        {
            "film": [f"f{n}" for n in film],
            "viewer": [f"v{n}" for n in viewer],
            "liked": chance.integers(0, 2, count),
            "seen": chance.integers(0, 40, count),
            "not read": ["x\n" * (n % 3) for n in film],
            "title": [TITLES[n % 5] for n in film],
            "genres": ["a|b|c"[: n % 6] for n in film],
            "minutes": [None if n == 2 else 80.5 + n for n in film],
            "look": [None if n == 3 else f"[{n}.5, {n % 2}]" for n in film],
            "zip": [f"0{n}" for n in viewer],
            "page": [["home", None, "list\n"][n] for n in chance.integers(0, 3, count)],
            "price": chance.normal(size=count),
        }
    )


def written(frame: pl.DataFrame, folder: Path, kind: str, parts: int = 1) -> str:
    """The rows in so many files, the last ones of a CSV without a newline at the end."""
    bounds = np.linspace(0, len(frame), parts + 1).astype(int)
    for number, (begin, end) in enumerate(pairwise(bounds)):
        part, path = frame[begin:end], folder / f"{number}.{kind}"
        if kind == "parquet":
            part.write_parquet(path, row_group_size=7)
        else:
            path.write_bytes(part.write_csv().encode().removesuffix(b"\n"))
    return f"{folder}/*.{kind}"


def words(column: Column) -> list[Any]:
    """A column's values by name, whatever else the names are of."""
    if not column.names and column.values.dtype.kind == "f":
        return [None if np.isnan(value).all() else value.tolist() for value in column.values]
    named = np.array([*column.names, ""], dtype=object)
    return [[name for name in row if name] if isinstance(row, list) else row for row in named[column.values].tolist()]


def things(table: EntityTable) -> dict[str, list[Any]]:
    columns = {name: words(column) for name, column in table.columns.items()}
    return {key: [values[n] for values in columns.values()] for n, key in enumerate(table.ids)}


def rows(*logs: ClickLog) -> list[Any]:
    """All that the logs say, row by row."""
    said = []
    for log in logs:
        items, users = things(log.items), things(log.users)
        context = [words(column) for column in log.context.values()]
        for n, (item, user) in enumerate(zip(log.item, log.user, strict=True)):
            film, viewer = log.items.ids[item], log.users.ids[user]
            numbers = (int(log.row[n]), int(log.time[n]), float(log.label[n]))
            said.append((*numbers, film, items[film], viewer, users[viewer], [values[n] for values in context]))
    return said


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize(("count", "parts", "size"), [(50, 1, 7), (50, 3, 1), (49, 2, 7), (50, 3, 1000), (1, 1, 1)])
def test_the_chunks_one_after_the_other_are_the_log(
    tmp_path: Path, kind: str, count: int, parts: int, size: int
) -> None:
    source = written(table(count), tmp_path, kind, parts)
    files = ChunkedLog(source, SCHEMA, rows=size)
    assert len(files) == count
    assert max(chunk.rows for chunk in files.chunks) <= size
    assert rows(*map(files.read, files.chunks)) == rows(read_log(source, SCHEMA))
    assert rows(files.read(*files.chunks)) == rows(read_log(source, SCHEMA))


def path_of(chunk: Chunk) -> Path:
    assert isinstance(chunk.file, Path)
    return chunk.file


CELLS = st.text(alphabet='ab",\n\r é', max_size=6)


@settings(max_examples=60, deadline=None)
@given(st.lists(CELLS, min_size=1, max_size=12), st.integers(1, 5), st.integers(1, 9), st.booleans())
def test_no_row_is_cut_wherever_quotes_newlines_and_blocks_fall(
    tmp_path_factory: pytest.TempPathFactory, cells: list[str], size: int, block: int, windows_newlines: bool
) -> None:
    path = tmp_path_factory.mktemp("cut") / "log.csv"
    count = len(cells)
    frame = pl.DataFrame({"x\ny": cells, "film": ["f"] * count, "viewer": ["v"] * count, "liked": [1] * count})
    frame = frame.with_columns(seen=pl.int_range(count), said="x" + pl.Series(cells))
    frame.write_csv(path, line_terminator="\r\n" if windows_newlines else "\n")
    schema = Schema("film", "viewer", "liked", "seen", (Field("said", "context"),))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "BLOCK", block)
        files = ChunkedLog(path, schema, rows=size)
    assert [chunk.rows for chunk in files.chunks[:-1]] == [size] * (len(files.chunks) - 1)
    assert rows(*map(files.read, files.chunks)) == rows(read_log(path, schema))


BARE = Schema("film", "viewer", "liked", "seen")
WRONG = [
    ("liked", 8, "maybe"),
    ("seen", 5, "soon"),
    ("price", 9, "dear"),
    ("film", 3, ""),
    ("title", 9, "another"),
    ("zip", 4, "another"),
]


@pytest.mark.parametrize(("column", "row", "value"), WRONG)
def test_an_error_in_a_piece_is_the_error_in_the_whole(tmp_path: Path, column: str, row: int, value: str) -> None:
    frame = table(10).with_columns(pl.all().cast(pl.String))
    frame = frame.with_columns(film=pl.lit("f1"), viewer=pl.lit("v1"), zip=pl.lit("1"), title=pl.lit("t"))
    frame = frame.with_columns(genres=pl.lit("a"), minutes=pl.lit("1"), look=pl.lit("[1]"))
    held = [value if n == row else old for n, old in enumerate(frame[column].to_list())]
    source = written(frame.with_columns(pl.Series(column, held)), tmp_path, "csv", 2)
    with pytest.raises(DataError) as whole:
        read_log(source, SCHEMA)
    files = ChunkedLog(source, SCHEMA, rows=3)
    with pytest.raises(DataError) as chunked:
        files.read(*files.chunks)
    assert str(chunked.value) == str(whole.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"film,viewer,liked,seen\n", "has no rows"),
        (b'film,viewer,liked,seen\na,b,1,1\n"a\n,b,1,1\nc,\xff,1,1\n', "mark is never closed"),
        (b'film,viewer,liked,seen\na,b,1,1\n"a\n",b,1,1\nc,\xff,1,1\n', "line 5 is not UTF-8"),
        (b"film,viewers,liked,seen\na,b,1,1\n", "no column 'viewer'; did you mean 'viewers'"),
        (b"film,viewer,liked,seen\na,b,1,2024-01-01\na,b,1,7\n", "has dates in .* and numbers in"),
        (b"film,viewer,liked,seen\na,b,1,1\n,b,1,7\n", "row 2, column 'film' is empty"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        list(map((files := ChunkedLog(path, BARE, rows=1)).read, files.chunks))
    assert str(path) in str(error.value)


def test_neither_csv_nor_parquet_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text("film\n")
    with pytest.raises(DataError, match=r"neither \.csv nor \.parquet"):
        ChunkedLog(tmp_path / "log.txt", BARE)
    (tmp_path / "log.parquet").write_bytes(b"not parquet")
    with pytest.raises(DataError, match=r"log.parquet: cannot be read"):
        ChunkedLog(tmp_path / "log.parquet", BARE)
    with pytest.raises(SettingError, match="rows = 0"):
        ChunkedLog(tmp_path / "log.txt", BARE, rows=0)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_file_that_changes_between_chunks_is_noticed(tmp_path: Path, kind: str) -> None:
    frame = table(20)
    files = ChunkedLog(written(frame, tmp_path, kind), SCHEMA, rows=5)
    files.read(files.chunks[0])
    path = path_of(files.chunks[0])
    written(pl.concat([frame, frame[:1]]), tmp_path, kind)
    with pytest.raises(DataError, match="has changed since it was opened"):
        files.read(files.chunks[1])
    written(frame, tmp_path, kind)
    os.utime(path, ns=(0, 1))
    with pytest.raises(DataError, match="has changed since it was opened"):
        files.read(files.chunks[1])
    path.unlink()
    with pytest.raises(DataError, match="no such file"):
        files.read(files.chunks[1])


def test_requests_need_neither_labels_nor_the_items_fields(tmp_path: Path) -> None:
    frame = table(9).select("film", "viewer", "zip", "page", "price")
    files = ChunkedLog(written(frame, tmp_path, "parquet"), SCHEMA, rows=4)
    log = files.read(files.chunks[1], items=False, labels=False)
    assert (log.row.tolist(), log.label.tolist(), dict(log.items.columns)) == ([4, 5, 6, 7], [0] * 4, {})


@pytest.fixture
def files(tmp_path: Path) -> ChunkedLog:
    return ChunkedLog(written(table(50), tmp_path, "parquet", 3), SCHEMA, rows=4)


def test_every_epoch_shows_every_row_once_and_in_another_order(files: ChunkedLog) -> None:
    passes = ShuffledPasses(files, epochs=3, seed=0, buffer_chunks=2)
    assert len(passes) == 3 * passes.buffers_per_epoch
    epochs = []
    for epoch in range(3):
        buffers = [passes.buffer(epoch * passes.buffers_per_epoch + n) for n in range(passes.buffers_per_epoch)]
        epochs.append([int(row) for buffer in buffers for row in buffer.row])
    assert [sorted(epoch) for epoch in epochs] == [list(range(50))] * 3
    assert len({tuple(epoch) for epoch in epochs}) == 3
    with pytest.raises(IndexError):
        passes.buffer(len(passes))


def test_a_buffer_has_the_rows_of_several_chunks_among_each_other(files: ChunkedLog) -> None:
    buffer = ShuffledPasses(files, epochs=1, seed=0, buffer_chunks=2).buffer(0)
    of = np.searchsorted([chunk.first for chunk in files.chunks], buffer.row, side="right")
    assert len(set(of.tolist())) == 2
    assert (np.diff(of) != 0).sum() > 1


def test_passes_resumed_equal_passes_never_stopped(files: ChunkedLog) -> None:
    never = [rows(log) for log in ShuffledPasses(files, epochs=2, seed=5).iterate()]
    for done in (0, 1, 5, len(never)):
        again = ChunkedLog([path_of(chunk) for chunk in files.chunks if chunk.in_file == 0], SCHEMA, rows=4)
        assert [rows(log) for log in ShuffledPasses(again, epochs=2, seed=5).iterate(done)] == never[done:]
    other = [rows(log) for log in ShuffledPasses(files, epochs=2, seed=6).iterate()]
    assert other != never


def test_what_fits_in_one_buffer_is_shuffled_as_a_whole(files: ChunkedLog) -> None:
    passes = ShuffledPasses(files, epochs=1, seed=0, buffer_chunks=100)
    assert len(passes) == 1
    buffer = passes.buffer(0)
    assert rows(buffer.take(np.argsort(buffer.row))) == rows(read_log([f"{path_of(files.chunks[0]).parent}/*"], SCHEMA))
    assert abs(np.corrcoef(buffer.row, np.arange(50))[0, 1]) < 0.5


def test_only_says_which_rows_a_buffer_keeps(files: ChunkedLog) -> None:
    buffers = list(ShuffledPasses(files, epochs=1, seed=0, row_filter=lambda log: log.take(log.label == 1)).iterate())
    clicked = read_log(f"{path_of(files.chunks[0]).parent}/*", SCHEMA)
    clicked = clicked.take(clicked.label == 1)
    assert sorted(row for buffer in buffers for row in buffer.row.tolist()) == clicked.row.tolist()
    assert all(
        len(buffer) == 0
        for buffer in ShuffledPasses(files, epochs=1, seed=0, row_filter=lambda log: log.take(log.label > 1)).iterate()
    )


def test_an_error_while_reading_ahead_reaches_the_reader(files: ChunkedLog) -> None:
    buffers = ShuffledPasses(files, epochs=2, seed=0).iterate()
    next(buffers)
    for chunk in files.chunks:
        path_of(chunk).touch()
        os.utime(path_of(chunk), ns=(0, 1))
    with pytest.raises(DataError, match="has changed"):
        list(buffers)


@pytest.mark.parametrize("change", [{"epochs": 0}, {"buffer_chunks": 0}])
def test_passes_that_cannot_be_are_an_error(files: ChunkedLog, change: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match=r"both are at least 1"):
        ShuffledPasses(files, **({"epochs": 1, "seed": 0} | change))


@settings(max_examples=25, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(
    st.integers(1, 40), st.integers(2, 9), st.integers(1, 8), st.sets(st.integers(0, 9), min_size=1), st.integers(0, 9)
)
def test_windows_are_the_latest_and_the_earliest_events_of_the_whole_log(
    tmp_path_factory: pytest.TempPathFactory, count: int, size: int, most: int, chosen: set[int], seed: int
) -> None:
    source = written(table(count, seed), tmp_path_factory.mktemp("log"), "parquet", min(3, count))
    whole, items = read_log(source, SCHEMA), {f"f{n}" for n in chosen}
    lives: dict[str, list[int]] = {}
    for place in np.lexsort((whole.row, whole.time)):
        lives.setdefault(whole.items.ids[whole.item[place]], []).append(int(place))
    files = ChunkedLog(source, SCHEMA, rows=size)
    for events_of, window in ((latest_events, slice(-most, None)), (earliest_events, slice(most))):
        kept = np.array(sorted(place for item in items for place in lives.get(item, [])[window]), dtype=np.int64)
        if not len(kept):
            with pytest.raises(DataError, match="has an event in these files"):
                events_of(files, items, most)
        else:
            assert rows(events_of(files, items, most)) == rows(whole.take(kept))


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_log_without_some_items_is_the_log_without_their_rows(tmp_path: Path, kind: str, size: int) -> None:
    source = written(table(50), tmp_path, kind, 3)
    whole, files = read_log(source, SCHEMA), ChunkedLog(source, SCHEMA, rows=size)
    rest = files.without_items(["f1", "f4", "nothing"])
    right = whole.take(~np.isin(np.array(whole.items.ids)[whole.item], ["f1", "f4"]))
    assert (len(rest), len(files)) == (len(right), 50)
    assert rows(*map(rest.read, rest.chunks)) == rows(right)
    passes = ShuffledPasses(rest, 1, 0)
    for number in range(len(passes)):
        shares = [passes.share(number, index, 3) for index in range(3)]
        assert sorted(place for _, places, _ in shares for place in places) == list(range(len(passes.buffer(number))))
    with pytest.raises(DataError, match="all events of the log are of 9 items"):
        files.without_items([f"f{n}" for n in range(9)])
