"""The graph cache: scores with it equal scores without it after any change of states."""

import copy
from concurrent.futures import ThreadPoolExecutor
from typing import Any, get_args

import numpy as np
import polars as pl
import pytest
import torch

from newcomer.data.schema import Field, Schema
from newcomer.items.adaptation.rules import Adaptation, LearnedSGD, MAPAdaptation
from newcomer.items.encoding.encoder import Clicks, Values
from newcomer.items.inference import adapt, initial_state, predict
from newcomer.items.methods.emerg import EmerG
from newcomer.items.networks.emerg_network import EmerGNetwork, Graph
from newcomer.items.networks.graph_cache import GraphCache
from newcomer.items.networks.item_network import State
from newcomer.nn.ctr.field_embeddings import CategoricalSize, NumericSize
from newcomer.shapes import Tensor

ITEMS = 5
OWN: Values = [torch.tensor([2, 3, 4, 1, 2, 3])]
"""Of one item more than most tests know."""


def network(graph: str = "generated") -> EmerGNetwork:
    torch.manual_seed(0)
    settings: dict[str, Any] = {"has_shared_graph": False, "attention": False, "generate_init": True, "tower": [4]}
    found = EmerGNetwork(
        [CategoricalSize(5)],
        [CategoricalSize(4), NumericSize()],
        width=3,
        layers=3,
        init_std=0.5,
        graph=graph,  # type: ignore[arg-type]
        **settings,
    )
    found.add_scales(0.5)
    return found


def states(of: EmerGNetwork, items: int = ITEMS, seed: int = 0) -> dict[str, Tensor]:
    chance = torch.Generator().manual_seed(seed)
    begin = initial_state(of, [values[:items] for values in OWN], items)
    return {key: value + torch.randn(value.shape, generator=chance) for key, value in begin.items()}


def rows(*item: int) -> Clicks:
    chance = torch.Generator().manual_seed(len(item))
    count = len(item)
    users, number = torch.randint(0, 4, (count,), generator=chance), torch.randn(count, generator=chance)
    return Clicks(torch.tensor(item), torch.ones(count), torch.arange(count), [], [users, number])


def assert_same(of: EmerGNetwork, prepared: GraphCache, state: State, clicks: Clicks) -> None:
    own = [values[: len(state["id"])] for values in OWN]
    with_it, without = predict(of, state, own, clicks, prepared), predict(of, state, own, clicks)
    np.testing.assert_allclose(with_it, without, rtol=0, atol=1e-7)


