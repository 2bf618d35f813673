"""Adaptations: each equals a plain slow form, and none depends on how events are batched."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from newcomer.data.click_log import ClickLog
from newcomer.data.datasets.simulated_clicks import simulate_click_log
from newcomer.errors import SettingError
from newcomer.items.adaptation import rules as module
from newcomer.items.adaptation.rules import (
    AdamAdaptation,
    Adaptation,
    EventLikelihood,
    LearnedSGD,
    MAPAdaptation,
    build_adaptation,
    flatten_state,
    unflatten_state,
)
from newcomer.items.encoding.encoder import Clicks
from newcomer.items.methods.emerg import EmerG
from newcomer.items.methods.id_tuning import IdTuning
from newcomer.items.networks.emerg_network import EmerGNetwork
from newcomer.items.networks.item_network import ItemNetwork, State
from newcomer.items.networks.tower_network import TowerConfig, TowerNetwork
from newcomer.items.padding import PaddedBatch
from newcomer.nn.ctr.field_embeddings import CategoricalSize, FieldSize, NumericSize
from newcomer.shapes import Tensor
from newcomer.streams.cold_start import ColdStart, OldItems
from newcomer.streams.stage import Stage

ITEM_FIELDS: list[FieldSize] = [CategoricalSize(5)]
ROW_FIELDS: list[FieldSize] = [CategoricalSize(6), CategoricalSize(4), NumericSize()]
RULES: dict[str, Adaptation] = {
    "map": MAPAdaptation(initial_scale=0.7, linearizations=3),
    "learned_sgd": LearnedSGD(initial_scale=0.2, steps=3),
    "adam": AdamAdaptation(rate=0.05, steps=4, inner_lr=0.1, inner_steps=2),
}


def emerg() -> ItemNetwork:
    return EmerGNetwork(
        ITEM_FIELDS,
        ROW_FIELDS,
        width=3,
        layers=2,
        init_std=0.5,
        graph="generated",
        has_shared_graph=False,
        attention=False,
        tower=[4],
        generate_init=True,
    )


def deepfm() -> ItemNetwork:
    return TowerNetwork(ITEM_FIELDS, ROW_FIELDS, TowerConfig(width=3, hidden=(4,), init_std=0.5), generate_init=True)


@pytest.fixture(params=[emerg, deepfm], ids=["emerg", "deepfm"])
def network(request: pytest.FixtureRequest) -> ItemNetwork:
    """In float64, with weights that are nowhere zero."""
    return built(request.param)


def built(make: Callable[[], ItemNetwork]) -> ItemNetwork:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = make().double()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
    return network.requires_grad_(False)


@pytest.fixture(params=RULES)
def rule(request: pytest.FixtureRequest) -> Adaptation:
    return RULES[request.param]


def happened(network: ItemNetwork, counts: list[int], seed: int = 0) -> tuple[EventLikelihood, State]:
    """So many events of each item, those of all mixed, and where the items begin."""
    chance = torch.Generator().manual_seed(seed)
    total, items = sum(counts), len(counts)

    def sample(below: int, size: int) -> Tensor:
        return torch.randint(below, (size,), generator=chance)

    of_rows = [sample(6, total), sample(4, total), torch.randn(total, generator=chance, dtype=torch.float64)]
    own, place = [sample(5, items)], torch.randperm(total, generator=chance)
    item = torch.arange(items).repeat_interleave(torch.tensor(counts))
    clicks = Clicks(item, sample(2, total).double(), torch.arange(total), [], of_rows)
    step = torch.arange(max(counts))
    real = step < torch.tensor(counts)[:, None]
    starts = torch.tensor(counts).cumsum(0) - torch.tensor(counts)
    rows = torch.where(real, starts[:, None] + step, 0)
    clicks = replace(clicks, label=clicks.label[place])
    return EventLikelihood(network, own, clicks, PaddedBatch(torch.arange(items), rows, real)), network.initial_state(
        own, items
    )


def learned(network: ItemNetwork, rule: Adaptation) -> ItemNetwork:
    """The same network with a scale of its own for every number of a state."""
    other = copy.deepcopy(network)
    if rule.initial_scale is not None:
        chance = torch.Generator().manual_seed(1)
        other.add_scales(rule.initial_scale)
        for scale in other.scales.values():
            scale.data = scale.data.double() + 0.3 * torch.randn(scale.shape, generator=chance, dtype=torch.float64)
    return other.requires_grad_(False)


def one_item(events: EventLikelihood, item: int) -> EventLikelihood:
    count = int(events.batch.real[item].sum())
    rows = events.batch.rows[item : item + 1, :count]
    return replace(events, batch=PaddedBatch(torch.tensor([item]), rows, torch.ones_like(rows, dtype=torch.bool)))


def equal(one: State, other: State, tolerance: float = 1e-9) -> None:
    assert one.keys() == other.keys()
    for key, value in one.items():
        torch.testing.assert_close(value, other[key], atol=tolerance, rtol=tolerance)


def test_flat_and_unflat_are_each_others_way_back(network: ItemNetwork) -> None:
    _, state = happened(network, [1, 1, 1])
    numbers = flatten_state(state)
    assert numbers.shape == (3, sum(value[0].numel() for value in state.values()))
    equal(unflatten_state(numbers, state), state, tolerance=0)


def test_slopes_are_the_gradients_of_rows_taken_one_by_one(network: ItemNetwork) -> None:
    events, state = happened(network, [4, 1, 3])
    logits, jacobian = events.jacobian(state)
    for item in range(3):
        for row in range(int(events.batch.real[item].sum())):
            mine = {key: value[item : item + 1].clone().requires_grad_() for key, value in state.items()}
            alone = PaddedBatch(torch.tensor([item]), events.batch.rows[item, row].view(1, 1), torch.ones(1, 1).bool())
            (logit,) = events.logits(mine, alone).flatten()
            gradients = torch.autograd.grad(logit, list(mine.values()))
            torch.testing.assert_close(logits[item, row], logit.detach())
            torch.testing.assert_close(jacobian[item, row], flatten_state(dict(zip(mine, gradients, strict=True)))[0])


def test_slopes_are_what_a_small_move_of_the_state_does(network: ItemNetwork) -> None:
    events, state = happened(network, [5, 5])
    logits, jacobian = events.jacobian(state)
    move = 1e-6 * torch.randn(
        flatten_state(state).shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64
    )
    moved = events.logits(unflatten_state(flatten_state(state) + move, state))
    torch.testing.assert_close(moved - logits, (jacobian @ move[..., None])[..., 0], atol=1e-9, rtol=1e-4)


def bisected(logit: float, label: float, reach: float) -> float:
    """The x that solves x = reach · (y − σ(z + x)): the left side rises, the right side falls."""
    low, high = -reach, reach
    for _ in range(200):
        x = (low + high) / 2
        pull = reach * (label - float(torch.sigmoid(torch.tensor(logit + x, dtype=torch.float64))))
        low, high = (x, high) if x < pull else (low, x)
    return (low + high) / 2


def test_after_one_event_the_map_estimate_equals_bisection_along_one_direction(network: ItemNetwork) -> None:
    """δ = s² J (y − σ(z + x)) with x = J δ, the one number that is not known."""
    rule = MAPAdaptation(initial_scale=0.4, linearizations=1)
    network = learned(network, rule)
    events, state = happened(network, [1, 1, 1, 1])
    logits, jacobian = events.jacobian(state)
    spread = flatten_state({key: value[None] for key, value in network.positive_scales().items()})[0]
    moved = flatten_state(rule.warm(events, state)) - flatten_state(state)
    for item in range(4):
        label, along = float(events.clicks.label[events.batch.rows[item, 0]]), spread**2 * jacobian[item, 0]
        x = bisected(float(logits[item, 0]), label, float(jacobian[item, 0] @ along))
        pull = label - torch.sigmoid(logits[item, 0] + x)
        torch.testing.assert_close(moved[item], along * pull, atol=1e-9, rtol=1e-6)


def posterior_slope(events: EventLikelihood, begin: State, now: State) -> Tensor:
    """The gradient of − log posterior at this state, in units of the prior's std."""
    spread = flatten_state({key: value[None] for key, value in events.network.positive_scales().items()})[0]
    at = flatten_state(now).requires_grad_()
    loss = functional.binary_cross_entropy_with_logits(
        events.logits(unflatten_state(at, begin)), events.clicks.label[events.batch.rows], reduction="none"
    )
    total = (loss * events.batch.real).sum() + ((at - flatten_state(begin)) ** 2 / (2 * spread**2)).sum()
    (slope,) = torch.autograd.grad(total, at)
    return slope * spread


