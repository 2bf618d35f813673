"""Ad Display/Click Data on Taobao.com: eight days of impressions, 26.6 million events of 1.1 million users (Tianchi, data set
56)."""

from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from newcomer.data.click_log import ClickLog, EntityTable
from newcomer.data.io.log_reader import encode_column
from newcomer.data.io.tables import reading_errors, require_columns
from newcomer.data.paths import locate
from newcomer.data.schema import Field, Schema
from newcomer.errors import DataError

GET = (
    "download 'Ad Display/Click Data on Taobao.com' from https://tianchi.aliyun.com/dataset/56 and unpack it so that "
    "data/taobao-ads/raw_sample.csv, ad_feature.csv and user_profile.csv are there"
)

PROFILE = (
    "cms_segid",
    "cms_group_id",
    "final_gender_code",
    "age_level",
    "pvalue_level",
    "shopping_level",
    "occupation",
    "new_user_class_level",
)

SCHEMA = Schema(
    "adgroup_id",
    "user",
    "clk",
    "time_stamp",
    (
        *(Field(name, "item", missing="mark") for name in ("cate_id", "campaign_id", "customer", "brand")),
        Field("price", "item", "numeric", missing="mark"),
        *(Field(name, "user", missing="mark") for name in PROFILE),
        Field("pid", "context", missing="mark"),
    ),
)

NULL = ["", "NULL"]

Indices = NDArray[np.int32]


def taobao_ads(path: str = "taobao-ads") -> ClickLog:
    """Log from a folder with `raw_sample.csv`, `ad_feature.csv` and `user_profile.csv`: 16 fields, ids included.

    Items are ad groups, labels `clk`, times in seconds. Users without a profile are kept, with missing fields. Raises DataError
    for another folder, for an invalid row, with file and row, and for an ad group without features.
    """
    folder = locate(path, "Taobao's ads", GET)
    events = _read(
        folder / "raw_sample.csv",
        {"user": pl.Int32, "time_stamp": pl.Int64, "adgroup_id": pl.Int32, "pid": pl.Categorical, "clk": pl.Int8},
        needed=("user", "time_stamp", "adgroup_id", "clk"),
    )
    wrong = ~events["clk"].is_in([0, 1])
    if wrong.any():
        row = int(wrong.arg_true()[0])
        raise DataError(f"{folder / 'raw_sample.csv'}: row {row + 1}, clk is {events['clk'][row]}; it must be 0 or 1")
    items, item = _entities(events["adgroup_id"], _ads(folder), "item")
    users, user = _entities(events["user"], _profiles(folder), "user")
    unknown = items["known"].is_null().to_numpy()
    if unknown.any():
        row = int(unknown[item].argmax())
        named = events["adgroup_id"][row]
        raise DataError(
            f"{folder / 'raw_sample.csv'}: row {row + 1} names adgroup_id {named}, which is not in ad_feature.csv"
        )
    return ClickLog(
        SCHEMA,
        _table(items, "item"),
        _table(users, "user"),
        {"pid": encode_column(events["pid"].cast(pl.String), SCHEMA.of("context")[0])},
        item,
        user,
        label=events["clk"].cast(pl.Float32).to_numpy(),
        time=events["time_stamp"].to_numpy(),
        row=np.arange(len(events)),
    )


def _ads(folder: Path) -> pl.DataFrame:
    names = dict.fromkeys(("cate_id", "campaign_id", "customer", "brand"), pl.String)
    path = folder / "ad_feature.csv"
    return _read(path, {"adgroup_id": pl.Int32, **names, "price": pl.Float64}, needed=("adgroup_id",))


def _profiles(folder: Path) -> pl.DataFrame:
    return _read(folder / "user_profile.csv", {"userid": pl.Int32} | dict.fromkeys(PROFILE, pl.String), ("userid",))


def _read(path: Path, types: dict[str, type[pl.DataType]], needed: tuple[str, ...]) -> pl.DataFrame:
    """Read columns with these dtypes from a file whose header may have blanks around its names."""
    if not path.is_file():
        raise DataError(f"{path.parent}: no {path.name} here; {GET}")
    with reading_errors(path):
        header = pl.read_csv(path, n_rows=0, infer_schema=False).columns
        names = {name.strip(): name for name in header}
        require_columns(names, types, str(path))
        wanted = {names[name]: kind for name, kind in types.items()}
        scan = pl.scan_csv(path, infer_schema=False, schema_overrides=wanted, null_values=NULL, ignore_errors=True)
        frame = (
            scan.select(list(wanted)).collect().rename({given: name for name, given in names.items() if name in types})
        )
    for name in (name for name, kind in types.items() if name in needed or kind.is_numeric()):
        _require_read(path, frame[name], names[name], name in needed)
    return frame


def _require_read(path: Path, column: pl.Series, given: str, needed: bool) -> None:
    """Raises DataError for a value that is not of the column's dtype, or missing where it is needed."""
    if not column.null_count():
        return
    texts = pl.scan_csv(path, infer_schema=False, null_values=NULL).select(given).collect()[given]
    wrong = column.is_null() if needed else column.is_null() & texts.is_not_null()
    if wrong.any():
        row = int(wrong.arg_true()[0])
        raise DataError(f"{path}: row {row + 1}, {given.strip()} is {texts[row]!r}; it must be a number")


def _entities(used: pl.Series, known: pl.DataFrame, role: str) -> tuple[pl.DataFrame, Indices]:
    """Features of the ids that occur in `used`, sorted by id as text, and the index of each row of `used` in them."""
    key = known.columns[0]
    known = known.unique(key, keep="first").with_columns(known=pl.lit(True))
    ids = used.unique().sort().to_frame(key)
    text = ids[key].cast(pl.String)
    order = text.arg_sort()
    index = np.empty(len(ids), dtype=np.int32)
    index[order.to_numpy()] = np.arange(len(ids), dtype=np.int32)
    at = np.searchsorted(ids[key].to_numpy(), used.to_numpy())
    return ids[order].join(known, on=key, how="left", maintain_order="left"), index[at]


def _table(frame: pl.DataFrame, role: str) -> EntityTable:
    fields = [field for field in SCHEMA.fields if field.role == role]
    columns = {field.name: frame[field.name] for field in fields}
    filled = {
        name: column.fill_null(float("nan")) if column.dtype.is_float() else column for name, column in columns.items()
    }
    return EntityTable(
        tuple(frame[frame.columns[0]].cast(pl.String)),
        {field.name: encode_column(filled[field.name], field) for field in fields},
    )
