"""Files and columns of other kinds are read, or refused by name, with the file and the row."""

from collections.abc import Callable
from datetime import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from newcomer.data.inference.schema import propose
from newcomer.data.io.chunked_log import ChunkedLog
from newcomer.data.io.column_parsing import ROW
from newcomer.data.io.log_reader import ORIGINAL_ID, log_from_frame, read_log
from newcomer.data.io.log_statistics import CLICKS, EVENTS, WEIGHTS, LogStatistics
from newcomer.data.io.row_files import read_rows
from newcomer.data.io.tables import read_table
from newcomer.data.io.timestamps import DATED, FRACTION
from newcomer.data.labels import ORIGINAL_LABEL
from newcomer.data.schema import INTERNAL_COLUMNS, Field, Schema
from newcomer.data.value_conflicts import COUNT, CURRENT, FIRST, INDEX, LATEST, TIME
from newcomer.errors import DataError, DataWarning
from shell import Shell

SCHEMA = Schema("item", "user", "click", "time", (Field("page", "context", missing="mark"),))


def table(count: int = 300) -> pl.DataFrame:
    chance = np.random.default_rng(0)
    return pl.DataFrame(
        {
            "item": [f"i{n}" for n in chance.integers(0, 20, count)],
            "user": [f"u{n}" for n in chance.integers(0, 9, count)],
            "click": chance.integers(0, 2, count),
            "time": range(count),
            "page": [["home", "list", "cart"][n] for n in chance.integers(0, 3, count)],
        }
    )


CATEGORY, ENUM = pl.Categorical(), pl.Enum(["home", "list", "cart"])


@pytest.mark.parametrize("kind", [CATEGORY, ENUM, pl.Binary()])
def test_a_column_of_categories_is_text(tmp_path: Path, kind: Any) -> None:
    """pandas writes categories into parquet: `inspect` ended in an error of polars."""
    frame = table().with_columns(pl.col("page", "item", "user").cast(pl.String).cast(pl.Categorical))
    frame = frame.with_columns(pl.col("page").cast(pl.String).cast(kind))
    frame.write_parquet(tmp_path / "a.parquet")
    table().write_csv(tmp_path / "b.csv")
    for source in (tmp_path / "a.parquet", [tmp_path / "a.parquet", tmp_path / "b.csv"]):
        found = propose(source)
        assert [(field.name, field.kind) for field in found.schema.fields] == [("page", "categorical")]
        log = read_log(source, found.schema)
        assert log.context["page"].names == ("cart", "home", "list")
        assert (files := ChunkedLog(source, found.schema, 50)).read(*files.chunks).items.ids == log.items.ids


def test_columns_that_a_log_cannot_have_are_named(tmp_path: Path) -> None:
    """Nested lists, structs, bytes that are no text and durations in a warehouse's parquet: raw errors of polars."""
    count = 300
    frame = table().with_columns(
        nested=pl.Series([[[1], [2]]] * count),
        struct=pl.Series([{"a": 1}] * count),
        bytes=pl.Series([b"\xff\xfe"] * count),
        took=pl.lit(pl.Series(range(count))).cast(pl.Duration("us")),
        price=pl.Series([n % 20 + 0.25 for n in range(count)]).cast(pl.Decimal(10, 2)),
        nothing=pl.Series([None] * count),
        clock=pl.Series([time(n % 24) for n in range(count)]),
    )
    frame.write_parquet(tmp_path / "log.parquet")
    reasons = propose(tmp_path / "log.parquet").reasons
    assert [reasons[name].partition(";")[0] for name in ("nested", "struct", "bytes", "took")] == [
        "left out: holds list(list(int64))",
        "left out: holds struct({'a': int64})",
        "left out: holds bytes that are not UTF-8",
        "left out: holds duration(time_unit='us')",
    ]
    assert "numbers" in reasons["price"]
    for column, message in (
        ("nested", "column 'nested' is categorical, but holds list"),
        ("struct", "column 'struct' is categorical, but holds struct"),
        ("bytes", "row 1, column 'bytes' holds bytes that are not UTF-8"),
    ):
        schema = Schema("item", "user", "click", "time", (Field(column, "context"),))
        with pytest.raises(DataError, match=message):
            read_log(tmp_path / "log.parquet", schema)
    with pytest.raises(DataError, match=r"column 'nested' holds lists of list\(int64\); write a list of values"):
        log_from_frame(frame, Schema("item", "user", "click", "time", (Field("nested", "context", "multi"),)))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("log.csv.zip", "an archive"),
        ("log.parquet.gz", "a compressed file"),
        ("log.XLSX", "a spreadsheet"),
        ("log.json", "JSON as a whole"),
        ("log.orc", "a columnar file"),
    ],
)
def test_another_format_is_named(shell: Shell, name: str, said: str) -> None:
    """`inspect log.tsv` spoke of a store's manifest; training and piecewise reading say the same."""
    (shell.folder / name).write_text(table().write_csv())
    code, _, err = shell.call("inspect", name)
    assert code == 2
    assert f"{name}: neither .csv nor .parquet, but {said}" in err
    for read in (read_log, ChunkedLog):
        with pytest.raises(DataError, match=f"neither .csv nor .parquet, but {said}"):
            read(shell.folder / name, SCHEMA)


