"""Versions: which one scores for whom; going back is one call; every version that may become live has all events."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from films import FILMS, trained
from newcomer import FrozenBackbone
from newcomer.data.examples import Examples
from newcomer.errors import StoreError
from newcomer.items.serving.service import ItemService, fingerprint
from newcomer.server import classifiers
from newcomer.server.app import create_app
from newcomer.server.click_versions import position
from newcomer.server.configuration import ServeConfig
from newcomer.server.models import ModelsFile, Version
from newcomer.store import folder
from newcomer.store.folder import Store

CONTEXT: dict[str, Any] = {"page": "home", "price": 0.5}
NEW = {"film": "new", "genre": "war", "minutes": 99.0}


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("films")
    return trained(folder / "one"), trained(folder / "two", seed=1)


@pytest.fixture
def config(stores: tuple[Path, Path], tmp_path: Path) -> ServeConfig:
    return ServeConfig(stores=stores[:1], states=f"sqlite:///{tmp_path / 'items.db'}", folder=tmp_path / "own")


@pytest.fixture
def client(config: ServeConfig, stores: tuple[Path, Path]) -> Iterator[TestClient]:
    """A service with a second version that is ready."""
    with TestClient(create_app(config), raise_server_exceptions=False) as client:
        shutil.copytree(stores[1], config.own_folder / "versions" / "v2")
        with ModelsFile(config.own_folder).change() as models:
            assert models.click_model is not None
            made = Version(model=fingerprint(stores[1]), status="ready", created="2024-01-31")
            models.click_model.versions["v2"] = made
        yield client


def score(client: TestClient, viewer: int = 3, *candidates: str) -> Any:
    body = {"viewer": viewer, "context": CONTEXT, "candidates": list(candidates or FILMS)}
    answer = client.post("/score", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def scores(answer: Any) -> list[float]:
    return [row["score"] for row in answer["scores"]]


def events(count: int) -> dict[str, Any]:
    return {
        "events": [
            {"film": "new", "viewer": n, **CONTEXT, "liked": 1, "seen": n, "event_id": f"e{n}"} for n in range(count)
        ]
    }


def test_another_version_is_live_and_back_in_one_call_with_all_items_and_events(
    client: TestClient, config: ServeConfig, stores: tuple[Path, Path]
) -> None:
    client.post("/items", json={"items": [NEW, NEW | {"film": "gone"}]})
    client.post("/events", json=events(5))
    client.delete("/items/gone")
    before = score(client, 3, "new", *FILMS)
    assert client.post("/models", json={"live": "v2"}).status_code == 200
    there = score(client, 3, "new", *FILMS)
    assert there["scores"][0]["events"] == 5
    assert client.get("/items/gone").status_code == 404
    with ItemService.open(stores[1], config.states) as service:
        rows = [{"film": name, "viewer": 3, **CONTEXT} for name in ("new", *FILMS)]
        assert scores(there) == pytest.approx(service.score(rows)["score"].to_list(), abs=1e-6)
        assert there["model"] == service.model != before["model"]
    assert client.post("/events", json=events(8)).json() | {"errors": 0} == {
        "new": 3, "known": 5, "corrected": 0, "pending": 0, "refused": 0, "errors": 0, "notes": []}  # fmt: skip
    assert client.post("/models", json={"live": "v1"}).status_code == 200
    back = score(client, 3, "new", *FILMS)
    assert (back["model"], back["scores"][0]["events"]) == (before["model"], 8)
    assert scores(back)[1:] == scores(before)[1:]


def test_a_share_of_the_users_has_another_version_and_the_same_ones_always(client: TestClient) -> None:
    def answered() -> list[str]:
        return [score(client, viewer, FILMS[0])["model"] for viewer in range(60)]

    first = answered()[0]
    client.post("/models", json={"shares": {"v2": 0.3}})
    few = answered()
    client.post("/models", json={"shares": {"v2": 0.6}})
    more = answered()
    assert answered() == more
    assert 0 < len([model for model in few if model != first]) < len([model for model in more if model != first]) < 60
    assert all(one == first or other != first for one, other in zip(few, more, strict=True))
    client.post("/models", json={"shares": {}})
    assert set(answered()) == {first}


def test_users_are_distributed_uniformly_and_anew_with_another_salt() -> None:
    points = [position("a", str(user)) for user in range(10_000)]
    for share in (0.01, 0.1, 0.5):
        spread = (share * (1 - share) / len(points)) ** 0.5
        assert sum(point < share for point in points) / len(points) == pytest.approx(share, abs=4 * spread)
    assert sum(point < 0.5 and position("b", str(user)) < 0.5 for user, point in enumerate(points)) < 2700


def test_a_shadow_version_is_compared_and_not_in_the_answer(client: TestClient, config: ServeConfig) -> None:
    before = score(client)
    client.post("/models", json={"shadow": ["v2"]})
    assert scores(score(client)) == scores(before)
    found = client.get("/metrics").text
    assert f'newcomer_shadow_logit_difference_count{{version="v2"}} {len(FILMS)}.0' in found
    version = client.get("/models").json()["versions"][1]
    assert (version["name"], version["shadow"], version["live"], version["share"]) == ("v2", True, False, 0.0)


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"live": "v3"}, 404, "version 'v3' is not there: v1, v2"),
        ({"live": "../one"}, 404, "is not there"),
        ({"shares": {"v1": 0.5, "v2": 0.6}}, 422, "more than 1 together"),
        ({"shares": {"v2": -1}}, 422, "/shares/v2"),
        ({"shares": {"v1": 0.5}}, 422, "/shares: version 'v1' is live"),
        ({"shadow": ["v1"]}, 422, "/shadow: version 'v1' is live"),
        ({"live": "v2", "shadow": ["v2"]}, 422, "/shadow: version 'v2' is live"),
        ({"retire": ["v1"]}, 409, "version 'v1' is live"),
        ({"model": "birds", "stages": 1}, 404, "no classifier is served"),
        ({"alive": "v2"}, 422, "/alive"),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(
    client: TestClient, body: dict[str, Any], status: int, said: str
) -> None:
    before = client.get("/models").json()
    answer = client.post("/models", json=body)
    assert answer.status_code == status
    assert said in answer.text
    assert client.get("/models").json() == before


def test_a_version_without_all_events_does_not_become_live(client: TestClient) -> None:
    assert client.post("/models", json={"retire": ["v2"]}).status_code == 200
    for body in ({"live": "v2"}, {"shadow": ["v2"]}, {"shares": {"v2": 0.5}}):
        answer = client.post("/models", json=body)
        assert answer.status_code == 409
        assert "start the job 'replay'" in answer.text


def test_a_version_that_cannot_be_opened_is_not_ready_and_the_others_go_on(
    client: TestClient, config: ServeConfig
) -> None:
    shutil.rmtree(config.own_folder / "versions" / "v2")
    with TestClient(create_app(config)) as other:
        assert other.post("/items", json={"items": [NEW]}).status_code == 200
        assert other.get("/models").json()["versions"][1]["status"] == "trained"
    assert client.post("/models", json={"live": "v2"}).status_code == 409


def test_a_file_of_versions_that_is_gone_is_said_and_scores_go_on(client: TestClient, config: ServeConfig) -> None:
    path = config.own_folder / "models.json"
    before, content = scores(score(client)), path.read_bytes()
    path.unlink()
    assert scores(score(client)) == before
    bodies = {"/items": {"items": [NEW]}, "/models": {"shadow": []}}
    for route, body in bodies.items():
        answer = client.post(route, json=body)
        assert answer.status_code == 503, answer.text
        assert answer.json()["detail"].startswith("models.json of the service has no click model any more; restore it")
    path.write_bytes(content)
    assert client.post("/items", json=bodies["/items"]).status_code == 200


def test_what_one_worker_changes_the_others_do(client: TestClient, config: ServeConfig) -> None:
    with TestClient(create_app(config)) as other:
        before = score(other)["model"]
        client.post("/models", json={"live": "v2"})
        assert score(other)["model"] == score(client)["model"] != before


def test_versions_of_another_model_are_refused(
    client: TestClient, config: ServeConfig, stores: tuple[Path, Path]
) -> None:
    with pytest.raises(StoreError, match="click model with other weights"):
        create_app(config.model_copy(update={"stores": (stores[1],)}))
    (config.own_folder / "models.json").write_text("{")
    with pytest.raises(StoreError, match="restore it from a copy"):
        create_app(config)
    assert client.post("/events", json=events(1)).status_code == 503
    score(client)  # scores go on


def test_a_stage_whose_state_is_no_longer_kept_is_refused_and_the_model_stays(
    tmp_path: Path, tasks: list[Examples], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder, "STATES_LIMIT", 0)
    model = FrozenBackbone("micro-vit")
    for name in range(8):
        model.learn(Examples(tasks[0].inputs[:2], [f"class {name}"] * 2)).save(tmp_path / "digits")
    kept = [entry.state is not None for entry in Store(tmp_path / "digits").entries()]
    with TestClient(create_app(ServeConfig(stores=(tmp_path / "digits",)))) as client:
        for stages, is_kept in enumerate(kept, 1):
            answer = client.post("/models", json={"stages": stages})
            assert answer.status_code == (200 if is_kept else 422)
            assert is_kept or "is no longer kept; those after" in answer.json()["detail"]
        assert not all(kept)
        assert client.get("/classes").json()["classes"] == model.classes


def test_a_classifier_goes_back_and_forth(
    tmp_path: Path, tasks: list[Examples], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classifiers, "CHECK_SECONDS", 0)
    model = FrozenBackbone("micro-vit")
    for task in tasks[:2]:
        model.learn(task).save(tmp_path / "digits")
    config = ServeConfig(stores=(tmp_path / "digits",))
    with TestClient(create_app(config)) as client, TestClient(create_app(config)) as other:
        both = client.get("/classes").json()["classes"]
        assert client.post("/models", json={"stages": 1}).json()["classifiers"] == [
            {"model": "digits", "stages": 2, "served": 1}
        ]
        assert other.get("/classes").json() == {"model": "digits", "stage": 1, "classes": tasks[0].classes}
        assert client.post("/models", json={"stages": 3}).status_code == 422
        assert client.delete(f"/classes/{tasks[0].classes[0]}").status_code == 409
        job = {"kind": "learn", "examples": [{"input": "", "label": "x"}]}
        assert client.post("/jobs", json=job).status_code == 409
        with TestClient(create_app(config)) as restarted:
            assert restarted.get("/classes").json()["classes"] == tasks[0].classes
        client.post("/models", json={"model": "digits", "stages": None})
        assert other.get("/classes").json()["classes"] == both
        assert client.delete(f"/classes/{both[0]}").status_code == 204
        assert other.get("/classes").json()["classes"] == both[1:]
