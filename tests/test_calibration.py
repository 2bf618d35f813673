"""Click probabilities can be believed: calibration by number of events, and logs of which negatives were left out."""

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from films import events, features, requests
from films import trained as trained_films
from newcomer.data.click_log import ClickLog
from newcomer.data.io.chunked_log import ChunkedLog
from newcomer.data.io.log_reader import log_from_frame
from newcomer.data.schema import Field, Schema
from newcomer.errors import DataError, LearnerError, SettingError, StoreError
from newcomer.items.calibration import Calibration
from newcomer.items.configuration import Probabilities
from newcomer.items.methods.dropout_net import DropoutNet
from newcomer.items.methods.emerg import EmerG
from newcomer.items.serving.service import ItemService
from newcomer.items.training.calibration import (
    Outcomes,
    fit_beta,
    fit_calibration,
    held_out_items,
    outcomes,
    reached,
    that_fit,
)
from newcomer.server.evaluation import compare
from newcomer.store.folder import Store
from shell import Shell

Floats = NDArray[np.float64]

SCHEMA = Schema("item", "user", "clicked", "time", (Field("kind", "item"),))
CURVED = Calibration((0, 3, 20), scale=(0.5, 0.8, 0.9), offset=(-0.6, -0.3, -0.2))
BENT = replace(CURVED, upper_scale=(0.3, 0.6, 1.2))
SETTINGS: dict[str, Any] = {"width": 8, "hidden": [8], "pretrain_epochs": 15, "pretrain_lr": 1e-2, "id_dropout": 0.3}
SETTINGS |= {"adaptation": "map", "warmup_events": "all", "meta_epochs": 1, "device": "cpu"}
NETWORK: dict[str, Any] = {"width": 4, "tower": [8], "pretrain_epochs": 3, "meta_epochs": 1, "device": "cpu"}
USERS = 250


def sigmoid(logit: Floats) -> Floats:
    return 1 / (1 + np.exp(-logit))


def world(counts: Sequence[int], quality: Floats, seed: int) -> tuple[pl.DataFrame, Floats]:
    """Events of items of known quality by users of known taste, and their true click probabilities."""
    taste = np.random.default_rng(0).normal(0, 1, USERS)
    chance = np.random.default_rng(seed)
    item = np.repeat(np.arange(len(counts)), counts)
    user = chance.integers(0, USERS, len(item))
    p = sigmoid(quality[item] + taste[user] - 0.5)
    table = {
        "item": [f"{seed} {n}" for n in item],
        "user": user,
        "kind": [f"kind {n % 5}" for n in item],
        "clicked": (chance.random(len(item)) < p).astype(int),
        "time": chance.permutation(len(item)),
    }
    return pl.DataFrame(table), p


def popular_if_good(items: int, seed: int, least: int, most: int) -> tuple[list[int], Floats]:
    """Numbers of events that grow with the items' quality."""
    quality = np.random.default_rng(seed).normal(0, 0.8, items)
    rank = quality.argsort().argsort() / items
    return [round(least * (most / least) ** share) for share in rank], quality


@pytest.fixture(scope="module")
def learned() -> DropoutNet:
    """Trained on a log with popular and unpopular items, of which the popular ones are better."""
    return DropoutNet(SCHEMA, **SETTINGS).learn(world(*popular_if_good(240, 1, 4, 120), seed=1)[0])


@given(
    st.lists(st.floats(-30, 30), min_size=2, max_size=20),
    st.integers(0, 10**6),
    st.lists(st.tuples(st.floats(0.05, 5), st.floats(0.05, 5), st.floats(-5, 5)), min_size=1, max_size=4),
)
def test_the_order_of_scores_at_the_same_number_of_events_is_kept(
    logits: list[float], events: int, parameters: list[tuple[float, float, float]]
) -> None:
    scale, upper, offset = zip(*parameters, strict=True)
    calibration = Calibration(tuple(4**n - 1 for n in range(len(scale))), scale, offset, upper)
    found = calibration(logits, [events] * len(logits))
    assert (np.diff(found[np.argsort(logits)]) >= -1e-12).all()


