"""The same rows in every format, compression and layout are the same log, to the bit, and the same errors."""

import bz2
import gzip
import io
import lzma
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from newcomer.data.click_log import ClickLog, Column
from newcomer.data.fingerprint import fingerprint
from newcomer.data.inference.schema import propose, write_schema
from newcomer.data.io import chunked_log
from newcomer.data.io.chunked_log import ChunkedLog, open_log
from newcomer.data.io.log_reader import read_log
from newcomer.data.schema import Field, Schema
from newcomer.errors import DataError
from shell import Shell

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

SCHEMA = Schema(
    "film",
    "viewer",
    "liked",
    "seen",
    (
        Field("title", "item"),
        Field("genres", "item", "multi"),
        Field("minutes", "item", "numeric", missing="mark"),
        Field("zip", "user"),
        Field("page", "context", missing="mark"),
        Field("price", "context", "numeric"),
        Field("mobile", "context", missing="mark"),
        Field("session", "context"),
    ),
)


def table(count: int = 60) -> pl.DataFrame:
    """Numbers, truth values, missing values, numbers of more than 53 bits, texts with all that separates."""
    chance = np.random.default_rng(0)
    film, viewer = chance.integers(0, 9, count), chance.integers(0, 15, count)
    return pl.DataFrame(
        {
            "film": [int(n) + 2**60 for n in film],
            "viewer": [f"v{n}" for n in viewer],
            "liked": chance.integers(0, 2, count).astype(bool),
            "seen": [*range(count)],
            "title": [['The "Sea"', "a;b", "tab\there", "Ünïcode, too", "plain", "bar|s"][n % 6] for n in film],
            "genres": ["a|b|c"[: 1 + n % 5] for n in film],
            "minutes": [None if n == 2 else 80.5 + n for n in film],
            "zip": [f"0{n}" for n in viewer],
            "page": sorted(["cart", "home", "list/a b"][n] for n in chance.integers(0, 3, count)),
            "price": chance.normal(size=count),
            "mobile": [[True, False, None][n] for n in chance.integers(0, 3, count)],
            "session": [2**53 + int(n) for n in chance.integers(0, 5, count)],
        }
    )


def delimited(separator: str) -> Callable[[pl.DataFrame], bytes]:
    return lambda frame: frame.write_csv(separator=separator).encode()


def json_lines(frame: pl.DataFrame) -> bytes:
    return frame.write_ndjson().encode()


def parquet(frame: pl.DataFrame) -> bytes:
    frame.write_parquet(stream := io.BytesIO(), row_group_size=7)
    return stream.getvalue()


def ipc(frame: pl.DataFrame) -> bytes:
    frame.write_ipc(stream := io.BytesIO(), compression="zstd", record_batch_size=7)
    return stream.getvalue()


TEXTS = {"csv": delimited(","), "tsv": delimited("\t"), "jsonl": json_lines}
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": zstd.compress,
}


def compressed(
    write: Callable[[pl.DataFrame], bytes], compress: Callable[[bytes], bytes], frame: pl.DataFrame
) -> bytes:
    return compress(write(frame))


WRITERS: dict[str, Callable[[pl.DataFrame], bytes]] = {
    **TEXTS,
    "tab": delimited("\t"),
    "CSV": delimited(";"),
    "ndjson": json_lines,
    "parquet": parquet,
    "arrow": ipc,
    "feather": ipc,
    "ipc": ipc,
    **{
        f"{kind}.{suffix}": partial(compressed, write, compress)
        for kind, write in TEXTS.items()
        for suffix, compress in COMPRESS.items()
    },
}


def single(frame: pl.DataFrame, folder: Path, kind: str) -> str:
    (folder / f"log.{kind}").write_bytes(WRITERS[kind](frame))
    return str(folder / f"log.{kind}")


def parts(frame: pl.DataFrame, folder: Path, kind: str) -> str:
    """Parts in folders, some without rows, beside what a warehouse leaves."""
    for number, (begin, end) in enumerate(pairwise([0, 0, 20, 20, 45, len(frame)])):
        path = folder / f"day {number}" / f"part.{kind}"
        path.parent.mkdir()
        path.write_bytes(WRITERS[kind](frame[begin:end]))
        (path.parent / ".part.crc").write_bytes(b"sum")
    (folder / "_SUCCESS").touch()
    return str(folder)


