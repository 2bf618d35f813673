"""One bad row among many does not end everything: the others are done, and all that was left out is named."""

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from films import FILMS, QUICK, SCHEMA, alter, events, features, log, requests, trained
from newcomer.data.io.frames import as_frame
from newcomer.data.io.log_reader import log_from_frame
from newcomer.data.schema import Field, Schema
from newcomer.errors import DataError, DataWarning, StoreError
from newcomer.items.encoding.encoder import Encoder
from newcomer.items.methods.emerg import EmerG
from newcomer.items.serving.requests import parse_items
from newcomer.items.serving.service import ItemService
from shell import Shell


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("films") / "store")


@pytest.fixture
def live(store: Path, tmp_path: Path) -> Iterator[ItemService]:
    live = ItemService.open(store, f"sqlite:///{tmp_path / 'items.db'}")
    live.headers()
    yield live
    live.close()


@pytest.fixture
def states(shell: Shell) -> list[str]:
    return ["--states", f"sqlite:///{shell.folder / 'items.db'}"]


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_unknown_items_among_five_hundred_candidates(
    live: ItemService, store: Path, shell: Shell, states: list[str]
) -> None:
    """One item among 500 candidates that was not added yet: exit code 2, and no answer for the others."""
    films = [FILMS[n % 8] for n in range(500)]
    films[7] = films[300] = "unknown"
    right = live.score(requests(*[film for film in films if film != "unknown"]))["score"].to_list()
    answers = live.score(requests(*films), on_error="report")
    assert [n for n, score in enumerate(answers["score"]) if score is None] == [7, 300]
    assert answers["score"].drop_nulls().to_list() == pytest.approx(right, abs=1e-6)
    requests(*films).write_ndjson(shell.folder / "r.jsonl")
    code, out, err = shell.call("score", str(store), "r.jsonl", *states)
    printed = lines(out)
    assert (code, len(printed)) == (3, 500)
    assert [n for n, row in enumerate(printed) if row["error"]] == [7, 300]
    assert err.splitlines() == [
        f"newcomer: left out: r.jsonl: row {row}, column 'film': item 'unknown' is not known; add it first"
        for row in (8, 301)
    ]
    code, out, err = shell.call("score", str(store), "r.jsonl", *states, "--strict")
    assert (code, out) == (2, "")
    assert "row 8, column 'film': item 'unknown' is not known" in err
    with pytest.raises(DataError, match="row 8, column 'film': item 'unknown' is not known"):
        live.score(requests(*films))


def test_rows_that_cannot_be_read_are_left_out_by_name(store: Path, shell: Shell, states: list[str]) -> None:
    """A request without a user, one with a price that is no number, one line that is no JSON: each among good ones."""
    good = requests(*FILMS[:3]).to_dicts()
    rows = [
        json.dumps(row)
        for row in (*good, {**good[0], "price": "abc"}, {**good[1], "viewer": None}, {**good[2], "film": 7.5})
    ]
    rows[1:1] = ["no json", "", "[1, 2]"]
    (shell.folder / "r.jsonl").write_text("\n".join(rows))
    code, out, err = shell.call("score", str(store), "r.jsonl", *states)
    scores = [row["score"] is not None for row in lines(out)]
    assert (code, scores) == (3, [True, False, False, True, True, False, False, False])
    said = err.splitlines()
    assert len(said) == 5
    for part in (
        "line 2 is not a JSON object",
        "line 4 is not a JSON object",
        "row 6, column 'price'",
        "row 7, column 'viewer'",
        "item '7.5'",
    ):
        assert sum(part in line for line in said) == 1, part
    assert "line 2 is not a JSON object" in shell.fails("score", str(store), "r.jsonl", *states, "--strict")