def test_many_linearizations_converge_to_the_mode_of_the_exact_posterior(network: ItemNetwork) -> None:
    """Until there, two of them leave a small part of the slope at the beginning."""
    rule = MAPAdaptation(initial_scale=0.1, linearizations=40)
    network = learned(network, rule)
    events, state = happened(network, [6, 2])
    before = posterior_slope(events, state, state)
    after = posterior_slope(events, state, rule.warm(events, state))
    two = posterior_slope(events, state, MAPAdaptation(0.1, linearizations=2).warm(events, state))
    assert after.abs().max() < 1e-6 * before.abs().max()
    assert two.norm() < 0.1 * before.norm()


@pytest.mark.parametrize("places", [1, 3, 4, 10])
def test_rows_in_parts_are_rows_at_once(
    network: ItemNetwork, rule: Adaptation, places: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    events, state = happened(learned(network, rule), [7, 1, 5])
    at_once = rule.warm(events, state), rule.inner_update(events, state, second_order=False)
    monkeypatch.setattr(module, "ROWS_TOGETHER", places)
    assert len(list(events.losses(state))) == -(-7 // max(1, places // 3))
    equal(rule.warm(events, state), at_once[0])
    equal(rule.inner_update(events, state, second_order=False), at_once[1])


def test_a_loss_in_parts_is_the_mean_over_rows(network: ItemNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    events, state = happened(network, [7, 1, 5])
    monkeypatch.setattr(module, "ROWS_TOGETHER", 4)
    for item in range(3):
        mine = one_item(events, item)
        logits = mine.logits({key: value[item : item + 1] for key, value in state.items()})
        loss = functional.binary_cross_entropy_with_logits(logits, events.clicks.label[mine.batch.rows])
        torch.testing.assert_close(events.loss(state)[item], loss)


def test_items_together_are_items_alone(network: ItemNetwork, rule: Adaptation) -> None:
    events, state = happened(learned(network, rule), [7, 1, 5])
    together = rule.warm(events, state)
    for item in range(3):
        mine = {key: value[item : item + 1] for key, value in state.items()}
        equal(rule.warm(one_item(events, item), mine), {key: value[item : item + 1] for key, value in together.items()})


def test_no_adaptation_depends_on_the_order_of_events(network: ItemNetwork, rule: Adaptation) -> None:
    events, state = happened(learned(network, rule), [6, 6])
    mixed = torch.randperm(6, generator=torch.Generator().manual_seed(3))
    other = replace(events, batch=replace(events.batch, rows=events.batch.rows[:, mixed]))
    equal(rule.warm(other, state), rule.warm(events, state))


def test_doubling_all_events_widens_the_prior_of_map_and_changes_no_mean_rule(
    network: ItemNetwork, rule: Adaptation
) -> None:
    network = learned(network, rule)
    events, state = happened(network, [5, 5])
    once = rule.warm(events, state)
    rows, real = (torch.cat([part, part], dim=1) for part in (events.batch.rows, events.batch.real))
    twice = replace(events, batch=replace(events.batch, rows=rows, real=real))
    if isinstance(rule, MAPAdaptation):
        assert all((rule.warm(twice, state)[key] != value).any() for key, value in once.items())
        for scale in network.scales.values():
            scale.data -= 0.5 * np.log(2)
    equal(rule.warm(twice, state), once)


def test_a_learning_rate_of_0_is_no_step_and_a_small_one_follows_the_gradient(network: ItemNetwork) -> None:
    rule = LearnedSGD(initial_scale=1e-6, steps=1)
    network = copy.deepcopy(network)
    network.add_scales(1e-6)
    network = network.double().requires_grad_(False)
    events, state = happened(network, [4, 2])
    at = {key: value.clone().requires_grad_() for key, value in state.items()}
    gradients = torch.autograd.grad(events.loss(at).sum(), list(at.values()))
    moved = rule.warm(events, state)
    for (key, value), gradient in zip(state.items(), gradients, strict=True):
        torch.testing.assert_close((value - moved[key]) / 1e-6, gradient, atol=1e-8, rtol=1e-5)
    for scale in network.scales.values():
        scale.fill_(-300.0)
    equal(rule.warm(events, state), state, tolerance=0)
    equal(LearnedSGD(initial_scale=1.0, steps=0).warm(events, state), state, tolerance=0)


def test_a_prior_of_width_0_keeps_every_initial_state(network: ItemNetwork) -> None:
    rule = MAPAdaptation(initial_scale=1.0, linearizations=2)
    network = learned(network, rule)
    events, state = happened(network, [4, 2])
    for scale in network.scales.values():
        scale.fill_(-300.0)
    equal(rule.warm(events, state), state, tolerance=0)


def test_events_that_are_learned_from_are_explained_better(network: ItemNetwork, rule: Adaptation) -> None:
    events, state = happened(learned(network, rule), [9, 3, 1])
    assert (events.loss(rule.warm(events, state)) < events.loss(state)).all()
    assert (events.loss(rule.inner_update(events, state, second_order=False)) < events.loss(state)).all()


@pytest.mark.parametrize("label", [0.0, 1.0])
@pytest.mark.parametrize("count", [1, 5000])
def test_identical_events_give_finite_states(network: ItemNetwork, rule: Adaptation, label: float, count: int) -> None:
    network = learned(network, rule).float()
    events, state = happened(network.double(), [count, 1])
    network.float()
    numbers = [values.float() if values.is_floating_point() else values for values in events.clicks.of_rows]
    clicks = replace(events.clicks, label=torch.full((count + 1,), label), of_rows=numbers)
    events, state = replace(events, clicks=clicks), {key: value.float() for key, value in state.items()}
    after = rule.warm(events, state)
    assert all(value.isfinite().all() for value in after.values())
    assert all((value != state[key]).any() for key, value in after.items())


def test_what_is_learned_in_service_needs_no_gradient_afterwards(network: ItemNetwork, rule: Adaptation) -> None:
    network = learned(network, rule).requires_grad_(True)
    events, state = happened(network, [3, 2])
    after = rule.warm(events, {key: value.detach() for key, value in state.items()})
    assert not any(value.requires_grad for value in after.values())


@pytest.mark.parametrize("name", ["map", "learned_sgd"])
@pytest.mark.parametrize("second_order", [False, True])
def test_gradients_of_the_scales_equal_central_differences(network: ItemNetwork, name: str, second_order: bool) -> None:
    """By central differences of the loss after the rule, scale by scale."""
    rule = RULES[name]
    network = learned(network, rule)
    for scale in network.scales.values():
        scale.requires_grad_(True)
    events, state = happened(network, [4, 3])
    state = {key: value.clone().requires_grad_() for key, value in state.items()}

    def after() -> Tensor:
        return events.loss(rule.inner_update(events, state, second_order)).sum()

    scales = list(network.scales.values())
    gradients = torch.autograd.grad(after(), scales)
    if isinstance(rule, LearnedSGD) and not second_order:
        rule = LearnedSGD(rule.initial_scale, steps=1)  # of several steps only the last has its whole gradient
        gradients = torch.autograd.grad(after(), scales)
    for scale, gradient in zip(scales, gradients, strict=True):
        for at in range(0, scale.numel(), 3):
            found = []
            for step in (1e-5, -2e-5):
                scale.data.view(-1)[at] += step
                found.append(after().item())
            scale.data.view(-1)[at] += 1e-5
            assert gradient.view(-1)[at].item() == pytest.approx((found[0] - found[1]) / 2e-5, abs=1e-7, rel=1e-4)


def test_a_rule_takes_the_settings_that_are_its_own() -> None:
    settings = {
        "prior_std": 0.1,
        "linearizations": 2,
        "inner_lr": 0.2,
        "inner_steps": 3,
        "warmup_lr": 0.4,
        "warmup_steps": 5,
    }
    assert build_adaptation("map", **settings) == MAPAdaptation(0.1, 2)  # type: ignore[arg-type]
    assert build_adaptation("learned_sgd", **settings) == LearnedSGD(0.2, 3)  # type: ignore[arg-type]
    assert build_adaptation("adam", **settings) == AdamAdaptation(0.4, 5, 0.2, 3)  # type: ignore[arg-type]
    with pytest.raises(SettingError, match="adaptation"):
        EmerG(simulate_click_log(old_items=1, new_items=1).schema, adaptation="newton")


SHORT: dict[str, Any] = {"width": 4, "pretrain_epochs": 2, "batch_size": 64, "meta_epochs": 2, "pretrain_lr": 1e-2}
LEARNERS: dict[str, Any] = {
    "emerg": (EmerG, SHORT | {"tower": [8], "prior_std": 0.6, "linearizations": 3}),
    "deepfm": (IdTuning, SHORT | {"hidden": [8], "adaptation": "map", "warmup_events": "all", "generate_init": True}),
}


@pytest.fixture(scope="module")
def stream() -> ColdStart:
    log = simulate_click_log(old_items=12, old_events=60, new_items=5, new_events=36, users=20, kinds=4, brands=3)
    return ColdStart(log, min_old_events=40, phase_events=6)


@pytest.fixture(scope="module", params=LEARNERS)
def ready(request: pytest.FixtureRequest, stream: ColdStart) -> Any:
    """A learner that knows old items, and new ones without an event."""
    kind, settings = LEARNERS[request.param]
    learner = kind(stream.schema, **settings).learn(stream.old_log)
    return learner.add(stream.new.items)


def warmed(ready: Any, *parts: ClickLog) -> dict[str, Tensor]:
    learner = copy.deepcopy(ready)
    for part in parts:
        learner.warm(part)
    found: dict[str, Tensor] = learner.state
    return found


def new_events(stream: ColdStart) -> ClickLog:
    return stream.new.query.take(np.arange(len(stream.new.query)))


@settings(max_examples=8, deadline=None)
@given(cuts=st.lists(st.integers(0, 10**6), max_size=3), seed=st.integers(0, 99))
def test_how_events_were_cut_into_phases_is_forgotten(
    ready: Any, stream: ColdStart, cuts: list[int], seed: int
) -> None:
    """With all events in memory: in any order, of the clock's too, and in any parts."""
    log = new_events(stream)
    log = log.take(np.random.default_rng(seed).permutation(len(log))[:60])
    ends = sorted({cut % len(log) for cut in cuts} - {0})
    parts = [log.take(part) for part in np.split(np.arange(len(log)), ends)]
    once = warmed(ready, log)
    for key, value in warmed(ready, *parts).items():
        torch.testing.assert_close(value, once[key], atol=2e-5, rtol=1e-4)


def test_a_clock_that_runs_backwards_changes_nothing(ready: Any, stream: ColdStart) -> None:
    forwards = warmed(ready, *stream.new.phases)
    backwards = warmed(ready, *reversed(stream.new.phases))
    for key, value in forwards.items():
        torch.testing.assert_close(value, backwards[key], atol=2e-5, rtol=1e-4)
        assert (value != ready.state[key]).any()


def test_an_event_that_comes_twice_counts_twice(ready: Any, stream: ColdStart) -> None:
    event = stream.new.phases[0].take(np.array([0]))
    twice = warmed(ready, event, event)
    equal(twice, warmed(ready, event.take(np.array([0, 0]))), tolerance=2e-5)
    item = ready.known[event.items.ids[event.item[0]]]
    once = warmed(ready, event)
    moves = [(states["bias"][item] - ready.state["bias"][item]).item() for states in (once, twice)]
    assert abs(moves[1]) > abs(moves[0]) > 0
    assert (moves[0] > 0) == (event.label[0] == 1)


@pytest.mark.parametrize("label", [0.0, 1.0])
@pytest.mark.parametrize("count", [1, 500])
def test_an_item_that_all_like_is_scored_higher_and_one_that_none_likes_lower(
    ready: Any, stream: ColdStart, label: float, count: int
) -> None:
    query = stream.new.query.of_items(stream.new.query.item[:1])
    events = query.take(np.arange(count) % len(query))
    learner, before = copy.deepcopy(ready), ready.score(query).mean()
    learner.warm(replace(events, label=np.full(count, label, dtype=np.float32)))
    after = learner.score(query)
    assert np.isfinite(after).all()
    assert (after.mean() > before) == (label == 1)


def test_scales_are_learned_and_stay_positive_however_fast(stream: ColdStart) -> None:
    for rule in ("map", "learned_sgd"):
        learner = EmerG(stream.schema, **SHORT | {"tower": [8], "adaptation": rule, "meta_lr": 1.0})
        list(learner.fit_stage(Stage("old", OldItems(stream.old_log), {})))
        for scale in learner.network.positive_scales().values():
            assert (scale > 0).all()
            assert scale.isfinite().all()
            assert (scale != scale.flatten()[0]).any() or scale.numel() == 1
