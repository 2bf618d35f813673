"""Formulas for one event equal autograd, and are used exactly where they hold."""

from collections.abc import Iterator
from itertools import product
from typing import Any, TypeVar, get_args

import pytest
import torch
from torch import nn

from covering import combinations
from newcomer.items import inference as warm
from newcomer.items.adaptation.rules import AdamAdaptation, Adaptation, EventLikelihood, LearnedSGD, MAPAdaptation
from newcomer.items.adaptation.single_event import logit_of_one
from newcomer.items.encoding.encoder import Clicks, Values
from newcomer.items.inference import adapt
from newcomer.items.networks.emerg_network import EmerGNetwork, Graph
from newcomer.items.networks.item_network import ItemNetwork, State
from newcomer.items.networks.tower_network import TowerConfig, TowerNetwork
from newcomer.items.padding import PaddedBatch, by_item
from newcomer.nn.ctr.feature_graph import higher_orders
from newcomer.nn.ctr.field_embeddings import CategoricalSize, FieldSize, NumericSize
from newcomer.nn.optim.analytic_gradients import HigherOrders
from newcomer.shapes import Tensor

ITEMS, ROWS, WIDTH = 4, 6, 4
ITEM_SIZES: list[FieldSize] = [CategoricalSize(5), CategoricalSize(6), NumericSize(), NumericSize(3)]
ROW_SIZES: list[FieldSize] = [CategoricalSize(7), CategoricalSize(6), NumericSize(), NumericSize(2)]
Network = TypeVar("Network", bound=ItemNetwork)
RULE = MAPAdaptation(initial_scale=1.0, linearizations=2)


def emerg(graph: str = "generated", layers: int = 2, **changes: Any) -> EmerGNetwork:
    settings: dict[str, Any] = {"attention": False, "tower": [6, 5], "generate_init": True, "init_std": 0.5}
    settings |= {"width": WIDTH, "layers": layers, "graph": graph, "has_shared_graph": False} | changes
    return EmerGNetwork(ITEM_SIZES, ROW_SIZES, **settings)


@pytest.fixture(autouse=True)
def same_weights_in_any_order_of_tests() -> None:
    torch.manual_seed(0)


def ready(network: Network, seed: int = 0) -> Network:
    """Weights and scales far from where they begin, so that every part tells."""
    chance = torch.Generator().manual_seed(seed)
    network.add_scales(0.7)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=chance))
    return network


OWN: Values = [
    torch.tensor([2, 1, 4, 0]),
    torch.tensor([[2, 3, 0], [4, 0, 0], [0, 0, 0], [1, 5, 2]]),
    torch.tensor([0.5, float("nan"), -1.0, 2.0]),
    torch.tensor([[1.0, 2.0, 3.0], [0.1, float("nan"), 0.0], [0.0, -1.0, 0.5], [2.0, 0.0, 1.0]]),
]
"""Values of every kind: unseen (1), none (0), several, a number and a vector that are not known."""

CLICKS = Clicks(
    item=torch.tensor([0, 1, 2, 3, 1, 0]),
    label=torch.tensor([0.0, 1.0, 1.0, 0.0, 0.0, 1.0]),
    user=torch.tensor([2, 0, 1, 1, 0, 2]),
    of_users=[torch.tensor([3, 1, 0]), torch.tensor([[0, 0], [2, 4], [1, 0]])],
    of_rows=[
        torch.tensor([0.2, float("nan"), 1.0, -3.0, 0.0, 2.0]),
        torch.tensor([[1.0, 2.0], [0.0, 1.0], [float("nan"), 1.0], [0.5, -0.5], [2.0, 2.0], [0.0, 0.0]]),
    ],
)


def row(number: int, label: float | None = None) -> Clicks:
    """One event: users' fields stay beside those of the others, as in a log."""
    at = slice(number, number + 1)
    labels = CLICKS.label[at] if label is None else torch.tensor([label])
    return Clicks(CLICKS.item[at], labels, CLICKS.user[at], CLICKS.of_users, [values[at] for values in CLICKS.of_rows])


def moved(network: ItemNetwork, seed: int = 1) -> State:
    """States some way from where they begin."""
    chance = torch.Generator().manual_seed(seed)
    begun = warm.initial_state(network, OWN, ITEMS)
    return {key: value + 0.3 * torch.randn(value.shape, generator=chance) for key, value in begun.items()}


