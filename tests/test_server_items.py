"""Items over HTTP: what the service answers is what the library answers; what does not fit is said with its place."""

import re
import sqlite3
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from fastapi.testclient import TestClient

from films import FILMS, QUICK, SCHEMA, log, trained
from newcomer.data.schema import Field, Schema
from newcomer.errors import DataWarning, SettingError
from newcomer.items.methods.emerg import EmerG
from newcomer.items.serving import cached_items
from newcomer.items.serving.service import ItemService
from newcomer.server.app import create_app
from newcomer.server.click_versions import MAX_AGE
from newcomer.server.configuration import Limits, ServeConfig

CONTEXT: dict[str, Any] = {"page": "home", "price": 0.5}
NEW = {"film": "new", "genre": "war", "minutes": 99.0}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("films") / "store")


@pytest.fixture
def config(store: Path, tmp_path: Path) -> ServeConfig:
    return ServeConfig(stores=(store,), states=f"sqlite:///{tmp_path / 'items.db'}", folder=tmp_path / "own")


@pytest.fixture
def client(config: ServeConfig) -> Iterator[TestClient]:
    with TestClient(create_app(config), raise_server_exceptions=False) as client:
        yield client


def score(client: TestClient, *candidates: Any, **more: Any) -> Any:
    body = {"viewer": 3, "context": CONTEXT, "candidates": list(candidates)} | more
    return client.post("/score", json=body)


def event(**values: Any) -> dict[str, Any]:
    return {"film": "new", "viewer": 3, **CONTEXT, "liked": 1, "seen": 1000, **values}


def trained_on_dates(folder: Path) -> Path:
    dated = log().with_columns((pl.col("seen").cast(pl.Int64) + 1_600_000_000_000).cast(pl.Datetime("ms")))
    EmerG(SCHEMA, **QUICK).learn(dated).save(folder / "store")
    return folder / "store"


def test_a_registered_item_is_scored_as_the_library_scores_it(
    client: TestClient, config: ServeConfig, store: Path
) -> None:
    answer = client.post("/items", json={"items": [NEW]})
    assert answer.json()["items"] == [{"item_id": "new", "status": "new", "lost": None, "phase": "cold", "events": 0}]
    found = score(client, "new", *FILMS).json()
    with ItemService.open(store, config.states) as service:
        rows = [{"film": name, "viewer": 3} | CONTEXT for name in ("new", *FILMS)]
        right = service.score(rows)
    assert [row["item_id"] for row in found["scores"]] == ["new", *FILMS]
    assert [row["score"] for row in found["scores"]] == right["score"].to_list()
    assert [row["events"] for row in found["scores"]] == right["events"].to_list()
    assert [row["unseen"] for row in found["scores"]] == right["unseen"].to_list()
    assert {row["unseen"] for row in score(client, "new", viewer="nobody").json()["scores"]} == {1}
    assert found["model"] == right["model"][0]


def test_the_std_of_a_logit_is_that_of_the_library(client: TestClient, config: ServeConfig, store: Path) -> None:
    client.post("/items", json={"items": [NEW]})
    client.post("/events", json={"events": [event(film=FILMS[0], event_id="1")]})
    found = score(client, "new", FILMS[0], {"genre": "war", "minutes": 99.0}, uncertainty=True).json()["scores"]
    with ItemService.open(store, config.states) as service:
        right = service.score([{"film": name, "viewer": 3} | CONTEXT for name in ("new", FILMS[0])], uncertainty=True)
    assert [row["sd"] for row in found[:2]] == pytest.approx(right["logit_std"].to_list(), rel=1e-5)
    assert found[2]["sd"] == pytest.approx(found[0]["sd"], rel=1e-5)
    assert score(client, "new").json()["scores"][0]["sd"] is None


def test_the_uncertainty_of_an_item_shrinks_with_its_events(client: TestClient) -> None:
    client.post("/items", json={"items": [NEW]})
    found = [client.get("/items/new").json()["uncertainty"]]
    for begin in (0, 20, 40):
        rows = [event(event_id=f"e{n}", liked=n % 2, seen=1000 + n) for n in range(begin, begin + 20)]
        client.post("/events", json={"events": rows})
        found.append(client.get("/items/new").json()["uncertainty"])
    assert found[0]["sd"] == pytest.approx(found[0]["prior_sd"])
    left = [one["sd"] / one["prior_sd"] for one in found]
    assert left == sorted(left, reverse=True)
    assert left[-1] < 0.7
    right = score(client, "new", uncertainty=True).json()["scores"][0]["sd"]  # all events had this user and context
    assert found[-1]["sd"] == pytest.approx(right, rel=1e-4)
    assert client.get(f"/items/{FILMS[0]}").json()["uncertainty"] is None  # trained, without an event in service


