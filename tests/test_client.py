"""The client: the library's verbs over HTTP, retried without counting an event twice."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from films import FILMS, trained
from newcomer import FrozenBackbone
from newcomer.client import AsyncClient, Client, ServiceError
from newcomer.data.canonical import canonical_name
from newcomer.data.examples import Examples
from newcomer.server.app import create_app
from newcomer.server.configuration import ServeConfig
from newcomer.server.job_execution import execute
from serving import in_thread

NEW = {"film": "a/b é", "genre": "war", "minutes": 99.0}
EVENT = {"film": "a/b é", "viewer": 3, "page": "home", "price": 0.5, "liked": 1, "seen": 1000}
CONTEXT = {"page": "home", "price": 0.5}


@pytest.fixture
def client(tmp_path: Path, tasks: list[Examples]) -> Iterator[Client]:
    trained(tmp_path / "films")
    FrozenBackbone("micro-vit").learn(tasks[0]).save(tmp_path / "digits")
    app = create_app(ServeConfig(stores=(tmp_path / "films", tmp_path / "digits")))
    with TestClient(app) as inside, Client("http://testserver", retries=2) as client:
        client._http = inside  # type: ignore[assignment]  # the same verbs, without a socket
        yield client


@pytest.fixture(scope="module")
def film_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A client of a service with the items `FILMS`, over HTTP."""
    store = trained(tmp_path_factory.mktemp("service") / "films")
    with in_thread(create_app(ServeConfig(stores=(store,)))) as url, Client(url, timeout=60) as client:
        yield client


def test_the_life_of_an_item(client: Client) -> None:
    assert client.add([NEW]).items[0].status == "new"
    scores = client.score({"viewer": 3}, CONTEXT, ["a/b é", FILMS[0], {"genre": "war", "minutes": 99.0}])
    assert scores.scores[0].score == scores.scores[2].score
    explored = client.score({"viewer": 3}, CONTEXT, ["a/b é", FILMS[0]], explore="thompson", strength=0.5, epsilon=0.1)
    assert sorted(explored.order or []) == [0, 1]
    assert 0.05 <= (explored.propensity or 0) <= 1
    clicked = {"film": "a/b é", "request_id": scores.request_id, "event_type": "click", "seen": 1000}
    assert client.warm([clicked, EVENT]).new == 2
    assert client.item("a/b é").events == 2
    assert list(client.items("warm")) == sorted(["a/b é", *FILMS])
    client.forget("a/b é")
    with pytest.raises(ServiceError, match="is not known") as raised:
        client.item("a/b é")
    assert raised.value.status == 404
    with pytest.raises(ServiceError) as refused:
        client.score({"viewer": 3}, CONTEXT, ["a/b é"])
    assert refused.value.errors[0]["pointer"] == "/candidates/0"


PARTS = [".", "..", "/", "//", "?", "#", "%", "%2F", "%2e", "+", " ", "&", "=", ";", "\\", "é"]
AWKWARD = st.lists(
    st.sampled_from(PARTS) | st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=3),
    min_size=1,
    max_size=6,
)


@pytest.mark.parametrize("name", [".", "..", "/", "a//b", "a/../b", "a?b=c#d", "%2e", "a+b", "null"])
def test_an_item_of_any_id_is_seen_and_deleted_over_http(film_service: Client, name: str) -> None:
    live_and_die(film_service, name)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(AWKWARD.map("".join).filter(lambda name: (canonical_name(name) or FILMS[0]) not in FILMS))
def test_any_id_reaches_the_item_of_this_id_alone(film_service: Client, name: str) -> None:
    live_and_die(film_service, name)


def live_and_die(client: Client, name: str) -> None:
    """Add, see and delete an item of this id; nobody else is touched."""
    added = client.add([NEW | {"film": name}]).items
    assert [item.item_id for item in added] == [canonical_name(name)]
    assert client.item(name).item_id == canonical_name(name)
    assert list(client.items()) == sorted([*FILMS, added[0].item_id])
    client.forget(name)
    with pytest.raises(ServiceError, match="is not known") as raised:
        client.item(name)
    assert raised.value.status == 404
    assert list(client.items()) == sorted(FILMS)


def test_one_item_is_not_a_page(film_service: Client) -> None:
    http = film_service._http
    alone = http.get("/items", params={"item_id": FILMS[0]}).json()
    assert alone == http.get(f"/items/{FILMS[0]}").json()
    refused = http.get("/items", params={"item_id": FILMS[0], "phase": "warm"})
    assert refused.status_code == 422
    assert refused.json()["detail"] == "query:/item_id: give it alone, or list items without it"
    assert http.delete("/items").status_code == 422  # without an id nothing is deleted
    assert len(list(film_service.items())) == len(FILMS)


def test_classes(client: Client, tasks: list[Examples], tmp_path: Path) -> None:
    image: Any = tasks[0].inputs[0]
    image.save(tmp_path / "a.png")
    found = client.predict([tmp_path / "a.png", (tmp_path / "a.png").read_bytes()], top=1)
    assert found.results[0] == found.results[1]
    assert client.classes().classes == ["0", "1"]
    client.forget_class("0")
    assert client.classes().classes == ["1"]
    with pytest.raises(ServiceError, match="class '0' is not known"):
        client.forget_class("0")


