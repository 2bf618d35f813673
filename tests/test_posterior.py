"""The posterior of an item: its variance is that of the written-out matrix, never smaller; its intervals cover what they say."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from newcomer.data.datasets.simulated_clicks import PROBABILITY, simulate_click_log
from newcomer.items import lifecycle
from newcomer.items.adaptation.rules import flatten_state, unflatten_state
from newcomer.items.calibration import Calibration
from newcomer.items.encoding.encoder import Clicks
from newcomer.items.learner import ItemLearner
from newcomer.items.lifecycle import Lifecycle, updated
from newcomer.items.methods.cvar import CVAR
from newcomer.items.methods.emerg import EmerG
from newcomer.items.methods.id_tuning import IdTuning
from newcomer.items.methods.mwuf import MWUF
from newcomer.items.networks.item_network import State
from newcomer.items.serving.service import ItemService
from newcomer.metrics.calibration import posterior_temperature
from newcomer.nn.optim.laplace_posterior import RANK, logit_std, posterior_factor
from newcomer.shapes import Tensor
from shell import Shell

OLD, NEW, EVENTS = 200, 150, 80
LOG = simulate_click_log(old_items=OLD, old_events=100, new_items=NEW, new_events=EVENTS, seed=5, planted=False)
MAP: dict[str, Any] = {"adaptation": "map", "warmup_events": "all", "hidden": [16], "width": 8, "meta_epochs": 2}
KINDS: dict[str, tuple[type[ItemLearner], dict[str, Any]]] = {
    "emerg": (EmerG, {"width": 8}),
    "deepfm": (IdTuning, MAP | {"pretrain_epochs": 6}),
    "mwuf": (MWUF, MAP | {"pretrain_epochs": 2}),
    "cvar": (CVAR, MAP | {"pretrain_epochs": 2}),
    "adam": (IdTuning, {"width": 8, "hidden": [16], "pretrain_epochs": 1, "warmup_events": "all"}),
}


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("stores")
    for name, (kind, settings) in KINDS.items():
        kind(LOG.schema, device="cpu", **settings).learn(LOG.of_items(np.arange(OLD))).save(root / name)
    return {name: root / name for name in KINDS}


def learner_of(stores: dict[str, Path], name: str) -> ItemLearner:
    return KINDS[name][0].load(stores[name])


# The formula.


def problem(rows: int, numbers: int, rank: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    chance = torch.Generator().manual_seed(seed)
    scaled = torch.randn(2, rows, numbers, generator=chance, dtype=torch.float64)
    logits = 2 * torch.randn(2, rows, generator=chance, dtype=torch.float64)
    real = (torch.rand(2, rows, generator=chance) > 0.3).double()
    return scaled, logits, real, torch.randn(2, rank, numbers, generator=chance, dtype=torch.float64)


def covariance(scaled: Tensor, logits: Tensor, real: Tensor, root: Tensor) -> Tensor:
    """(JᵀWJ + AᵀA + I)⁻¹, as it is written."""
    p = torch.sigmoid(logits)
    weighted = scaled * (p * (1 - p) * real)[..., None]
    one = torch.eye(scaled.shape[2], dtype=scaled.dtype)
    found: Tensor = torch.linalg.inv(one + scaled.mT @ weighted + root.mT @ root)
    return found


@pytest.mark.parametrize(("rows", "numbers", "rank"), [(1, 5, 0), (4, 9, 2), (30, 9, 9), (30, 40, 5)])
def test_the_variance_is_that_of_the_matrix_and_never_smaller(rows: int, numbers: int, rank: int) -> None:
    given = problem(rows, numbers, rank)
    factor, exact = posterior_factor(*given), covariance(*given)
    for item in range(2):
        asked = torch.randn(50, numbers, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        std = logit_std(asked, factor[item].expand(50, -1, -1))
        true = (asked @ exact[item] * asked).sum(dim=1).sqrt()
        assert (std >= true * (1 - 1e-9)).all()
        assert (std <= asked.norm(dim=1) * (1 + 1e-9)).all()
        if min(rows + rank, numbers) <= RANK:
            torch.testing.assert_close(std, true)


def test_rows_that_are_not_finite_spoil_their_own_item_alone() -> None:
    scaled, logits, real, root = problem(3, 5, 0)
    scaled[1, 0, 0], real = torch.inf, 1 + 0 * real
    factor = posterior_factor(scaled, logits, real, root)
    assert factor.isfinite().flatten(1).all(dim=1).tolist() == [True, False]
    assert logit_std(scaled[:, 1], factor).isnan().tolist() == [False, True]


# Intervals.


def new_items(learner: ItemLearner) -> tuple[Lifecycle, list[Tensor], State, Clicks]:
    items = LOG.items.take(np.arange(OLD, OLD + NEW))
    item_features = learner.encoder.items(items)
    log = LOG.of_items(np.arange(OLD, OLD + NEW))
    clicks = learner.encoder.clicks(log, log.item.astype(np.int64) - OLD).by_row()
    life = learner.lifecycle
    return life, item_features, life.initial_state(item_features, NEW), clicks


def warmed(life: Lifecycle, item_features: list[Tensor], initial: State, events: Clicks) -> tuple[State, Tensor]:
    """States after these events, and the factors of their posteriors."""
    state, factors = initial, dict[int, Tensor]()
    window, summaries = life.absorb(initial, item_features, events, {})
    for items, new in life.warm_up(initial, initial, item_features, window, summaries=summaries):
        state = updated(state, items, new)
        factors |= life.posterior(items, new, item_features, window, summaries)
    return state, torch.nn.utils.rnn.pad_sequence([factors[n] for n in range(NEW)], batch_first=True)


@pytest.mark.parametrize("name", ["deepfm", "emerg"])
@pytest.mark.parametrize("count", [3, 20, 60])
def test_intervals_cover_the_truth_where_the_prior_and_the_network_are_true(
    name: str, count: int, stores: dict[str, Path]
) -> None:
    """Items are drawn from the prior, and their clicks from the network: 90 % intervals cover 90 % of the logits."""
    life, item_features, initial, clicks = new_items(learner_of(stores, name))
    fixed, tunable = life.network.split_state(initial)
    scales = {key: value[None].detach() for key, value in life.network.positive_scales().items()}
    chance = torch.Generator().manual_seed(count)
    flat = flatten_state(tunable)
    drawn = flat + torch.randn(flat.shape, generator=chance) * flatten_state(scales)
    truth = {**fixed, **unflatten_state(drawn, tunable)}
    probability = torch.from_numpy(life.predict(truth, item_features, clicks))
    clicks = replace(clicks, label=torch.bernoulli(probability, generator=chance).float())
    rows = torch.argsort(clicks.item, stable=True).view(NEW, EVENTS)
    events, asked = clicks.by_row(rows[:, :count].flatten()), clicks.by_row(rows[:, 60:].flatten())
    state, factors = warmed(life, item_features, initial, events)
    logits, stds = life.predict_with_std(state, item_features, asked, factors)
    true = probability[rows[:, 60:].flatten()].numpy()
    covered = np.abs(np.log(true / (1 - true)) - logits) < 1.645 * stds
    assert 0.84 < covered.mean() < 0.96


@pytest.mark.parametrize("name", ["deepfm", "emerg"])
@pytest.mark.parametrize("count", [1, 5, 20])
def test_intervals_cover_the_truth_of_the_simulated_world(name: str, count: int, stores: dict[str, Path]) -> None:
    """90 % intervals cover about 83 %; with a temperature fitted to the clicks on half of the items, 95 % of the other half."""
    life, item_features, initial, clicks = new_items(learner_of(stores, name))
    truth = LOG.of_items(np.arange(OLD, OLD + NEW)).context[PROBABILITY].values
    rows = torch.argsort(clicks.item, stable=True).view(NEW, EVENTS)
    state, factors = warmed(life, item_features, initial, clicks.by_row(rows[:, :count].flatten()))
    rows = rows[:, 40:].flatten()
    asked, true = clicks.by_row(rows), truth[rows.numpy()]
    logits, stds = life.predict_with_std(state, item_features, asked, factors)
    item, label = asked.item.numpy(), asked.label.numpy()
    fitted = item < NEW // 2
    temperature = posterior_temperature(item[fitted], label[fitted], logits[fitted], stds[fitted])
    errors = np.abs(np.log(true / (1 - true)) - logits)[~fitted] / stds[~fitted]
    assert 0.7 < temperature < 1.8
    assert 0.75 < (errors < 1.645).mean() < 0.95
    assert 0.8 < (errors < 1.645 * temperature).mean() < 0.99


# In service.


def table(items: list[int], count: int) -> pl.DataFrame:
    """The first events of these new items, as a user's table."""
    log = LOG.of_items(np.array(items) + OLD)
    rank = np.array([np.sum(log.item[:row] == log.item[row]) for row in range(len(log))])
    log = log.take(rank < count)
    users = {
        name: np.array(column.texts(), dtype=object)[log.user].tolist() for name, column in log.users.columns.items()
    }
    context = {name: column.texts() for name, column in log.context.items() if column.names}
    ids = {"item": [log.items.ids[n] for n in log.item], "user": [log.users.ids[n] for n in log.user]}
    return pl.DataFrame({**ids, **users, **context, "label": log.label.astype(int).tolist(), "time": log.time.tolist()})


