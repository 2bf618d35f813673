"""The first commands on a table of one's own: what is missing is said at once, and what would make a useless model is no secret."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from newcomer.data.inference.schema import propose
from newcomer.data.inference.value_types import decimal_comma
from newcomer.errors import DataError, DataWarning
from shell import Shell
from test_docs import PAGES, blocks, write_readers_files

OWN = {"item": "film_nr", "user": "watcher", "label": "verdict", "time": "moment"}
"""Names of columns that say nothing to a program."""

QUICK = ["--set", "pretrain_epochs=1", "--set", "meta_epochs=1", "--set", "calibrate=false", "--set", "device='cpu'"]


def watches(rows: int = 400) -> pl.DataFrame:
    chance = np.random.default_rng(0)
    film = chance.integers(0, 12, rows)
    return pl.DataFrame(
        {
            "item": [f"f{n}" for n in film],
            "user": [f"w{n}" for n in chance.integers(0, 30, rows)],
            "genre": [("war", "love", "fun")[n % 3] for n in film],
            "device": chance.choice(["tv", "phone"], rows),
            "label": chance.integers(0, 2, rows),
            "time": range(rows),
        }
    )


def test_a_schema_without_item_fields_is_named(shell: Shell) -> None:
    """`train half watches.csv --schema half.toml`, the schema with ids alone: every new item got the same score, without a word."""
    watches().write_csv(shell.folder / "watches.csv")
    (shell.folder / "half.toml").write_text('[data.schema]\nitem = "item"\nuser = "user"\n')
    code, _, err = shell.call("train", "half", "watches.csv", "--schema", "half.toml", *QUICK)
    assert code == 0
    assert err.splitlines() == [
        "newcomer: watches.csv: no field has the role item: every new item gets the same score before its first event; columns of "
        "the log that are not used: genre, device"
    ]
    watches().drop("genre").write_csv(shell.folder / "ids.csv")
    code, _, err = shell.call("inspect", "ids.csv")
    assert code == 0
    assert err.endswith("not used: none\n")
    assert shell.call("inspect", "watches.csv")[2] == ""


def test_columns_with_names_of_ones_own_are_all_asked_for_at_once(shell: Shell) -> None:
    """`inspect --write` named one column a run, offered `set it in a recipe`, wrote none, and had no option to name it."""
    watches().rename(OWN).write_csv(shell.folder / "own.csv")
    message = shell.fails("inspect", "own.csv", "--write", "own.toml")
    assert "the item (candidates by their values: watcher, film_nr, genre, device); for the user (" in message
    assert (
        "the label (candidates by their values: verdict); for the time (candidates by their values: moment" in message
    )
    assert "--column item=NAME --column user=NAME --column label=NAME --column time=NAME" in message
    assert "(in Python propose(…, item=NAME, user=NAME, label=NAME, time=NAME))" in message
    named = [word for role, name in OWN.items() for word in ("--column", f"{role}={name}")]
    code, _, err = shell.call("inspect", "own.csv", "--write", "own.toml", *named)
    assert (code, err) == (0, "")
    schema = propose(shell.folder / "own.csv", item="film_nr", user="watcher", label="verdict", time="moment").schema
    assert (schema.item, schema.user, schema.label, schema.time) == tuple(OWN.values())
    assert [(field.name, field.role) for field in schema.fields] == [("genre", "item"), ("device", "context")]
    assert shell.call("train", "one", "own.csv", *named, *QUICK)[0] == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["film=film_nr"],
            "--column film=film_nr: give one of item, user, label, time, weight once, such as item=film_nr",
        ),
        (["item=a", "item=b"], "--column item=b: give one of"),
        (["item"], "--column item: give one of"),
        (["item=film"], "own.csv: no column 'film'; did you mean 'film_nr'?"),
        (["label=genre"], "own.csv: column 'genre' is named as the label, but it must hold 0 and 1"),
        (["time=genre"], "own.csv: column 'genre' is named as the time, but it must hold numbers or dates"),
        (["item=watcher", "user=watcher", "label=verdict", "time=moment"], "column 'watcher' is used twice"),
    ],
)
def test_a_column_that_is_named_wrongly_is_refused(words: list[str], message: str, shell: Shell) -> None:
    watches().rename(OWN).write_csv(shell.folder / "own.csv")
    assert message in shell.fails("inspect", "own.csv", *(part for word in words for part in ("--column", word)))


def test_columns_are_not_named_beside_a_schema_or_of_a_model(shell: Shell) -> None:
    assert "--column says nothing beside --schema x.toml" in shell.fails(
        "train", "s", "l.csv", "--schema", "x.toml", "--column", "item=a"
    )


def test_ratings_in_a_named_column_get_a_threshold(tmp_path: Path) -> None:
    watches().rename(OWN).with_columns(verdict=pl.int_range(pl.len()) % 5 + 1).write_csv(tmp_path / "own.csv")
    schema = propose(tmp_path / "own.csv", item="film_nr", user="watcher", label="verdict", time="moment").schema
    assert schema.clicked_from == 4


def test_the_label_of_a_small_table_is_found_and_its_time_is_none(shell: Shell) -> None:
    """README's table: `liked` depended on the viewer by chance, and `inspect` offered the time as the label."""
    write_readers_files(shell.folder)
    shell.call("inspect", "clicks.csv")
    schema = propose("clicks.csv").schema
    assert (schema.label, schema.clicked_from, schema.time) == ("liked", None, "seen_at")
    pl.read_csv("clicks.csv").drop("liked").write_csv("unlabelled.csv")
    assert "the label (candidates by their values: device)" not in shell.fails("inspect", "unlabelled.csv")
    assert "the label (candidates by their values: none)" in shell.fails("inspect", "unlabelled.csv")


