"""Ad Display/Click Data on Taobao.com: eight days of shown ads, 26.6 million events of 1.1 million users (Tianchi, data set 56)."""

from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from newcomer.data.click_log import Log, Table
from newcomer.data.io.log_reader import encoded
from newcomer.data.io.tables import reading, require_columns
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


def taobao_ads(path: str = "taobao-ads") -> Log:
    """The log in `raw_sample.csv`, `ad_feature.csv` and `user_profile.csv` of one folder: 16 fields with the two ids.

    An item is an ad group, a label `clk`, times are in seconds. Users without a profile are kept, their profile is missing.
    Raises DataError for a folder that is not it, for a broken row, with file and row, and for an ad group without features.
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
    items, item = _owners(events["adgroup_id"], _ads(folder), "item")
    users, user = _owners(events["user"], _profiles(folder), "user")
    unknown = items["known"].is_null().to_numpy()
    if unknown.any():
        row = int(unknown[item].argmax())
        named = events["adgroup_id"][row]
        raise DataError(
            f"{folder / 'raw_sample.csv'}: row {row + 1} names adgroup_id {named}, which ad_feature.csv has not"
        )
    return Log(
        SCHEMA,
        _table(items, "item"),
        _table(users, "user"),
        {"pid": encoded(events["pid"].cast(pl.String), SCHEMA.of("context")[0])},
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
    """These columns of a file, whose header may have blanks around its names, in these types."""
    if not path.is_file():
        raise DataError(f"{path.parent}: no {path.name} here; {GET}")
    with reading(path):
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
    """Raises DataError where the file has what is not of the column's type, or nothing where something is needed."""
    if not column.null_count():
        return
    texts = pl.scan_csv(path, infer_schema=False, null_values=NULL).select(given).collect()[given]
    wrong = column.is_null() if needed else column.is_null() & texts.is_not_null()
    if wrong.any():
        row = int(wrong.arg_true()[0])
        raise DataError(f"{path}: row {row + 1}, {given.strip()} is {texts[row]!r}; it must be a number")


def _owners(used: pl.Series, known: pl.DataFrame, role: str) -> tuple[pl.DataFrame, Indices]:
    """What is known of those that occur in `used`, in the order of their ids as text; and the place of each row of `used` in it."""
    key = known.columns[0]
    known = known.unique(key, keep="first").with_columns(known=pl.lit(True))
    ids = used.unique().sort().to_frame(key)
    text = ids[key].cast(pl.String)
    order = text.arg_sort()
    place = np.empty(len(ids), dtype=np.int32)
    place[order.to_numpy()] = np.arange(len(ids), dtype=np.int32)
    at = np.searchsorted(ids[key].to_numpy(), used.to_numpy())
    return ids[order].join(known, on=key, how="left", maintain_order="left"), place[at]


def _table(frame: pl.DataFrame, role: str) -> Table:
    fields = [field for field in SCHEMA.fields if field.role == role]
    columns = {field.name: frame[field.name] for field in fields}
    filled = {
        name: column.fill_null(float("nan")) if column.dtype.is_float() else column for name, column in columns.items()
    }
    return Table(
        tuple(frame[frame.columns[0]].cast(pl.String)),
        {field.name: encoded(filled[field.name], field) for field in fields},
    )