@pytest.mark.parametrize(
    ("last", "called"), [("page", "vertical bars"), ("page;of", "semicolons"), ("page\tof", "tabs")]
)
def test_another_separator_is_named(tmp_path: Path, last: str, called: str) -> None:
    """'no column for the item' said nothing of vertical bars; a header with two separators could be read in two ways."""
    path = tmp_path / "log.csv"
    table().rename({"page": last}).write_csv(path, separator="|", quote_style="never")
    for read in (
        lambda: propose(path),
        lambda: read_log(path, SCHEMA),
        lambda: (files := ChunkedLog(path, SCHEMA)).read(*files.chunks),
    ):
        with pytest.raises(DataError, match=f"log.csv.*the header is separated by {called}, not by commas"):
            read()


def test_a_folder_without_tables_is_named(tmp_path: Path) -> None:
    """A warehouse writes a folder of parts, which is read; one of none is said to be."""
    (tmp_path / "clicks").mkdir()
    (tmp_path / "clicks" / "_SUCCESS").touch()
    for read in (propose, lambda source: read_log(source, SCHEMA), lambda source: ChunkedLog(source, SCHEMA)):
        with pytest.raises(DataError, match=r"clicks: is a folder without files; give one with CSV or parquet files"):
            read(str(tmp_path / "clicks"))


@pytest.mark.parametrize("row", [2, 250])
def test_a_row_with_too_many_values_is_named(tmp_path: Path, row: int) -> None:
    """A comma in a value that stands in no quotation marks: 'found more fields than defined in Schema', of which row?"""
    path = tmp_path / "log.csv"
    table().write_csv(path)
    lines = path.read_text().splitlines()
    lines[row] += ",more,and more"
    lines.insert(1, '"i1",u1,1,5,"two\nlines"')
    path.write_text("\n".join(lines))
    message = (
        rf"log.csv: cannot be read: row {row + 1} has 7 values, but the header has 5 names; put .* in quotation marks"
    )
    for read in (
        lambda: read_table(path),
        lambda: read_log(path, SCHEMA),
        lambda: propose(path),
        lambda: (files := ChunkedLog(path, SCHEMA, 40)).read(*files.chunks),
    ):
        with pytest.raises(DataError, match=message):
            read()


def test_a_column_that_is_there_twice_is_named(tmp_path: Path) -> None:
    """Two columns of one name, of which the first was taken."""
    (tmp_path / "log.csv").write_text("item,user,click,click,time,page\na,1,0,1,5,home\n")
    ways: list[Callable[[], Any]] = [
        lambda: read_log(tmp_path / "log.csv", SCHEMA),
        lambda: (files := ChunkedLog(tmp_path / "log.csv", SCHEMA)).read(*files.chunks),
    ]
    for read in ways:
        with pytest.raises(DataError, match=r"log\.csv: column 'click' occurs twice"):
            read()