def service(stores: dict[str, Path], name: str, folder: Path) -> ItemService:
    found = ItemService.open(stores[name], f"sqlite:///{folder / f'{name}.db'}")
    new = LOG.items.take(np.arange(OLD, OLD + NEW))
    found.add(pl.DataFrame({"item": new.ids, **{key: new.columns[key].texts() for key in ("kind", "brand")}}))
    return found


@pytest.mark.parametrize("name", ["emerg", "deepfm", "mwuf"])
def test_a_service_says_how_far_a_logit_is_known(name: str, stores: dict[str, Path], tmp_path: Path) -> None:
    live, asked = service(stores, name, tmp_path), table([0, 1, 2], 20).drop("label", "time")
    cold = live.score(asked, uncertainty=True)
    assert cold["logit_std"].is_not_null().all()
    plain = live.score(asked)
    assert plain["logit_std"].is_null().all()
    np.testing.assert_allclose(cold["score"], plain["score"], atol=1e-6)
    np.testing.assert_allclose(1 / (1 + np.exp(-plain["logit"].to_numpy())), plain["score"], atol=1e-12)
    fitted = live.learner.fitted_calibration  # its slope may grow with the events
    live.learner.fitted_calibration = Calibration()
    stds = [live.score(asked, uncertainty=True)["logit_std"].to_numpy().mean()]
    for count in (1, 10, 60):
        live.warm(table([0, 1, 2], count))
        stds.append(live.score(asked, uncertainty=True)["logit_std"].to_numpy().mean())
    live.learner.fitted_calibration = fitted
    assert stds == sorted(stds, reverse=True)
    assert stds[-1] < 0.7 * stds[0]
    other = ItemService.open(stores[name], live.states.where)  # from what is stored
    assert other.score(asked, uncertainty=True).equals(live.score(asked, uncertainty=True))
    untouched = table([5], 3).drop("label", "time")
    assert live.score(untouched, uncertainty=True)["events"].to_list() == [0, 0, 0]


