"""Users who are cut by the number of their events, hashed into buckets, or left out: in training, in service and in stores."""

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from newcomer.data.click_log import Column
from newcomer.data.io.chunked_log import ChunkedLog
from newcomer.data.schema import Field, Schema
from newcomer.data.vocabulary import UNSEEN, HashBuckets, Vocabulary
from newcomer.errors import SettingError
from newcomer.items.methods.emerg import EmerG
from newcomer.items.methods.id_tuning import IdTuning
from newcomer.items.methods.mwuf import MWUF
from newcomer.items.serving.service import ItemService
from shell import Shell

SCHEMA = Schema("film", "viewer", "liked", "seen", (Field("genre", "item"), Field("page", "context")))
FREQUENT, RARE, BUCKETS = [f"often {n}" for n in range(12)], [f"once {n}" for n in range(30)], 5
SHORT: dict[str, Any] = {"width": 4, "tower": [4], "layers": 1, "pretrain_epochs": 2, "meta_epochs": 1, "device": "cpu"}


def films() -> pl.DataFrame:
    """460 events of 20 films: every rare viewer has one, every frequent one about 35."""
    draw = random.Random(0)
    viewers = RARE + [FREQUENT[n % len(FREQUENT)] for n in range(430)]
    draw.shuffle(viewers)
    film, page = [draw.randrange(20) for _ in viewers], [draw.randrange(3) for _ in viewers]
    return pl.DataFrame(
        {
            "film": [f"film {n}" for n in film],
            "viewer": viewers,
            "liked": [
                int(draw.random() < (0.8 if v in RARE or len(v) % 2 == n % 2 else 0.2))
                for v, n in zip(viewers, film, strict=True)
            ],
            "seen": range(len(film)),
            "genre": [f"genre {n % 3}" for n in film],
            "page": [f"page {n}" for n in page],
        }
    )


def requests(*viewers: str) -> pl.DataFrame:
    return pl.DataFrame([{"film": "film 3", "viewer": viewer, "page": "page 1"} for viewer in viewers])


def learned(**settings: Any) -> EmerG:
    return EmerG(SCHEMA, **SHORT | settings).learn(films())


CUT: dict[str, Any] = {"user_min_count": 2}
HASHED: dict[str, Any] = {"user_buckets": BUCKETS}
LEFT_OUT: dict[str, Any] = {"user_buckets": 0}


def test_users_with_few_events_share_the_vector_of_unknown_ones_and_train_it() -> None:
    learner = learned(**CUT)
    coding, table = learner.encoder.codings["viewer"], learner.network.row_fields.tables[0]
    assert isinstance(coding, Vocabulary)
    assert coding.names == tuple(sorted(FREQUENT))
    assert table.shape == (len(FREQUENT) + 2, 4)
    assert (table[UNSEEN] != 0).all()
    known, *others = learner.score(requests(FREQUENT[0], "nobody knows", *RARE))
    assert len(set(others)) == 1
    assert known != others[0]
    assert (learned().network.row_fields.tables[0][UNSEEN] == 0).all()


def test_a_count_that_all_users_reach_changes_nothing() -> None:
    every = films().filter(~pl.col("viewer").is_in(RARE))
    one, other = (EmerG(SCHEMA, **SHORT, user_min_count=n).learn(every) for n in (1, 20))
    assert all(torch.equal(a, b) for a, b in zip(one.network.parameters(), other.network.parameters(), strict=True))


@pytest.mark.parametrize("settings", [CUT, HASHED, LEFT_OUT])
def test_a_log_in_chunks_is_encoded_as_one_in_memory(settings: Mapping[str, Any], tmp_path: Path) -> None:
    films().write_csv(tmp_path / "log.csv")
    one = learned(**settings)
    other = EmerG(SCHEMA, **{**SHORT, **settings}).learn(ChunkedLog(tmp_path / "log.csv", SCHEMA, rows=50))
    assert one.encoder.codings["viewer"] == other.encoder.codings["viewer"]


def test_viewers_of_one_bucket_share_a_vector_and_unknown_ones_have_one() -> None:
    learner = learned(**HASHED)
    coding, table = learner.encoder.codings["viewer"], learner.network.row_fields.tables[0]
    assert isinstance(coding, HashBuckets)
    assert (coding.ids, coding.colliding) == (42, 42)
    assert table.shape == (BUCKETS + 2, 4)
    names = [*FREQUENT, *RARE, *(f"new {n}" for n in range(20))]
    buckets = learner.encoder.clicks(
        learner._to_log(requests(*names), items=False, labels=False), np.zeros(len(names), dtype=int)
    )
    codes = buckets.of_users[0][buckets.user].tolist()
    assert set(codes) == set(range(2, BUCKETS + 2))
    by_code = dict(zip(codes, learner.score(requests(*names)), strict=True))
    assert [by_code[code] for code in codes] == learner.score(requests(*names)).tolist()
    assert len(set(by_code.values())) == BUCKETS


def test_the_bucket_of_an_id_is_the_same_for_ever() -> None:
    """Stores depend on it."""
    found = HashBuckets.fit("viewer", ["a", "ä", "\udcff", "user 1"], 1000)
    assert _codes(found, "a", "ä", "user 1", "\0a") == [345, 531, 565, UNSEEN]
    assert (found.ids, found.colliding) == (4, 0)