def general(network: ItemNetwork, state: State, clicks: Clicks, rule: Adaptation = RULE) -> State:
    """The slow twin: a padded batch of one row, by autograd."""
    batch = PaddedBatch(clicks.item, torch.zeros(1, 1, dtype=torch.long), torch.ones(1, 1, dtype=torch.bool))
    return rule.warm(EventLikelihood(network, OWN, clicks, batch), warm.select(state, batch.items))


def refused(*_: object) -> None:
    raise AssertionError("the general way was asked")


def assert_twins(network: ItemNetwork, state: State, clicks: Clicks) -> float:
    """How far the state went, all of its parts at least."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(warm, "by_item", refused)
        ((item, found),) = adapt(network, state, OWN, clicks, RULE)
    assert item.tolist() == clicks.item.tolist()
    slow = general(network, state, clicks)
    assert found.keys() == slow.keys()
    for key, value in slow.items():
        torch.testing.assert_close(found[key], value, atol=1e-5, rtol=1e-5)
    return min(float((value - state[key][item]).abs().max()) for key, value in found.items())


SHAPES: list[tuple[int, list[int]]] = list(product([1, 2, 3], [[], [6], [6, 5]]))
"""Layers and tower."""


@pytest.mark.parametrize(("graph", "shape"), combinations(get_args(Graph), SHAPES))
def test_formulas_find_the_state_that_autograd_finds(graph: str, shape: tuple[int, list[int]]) -> None:
    layers, tower = shape
    network = ready(emerg(graph, layers, tower=tower))
    state = moved(network)
    for number in range(ROWS):
        far = [assert_twins(network, state, row(number, label)) for label in (0.0, 1.0)]
        assert max(far) > 1e-4  # one of both answers is a surprise


@pytest.mark.parametrize("hidden", [[], [6], [6, 5]], ids=str)
def test_so_they_do_for_a_tower_alone(hidden: list[int]) -> None:
    network = ready(
        TowerNetwork(
            ITEM_SIZES, ROW_SIZES, TowerConfig(width=WIDTH, hidden=tuple(hidden), init_std=0.5), generate_init=True
        )
    )
    for number in range(ROWS):
        assert_twins(network, moved(network), row(number))


def test_formulas_equal_autograd_at_the_initial_state_and_by_row() -> None:
    network = ready(emerg())
    for number in range(ROWS):
        assert_twins(network, warm.initial_state(network, OWN, ITEMS), row(number).by_row())


@pytest.mark.parametrize("graph", get_args(Graph))
def test_formulas_find_the_posterior_that_autograd_finds(graph: str) -> None:
    network = ready(emerg(graph))
    for number in range(ROWS):
        ((item, state),) = adapt(network, moved(network), OWN, row(number), RULE)
        found = []
        for fast in (True, False):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(warm, *(("by_item", refused) if fast else ("posterior_of_one", lambda *_: None)))
                ((of, factor),) = warm.posterior(network, item, state, OWN, row(number), {})
            assert of == int(item)
            found.append(factor.T @ factor)  # of a factor the sign is free
        torch.testing.assert_close(*found, atol=1e-5, rtol=1e-4)
        assert len(factor) == 1
        logit = logit_of_one(network, moved(network), OWN, row(number))
        assert logit == pytest.approx(warm.predict_logits(network, moved(network), OWN, row(number))[0], abs=1e-5)


def test_items_without_fields_have_formulas_too() -> None:
    settings: dict[str, Any] = {"layers": 2, "graph": "generated", "has_shared_graph": False, "attention": False}
    network = ready(EmerGNetwork([], ROW_SIZES, width=WIDTH, init_std=0.5, tower=[6], generate_init=True, **settings))
    state = warm.initial_state(network, [], ITEMS)
    ((_, found),) = adapt(network, state, [], row(1), RULE)
    ((_, slow),) = _by_autograd(network, state, [], row(1))
    for key, value in slow.items():
        torch.testing.assert_close(found[key], value, atol=1e-5, rtol=1e-5)


def _by_autograd(network: ItemNetwork, state: State, own: Values, clicks: Clicks) -> list[tuple[Tensor, State]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(warm, "map_estimate_of_one", lambda *_: None)
        return list(adapt(network, state, own, clicks, RULE))


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("fields", [2, 3, 9])
@pytest.mark.parametrize("ties", [False, True])
def test_orders_and_their_slopes_are_those_of_torch(fields: int, layers: int, ties: bool) -> None:
    """With ties among the least, the greatest and where the kept ones end: all share as they do there."""
    chance = torch.Generator().manual_seed(fields)
    for _ in range(5):
        sample = torch.randn(1, fields, fields, generator=chance)
        graph = (sample.round() if ties else sample).requires_grad_()
        by_graphs = torch.randn(1, layers, fields, fields, generator=chance)
        slow = higher_orders(graph, layers)
        fast = HigherOrders.of(graph[0].detach().numpy(), layers)
        torch.testing.assert_close(torch.from_numpy(fast.graphs), slow[0].detach())
        (gradient,) = torch.autograd.grad(slow, graph, by_graphs)
        found = torch.from_numpy(fast.backward(by_graphs[0].numpy()))
        torch.testing.assert_close(found, gradient[0], atol=1e-5, rtol=1e-4)


def test_a_graph_that_is_the_same_everywhere_has_the_slopes_of_torch() -> None:
    graph = torch.zeros(1, 4, 4, requires_grad=True)
    slow = higher_orders(graph, 2)
    (gradient,) = torch.autograd.grad(slow, graph, torch.ones_like(slow))
    fast = HigherOrders.of(graph[0].detach().numpy(), 2)
    torch.testing.assert_close(torch.from_numpy(fast.backward(fast.graphs * 0 + 1)), gradient[0])


def test_two_rows_other_rules_and_attention_go_the_general_way(monkeypatch: pytest.MonkeyPatch) -> None:
    linear, attending = ready(emerg()), ready(emerg(attention=True))
    two = Clicks(CLICKS.item[:2], CLICKS.label[:2], CLICKS.user[:2], CLICKS.of_users, [v[:2] for v in CLICKS.of_rows])
    adam = AdamAdaptation(rate=0.1, steps=2, inner_lr=0.1, inner_steps=1)
    descent = LearnedSGD(initial_scale=0.1, steps=1)
    asked: list[int] = []

    def noting(item: Tensor, max_rows: int) -> Iterator[PaddedBatch]:
        asked.append(len(item))
        return by_item(item, max_rows)

    monkeypatch.setattr(warm, "by_item", noting)
    for network, clicks, rule in [(linear, two, RULE), (linear, row(0), adam), (linear, row(0), descent)]:
        assert list(adapt(network, moved(network), OWN, clicks, rule))
    assert asked == [2, 1, 1]
    ((_, found),) = adapt(attending, moved(attending), OWN, row(0), RULE)
    assert asked == [2, 1, 1, 1]
    torch.testing.assert_close(found["graph"], general(attending, moved(attending), row(0))["graph"])


def test_weights_that_are_not_float32_go_the_general_way() -> None:
    network = ready(emerg()).double()
    assert network.row_gradient() is None


def test_weights_changed_in_place_or_replaced_are_seen() -> None:
    network, other = ready(emerg()), ready(emerg(), seed=5)
    state = moved(network)
    assert_twins(network, state, row(0))
    network.load_state_dict(other.state_dict())
    assert_twins(network, state, row(0))
    network.item_fields.tables[0] = nn.Parameter(torch.randn(5, WIDTH, generator=torch.Generator().manual_seed(3)))
    assert_twins(network, state, row(0))
    network.scales["id"].data = network.scales["id"].data - 1
    assert_twins(network, state, row(0))
    network.tower = None
    assert_twins(network, state, row(0))


def test_a_warm_up_by_one_event_leaves_states_and_weights_as_they_were() -> None:
    network = ready(emerg())
    state = moved(network)
    before = {key: value.clone() for key, value in (network.state_dict() | dict(state)).items()}
    assert list(adapt(network, state, OWN, row(1), RULE))
    for key, value in (network.state_dict() | dict(state)).items():
        assert torch.equal(value, before[key])
    assert all(parameter.requires_grad for parameter in network.parameters())
