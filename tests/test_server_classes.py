"""Classifiers over HTTP: the answers of the library, for images and texts, while the store changes."""

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL.Image import Image, new

from newcomer import FrozenBackbone
from newcomer.data.examples import Examples
from newcomer.server import classifiers
from newcomer.server.app import create_app
from newcomer.server.configuration import Limits, ServeConfig


def png(image: Any) -> bytes:
    assert isinstance(image, Image)
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def b64(content: bytes) -> str:
    return base64.b64encode(content).decode()


@pytest.fixture
def digits(tmp_path: Path, tasks: list[Examples]) -> Path:
    FrozenBackbone("micro-vit").learn(tasks[0]).save(tmp_path / "digits")
    return tmp_path / "digits"


@pytest.fixture
def client(digits: Path) -> Iterator[TestClient]:
    config = ServeConfig(stores=(digits,), limits=Limits(inputs=20))
    with TestClient(create_app(config), raise_server_exceptions=False) as client:
        yield client


def test_images_are_classified_as_the_library_does_it(client: TestClient, digits: Path, tasks: list[Examples]) -> None:
    images = [png(image) for image in tasks[0].inputs]
    right = FrozenBackbone.load(digits).predict_topk(images, top=2, reject=0.5)
    as_text = client.post("/classify", json={"inputs": [b64(image) for image in images], "top": 2, "reject": 0.5})
    files = [("files", (f"../{n}.png", image)) for n, image in enumerate(images)]
    as_files = client.post("/classify", files=files, data={"top": "2", "reject": "0.5"})
    for answer in (as_text.json()["results"], as_files.json()["results"]):
        assert [[choice["label"] for choice in one["classes"]] for one in answer] == [one.classes for one in right]
        assert [one["known"] for one in answer] == [one.known for one in right]
        shares = [choice["probability"] for one in answer for choice in one["classes"]]
        assert shares == pytest.approx([share for one in right for share in one.probabilities], abs=1e-6)


def test_an_input_that_cannot_be_read_is_said_and_the_others_are_answered(
    client: TestClient, tasks: list[Examples]
) -> None:
    image = png(tasks[0].inputs[0])
    given = [b64(image), "not base64!", b64(b"no image"), b64(image[:60]), f"data:image/png;base64,{b64(image)}", "é"]
    found = client.post("/classify", json={"inputs": given}).json()["results"]
    assert [one["error"] is None for one in found] == [True, False, False, False, True, False]
    assert found[0] == found[4]
    for n in (1, 5):
        assert found[n]["error"].startswith(f"input {n + 1} is not base64; this model reads images")
    assert found[2]["error"].startswith("input 3: not a readable image")


def test_texts_are_classified(tmp_path: Path, questions: list[Examples], tiny: Any) -> None:
    model = FrozenBackbone(str(tiny("bert"))).learn(questions[0])
    model.save(tmp_path / "desk")
    with TestClient(create_app(ServeConfig(stores=(tmp_path / "desk",)))) as client:
        found = client.post("/classify", json={"inputs": ["my card is lost"], "top": 1}).json()["results"][0]
        assert found["classes"][0]["label"] == model.predict("my card is lost")
        files = [("files", ("a.txt", b"my card is lost")), ("files", ("b.txt", b"\xff"))]
        results = client.post("/classify", files=files, data={"top": "1"}).json()["results"]
        assert results[0] == found
        assert results[1]["error"] == "input 2 is not UTF-8; this model reads texts"
        image = b64(png(new("RGB", (8, 8))))
        results = client.post("/classify", json={"inputs": [image, f"data:image/png;base64,{image}", "a"]}).json()[
            "results"
        ]
        assert [one["error"] for one in results[:2]] == [
            f"input {n} is an image in base64; this model reads texts" for n in (1, 2)
        ]
        assert results[2]["error"] is None
        (_, empty) = client.post("/classify", json={"inputs": [image, " "]}).json()["results"]
        assert empty["error"].startswith("input 2")


def test_what_is_learned_meanwhile_is_served(
    client: TestClient, digits: Path, tasks: list[Examples], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classifiers, "CHECK_SECONDS", 0)
    assert client.get("/classes").json() == {"model": "digits", "stage": 1, "classes": ["0", "1"]}
    FrozenBackbone.load(digits).learn(tasks[1]).save(digits)
    assert client.get("/classes").json() == {"model": "digits", "stage": 2, "classes": ["0", "1", "2", "3"]}
    assert client.delete("/classes/2").status_code == 204
    assert client.delete("/classes/2").status_code == 404
    assert FrozenBackbone.load(digits).classes == client.get("/classes").json()["classes"] == ["0", "1", "3"]


def test_one_of_several_classifiers_is_named(digits: Path, tmp_path: Path, tasks: list[Examples]) -> None:
    FrozenBackbone("micro-vit").learn(tasks[1]).save(tmp_path / "others")
    with TestClient(create_app(ServeConfig(stores=(digits, tmp_path / "others")))) as client:
        assert client.get("/classes", params={"model": "others"}).json()["classes"] == ["2", "3"]
        assert client.get("/classes").status_code == 422
        assert client.get("/classes", params={"model": ""}).status_code == 404
        assert (
            client.get("/classes", params={"model": "none"}).json()["detail"]
            == "model 'none' is not served: digits, others"
        )


@pytest.mark.parametrize(
    ("body", "status"),
    [({"inputs": []}, 422), ({"inputs": ["a"] * 21}, 422), ({"inputs": ["a"], "top": 0}, 422), ({"inputs": [1]}, 422), ({}, 422),
     ({"inputs": ["a"], "reject": 2}, 422), ([], 422), ({"input": ["a"]}, 422)],
)  # fmt: skip
def test_a_body_that_does_not_fit_is_refused(client: TestClient, body: Any, status: int) -> None:
    answer = client.post("/classify", json=body)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


def test_bytes_that_are_no_body_are_refused(client: TestClient) -> None:
    assert client.post("/classify", content=b"{", headers={"content-type": "application/json"}).status_code == 400
    assert client.post("/classify", content=b"x", headers={"content-type": "multipart/form-data"}).status_code == 400
    unnamed = client.post("/classify", files=[("file", ("a.png", b"x"))])
    assert (unnamed.status_code, unnamed.json()["detail"]) == (422, "the form has no part 'files' with a file")
    plain = client.post("/classify", content=b"\x89PNG", headers={"content-type": "image/png"})
    assert "the header content-type is: image/png" in plain.json()["detail"]
    named = client.post("/classify", json={"inputs": ["a"], "model": "digits"})
    assert "name the classifier in the address: /classify?model=NAME" in named.json()["detail"]
    many = [("files", (f"{n}", b"x")) for n in range(21)]
    assert client.post("/classify", files=many).status_code in (400, 422)
