"""A row of weight w counts as w equal rows: in estimates, posteriors, losses and metrics; a weight of 1 is as none to the bit."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from fastapi.testclient import TestClient

from newcomer.data.inference.schema import propose, write_schema
from newcomer.data.io.chunked_log import ChunkedLog
from newcomer.data.io.log_reader import log_from_frame, read_log
from newcomer.data.io.log_statistics import LogStatistics
from newcomer.data.io.plain_tables import PlainReader
from newcomer.data.schema import Field, Schema
from newcomer.errors import DataError, SettingError
from newcomer.items.adaptation.single_event import map_step
from newcomer.items.learner import ItemLearner
from newcomer.items.methods.cvar import CVAR
from newcomer.items.methods.emerg import EmerG
from newcomer.items.methods.id_tuning import IdTuning
from newcomer.items.methods.logistic import Logistic
from newcomer.items.methods.mwuf import MWUF
from newcomer.items.serving.event_ids import digests
from newcomer.items.serving.event_serialization import to_clicks
from newcomer.items.serving.service import ItemService
from newcomer.items.training.calibration import Outcomes, fit_calibration, outcomes
from newcomer.metrics.ranking import click_scores
from newcomer.nn.optim.gaussian_summary import GaussianSummary
from newcomer.nn.optim.laplace_posterior import posterior_factor
from newcomer.nn.optim.map_logistic import map_estimate
from newcomer.server.app import create_app
from newcomer.server.configuration import ServeConfig
from newcomer.server.evaluation import compare
from newcomer.server.event_log import FOLDER, LogReader
from newcomer.server.history import HistoryReader
from newcomer.server.logged_events import event_table
from newcomer.store.event_rows import event_rows, to_events
from newcomer.store.states import Change, Event, ItemState
from shell import Shell

PLAIN = Schema("film", "viewer", "liked", "seen", (Field("genre", "item"), Field("page", "context")))
WEIGHTED = replace(PLAIN, weight="times")
SHORT: dict[str, Any] = {"width": 4, "pretrain_epochs": 2, "batch_size": 64, "meta_epochs": 1, "device": "cpu"}
TOWER: dict[str, Any] = SHORT | {"hidden": [8]}
MAP: dict[str, Any] = TOWER | {"adaptation": "map", "warmup_events": "all"}
EMERG: dict[str, Any] = SHORT | {"tower": [8], "episodes_per_step": 8, "support_events": 6, "query_events": 6}
KINDS: Mapping[str, tuple[type[ItemLearner], dict[str, Any]]] = {
    "emerg": (EmerG, EMERG),
    "deepfm, Adam": (IdTuning, TOWER | {"warmup_steps": 3}),
    "deepfm, learned rates": (IdTuning, TOWER | {"adaptation": "learned_sgd"}),
    "deepfm, MAP": (IdTuning, MAP),
    "cvar": (CVAR, MAP),
    "mwuf": (MWUF, MAP),
    "logistic": (Logistic, {"device": "cpu"}),
}
"""`meta_epochs` are of the adaptation's scales alone."""

IN_ONE: dict[str, Any] = {
    "batch_size": 10_000,
    "pretrain_epochs": 20,
    "pretrain_lr": 0.02,
    "residual_l2": 0.05,
    "meta_epochs": 0,
}
"""Pre-training in full batches."""

MAPS = ("emerg", "deepfm, MAP", "mwuf", "cvar", "logistic")


def log(rows: int = 240, seed: int = 0) -> pl.DataFrame:
    """Events of six films, some of which count two or three times."""
    chance = np.random.default_rng(seed)
    film, viewer = chance.integers(0, 6, rows), chance.integers(0, 12, rows)
    return pl.DataFrame(
        {
            "film": [f"film {n}" for n in film],
            "viewer": viewer,
            "genre": [["war", "love"][n % 2] for n in film],
            "page": [["home", "list"][n] for n in chance.integers(0, 2, rows)],
            "liked": (chance.random(rows) < np.where((film + viewer) % 2, 0.7, 0.2)).astype(int),
            "seen": np.arange(rows),
            "times": chance.choice([1.0, 1.0, 2.0, 3.0], rows),
        }
    )


