"""Settings of EmerG that are proposed for a log: what its fields hold decides, and the commands take them."""

import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from newcomer.data.inference.schema import propose, write_schema
from newcomer.data.inference.value_types import infer_kind
from newcomer.data.io.log_reader import read_log
from newcomer.items import learner_selection
from newcomer.items.learner_selection import candidates
from newcomer.registry import find_learner
from newcomer.store.folder import Store
from shell import Shell

ROWS, FILMS, VIEWERS = 900, 130, 18


def log(**more: Any) -> pl.DataFrame:
    """Films with a title, a year that is unknown of one, a studio's number, and viewers of an age."""
    draw = np.random.default_rng(0)
    film, viewer = draw.integers(0, FILMS, ROWS), draw.integers(0, VIEWERS, ROWS)
    year = ["unknown" if n == 5 else str(1940 + n % 60) for n in range(FILMS)]
    columns: dict[str, Any] = {
        "film_id": [f"f{n}" for n in film],
        "user_id": [f"u{n}" for n in viewer],
        "click": draw.integers(0, 2, ROWS),
        "timestamp": np.arange(ROWS) * 60 + 1_700_000_000,
        "title": [f"The {n} of {n % 7} and {n % 11} towers" for n in film],
        "year": [year[n] for n in film],
        "studio_code": ["none" if n == 5 else str(100 + n % 60) for n in film],
    }
    return pl.DataFrame({**columns, **more})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    log().write_csv(tmp_path / "log.csv")
    return tmp_path / "log.csv"


def test_words_that_items_share_are_not_dropped(tmp_path: Path) -> None:
    """Genres with blanks between them are a text, and describe new items as they do old ones."""
    genres = ["war drama", "drama", "western comedy drama", "comedy", "sea story", "war", "crime story", "crime", "sea"]
    film = log()["film_id"].str.slice(1).cast(pl.Int64)
    log(genre=[f"{genres[n % 9]} {genres[n % 7]}" for n in film]).write_csv(tmp_path / "log.csv")
    proposal = propose(tmp_path / "log.csv", item="film_id")
    kinds = {field.name: field.kind for field in proposal.schema.of("item")}
    assert (kinds["genre"], kinds["title"]) == ("text", "text")
    assert proposal.learner["field_dropout"] == {"title": 0.9}


def test_texts_and_numbers_are_regularized(file: Path) -> None:
    """The bandwidth is that of one value an item; a code is no number."""
    years = np.array([1940 + n % 60 for n in range(FILMS) if n != 5])
    bandwidth = 1.06 * years.std(ddof=1) * len(years) ** -0.2
    assert propose(file, item="film_id").learner == {
        "smoothing_bandwidth": {"year": float(f"{bandwidth:.2g}")},
        "field_dropout": {"title": 0.9},
    }


@pytest.mark.parametrize(
    ("values", "has_bandwidth"),
    [
        ([str(n) for n in range(1900, 1990)] * 2 + ["?"], True),
        ([str(n) for n in range(1900, 1990)] * 2, False),  # numeric: needs none
        ([str(n) for n in range(1900, 1990)] + ["?"], False),  # nothing in common
        ([f"{n}.99" for n in range(90)] + ["10.99"] * 100 + ["?"], False),  # most occur once
        ([str(n) for n in range(2000)] * 3 + ["?"], False),  # too many for a kernel
        ([f"{n:05d}" for n in range(1067, 1167)] * 2 + ["?"], False),  # leading zeros: a code
        ([f"{n}e200" for n in range(1, 40)] * 3 + ["?"], False),
        ([str(n % 9) for n in range(90)] + ["?"], False),  # as few as codes have
        ([str(n) for n in range(60)] + ["?"] * 30, False),  # names, some of which are numbers
        (["red", "blue"] * 40, False),
    ],
)
def test_categories_that_are_numbers_but_for_a_few_have_a_bandwidth(values: list[str], has_bandwidth: bool) -> None:
    assert (infer_kind(pl.Series("size", values)).bandwidth is not None) == has_bandwidth