def failing(
    app: Any, failures: int, status: int | None
) -> tuple[Callable[[httpx.Request], httpx.Response], list[bytes]]:
    """A transport to this app that loses the first answers, after the app has done what was asked, or answers `status`."""
    bodies: list[bytes] = []

    def answer(request: httpx.Request) -> httpx.Response:
        bodies.append(request.content)
        with TestClient(app) as inside:
            found = inside.request(request.method, str(request.url), content=request.content, headers=request.headers)
        if len(bodies) <= failures:
            if status is None:
                raise httpx.ReadError("lost")
            return httpx.Response(status, json={"detail": "not now"})
        return httpx.Response(found.status_code, content=found.content)

    return answer, bodies


@pytest.mark.parametrize("status", [None, 503, 429])
def test_an_event_whose_answer_was_lost_counts_once(tmp_path: Path, status: int | None) -> None:
    trained(tmp_path / "films")
    app = create_app(ServeConfig(stores=(tmp_path / "films",)))
    answer, bodies = failing(app, 2, status)
    with Client("http://testserver", retries=2) as client:
        client._http = httpx.Client(base_url="http://testserver", transport=httpx.MockTransport(answer))
        counts = client.warm([EVENT | {"film": FILMS[0]}])
    assert (counts.new, counts.known) == (0, 1)  # it was counted at the first attempt
    assert len(bodies) == 3
    assert len(set(bodies)) == 1


def test_a_service_that_does_not_answer_is_said_after_the_last_attempt(tmp_path: Path) -> None:
    with (
        Client("http://127.0.0.1:9", retries=1, timeout=1) as client,
        pytest.raises(ServiceError, match="no answer") as raised,
    ):
        client.add([NEW])
    assert raised.value.status is None


def test_a_refusal_is_not_sent_again(tmp_path: Path) -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(403, text="no")

    with Client("http://testserver", token="t" * 16) as client:
        client._http = httpx.Client(base_url="http://testserver", transport=httpx.MockTransport(answer))
        with pytest.raises(ServiceError, match="no"):
            client.add([NEW])
    assert len(asked) == 1


def test_both_clients_have_the_same_methods_and_answers(tmp_path: Path) -> None:
    def methods(kind: type) -> set[str]:
        return {name for name in vars(kind) if not name.startswith("_")}

    assert methods(Client) == methods(AsyncClient)
    trained(tmp_path / "films")
    app = create_app(ServeConfig(stores=(tmp_path / "films",)))

    async def run() -> tuple[Any, Any]:
        async with AsyncClient("http://testserver") as client:
            client._http = httpx.AsyncClient(base_url="http://testserver", transport=httpx.ASGITransport(app))
            assert [version.name for version in (await client.models()).versions] == ["v1"]
            assert await client.jobs() == []
            with pytest.raises(ServiceError, match="is not there"):
                await client.wait("0" * 24)
            return await client.score({"viewer": 3}, CONTEXT, FILMS[:2]), await client.items()

    scores, items = asyncio.run(run())
    assert [score.item_id for score in scores.scores] == FILMS[:2]
    assert items == sorted(FILMS)


@pytest.mark.filterwarnings("ignore:.*no new class has two examples")
def test_jobs_and_versions(client: Client, tmp_path: Path, tasks: list[Examples]) -> None:
    """Learning through the client, sent twice by a connection that broke: one job, one stage, and back again."""
    image: Any = tasks[1].inputs[0]
    image.save(tmp_path / "a.png")
    made, post = list[Any](), client._http.request

    def broken(method: str, path: str, **more: Any) -> Any:
        made.append(post(method, path, **more))
        if len(made) == 1:
            raise httpx.ReadTimeout("lost")
        return made[-1]

    client._http.request = broken  # type: ignore[assignment]
    job = client.learn([(tmp_path / "a.png", "new"), ((tmp_path / "a.png").read_bytes(), "other")], "digits")
    client._http.request = post  # type: ignore[method-assign]
    assert [job.id] == [one.id for one in client.jobs()]
    execute(ServeConfig(stores=(tmp_path / "films", tmp_path / "digits")), job.id)
    result = client.wait(job.id).result
    assert result is not None
    assert result["classes"] == ["0", "1", "new", "other"]
    assert client.roll_back(1).classifiers[0].served == 1
    assert client.classes().classes == ["0", "1"]
    assert client.roll_back(None, "digits").classifiers[0].served == 2
    with pytest.raises(ServiceError, match="--log"):
        client.train()
    with pytest.raises(ServiceError, match="has all items"):
        client.replay("v1")
    calibration = client.calibrate()
    assert calibration.kind == "calibrate"
    client.cancel(calibration.id)
    assert [version.name for version in client.change_models(live="v1", shares={}, shadow=[]).versions] == ["v1"]
    with pytest.raises(ServiceError, match="has ended"):
        client.cancel(job.id)