@given(st.floats(-20, 20), st.integers(0, 10**6))
def test_a_std_is_scaled_by_the_slope(logit: float, events: int) -> None:
    for calibration in (CURVED, BENT):
        below, above = calibration([logit - 1e-4, logit + 1e-4], [events] * 2)
        assert calibration.slope([logit], [events])[0] == pytest.approx((above - below) / 2e-4, abs=1e-6)


def test_with_equal_scales_it_is_platt_scaling() -> None:
    logits, events = np.linspace(-9, 9, 7), np.arange(7)
    assert np.array_equal(replace(CURVED, upper_scale=CURVED.scale)(logits, events), CURVED(logits, events))
    assert Calibration(scale=(0.5,), offset=(-0.6,))(logits, events * 0) == pytest.approx(0.5 * logits - 0.6)


def test_it_is_that_of_kull_and_others() -> None:
    """a log p − b log(1 − p) + c, their equation of the beta calibration map; c is the offset without its part at p = 1/2."""
    p, (a, b, c) = np.array([0.01, 0.3, 0.5, 0.99]), (0.7, 1.4, -0.2)
    offset = c + (b - a) * math.log(2)
    found = Calibration(scale=(a,), offset=(offset,), upper_scale=(b,))(np.log(p / (1 - p)), np.zeros(4))
    assert found == pytest.approx(a * np.log(p) - b * np.log(1 - p) + c)


@pytest.mark.parametrize("calibration", [CURVED, BENT, Calibration()])
def test_what_is_saved_is_what_was_fitted(calibration: Calibration) -> None:
    assert Calibration.from_json(json.loads(json.dumps(calibration.to_json()))) == calibration


def test_the_calibration_changes_little_from_one_event_to_the_next() -> None:
    events = np.arange(1000)
    for calibration, logit in itertools.product((CURVED, BENT), (-3.0, 0.0, 3.0)):
        found = calibration(np.full(1000, logit), events)
        assert np.abs(np.diff(found)).max() < 0.7
        assert abs(found[-1] - logit) < 0.02  # an item's own events tell what the model missed


def test_without_a_calibration_a_logit_stays_as_it_is_to_the_bit() -> None:
    logits = np.random.default_rng(0).normal(0, 9, 1000)
    assert np.array_equal(Calibration()(logits, np.arange(1000)), logits)


@pytest.mark.parametrize(
    ("events", "scale", "offset"),
    [((0,), (0.0,), (0.0,)), ((0, 0), (1, 1), (0, 0)), ((1,), (1,), (0,)), ((0,), (1,), (math.nan,)), ((), (), ())],
)
def test_numbers_that_are_no_calibration_are_refused(events: Any, scale: Any, offset: Any) -> None:
    with pytest.raises(ValueError, match="no calibration"):
        Calibration(events, scale, offset)


@pytest.mark.parametrize(
    ("scale", "upper", "offset"), [(1.0, 1.0, 0.0), (0.5, 0.5, -0.4), (2.0, 0.7, 1.0), (0.6, 1.5, 0.2)]
)
def test_scales_and_offset_are_found_again(scale: float, upper: float, offset: float) -> None:
    """With (1, 1, 0), probabilities that are right stay as they are."""
    chance = np.random.default_rng(0)
    logit = chance.normal(0, 1.5, 80_000)
    true = Calibration(scale=(scale,), offset=(offset,), upper_scale=(upper,))(logit, np.zeros(80_000))
    label = (chance.random(80_000) < sigmoid(true)).astype(float)
    found = fit_beta(logit, label, np.ones(80_000))
    assert found == pytest.approx((offset, scale, upper), abs=0.08)


@given(st.lists(st.tuples(st.floats(-200, 200), st.booleans()), min_size=1, max_size=30))
def test_every_sample_gives_positive_scales(rows: list[tuple[float, bool]]) -> None:
    logit, label = np.array(rows, dtype=float).T
    offset, *scales = fit_beta(logit, label, np.ones(len(rows)))
    assert math.isfinite(offset)
    assert min(scales) > 0


def counted_log(counts: Sequence[int]) -> ClickLog:
    return log_from_frame(world(counts, np.zeros(len(counts)), seed=2)[0], SCHEMA)


def held_out_of(log: ClickLog) -> Any:
    return held_out_items(np.bincount(log.item).astype(float), np.bincount(log.item, log.label), 0, "old")


