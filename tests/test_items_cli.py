"""A click model on the command line: train, add, score, warm, inspect; errors are one line."""

import io
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from databases import Database
from newcomer.data.datasets.simulated_clicks import SCHEMA, simulate_click_log
from newcomer.items.methods.emerg import EmerG
from newcomer.store.folder import Store
from shell import Shell

QUICK = ["width=4", "pretrain_epochs=1", "meta_epochs=1", "warmup_steps=3", "device='cpu'"]
SET = [word for change in QUICK for word in ("--set", change)]


def world() -> pl.DataFrame:
    """A small simulated log as a table."""
    log = simulate_click_log(old_items=12, old_events=40, new_items=4, new_events=25, users=60, seed=3)
    of_item = {name: np.array(log.items.columns[name].texts())[log.item] for name in ("kind", "brand")}
    users = {field.name: np.array(log.users.columns[field.name].texts())[log.user] for field in SCHEMA.of("user")}
    rows = {field.name: log.context[field.name].texts() for field in SCHEMA.of("context")}
    ids = {"item": [log.items.ids[n] for n in log.item], "user": [log.users.ids[n] for n in log.user]}
    info = {"label": log.label.astype(int), "time": log.time}
    return pl.DataFrame(ids | info | of_item | users | rows)


NEW = pl.col("item") >= "i0012"