def repeated(frame: pl.DataFrame) -> pl.DataFrame:
    """Each row as many times as its weight says, instead."""
    return frame[np.repeat(np.arange(len(frame)), frame["times"].cast(pl.Int64).to_numpy())].drop("times")


NEW = pl.DataFrame({"film": ["new", "other"], "genre": ["war", "love"]})


def of_new(rows: int, seed: int, start: int = 1000) -> pl.DataFrame:
    """Events of two new films."""
    film = pl.Series("film", [["new", "other"][n % 2] for n in range(rows)])
    return log(rows, seed).drop("genre").with_columns(film, pl.col("seen") + start)


def settings_of(name: str) -> tuple[type[ItemLearner], dict[str, Any]]:
    return KINDS[name]


def alike(one: ItemLearner, other: ItemLearner, tolerance: float) -> None:
    assert one.state.keys() == other.state.keys()
    for key, value in one.state.items():
        torch.testing.assert_close(value, other.state[key], atol=tolerance, rtol=tolerance, equal_nan=True)


# --- estimates


def estimates(rows: int, seed: int = 0) -> dict[str, Any]:
    chance = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=chance, dtype=torch.float64)

    return {
        "logits": normal(3, rows),
        "jacobian": normal(3, rows, 4),
        "labels": (normal(3, rows) > 0).double(),
        "weights": torch.randint(0, 4, (3, rows), generator=chance).double(),
        "prior_std": normal(4).exp(),
    }


def unrolled(known: dict[str, Any]) -> dict[str, Any]:
    """The same with rows of weight 1 or 0 alone."""
    each = known["weights"][..., None] > torch.arange(3)
    return known | {
        "logits": known["logits"].repeat_interleave(3, dim=1),
        "jacobian": known["jacobian"].repeat_interleave(3, dim=1),
        "labels": known["labels"].repeat_interleave(3, dim=1),
        "weights": each.flatten(1).double(),
    }


@pytest.mark.parametrize("rows", [1, 2, 20])
def test_an_estimate_with_weights_is_that_with_repeated_rows(rows: int) -> None:
    known = estimates(rows)
    found, right = (map_estimate(**one, steps=60) for one in (known, unrolled(known)))
    torch.testing.assert_close(found, right, atol=1e-9, rtol=1e-9)
    none = map_estimate(**known | {"weights": torch.where(known["weights"] == 3, 3.0, 0.0).double()}, steps=12)
    assert torch.equal(
        none[(known["weights"] != 3).all(dim=1)], none.new_zeros(int((known["weights"] != 3).all(1).sum()), 4)
    )


@pytest.mark.parametrize("weight", [2.0, 30.0, 1e3, 1e4])
def test_an_estimate_with_heavy_weights_is_where_the_gradient_vanishes(weight: float) -> None:
    known = estimates(30) | {"prior_std": torch.full((4,), 0.5, dtype=torch.float64)}
    known["weights"] = known["weights"].clamp(max=1)
    known["weights"][:2] *= weight
    found = map_estimate(**known, steps=5)
    p = torch.sigmoid(known["logits"] + (known["jacobian"] @ found[..., None])[..., 0])
    pulls = known["weights"] * (known["labels"] - p)
    gradient = (known["jacobian"].mT @ pulls[..., None])[..., 0] - found / known["prior_std"] ** 2
    assert gradient[:2].abs().max() < 1e-3 * weight
    alone = map_estimate(**{key: value[2:] if key != "prior_std" else value for key, value in known.items()}, steps=5)
    torch.testing.assert_close(found[2:], alone, atol=1e-12, rtol=1e-12)  # others of the batch take no step more for it