@pytest.mark.filterwarnings("ignore::newcomer.errors.DataWarning")
def test_the_readmes_blocks_work_one_after_another(shell: Shell) -> None:
    write_readers_files(shell.folder)
    exec(compile(blocks(PAGES[0])[1], "README.md", "exec"), {})
    for words in ("inspect clicks.csv --write clicks.toml", "train shop clicks.csv --schema clicks.toml"):
        code, _, err = shell.call(*words.split())
        assert code == 0, err


def test_an_attribute_of_users_is_no_label_beside_a_rating(tmp_path: Path) -> None:
    table = watches().with_columns(
        rating=pl.int_range(pl.len()) % 5, purchased=(pl.col("user").str.slice(1).cast(pl.Int64) % 2)
    )
    table.drop("label").write_csv(tmp_path / "log.csv")
    assert propose(tmp_path / "log.csv").schema.label == "rating"


def test_decimal_commas_are_no_list(tmp_path: Path) -> None:
    """`3,25` in a CSV with semicolons was proposed as a field of two values, 3 and 25."""
    prices = [f"{n % 7},{n % 10}{n % 4}" for n in range(400)]
    watches().with_columns(price=pl.Series(prices)).write_csv(tmp_path / "log.csv", separator=";")
    with pytest.warns(DataWarning, match="column 'price' is left out: numbers with decimal commas, such as 0,00"):
        found = propose(tmp_path / "log.csv")
    assert "write them with decimal points" in found.reasons["price"]
    assert "price" not in {field.name for field in found.schema.fields}
    tags = [["3,7", "3", "12,7,4", "4,12"][n % 4] for n in range(400)]
    watches().with_columns(tags=pl.Series(tags)).write_csv(tmp_path / "log.csv", separator=";")
    assert {field.name: field.kind for field in propose(tmp_path / "log.csv").schema.fields}["tags"] == "multi"
    assert decimal_comma(pl.Series(["1", "2"])) is None


def test_a_part_without_rows_may_have_other_columns(tmp_path: Path) -> None:
    """`read_log` skips it; `inspect` ended in an error of the column."""
    watches().write_csv(tmp_path / "1.csv")
    (tmp_path / "2.csv").write_text("a,b\n")
    assert propose(tmp_path).rows == 400


def test_a_part_whose_labels_are_empty_is_named(tmp_path: Path) -> None:
    watches().write_csv(tmp_path / "1.csv")
    watches().with_columns(label=pl.lit(None)).write_csv(tmp_path / "2.csv")
    with pytest.raises(DataError, match=r"'label' is empty in .*2\.csv"):
        propose(tmp_path)
