"""An item's state after any number of events: the same however they come, near the exact estimate, better with more events."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load, save

from covering import combinations
from newcomer.data.click_log import ClickLog
from newcomer.data.datasets.simulated_clicks import simulate_click_log
from newcomer.data.io.log_tables import entity_frame
from newcomer.errors import DataError
from newcomer.items import lifecycle
from newcomer.items.adaptation import rules
from newcomer.items.adaptation.item_summary import Summaries
from newcomer.items.adaptation.rules import AdamAdaptation, flatten_state
from newcomer.items.encoding.encoder import Clicks, concat_clicks
from newcomer.items.inference import adapt
from newcomer.items.learner import ItemLearner
from newcomer.items.lifecycle import BLOCK, WINDOW, updated
from newcomer.items.methods.emerg import EmerG
from newcomer.items.methods.id_tuning import IdTuning
from newcomer.items.methods.mwuf import MWUF
from newcomer.items.networks.item_network import State
from newcomer.items.serving import past_events, warm_up
from newcomer.items.serving.service import ItemService
from newcomer.nn.optim.gaussian_summary import MAX_RANK, GaussianSummary
from newcomer.nn.optim.map_logistic import map_estimate
from newcomer.shapes import Tensor
from newcomer.store.states import KEPT, Change
from newcomer.streams.cold_start import events_before

OLD, NEW, EVENTS = 60, 4, 1200
SAME = 2e-5
"""Rounding: distance of two states of the same events, in stds of the prior."""
ANY_ORDER = 0.01
"""Root mean square distance of logits, where order or summaries differ (measured: 0.002); warm-ups move them by 0.2 to 0.4."""

SHARE_OF_STD = 0.3
"""Distance of an estimate in blocks from the exact one, in stds of the posterior."""

LOG = simulate_click_log(old_items=OLD, old_events=80, new_items=NEW, new_events=EVENTS, seed=3)
KINDS: dict[str, type[ItemLearner]] = {"emerg": EmerG, "deepfm": IdTuning, "mwuf": MWUF}
MAP: dict[str, Any] = {"adaptation": "map", "warmup_events": "all"}
SHORT: dict[str, Any] = {"width": 8, "pretrain_epochs": 3, "meta_epochs": 1, "device": "cpu"}


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("stores")
    for name, kind in KINDS.items():
        settings = SHORT if name == "emerg" else SHORT | MAP | {"hidden": [16]}
        kind(LOG.schema, **settings).learn(LOG.of_items(np.arange(OLD))).save(root / name)
    return {name: root / name for name in KINDS}


class Life:
    """New items of a learner, their events in order of time, and what warm-ups make of them."""

    def __init__(self, learner: ItemLearner) -> None:
        self.learner, self.lifecycle = learner, learner.lifecycle
        items = LOG.items.take(np.arange(OLD, OLD + NEW))
        self.item_features = [values.to(learner.device) for values in learner.encoder.items(items)]
        self.initial = self.lifecycle.initial_state(self.item_features, NEW)
        log = LOG.of_items(np.arange(OLD, OLD + NEW))
        clicks = learner.encoder.clicks(log, log.item.astype(np.int64) - OLD).by_row()
        order = torch.argsort(clicks.item, stable=True).view(NEW, EVENTS)
        self.events, self.later = (clicks.by_row(rows.flatten()) for rows in (order[:, :1000], order[:, 1000:]))
        scales = learner.network.positive_scales()
        self.prior_std = flatten_state({key: value[None].detach() for key, value in scales.items()})[0]

    def first(self, count: int) -> Clicks:
        return self.events.by_row(torch.arange(len(self.events)).view(NEW, -1)[:, :count].flatten())

    def after(self, parts: Sequence[Clicks]) -> State:
        """The states after warm-ups by these parts, each with the events that stayed in the window and their summaries."""
        state, past = self.initial, None
        summaries: Summaries = {}
        for part in parts:
            events = part if past is None else concat_clicks([past, part])
            past, summaries = self.lifecycle.absorb(self.initial, self.item_features, events, summaries)
            for items, new in self.lifecycle.warm_up(
                state, self.initial, self.item_features, past, summaries=summaries
            ):
                state = updated(state, items, new)
        return state

    def exact(self, events: Clicks) -> State:
        """The MAP estimate from all of these events one by one."""
        state = self.initial
        for items, new in adapt(
            self.learner.network, self.initial, self.item_features, events, self.learner.adaptation
        ):
            state = updated(state, items, new)
        return state

    def distance(self, one: State, other: State) -> float:
        """Largest, in stds of the prior."""
        moves = [flatten_state(self.learner.network.split_state(state)[1]) for state in (one, other)]
        return float(((moves[0] - moves[1]) / self.prior_std).abs().max())

    def logit_distance(self, one: State, other: State) -> float:
        """Root mean square over later events."""
        scores = [self.lifecycle.predict(state, self.item_features, self.later) for state in (one, other)]
        logits = [np.log(score / (1 - score)) for score in scores]
        return float(np.sqrt(np.mean((logits[0] - logits[1]) ** 2)))


@pytest.fixture(params=KINDS)
def life(request: pytest.FixtureRequest, stores: dict[str, Path]) -> Life:
    return Life(KINDS[request.param].load(stores[request.param]))


def cut(events: Clicks, calls: int) -> list[Clicks]:
    """The same events in so many calls of uneven size, each with events of some items; none changes the order within an item."""
    by_age = torch.arange(len(events)).view(NEW, -1).T.flatten()
    ends = torch.randperm(len(events) - 1, generator=torch.Generator().manual_seed(calls))[: calls - 1].sort().values
    return [events.by_row(rows) for rows in torch.tensor_split(by_age, ends + 1)]


@pytest.mark.parametrize(("life", "cuts"), combinations([*KINDS], [(1000, 6), (600, 100)]), indirect=["life"])
def test_one_call_and_many_give_the_same_state(life: Life, cuts: tuple[int, int]) -> None:
    count, calls = cuts
    events = life.first(count)
    assert life.distance(life.after([events]), life.after(cut(events, calls))) < SAME


def test_any_order_gives_nearly_the_same_state(life: Life) -> None:
    events = life.first(1000)
    shuffled = events.by_row(torch.randperm(len(events), generator=torch.Generator().manual_seed(1)))
    assert life.logit_distance(life.after([events]), life.after([shuffled])) < ANY_ORDER
    few = life.first(WINDOW)
    shuffled = few.by_row(torch.randperm(len(few), generator=torch.Generator().manual_seed(1)))
    assert life.distance(life.after([few]), life.after([shuffled])) < 1e-3


@pytest.mark.parametrize(("life", "count"), combinations([*KINDS], [1000, 300, 600]), indirect=["life"])
def test_the_state_is_near_the_exact_estimate_and_the_window_alone_is_not(life: Life, count: int) -> None:
    events = life.first(count)
    exact, last = life.exact(events), torch.arange(len(events)).view(NEW, -1)[:, -WINDOW:].flatten()
    near = life.logit_distance(life.after([events]), exact)
    assert near < ANY_ORDER
    assert near < life.logit_distance(life.exact(events.by_row(last)), exact) / 2
    assert life.logit_distance(life.initial, exact) > 5 * near


def test_up_to_the_window_nothing_is_summarized(life: Life) -> None:
    events = life.first(WINDOW)
    kept, summaries = life.lifecycle.absorb(life.initial, life.item_features, events, {})
    assert kept is events
    assert not summaries
    one, other = life.after([events]), life.exact(events)
    assert all(one[key].equal(other[key]) for key in one)


def test_memory_is_bounded(life: Life) -> None:
    kept, summaries = life.lifecycle.absorb(life.initial, life.item_features, life.first(1000), {})
    numbers = len(life.prior_std)
    assert torch.bincount(kept.item).tolist() == [WINDOW] * NEW
    assert [summary.window for summary in summaries.values()] == [WINDOW] * NEW
    assert all(len(summary.root) <= min(MAX_RANK, numbers) for summary in summaries.values())


@pytest.mark.parametrize("changes", [{"warmup_events": "new"}, {"adaptation": AdamAdaptation(0.01, 2, 0.01, 2)}])
def test_without_past_events_or_without_a_prior_nothing_is_summarized(
    changes: dict[str, Any], stores: dict[str, Path]
) -> None:
    life = Life(IdTuning.load(stores["deepfm"]))
    lifecycle = replace(life.lifecycle, **changes)
    kept, summaries = lifecycle.absorb(life.initial, life.item_features, life.first(1000), {})
    assert len(kept) == NEW * 1000
    assert not summaries


# The estimate itself, where the truth is known.


def logistic_items(count: int, items: int = 40, numbers: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    """Slopes and labels of simulated items, and their true parameters, drawn from the prior."""
    chance = torch.Generator().manual_seed(count)
    truth = torch.randn(items, numbers, generator=chance, dtype=torch.float64)
    slopes = torch.randn(items, count, numbers, generator=chance, dtype=torch.float64)
    return slopes, torch.bernoulli(torch.sigmoid((slopes @ truth[..., None])[..., 0]), generator=chance), truth


def estimate(slopes: Tensor, labels: Tensor, summary: GaussianSummary | None = None) -> Tensor:
    one = torch.ones(slopes.shape[2], dtype=slopes.dtype)
    return map_estimate(0 * labels, slopes, labels, 1 + 0 * labels, one, 10, summary)


def estimate_in_blocks(slopes: Tensor, labels: Tensor) -> Tensor:
    """What `Lifecycle` does, for a model that is linear in its parameters."""
    summary = GaussianSummary.empty(len(slopes), slopes[:, 0])
    while labels.shape[1] > WINDOW:
        delta, block = estimate(slopes[:, :WINDOW], labels[:, :WINDOW], summary), slopes[:, :BLOCK]
        summary = summary.with_rows(
            block, (block @ delta[..., None])[..., 0], labels[:, :BLOCK], torch.ones_like(labels[:, :BLOCK]), delta
        )
        slopes, labels = slopes[:, BLOCK:], labels[:, BLOCK:]
    return estimate(slopes, labels, summary)


def test_the_error_falls_like_one_over_the_root_of_the_number_of_events() -> None:
    counts, errors = np.array([100, 300, 1000, 3000]), []
    for count in counts:
        slopes, labels, truth = logistic_items(int(count))
        errors.append(float((estimate_in_blocks(slopes, labels) - truth).square().mean().sqrt()))
    slope = np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert -0.6 < slope < -0.4


def test_the_estimate_of_a_linear_model_is_the_exact_one_within_a_share_of_its_std() -> None:
    slopes, labels, _ = logistic_items(1500)
    exact = estimate(slopes, labels)
    p = torch.sigmoid((slopes @ exact[..., None])[..., 0])
    precision = torch.eye(6, dtype=torch.float64) + slopes.mT @ ((p * (1 - p))[..., None] * slopes)
    move = (estimate_in_blocks(slopes, labels) - exact)[..., None]
    in_stds = (move.mT @ precision @ move)[:, 0, 0].div(6).sqrt()
    assert in_stds.max() < SHARE_OF_STD


def test_an_event_without_curvature_keeps_its_gradient_and_no_direction_loses_it() -> None:
    far = torch.tensor([[[40.0, 0.0], [1e-4, 1e-4]]], dtype=torch.float64)
    delta, clicked = torch.tensor([[1.0, 0.0]], dtype=torch.float64), torch.zeros(1, 2, dtype=torch.float64)
    summary = GaussianSummary.empty(1, delta).with_rows(far, far[..., 0], clicked, torch.ones_like(clicked), delta)
    p = torch.sigmoid(far[..., 0])
    at_delta = summary.linear - (summary.precision @ delta[..., None])[..., 0]
    torch.testing.assert_close(at_delta, (far.mT @ (clicked - p)[..., None])[..., 0], atol=1e-3, rtol=1e-4)
    assert summary.root.shape[1] == 0  # nothing here has curvature
    assert summary.linear[0, 0] < -39


def test_rows_that_are_not_finite_spoil_their_own_item_alone() -> None:
    rows = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    rows[1, 0, 0] = torch.nan
    none = 0 * rows[..., 1]
    summary = GaussianSummary.empty(2, rows[:, 0]).with_rows(rows, 0 * rows[..., 0], none, none + 1, 0 * rows[:, 0])
    assert summary.linear.isfinite().all(dim=1).tolist() == [True, False]
    assert summary.mode().isfinite().all(dim=1).tolist() == [True, False]


# The same in service.


def table(count: int, item: int) -> pl.DataFrame:
    """The first events of a new item as a user's table."""
    log = LOG.of_items(np.array([OLD + item]))
    return frame(log.take(np.arange(count)))