def test_an_estimate_beside_a_summary_and_the_summary_itself_know_weights() -> None:
    known = estimates(9)
    many = unrolled(known)
    at = torch.zeros(3, 4, dtype=torch.float64)
    one, other = (
        GaussianSummary.empty(3, at).with_rows(of["jacobian"], of["logits"], of["labels"], of["weights"], at)
        for of in (known, many)
    )
    torch.testing.assert_close(one.precision, other.precision)
    torch.testing.assert_close(one.linear, other.linear)
    found, right = (map_estimate(**of, steps=60, summary=one) for of in (known, many))
    torch.testing.assert_close(found, right, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("rows", [2, 9])
def test_a_posterior_knows_weights(rows: int) -> None:
    known = estimates(rows)
    none = torch.zeros(3, 0, 4, dtype=torch.float64)
    one, other = (
        posterior_factor(of["jacobian"], of["logits"], of["weights"], none) for of in (known, unrolled(known))
    )
    torch.testing.assert_close(one.mT @ one, other.mT @ other, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("label", [0.0, 1.0])
@pytest.mark.parametrize("weight", [0.25, 1.0, 2.0, 40.0, 1e4])
def test_a_single_event_is_estimated_as_several_are(weight: float, label: float) -> None:
    logit, gradient = 0.7, 1.3
    step = map_step(logit, gradient**2, label, weight) * gradient
    one = torch.ones(1, 1, dtype=torch.float64)
    found = map_estimate(logit * one, gradient * one[..., None], label * one, weight * one, one[0], 5)
    assert step == pytest.approx(found.item(), abs=1e-6)


# --- learners


def learned(name: str, frame: pl.DataFrame, schema: Schema, **changes: Any) -> ItemLearner:
    kind, settings = settings_of(name)
    return kind(schema, **settings | changes).learn(frame)


@pytest.mark.parametrize("name", KINDS)
def test_weights_of_1_are_none_to_the_bit(name: str) -> None:
    ones = pl.lit(1.0).alias("times")
    plain = learned(name, log().drop("times"), PLAIN)
    weighted = learned(name, log().with_columns(ones), WEIGHTED)
    events = of_new(14, 1)
    plain.add(NEW).warm(events.drop("times"))
    weighted.add(NEW).warm(events.with_columns(ones))
    for (key, one), other in zip(
        plain.network.state_dict().items(), weighted.network.state_dict().values(), strict=True
    ):
        assert torch.equal(one, other), key
    alike(plain, weighted, 0)
    asked = log_from_frame(log().with_columns(ones), WEIGHTED, items=False)
    assert weighted.evaluate(asked) == plain.evaluate(replace(asked, weight=None))


@pytest.mark.parametrize("name", MAPS)
def test_a_warm_up_by_weighted_events_is_one_by_repeated_events(name: str) -> None:
    model = learned(name, log(), WEIGHTED).add(NEW)
    model.initial_state = model.state
    before = {key: value.clone() for key, value in model.state.items()}
    events = of_new(12, 1)
    clicks, several = (
        model.encoder.clicks(log_, np.array([model.known[name] for name in log_.items.ids])[log_.item]).by_row()
        for log_ in (
            log_from_frame(events, WEIGHTED, items=False),
            log_from_frame(repeated(events), PLAIN, items=False),
        )
    )
    assert clicks.weight is not None
    assert several.weight is None
    found, right, ignored = (
        {key: torch.cat([of[key] for _, of in parts]) for key in parts[0][1]}
        for parts in (
            sorted(model.adapt(before, model.item_features, one), key=lambda part: int(part[0][0]))
            for one in (clicks, several, replace(clicks, weight=None))
        )
    )
    for key, value in found.items():
        torch.testing.assert_close(value, right[key], atol=1e-4, rtol=1e-4)
    key = "seen" if name == "cvar" else "bias"
    assert not torch.allclose(found[key], ignored[key], atol=1e-3)


@pytest.mark.parametrize("name", ["deepfm, MAP", "logistic"])
def test_training_with_weights_is_training_with_repeated_rows(name: str) -> None:
    """In full batches; pre-training in several ones draws others."""
    whole: dict[str, Any] = {} if name == "logistic" else IN_ONE
    weighted, right = learned(name, log(), WEIGHTED, **whole), learned(name, repeated(log()), PLAIN, **whole)
    alike(weighted, right, 2e-3)
    unweighted = learned(name, log().drop("times"), PLAIN, **whole)
    assert not torch.allclose(weighted.state["bias"], unweighted.state["bias"], atol=1e-2)
    if name != "logistic":  # weights are relative in pre-training, and counts in an estimate
        scaled = learned(name, log().with_columns(pl.col("times") * 4), WEIGHTED, **whole)
        alike(weighted, scaled, 0)


def test_a_log_in_chunks_is_trained_on_with_its_weights(tmp_path: Path) -> None:
    log().write_parquet(tmp_path / "log.parquet")
    files = ChunkedLog(tmp_path / "log.parquet", WEIGHTED, rows=150)  # both chunks are one buffer, and one batch
    kind, settings = KINDS["deepfm, MAP"]
    chunked, right = (kind(WEIGHTED, **settings | IN_ONE).learn(source) for source in (files, log()))
    alike(chunked, right, 2e-3)


def test_held_out_events_keep_their_weights(store: Path) -> None:
    with ItemService.open(store, "sqlite://") as service:
        model = service.learner
    lives = log_from_frame(log(), WEIGHTED)
    (cold, *_) = outcomes(model.lifecycle, model.encoder, lives, torch.device("cpu"))
    assert cold.weight.tolist() == log()["times"].to_list()  # in the order of time


def test_calibration_counts_an_event_as_often_as_its_weight_says() -> None:
    chance = np.random.default_rng(0)
    rows = 300
    logit, item, weight = chance.normal(size=rows), chance.integers(0, 40, rows), chance.integers(1, 4, rows)
    label = (chance.random(rows) < 0.4).astype(np.float64)
    times = np.repeat(np.arange(rows), weight)
    one = fit_calibration([Outcomes(0, logit, label, item, weight.astype(np.float64))])
    other = fit_calibration([Outcomes(0, logit[times], label[times], item[times], np.ones(len(times)))])
    assert one.scale == pytest.approx(other.scale)
    assert one.offset == pytest.approx(other.offset)


def test_a_history_of_users_cannot_weigh_events() -> None:
    with pytest.raises(
        SettingError, match="user_history = true counts a user's events, and cannot weigh them by 'times'"
    ):
        EmerG(WEIGHTED, user_history=True)


# --- metrics


def test_metrics_count_a_row_as_often_as_its_weight_says() -> None:
    chance = np.random.default_rng(1)
    rows = 400
    item, user, label = chance.integers(0, 9, rows), chance.integers(0, 7, rows), chance.integers(0, 2, rows)
    score, weight = chance.integers(1, 30, rows) / 30.5, chance.integers(1, 5, rows)
    times = np.repeat(np.arange(rows), weight)
    for rate in (1.0, 0.1):
        found = click_scores(item, label, score, user, weight, rate)
        right = click_scores(item[times], label[times], score[times], user[times], None, rate)
        assert found == pytest.approx(right, rel=1e-12)
        assert click_scores(item, label, score, user, weight / 7, rate) == pytest.approx(right, rel=1e-12)
        ones = click_scores(item, label, score, user, np.ones(rows), rate)
        assert ones == click_scores(item, label, score, user, None, rate)
        assert all(found[key] != ones[key] for key in found)


def test_metrics_of_one_kind_of_label_are_undefined_with_weights_too() -> None:
    found = click_scores([1, 1], [1, 1], [0.2, 0.4], None, [0.1, 0.7])
    assert all(np.isnan(found[key]) for key in ("auc", "item_auc", "normalised_entropy"))
    with pytest.raises(DataError, match="weight in row 2 is 0; give finite numbers above 0"):
        click_scores([1, 1], [1, 0], [0.2, 0.4], None, [1, 0])
    with pytest.raises(DataError, match="2 labels and 1 weights"):
        click_scores([1, 1], [1, 0], [0.2, 0.4], None, [1])


# --- logs


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            "0",
            "row 2, weight 'times' is 0; give how many equal rows it stands for, from 1e-06 to 10000, and leave rows out",
        ),
        ("-1", "row 2, weight 'times' is -1; give"),
        ("2e4", "row 2, weight 'times' is 20000; give"),
        ("nan", "row 2, column 'times' is empty; fill it, or leave the row out"),
        ("", "row 2, column 'times' is empty; fill it, or leave the row out"),
        ("inf", "row 2, column 'times' is infinite"),
        ("twice", "row 2, column 'times': 'twice' is not a number"),
    ],
)
def test_what_is_no_weight_is_refused_with_its_row(tmp_path: Path, value: str, message: str) -> None:
    text = log(3).with_columns(times=pl.Series(["1", value, "2"]))
    text.write_csv(tmp_path / "log.csv")
    with pytest.raises(DataError, match=message):
        read_log(tmp_path / "log.csv", WEIGHTED)
    chunked = ChunkedLog(tmp_path / "log.csv", WEIGHTED, rows=1)
    with pytest.raises(DataError, match=message):
        chunked.read(*chunked.chunks)
    cells = [1.0, {"twice": "twice", "": None}[value] if value in ("twice", "") else float(value), 2.0]
    table = log(3).drop("genre", "times").to_dict(as_series=False) | {"times": cells}
    assert PlainReader(WEIGHTED).events(table, lambda _: None) is None