def test_the_scores_of_a_worker_are_never_older_than_half_a_second(
    config: ServeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(cached_items, "monotonic", lambda: now)
    with TestClient(create_app(config)) as one, TestClient(create_app(config)) as other:
        one.post("/items", json={"items": [NEW]})
        before = score(other, "new").json()["scores"]
        for n in range(5):
            one.post("/events", json={"events": [event(event_id=f"e{n}", seen=1000 + n)]})
            now += MAX_AGE + 0.001
            found = score(other, "new").json()["scores"]
            assert found == score(one, "new").json()["scores"]
            assert found[0]["events"] == n + 1
        assert found[0]["score"] > before[0]["score"]
    assert MAX_AGE <= 0.5  # as docs/service.md says


def positions(found: Any, key: Any) -> list[int]:
    return sorted(range(len(found["scores"])), key=lambda n: -key(found["scores"][n]))


def test_candidates_are_ordered_by_score_or_by_upper_bound(client: TestClient) -> None:
    client.post("/items", json={"items": [NEW]})
    rows = [event(event_id=f"e{n}", liked=0, seen=1000 + n) for n in range(30)]
    client.post("/events", json={"events": rows})
    candidates = ["new", *FILMS[:3], {"genre": "war", "minutes": 99.0}, {"genre": "love", "minutes": 81.0}, "nobody"]
    plain = score(client, *candidates, on_unknown="null").json()
    assert {"order", "propensity"}.isdisjoint(plain)
    greedy = score(client, *candidates, on_unknown="null", explore="none").json()
    assert greedy["order"] == positions(greedy, lambda row: row["logit"] or -99)[:-1]  # without the unknown one
    assert greedy["propensity"] == 1
    for strength in (0.5, 3.0):
        found = score(client, *candidates, on_unknown="null", explore="ucb", strength=strength).json()
        bound = {n: row["logit"] + strength * (row["sd"] or 0) for n, row in enumerate(found["scores"][:-1])}
        assert found["order"] == sorted(bound, key=lambda n: -bound[n])
        assert found["propensity"] == 1
        assert [row["score"] for row in found["scores"]] == pytest.approx([row["score"] for row in plain["scores"]])


@pytest.mark.parametrize(("explore", "epsilon"), [("thompson", 0.0), ("thompson", 0.4), ("none", 0.4)])
def test_the_propensity_is_how_often_a_candidate_is_first(client: TestClient, explore: str, epsilon: float) -> None:
    candidates = [{"genre": "war", "minutes": 99.0}, {"genre": "love", "minutes": 81.0}, FILMS[0]]
    first, stated, requests = Counter[int](), dict[int, float](), 300
    for _ in range(requests):
        found = score(client, *candidates, explore=explore, epsilon=epsilon, strength=2.0).json()
        assert sorted(found["order"]) == [0, 1, 2]
        first[found["order"][0]] += 1
        stated[found["order"][0]] = found["propensity"]
    assert len(first) > 1
    for n, share in stated.items():
        assert abs(first[n] / requests - share) < 4 * (share * (1 - share) / requests) ** 0.5 + 1e-3


@pytest.mark.parametrize(
    ("body", "pointer", "message"),
    [
        ({"explore": "best"}, "/explore", "'none', 'thompson' or 'ucb'"),
        ({"explore": "ucb", "strength": -1}, "/strength", "greater than or equal to 0"),
        ({"explore": "ucb", "strength": True}, "/strength", "a valid number"),
        ({"explore": "none", "epsilon": 1.5}, "/epsilon", "less than or equal to 1"),
        ({"explore": "ucb", "strength": 1e308}, "/strength", "less than or equal to 1000000"),
        ({"strength": 0.5}, "/strength", "has no effect without 'explore'"),
        ({"explore": "ucb", "candidates": [FILMS[0], "new", FILMS[0]]}, "/candidates/2", "is there twice"),
        ({"explore": "ucb", "candidates": ["a"], "on_unknown": "null"}, "/candidates", "none has a score"),
    ],
)
def test_an_exploration_that_cannot_be_is_refused(
    client: TestClient, body: dict[str, Any], pointer: str, message: str
) -> None:
    client.post("/items", json={"items": [NEW]})
    answer = client.post("/score", json={"viewer": 3, "context": CONTEXT, "candidates": [FILMS[0], "new"]} | body)
    assert answer.status_code == 422
    assert [one["pointer"] for one in answer.json()["errors"]] == [pointer]
    assert message in answer.json()["detail"]


def test_without_a_posterior_only_the_scores_order(tmp_path: Path) -> None:
    trained(tmp_path / "store", adaptation="adam")
    with TestClient(create_app(ServeConfig(stores=(tmp_path / "store",)))) as client:
        refused = score(client, *FILMS, explore="thompson")
        assert refused.json()["errors"][0]["pointer"] == "/explore"
        assert "logits have no std" in refused.json()["detail"]
        assert score(client, *FILMS, explore="none", epsilon=0.1).json()["propensity"] > 0


def test_a_column_of_the_user_has_its_name_before_an_option(tmp_path: Path) -> None:
    named = replace(SCHEMA, fields=(*SCHEMA.fields, Field("strength", "user", "numeric", missing="mark")))
    rows = log().with_columns(strength=pl.col("viewer").cast(pl.Int64) * 1.5)
    EmerG(named, **QUICK).learn(rows).save(tmp_path / "store")
    with TestClient(create_app(ServeConfig(stores=(tmp_path / "store",)))) as client:
        weak, strong = (score(client, *FILMS, strength=number, viewer=n) for n, number in ((21, 1.5), (22, 28.5)))
        assert weak.status_code == strong.status_code == 200
        assert weak.json()["scores"] != strong.json()["scores"]
    taken = replace(SCHEMA, fields=(*SCHEMA.fields, Field("context", "user", missing="mark")))
    EmerG(taken, **QUICK).learn(log().with_columns(context=pl.lit("a"))).save(tmp_path / "taken")
    with pytest.raises(SettingError, match="column 'context' of the user has the name of a key of POST /score"):
        create_app(ServeConfig(stores=(tmp_path / "taken",)))


def test_a_candidate_by_its_features_has_the_score_of_such_an_item_and_is_not_added(client: TestClient) -> None:
    alone = score(
        client, {"genre": "war", "minutes": 99.0}, FILMS[0], {"film": "new", "genre": "war", "minutes": 99}
    ).json()
    client.post("/items", json={"items": [NEW]})
    added = score(client, "new").json()["scores"][0]
    assert alone["scores"][0]["score"] == alone["scores"][2]["score"] == added["score"]
    assert [row["item_id"] for row in alone["scores"]] == [None, FILMS[0], "new"]
    assert client.get("/items/nobody").status_code == 404


@pytest.mark.parametrize("on_unknown", ["error", "null", "prior"])
def test_an_unknown_candidate_is_what_was_asked(client: TestClient, on_unknown: str) -> None:
    answer = score(client, FILMS[0], "nobody", on_unknown=on_unknown)
    if on_unknown == "error":
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["pointer"] == "/candidates/1"
        return
    known, unknown = answer.json()["scores"]
    assert known["score"] == score(client, FILMS[0]).json()["scores"][0]["score"]
    assert (unknown["score"] is None) == (on_unknown == "null")


def test_an_event_changes_its_item_alone_and_counts_once(client: TestClient) -> None:
    client.post("/items", json={"items": [NEW, NEW | {"film": "other"}]})
    before = score(client, "new", "other").json()["scores"]
    body = {"events": [event(event_id=f"e{n}") for n in range(5)]}
    assert client.post("/events", json=body).json() == {
        "new": 5,
        "known": 0,
        "corrected": 0,
        "pending": 0,
        "refused": 0,
        "errors": [],
        "notes": [],
    }
    assert client.post("/events", json=body).json()["known"] == 5
    after = score(client, "new", "other").json()["scores"]
    assert after[0]["score"] > before[0]["score"]
    assert (after[0]["phase"], after[0]["events"]) == ("warm", 5)
    assert after[1] == before[1]


def test_an_event_joins_its_request(client: TestClient, config: ServeConfig, store: Path, tmp_path: Path) -> None:
    """User and context come from the request id: the state is that of an event which says them."""
    client.post("/items", json={"items": [NEW, NEW | {"film": "twin"}]})
    request = score(client, "new").json()["request_id"]
    joined = {"film": "new", "request_id": request, "event_type": "click", "seen": 1000}
    assert client.post("/events", json={"events": [joined]}).json()["new"] == 1
    assert client.post("/events", json={"events": [joined]}).json()["known"] == 1  # one click an item and request
    client.post("/events", json={"events": [event(film="twin")]})
    one, other = score(client, "new", "twin").json()["scores"]
    assert one["score"] == pytest.approx(other["score"], abs=1e-6)
    forged = client.post(
        "/events", json={"events": [joined | {"request_id": request[:-2] + "AA"}, joined | {"film": "twin"}]}
    )
    assert forged.json() | {"errors": None} == {
        "new": 1,
        "known": 0,
        "corrected": 0,
        "pending": 0,
        "refused": 1,
        "errors": None,
        "notes": [],
    }
    assert forged.json()["errors"][0] == {
        "pointer": "/events/0/request_id",
        "detail": "events: row 1, column 'request_id' is none of this service; score again, or give user and context",
    }


def test_a_click_on_an_impression_corrects_it(client: TestClient) -> None:
    """Impressions first and clicks later are as good as knowing the clicks from the start; the order does not matter."""
    client.post("/items", json={"items": [NEW | {"film": name} for name in ("a", "b", "c")]})
    plain = {key: value for key, value in event().items() if key != "liked"}
    shown = [plain | {"event_id": f"{n}", "event_type": "impression", "seen": 1000 + n} for n in range(6)]
    clicks = [row | {"event_type": "click", "seen": row["seen"] + 50} for row in shown[::2]]

    def send(film: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
        answer: dict[str, Any] = client.post("/events", json={"events": [row | {"film": film} for row in rows]}).json()
        return {key: answer[key] for key in ("new", "known", "corrected", "refused")}

    assert send("a", shown) == {"new": 6, "known": 0, "corrected": 0, "refused": 0}
    assert send("a", clicks) == {"new": 0, "known": 0, "corrected": 3, "refused": 0}
    assert send("a", clicks + shown) == {"new": 0, "known": 9, "corrected": 0, "refused": 0}
    assert send("b", clicks) == {"new": 3, "known": 0, "corrected": 0, "refused": 0}
    assert send("b", shown) == {"new": 3, "known": 3, "corrected": 0, "refused": 0}
    assert send("c", clicks + shown) == {"new": 6, "known": 3, "corrected": 0, "refused": 0}
    scores = [row["score"] for row in score(client, "a", "b", "c").json()["scores"]]
    assert scores == pytest.approx([scores[0]] * 3, abs=1e-4)
    assert send("a", [clicks[0] | {"event_id": "1", "price": 0.9}]) == {
        "new": 0,
        "known": 0,
        "corrected": 0,
        "refused": 1,
    }
    assert 'newcomer_events_total{outcome="corrected"} 3.0' in client.get("/metrics").text


def test_an_id_is_one_events(client: TestClient) -> None:
    """A click, and what comes under its id of another user, seen in training or not, or in another context."""
    client.post("/items", json={"items": [NEW]})
    first = event(event_id="a1", viewer="ann", liked=1)
    assert client.post("/events", json={"events": [first]}).json()["new"] == 1
    others = [
        first | {"viewer": "bob"},
        first | {"viewer": 8},
        first | {"price": 0.75},
        first | {"viewer": "eve", "liked": 0},
    ]
    for events in (others, [first | {"event_id": "a2"}, *[one | {"event_id": "a2"} for one in others]]):
        found = client.post("/events", json={"events": events}).json()
        assert (found["known"], found["refused"], found["corrected"]) == (0, 4, 0)
        assert all("another user or context than an event under this id" in one["detail"] for one in found["errors"])
    assert client.post("/events", json={"events": [first | {"seen": 1050}, first | {"liked": 0}]}).json()["known"] == 2


def test_a_key_that_is_not_there_is_answered_by_those_that_are(client: TestClient) -> None:
    def said(path: str, body: Any) -> dict[str, str]:
        answer = client.post(path, json=body)
        assert answer.status_code == 422
        return {error["pointer"]: error["detail"] for error in answer.json()["errors"]}

    body = {"context": CONTEXT, "candidates": [FILMS[0]]}
    assert (
        said("/score", body | {"user_id": 429})["/user_id"] == "is not a key here; this model's user column is 'viewer'"
    )
    assert said("/score", body) == {"/viewer": "Field required"}
    assert "viewer" in client.get("/openapi.json").json()["components"]["schemas"]["ScoreBody"]["required"]
    context = {"viewer": 3, "context": CONTEXT | {"prise": 1}}
    assert said("/score", body | context)["/context/prise"] == "is not a key here; did you mean 'price'?"
    assert said("/events", {"events": [event(item_id="new")]}) == {
        "/events/0/item_id": "is not a key here; this model's item column is 'film'"
    }
    assert said("/items", {"items": [NEW | {"x": 1}]}) == {
        "/items/0/x": "is not a key here; known: film, genre, minutes"
    }


def test_an_item_with_other_features_gets_them_and_is_tuned_anew(client: TestClient) -> None:
    other = {"genre": "love", "minutes": 80.0}
    client.post("/items", json={"items": [NEW, NEW | other | {"film": "twin"}]})
    rows = [event(event_id=f"e{n}", liked=n % 2, seen=1000 + n) for n in range(8)]
    for film in ("new", "twin"):
        client.post("/events", json={"events": [row | {"film": film} for row in rows]})
    before = client.get("/items/new").json()["graph"]
    for status in ("replaced", "known"):
        (answer,) = client.post("/items", json={"items": [NEW | other]}).json()["items"]
        assert answer == {"item_id": "new", "status": status, "lost": None, "phase": "warm", "events": 8}
    one, twin = score(client, "new", "twin").json()["scores"]
    assert one["score"] == pytest.approx(twin["score"], abs=1e-5)
    assert client.get("/items/new").json()["graph"] != before
    assert client.post("/events", json={"events": rows}).json()["known"] == 8
    refused = client.post("/items", json={"items": [NEW, NEW | {"film": "third"}], "replace": False}).json()
    assert [item["item_id"] for item in refused["items"]] == ["third"]
    assert "item 'new' is there with other features" in refused["refused"][0]["detail"]
    (trained_item,) = client.post("/items", json={"items": [NEW | {"film": FILMS[0]}]}).json()["items"]
    assert (trained_item["status"], trained_item["lost"].partition(":")[0]) == ("replaced", f"item '{FILMS[0]}'")


def test_event_types_are_labels(config: ServeConfig) -> None:
    with TestClient(create_app(config.model_copy(update={"clicked": ("purchase",)}))) as client:
        client.post("/items", json={"items": [NEW]})
        kinds = ["purchase", "impression", "click"]
        plain = {key: value for key, value in event().items() if key != "liked"}
        body = {"events": [plain | {"event_id": kind, "event_type": kind} for kind in kinds]}
        assert client.post("/events", json=body).json()["new"] == 3
        with ItemService.open(config.stores[0], config.states) as service:
            assert service.states.labels(service.model, {"new": kinds}) == {
                "new": {"purchase": 1, "impression": 0, "click": 0}
            }
        near = {"events": [plain | {"event_id": "near", "event_type": kind} for kind in ("Purchase", " purchase")]}
        refused = client.post("/events", json=near).json()
        assert (refused["new"], refused["refused"]) == (0, 2)
        assert "is 'Purchase', which is no click; did you mean 'purchase'?" in refused["errors"][0]["detail"]


def test_each_event_that_does_not_fit_is_refused_with_its_place(client: TestClient) -> None:
    client.post("/items", json={"items": [NEW]})
    rows = [event(event_id="a"), event(film="nobody", event_id="b"), event(price="dear", event_id="c"),
            event(event_id="d", liked=None), event(event_id="e", event_type="click"),
            event(liked=0, event_id="f"), event(page="list", event_id="f")]  # fmt: skip
    found = client.post("/events", json={"events": rows}).json()
    assert [found[key] for key in ("new", "known", "corrected", "refused")] == [2, 0, 0, 5]
    assert sorted(error["pointer"] for error in found["errors"] if error["pointer"]) == [
        "/events/1/film",
        "/events/2/price",
        "/events/3/liked",
        "/events/4/event_type",
        "/events/6",
    ]


def test_an_event_does_not_contradict_its_request(client: TestClient, config: ServeConfig, store: Path) -> None:
    """What the signed request had is what counts: the same again is allowed, null says nothing, another value is refused."""
    client.post("/items", json={"items": [NEW, NEW | {"film": "twin"}]})
    joined = {
        "film": "new",
        "request_id": score(client, "new").json()["request_id"],
        "event_type": "click",
        "seen": 1000,
    }
    same: list[dict[str, Any]] = [{"viewer": 3.0, "price": "0.50"}, {"page": " home", "viewer": "3"}]
    for n, spelled in enumerate(same):
        assert client.post("/events", json={"events": [joined | spelled | {"film": FILMS[n]}]}).json()["new"] == 1
    more: list[dict[str, Any]] = [
        {"viewer": 4},
        {"page": "list"},
        {"price": 0.25},
        {"viewer": "3", "page": None, "price": 0.5},
    ]
    found = client.post(
        "/events", json={"events": [joined | {"event_id": str(n)} | one for n, one in enumerate(more)]}
    ).json()
    assert (found["new"], found["refused"]) == (1, 3)
    assert [one["pointer"] for one in found["errors"]] == ["/events/0/viewer", "/events/1/page", "/events/2/price"]
    assert "column 'viewer' is 4, and 3 in the request of this request_id" in found["errors"][0]["detail"]
    client.post("/events", json={"events": [event(film="twin")]})
    one, twin = score(client, "new", "twin").json()["scores"]
    assert one["score"] == pytest.approx(twin["score"], abs=1e-6)


def test_a_request_id_joins_events_whatever_their_own_ids(client: TestClient) -> None:
    client.post("/items", json={"items": [NEW]})
    shown = {"film": "new", "request_id": score(client, "new").json()["request_id"], "seen": 1000}
    rows: list[dict[str, Any]] = [
        {"event_id": "i1", "event_type": "impression"},
        {"event_id": "c1", "event_type": "click"},
        {"liked": 1},
    ]
    found = [client.post("/events", json={"events": [shown | row]}).json() for row in rows]
    assert [(one["new"], one["corrected"], one["known"]) for one in found] == [(1, 0, 0), (0, 1, 0), (0, 0, 1)]
    assert client.get("/items/new").json()["events"] == 1


def test_an_event_that_would_count_at_each_time_is_refused(tmp_path: Path) -> None:
    """Without ids and time two events cannot be told from one that is sent twice."""
    store = trained_on_dates(tmp_path)
    with TestClient(create_app(ServeConfig(stores=(store,)))) as client:
        client.post("/items", json={"items": [NEW]})
        row = {key: value for key, value in event().items() if key != "seen"}
        answers = [client.post("/events", json={"events": [row | more]}).json() for more in ({}, {"event_id": "a"})]
        assert [one["new"] for one in answers] == [0, 1]
        assert "without 'event_id': sent again, the event would count twice" in answers[0]["errors"][0]["detail"]


def test_unseen_values_of_items_are_said_and_counted(client: TestClient) -> None:
    added = client.post("/items", json={"items": [NEW | {"genre": "War"}, NEW | {"film": "other"}]}).json()
    assert added["unseen"] == {"genre": {"values": 2, "unseen": 1}}
    candidates = [{"genre": "wars", "minutes": 1}, {"genre": "war", "minutes": 1}, "new", FILMS[0]]
    assert [one["unseen"] for one in score(client, *candidates).json()["scores"]] == [1, 0, 0, 0]
    assert [one["unseen"] for one in score(client, *candidates, viewer="x").json()["scores"]] == [2, 1, 1, 1]
    metrics = client.get("/metrics").text
    assert 'newcomer_unseen_values_total{field="genre"} 3.0' in metrics


def test_numbers_are_counted_by_their_distance_from_those_of_training(client: TestClient) -> None:
    """Films had 80 to 87 minutes, and prices were between 0 and 1."""

    def found() -> dict[tuple[str, str], float]:
        lines = re.findall(r'newcomer_numbers_total\{field="(\w+)",stds="([^"]+)"\} (\S+)', client.get("/metrics").text)
        return {(name, stds): float(count) for name, stds, count in lines}

    client.post("/items", json={"items": [NEW | {"minutes": 83.4}, NEW | {"film": "long", "minutes": 300}]})
    assert found() == {("minutes", "-1 to +0"): 1, ("minutes", "+3 to +inf"): 1}
    client.post("/score", json={"viewer": 3, "context": {"price": -7, "page": "home"}, "candidates": ["new", "long"]})
    assert found()["price", "-inf to -3"] == 2
    client.post("/events", json={"events": [event(event_id="1")]})
    assert 'newcomer_scored_events_total{item_events="0"} 1.0' in client.get("/metrics").text


def test_repetitions_of_refused_events_are_refused(client: TestClient) -> None:
    client.post("/items", json={"items": [NEW]})
    rows = [
        event(event_id="g"),
        *[event(film="q", event_id="e", price=price) for price in (0.5, 0.5, 0.9)],
        event(event_id="g"),
    ]
    found = client.post("/events", json={"events": rows}).json()
    assert [found[key] for key in ("new", "known", "corrected", "refused")] == [1, 1, 0, 3]
    assert sorted(error["pointer"] for error in found["errors"]) == ["/events/1/film", "/events/2/film", "/events/3"]


def test_an_id_that_looks_like_a_row_is_none(client: TestClient, config: ServeConfig) -> None:
    """Of a message that names no row, the row in an id was counted anew, beyond all rows: 500."""
    client.post("/items", json={"items": [NEW | {"film": "row 99"}, NEW]})
    client.post("/events", json={"events": [event(film="row 99", event_id="a")]})
    with sqlite3.connect(str(config.states).removeprefix("sqlite:///")) as database:
        database.execute("update item_events set label = 1 - label where item_id = 'row 99'")
    rows = [event(film="row 99", event_id="a"), event(event_id="b")]
    found = client.post("/events", json={"events": rows})
    assert found.status_code == 200
    assert [found.json()[key] for key in ("new", "refused")] == [1, 1]
    assert "item 'row 99'" in found.json()["errors"][0]["detail"]
    details = client.get("/items", params={"item_id": "row 99"})
    assert (details.status_code, details.json()["uncertainty"]) == (200, None)


def test_a_parameter_that_is_not_there_is_refused(client: TestClient) -> None:
    body = {"viewer": 3, "context": CONTEXT, "candidates": [FILMS[0]]}
    assert client.post("/score?model=v2", json=body).status_code == 422
    wrong = client.get("/items?phases=cold")
    assert (wrong.status_code, wrong.json()["detail"]) == (
        422,
        "query:/phases: is no parameter here; did you mean 'phase'?",
    )
    assert client.get("/items?phase=Cold").status_code == 422
    assert client.get("/item").json()["detail"].startswith("no such route; GET /openapi.json")
    assert client.put("/items").json()["detail"].startswith("not by PUT; GET /openapi.json")


def test_what_is_unusual_about_events_is_noted(tmp_path: Path) -> None:
    store = trained_on_dates(tmp_path)
    with TestClient(create_app(ServeConfig(stores=(store,)))) as client:
        client.post("/items", json={"items": [NEW]})
        rows = [event(event_id="a", seen=5), event(event_id="b", liked=None, event_type="clik")]
        with pytest.warns(DataWarning, match="row 1, time 'seen' is 5"):
            found = client.post("/events", json={"events": rows}).json()
        assert found["new"] == 2
        assert found["notes"][0] == "event_type 'clik' is no click; 'click' is"
        assert found["notes"][1].startswith("events: row 1, time 'seen' is 5")


def test_an_event_without_its_request_is_told_what_is_missing(client: TestClient) -> None:
    client.post("/items", json={"items": [NEW]})
    plain: dict[str, Any] = {"film": "new", "event_type": "click", "seen": 1}
    kinds = [event(event_type=kind, liked=None) for kind in ("", " ")]
    rows = [plain | {"viewer": 3}, plain | {"price": 0.5}, *kinds]
    found = client.post("/events", json={"events": rows}).json()
    assert (found["new"], found["refused"]) == (0, 4)
    places = ["/events/0/price", "/events/1/viewer", "/events/2/event_type", "/events/3/event_type"]
    assert [one["pointer"] for one in found["errors"]] == places
    assert "or the request_id of the scores" in found["errors"][0]["detail"]


@pytest.mark.parametrize("place", [0, 2, 3])
@pytest.mark.parametrize("date", ["2033-05-18T03:33:20Z", "18/05/2033"])
@pytest.mark.parametrize("number", [1000, 1000.5, "1000"])
def test_a_date_among_times_that_are_numbers_is_refused_alone(
    client: TestClient, place: int, date: str, number: float | str
) -> None:
    client.post("/items", json={"items": [NEW]})
    rows = [event(event_id=str(n), seen=date if n == place else number) for n in range(4)]
    found = client.post("/events", json={"events": rows}).json()
    assert [found[key] for key in ("new", "refused")] == [3, 1]
    assert [error["pointer"] for error in found["errors"]] == [f"/events/{place}/seen"]
    assert "others are numbers; write a number, as in training" in found["errors"][0]["detail"]


@pytest.mark.parametrize(
    ("path", "body", "pointer"),
    [
        ("/items", {"items": [NEW, {"film": "x", "genre": "war", "genr": "war", "minutes": 1}]}, "/items/1/genr"),
        ("/items", {"items": [{"genre": "war", "minutes": 1}]}, "/items/0/film"),
        ("/items", {"items": [{"film": "x", "genre": "war", "minutes": "long"}]}, "/items/0/minutes"),
        ("/items", {"items": []}, "/items"),
        ("/score", {"viewer": 3, "candidates": ["a"]}, "/context"),
        ("/score", {"viewer": 3, "context": CONTEXT, "candidates": [{"genre": 1, "minutes": "x"}]}, "/candidates/0/minutes"),
        ("/score", {"viewer": {"a": 1}, "context": CONTEXT, "candidates": ["a"]}, "/viewer"),
        ("/score", {"viewer": True, "context": CONTEXT, "candidates": ["a"]}, "/viewer"),
        ("/score", {"viewer": 3, "context": CONTEXT | {"price": "x"}, "candidates": [FILMS[0]]}, "/context/price"),
        ("/score", {"viewer": 3, "context": CONTEXT, "candidates": [{"genr": "x"}]}, "/candidates/0/genr"),
        ("/score", {"viewer": 3, "context": CONTEXT, "candidates": [FILMS[0], {"genre": "war"}]}, "/candidates/1/minutes"),
        ("/score", {"viewer": 3, "context": CONTEXT | {"page": [[1]]}, "candidates": [FILMS[0]]}, "/context/page/0"),
        ("/items", {"items": [NEW | {"film": True}]}, "/items/0/film"),
        ("/items", {"items": [NEW | {"film": "it's 'x' y", "genre": genre} for genre in ("war", "love")]}, "/items/1"),
        ("/items", {"items": [NEW | {"film": FILMS[0]}], "replace": False}, "/items/0"),
        ("/items", {"items": [NEW, NEW | {"genre": "love"}]}, "/items/1"),
        ("/events", {"events": [event(seen=True)]}, "/events/0/seen"),
        ("/events", {"events": [event(colour="red")]}, "/events/0/colour"),
        ("/events", [], ""),
    ],
)  # fmt: skip
def test_a_body_that_does_not_fit_is_refused_with_its_path(
    client: TestClient, path: str, body: Any, pointer: str
) -> None:
    answer = client.post(path, json=body)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


@pytest.mark.parametrize("body", [b"", b"{", b'["\\ud800"]', b"[NaN]", b"\xff", b"[" * 10_000])
def test_a_body_that_is_no_strict_json_is_refused(client: TestClient, body: bytes) -> None:
    answer = client.post("/score", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == (400 if body else 422)
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("body", "header", "why"),
    [
        (
            '{"items": [{"film": "x"}]}',
            "application/x-www-form-urlencoded",
            "send the header 'content-type: application/json'",
        ),
        ('[{"film": "x"}]', "application/json", "no JSON object; write one"),
    ],
)
def test_a_body_that_is_no_object_is_refused_with_what_to_do(
    client: TestClient, body: str, header: str, why: str
) -> None:
    answer = client.post("/items", content=body, headers={"content-type": header})
    assert answer.status_code == 422
    assert why in answer.json()["detail"]


def test_a_number_that_is_not_finite_is_refused(client: TestClient) -> None:
    body = b'{"viewer": 3, "context": {"page": "home", "price": 1e400}, "candidates": ["film 0"]}'
    answer = client.post("/score", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422
    assert "/context/price" in [error["pointer"] for error in answer.json()["errors"]]


def test_items_are_listed_by_phase_page_by_page_and_deleted_for_good(client: TestClient) -> None:
    names = [f"new {n}" for n in range(7)]
    client.post("/items", json={"items": [NEW | {"film": name} for name in names]})
    found, after = [], None
    while True:
        page = client.get("/items", params={"phase": "cold", "limit": 3, "after": after or ""}).json()
        found += [item["item_id"] for item in page["items"]]
        if (after := page["next"]) is None:
            break
    assert found == names
    assert client.delete("/items/new 3").status_code == 204
    assert client.delete("/items/new 3").status_code == 404
    assert score(client, "new 3").status_code == 422
    details = client.get(f"/items/{FILMS[0]}").json()
    assert details["phase"] == "warm"
    assert len(details["graph"]) == 10


def test_the_time_of_an_event_may_be_that_of_its_arrival(tmp_path: Path) -> None:
    with TestClient(create_app(ServeConfig(stores=(trained_on_dates(tmp_path),)))) as client:
        timeless = {key: value for key, value in event(film=FILMS[0]).items() if key != "seen"}
        assert client.post("/events", json={"events": [timeless | {"event_id": "1"}]}).json()["new"] == 1


def test_columns_may_have_any_names(tmp_path: Path) -> None:
    """Columns that are no names in Python, or that the bodies use themselves."""
    names = {
        "film": "model_id",
        "viewer": "class",
        "genre": "_genre",
        "page": "event_id",
        "liked": "copy",
        "seen": "request id",
    }
    renamed = log().rename(names)
    fields = (Field("_genre", "item"), Field("event_id", "context"))
    schema = Schema("model_id", "class", "copy", "request id", fields)
    EmerG(schema, **QUICK).learn(renamed).save(tmp_path / "store")
    with TestClient(create_app(ServeConfig(stores=(tmp_path / "store",)))) as client:
        client.post("/items", json={"items": [{"model_id": "new", "_genre": "war"}]})
        body = {"class": 3, "context": {"event_id": "home"}, "candidates": ["new"]}
        request = client.post("/score", json=body).json()["request_id"]
        clicked = {"model_id": "new", "request_id": request, "copy": 1, "request id": 5}
        assert client.post("/events", json={"events": [clicked]}).json()["new"] == 1
        assert client.get("/items/new").json()["events"] == 1


def test_limits(config: ServeConfig) -> None:
    limits = Limits(body=4096, rows=10)
    with TestClient(create_app(config.model_copy(update={"limits": limits}))) as client:
        assert score(client, *["x"] * 11).status_code == 422
        large = client.post("/score", content=b"{" + b" " * 5000)
        assert large.status_code == 413
        assert large.headers["content-type"] == "application/problem+json"
        streamed = client.post("/score", content=(b" " * 1000 for _ in range(6)))
        assert streamed.status_code == 413


def test_metrics_and_probes(client: TestClient) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ready"}
    assert [client.head(path).status_code for path in ("/", "/healthz", "/readyz")] == [200] * 3
    score(client, *FILMS[:2])
    client.post("/events", json={"events": [event(film=FILMS[0], event_id="x")]})
    found = client.get("/metrics").text
    assert 'newcomer_scores_total{phase="warm"} 2.0' in found
    assert 'newcomer_events_total{outcome="new"} 1.0' in found
    assert 'newcomer_clicks_total{item_events="20-59"} 1.0' in found
    assert re.search(r'newcomer_expected_clicks_total\{item_events="20-59"\} 0\.\d+', found)
    assert 'newcomer_requests_total{method="POST",route="/score",status="200"} 1.0' in found


def test_the_log_names_methods_and_routes(config: ServeConfig, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "newcomer.server")
    with TestClient(create_app(config.model_copy(update={"limits": Limits(body=1024)}))) as client:
        requests = [
            ("GET", "/openapi.json"),
            ("POST", "/items"),
            ("PUT", "/items"),
            ("GET", "/items/x/y"),
            ("GET", "/nowhere"),
        ]
        for method, path in requests:
            client.request(method, path, content=b" " * 2000 if method == "POST" else None)
    found = [(one.method, one.route, one.status) for one in caplog.records if one.message == "request"]  # type: ignore[attr-defined]
    assert found == [
        ("GET", "/openapi.json", 200),
        ("POST", "unknown", 413),
        ("PUT", "/items", 405),
        ("GET", "/items/{item_id:path}", 404),
        ("GET", "unknown", 404),
    ]


def test_the_description_is_openapi_and_names_the_columns(client: TestClient) -> None:
    described = client.get("/openapi.json").json()
    assert described["openapi"].startswith("3.1")
    assert set(described["components"]["schemas"]["Item"]["properties"]) == {"film", "genre", "minutes"}
    assert "viewer" in described["components"]["schemas"]["ScoreBody"]["properties"]


def test_an_open_address_needs_tokens(config: ServeConfig) -> None:
    with pytest.raises(SettingError, match=r"--host 0\.0\.0\.0: others can reach this address; give --token-file"):
        create_app(config.model_copy(update={"host": "0.0.0.0"}))