@pytest.mark.parametrize("reason", ["", "weights", "a field of their name", "many users"])
def test_histories_are_tried_where_they_are_not_refused(
    reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = np.random.default_rng(1)
    log(times=draw.integers(1, 4, ROWS), user_history=draw.random(ROWS)).write_csv(tmp_path / "log.csv")
    schema = propose(tmp_path / "log.csv", item="film_id", weight="times" if reason == "weights" else None).schema
    if reason != "a field of their name":
        schema = replace(schema, fields=tuple(field for field in schema.fields if field.name != "user_history"))
    monkeypatch.setattr(learner_selection, "MAX_USERS", VIEWERS - (reason == "many users"))
    found = candidates(schema, read_log(tmp_path / "log.csv", schema), {"field_dropout": {"title": 0.9}}, seed=3)
    histories = [] if reason else ["emerg-history"]
    assert list(found) == ["emerg", *histories, "deepfm-bayes", "logistic", "user-item-rate"]
    for row, learner in found.items():
        assert learner.seed == 3
        dropout = learner.settings.get("field_dropout")
        assert dropout == ({"title": 0.9} if row in ("emerg", "emerg-history", "deepfm-bayes") else None)


def test_inspect_writes_what_train_takes_with_the_file_and_without(file: Path, shell: Shell) -> None:
    code, _, err = shell.call("inspect", str(file), "--column", "item=film_id", "--write", "films.toml")
    assert code == 0, err
    proposed = propose(file, item="film_id").learner
    written = tomllib.loads((shell.folder / "films.toml").read_text())["learner"]
    assert written == {"name": "emerg", **proposed}
    quick = ("--set", "pretrain_epochs=1", "--set", "meta_epochs=0", "--set", "calibrate=false", "--set", "width=4")
    for name, words in (("one", ("--column", "item=film_id")), ("other", ("--schema", "films.toml"))):
        code, _, err = shell.call("train", name, str(file), *words, *quick, "--set", "field_dropout={title=0.5}")
        assert code == 0, err
        settings = Store(shell.folder / name).manifest().settings
        assert {key: settings[key] for key in proposed} == {**proposed, "field_dropout": {"title": 0.5}}
    both = [find_learner("emerg").load(shell.folder / name) for name in ("one", "other")]
    events = log().head(50)
    assert np.array_equal(*(model.score(events) for model in both))  # type: ignore[attr-defined]


def test_prices_of_which_some_are_words_are_learned(shell: Shell) -> None:
    """Most occur once, and so have no value of their own."""
    price = ["free" if n % 15 == 5 else f"{n * 1.37:.2f}" for n in range(FILMS)]
    film = [int(name[1:]) for name in log()["film_id"]]
    log(price=[price[n] for n in film]).write_csv(shell.folder / "log.csv")
    for words in ((), ("--learner", "auto", "--strict")):
        code, _, err = shell.call("train", f"shop{len(words)}", "log.csv", "--column", "item=film_id", *words)
        assert code == 0, err
    chosen: Any = find_learner(Store(shell.folder / "shop3").manifest().learner).load(shell.folder / "shop3")
    assert (
        chosen.schema == propose(shell.folder / "log.csv", item="film_id").schema
    )  # strictness is of the training log


def test_another_learner_is_trained_with_its_own_defaults(file: Path, shell: Shell) -> None:
    code, _, err = shell.call("train", "plain", str(file), "--column", "item=film_id", "--learner", "logistic")
    assert code == 0, err
    assert Store(shell.folder / "plain").manifest().learner == "logistic"


def test_names_of_any_kind_survive_the_file(tmp_path: Path) -> None:
    name = "the 'year' = {é}.x"
    log().rename({"year": name}).write_csv(tmp_path / "log.csv")
    proposal = propose(tmp_path / "log.csv", item="film_id")
    write_schema(proposal, tmp_path / "films.toml")
    written = tomllib.loads((tmp_path / "films.toml").read_text())["learner"]
    assert list(written["smoothing_bandwidth"]) == [name]