def test_with_a_summary_a_logit_is_known_as_well_as_from_all_events(
    stores: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live, events = service(stores, "emerg", tmp_path), table([0], EVENTS)
    asked = events.drop("label", "time")
    live.warm(events)
    monkeypatch.setattr(lifecycle, "WINDOW", 40)
    monkeypatch.setattr(lifecycle, "BLOCK", 20)
    (tmp_path / "other").mkdir()
    other = service(stores, "emerg", tmp_path / "other")
    other.warm(events)
    exact, summarized = (one.score(asked, uncertainty=True) for one in (live, other))
    np.testing.assert_allclose(summarized["logit_std"], exact["logit_std"], rtol=0.05)
    np.testing.assert_allclose(summarized["logit"], exact["logit"], atol=0.1)
    assert not np.allclose(summarized["logit"], exact["logit"], atol=1e-6)  # there was a summary


@pytest.mark.parametrize("name", ["adam", "cvar"])
def test_where_a_state_is_no_map_estimate_there_is_no_std(name: str, stores: dict[str, Path], tmp_path: Path) -> None:
    live = service(stores, name, tmp_path)
    live.warm(table([0], 5))
    answers = live.score(table([0, 1], 3).drop("label", "time"), uncertainty=True)
    assert answers["logit_std"].is_null().all()
    assert answers["score"].is_not_null().all()


def test_a_trained_item_has_no_std_until_its_events_come(stores: dict[str, Path], tmp_path: Path) -> None:
    live = service(stores, "emerg", tmp_path)
    request = table([0], 1).drop("label", "time").with_columns(item=pl.lit("i0003"))
    assert live.score(request, uncertainty=True)["logit_std"].to_list() == [None]
    live.warm(table([0], 1).with_columns(item=pl.lit("i0003")))
    assert live.score(request, uncertainty=True)["logit_std"].is_not_null().all()


def test_the_command_says_it_on_request(stores: dict[str, Path], shell: Shell) -> None:
    store = str(stores["deepfm"])
    states = f"sqlite:///{shell.folder / 'other.db'}"
    new = LOG.items.take(np.arange(OLD, OLD + 1))
    pl.DataFrame({"item": new.ids, **{key: new.columns[key].texts() for key in ("kind", "brand")}}).write_csv(
        shell.folder / "new.csv"
    )
    table([0], 2).drop("label", "time").write_ndjson(shell.folder / "asked.jsonl")
    assert shell.call("add", store, "new.csv", "--states", states)[0] == 0
    code, out, _ = shell.call("score", store, "asked.jsonl", "--states", states, "--uncertainty")
    assert code == 0
    assert all(json.loads(line)["logit_std"] > 0 for line in out.splitlines())
    plain = shell.call("score", store, "asked.jsonl", "--states", states)[1]
    assert all(json.loads(line)["logit_std"] is None for line in plain.splitlines())


def test_where_single_precision_does_not_converge_double_does(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    scaled, logits, real = torch.randn(3, 9, 4), torch.randn(3, 9), torch.ones(3, 9)
    wanted, eigh = posterior_factor(scaled, logits, real, scaled[:, :0]), torch.linalg.eigh

    def failing(matrix: torch.Tensor) -> Any:
        if matrix.dtype == torch.float32 and (len(matrix) > 1 or torch.equal(matrix, second)):
            raise torch.linalg.LinAlgError("did not converge")  # type: ignore[attr-defined]
        return eigh(matrix)

    rows = (torch.sigmoid(logits) * (1 - torch.sigmoid(logits))).sqrt()[1:2, :, None] * scaled[1:2]
    second = rows.mT @ rows
    monkeypatch.setattr(torch.linalg, "eigh", failing)
    found = posterior_factor(scaled, logits, real, scaled[:, :0])
    torch.testing.assert_close(found.mT @ found, wanted.mT @ wanted)  # a direction has two signs