def test_a_quarter_is_held_out_the_least_known_only_of_a_log_without_unknown_items() -> None:
    well_known, whole = counted_log(range(30, 270)), counted_log(range(1, 241))
    for log in (well_known, whole):
        assert len(held_out_of(log)) == 60
        assert np.array_equal(held_out_of(log), held_out_of(log))
    count = np.bincount(well_known.item)[held_out_of(well_known)]
    assert sorted(count) == list(range(30, 90))
    sampled = np.bincount(whole.item)[held_out_of(whole)]
    assert sampled.max() > 180
    assert sampled.min() < 60


def test_held_out_items_are_as_good_as_the_others() -> None:
    """One of every four items by click rate: so is a quarter, but for one item, of those with any click rate or less."""
    log = counted_log(range(1, 241))
    rate = np.bincount(log.item, log.label) / np.bincount(log.item)
    held_out = rate[held_out_of(log)]
    assert all(abs((held_out <= most).sum() - (rate <= most).sum() / 4) < 1 for most in rate)


@pytest.mark.parametrize("counts", [[50] * 100, [2] * 240], ids=["few items", "few events"])
def test_too_few_items_or_events_tell_nothing(counts: list[int]) -> None:
    log = counted_log(counts)
    assert not len(held_out_of(log))


def test_as_many_held_out_items_are_kept_as_fit_into_memory() -> None:
    """Of each item only its first 200 events count."""
    held_out, events = np.array([1, 3, 4, 7]), np.array([0.0, 500, 0, 200, 300, 0, 0, 1000])
    for rows, count in ((100, 1), (200, 1), (399, 1), (400, 2), (800, 4), (10**6, 4)):
        found = that_fit(held_out, events, rows, 0, "old")
        assert len(found) == count
        assert np.array_equal(found, np.intersect1d(found, held_out))


def copied(learner: DropoutNet) -> DropoutNet:
    model = DropoutNet(SCHEMA, **SETTINGS)
    model._apply_entries(learner.entries)
    model.entries = list(learner.entries)
    return model


def expected_over_true(learner: DropoutNet, counts: Sequence[int], quality: Floats, first: int) -> tuple[float, float]:
    """Clicks expected of new items at their events `first` to `first` + 3 over those of the truth: calibrated, and not."""
    table, p = world(counts, quality, seed=7)
    age = table.select(pl.col("time").rank("ordinal").over("item") - 1).to_series().to_numpy()
    enough = np.repeat(counts, counts) > first
    now, model = (age >= first) & (age < first + 4) & enough, copied(learner)
    model.add(table.filter(enough).select("item", "kind").unique(maintain_order=True))
    if first:
        model.warm(table.filter((age < first) & enough))
    calibrated = model.score(table.filter(now)).sum()
    model.fitted_calibration = Calibration()
    true = p[now].sum()
    return float(calibrated / true), float(model.score(table.filter(now)).sum() / true)


@pytest.mark.learning
@pytest.mark.parametrize("first", [0, 8])
def test_clicks_that_are_expected_of_new_items_come(learned: DropoutNet, first: int) -> None:
    """The truth is known: as many clicks are to be expected as the true probabilities say."""
    calibrated, _ = expected_over_true(learned, *popular_if_good(600, 7, 4, 120), first)
    assert calibrated == pytest.approx(1, abs=0.08)


@pytest.fixture(scope="module")
def learned_in_chunks(tmp_path_factory: pytest.TempPathFactory) -> tuple[DropoutNet, ChunkedLog]:
    """Trained as `learned`, on files that are read chunk by chunk."""
    path = tmp_path_factory.mktemp("chunks") / "log.csv"
    world(*popular_if_good(240, 1, 4, 120), seed=1)[0].write_csv(path)
    files = ChunkedLog(path, SCHEMA, rows=1500)
    return DropoutNet(SCHEMA, **SETTINGS).learn(files), files


