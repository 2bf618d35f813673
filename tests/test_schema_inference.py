"""Schema inference: the columns of a log get their roles, and misleading ones are left out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from newcomer.data.inference.column_names import ITEM, TIME, USER, rank
from newcomer.data.inference.sampling import sample
from newcomer.data.inference.schema import Proposal, propose, propose_stream, read_schema, write_schema
from newcomer.data.io.log_reader import read_log
from newcomer.data.schema import INTERNAL_COLUMNS, Field, Kind, Role, Schema
from newcomer.errors import DataError
from newcomer.experiments.recipe import read_recipe

ROWS, SHOPS, PEOPLE = 3000, 60, 150


def table() -> pl.DataFrame:
    """A log with fields of every role and kind, and with columns that are none."""
    chance = np.random.default_rng(0)
    thing, person = chance.integers(0, SHOPS, ROWS), chance.integers(0, PEOPLE, ROWS)
    click = chance.integers(0, 2, ROWS)
    of_item: dict[str, list[Any]] = {
        "brand": [f"brand {n % 7}" for n in range(SHOPS)],
        "price": [round(3 + n * 1.37 % 20, 2) for n in range(SHOPS)],
        "tags": ["|".join(("new", "red", "big")[: 1 + n % 3]) for n in range(SHOPS)],
        "title": [f"a thing of kind {n % 11} called {n}" for n in range(SHOPS)],
        "look": [f"[{n * 0.5}, {n % 3 * 0.1:.1f}, 1.0]" for n in range(SHOPS)],
    }
    of_user: dict[str, list[Any]] = {
        "zip": [f"0{n % 40:04d}" for n in range(PEOPLE)],
        "age": [None if n == 3 else 18 + n % 60 for n in range(PEOPLE)],
    }
    return pl.DataFrame(
        {
            "event_id": [f"e{n * 7919 % 100003}" for n in range(ROWS)],
            "product_id": [f"p{n}" for n in thing],
            "customer": person,
            "clicked": click,
            "shown_at": [f"2024-03-{1 + n // 200:02d}T{n // 60 % 24:02d}:{n % 60:02d}:00Z" for n in range(ROWS)],
            **{name: [values[n] for n in thing] for name, values in of_item.items()},
            **{name: [values[n] for n in person] for name, values in of_user.items()},
            "page": [["home", "list", "search"][n] for n in chance.integers(0, 3, ROWS)],
            "load_seconds": chance.random(ROWS).round(4),
            "country": ["NL"] * ROWS,
            "empty": [None] * ROWS,
            "nonclk": 1 - click,
            "dwell_time": [round(5 * y * u, 3) for y, u in zip(click, chance.random(ROWS), strict=True)],
            "answer": [["no", "not at all", "yes"][2 * y] for y in click],
            "basket": [f"b{n}" if y else None for n, y in enumerate(click)],
            "sku_number": [f"s{n}" for n in thing],
        },
        strict=False,
    )


EXPECTED: dict[str, tuple[Role, Kind]] = {
    "brand": ("item", "categorical"),
    "price": ("item", "numeric"),
    "tags": ("item", "multi"),
    "title": ("item", "text"),
    "look": ("item", "vector"),
    "zip": ("user", "categorical"),
    "age": ("user", "numeric"),
    "page": ("context", "categorical"),
    "load_seconds": ("context", "numeric"),
}


@pytest.fixture(scope="module", params=["csv", "parquet"])
def file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("logs") / f"clicks.{request.param}"
    table().write_csv(path) if request.param == "csv" else table().write_parquet(path)
    return path


@pytest.fixture(scope="module")
def proposal(file: Path) -> Proposal:
    return propose(file)


def test_the_schema_of_a_simulated_log_is_inferred(proposal: Proposal) -> None:
    schema = proposal.schema
    assert (schema.item, schema.user, schema.label, schema.time) == ("product_id", "customer", "clicked", "shown_at")
    assert {field.name: (field.role, field.kind) for field in schema.fields} == EXPECTED
    assert {field.name for field in schema.fields if field.missing == "mark"} == {"age"}
    assert schema.clicked_from is None
    assert proposal.rows == ROWS


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        ("event_id", "another value in every row, such as an event id"),
        ("country", "the same value in all rows, 'NL'"),
        ("empty", "empty in all rows"),
        ("nonclk", "'clicked' in other values"),
        ("answer", "'clicked' in other values"),
        ("dwell_time", "by its name an outcome"),
        ("basket", "nearly always determines 'clicked'"),
        ("sku_number", "one-to-one with 'product_id'"),
    ],
)
def test_misleading_columns_are_left_out_with_a_reason(proposal: Proposal, column: str, reason: str) -> None:
    assert column in proposal.left_out
    assert proposal.reasons[column].startswith(f"left out: {reason}")


def test_every_column_has_one_line_of_reason_and_some_values(proposal: Proposal) -> None:
    columns = table().columns
    assert list(proposal.reasons) == list(proposal.samples) == columns
    assert all(reason and "\n" not in reason for reason in proposal.reasons.values())
    assert all(1 <= len(proposal.samples[column]) <= 5 for column in columns if column != "empty")
    assert proposal.samples["country"] == ["NL"]


def test_what_is_proposed_reads_the_log_and_makes_a_stream(proposal: Proposal, file: Path, tmp_path: Path) -> None:
    assert len(read_log(file, proposal.schema)) == ROWS
    write_schema(proposal, tmp_path / "mine.toml")
    recipe = read_recipe(str(tmp_path / "mine.toml"))
    stream = recipe.build_stream()
    assert stream.info()["old_items"] >= 20
    assert stream.info()["new_items"] >= 20
    learner: Any = recipe.build_learner(stream)
    assert learner.schema == proposal.schema


def test_a_written_schema_comes_back(proposal: Proposal, tmp_path: Path) -> None:
    write_schema(proposal, tmp_path / "mine.toml")
    text = (tmp_path / "mine.toml").read_text()
    assert read_schema(tmp_path / "mine.toml") == proposal.schema
    for column, reason in proposal.reasons.items():
        assert any(column in line and reason in line for line in text.splitlines())


NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
FIELDS = st.builds(
    Field,
    name=NAMES.filter(lambda name: name not in INTERNAL_COLUMNS),  # which are refused
    role=st.sampled_from(["item", "user", "context"]),
    kind=st.sampled_from(["categorical", "multi", "numeric", "text", "vector"]),
    missing=st.sampled_from(["error", "mark"]),
    min_count=st.integers(1, 5),
    separator=NAMES,
    max_values=st.integers(1, 100),
)


@given(
    st.lists(FIELDS, max_size=4, unique_by=lambda field: field.name),
    st.none() | st.floats(allow_nan=False, allow_infinity=False),
    NAMES,
)
def test_any_schema_and_any_reason_survive_the_file(
    tmp_path_factory: pytest.TempPathFactory, fields: list[Field], clicked_from: float | None, reason: str
) -> None:
    path = tmp_path_factory.mktemp("any") / "mine.toml"
    taken = {field.name for field in fields}
    four = [name + "." * 9 for name in ("i", "u", "l", "t")]
    schema = Schema(four[0], four[1], four[2], four[3], tuple(fields), clicked_from)
    reasons = dict.fromkeys([*four, *taken, reason + "-" * 9], f"{reason}\n{reason}")
    write_schema(Proposal(schema, reasons, None, {}, {"min_old_events": 3, "phase_events": 1}, [reason]), path)
    assert read_schema(path) == schema
    assert read_recipe(str(path)).data["path"] == reason


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[data", "cannot be read as a recipe"),
        ("title = 'x'", r"has no \[data.schema\]"),
        ("[data.schema]\nitem = 'i'", "schema.user is missing"),
    ],
)
def test_a_file_without_a_schema_says_so(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(DataError, match=rf"mine.toml.*{message}"):
        read_schema(tmp_path / "mine.toml")


def proposed(tmp_path: Path, **columns: Any) -> Proposal:
    """Of 400 events: 20 items, 10 users, and these columns or functions of (item, user, row) instead or besides."""
    chance = np.random.default_rng(1)
    item, user = chance.integers(0, 20, 400), chance.integers(0, 10, 400)
    given: dict[str, Any] = {
        "item": item,
        "user": user,
        "label": chance.integers(0, 2, 400),
        "time": np.arange(400) * 60 + 1_700_000_000,
    } | columns
    made = {
        name: [values(i, u, n) for n, (i, u) in enumerate(zip(item.tolist(), user.tolist(), strict=True))]
        if callable(values)
        else values
        for name, values in given.items()
        if values is not None
    }
    pl.DataFrame(made, strict=False).write_parquet(tmp_path / "log.parquet")
    return propose(tmp_path / "log.parquet")


@pytest.mark.parametrize(
    ("stars", "threshold"),
    [([1, 2, 3, 4, 5], 4), ([0.5, 1, 2.5, 4, 5], 4), (range(1, 11), 8), ([0, 25, 50, 75, 100], 75)],
)
def test_of_ratings_the_upper_quarter_of_the_scale_are_clicks(tmp_path: Path, stars: Any, threshold: float) -> None:
    found = proposed(tmp_path, label=None, rating=lambda i, u, n: list(stars)[n % len(stars)])
    assert (found.schema.label, found.schema.clicked_from) == ("rating", threshold)
    assert f"{threshold:g} and more count as clicks" in found.reasons["rating"]


def test_a_few_labels_other_than_0_and_1_are_no_scale(tmp_path: Path) -> None:
    """With 2 as the top of a scale all clicks would be none."""
    with pytest.raises(DataError, match=r"column 'label': 1 of \d+ rows hold neither 0 nor 1, such as 2; correct them"):
        proposed(tmp_path, label=lambda i, u, n: 2 if n == 77 else n % 2)


def test_binary_labels_come_before_ratings_which_are_outcomes(tmp_path: Path) -> None:
    found = proposed(tmp_path, rating=lambda i, u, n: n % 5 + 1)
    assert found.schema.label == "label"
    assert "an outcome" in found.reasons["rating"]


def test_the_best_of_several_names_is_taken_and_the_others_are_named(tmp_path: Path) -> None:
    found = proposed(tmp_path, video=lambda i, u, n: n % 13)
    assert found.schema.item == "item"
    assert "other candidates: 'video'" in found.reasons["item"]


def test_dependencies_that_hold_for_single_rows_only_are_context(tmp_path: Path) -> None:
    found = proposed(tmp_path, user=lambda i, u, n: n // 2 if n < 4 else n, page=lambda i, u, n: f"p{(n * 7 + i) % 9}")
    assert next(field.role for field in found.schema.fields if field.name == "page") == "context"


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (lambda i, u, n: [float(i), i / 3], "vector"),
        (lambda i, u, n: ["a", "b", "c"][: i % 4], "multi"),
        (lambda i, u, n: f"{'ab'[i % 2]};c;d{i % 3}", "multi"),
        (lambda i, u, n: i % 7 == 0, "categorical"),
        (lambda i, u, n: ["unknown", "3", "7"][i % 3], "categorical"),
        (lambda i, u, n: 1000 + n * n % 977, "numeric"),
    ],
)
def test_kinds_are_inferred_from_the_values(tmp_path: Path, values: Callable[[int, int, int], Any], kind: str) -> None:
    found = proposed(tmp_path, thing=values)
    (field,) = found.schema.fields
    assert field.kind == kind
    assert len(read_log(tmp_path / "log.parquet", found.schema)) == 400


def test_a_few_values_that_are_no_numbers_are_counted_and_shown(tmp_path: Path) -> None:
    found = proposed(tmp_path, year=lambda i, u, n: "unknown" if n == 7 else f"{1950 + n % 40}")
    assert "numbers but for 1 of 400 values, such as 'unknown'; 41 values" in found.reasons["year"]


@pytest.mark.parametrize(("value", "shown"), [("maybe", "'maybe'"), (None, "missing")])
def test_a_few_values_that_are_no_labels_are_shown(tmp_path: Path, value: str | None, shown: str) -> None:
    with pytest.raises(DataError, match=rf"true and false, or ratings, and 2 of 400 are not: {shown};"):
        proposed(tmp_path, label=lambda i, u, n: value if n in (7, 9) else str(n % 2))


def test_many_values_most_of_which_occur_once_have_a_least_count(tmp_path: Path) -> None:
    found = proposed(tmp_path, query=lambda i, u, n: f"q{n if n % 2 else n % 16}")
    (field,) = found.schema.fields
    assert (field.kind, field.min_count) == ("categorical", 2)


def test_the_time_once_more_is_left_out(tmp_path: Path) -> None:
    found = proposed(tmp_path, date=lambda i, u, n: f"2023-11-{14 + n // 100}", hour=lambda i, u, n: n // 60 * 5 % 24)
    assert found.schema.time == "time"
    assert found.reasons["date"] == "left out: another time, like 'time'"
    assert [field.name for field in found.schema.fields] == ["hour"]


def test_another_date_is_not_the_time_once_more(tmp_path: Path) -> None:
    found = proposed(
        tmp_path, released=lambda i, u, n: f"2019-01-{1 + i:02d}", joined=lambda i, u, n: 1_600_000_000 + u
    )
    assert "one value in all rows of an item ('item'), a date; derive a year" in found.reasons["released"]
    assert next(field.role for field in found.schema.fields if field.name == "joined") == "user"


def test_what_belongs_to_an_item_or_only_ends_like_a_name_is_no_label_and_no_time(tmp_path: Path) -> None:
    columns = {
        "avg_rating": lambda i, u, n: i % 5,
        "idle_time": lambda i, u, n: n * 37 % 91,
        "release_date": lambda i, u, n: i + 1,
    }
    found = proposed(tmp_path, **columns)
    assert (found.schema.label, found.schema.time) == ("label", "time")
    assert "other candidates" not in found.reasons["label"] + found.reasons["time"]
    with pytest.raises(DataError, match="no column found for the time"):
        proposed(tmp_path, time=None, **columns)
    with pytest.raises(DataError, match="no column found for the label"):
        proposed(tmp_path, label=None, **columns)


def test_a_time_without_a_times_name_is_known_by_its_dates(tmp_path: Path) -> None:
    assert proposed(tmp_path, time=None, moment=lambda i, u, n: 1_700_000_000 + 7 * n).schema.time == "moment"


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"item": None, "thing": lambda i, u, n: i},
            r"the item \(candidates by their values: thing, user\); name it: --column item=NAME \(in Python propose\(…, item=NAME",
        ),
        (
            {"user": None},
            r"the user \(candidates by their values: none\); name it: --column user=NAME \(in Python propose\(…, user=NAME",
        ),
        (
            {"label": lambda i, u, n: 1},
            r"the label \(label by the name, but it must hold 0 and 1.*; candidates by their values: none",
        ),
        (
            {"time": lambda i, u, n: "soon"},
            r"the time \(time by the name, but it must hold numbers",
        ),
    ],
)
def test_what_cannot_be_found_names_the_candidates_and_how_to_say_it(
    tmp_path: Path, columns: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=rf"log.parquet: no column found for {message}"):
        proposed(tmp_path, **columns)


def test_names_are_known_however_they_are_written() -> None:
    for name in ("movieId", "Movie_ID", "MOVIE-ID", "movie id"):
        assert rank(name, ITEM) == ITEM.index("movieid")
    assert rank("eventTime", TIME) == TIME.index("eventtime")
    assert rank("shop_user_id", USER) == len(USER)
    assert rank("colour", ITEM) is None


@given(st.lists(st.integers(1, 300), min_size=2, max_size=60).filter(lambda e: max(e) > 3 and len(set(e)) > 1))
def test_the_proposed_stream_has_old_and_new_items_wherever_there_can_be_any(events: list[int]) -> None:
    counts = np.array(events)
    found = propose_stream(counts)
    least, above = 3 * found["phase_events"], found["min_old_events"]
    possible = any(
        ((counts >= 3 * p) & (counts <= a)).any() and (counts > a).any() for p in (1, 2) for a in (3 * p, 10 * p)
    )
    assert not possible or ((counts > above).any() and ((counts >= least) & (counts <= above)).any())


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_bounded_sample_holds_rows_of_all_parts_of_a_file(tmp_path: Path, suffix: str) -> None:
    frame = pl.DataFrame({"n": np.arange(60_000), "text": ["some words, and a comma"] * 60_000})
    path = tmp_path / f"log.{suffix}"
    frame.write_csv(path) if suffix == "csv" else frame.write_parquet(path, row_group_size=5000)
    found = sample([path], rows=4000, megabytes=0.1)
    numbers = found.frame["n"].cast(pl.Int64)
    assert not found.is_whole
    assert found.rows == (None if suffix == "csv" else 60_000)
    assert 1000 < len(numbers) < 8000
    assert numbers.is_unique().all()
    assert set(found.frame["text"]) == {"some words, and a comma"}
    assert (np.histogram(numbers, bins=4, range=(0, 60_000))[0] > 100).all()


def test_where_values_hold_line_breaks_only_the_head_is_taken(tmp_path: Path) -> None:
    frame = pl.DataFrame({"n": np.arange(20_000), "text": [f"one\n{n},two" for n in range(20_000)]})
    frame.write_csv(tmp_path / "log.csv")
    found = sample([tmp_path / "log.csv"], megabytes=0.05).frame
    assert found["n"].cast(pl.Int64).to_list() == list(range(len(found)))
    assert found["text"].to_list() == [f"one\n{n},two" for n in range(len(found))]


def test_several_files_are_one_log(tmp_path: Path) -> None:
    parts = table().partition_by("page")
    for n, part in enumerate(parts):
        part.write_csv(tmp_path / f"{n}.csv")
    found = propose(f"{tmp_path}/*.csv")
    assert found.rows == ROWS
    assert {field.name: (field.role, field.kind) for field in found.schema.fields} == EXPECTED


def test_files_that_are_no_log_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        propose(tmp_path / "none.csv")
    (tmp_path / "a.csv").write_text("item,user,label,time\n")
    with pytest.raises(DataError, match=r"a.csv: has no rows"):
        propose(tmp_path / "a.csv")
    (tmp_path / "b.parquet").write_text("not parquet")
    with pytest.raises(DataError, match=r"b.parquet: cannot be read"):
        propose(tmp_path / "b.parquet")