def frame(log: ClickLog) -> pl.DataFrame:
    columns = {name: column.texts() for name, column in log.context.items() if column.names}
    users = {
        name: np.array(column.texts(), dtype=object)[log.user].tolist() for name, column in log.users.columns.items()
    }
    ids = {"item": [log.items.ids[n] for n in log.item], "user": [log.users.ids[n] for n in log.user]}
    label = log.label.astype(int).tolist()
    return pl.DataFrame({**ids, **users, **columns, "label": label, "time": log.time.tolist()})


def service(stores: dict[str, Path], name: str, folder: Path, url: str) -> ItemService:
    found = ItemService.open(stores[name], f"sqlite:///{folder / url}")
    new = LOG.items.take(np.arange(OLD, OLD + NEW))
    found.add(pl.DataFrame({"item": new.ids, **{key: new.columns[key].texts() for key in ("kind", "brand")}}))
    return found


@pytest.fixture(params=["emerg", "mwuf"])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_service_has_one_state_however_events_are_divided(name: str, stores: dict[str, Path], tmp_path: Path) -> None:
    one, often = (service(stores, name, tmp_path, url) for url in ("one.db", "often.db"))
    learner = KINDS[name].load(stores[name])
    learner.add(LOG.items.take(np.arange(OLD, OLD + NEW)))
    events = table(650, 0)
    one.warm(events.sample(fraction=1, shuffle=True, seed=1))  # rows are sorted by time within a call
    for begin in range(0, 650, 65):
        often.warm(events[begin : begin + 65])
    learner.warm(events)
    item = f"i{OLD:04d}"
    (row, state), (other_row, other) = one.look_up(item), often.look_up(item)
    mine = learner.state["id"][learner.known[item]]
    assert row.events == other_row.events == 650
    for key, value in state.items():
        torch.testing.assert_close(value, other[key], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(state["id"][0], mine, atol=1e-5, rtol=1e-5)
    again = ItemService.open(stores[name], f"sqlite:///{tmp_path / 'one.db'}")  # what is stored is all there is
    again.warm(table(700, 0))
    one.warm(table(700, 0))
    assert again.look_up(item)[1]["id"].equal(one.look_up(item)[1]["id"])


def test_items_that_are_warmed_up_in_parts_have_the_same_states_and_less_in_memory(
    stores: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the past events no more are read together than the limit and one item have; so long histories cost no more memory."""
    found, most = [], 4 * KEPT
    for name, limit in (("at once", warm_up.READ_TOGETHER), ("in parts", 2 * KEPT)):
        monkeypatch.setattr(warm_up, "READ_TOGETHER", limit)
        with ItemService.open(stores["emerg"], f"sqlite:///{tmp_path / name}.db") as service:
            service.add(entity_frame(LOG.items.take(np.arange(OLD, OLD + NEW)), LOG.schema.item, LOG.schema.of("item")))
            sizes, read = list[int](), service.states.event_history

            def noted(model: str, items: Collection[str], read: Any = read, sizes: list[int] = sizes) -> Any:
                history = read(model, items)
                sizes.append(sum(map(len, history.values())))
                return history

            monkeypatch.setattr(service.states, "event_history", noted)
            rows = LOG.of_items(np.arange(OLD, OLD + NEW))
            done = [
                service.warm(part, on_error="report")
                for part in (rows.take(rows.time < np.median(rows.time)), rows, rows)
            ]
            assert sum(one.new for one in done) == NEW * EVENTS
            assert done[2].known == NEW * EVENTS
            found.append([state for _, state in map(service.look_up, (LOG.items.ids[OLD + n] for n in range(NEW)))])
            assert max(sizes) == (most if name == "at once" else most // 2)
    for one, other in zip(*found, strict=True):
        for key, value in one.items():
            torch.testing.assert_close(value, other[key], atol=SAME, rtol=0)


def test_an_unknown_item_is_an_error_before_any_part_is_done(
    stores: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warm_up, "READ_TOGETHER", 10)
    rows = LOG.of_items(np.arange(OLD, OLD + NEW))
    rows = rows.take(events_before(rows) < 20)
    with ItemService.open(stores["emerg"], f"sqlite:///{tmp_path / 'items'}.db") as service:
        known = np.arange(OLD, OLD + NEW - 1)
        service.add(entity_frame(LOG.items.take(known), LOG.schema.item, LOG.schema.of("item")))
        with pytest.raises(DataError, match="is not known; add it first"):
            service.warm(rows)
        assert all(service.headers()[LOG.items.ids[item]].events == 0 for item in known)
        assert service.warm(rows, on_error="report").new == 20 * len(known)
        with pytest.raises(DataError, match="is not known; add it first"):
            service.warm(LOG.of_items(np.arange(OLD, OLD + NEW)))
        assert all(service.headers()[LOG.items.ids[item]].events == 20 for item in known)


def test_a_learner_that_is_saved_hands_its_summaries_to_a_service(stores: dict[str, Path], tmp_path: Path) -> None:
    learner = EmerG.load(stores["emerg"])
    learner.add(LOG.items.take(np.arange(OLD, OLD + NEW))).warm(table(450, 0))
    learner.save(tmp_path / "warmed")
    live, whole = ItemService.open(tmp_path / "warmed"), service(stores, "emerg", tmp_path, "whole.db")
    live.warm(table(500, 0)[450:])
    whole.warm(table(500, 0))
    item = f"i{OLD:04d}"
    torch.testing.assert_close(live.look_up(item)[1]["id"], whole.look_up(item)[1]["id"], atol=1e-5, rtol=1e-5)


def test_a_row_from_before_summaries_goes_on_from_the_events_that_are_kept(
    stores: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An item of 350 events without a summary: the last 200 count from then on."""
    live, fresh = (service(stores, "emerg", tmp_path, url) for url in ("old.db", "fresh.db"))
    with monkeypatch.context() as before:
        before.setattr(lifecycle, "WINDOW", 10**6)
        before.setattr(past_events, "KEPT", 10**6)
        for begin in range(0, 350, 50):
            live.warm(table(350, 0)[begin : begin + 50])
    live.warm(table(360, 0))
    fresh.warm(table(360, 0)[350 - KEPT :])
    item = f"i{OLD:04d}"
    assert live.look_up(item)[0].events == 360
    torch.testing.assert_close(live.look_up(item)[1]["id"], fresh.look_up(item)[1]["id"], atol=1e-5, rtol=1e-5)


def test_a_summary_that_would_be_no_number_is_not_written(
    stores: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live, item = service(stores, "emerg", tmp_path, "broken.db"), f"i{OLD:04d}"
    live.warm(table(150, 0))
    before = live.look_up(item)[0]
    with monkeypatch.context() as broken:
        broken.setattr(rules, "map_estimate", lambda logits, jacobian, *_: jacobian[:, 0] * torch.nan)
        done = live.warm(table(350, 0), on_error="report")
    assert (done.new, done.items) == (0, [])
    assert done.left_out == [f"item '{item}': by these events its state would become no number; it stays as it was"]
    assert live.look_up(item)[0] == before
    assert live.warm(table(350, 0)).new == 200


def test_repair_uses_the_summary_and_says_where_it_is_lost(stores: dict[str, Path], tmp_path: Path) -> None:
    live, item = service(stores, "emerg", tmp_path, "repaired.db"), f"i{OLD:04d}"
    live.warm(table(600, 0))

    def spoil(*parts: str) -> None:
        row, _ = live.look_up(item)
        tensors = load(row.parameters)
        spoiled = {k: v * torch.nan if any(part in k for part in parts) else v for k, v in tensors.items()}
        live.states.commit(live.model, [Change(replace(row, version=row.version + 1, parameters=save(spoiled)), [])])

    before = live.look_up(item)[1]["id"].clone()
    spoil("state.id")
    done = live.repair()
    assert (done.items, done.left_out) == ([item], [])
    torch.testing.assert_close(live.look_up(item)[1]["id"], before, atol=1e-5, rtol=1e-5)
    spoil("summary.linear")
    done = live.repair()
    assert done.items == [item]
    assert done.left_out == [
        f"item '{item}': its summary is no number and is deleted; it is recomputed from its last 200 events alone"
    ]
    assert live.look_up(item)[0].events == 600
    assert live.warm(table(601, 0)).new == 1
    assert live.repair().items == []


def test_an_item_of_many_events_keeps_what_they_said_when_its_features_change(
    name: str, stores: dict[str, Path], tmp_path: Path
) -> None:
    """The summary stands for the same likelihood: with the old features again, the item has its old state again."""
    live, item = service(stores, name, tmp_path, "changed.db"), f"i{OLD:04d}"
    live.warm(table(650, 0))
    right = service(stores, name, tmp_path, "right.db")
    columns = {key: LOG.items.columns[key].texts() for key in ("kind", "brand")}
    old = {"item": [item], **{key: [values[OLD]] for key, values in columns.items()}}
    new = {
        "item": [item],
        **{key: [next(one for one in values if one != values[OLD])] for key, values in columns.items()},
    }
    for added in (right.add(pl.DataFrame(new), replace=True), live.add(pl.DataFrame(new), replace=True)):
        assert (added.replaced, added.lost) == ([item], {})
    right.warm(table(650, 0))
    assert logit_distance(live, right) < 0.1  # the oldest 450 events count as they were under the old features
    before = service(stores, name, tmp_path, "before.db")
    before.warm(table(650, 0))
    live.add(pl.DataFrame(old), replace=True)
    assert distance(live, before) < 1e-3
    assert live.look_up(item)[0].events == 650


# Corrections.


def corrected_and_right(
    stores: dict[str, Path], name: str, folder: Path, count: int, late: Sequence[int], step: int = 50
) -> tuple[ItemService, ItemService, pl.DataFrame]:
    """A service that met the clicks of these rows as no clicks first, one that met them as clicks, and the events."""
    rows = pl.int_range(count, eager=True)
    right = table(count, 0).with_columns(event_id=rows.cast(pl.String))
    right = right.with_columns(label=pl.when(rows.is_in(late)).then(1).otherwise(pl.col("label")))
    wrong = right.with_columns(label=pl.when(rows.is_in(late)).then(0).otherwise(pl.col("label")))
    one, other = (service(stores, name, folder, f"{which}.db") for which in ("corrected", "right"))
    for begin in range(0, count, step):
        one.warm(wrong[begin : begin + step])
        other.warm(right[begin : begin + step])
    return one, other, right


def distance(one: ItemService, other: ItemService, item: str = f"i{OLD:04d}") -> float:
    """Largest, in stds of the prior, of the states of an item."""
    scales = one.learner.network.positive_scales()
    scale = flatten_state({key: value[None].detach() for key, value in scales.items()})[0]
    states = [flatten_state(live.learner.network.split_state(live.look_up(item)[1])[1]) for live in (one, other)]
    return float(((states[0] - states[1]) / scale).abs().max())


def logit_distance(one: ItemService, other: ItemService) -> float:
    """Root mean square over an item's later events."""
    later = table(EVENTS, 0)[1000:]
    logits = [live.score(later)["logit"].to_numpy() for live in (one, other)]
    return float(np.sqrt(np.mean((logits[0] - logits[1]) ** 2)))


def test_a_corrected_label_gives_the_state_of_one_that_was_right_from_the_start(
    name: str, stores: dict[str, Path], tmp_path: Path
) -> None:
    late = range(3, 180, 7)
    one, other, right = corrected_and_right(stores, name, tmp_path, 180, late)
    assert distance(one, other) > 0.1
    for part in (right[late], right):  # the clicks alone, and with everything once more
        done = one.warm(part.sample(fraction=1, shuffle=True, seed=1))
        assert (done.new, done.left_out) == (0, [])
    assert distance(one, other) < 1e-3  # tests of any order have the same tolerance
    (row, _), (other_row, _) = (live.look_up(f"i{OLD:04d}") for live in (one, other))
    assert row.events == other_row.events == 180
    one.warm(table(650, 0)[180:])
    other.warm(table(650, 0)[180:])
    assert distance(one, other) < SAME


@pytest.mark.parametrize(
    ("late", "tolerance"), [(range(470, 520), ANY_ORDER), (range(0, 250, 25), ANY_ORDER), (range(1, 400, 5), 0.1)]
)
def test_a_corrected_label_beyond_the_window_gives_nearly_the_same_state(
    late: range, tolerance: float, name: str, stores: dict[str, Path], tmp_path: Path
) -> None:
    one, other, right = corrected_and_right(stores, name, tmp_path, 520, late)
    before = logit_distance(one, other)
    done = one.warm(right[late])
    assert (done.new, done.known, done.left_out) == (0, len(late) - done.corrected, [])
    after = logit_distance(one, other)
    assert after < tolerance
    assert after < before / 5  # measured: a twelfth of what the labels move
    assert one.warm(right[late]).known == len(late)
