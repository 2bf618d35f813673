"""No request makes the service fail: whatever is sent, the answer is a success or a problem that OpenAPI describes, never a 5xx."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from films import FILMS, trained
from newcomer import FrozenBackbone
from newcomer.data.examples import Examples
from newcomer.server.app import create_app
from newcomer.server.configuration import Limits, ServeConfig

MANY = settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])

EVENT: dict[str, Any] = {
    "film": FILMS[0],
    "viewer": 3,
    "page": "home",
    "price": 0.5,
    "liked": 1,
    "seen": 1000,
    "event_id": "e",
}
ITEM: dict[str, Any] = {"film": "new", "genre": "war", "minutes": 99.0}
BODIES: dict[str, Any] = {
    "/items": {"items": [ITEM, {**ITEM, "film": "other"}]},
    "/score": {
        "viewer": 3,
        "context": {"page": "home", "price": 0.5},
        "candidates": [FILMS[0], 7, {"genre": "war", "minutes": 99.0}],
        "on_unknown": "prior",
    },
    "/events": {"events": [EVENT, {**EVENT, "request_id": "AAAA", "event_type": "click", "liked": None}]},
    "/classify": {"inputs": ["aGVsbG8=", "x"], "top": 2, "reject": 0.5},
}
"""Valid bodies by path."""

numbers = st.one_of(
    st.integers(),
    st.floats(),
    st.sampled_from([0, -1, 2**31, 2**53 + 1, 2**63, 2**64, 10**30, 1e308, 1e-320, -0.0]),
)
texts = st.one_of(
    st.text(max_size=20),
    st.sampled_from(["", " ", "\0", "a\0b", "\ud800", "1e400", "nan", "2020-01-01", "9" * 30, "x" * 300, *FILMS[:2]]),
)
scalars = st.one_of(st.none(), st.booleans(), numbers, texts)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=6
)


@st.composite
def altered(draw: st.DrawFn, body: Any) -> Any:
    """A valid body with one to three of its parts replaced, added or removed."""
    body = json.loads(json.dumps(body))
    for _ in range(draw(st.integers(1, 3))):
        part: Any = body
        while True:
            if not isinstance(part, (dict, list)) or not part:
                break
            keys = list(part) if isinstance(part, dict) else list(range(len(part)))
            key = draw(st.sampled_from(keys))
            if isinstance(part[key], (dict, list)) and part[key] and draw(st.integers(0, 4)):
                part = part[key]
                continue
            match draw(st.sampled_from(["replace", "replace", "replace", "remove", "add"])):
                case "replace":
                    part[key] = draw(values)
                case "remove":
                    part.pop(key)
                case _ if isinstance(part, dict):
                    part[draw(texts)] = draw(values)
                case _:
                    part.append(draw(values))
            break
    return body


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, tasks: list[Examples]) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("served")
    trained(folder / "films")
    FrozenBackbone("micro-vit").learn(tasks[0]).save(folder / "digits")
    config = ServeConfig(stores=(folder / "films", folder / "digits"), limits=Limits(body=20_000, rows=20, inputs=4))
    with TestClient(create_app(config), raise_server_exceptions=False) as client:
        yield client


def require_answer(answer: Any, described: Any) -> None:
    """A success or a problem, with a status that OpenAPI describes."""
    assert answer.status_code < 500, answer.text
    assert str(answer.status_code) in described["responses"]
    if answer.status_code >= 400:
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["status"] == answer.status_code
        assert answer.json()["detail"]
        described_content = described["responses"][str(answer.status_code)]["content"]
        assert list(described_content) == ["application/problem+json"]


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("kind", ["altered", "anything", "bytes"])
def test_no_body_makes_it_fail(client: TestClient, path: str, kind: str) -> None:
    described = client.get("/openapi.json").json()["paths"][path]["post"]
    bodies = {
        "altered": altered(BODIES[path]).map(lambda body: json.dumps(body).encode()),
        "anything": values.map(lambda body: json.dumps(body).encode()),
        "bytes": st.binary(max_size=60) | st.binary(max_size=30).map(lambda some: b'{"items": ["' + some + b'"]}'),
    }
    types = st.sampled_from(
        ["application/json", "application/json; charset=latin-1", "text/plain", "multipart/form-data", ""]
    )

    @(MANY if kind == "altered" else settings(MANY, max_examples=50))
    @given(bodies[kind], st.just("application/json") if kind == "altered" else types)
    def check(body: bytes, content_type: str) -> None:
        require_answer(client.post(path, content=body, headers={"content-type": content_type}), described)

    check()


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/items/{item_id}"), ("DELETE", "/items/{item_id}"), ("DELETE", "/classes/{name}")]
)
def test_no_name_in_a_path_makes_it_fail(client: TestClient, method: str, path: str) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    described = paths[path][method.lower()]
    prefix = path.partition("{")[0]

    @settings(MANY, max_examples=50)
    @given(st.binary(min_size=1, max_size=20).map(lambda name: "".join(f"%{byte:02x}" for byte in name)))
    def check(name: str) -> None:
        require_answer(client.request(method, prefix + name), described)

    check()


def test_no_query_makes_it_fail(client: TestClient) -> None:
    described = client.get("/openapi.json").json()["paths"]["/items"]["get"]

    @settings(MANY, max_examples=50)
    @given(
        st.dictionaries(
            st.sampled_from(["item_id", "phase", "after", "limit", "other"]), texts | numbers.map(str), max_size=3
        )
    )
    def check(query: dict[str, str]) -> None:
        safe = {name: value.encode("utf-8", "replace").decode() for name, value in query.items()}
        require_answer(client.get("/items", params=safe), described)

    check()