def test_all_that_is_wrong_with_events_and_items_is_named_and_the_rest_is_done(
    store: Path, shell: Shell, states: list[str]
) -> None:
    """The same of `warm` and `add`: a label that is none, an item that is not known, an item that is there with other features."""
    table = events("film 1", 6).cast({"liked": pl.String, "price": pl.String})
    table[1, "liked"], table[2, "film"], table[3, "film"], table[4, "price"] = "maybe", "unknown", "unknown", "cheap"
    table.write_csv(shell.folder / "e.csv")
    code, out, err = shell.call("warm", str(store), "e.csv", *states, "--json")
    result = json.loads(out)
    assert (code, result["new"], len(result["left_out"])) == (3, 2, 3)
    assert err.count("\n") == 3
    assert all(
        part in err
        for part in (
            "row 2, label 'liked'",
            "row 3, column 'film': item 'unknown'",
            "(2 events of it)",
            "row 5, column 'price'",
        )
    )
    pl.DataFrame(
        {"film": ["new", "film 2", "dear"], "genre": ["war", "opera", "war"], "minutes": ["90", "1", "many"]}
    ).write_csv(shell.folder / "n.csv")
    before = shell.files()
    assert "row 3, column 'minutes'" in shell.fails("add", str(store), "n.csv", *states, "--strict")
    assert shell.files() == before
    code, out, err = shell.call("add", str(store), "n.csv", *states)
    assert (code, err.count("\n")) == (3, 2)
    assert "1 item added" in out
    assert "item 'film 2' is there with other features" in err
    assert "row 3, column 'minutes'" in err


def test_a_wholly_invalid_input_is_one_error(store: Path, shell: Shell, states: list[str]) -> None:
    """A table of another shop: nothing is done, exit code 2, one line."""
    requests("a", "b", "c").write_ndjson(shell.folder / "r.jsonl")
    assert shell.call("inspect", str(store), *states)[0] == 0
    assert "item 'a' is not known; add it first (and 2 more)" in shell.fails("score", str(store), "r.jsonl", *states)
    events("a", 3).write_csv(shell.folder / "e.csv")
    assert "item 'a' is not known; add it first (3 events of it)" in shell.fails("warm", str(store), "e.csv", *states)
    requests("film 1").drop("viewer").write_ndjson(shell.folder / "r.jsonl")
    assert "no column 'viewer'" in shell.fails("score", str(store), "r.jsonl", *states)


def test_a_request_is_about_its_own_user(tmp_path: Path) -> None:
    """Two values of one user in a table of requests: each is answered with its own."""
    schema = Schema("film", "viewer", "liked", "seen", (*SCHEMA.fields, Field("age", "user")))
    old = log().with_columns(age=pl.col("viewer").mod(4).cast(pl.String))
    EmerG(schema, **QUICK).learn(old).save(tmp_path / "store")
    live = ItemService.open(tmp_path / "store")
    both = live.score(requests("film 1", "film 1", age=["1", "3"]))["score"].to_list()
    alone = [live.score(requests("film 1", age=[age]))["score"][0] for age in ("1", "3")]
    assert both == pytest.approx(alone, abs=1e-6)
    live.close()


def test_a_damaged_item_is_left_out(live: ItemService, tmp_path: Path) -> None:
    """One row of a database whose checksum does not fit, among 500 candidates."""
    alter(tmp_path, "UPDATE item_states SET phase = 'odd' WHERE item_id = 'film 3'")
    answers = live.score(requests(*FILMS), on_error="report")
    assert [score is None for score in answers["score"]] == [n == 3 for n in range(8)]
    assert "item 'film 3': its row is not what was written" in answers["error"][3]
    with pytest.raises(StoreError, match="item 'film 3'"):
        live.score(requests(*FILMS))
    done = live.warm(pl.concat([events("film 3", 2), events("film 4", 2)]), on_error="report")
    assert (done.items, len(done.left_out)) == (["film 4"], 1)


class Piped(io.BytesIO):
    """A standard input on which lines arrive one by one."""

    def read1(self, size: int | None = -1, /) -> bytes:
        return self.readline()