def test_a_log_without_its_weights_is_refused(store: Path, tmp_path: Path) -> None:
    other = log_from_frame(log().drop("times"), PLAIN)
    events = log_from_frame(of_new(2, 1), PLAIN, items=False)
    without = "table: the events have no weights 'times'; read them with the schema of the model"
    with pytest.raises(DataError, match=without):
        Logistic(WEIGHTED).learn(other)
    with ItemService.open(store, f"sqlite:///{tmp_path / 'items.db'}") as service:
        service.add(NEW)
        with pytest.raises(DataError, match=without):
            service.warm(events)
        with pytest.raises(DataError, match=without):
            service.learner.evaluate(other)
        with pytest.raises(DataError, match=without):
            service.to_learner().warm(events)
    with pytest.raises(DataError, match="no column 'times'"):
        log_from_frame(log().drop("times"), WEIGHTED)
    assert log_from_frame(log().drop("times", "liked", "seen"), WEIGHTED, labels=False).weight is None  # requests


def test_files_in_chunks_and_plain_tables_have_the_weights_of_the_log(tmp_path: Path) -> None:
    frame = log(50)
    frame.write_parquet(tmp_path / "log.parquet")
    files = ChunkedLog(tmp_path / "log.parquet", WEIGHTED, rows=7)
    weight = files.read(*files.chunks).weight
    assert weight is not None
    assert weight.tolist() == frame["times"].to_list()
    whole, parts = LogStatistics(WEIGHTED).add(log_from_frame(frame, WEIGHTED)), LogStatistics.of(files)
    assert whole.weights.tolist() == parts.weights.tolist()
    assert whole.weights.tolist() == frame.group_by("film").agg(pl.col("times").sum()).sort("film")["times"].to_list()
    plain = PlainReader(WEIGHTED).events(frame.drop("genre").to_dicts(), lambda _: None)
    assert plain is not None
    assert plain.log.weight is not None
    assert plain.log.weight.tolist() == frame["times"].to_list()
    assert plain.log.take(np.array([4, 2])).weight_or_one.tolist() == frame["times"][[4, 2]].to_list()