def _codes(coding: HashBuckets, *names: str) -> list[int]:
    return [int(code) for code in coding.encode(Column.of_names(list(names)))]


def test_left_out_users_are_all_alike() -> None:
    learner = learned(**LEFT_OUT)
    assert learner.network.row_fields.tables[0].shape == (2, 4)
    assert len(set(learner.score(requests(*FREQUENT, *RARE, "new")))) == 1


@pytest.mark.parametrize("settings", [CUT, HASHED, LEFT_OUT])
def test_a_service_and_a_store_answer_as_the_learner_does(settings: Mapping[str, Any], tmp_path: Path) -> None:
    """And nobody is warned of users who are alike by intention."""
    learner, names = learned(**settings), [FREQUENT[1], RARE[1], *(f"new {n}" for n in range(20))]
    learner.save(tmp_path / "store")
    assert EmerG.load(tmp_path / "store").score(requests(*names)).tolist() == learner.score(requests(*names)).tolist()
    with ItemService.open(tmp_path / "store") as service:
        answers = service.score(requests(*names))
        np.testing.assert_allclose(answers["score"], learner.score(requests(*names)), rtol=1e-6)
        assert answers["unseen"].to_list() == ([0, *[1] * 21] if settings is CUT else [0] * 22)


@pytest.mark.parametrize("kind", [IdTuning, MWUF])
def test_other_methods_have_them_too(kind: Any) -> None:
    learner = kind(SCHEMA, width=4, hidden=[4], pretrain_epochs=1, meta_epochs=0, **CUT).learn(films())
    assert len(set(learner.score(requests(*RARE, "new")))) == 1


def test_who_shares_the_vector_of_unknown_users_has_no_history() -> None:
    """Neither in training, where a row would see the others' labels, nor after."""
    learner = learned(**CUT, user_history=True)
    history = learner.network.row_fields.tables[-1]
    assert (history[:2] == 0).all()
    assert (history[2:] != 0).any(dim=1).all()
    assert len(set(learner.score(requests(*RARE, "new")))) == 1


def test_events_in_service_give_an_unknown_user_no_history(tmp_path: Path) -> None:
    """They change the states of items alone: those of two users who liked the opposite answer both alike."""
    learner = learned(user_history=True)
    learner.save(tmp_path / "store")
    events = films().head(12).with_columns(viewer=pl.lit("new"), liked=pl.Series([1, 0] * 6), seen=pl.lit(1000))
    with ItemService.open(tmp_path / "store") as service:
        service.warm(events)
        one, other = service.score(requests("new", "newer"))["score"]
    assert one == other


def test_a_forgotten_user_leaves_the_bucket_and_its_others_their_events(tmp_path: Path) -> None:
    learner = learned(**HASHED)
    learner.save(tmp_path / "store")
    mates = [
        name
        for name in FREQUENT[1:] + RARE
        if _codes(coding_of(learner), name) == _codes(coding_of(learner), FREQUENT[0])
    ]
    events = films().head(2).with_columns(viewer=pl.Series([FREQUENT[0], mates[0]]), seen=pl.Series([1000, 1001]))
    with ItemService.open(tmp_path / "store") as service:
        service.warm(events)
        assert service.forget_user(FREQUENT[0]).events == 1
        mine, mates_score, nobodys = service.score(requests(FREQUENT[0], mates[0], "\0"))["score"]
        assert mine == nobodys != mates_score


def coding_of(learner: EmerG) -> HashBuckets:
    coding = learner.encoder.codings["viewer"]
    assert isinstance(coding, HashBuckets)
    return coding


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"user_buckets": 5, "user_min_count": 2}, "both say which users share a row; set one of them"),
        ({"user_buckets": 0, "user_history": True}, "needs users, whom user_buckets = 0 leaves out"),
        ({"user_buckets": -1}, "user_buckets = -1 cannot be"),
        ({"user_min_count": 0}, "user_min_count = 0 cannot be"),
    ],
)
def test_what_cannot_be_is_one_line(settings: Mapping[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        EmerG(SCHEMA, **settings)


def test_the_command_line_sets_and_shows_them(shell: Shell) -> None:
    films().write_csv(shell.folder / "clicks.csv")
    quick = [word for pair in ("width=4", "pretrain_epochs=1", "meta_epochs=0") for word in ("--set", pair)]
    for name, value, line in (
        ("cut", "user_min_count=2", "12"),
        ("hashed", "user_buckets=5", "42 hashed into 5, 42 share a bucket"),
        ("none", "user_buckets=0", "left out (42)"),
    ):
        assert shell.call("train", name, "clicks.csv", "--set", value, *quick)[0] == 0
        code, out, _ = shell.call("inspect", name)
        assert code == 0
        assert line in next(row for row in out.splitlines() if "│ viewer" in row)
        assert value in out
        fields = json.loads(shell.call("inspect", name, "--json")[1])["fields"]
        viewer = next(field for field in fields if field["name"] == "viewer")
        assert viewer["values"] == (12 if name == "cut" else None)
        assert viewer.get("hashed") == (None if name == "cut" else line)
    assert "both say" in shell.fails("train", "x", "clicks.csv", "--set", "user_buckets=5", "--set", "user_min_count=2")