def test_an_open_quotation_mark_is_named(tmp_path: Path) -> None:
    """5" in a size: everything behind it is one value."""
    (tmp_path / "log.csv").write_text('item,user,click,time,page\na,1,1,1,home\nb,1,0,2,5" pipe\nc,1,1,3,home\n')
    for read in (lambda: read_table(tmp_path / "log.csv"), lambda: ChunkedLog(tmp_path / "log.csv", SCHEMA)):
        with pytest.raises(DataError, match=r"log.csv: a quotation mark is never closed"):
            read()


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_empty_parts_of_a_folder_pass(tmp_path: Path, kind: str) -> None:
    """A warehouse writes parts without rows: one of them ended the training."""
    frame = table()
    for name, part in (("a", frame.head(0)), ("b", frame.head(100)), ("c", frame.head(0)), ("d", frame.tail(200))):
        part.write_csv(tmp_path / f"{name}.csv") if kind == "csv" else part.write_parquet(tmp_path / f"{name}.parquet")
    if kind == "csv":
        (tmp_path / "e.csv").write_bytes(b"")
    source = f"{tmp_path}/*.{kind}"
    whole, files = read_log(source, SCHEMA), ChunkedLog(source, SCHEMA, 70)
    assert whole.row.tolist() == files.read(*files.chunks).row.tolist() == list(range(300))
    assert propose(source).rows == 300
    for path in tmp_path.glob("[bd].*"):
        path.unlink()
    for read in (lambda: read_log(source, SCHEMA), lambda: ChunkedLog(source, SCHEMA), lambda: propose(source)):
        with pytest.raises(DataError, match=r"a\.\w+: has no rows"):
            read()


def test_a_spreadsheets_csv_with_a_mark_of_order_is_read(tmp_path: Path) -> None:
    """'CSV UTF-8' of a spreadsheet begins with three bytes that belong to no name."""
    (tmp_path / "log.csv").write_bytes(b"\xef\xbb\xbf" + table().write_csv().replace("\n", "\r\n").encode())
    files = ChunkedLog(tmp_path / "log.csv", SCHEMA, 70)
    assert len(read_log(tmp_path / "log.csv", SCHEMA)) == len(files.read(*files.chunks)) == 300
    assert propose(tmp_path / "log.csv").schema.item == "item"


@pytest.mark.parametrize("name", [*sorted(INTERNAL_COLUMNS), "len", "count", "value", "name"])
def test_a_column_may_have_the_name_of_an_internal_one(name: str, tmp_path: Path) -> None:
    """`"row "` or `len` in a CSV's header ended `inspect` and `train` in a ValueError or a DuplicateError."""
    values = [f"x{n}" for n in np.random.default_rng(1).integers(0, 7, 400)]
    table(400).with_columns(pl.Series(name, values)).write_csv(tmp_path / "log.csv")
    assert len(read_log(tmp_path / "log.csv", SCHEMA)) == 400
    proposal = propose(str(tmp_path / "log.csv"))
    used = name in {field.name for field in proposal.schema.fields}
    assert used == (name not in INTERNAL_COLUMNS)
    if used:
        assert len(LogStatistics.of(ChunkedLog(tmp_path / "log.csv", proposal.schema, 70)).items.ids) == 20
    else:
        assert proposal.reasons[name] == f"left out: an internal column name; rename it to '{name.strip()}'"
        with pytest.raises(DataError, match=f"schema: '{name}' is an internal column name; rename the column to"):
            Schema("item", "user", fields=(Field(name, "context"),))


def test_all_internal_columns_are_known() -> None:
    """A new one that no schema refuses would clash with a user's."""
    added = {ROW, FRACTION, DATED, ORIGINAL_LABEL, ORIGINAL_ID, EVENTS, CLICKS, WEIGHTS}
    assert added | {COUNT, TIME, FIRST, LATEST, CURRENT, INDEX} == INTERNAL_COLUMNS