def hive(frame: pl.DataFrame, folder: Path, kind: str) -> str:
    """Parts in folders that name a column."""
    for page in frame["page"].unique().sort():
        path = folder / f"page={page.replace('/', '%2F')}" / f"part.{kind}"
        path.parent.mkdir()
        path.write_bytes(WRITERS[kind](frame.filter(pl.col("page") == page).drop("page")))
    return f"{folder}/**/*.{kind}"


def column_bits(column: Column) -> tuple[Any, ...]:
    return column.names, column.values.dtype, column.values.shape, column.values.tobytes()


def bits(log: ClickLog) -> list[Any]:
    """All that a log holds."""
    tables = [
        (table.ids, {name: column_bits(column) for name, column in table.columns.items()})
        for table in (log.items, log.users)
    ]
    arrays = [(values.dtype, values.tobytes()) for values in (log.item, log.user, log.label, log.time, log.row)]
    context = {name: column_bits(column) for name, column in log.context.items()}
    return [*tables, context, arrays, log.fraction is None, log.labels, log.has_dates]


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    return bits(read_log(single(table(), tmp_path_factory.mktemp("expected"), "parquet"), SCHEMA))


@pytest.mark.parametrize("layout", [single, parts, hive])
@pytest.mark.parametrize("kind", WRITERS)
def test_the_same_rows_are_the_same_log(
    tmp_path: Path, kind: str, layout: Callable[[pl.DataFrame, Path, str], str], expected: list[Any]
) -> None:
    source = layout(table(), tmp_path, kind)
    assert bits(read_log(source, SCHEMA)) == expected
    files = ChunkedLog(source, SCHEMA, rows=7)
    assert max(chunk.rows for chunk in files.chunks) <= 7
    assert bits(files.read(*files.chunks)) == expected
    assert propose(source).rows == len(table())


WRONG = [
    ("liked", 8, "maybe"),
    ("seen", 25, "soon"),
    ("price", 9, "dear"),
    ("film", 3, None),
    ("session", 5, "1.2E+15"),
]


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize(("column", "row", "value"), WRONG)
def test_the_same_wrong_cell_is_the_same_error(tmp_path: Path, kind: str, column: str, row: int, value: str) -> None:
    frame = table().with_columns(pl.col("film", "liked", "seen", "price", "session").cast(pl.String))
    cells = pl.Series(column, [value if n == row else old for n, old in enumerate(frame[column])])
    whole, chunked = set[str](), set[str]()
    for form in ("parquet", kind):
        source = single(frame.with_columns(cells), tmp_path, form)
        files = ChunkedLog(source, SCHEMA, rows=7)
        for messages, read in (
            (whole, partial(read_log, source, SCHEMA)),
            (chunked, partial(files.read, *files.chunks)),
        ):
            with pytest.raises(DataError) as error:
                read()
            assert str(error.value).startswith(f"{source}: row {row + 1}, ")
            messages.add(str(error.value).removeprefix(source))
    assert (len(whole), len(chunked)) == (1, 1)


@pytest.mark.parametrize("kind", [kind for kind in WRITERS if "." in kind])
@pytest.mark.parametrize("harm", [lambda content: content[:-20], lambda content: b"\0" + content[1:]])
def test_damaged_compressed_files_are_named(tmp_path: Path, kind: str, harm: Callable[[bytes], bytes]) -> None:
    path = tmp_path / f"log.{kind}"
    path.write_bytes(harm(WRITERS[kind](table())))
    for read in (read_log, ChunkedLog, open_log):
        with pytest.raises(DataError, match=rf"log\.{kind}: cannot be read"):
            read(path, SCHEMA)
    with pytest.raises(DataError, match=rf"log\.{kind}: cannot be read"):
        propose(path)


def test_a_large_compressed_file_is_refused_in_chunks_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = single(table(), tmp_path, "csv.gz")
    monkeypatch.setattr(chunked_log, "SMALL", 1000)
    with pytest.raises(
        DataError, match=r"log\.csv\.gz: more than 0 MiB when decompressed.*decompress it \(such as by `gzip -d`"
    ):
        open_log(source, SCHEMA)
    assert isinstance(open_log(single(table(), tmp_path, "jsonl"), SCHEMA), ChunkedLog)


def test_a_column_in_the_file_counts_more_than_the_folders_name(tmp_path: Path) -> None:
    (tmp_path / "page=elsewhere").mkdir()
    log = read_log(single(table(), tmp_path / "page=elsewhere", "parquet"), SCHEMA)
    assert log.context["page"].names == ("cart", "home", "list/a b")