@pytest.fixture
def clicks(shell: Shell) -> Shell:
    """A folder with a log of old items, and features, requests and events of new ones."""
    table = world()
    table.filter(~NEW).write_csv(shell.folder / "old.csv")
    new = table.filter(NEW).with_columns(event_id=pl.format("e{}", pl.int_range(pl.len())))
    new.select("item", "kind", "brand").unique("item").sort("item").write_parquet(shell.folder / "new.parquet")
    new.head(60).write_csv(shell.folder / "events.csv")
    new.tail(20).drop("label", "time", "event_id").write_ndjson(shell.folder / "requests.jsonl")
    return shell


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where models are kept that several tests begin with."""
    return tmp_path_factory.mktemp("kept")


@pytest.fixture
def shop(clicks: Shell, kept: Path) -> Shell:
    """The same with a model that has learned the old items, in `shop`; trained once."""
    if not (kept / "shop").exists():
        code, _, err = clicks.call("train", "shop", "old.csv", *SET)
        assert (code, err) == (0, "")
        shutil.copytree(clicks.folder / "shop", kept / "shop")
    else:
        shutil.copytree(kept / "shop", clicks.folder / "shop")
    return clicks


def lines(shown: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in shown.splitlines()]


def test_new_items_are_added_scored_warmed_and_forgotten(clicks: Shell) -> None:
    code, out, err = clicks.call("inspect", "old.csv", "--write", "old.toml")
    assert (code, err) == (0, "")
    assert all(part in out for part in ("item id", "label", "480 events", "old.toml: written"))
    code, out, err = clicks.call("train", "shop", "old.csv", "--schema", "old.toml", *SET)
    assert (code, err) == (0, "")
    assert "shop: 12 items learned from 480 events" in out

    added = json.loads(clicks.call("add", "shop", "new.parquet", "--json")[1])
    assert (added["new"], added["known"]) == (["i0012", "i0013", "i0014", "i0015"], [])
    assert (
        "0 items added; 4 were there already with the same features: i0012"
        in clicks.call("add", "shop", "new.parquet")[1]
    )
    cold = lines(clicks.call("score", "shop", "requests.jsonl")[1])
    assert len(cold) == 20
    assert {(row["phase"], row["events"]) for row in cold} == {("cold", 0)}

    assert "60 new events of 4 items, 0 known already" in clicks.call("warm", "shop", "events.csv")[1]
    again = json.loads(clicks.call("warm", "shop", "events.csv", "--json")[1])
    assert again == {"new": 0, "known": 60, "corrected": 0, "items": [], "left_out": [], "unseen": {}}
    warm = lines(clicks.call("score", "shop", "requests.jsonl")[1])
    assert {row["phase"] for row in warm} == {"warm"}

    model = EmerG.load(clicks.folder / "shop")
    model.add(pl.read_parquet(clicks.folder / "new.parquet"))
    requests = pl.read_ndjson(clicks.folder / "requests.jsonl")
    np.testing.assert_allclose([row["score"] for row in cold], model.score(requests), atol=1e-6)  # type: ignore[arg-type]
    model.warm(pl.read_csv(clicks.folder / "events.csv", infer_schema=False))
    np.testing.assert_allclose([row["score"] for row in warm], model.score(requests), atol=1e-5)  # type: ignore[arg-type]


def test_requests_and_answers_go_in_every_form(shop: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.call("add", "shop", "new.parquet")
    requests = pl.read_ndjson(shop.folder / "requests.jsonl")
    requests.write_csv(shop.folder / "requests.csv")
    requests.write_parquet(shop.folder / "requests.parquet")
    printed = lines(shop.call("score", "shop", "requests.jsonl")[1])
    for name, read in (("a.jsonl", pl.read_ndjson), ("a.csv", pl.read_csv), ("a.parquet", pl.read_parquet)):
        source = name.replace("a.", "requests.")
        code, out, err = shop.call("score", "shop", source, "--out", name)
        assert (code, err) == (0, "")
        assert f"{name}: 20 answers" in out
        assert read(shop.folder / name).to_dicts() == printed
    monkeypatch.setattr(sys, "stdin", io.StringIO((shop.folder / "requests.jsonl").read_text()))
    assert lines(shop.call("score", "shop", "-")[1]) == printed
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert shop.call("score", "shop", "-") == (0, "", "")


def test_a_stream_is_answered_line_by_line(shop: Shell) -> None:
    """Each answer is there before the next request is written; lines that do not fit, the first among them, have an error."""
    shop.call("add", "shop", "new.parquet")
    right = (shop.folder / "requests.jsonl").read_text().splitlines()[:3]
    given = ['{"nothing": "fits"}', right[0], "{broken", '{"item_id": "unknown"}', *right[1:]]
    command = [sys.executable, "-m", "newcomer", "score", "shop", "-"]
    answers = []
    with subprocess.Popen(
        command, cwd=shop.folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for line in given:
            process.stdin.write(f"{line}\n")
            process.stdin.flush()
            answers.append(json.loads(process.stdout.readline()))
        process.stdin.close()
        assert process.stdout.read() == ""
        assert process.stderr is not None
        said = process.stderr.read()
    assert process.returncode == 3
    assert [answer["error"] is None for answer in answers] == [False, True, False, False, True, True]
    assert [answer["score"] is None for answer in answers] == [True, False, True, True, False, False]
    assert "line 3 is not a JSON object" in said


def test_states_can_be_in_another_database(shop: Shell, database: Database) -> None:
    elsewhere = ["--states", database.url]
    assert shop.call("add", "shop", "new.parquet", *elsewhere)[0] == 0
    assert "60 new events" in shop.call("warm", "shop", "events.csv", *elsewhere)[1]
    assert not (shop.folder / "shop" / "items.db").exists()
    assert "is not known; add it first" in shop.call("score", "shop", "requests.jsonl")[2]
    assert shop.call("score", "shop", "requests.jsonl", *elsewhere)[0] == 0
    found = json.loads(shop.call("inspect", "shop", "--item", "i0013", "--json", *elsewhere)[1])
    assert found["phase"] == "warm"


def test_inspecting_shows_phases_fields_and_sizes_and_writes_nothing(shop: Shell) -> None:
    before = shop.files()
    found = json.loads(shop.call("inspect", "shop", "--json")[1])
    assert shop.files() == before
    assert found["phases"] == {"warm": {"items": 12, "events": 480}}
    state = EmerG.load(shop.folder / "shop").state
    numbers = sum(value[0].numel() for value in state.values())
    assert found["parameters per item"] == numbers
    assert {field["name"] for field in found["fields"]} == {node.name for node in SCHEMA.nodes}
    shown = {field["name"]: field["values"] for field in found["fields"]}
    assert shown["taste"] == 4
    assert shown["item"] is None
    shop.call("add", "shop", "new.parquet")
    shop.call("warm", "shop", "events.csv")
    code, out, err = shop.call("inspect", "shop")
    assert (code, err) == (0, "")
    assert all(part in out for part in ("emerg, format", "warm", "540", "taste"))
    assert re.search(rf"^parameters per item +{numbers:,} *$", out, re.MULTILINE)


def test_inspecting_an_item_shows_its_state_and_its_heaviest_edges(shop: Shell) -> None:
    shop.call("add", "shop", "new.parquet")
    found = json.loads(shop.call("inspect", "shop", "--item", "i0012", "--json")[1])
    assert (found["phase"], found["events"], found["version"]) == ("cold", 0, 0)
    state = EmerG.load(shop.folder / "shop").state
    assert found["shapes"] == {key: list(value.shape[1:]) for key, value in state.items()}
    model = EmerG.load(shop.folder / "shop").add(pl.read_parquet(shop.folder / "new.parquet"))
    names, graph = [node.name for node in SCHEMA.nodes], model.graph_of("i0012")
    weights = [edge["weight"] for edge in found["edges"]]
    assert weights == sorted(weights, reverse=True)
    assert all(
        graph[names.index(e["fields"][0])][names.index(e["fields"][1])] == pytest.approx(e["weight"], abs=1e-3)
        for e in found["edges"]
    )
    assert weights[0] == pytest.approx(max(graph[i][j] for i in range(12) for j in range(i)), abs=1e-3)
    assert all(edge["weight"] == edge["generated"] for edge in found["edges"])  # no event yet
    _, out, _ = shop.call("inspect", "shop", "--item", "i0012")
    assert " × " in out
    assert re.search(r"edge .* generated from its features .* adapted to 0 events", out)
    shop.call("warm", "shop", "events.csv")
    warm = json.loads(shop.call("inspect", "shop", "--item", "i0012", "--json")[1])
    assert warm["events"] > 0
    graphs = [{tuple(edge["fields"]): edge["generated"] for edge in one["edges"]} for one in (found, warm)]
    both = graphs[0].keys() & graphs[1].keys()
    assert both
    assert [graphs[0][edge] for edge in both] == [graphs[1][edge] for edge in both]
    assert any(edge["weight"] != edge["generated"] for edge in warm["edges"])


def test_every_command_of_the_page_runs(clicks: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    (clicks.folder / "old.csv").rename(clicks.folder / "clicks.csv")
    new = pl.read_parquet(clicks.folder / "new.parquet")
    new.write_csv(clicks.folder / "new.csv")
    new.with_columns(pl.col(new.columns[-1]).reverse()).write_csv(clicks.folder / "changed.csv")
    world().filter(NEW).tail(40).write_csv(clicks.folder / "later.csv")
    page = Path(__file__).parents[1] / "docs" / "items-in-service.md"
    commands = re.findall(r"^(?: +|\| `)newcomer ([^#`\n]*)", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(commands) >= 15
    for words in map(shlex.split, commands):
        monkeypatch.setattr(sys, "stdin", io.StringIO((clicks.folder / "requests.jsonl").read_text()))
        code, out, err = clicks.call(*words, *(SET if words[0] == "train" else []))
        assert (code, err) == (0, ""), words
        assert out
        if "--replace" in words:
            assert "with others, which were replaced" in out
    assert len(pl.read_parquet(clicks.folder / "answers.parquet")) == 20


def test_another_method_can_be_trained(clicks: Shell) -> None:
    few = [*SET[:4], "--set", "hidden=[8]"]
    assert clicks.call("train", "fm", "old.csv", "--learner", "id-tuning", *few)[0] == 0
    assert Store(clicks.folder / "fm").manifest().learner == "id-tuning"
    assert clicks.call("add", "fm", "new.parquet")[0] == 0
    assert "edges" not in json.loads(clicks.call("inspect", "fm", "--item", "i0012", "--json")[1])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "shop", "old.csv"], "shop: holds a model already; choose another folder"),
        (["train", "x", "old.csv", "--learner", "emrg"], "no such method for items; did you mean 'emerg'?"),
        (
            ["train", "x", "old.csv", "--set", "widt=3"],
            "newcomer: widt is not a setting of emerg; did you mean 'width'?",
        ),
        (["train", "x", "nowhere.csv"], "nowhere.csv: no such file"),
        (["train", "x", "old.csv", "--schema", "nowhere.toml"], "nowhere.toml: no such file"),
        (["add", "shop", "old.txt"], "old.txt: neither .csv nor .parquet"),
        (["add", "shop", "bare.jsonl"], "bare.jsonl: no column 'kind'"),
        (["score", "shop", "requests.jsonl"], "requests.jsonl: row 1, column 'item': item 'i0"),
        (["score", "nowhere", "requests.jsonl"], "nowhere: no store here"),
        (["warm", "shop", "events.csv"], "events.csv: row 1, column 'item': item 'i0"),
        (["warm", "shop", "old.csv", "--event-id", "id"], "old.csv: no column 'id'"),
        (["warm", "shop", "broken.jsonl"], "broken.jsonl: line 2 is not a JSON object; write one per line"),
        (["warm", "shop", "old.csv", "--states", "nosuch://x"], "nosuch://x: no database that can be used"),
        (["score", "shop", "bare.jsonl", "--states", "sqlite:///garbage.db"], "garbage.db: the database refused"),
        (["score", "shop", "bare.jsonl", "--states", "sqlite:///no/where.db"], "give a file in a folder that is there"),
        (["inspect", "shop", "--item", "i001"], "item 'i001' is not known; did you mean 'i00"),
        (
            ["inspect", "shop", "--write", "a.toml"],
            "--write says nothing of shop, which is a click model; leave it out",
        ),
        (["inspect", "old.csv", "--item", "a"], "--item says nothing of old.csv, which is a log; leave it out"),
        (
            ["predict", "shop", "old.csv"],
            "a click model; use `newcomer add`, `score`, `warm` and `forget --item`",
        ),
        (["learn", "shop", "birds"], "a click model; use `newcomer add`"),
        (
            ["score", "birds-model", "requests.jsonl"],
            "a classifier; use `newcomer learn`, `predict` and `forget --class`",
        ),
        (["inspect", "birds-model", "--item", "a"], "--item says nothing of birds-model, which is a classifier"),
    ],
)
def test_mistakes_are_one_line_and_change_nothing(words: list[str], message: str, mistaken: Shell) -> None:
    assert message in mistaken.fails(*words)


@pytest.fixture
def mistaken(shop: Shell, kept: Path) -> Shell:
    """With a classifier, files that are broken, and a database that has taken up the items."""
    quick = ["--backbone", "micro-vit", "--set", "epochs=1", "--set", "rank=1"]
    if not (kept / "birds-model").exists():
        assert shop.call("learn", "birds-model", "birds", *quick)[0] == 0
        assert shop.call("warm", "shop", "old.csv")[0] == 0
        shutil.copytree(shop.folder / "birds-model", kept / "birds-model")
        shutil.copyfile(shop.folder / "shop" / "items.db", kept / "items.db")
    else:
        shutil.copytree(kept / "birds-model", shop.folder / "birds-model")
        shutil.copyfile(kept / "items.db", shop.folder / "shop" / "items.db")
    (shop.folder / "garbage.db").write_bytes(b"garbage" * 1000)
    (shop.folder / "bare.jsonl").write_text('{"item": "i0099"}\n')
    (shop.folder / "broken.jsonl").write_text('{"item": "i0001"}\nno json\n')
    return shop


def test_what_is_written_past_a_service_is_warned_of(shop: Shell) -> None:
    assert shop.call("add", "shop", "new.parquet")[2] == ""
    (shop.folder / "shop.service").mkdir()
    for words in (["add", "shop", "new.parquet"], ["warm", "shop", "events.csv"]):
        code, _, err = shop.call(*words)
        assert code == 0
        assert "shop was served, with the files in" in err
        assert err.count("\n") == 1