def test_a_quotation_mark_inside_a_value_is_named(tmp_path: Path) -> None:
    """Inches in two rows, or a comment behind a quotation: 'could not parse' or 'CSV malformed', of which row?"""
    path = tmp_path / "log.csv"
    for rows in ('b,1,0,2,5" pipe\nc,1,1,3,6" pipe\n', 'b,1,0,2,"home" page\n'):
        path.write_text('item,user,click,time,page\na,1,1,1,"one, ""two""\nlines"\n' + rows)
        reads: list[Callable[[], Any]] = [
            lambda: read_table(path),
            lambda: read_log(path, SCHEMA),
            lambda: propose(path),
        ]
        for read in reads:
            with pytest.raises(
                DataError, match=r"log\.csv: cannot be read: line 4 has a quotation mark inside a value"
            ):
                read()


def test_lines_that_end_in_cr_alone_are_named(tmp_path: Path) -> None:
    """A file of an old Mac 'has no rows'."""
    path = tmp_path / "log.csv"
    path.write_bytes(b"item,user,click,time,page\ra,1,1,1,home\rb,1,0,2,home\r")
    reads: list[Callable[[], Any]] = [
        lambda: read_table(path),
        lambda: read_log(path, SCHEMA),
        lambda: propose(path),
        lambda: ChunkedLog(path, SCHEMA),
    ]
    for read in reads:
        with pytest.raises(DataError, match=r"log\.csv: lines end in CR alone"):
            read()


def test_a_json_file_of_requests_names_the_expected_format(tmp_path: Path) -> None:
    """'neither .csv nor .parquet', though JSON lines are read too."""
    (tmp_path / "r.json").write_text('[{"item": "a"}]')
    with pytest.raises(DataError, match=r"r\.json: JSON as a whole; write JSON lines \(\.jsonl\), one object per line"):
        read_rows(tmp_path / "r.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"sep=,\nitem,user,click,time\na,b,1,1\n", r"line 1 is 'sep=,', which tells a spreadsheet the separator"),
        (b"# made by hand\nitem,user,click,time\na,b,1,1\n", r"line 1 is a comment, '# made by hand', not a header"),
        (
            b"item,user,click,time\na,b,1,1\nitem,user,click,time\n",
            r"row 2, label 'click' is 'click'; the header is repeated",
        ),
        ("item,user,click,time\na,b,1,1\n".encode("utf-16"), r"is UTF-16, as spreadsheets save"),
        (b"item,user,click,time\na,b,,1\n", r"row 1, label 'click' is empty"),
        (b"item,user,click,time\na,b,1,\n", r"row 1, time 'time' is empty"),
    ],
)
def test_what_is_not_a_row_is_called_what_it_is(content: bytes, message: str, tmp_path: Path) -> None:
    """A spreadsheet's `sep=` line was said to have too few names, and UTF-16 to be a line that is not UTF-8."""
    (tmp_path / "log.csv").write_bytes(content)
    schema = Schema("item", "user", "click", "time")
    with pytest.raises(DataError, match=message):
        read_log(tmp_path / "log.csv", schema)
    with pytest.raises(DataError, match=message):
        LogStatistics.of(ChunkedLog(tmp_path / "log.csv", schema))


def test_a_file_counts_once_however_often_it_is_named(tmp_path: Path) -> None:
    """`b.csv`, a symbolic link to `a.csv` in the same folder, doubled its rows; so did a name given twice, for a `ChunkedLog`."""
    table().write_csv(tmp_path / "a.csv")
    (tmp_path / "b.csv").symlink_to("a.csv")
    a, b = tmp_path / "a.csv", tmp_path / "b.csv"
    sources: list[tuple[Any, str]] = [
        (tmp_path, "b.csv: is the same file as .*a.csv; its rows are read once"),
        (str(tmp_path / "*.csv"), "b.csv: is the same file as"),
        ([b, a], "a.csv: is the same file as .*b.csv"),
        ([a, a], "a.csv: is named twice"),
    ]
    for source, message in sources:
        for read in (read_log, ChunkedLog):
            with pytest.warns(DataWarning, match=message):
                assert len(read(source, SCHEMA)) == 300
    assert len(read_log(b, SCHEMA)) == 300