def test_a_partition_without_a_value_is_a_missing_one(tmp_path: Path) -> None:
    (tmp_path / "page=__HIVE_DEFAULT_PARTITION__").mkdir()
    log = read_log(single(table().drop("page"), tmp_path / "page=__HIVE_DEFAULT_PARTITION__", "csv"), SCHEMA)
    assert set(log.context["page"].values.tolist()) == {-1}


def test_a_column_that_older_files_lack_is_missing_there(tmp_path: Path) -> None:
    (tmp_path / "0.jsonl").write_bytes(json_lines(table()[:30].drop("mobile", "minutes")))
    (tmp_path / "1.csv").write_bytes(delimited(",")(table()[30:].drop("minutes")))
    (tmp_path / "2.csv").write_bytes(delimited(",")(table()[:30].with_columns(seen=pl.col("seen") + 100, minutes=None)))
    log = read_log(tmp_path, SCHEMA)
    assert set(log.context["mobile"].values[:30].tolist()) == {-1}
    assert set(log.context["mobile"].values[30:60].tolist()) == {-1, 0, 1}
    files = ChunkedLog(tmp_path, SCHEMA, rows=7)
    assert bits(files.read(*files.chunks)) == bits(log)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a.csv", "a.csv.gz"], r"holds .*a\.csv and .*a\.csv\.gz, perhaps the same rows; keep one of them"),
        (["a.parquet", "a.arrow"], r"perhaps the same rows"),
        (["a.csv", "b.txt"], r"holds .*b\.txt, which is of no format that is read; remove it, or give a pattern"),
        (
            ["a.parquet", "_delta_log/0.json"],
            "is a Delta table, whose files include deleted rows; write its rows as parquet",
        ),
        (["a.parquet", ".hoodie/x"], "is a Hudi table"),
        (["data/a.parquet", "metadata/v1.metadata.json"], "is an Iceberg table"),
    ],
)
def test_a_folder_that_is_not_one_table_is_refused(tmp_path: Path, names: list[str], message: str) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for read in (lambda: read_log(tmp_path, SCHEMA), lambda: ChunkedLog(tmp_path, SCHEMA), lambda: propose(tmp_path)):
        with pytest.raises(DataError, match=message):
            read()


def test_json_lines_are_read_strictly(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    good = json_lines(table()).splitlines()
    for line, message in (
        (b'{"film": 1, "film": 2}', "line 31 has the key 'film' twice"),
        (b"[1]", "line 31 is not a JSON object"),
        (b'{"film": "\xff"}', "line 31 is not UTF-8"),
    ):
        path.write_bytes(b"\n".join([*good[:20], b"", *good[20:29], line, *good[30:]]))
        for read in (read_log, ChunkedLog):
            with pytest.raises(DataError, match=rf"log\.jsonl: {message}"):
                read(path, SCHEMA)


def test_a_fingerprint_covers_every_file_and_its_partitions(tmp_path: Path) -> None:
    source = hive(table(), tmp_path, "csv.gz")
    before = fingerprint({"path": source})
    assert before is not None
    assert before["files"] == 3
    assert fingerprint({"path": str(tmp_path)}) == before
    (tmp_path / "page=cart").rename(tmp_path / "page=basket")
    after = fingerprint({"path": source})
    assert after is not None
    assert after["sha256"] != before["sha256"]


QUICK = [
    word for change in ("width=4", "pretrain_epochs=1", "meta_epochs=1", "warmup_steps=3") for word in ("--set", change)
]


def test_commands_read_a_folder_of_partitions_and_compressed_events(shell: Shell) -> None:
    frame = table().with_columns(liked=pl.col("liked").cast(pl.Int8))
    (shell.folder / "clicks").mkdir()
    hive(frame, shell.folder / "clicks", "csv.zst")
    single(frame, shell.folder, "parquet")
    code, out, err = shell.call("inspect", "clicks", "--json")
    assert (code, err) == (0, "")
    assert '"rows": 60' in out
    write_schema(replace(propose(shell.folder / "clicks"), schema=SCHEMA), shell.folder / "schema.toml")
    code, _, err = shell.call("train", "shop", "clicks", "--schema", "schema.toml", *QUICK)
    assert code == 0, err
    (shell.folder / "requests.jsonl.gz").write_bytes(gzip.compress(json_lines(frame[:5])))
    (shell.folder / "requests.tsv").write_bytes(delimited("\t")(frame[:5]))
    scores = [shell.call("score", "shop", name) for name in ("requests.jsonl.gz", "requests.tsv")]
    assert scores[0] == scores[1]
    assert scores[0][0] == 0