def test_a_log_in_chunks_is_calibrated_on_the_same_items_by_a_second_model_of_the_others(
    learned: DropoutNet, learned_in_chunks: tuple[DropoutNet, ChunkedLog]
) -> None:
    learner, files = learned_in_chunks
    assert len(files.chunks) > 3
    whole = files.read(*files.chunks)
    held_out = held_out_of(whole)
    assert learned.held_out is not None
    assert learner.held_out is not None
    assert learned.held_out.items == learner.held_out.items == len(held_out) == 60
    second = DropoutNet(SCHEMA, **SETTINGS, calibrate=False)
    second.learn(files.without_items([whole.items.ids[item] for item in held_out]))
    lives = whole.of_items(held_out)
    right = fit_calibration(reached(outcomes(second.lifecycle, second.encoder, lives, second.device)))
    assert learner.fitted_calibration.events == right.events
    assert learner.fitted_calibration.scale == pytest.approx(right.scale, abs=1e-6)
    assert learner.fitted_calibration.offset == pytest.approx(right.offset, abs=1e-6)
    plain = DropoutNet(SCHEMA, **SETTINGS, calibrate=False).learn(files)
    assert plain.held_out is None
    for key, value in learner.entries[0].tensors.items():
        assert value.equal(plain.entries[0].tensors[key]), key


@pytest.mark.learning
@pytest.mark.parametrize("first", [0, 8])
def test_clicks_that_a_log_in_chunks_lets_expect_come(
    learned_in_chunks: tuple[DropoutNet, ChunkedLog], first: int
) -> None:
    calibrated, _ = expected_over_true(learned_in_chunks[0], *popular_if_good(600, 7, 4, 120), first)
    assert calibrated == pytest.approx(1, abs=0.08)


@pytest.mark.learning
def test_of_a_log_of_well_known_items_less_is_expected_of_others() -> None:
    """As on MovieLens: the log has the popular items alone, which are better than the new ones."""
    counts, quality = popular_if_good(480, 1, 10, 120)
    known = np.array(counts) > 30
    learner = DropoutNet(SCHEMA, **SETTINGS).learn(world(np.array(counts)[known].tolist(), quality[known], seed=1)[0])
    others = np.array(counts)[~known].tolist(), quality[~known]
    for first in (0, 8):
        calibrated, plain = expected_over_true(learner, *others, first)
        assert plain > 1.2
        assert abs(calibrated - 1) < abs(plain - 1) / 2


def test_calibrating_changes_no_weight(learned: DropoutNet) -> None:
    table = world(*popular_if_good(240, 1, 4, 120), seed=1)[0]
    plain = DropoutNet(SCHEMA, **SETTINGS, calibrate=False).learn(table)
    assert plain.fitted_calibration == Calibration()
    assert learned.entries[0].tensors.keys() == plain.entries[0].tensors.keys()
    for key, value in learned.entries[0].tensors.items():
        assert value.equal(plain.entries[0].tensors[key]), key


def test_it_is_saved_and_an_interrupted_learner_is_without(learned: DropoutNet, tmp_path: Path) -> None:
    learned.save(tmp_path / "model")
    loaded = DropoutNet.load(tmp_path / "model")
    assert loaded.fitted_calibration == learned.fitted_calibration != Calibration()
    loaded._reset()
    assert loaded.fitted_calibration == Calibration()


def worse(items: int, seed: int) -> tuple[list[int], Floats]:
    """Numbers of events and qualities of items that are clicked less than those of `learned`."""
    quality = np.random.default_rng(seed).normal(0, 0.8, items)
    return [20] * items, quality - quality.mean() - 1


@pytest.mark.parametrize("first", [0, 8])
def test_what_new_items_show_corrects_what_is_expected_of_later_ones(learned: DropoutNet, first: int) -> None:
    """They are clicked less than those of training: more clicks were expected than come, and then as many as come."""
    before, _ = expected_over_true(learned, *worse(600, 7), first)
    model = copied(learned).calibrate(world(*worse(300, 9), seed=9)[0])
    now, _ = expected_over_true(model, *worse(600, 7), first)
    assert before > 1.15
    assert now == pytest.approx(1, abs=0.06)