def made(of: EmerGNetwork, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Of how many items graphs are made, call by call, from now on."""
    found: list[int] = []
    make = of.orders

    def noting(graph: Tensor) -> Tensor:
        found.append(len(graph))
        return make(graph)

    monkeypatch.setattr(of, "orders", noting)
    return found


@pytest.mark.parametrize("graph", get_args(Graph))
def test_scores_are_the_same_whatever_became_of_the_states(graph: str) -> None:
    of, prepared = network(graph), GraphCache()
    state = states(of)
    assert_same(of, prepared, state, rows(0, 2, 2))
    assert_same(of, prepared, state, rows(4, 3, 2, 1, 0))
    state["id"][2] += 1  # in place
    for key in state:
        state[key][1] -= 0.5
    assert_same(of, prepared, state, rows(0, 1, 2, 3, 4))
    turned = {key: value.flip(0) for key, value in state.items()}  # the same items by other numbers
    assert_same(of, prepared, turned, rows(0, 1, 2, 3, 4))
    assert_same(of, prepared, states(of, ITEMS + 1, seed=1), rows(5, 0))
    assert_same(of, prepared, states(of, 2, seed=2), rows(1, 0))
    assert_same(of, prepared, state, rows(*range(ITEMS)))


def test_graphs_are_made_once_an_item_and_anew_for_those_that_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    of, prepared = network(), GraphCache()
    state = states(of)
    asked = made(of, monkeypatch)
    for clicks, expected in [(rows(0, 1, 1), [2]), (rows(0, 1), []), (rows(0, 1, 2, 3), [2])]:
        predict(of, state, [OWN[0][:ITEMS]], clicks, prepared)
        assert asked == expected
        asked.clear()
    state["graph"] = state["graph"].index_copy(0, torch.tensor([3]), torch.randn(1, *state["graph"].shape[1:]))
    more = {key: torch.cat([value, value[:1]]) for key, value in state.items()}  # and one is added
    predict(of, more, OWN, rows(0, 1, 2, 3, 5), prepared)
    assert asked == [2]


def test_another_network_does_not_find_what_was_kept() -> None:
    of, other, prepared = network(), network(), GraphCache()
    with torch.no_grad():
        other.interactions.weights = torch.nn.Parameter(other.interactions.weights[:1])  # one order alone
    other.readout.weight = torch.nn.Parameter(other.readout.weight[:, : 2 * of.width])
    state = states(of)
    assert_same(of, prepared, state, rows(0, 1))
    assert_same(other, prepared, state, rows(0, 1))


def test_weights_may_change_while_states_are_kept() -> None:
    of, prepared = network(), GraphCache()
    state = states(of)
    assert_same(of, prepared, state, rows(0, 1))
    before = predict(of, state, [OWN[0][:ITEMS]], rows(0, 1), prepared)
    with torch.no_grad():
        for parameter in of.parameters():
            parameter.mul_(1.5)
    assert_same(of, prepared, state, rows(0, 1))
    assert (predict(of, state, [OWN[0][:ITEMS]], rows(0, 1), prepared) != before).all()


@pytest.mark.parametrize(
    "rule",
    [MAPAdaptation(initial_scale=0.5, linearizations=2), LearnedSGD(initial_scale=0.1, steps=2)],
    ids=["map", "learned_sgd"],
)
@pytest.mark.parametrize("clicks", [rows(1), rows(1, 1, 2)], ids=["one row", "several"])
def test_a_warm_up_reads_the_state_and_nothing_that_was_made_of_it(rule: Adaptation, clicks: Clicks) -> None:
    of = network()
    state = states(of)
    stale = {**state, **of.precompute(states(of, seed=3))}
    own = [values[:ITEMS] for values in OWN]
    for (items, plain), (_, found) in zip(
        adapt(of, state, own, clicks, rule), adapt(of, stale, own, clicks, rule), strict=True
    ):
        assert found.keys() == plain.keys()
        assert len(items) == len(found["id"])
        assert all(torch.equal(found[key], plain[key]) for key in plain)


def test_a_copy_begins_empty() -> None:
    of, prepared = network(), GraphCache()
    state = states(of)
    assert_same(of, prepared, state, rows(0, 1))
    assert_same(of, copy.deepcopy(prepared), state, rows(0, 1))


def test_predicting_between_tasks_does_not_change_later_predictions(monkeypatch: pytest.MonkeyPatch) -> None:
    chance = np.random.default_rng(0)
    film = chance.permutation(np.repeat(np.arange(8), 12))
    frame = pl.DataFrame(
        {"film": [f"film {n}" for n in film], "viewer": chance.integers(0, 9, 96), "liked": chance.random(96) < 0.5}
    ).with_columns(seen=pl.int_range(pl.len()), genre=pl.Series([f"genre {n % 3}" for n in film]))
    schema = Schema("film", "viewer", "liked", "seen", (Field("genre", "item"),))
    old, new = frame.filter(pl.col("film") < "film 6"), frame.filter(pl.col("film") >= "film 6")
    asked, silent = (EmerG(schema, pretrain_epochs=1, meta_epochs=1, tower=(4,)).learn(old) for _ in range(2))
    for learner in (asked, silent):
        for step in (old, new.head(1), new.tail(9), old.head(3)):
            if step is not old and "film 6" not in learner.known:
                learner.add(new.unique("film"))
            learner.warm(step)
            if learner is asked:
                learner.score(old)
    np.testing.assert_allclose(asked.score(frame), silent.score(frame), rtol=0, atol=1e-7)
    assert asked.score(frame).std() > 0
    monkeypatch.setattr(asked.network, "orders", refused)
    asked.score(frame)


def test_several_threads_get_the_scores_of_the_states_that_they_ask_for() -> None:
    of, prepared = network(), GraphCache()
    versions, clicks = [states(of, seed=seed) for seed in range(3)], rows(*range(ITEMS))
    own = [values[:ITEMS] for values in OWN]
    alone = [predict(of, state, own, clicks) for state in versions]
    with ThreadPoolExecutor(3) as pool:
        found = pool.map(lambda n: predict(of, versions[n % 3], own, clicks, prepared), range(60))
        for n, scores in enumerate(found):
            np.testing.assert_allclose(scores, alone[n % 3], rtol=0, atol=1e-7)


def refused(*_: object) -> None:
    raise AssertionError("graphs were made that are kept")