def test_answers_are_written_as_requests_come(
    store: Path, shell: Shell, states: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream of requests whose third line is broken: what came before it is answered, and what comes after it."""
    rows = [json.dumps(row) for row in requests(*FILMS).to_dicts()]
    rows[2], rows[4] = "{broken", json.dumps({"film": "film 4"})
    given = io.TextIOWrapper(Piped("\n".join(rows).encode() + b"\n\xff\xfe\n"))
    monkeypatch.setattr(sys, "stdin", given)
    code, out, err = shell.call("score", str(store), "-", *states)
    assert code == 3
    assert [row["score"] is not None for row in lines(out)] == [n not in (2, 4, 8) for n in range(9)]
    assert "line 3 is not a JSON object" in err
    assert "line 9 is not a JSON object" in err


def test_a_request_need_not_name_what_may_be_missing(live: ItemService) -> None:
    """A single request without an optional column, in JSON or from Python."""
    one = requests("film 1").drop("page")
    assert live.score(one)["score"][0] == pytest.approx(live.score(requests("film 1", page=None))["score"][0], abs=1e-6)
    assert live.score([{"film": "film 1", "viewer": 3, "price": 0.5}])["score"].is_finite().all()
    live.add(features("bare"))
    assert live.warm(events("bare", 2).drop("page")).new == 2


@pytest.mark.parametrize("odd", [{"a": 1}, [1, 2], [[1]], [{"a": 1}]])
def test_an_object_in_one_line_is_an_error_of_that_line(
    odd: Any, live: ItemService, store: Path, shell: Shell, states: list[str]
) -> None:
    """A log of web events: one line of many holds an object. No other line had an answer."""
    rows: list[dict[str, Any]] = requests(*FILMS[:4]).to_dicts()
    right = live.score(requests(*FILMS[:4]))["score"].to_list()
    (shell.folder / "r.jsonl").write_text(
        "".join(json.dumps({**row, "extra": [1, odd][n == 2]}) + "\n" for n, row in enumerate(rows))
    )
    code, out, _ = shell.call("score", str(store), "r.jsonl", *states)
    assert code == 0  # nobody reads `extra`
    assert [row["score"] for row in lines(out)] == pytest.approx(right, abs=1e-6)
    assert live.score([{**row, "extra": [1, odd][n == 2]} for n, row in enumerate(rows)])["score"].to_list() == right
    rows[2]["page"] = odd
    (shell.folder / "r.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, out, err = shell.call("score", str(store), "r.jsonl", *states)
    assert (code, [row["score"] is None for row in lines(out)]) == (3, [False, False, True, False])
    assert err.startswith("newcomer: left out: r.jsonl: row 3, column 'page' ")
    with pytest.raises(DataError, match="row 3, column 'page' holds"):
        live.score(rows)


def test_a_byte_of_another_encoding_is_an_error_of_its_line(store: Path, shell: Shell, states: list[str]) -> None:
    """An event log with one name in Latin-1."""
    text = "".join(json.dumps(row) + "\n" for row in requests(*FILMS[:3]).to_dicts())
    (shell.folder / "r.jsonl").write_bytes(text.encode().replace(b"film 1", b"film \xe9"))
    code, out, err = shell.call("score", str(store), "r.jsonl", *states)
    assert (code, [row["score"] is None for row in lines(out)]) == (3, [False, True, False])
    assert err.count("\n") == 1
    assert "r.jsonl: line 2 is not a JSON object; write one per line, in UTF-8" in err


def test_answers_that_cannot_be_written_are_refused_before_any(store: Path, shell: Shell, states: list[str]) -> None:
    """An hour of scoring, and then no such folder; or the answers take the place of the requests."""
    requests(*FILMS[:3]).write_csv(shell.folder / "r.csv")
    before = (shell.folder / "r.csv").read_bytes()
    assert "no folder nowhere" in shell.fails("score", str(store), "missing.csv", "--out", "nowhere/x.csv", *states)
    assert "would overwrite the input" in shell.fails("score", str(store), "r.csv", "--out", "./r.csv", *states)
    assert (shell.folder / "r.csv").read_bytes() == before


def test_a_count_that_is_no_number_is_damage(store: Path, shell: Shell, states: list[str]) -> None:
    """A database altered by hand: the command ended in a trace."""
    assert shell.call("inspect", str(store), *states)[0] == 0
    requests(*FILMS[:1]).write_csv(shell.folder / "r.csv")
    assert shell.call("score", str(store), "r.csv", *states)[0] == 0
    alter(shell.folder, "UPDATE item_states SET event_count = 'many' WHERE item_id = 'film 1'")
    assert "the state of item 'film 1' is damaged" in shell.fails("inspect", str(store), *states)


def test_objects_in_events_and_items_are_errors_of_their_rows(live: ItemService) -> None:
    """Labels, times, event ids and item features; a list of mappings was an error of the whole column."""
    rows = events("film 1", 6).to_dicts()
    rows[1]["liked"], rows[2]["seen"], rows[3]["event_id"], rows[4]["meta"] = [1], {"t": 1}, {"id": 1}, object()
    done = live.warm(rows, on_error="report")
    assert (done.new, len(done.left_out)) == (3, 3)
    for part, line in zip(("row 2, label 'liked'", "row 3, time 'seen'", "row 4, column"), done.left_out, strict=True):
        assert part in line
    items = features("n1", "n2", "n3").to_dicts()
    items[0]["meta"], items[1]["genre"], items[2]["meta"] = 1, ["war"], {}
    added = live.add(items, on_error="report")
    assert (added.new, len(added.left_out)) == (["n1", "n3"], 1)
    assert "row 2, column 'genre' holds ['war'] of type list; write a scalar" in added.left_out[0]


def test_lists_and_texts_of_one_field_are_each_read_alone() -> None:
    """Tags as a list in one request and as text in the next: each was right alone, both together were refused."""
    schema = Schema("film", "viewer", fields=(Field("tags", "context", "multi"), Field("v", "context", "vector")))
    rows = [{"film": "a", "viewer": 1, "tags": tags, "v": v} for tags, v in (("x|y", [1, 2]), (["y", 3], "[3, 4]"))]

    def read(*rows: dict[str, Any]) -> list[tuple[set[str], list[float]]]:
        context = log_from_frame(as_frame(rows), schema, items=False, labels=False).context
        tags = ({context["tags"].names[n] for n in row if n >= 0} for row in context["tags"].values)
        return list(zip(tags, context["v"].values.tolist(), strict=True))

    assert read(*rows) == [*read(rows[0]), *read(rows[1])] == [({"x", "y"}, [1, 2]), ({"y", "3"}, [3, 4])]
    with pytest.raises(
        DataError, match=r"row 3, column 'tags' holds \{'x': 1\} of type dict; write a scalar or a list"
    ):
        read(*rows, {**rows[0], "tags": {"x": 1}})


def test_a_row_that_contradicts_the_others_is_left_out_alone() -> None:
    """Each vector alone could be read: one of another width left out all items. The width is that of training."""
    schema = Schema("film", "viewer", "liked", "seen", (Field("look", "item", "vector"),))
    old = {"film": ["o", "p"], "look": [[1.0, 2.0], [0.0, 1.0]], "viewer": [1, 2], "liked": [0, 1], "seen": [1, 2]}
    encoder = Encoder.fit(log_from_frame(pl.DataFrame(old), schema))
    frame = pl.DataFrame({"film": list("abcde"), "look": [[3.0], [1.0, 2.0], [4.0, 5.0], [], [6.0, 7.0, 8.0]]})
    table, wrong = parse_items(frame, encoder, "items", "report")
    assert table is not None
    assert table.ids == ("b", "c")
    assert sorted(str(error).partition(",")[0] for error in wrong) == ["items: row 1", "items: row 4", "items: row 5"]


def test_a_value_that_the_model_refuses_is_of_its_row(tmp_path: Path) -> None:
    """Of a field with `unseen = "error"` an unseen value refused the whole table, and so did a grade beyond those of training."""
    fields = (
        Field("genre", "item", unseen="error"),
        Field("minutes", "item", "numeric"),
        Field("page", "context", unseen="error"),
    )
    schema = Schema("film", "viewer", "liked", "seen", fields, clicked_from=4)
    grades = log().with_columns(pl.when(pl.col("liked") == 1).then(5).otherwise(pl.col("seen") % 3 + 1).alias("liked"))
    EmerG(schema, **QUICK).learn(grades).save(tmp_path / "store")
    with ItemService.open(tmp_path / "store", f"sqlite:///{tmp_path / 'items.db'}") as service:
        new = [{"film": f"n{n}", "genre": genre, "minutes": 90} for n, genre in enumerate(["war", "?", "love"])]
        added = service.add(new, on_error="report")
        assert (added.new, len(added.left_out)) == (["n0", "n2"], 1)
        assert added.left_out[0].startswith("items: row 2, column 'genre': value '?' did not occur in training")
        pages, stars = ["home", "?", "list", "home"], [5, 5, 9999, 1]
        rows = [
            {"film": "n0", "viewer": n, "page": page, "liked": star, "seen": 1000 + n}
            for n, (page, star) in enumerate(zip(pages, stars, strict=True))
        ]
        done = service.warm(rows, on_error="report")
        assert (done.new, len(done.left_out)) == (2, 2)
        assert sorted(line.partition(",")[0] for line in done.left_out) == ["table: row 2", "table: row 3"]
        assert any(
            "row 3, label 'liked' is 9999, but those of training were from 1 to 5" in line for line in done.left_out
        )
        answers = service.score(
            [{key: row[key] for key in ("film", "viewer", "page")} for row in rows], on_error="report"
        )
        assert answers["score"].is_null().to_list() == [False, True, False, False]
        assert "row 2, column 'page'" in answers["error"][1]
        with pytest.raises(DataError, match=r"table: row 2, column 'page': value '[?]' did not occur in training"):
            service.warm(rows[:2])
        with pytest.raises(DataError, match=r"x.csv: row 3, label 'liked' is 9999, .* clicks are labels from 4 on"):
            service.warm([row | {"page": "home"} for row in rows], where="x.csv")
        named = service.warm([rows[0], rows[3] | {"page": "row 7"}], on_error="report")
        assert [line.partition(";")[0] for line in named.left_out] == [
            "table: row 2, column 'page': value 'row 7' did not occur in training"
        ]
        percent = [rows[0] | {"liked": 20 * (n % 6), "seen": 2000 + n} for n in range(30)]
        with pytest.raises(DataError, match="labels 'liked' hold 0, but were from 1 to 5 in training"):
            service.warm(percent, on_error="report")


def test_a_repetition_of_a_refused_event_is_not_known(live: ItemService) -> None:
    films = ["film 0", "nobody", "nobody", "film 1", "film 1"]
    rows = requests(*films).with_columns(liked=1, seen=1000, event_id=pl.Series(list("abbcc")))
    done = live.warm(rows, on_error="report")
    assert (done.new, done.known) == (2, 1)
    assert any("row 2, column 'film': item 'nobody' is not known" in line for line in done.left_out)
    assert any("row 3, column 'film': item 'nobody' is not known" in line for line in done.left_out)
    others = requests("nobody", "nobody", "nobody", "film 2", "film 2").with_columns(
        liked=1, seen=1000, event_id=pl.Series(list("dddee")), price=pl.Series([0.5, 0.5, 0.9, 0.5, 0.5])
    )
    done = live.warm(others, on_error="report")
    assert (done.new, done.known) == (1, 1)
    assert len(done.left_out) == len(set(done.left_out)) == 3


def test_a_blank_line_is_no_row(store: Path, shell: Shell, states: list[str]) -> None:
    """A blank line in a CSV file was a row that was left out; a row of empty values is an invalid row."""
    header, *rows = requests(*FILMS[:3]).write_csv().splitlines()
    (shell.folder / "r.csv").write_text("\n".join(["", header, rows[0], "", "", *rows[1:], ""]))
    code, out, _ = shell.call("score", str(store), "r.csv", *states)
    assert (code, [row["score"] is not None for row in lines(out)]) == (0, [True] * 3)
    (shell.folder / "r.csv").write_text("\n".join([header, rows[0], "", ",,,", rows[1]]))
    code, out, err = shell.call("score", str(store), "r.csv", *states)
    assert (code, [row["score"] is not None for row in lines(out)]) == (3, [True, False, True])
    assert "row 2, column 'film' is empty" in err
    (shell.folder / "n.csv").write_text("film,genre,minutes\n\nnew,war,90\n\nother,war,91\n")
    assert shell.call("add", str(store), "n.csv", *states)[0] == 0


def test_an_item_that_comes_twice_refuses_no_other(
    live: ItemService, store: Path, shell: Shell, states: list[str]
) -> None:
    """A repeated row refused the whole table; if equal it is one item, else it is ambiguous which of the two it is."""
    table = pl.concat([features("a", "b", "a", "c"), features("c", "d").with_columns(genre=pl.lit("love"))])
    with pytest.raises(DataError, match=r"items: item 'c' occurs twice with different values .*; give every id once"):
        live.add(table)
    assert live.add(features("e", "e")).new == ["e"]
    table.write_csv(shell.folder / "n.csv")
    assert shell.call("inspect", str(store), *states)[0] == 0
    assert "item 'c' occurs twice" in shell.fails("add", str(store), "n.csv", *states, "--strict")
    code, out, err = shell.call("add", str(store), "n.csv", *states, "--json")
    assert (code, json.loads(out)["new"], err.count("\n")) == (3, ["a", "b", "d"], 1)
    assert "n.csv: item 'c' occurs twice" in err


def test_item_features_of_requests_and_events_that_contradict_the_item_are_said(live: ItemService) -> None:
    """A shop sent the new genre of an item with each request: it was ignored without a word."""
    right = live.score(requests(*FILMS[:3]))["score"].to_list()
    told = live.score(requests(*FILMS[:3], genre=["war", "love", "war"], minutes=[80.0, 81.0, None]))
    assert told["score"].to_list() == right
    message = rf"column 'genre': 2 of 4 rows have another value than the item has, such as that of item '{FILMS[0]}' in row 2;"
    with pytest.warns(DataWarning, match=message):
        asked = live.score(requests("?", FILMS[0], FILMS[0], FILMS[1], genre="love"), on_error="report")
    assert asked["score"].to_list() == [None, right[0], right[0], right[1]]
    with pytest.warns(DataWarning, match=r"column 'minutes': 3 of 3 rows"):
        live.warm(events(FILMS[0], 3, minutes=10.0))
    with pytest.warns(DataWarning, match=r"row 1, column 'minutes': 'long' is not a number; the features"):
        live.warm(events(FILMS[0], 1, minutes="long"))


def test_a_key_that_a_line_has_twice_is_refused(store: Path, shell: Shell, states: list[str]) -> None:
    """Of two values of one name the last was taken."""
    twice = '{"film": "film 0", "viewer": 1, "viewer": 2, "page": "home", "price": 1}'
    (shell.folder / "r.jsonl").write_text(twice + "\n" + twice.replace('"viewer": 2, ', ""))
    code, out, err = shell.call("score", str(store), "r.jsonl", *states)
    assert (code, [row["error"] is None for row in lines(out)]) == (3, [False, True])
    assert err == "newcomer: left out: r.jsonl: line 1 has the key 'viewer' twice; write it once\n"


def parts(shell: Shell, **content: str) -> None:
    """A folder of requests with these CSV files."""
    (shell.folder / "parts").mkdir()
    for name, text in content.items():
        (shell.folder / "parts" / f"{name}.csv").write_text(text)


GOOD = "film,viewer,page,price\nfilm 0,3,home,0.5\nfilm 1,3,home,0.5\n"


def test_a_part_without_rows_is_no_error(store: Path, shell: Shell, states: list[str]) -> None:
    """`score STORE FOLDER` printed all answers and ended with exit code 2, because one shard had a header alone."""
    parts(shell, a=GOOD, b="film,viewer,page,price\n", c="", d="x,y\n", e=GOOD)
    code, out, err = shell.call("score", str(store), "parts", *states)
    assert (code, len(lines(out)), err) == (0, 4, "")
    for name in "ae":
        (shell.folder / "parts" / f"{name}.csv").unlink()
    assert "has no rows" in shell.fails("score", str(store), "parts", *states)


def test_a_part_that_does_not_fit_is_left_out_by_name(store: Path, shell: Shell, states: list[str]) -> None:
    """A later file without a column, or with a row that is too long: exit code 2, "nothing was done", after the answers."""
    parts(
        shell,
        a=GOOD,
        b="film,page,price\nfilm 0,home,0.5\n",
        c="film,viewer,page,price\nfilm 0,3,home,0.5,1,2\n",
        d=GOOD,
    )
    code, out, err = shell.call("score", str(store), "parts", *states)
    assert (code, len(lines(out))) == (3, 4)
    first, second = err.splitlines()
    assert first.startswith("newcomer: left out: parts/b.csv: no column 'viewer'")
    assert second.startswith("newcomer: left out: parts/c.csv: cannot be read: row 1 has 6 values")
    assert "b.csv" in shell.fails("score", str(store), "parts", *states, "--strict")


def test_where_no_request_can_be_answered_nothing_is_printed(
    store: Path, shell: Shell, states: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """60 answers with an error each, and exit code 2. A stream has an answer to each line, so its code is 3."""
    requests(*["unknown"] * 60).write_ndjson(shell.folder / "r.jsonl")
    code, out, err = shell.call("score", str(store), "r.jsonl", *states)
    assert (code, out) == (2, "")
    assert err.endswith("item 'unknown' is not known; add it first (and 59 more)\n")
    assert "is not known" in shell.fails("score", str(store), "r.jsonl", *states, "--out", "answers.csv")
    monkeypatch.setattr(sys, "stdin", io.StringIO((shell.folder / "r.jsonl").read_text()))
    code, out, err = shell.call("score", str(store), "-", *states)
    assert (code, len(lines(out)), len(err.splitlines())) == (3, 60, 60)
