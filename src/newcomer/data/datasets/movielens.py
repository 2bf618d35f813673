"""MovieLens from its original files; ratings of at least 4 are clicks."""

from pathlib import Path

import numpy as np
import polars as pl

from newcomer.data.click_log import ClickLog, EntityTable
from newcomer.data.io.log_reader import encode_column
from newcomer.data.paths import locate
from newcomer.data.schema import Field, Schema
from newcomer.data.tokenization import tokenize
from newcomer.errors import DataError

CLICK_THRESHOLD = 4.0
"""Ratings of at least this value are clicks."""

SCHEMA_1M = Schema(
    "item",
    "user",
    fields=(
        Field("year", "item"),
        Field("title", "item", "text", min_count=4),  # rarer words are names, not descriptions
        Field("genres", "item", "multi"),
        Field("gender", "user"),
        Field("age", "user"),
        Field("occupation", "user"),
        Field("zip", "user"),
    ),
)
SCHEMA_LATEST = Schema("item", "user", fields=SCHEMA_1M.of("item"))

_YEAR = r"\((\d{4})\)\s*$"


def movielens_1m(path: str = "ml-1m") -> ClickLog:
    """MovieLens-1M from a folder with `ratings.dat`, `users.dat` and `movies.dat`. Nine fields, ids included.

    Raises DataError for another folder, and for an invalid row, with file and row.
    """
    folder = _folder(path, ("ratings.dat", "users.dat", "movies.dat"), "1m")
    ratings = _split(folder / "ratings.dat", ["user", "item", "rating", "time"])
    users = _split(folder / "users.dat", ["user", "gender", "age", "occupation", "zip"])
    movies = _split(folder / "movies.dat", ["item", "title", "genres"])
    return _log(SCHEMA_1M, folder / "ratings.dat", ratings, movies, users)


def movielens_latest(path: str = "ml-latest-small") -> ClickLog:
    """MovieLens latest-small (or latest) from a folder with `ratings.csv` and `movies.csv`. Five fields, ids included."""
    folder = _folder(path, ("ratings.csv", "movies.csv"), "latest")
    ratings = _csv(
        folder / "ratings.csv", ["userId", "movieId", "rating", "timestamp"], ["user", "item", "rating", "time"]
    )
    movies = _csv(folder / "movies.csv", ["movieId", "title", "genres"], ["item", "title", "genres"])
    return _log(SCHEMA_LATEST, folder / "ratings.csv", ratings, movies, ratings.select(pl.col("user").unique()))


def _folder(path: str, names: tuple[str, ...], page: str) -> Path:
    get = f"download it from https://grouplens.org/datasets/movielens/{page}/ and unpack it so that data/{path}/{names[0]} is there"
    folder = locate(path, f"MovieLens {page}", get)
    for name in names:
        if not (folder / name).is_file():
            raise DataError(f"{folder}: no {name} here; {get}")
    return folder


def _split(path: Path, names: list[str]) -> pl.DataFrame:
    """Columns of a '::'-separated file in latin-1."""
    lines = pl.Series("line", path.read_bytes().decode("latin-1").splitlines())
    invalid = lines.str.count_matches("::", literal=True) != len(names) - 1
    if invalid.any():
        row = int(invalid.arg_true()[0])
        raise DataError(
            f"{path}: row {row + 1} does not have the {len(names)} parts {'::'.join(names)}: {lines[row]!r}"
        )
    return lines.str.split_exact("::", len(names) - 1).struct.rename_fields(names).struct.unnest()


def _csv(path: Path, names: list[str], renamed: list[str]) -> pl.DataFrame:
    try:
        frame = pl.read_csv(path, infer_schema=False).select(names)
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{path}: not MovieLens's CSV ({str(error).splitlines()[0]})") from None
    invalid = frame.select(pl.any_horizontal(pl.all().is_null())).to_series()
    if invalid.any():
        raise DataError(f"{path}: row {int(invalid.arg_true()[0]) + 1} lacks one of {', '.join(names)}")
    return frame.rename(dict(zip(names, renamed, strict=True)))


def _log(schema: Schema, path: Path, ratings: pl.DataFrame, movies: pl.DataFrame, users: pl.DataFrame) -> ClickLog:
    year = pl.col("title").str.extract(_YEAR).fill_null("unknown")
    words = tokenize(movies["title"].str.replace(_YEAR, ""))
    movies = movies.with_columns(year=year, genres=pl.col("genres").str.split("|")).with_columns(
        title=words.list.unique(maintain_order=True)
    )
    items, item = _entities(movies, "item", schema.of("item"), ratings["item"], path)
    user_table, user = _entities(users, "user", schema.of("user"), ratings["user"], path)
    return ClickLog(
        schema,
        items,
        user_table,
        {},
        item,
        user,
        label=(_number(ratings["rating"], path) >= CLICK_THRESHOLD).astype(np.float32),
        time=_number(ratings["time"], path).astype(np.int64),
        row=np.arange(len(ratings)),
    )


def _entities(
    frame: pl.DataFrame, name: str, fields: tuple[Field, ...], used: pl.Series, path: Path
) -> tuple[EntityTable, np.ndarray[tuple[int], np.dtype[np.int32]]]:
    """Entity table of the ids that occur in `used`, and the index of each row of `used` in it."""
    frame = frame.filter(pl.col(name).is_in(used.unique().implode())).unique(name, keep="first").sort(name)
    row = used.cast(pl.Enum(frame[name]), strict=False).to_physical().cast(pl.Int32)
    if row.null_count():
        at = int(row.is_null().arg_true()[0])
        raise DataError(f"{path}: row {at + 1} names {name} {used[at]!r}, which is in no other file")
    return EntityTable(
        tuple(frame[name]), {field.name: encode_column(frame[field.name], field) for field in fields}
    ), row.to_numpy()


def _number(column: pl.Series, path: Path) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    numbers = column.cast(pl.Float64, strict=False)
    wrong = ~numbers.is_finite().fill_null(False)
    if wrong.any():
        row = int(wrong.arg_true()[0])
        raise DataError(f"{path}: row {row + 1}, {column.name} {column[row]!r} is not a number")
    return numbers.to_numpy()
