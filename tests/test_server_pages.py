"""The pages: right without a script, and in a real browser with keyboard and contrast checked."""

import io
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL.Image import Image

from films import FILMS, trained
from newcomer import FrozenBackbone
from newcomer.data.examples import Examples
from newcomer.server import classifiers
from newcomer.server.app import create_app
from newcomer.server.configuration import ServeConfig
from newcomer.server.job_execution import execute
from newcomer.server.job_runner import JobRunner
from newcomer.store.folder import Store
from serving import in_thread

TOKEN = "t" * 20


def png(image: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def config(tmp_path: Path, tasks: list[Examples]) -> ServeConfig:
    trained(tmp_path / "films")
    FrozenBackbone("micro-vit").learn(tasks[0]).save(tmp_path / "digits")
    image: Any = tasks[0].inputs[0]
    assert isinstance(image, Image)
    image.save(tmp_path / "zero.png")
    return ServeConfig(stores=(tmp_path / "films", tmp_path / "digits"))


@pytest.fixture
def client(config: ServeConfig) -> Iterator[TestClient]:
    with TestClient(create_app(config), raise_server_exceptions=False) as client:
        yield client


def test_the_first_page_says_what_is_served(client: TestClient) -> None:
    page = client.get("/")
    assert page.status_code == 200
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert all(name in page.text for name in (*FILMS, "digits", "Classify with digits", "Items by phase"))


def test_no_page_loads_anything_of_others_and_the_description_is_linked(client: TestClient) -> None:
    page = client.get("/").text
    assert '<a href="/openapi.json">' in page
    assert "//" not in page.replace("<!doctype html>", "")
    assert [client.get(path).status_code for path in ("/openapi.json", "/docs", "/redoc")] == [200, 404, 404]


def test_a_click_on_an_impression_is_among_the_clicks_that_came(client: TestClient) -> None:
    client.post("/items", json={"items": [{"film": "new", "genre": "war", "minutes": 99.0}]})
    for liked in (0, 1):  # an impression, and the click on it
        for n in range(4):
            shown = {"film": "new", "viewer": n, "page": "home", "price": 0.5, "seen": 1000 + n, "event_id": str(n)}
            client.post("/events", json={"events": [{**shown, "liked": liked}]})
    found = client.get("/metrics").text
    clicks = re.findall(r'newcomer_clicks_total\{item_events="([^"]+)"\} (\S+)', found)
    events = re.findall(r'newcomer_scored_events_total\{item_events="([^"]+)"\} (\S+)', found)
    assert sum(float(count) for _, count in clicks) == sum(float(count) for _, count in events) == 4
    assert "corrected an impression" not in client.get("/ui/summary").text


def test_the_first_page_says_how_many_clicks_were_expected_and_came(client: TestClient) -> None:
    client.post("/items", json={"items": [{"film": "new", "genre": "war", "minutes": 99.0}]})
    shown = {"film": "new", "viewer": 3, "page": "home", "price": 0.5, "seen": 1000}
    for liked in (1, 0, 0):
        client.post("/events", json={"events": [{**shown, "liked": liked, "event_id": str(liked)}]})
    page = client.get("/ui/summary").text
    assert "Clicks expected and clicks that came" in page
    assert re.search(r'<th scope="row">0</th><td>0\.\d</td><td>1</td><td>0\.\d\d</td>', page)
    assert re.search(r'<th scope="row">1-4</th><td>0\.\d</td><td>0</td><td>–</td>', page)


def test_an_item_is_added_by_the_form_and_names_are_no_markup(client: TestClient) -> None:
    name = "<script>alert(1)</script> & \u202e"
    shown = client.post("/ui/items", data={"film": name, "genre": "war", "minutes": "99"})
    assert shown.status_code == 200
    assert "<h1>Item &lt;script&gt;alert(1)&lt;/script&gt; &amp; \\u202e</h1>" in shown.text
    assert shown.text.count("<caption>") == 2
    assert "generated from its features" in shown.text
    refused = client.post("/ui/items", data={"film": "other", "genre": "war", "minutes": "<b>long</b>"})
    assert "&#39;&lt;b&gt;long&lt;/b&gt;&#39; is not a number" in refused.text
    assert client.get("/items/other").status_code == 404
    assert "is not a number" not in client.get("/").text  # once
    assert "item &#39;nope&#39; is not known" in client.get("/ui/item", params={"id": "nope"}).text
    assert "sign in at elsewhere" not in client.get("/", params={"message": "sign in at elsewhere"}).text


@pytest.mark.filterwarnings("ignore:reject = 0.05")  # of twelve examples: said in the log
def test_images_are_classified_by_the_form(client: TestClient, config: ServeConfig, tmp_path: Path) -> None:
    files = [("files", ("zero.png", (tmp_path / "zero.png").read_bytes())), ("files", ("<b>", b"none"))]
    page = client.post("/ui/classify", params={"model": "digits"}, files=files).text
    assert FrozenBackbone.load(config.stores[1]).predict(tmp_path / "zero.png") in page
    assert "&lt;b&gt;" in page
    assert "not a readable image" in page


def work(config: ServeConfig) -> None:
    """Do all jobs in this process."""
    runner = JobRunner(config)
    while (job := runner.next()) is not None:
        execute(config, job.id)


def test_a_class_is_learned_from_the_images_of_the_form(
    client: TestClient, config: ServeConfig, tasks: list[Examples], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classifiers, "CHECK_SECONDS", 0)
    files = [("files", (f"{n}.png", png(image))) for n, image in enumerate(tasks[1].inputs)]
    broken = ("files", ("broken.png", b"no image"))
    page = client.post("/ui/learn", params={"model": "digits"}, data={"label": " <new> "}, files=[*files, broken]).text
    assert f"A job learns {len(files) + 1} examples of &#39;&lt;new&gt;&#39;" in page
    work(config)
    assert client.get("/classes").json()["classes"] == [*dict.fromkeys(tasks[0].labels), "<new>"]
    assert f"Left out: example {len(files) + 1}" in client.get("/").text
    assert "&lt;new&gt;" in client.get("/ui/classes", params={"model": "digits"}).text
    for form, given in (({"label": "new"}, None), ({"label": " "}, files)):
        refused = client.post("/ui/learn", params={"model": "digits"}, data=form, files=given)
        assert "Nothing to learn" in refused.text
    assert len(client.get("/jobs").json()["jobs"]) == 1


def test_a_class_is_learned_from_the_lines_of_the_form(tmp_path: Path, questions: list[Examples], tiny: Any) -> None:
    FrozenBackbone(tiny("bert")).learn(questions[0]).save(tmp_path / "questions")
    config = ServeConfig(stores=(tmp_path / "questions",))
    with TestClient(create_app(config)) as client:
        lines = "\r\n".join(["where is my card", "", "my card is gone"])
        page = client.post("/ui/learn", params={"model": "questions"}, data={"label": "lost card", "text": lines}).text
        assert "A job learns 2 examples of &#39;lost card&#39;" in page
        work(config)
        assert FrozenBackbone.load(tmp_path / "questions").classes[-1] == "lost card"


def test_the_classes_are_shown_with_their_examples_and_their_confusions(
    client: TestClient, config: ServeConfig, tasks: list[Examples]
) -> None:
    page = client.get("/ui/classes", params={"model": "digits"}).text
    for name in dict.fromkeys(tasks[0].labels):
        assert f'<tr><th scope="row">{name}</th><td>{tasks[0].labels.count(name)}</td></tr>' in page
    shares = FrozenBackbone.load(config.stores[1]).memory.confusions.shares([0, 1])
    cells = re.findall(r'<td class="w\d">(\d*)</td>', page)
    assert [int(cell or 0) for cell in cells] == [round(100 * share) for share in shares.flatten().tolist()]


def test_forms_are_shown_to_those_who_may_use_them(config: ServeConfig, tmp_path: Path) -> None:
    roles = {"read": ["Classify"], "write": ["Add an item", "Classify"], "admin": ["Add an item", "Classify", "Teach"]}
    lines = "".join(f"{role} {role * 5}\n" for role in roles)
    (tmp_path / "tokens").write_text(lines)
    with TestClient(create_app(config.model_copy(update={"token_file": tmp_path / "tokens"}))) as client:
        for role, shown in roles.items():
            page = client.post("/login", data={"token": role * 5}).text
            assert [form for form in roles["admin"] if form in page] == shown
            learned = client.post("/ui/learn", params={"model": "digits"}, data={"label": "new"})
            assert learned.status_code == (200 if role == "admin" else 403)


def test_with_tokens_a_browser_signs_in_and_other_sites_cannot_use_it(config: ServeConfig, tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text(f"write {TOKEN}\n")
    with TestClient(create_app(config.model_copy(update={"token_file": tmp_path / "tokens"}))) as client:
        assert "Sign in" in client.get("/").text
        assert FILMS[0] not in client.get("/").text
        assert client.get("/ui/summary").status_code == 401
        assert client.post("/login", data={"token": "x" * 20}).status_code == 401
        assert FILMS[0] in client.post("/login", data={"token": TOKEN}).text
        new = {"film": "new", "genre": "war", "minutes": "99"}
        foreign = client.post("/ui/items", data=new, headers={"Origin": "https://elsewhere.example"})
        assert foreign.status_code == 403
        assert client.post("/ui/items", data=new, headers={"Origin": "http://testserver"}).status_code == 200


def test_what_a_form_cannot_do_is_a_message_on_the_first_page(client: TestClient, tasks: list[Examples]) -> None:
    image = ("files", ("0.png", png(tasks[0].inputs[0])))

    def told(path: str, **given: Any) -> str:
        answer = client.post(path, **given)
        assert answer.status_code == 200, answer.text
        return str(re.search(r'class="message">([^<]*)<', answer.text)[1])  # type: ignore[index]

    assert "genre is empty; fill it in" in told("/ui/items", data={"film": "x", "genre": " "})
    assert "Nothing to learn" in told("/ui/learn?model=digits", data={"label": "x", "text": "a text"})
    assert "Nothing to learn" in told("/ui/learn?model=digits", data={"label": "x"}, files=[("files", ("", b""))])
    assert "at most 500 characters" in told("/ui/learn?model=digits", data={"label": "x" * 501}, files=[image])
    assert "Nothing to classify" in told("/ui/classify?model=digits", data={"text": "a text"})
    assert "Too many files" in told("/ui/classify?model=digits", files=[image] * 300)
    assert "model &#39;birds&#39; is not served" in told("/ui/learn?model=birds", data={"label": "x"}, files=[image])
    for label in ("0", "1"):
        client.delete("/classes", params={"name": label})
    assert "learned no class" in told("/ui/classify?model=digits", files=[image])
    cookie = client.post("/ui/learn?model=" + "鳥" * 600, data={"label": "x"}, follow_redirects=False)
    assert len(cookie.headers["set-cookie"]) < 4096
    assert client.get("/jobs").json()["jobs"] == []


def test_long_names_of_classes_are_cut(client: TestClient, config: ServeConfig, tasks: list[Examples]) -> None:
    name = "x" * 500
    with Store(config.stores[1]).held():
        FrozenBackbone.load(config.stores[1]).learn(Examples(tasks[1].inputs, [name] * len(tasks[1]))).save(
            config.stores[1]
        )
    with TestClient(create_app(config)) as again:
        for page in (again.get("/").text, again.get("/ui/classes?model=digits").text):
            assert name[:30] in page
            assert name not in page


@pytest.fixture
def browser() -> Iterator[Any]:
    """Chromium of the system."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or os.environ.get("CHROMIUM")
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install 'newcomer[browser]'")
    if path is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore:reject = 0.05")
def test_in_a_browser_an_item_is_added_watched_and_an_image_classified(
    browser: Any, config: ServeConfig, tmp_path: Path
) -> None:
    axe = pytest.importorskip("axe_core_python.sync_playwright", reason="needs axe: pip install 'newcomer[browser]'")
    with in_thread(create_app(config)) as url:
        page = browser.new_context(bypass_csp=True).new_page()
        faults: list[str] = []
        page.on("console", lambda line: faults.append(line.text) if line.type == "error" else None)
        page.goto(url)
        _shot(page, "index")
        violations = axe.Axe().run(page)["violations"]
        page.focus("#column-1")
        page.keyboard.type("new")
        for value in ("war", "99"):
            page.keyboard.press("Tab")
            page.keyboard.type(value)
        page.keyboard.press("Enter")
        page.wait_for_url("**/ui/item?id=new")
        assert "cold" in page.inner_text("dl")
        event = {"film": "new", "viewer": 3, "page": "home", "price": 0.5, "liked": 1, "seen": 1000}
        sent = page.request.post(f"{url}/events", data={"events": [event]})
        assert sent.json()["new"] == 1
        page.wait_for_function("document.querySelector('dl').innerText.includes('warm')")
        for count in range(2, 31):
            shown = {**event, "event_id": str(count), "liked": count % 2}
            assert page.request.post(f"{url}/events", data={"events": [shown]}).json()["new"] == 1
        page.wait_for_selector("h2:has-text('Clicks of its 30 events')")
        assert len(page.get_attribute("polyline.came", "points").split()) == 31
        _shot(page, "item")
        violations += axe.Axe().run(page)["violations"]
        page.goto(url)
        page.set_input_files("form[action^='/ui/classify'] input[type=file]", tmp_path / "zero.png")
        page.focus("form[action^='/ui/classify'] input[type=file]")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.wait_for_selector("h1:has-text('Classified')")
        _shot(page, "classified")
        violations += axe.Axe().run(page)["violations"]
        assert "zero.png" in page.inner_text("table")
        page.goto(url)
        page.focus("input[name=label]")
        page.keyboard.type("nought")
        page.set_input_files("form[action^='/ui/learn'] input[type=file]", [tmp_path / "zero.png"] * 3)
        for key in ("Tab", "Tab", "Enter"):
            page.keyboard.press(key)
        page.wait_for_selector("text=A job learns 3 examples of 'nought'")
        work(config)
        page.wait_for_selector("td:has-text('nought')")
        _shot(page, "learned")
        violations += axe.Axe().run(page)["violations"]
        page.click("section[aria-labelledby=classes] a")
        page.wait_for_selector("h1:has-text('Classes of digits')")
        _shot(page, "classes")
        violations += axe.Axe().run(page)["violations"]
        assert [one["id"] for one in violations] == []
        assert faults == []


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore:reject = 0.05")
def test_in_a_browser_one_signs_in_by_keyboard_and_drops_an_image(
    browser: Any, config: ServeConfig, tmp_path: Path
) -> None:
    axe = pytest.importorskip("axe_core_python.sync_playwright", reason="needs axe: pip install 'newcomer[browser]'")
    (tmp_path / "tokens").write_text(f"read {TOKEN}\n")
    with in_thread(create_app(config.model_copy(update={"token_file": tmp_path / "tokens"}))) as url:
        page = browser.new_context(bypass_csp=True).new_page()
        page.goto(url)
        _shot(page, "login")
        assert axe.Axe().run(page)["violations"] == []
        page.keyboard.press("Tab")
        while page.evaluate("document.activeElement.name") != "token":
            page.keyboard.press("Tab")
        page.keyboard.type(TOKEN)
        page.keyboard.press("Enter")
        page.wait_for_selector("h1:has-text('What is served')")
        place = page.locator("form[action^='/ui/classify'] input[type=file]").bounding_box()
        page.evaluate(f"scrollTo(0, {place['y'] - 100})")
        at = {"x": place["x"] + place["width"] / 2, "y": place["y"] + place["height"] / 2 - page.evaluate("scrollY")}
        session = page.context.new_cdp_session(page)
        data = {"items": [], "files": [str(tmp_path / "zero.png")], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            session.send("Input.dispatchDragEvent", {"type": kind, "data": data, **at})
        page.wait_for_function("document.querySelector('input[type=file]').files.length == 1")
        page.click("button:text('Classify')")
        page.wait_for_selector("h1:has-text('Classified')")
        assert "zero.png" in page.inner_text("table")


def _shot(page: Any, name: str) -> None:
    """A picture to look at, if a folder for such is named."""
    if folder := os.environ.get("NEWCOMER_SCREENSHOTS"):
        page.screenshot(path=f"{folder}/{name}.png", full_page=True)
