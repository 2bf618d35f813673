"""Who may do what: tokens, roles, rates; what never appears in an answer or a log."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from films import FILMS, trained
from newcomer.errors import SettingError, StoreError
from newcomer.items.serving.service import ItemService
from newcomer.server.app import create_app
from newcomer.server.configuration import Limits, ServeConfig
from newcomer.server.logs import JsonLines, log_to_stderr
from newcomer.server.security import Role, read_tokens

TOKENS = {"read": "r" * 20, "write": "w" * 20, "admin": "a" * 20}
NEW = {"film": "new", "genre": "war", "minutes": 99.0}
SCORE = {"viewer": 3, "context": {"page": "home", "price": 0.5}, "candidates": [FILMS[0]]}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("films") / "store")


@pytest.fixture
def config(store: Path, tmp_path: Path) -> ServeConfig:
    (tmp_path / "tokens").write_text("# clients\n" + "".join(f"{role} {token}\n" for role, token in TOKENS.items()))
    return ServeConfig(
        stores=(store,),
        states=f"sqlite:///{tmp_path / 'items.db'}",
        folder=tmp_path / "own",
        token_file=tmp_path / "tokens",
    )


@pytest.fixture
def client(config: ServeConfig) -> Iterator[TestClient]:
    with TestClient(create_app(config), raise_server_exceptions=False) as client:
        yield client


def as_(role: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {TOKENS[role]}"}


@pytest.mark.parametrize(
    ("role", "scores", "adds", "orders"),
    [(None, 401, 401, 401), ("read", 200, 403, 403), ("write", 200, 200, 403), ("admin", 200, 200, 404)],
)
def test_a_role_includes_the_lower_ones(
    client: TestClient, role: str | None, scores: int, adds: int, orders: int
) -> None:
    headers = as_(role) if role else {}
    assert client.post("/score", json=SCORE, headers=headers).status_code == scores
    unknown = client.post("/score?model=v2", json=SCORE, headers=headers)
    assert unknown.status_code == (422 if scores == 200 else scores)
    assert unknown.headers.get("www-authenticate") == ("Bearer" if scores == 401 else None)
    assert client.post("/items", json={"items": [NEW]}, headers=headers).status_code == adds
    job = {"kind": "learn", "examples": [{"input": "", "label": "x"}]}
    assert client.post("/jobs", json=job, headers=headers).status_code == orders  # 404: no classifier is served
    assert client.delete("/jobs/1", headers=headers).status_code == orders
    assert client.get("/jobs", headers=headers).status_code == scores
    assert client.get("/healthz").status_code == 200


@pytest.mark.parametrize(
    "header", ["Bearer", "Bearer " + "x" * 20, "Basic " + TOKENS["admin"], TOKENS["admin"], "Bearer é"]
)
def test_a_wrong_token_is_refused(client: TestClient, header: str) -> None:
    answer = client.post("/score", json=SCORE, headers={b"Authorization": header.encode()})
    assert answer.status_code == 401
    assert TOKENS["admin"] not in answer.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no token"),
        ("root " + "x" * 20, "line 1 is not 'ROLE TOKEN'"),
        ("read short", "fewer than 16"),
        ("read", "line 1"),
        ("read " + "ü" * 20, "line 1 has a character that no HTTP header can carry"),
    ],
)
def test_a_file_of_tokens_that_is_none_is_refused(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text(content, encoding="utf-8")
    with pytest.raises(SettingError, match=message):
        read_tokens(tmp_path / "tokens")
    with pytest.raises(SettingError, match="cannot be read"):
        read_tokens(tmp_path / "none")


def test_tokens_of_the_environment_are_valid_beside_those_of_the_file(
    config: ServeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEWCOMER_TOKENS", "# by the environment\nread " + "e" * 20)
    assert read_tokens(None) == {"e" * 20: Role.READ}
    assert read_tokens(config.token_file) == {"e" * 20: Role.READ, **{TOKENS[role.name.lower()]: role for role in Role}}
    alone = config.model_copy(update={"token_file": None, "host": "0.0.0.0"})
    with TestClient(create_app(alone)) as client:
        headers = {"Authorization": "Bearer " + "e" * 20}
        answers = [client.post("/score", json=SCORE, headers=given).status_code for given in ({}, headers)]
        assert answers == [401, 200]
    monkeypatch.setenv("NEWCOMER_TOKENS", f"read {TOKENS['admin']}")
    with pytest.raises(SettingError, match="a token has the role 'admin', and another one before"):
        read_tokens(config.token_file)
    monkeypatch.setenv("NEWCOMER_TOKENS", "admin short")
    with pytest.raises(SettingError, match=r"^NEWCOMER_TOKENS: the token in line 1 has fewer than 16"):
        create_app(alone)
    monkeypatch.delenv("NEWCOMER_TOKENS")
    with pytest.raises(SettingError, match="others can reach this address"):
        create_app(alone)


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("localhost:8000", 200),
        ("127.0.0.1", 200),
        ("[::1]:8000", 200),
        ("shop:80", 200),
        ("evil.example", 403),
        ("localhost.evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("[::1", 403),
        ("a@localhost", 403),
    ],
)
def test_without_tokens_nothing_is_answered_under_the_name_of_a_domain(
    config: ServeConfig, name: str, status: int
) -> None:
    """DNS rebinding: a page of another site whose name leads to this address."""
    with TestClient(create_app(config.model_copy(update={"token_file": None}))) as client:
        assert client.post("/score", json=SCORE, headers={"host": name}).status_code == status
        for path in ("/", "/items", "/metrics", "/jobs", "/ui/summary"):
            assert client.get(path, headers={"host": name}).status_code == status
        assert client.get("/healthz", headers={"host": name}).status_code == 200


def test_whatever_is_signed_in_with_where_no_token_is_needed_is_no_error(config: ServeConfig) -> None:
    with TestClient(create_app(config.model_copy(update={"token_file": None}))) as client:
        for token in ("x", "\ufffd\U0001f600", 'a"; b=c\r\n'):
            answer = client.post("/login", data={"token": token}, follow_redirects=False)
            assert (answer.status_code, answer.headers["location"]) == (303, "/")
            assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("token", ["\ufffd\U0001f600" * 20, 'a"; b=c\r\n' * 20])
def test_a_token_of_any_characters_is_wrong_and_no_error(config: ServeConfig, token: str) -> None:
    with TestClient(create_app(config)) as client:
        assert client.post("/login", data={"token": token}).status_code == 401


def test_what_the_http_server_logs_is_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    names = ("newcomer.server", "uvicorn")
    before = [(logging.getLogger(name).handlers, logging.getLogger(name).propagate) for name in names]
    level = logging.getLogger("newcomer.server").level
    try:
        log_to_stderr()
        logging.getLogger("uvicorn.error").warning("Invalid HTTP request received.")
        logging.getLogger("newcomer.server").info("ready")
    finally:
        for name, (handlers, propagates) in zip(names, before, strict=True):
            logging.getLogger(name).handlers, logging.getLogger(name).propagate = handlers, propagates
        logging.getLogger("newcomer.server").setLevel(level)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["message"] for line in lines] == ["Invalid HTTP request received.", "ready"]


def test_more_requests_than_the_rate_are_refused(config: ServeConfig) -> None:
    limited = config.model_copy(update={"limits": Limits(rate=0.001)})
    with TestClient(create_app(limited)) as client:
        statuses = [client.post("/score", json=SCORE, headers=as_("read")).status_code for _ in range(3)]
        assert statuses == [200, 429, 429]
        assert client.post("/score", json=SCORE, headers=as_("write")).status_code == 200


def test_an_unexpected_error_is_logged_and_not_shown(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("secret of the house")

    monkeypatch.setattr(ItemService, "refreshed", broken)
    logging.getLogger("newcomer.server").propagate = True
    with caplog.at_level(logging.INFO, "newcomer.server"):
        answer = client.post("/score", json=SCORE, headers=as_("read") | {"X-Request-Id": "mine-1"})
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert answer.json()["request_id"] == "mine-1"
    lines = [json.loads(JsonLines().format(record)) for record in caplog.records]
    assert any("secret of the house" in line.get("traceback", "") and line["request_id"] == "mine-1" for line in lines)
    assert not any(token in json.dumps(lines) for token in TOKENS.values())


def test_a_password_of_the_database_is_not_shown(config: ServeConfig) -> None:
    unreachable = config.model_copy(update={"states": "postgresql+psycopg://me:hush@127.0.0.1:9/db"})
    with pytest.raises(StoreError, match=r"127\.0\.0\.1:9/db") as raised:
        create_app(unreachable)
    assert "hush" not in str(raised.value)