def test_it_is_part_of_the_schema() -> None:
    assert Schema.from_json(WEIGHTED.to_json()) == WEIGHTED
    assert "weight" not in str(PLAIN.to_json())
    with pytest.raises(DataError, match="column 'page' is used twice"):
        replace(PLAIN, weight="page")


def test_a_column_of_weights_is_proposed_by_name_alone(tmp_path: Path) -> None:
    log().rename({"times": "sample_weight"}).write_csv(tmp_path / "log.csv")
    found = propose(tmp_path / "log.csv")
    assert found.schema.weight is None
    assert "sample_weight" in found.left_out
    write_schema(found, tmp_path / "log.toml")
    assert (
        "# sample_weight: left out: by its name weights of rows; set weight = " in (tmp_path / "log.toml").read_text()
    )
    named = propose(tmp_path / "log.csv", weight="sample_weight")
    assert named.schema == replace(found.schema, weight="sample_weight")
    write_schema(named, tmp_path / "log.toml")
    assert 'weight = "sample_weight"  # as you named it' in (tmp_path / "log.toml").read_text()
    with pytest.raises(DataError, match="column 'page' is named as the weight, but it must hold numbers from 1e-06 to"):
        propose(tmp_path / "log.csv", weight="page")


# --- service


@pytest.fixture(scope="module", params=["emerg", "deepfm, MAP"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weighted") / "model"
    learned(request.param, log(), WEIGHTED).save(folder)
    return folder


def states(service: ItemService) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in service.refreshed(["new", "other"]).state.items()}


def close(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    return all(torch.allclose(value, other[key], atol=2e-5) for key, value in one.items())


def test_the_weight_of_an_event_is_kept_for_later_warm_ups(store: Path, tmp_path: Path) -> None:
    events = of_new(16, 3).with_columns(id=pl.format("e{}", "seen"))
    url = f"sqlite:///{tmp_path / 'items.db'}"
    with ItemService.open(store, url) as service:
        service.add(NEW)
        for one in events.iter_slices(3):
            done = service.warm(one, "id")
            assert done.new == len(one)
    with ItemService.open(store, url) as service:
        service.warm(events[:0].vstack(events[15:]), "id")
        found = states(service)
        assert sum(one.weight for one in service.states.event_history(service.model, ["new"])["new"]) > 8
    with ItemService.open(store, f"sqlite:///{tmp_path / 'at_once.db'}") as service:
        service.add(NEW)
        service.warm(events, "id")
        at_once = states(service)
    with ItemService.open(store, f"sqlite:///{tmp_path / 'repeated.db'}") as service:
        service.add(NEW)
        twice = repeated(events).with_columns(times=pl.lit(1.0))
        service.warm(twice.with_columns(id=pl.format("{}-{}", "id", pl.int_range(len(twice)))), "id")
        right = states(service)
    assert close(found, at_once)
    assert all(torch.allclose(value, right[key], atol=2e-3) for key, value in found.items() if key != "seen")


def test_a_single_weighted_event_and_its_correction(store: Path, tmp_path: Path) -> None:
    seen = of_new(2, 5)[:1].with_columns(liked=0, times=3.0, id=pl.lit("e"))
    clicked = seen.with_columns(liked=1)
    with ItemService.open(store, f"sqlite:///{tmp_path / 'items.db'}") as service:
        service.add(NEW)
        assert service.warm(seen, "id").calibration["0"] == pytest.approx(
            {"rows": 1, "expected": 0.5, "clicks": 0}, abs=3
        )
        with pytest.raises(
            DataError, match="row 1: event 'e' of item 'new' has another user, context or weight than an event"
        ):
            service.warm(clicked.with_columns(times=1.0), "id")
        with pytest.raises(DataError, match="has another user, context or weight than an event"):
            service.warm(seen.with_columns(times=2.0), "id")
        assert service.warm(seen, "id").known == 1
        done = service.warm(clicked, "id")
        assert (done.new, done.corrected) == (0, 1)
        corrected = states(service)
        with pytest.raises(DataError, match="weight 'times' is 0"):
            service.warm(seen.with_columns(times=0.0, id=pl.lit("f")), "id")
    with ItemService.open(store, f"sqlite:///{tmp_path / 'clicked.db'}") as service:
        service.add(NEW)
        done = service.warm(clicked, "id")
        assert done.calibration["0"]["clicks"] == 3
        assert close(corrected, states(service))
    with ItemService.open(store, f"sqlite:///{tmp_path / 'three.db'}") as service:
        service.add(NEW)
        service.warm(pl.concat([clicked.with_columns(times=1.0, id=pl.lit(id)) for id in "abc"]), "id")
        assert all(torch.allclose(value, corrected[key], atol=1e-4) for key, value in states(service).items())


def test_a_stored_event_has_its_weight_and_an_old_one_counts_once() -> None:
    state = ItemState("a", 1, "warm", 2, b"", "")
    for event in (
        Event("e", 1, 1, [1], "u", 2.5),
        Event("f", 1, 1, [1], None, 2.5),
        Event("g", 1, 1, [1], "u"),
        Event("h", 1, 0, [1]),
    ):
        (row,) = event_rows("m", Change(state, [event]))
        assert to_events("m", [("a", row)]) == [event]
        assert row.payload is not None
        assert ("weight" in row.payload) == (event.weight != 1)


def test_ids_that_are_made_of_events_tell_weights_apart() -> None:
    one = log_from_frame(of_new(4, 1).with_columns(times=1.0), WEIGHTED, items=False)
    assert digests(one) == digests(replace(one, weight=None))
    assert not set(digests(one)) & set(digests(replace(one, weight=2 * one.weight_or_one)))


def test_a_learner_that_was_saved_hands_its_weighted_events_on(store: Path, tmp_path: Path) -> None:
    model = ItemService.open(store, f"sqlite:///{tmp_path / 'none.db'}").to_learner()
    model.add(NEW).warm(of_new(10, 2))
    model.save(tmp_path / "warm")
    again = type(model).load(tmp_path / "warm")
    assert again.past_events is not None
    assert model.past_events is not None
    assert torch.equal(again.past_events.weights(torch.arange(10)), model.past_events.weights(torch.arange(10)))
    with ItemService.open(tmp_path / "warm", f"sqlite:///{tmp_path / 'items.db'}") as service:
        service.warm(of_new(1, 9, start=5000))
        events = service.states.event_history(service.model, ["new"])["new"]
        clicks = to_clicks([(0, event) for event in events], service.learner.encoder, torch.device("cpu"))
        later = model.warm(of_new(1, 9, start=5000))
        assert clicks.weight is not None
        assert close(
            {
                key: value[[service.refreshed(["new"]).numbers["new"]]]
                for key, value in service.refreshed(["new"]).state.items()
            },
            {key: value[[later.known["new"]]] for key, value in later.state.items()},
        )


# --- service over HTTP, and the command line


def test_events_over_http_have_weights(store: Path, tmp_path: Path) -> None:
    event = {"film": "new", "viewer": 3, "page": "home", "liked": 1, "seen": 2000, "event_id": "e"}
    config = ServeConfig(stores=(store,), states=f"sqlite:///{tmp_path / 'http.db'}", folder=tmp_path / "own")
    with TestClient(create_app(config), raise_server_exceptions=False) as client:
        client.post("/items", json={"items": NEW.to_dicts()})
        refused = client.post("/events", json={"events": [event]})
        assert refused.status_code == 422
        assert "times" in refused.text
        assert client.post("/events", json={"events": [event | {"times": 0}]}).json()["refused"] == 1
        answer = client.post("/events", json={"events": [event | {"times": 3}]}).json()
        assert (answer["new"], answer["errors"]) == (1, [])
        found = client.post("/score", json={"viewer": 3, "context": {"page": "home"}, "candidates": ["new"]}).json()
        records = LogReader(config.own_folder / FOLDER).read()
    with ItemService.open(store, f"sqlite:///{tmp_path / 'library.db'}") as service:
        service.add(NEW)
        service.warm([event | {"times": 3}])
        asked = service.score([{"film": "new", "viewer": 3, "page": "home"}])
        assert found["scores"][0]["score"] == pytest.approx(asked["score"][0], abs=1e-6)
        history = HistoryReader(WEIGHTED, []).read(records)
        assert event_table(history, service.learner.encoder)["times"].to_list() == [3.0]


def test_versions_are_compared_by_weighted_events() -> None:
    labels, one = pl.Series([1, 0, 1, 0]), pl.Series([0.8, 0.5, None, 0.4])
    weights = pl.Series([2.0, 1.0, 5.0, 3.0])
    found = compare(labels, one, one, weights=weights)["new"]
    times = [0, 0, 1, 3, 3, 3]
    right = compare(labels[times], one[times], one[times])["new"]
    assert found == pytest.approx(right)
    assert found != compare(labels, one, one)["new"]


def test_the_command_line_names_the_column(shell: Shell) -> None:
    log().write_csv(shell.folder / "log.csv")
    log().drop("times").write_csv(shell.folder / "later.csv")
    refused = shell.fails("train", "shop", "log.csv", "--column", "weight=page")
    assert "column 'page' is named as the weight, but it must hold numbers" in refused
    code, _, err = shell.call("train", "shop", "log.csv", "--column", "weight=times", "--learner", "logistic")
    assert code == 0, err
    assert Logistic.load(shell.folder / "shop").schema.weight == "times"
    assert "no column 'times'" in shell.fails("evaluate", "shop", "later.csv")
    code, out, err = shell.call("evaluate", "shop", "log.csv", "--json")
    assert code == 0, err
    rate = float(np.average(log()["liked"], weights=log()["times"]))
    assert json.loads(out)["click_rate"] == pytest.approx(rate)
