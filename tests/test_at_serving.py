"""A context field such as the position explains clicks in training, and has one value in every request."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from fastapi.testclient import TestClient

from films import QUICK, SCHEMA, events, features, log, requests, trained
from newcomer.data.io.log_reader import log_from_frame
from newcomer.data.schema import Field, Schema
from newcomer.errors import DataError, DataWarning
from newcomer.items.methods.emerg import EmerG
from newcomer.items.serving.candidates import score_candidates
from newcomer.items.serving.service import ItemService
from newcomer.items.training.calibration import held_out_items
from newcomer.server.app import create_app
from newcomer.server.bodies import Bodies
from newcomer.server.configuration import ServeConfig

FIXED = replace(
    SCHEMA,
    fields=(
        *(field for field in SCHEMA.fields if field.name != "price"),
        Field("price", "context", "numeric", at_serving=0.5),
    ),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("fixed") / "model", FIXED)


def test_scores_do_not_depend_on_what_a_request_gives(folder: Path) -> None:
    model, asked = EmerG.load(folder), requests("film 0", "film 1", price=[0.5, 0.5])
    right = model.score(asked)
    assert np.array_equal(model.score(asked.with_columns(price=pl.Series([0.0, 9.0]))), right)
    assert np.array_equal(model.score(asked.drop("price")), right)
    with ItemService.open(folder) as service:
        assert service.score(asked.drop("price"))["score"].to_numpy() == pytest.approx(right)
        for given in ({}, {"price": 9.0}, {"price": "9"}, {"price": "text"}):
            found, _ = score_candidates(service, ["film 0"], {"viewer": 3, "page": "home", **given})
            assert found["score"].to_list() == pytest.approx([right[0]])


def test_training_and_labelled_events_keep_their_own_values(folder: Path) -> None:
    free = EmerG(SCHEMA, **QUICK).learn(log())
    assert all(value.equal(free.state[key]) for key, value in EmerG.load(folder).state.items())
    labelled = events("film 0", 40, price=list(np.linspace(0, 1, 40)))
    as_logged = log_from_frame(labelled, FIXED, items=False)
    assert as_logged.context["price"].values.tolist() == labelled["price"].to_list()
    with ItemService.open(folder) as service:
        service.add(features("a new one"))
        with pytest.raises(DataError, match="price"):
            service.warm(events("a new one", 1).drop("price"))


def test_an_event_says_its_own_value_and_none_is_taken_from_its_request(folder: Path, tmp_path: Path) -> None:
    """Over HTTP: what a request gives there means nothing, and was counted as the event's."""
    config = ServeConfig(stores=(folder,), states=f"sqlite:///{tmp_path / 'items.db'}", folder=tmp_path / "own")
    with TestClient(create_app(config)) as client:
        body = {"viewer": 3, "context": {"page": "home", "price": "text"}, "candidates": ["film 0"]}
        click = {
            "film": "film 0",
            "request_id": client.post("/score", json=body).json()["request_id"],
            "event_type": "click",
        }
        events = [click | more for more in ({"seen": 1000}, {"seen": 1000, "price": 0.7})]
        found = client.post("/events", json={"events": events}).json()
        assert (found["new"], found["refused"]) == (1, 1)
        assert found["errors"] == [
            {"pointer": "/events/0/price", "detail": "events: row 1, column 'price' is missing; give it"}
        ]


def test_a_request_over_http_may_leave_it_out() -> None:
    only = replace(FIXED, fields=tuple(field for field in FIXED.fields if field.name != "page"))
    assert Bodies(only, 10).Score.model_validate({"viewer": 3, "candidates": ["film 0"]})
    assert Bodies(SCHEMA, 10).Score.model_fields["field_2"].is_required()


def test_it_is_part_of_the_schema() -> None:
    assert Schema.from_json(FIXED.to_json()) == FIXED
    assert "at_serving" not in str(SCHEMA.to_json())


@pytest.mark.parametrize(
    "field",
    [
        {"role": "item", "at_serving": 1},
        {"role": "user", "at_serving": 1},
        {"role": "context", "kind": "multi", "at_serving": "a"},
        {"role": "context", "kind": "numeric", "at_serving": "first"},
    ],
    ids=str,
)
def test_where_it_cannot_be_it_is_refused(field: dict[str, object]) -> None:
    with pytest.raises(DataError, match="at_serving"):
        Field("position", **field)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", ["", "  ", float("nan"), float("inf"), float("-inf")])
def test_what_no_request_can_have_is_refused_in_the_schema(value: str | float) -> None:
    """It trained, and every score was refused."""
    with pytest.raises(DataError, match=r"'page' has at_serving = .*; give a value that the log has"):
        Field("page", "context", at_serving=value)
    if isinstance(value, float):
        with pytest.raises(DataError, match="'price' has at_serving"):
            Field("price", "context", "numeric", at_serving=value)


def with_page(**settings: Any) -> Schema:
    others = tuple(field for field in SCHEMA.fields if field.name != "page")
    return replace(SCHEMA, fields=(*others, Field("page", "context", **settings)))


def test_a_value_that_training_does_not_have_is_refused() -> None:
    """A typo trained with exit code 0, and later warnings blamed the requests."""
    message = "field 'page' has at_serving = 'hom', which no event has; did you mean 'home'?"
    with pytest.raises(DataError, match=message):
        EmerG(with_page(at_serving="hom"), **QUICK).learn(log())
    with pytest.raises(DataError, match="'home', which fewer than min_count = 300 events have"):
        EmerG(with_page(at_serving="home", min_count=300), **QUICK).learn(log())
    numbered = log().with_columns(page=pl.col("page").replace_strict({"home": 1, "list": 2}))
    EmerG(with_page(at_serving=1.0), **QUICK).learn(numbered)  # spelled otherwise


def test_a_number_beyond_those_of_training_is_named() -> None:
    high = replace(SCHEMA, fields=(*SCHEMA.fields[:-1], Field("price", "context", "numeric", at_serving=7)))
    with pytest.warns(DataWarning, match=r"'price' has at_serving = 7, but is from 0\.\d+ to (0\.\d+|1) in the log"):
        EmerG(high, **QUICK).learn(log())


def test_a_calibration_on_fewer_items_may_lack_the_value() -> None:
    """The second model, which answers no requests, does not see the held-out items, one of which has all events with the value."""
    many = pl.concat([log(100, seed).with_columns(film=pl.format("{} {}", "film", pl.lit(seed))) for seed in range(30)])
    whole = log_from_frame(many, SCHEMA)
    numbers = np.bincount(whole.item).astype(float), np.bincount(whole.item, whole.label)
    held_out = [whole.items.ids[n] for n in held_out_items(*numbers, 0, "old")]
    rare = many.with_columns(page=pl.when(pl.col("film") == held_out[0]).then(pl.lit("rare")).otherwise("page"))
    learner = EmerG(with_page(at_serving="rare"), **QUICK, calibrate=True).learn(rare)
    assert learner.held_out is not None
    assert learner.held_out.items == len(held_out) == 60
    with pytest.raises(DataError, match="no event has"):
        EmerG(with_page(at_serving="rare"), **QUICK).learn(rare.filter(~pl.col("film").is_in(held_out)))