def test_a_calibration_is_a_stage_that_changes_no_state_and_can_be_taken_back(
    learned: DropoutNet, tmp_path: Path
) -> None:
    learned.save(tmp_path / "model")
    model = DropoutNet.load(tmp_path / "model")
    model.calibrate(world(*worse(100, 9), seed=9)[0]).save(tmp_path / "model")
    loaded = DropoutNet.load(tmp_path / "model")
    assert loaded.fitted_calibration == model.fitted_calibration != learned.fitted_calibration
    assert loaded.known == learned.known
    for key, value in learned.state.items():
        assert value.equal(loaded.state[key]), key
    assert DropoutNet.load(tmp_path / "model", stages=1).fitted_calibration == learned.fitted_calibration
    loaded.add(pl.DataFrame({"item": ["later"], "kind": ["kind 1"]})).save(tmp_path / "model")
    again = DropoutNet.load(tmp_path / "model")
    assert again.fitted_calibration == model.fitted_calibration
    assert "later" in again.known


def test_items_of_training_say_nothing_and_of_many_new_ones_the_latest_count(
    learned: DropoutNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, _ = world(*worse(150, 9), seed=9)
    old = world(*popular_if_good(240, 1, 4, 120), seed=1)[0].with_columns(clicked=0)
    mixed = copied(learned).calibrate(pl.concat([old, table], how="vertical_relaxed"))
    assert mixed.fitted_calibration == copied(learned).calibrate(table).fitted_calibration
    order = table.group_by("item").agg(pl.col("time").min()).sort("time")["item"].to_list()
    monkeypatch.setattr("newcomer.items.training.calibration.NEWEST_ITEMS", 60)
    latest = copied(learned).calibrate(table.filter(pl.col("item").is_in(order[-60:])))
    assert latest.fitted_calibration == copied(learned).calibrate(table).fitted_calibration != mixed.fitted_calibration


def test_too_few_new_items_or_labels_are_refused_and_change_nothing(learned: DropoutNet) -> None:
    table, _ = world(*worse(150, 9), seed=9)
    few = table.filter(pl.col("item").is_in(table["item"].unique(maintain_order=True)[:49].implode()))
    for wrong, said in (
        (few, "49 items without training"),
        (table.with_columns(clicked=0), "0 clicks"),
        (world(*popular_if_good(240, 1, 4, 120), seed=1)[0], "0 items without training"),
    ):
        model = copied(learned)
        with pytest.raises(LearnerError, match=said):
            model.calibrate(wrong)
        assert model.fitted_calibration == learned.fitted_calibration
        assert len(model.entries) == 1


def test_what_is_too_late_in_an_items_life_or_without_its_fields_is_refused(learned: DropoutNet) -> None:
    rows = [
        {"item": f"late {n}", "user": k % 50, "kind": "kind 1", "clicked": int(k >= 210), "time": k}
        for n in range(60)
        for k in range(230)
    ]
    model, table = copied(learned), world(*worse(150, 9), seed=9)[0]
    with pytest.raises(LearnerError, match="60 items without training with 0 clicks and 12,000 other events"):
        model.calibrate(pl.DataFrame(rows))
    with pytest.raises(DataError, match="no item field 'kind'"):
        model.calibrate(log_from_frame(table, SCHEMA, items=False))
    assert len(model.entries) == 1


def test_a_calibrated_copy_in_the_same_database_hides_no_items_and_no_warm_up(
    learned: DropoutNet, tmp_path: Path
) -> None:
    """Both have the same states: a calibration is no stage of these."""
    states, shop, other = f"sqlite:///{tmp_path / 'items.db'}", tmp_path / "shop", tmp_path / "calibrated"
    learned.save(shop)
    copied(learned).calibrate(world(*worse(100, 9), seed=9)[0]).save(other)
    for folder in (shop, other):
        with ItemService.open(folder, states) as service:
            assert len(service.headers()) == len(learned.known)
    DropoutNet.load(other).warm(world([9], np.zeros(1), seed=1)[0]).save(other)
    with ItemService.open(other, states) as service, pytest.raises(StoreError, match="made without this database"):
        service.headers()
    model = DropoutNet.load(shop).add(pl.DataFrame({"item": ["later"], "kind": ["kind 1"]}))
    model.save(shop)
    with ItemService.open(shop, states) as service:
        assert "later" in service.headers()


def test_an_earlier_calibration_is_the_prior_and_its_change_fades_where_nothing_is_seen() -> None:
    assert fit_calibration([], CURVED) == CURVED
    chance, rows = np.random.default_rng(0), 40_000
    logit = chance.normal(0, 1.5, rows)
    true = Calibration(scale=(0.7,), offset=(-1.2,), upper_scale=(0.4,))(logit, np.zeros(rows))
    label = (chance.random(rows) < sigmoid(true)).astype(float)
    every = Outcomes(0, logit, label, np.arange(rows), np.ones(rows))
    found = fit_calibration([every], BENT)
    assert found.parameters(0) == pytest.approx((-1.2, 0.7, 0.4), abs=0.1)
    change = np.subtract(found.parameters(0), BENT.parameters(0))
    for count in (3, 20):  # where nothing is seen the change fades
        assert np.subtract(found.parameters(count), BENT.parameters(count)) == pytest.approx(change / (1 + count))
    few = Outcomes(0, logit[:3], label[:3], np.arange(3), np.ones(3))
    assert fit_calibration([few], BENT).parameters(0) == pytest.approx(BENT.parameters(0), abs=0.35)


def test_the_command_calibrates_a_store_and_says_what_changed(
    learned: DropoutNet, shell: Shell, tmp_path: Path
) -> None:
    learned.save(tmp_path / "shop")
    world(*worse(100, 9), seed=9)[0].write_parquet(tmp_path / "new.parquet")
    log, shop = str(tmp_path / "new.parquet"), str(tmp_path / "shop")
    code, out, err = shell.call("calibrate", shop, log)
    assert (code, err) == (0, "")
    right = copied(learned).calibrate(world(*worse(100, 9), seed=9)[0])
    assert DropoutNet.load(shop).fitted_calibration == right.fitted_calibration
    before, now = (sigmoid(one.calibration([0.0], [0]))[0] for one in (learned, right))
    assert f"{before:.3f}" in out
    assert f"{now:.3f}" in out
    world([9] * 20, np.zeros(20), seed=9)[0].write_parquet(tmp_path / "few.parquet")
    code, _, err = shell.call("calibrate", shop, str(tmp_path / "few.parquet"))
    assert code == 2
    assert "20 items without training" in err
    assert len(DropoutNet.load(shop).entries) == 2


def as_before(folder: Path, to: Path) -> Path:
    """The store as a library without calibration would have written it."""
    manifest, (entry,) = Store(folder).manifest(), Store(folder).entries()
    settings = {k: v for k, v in manifest.settings.items() if k not in ("calibrate", "negative_rate")}
    info = {k: v for k, v in entry.info.items() if k != "calibration"}
    Store(to).write(replace(manifest, settings=settings, stages=()), [replace(entry, info=info)])
    return to


def test_an_older_store_answers_as_it_did_and_grows(tmp_path: Path) -> None:
    new = trained_films(tmp_path / "new", calibrate=False)
    old = EmerG.load(as_before(new, tmp_path / "old"))
    assert old.fitted_calibration == Calibration()
    old.add(features("a new one")).save(tmp_path / "old")
    asked = requests("a new one")
    assert np.array_equal(
        EmerG.load(tmp_path / "old").score(asked), EmerG.load(new).add(features("a new one")).score(asked)
    )


def test_a_store_whose_calibration_is_none_is_refused(tmp_path: Path) -> None:
    folder = trained_films(tmp_path / "model")
    manifest, (entry,) = Store(folder).manifest(), Store(folder).entries()
    info = {**entry.info, "calibration": {"events": [0], "scale": [-1.0], "offset": [0.0]}}
    Store(tmp_path / "bad").write(replace(manifest, stages=()), [replace(entry, info=info)])
    with pytest.raises(StoreError, match="does not hold what its learner needs"):
        EmerG.load(tmp_path / "bad")


def test_the_service_gives_the_probabilities_of_the_learner(tmp_path: Path) -> None:
    with ItemService.open(trained_films(tmp_path / "model")) as service:
        service.add(features("a new one"))
        asked = requests("a new one", "film 0")
        plain = service.score(asked, uncertainty=True)
        service.learner.fitted_calibration = CURVED
        service.learner.probabilities = Probabilities(negative_rate=0.5)
        found = service.score(asked, uncertainty=True)
        learner = service.to_learner()
        assert found["score"].to_numpy() == pytest.approx(learner.score(asked), abs=1e-6)
    assert found["logit"][0] == pytest.approx(0.5 * plain["logit"][0] - 0.6 + math.log(0.5))
    assert found["logit_std"][0] == pytest.approx(0.5 * plain["logit_std"][0])
    assert found["score"].to_numpy() == pytest.approx(sigmoid(found["logit"].to_numpy()))


def test_a_warm_up_says_how_many_clicks_had_been_expected(tmp_path: Path) -> None:
    """Each event once, by the score that it would have had before it counted."""
    with ItemService.open(trained_films(tmp_path / "model")) as service:
        service.add(features("a new one"))
        first, later = events("a new one", 3), events("a new one", 8)
        cold = service.score(first)["score"].sum()
        assert service.warm(first).calibration == {"0": {"rows": 3.0, "expected": pytest.approx(cold), "clicks": 1.0}}
        warm = service.score(later.tail(5))["score"].sum()
        found = service.warm(later).calibration
        assert found == {"1-4": {"rows": 5.0, "expected": pytest.approx(warm), "clicks": 3.0}}
        assert service.warm(later).calibration == {}


@given(st.floats(0.01, 1), st.floats(-2, 2), st.floats(0.2, 2))
def test_logistic_regression_on_kept_negatives_recovers_the_intercept(rate: float, offset: float, scale: float) -> None:
    """In closed form: with every possible row weighted by its probability, the subsample's logits are higher by −log rate."""
    logit = np.tile(np.linspace(-2, 2, 9), 2)
    label = np.repeat([1.0, 0.0], 9)
    p = sigmoid(scale * logit + offset)
    weight = 1e9 * np.where(label == 1, p, rate * (1 - p))
    sampled, lower, upper = fit_beta(logit, label, weight)
    full = Calibration((0,), (lower,), (sampled,), (upper,), shift=math.log(rate))
    assert full(logit, np.zeros(18)) == pytest.approx(scale * logit + offset, abs=1e-4)


def test_probabilities_of_a_log_without_most_negatives_are_those_of_the_full_stream() -> None:
    """Every tenth non-click was kept: odds are a tenth, and each non-click that was kept stands for ten."""
    table = world([30] * 20, np.zeros(20), seed=3)[0]
    plain = EmerG(SCHEMA, **NETWORK).learn(table)
    model = EmerG(SCHEMA, **NETWORK, negative_rate=0.1).learn(table)
    assert np.log(odds(model.score(table))) == pytest.approx(np.log(odds(plain.score(table))) + math.log(0.1))
    found = model.evaluate(log_from_frame(table, SCHEMA))
    weight = np.where(table["clicked"], 1, 10)
    expected = (weight * model.score(table)).sum()
    assert found["calibration"] == pytest.approx(expected / table["clicked"].sum())
    assert 0.7 < found["calibration"] < 1.6  # at a rate of 1 it would be about 0.5
    assert found["auc"] == plain.evaluate(log_from_frame(table, SCHEMA))["auc"]


@pytest.mark.parametrize("rate", [0.0, 1.5, -1.0, 1e-300, 9e-7])  # 1e-300 made every score 0
def test_a_share_of_negatives_is_a_millionth_at_least_and_1_at_most(rate: float) -> None:
    with pytest.raises(SettingError, match="negative_rate"):
        EmerG(SCHEMA, negative_rate=rate)


def odds(p: Floats) -> Floats:
    return p / (1 - p)


def test_versions_are_compared_as_on_the_full_stream() -> None:
    """With a tenth of the non-clicks: the weighted log loss is that of the log with each non-click ten times."""
    label, live, new = [1.0, 0.0, 0.0], [0.3, 0.1, 0.2], [0.2, 0.05, 0.1]
    ten = [0] + [1] * 10 + [2] * 10
    sampled = compare(pl.Series(label), pl.Series(live), pl.Series(new), 0.1)
    full = compare(pl.Series(label)[ten], pl.Series(live)[ten], pl.Series(new)[ten])
    for name in ("live", "new"):
        assert sampled[name]["logloss"] == pytest.approx(full[name]["logloss"])
        assert sampled[name]["auc"] == full[name]["auc"]
