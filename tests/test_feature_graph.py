"""The graph network: layer l has exactly the interactions of order l + 1 that the graph allows."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from newcomer.nn.ctr.feature_graph import (
    Interactions,
    LinearReadout,
    Readout,
    between_0_and_1,
    higher_orders,
    largest,
    states,
)

ITEMS, FIELDS, ROWS, WIDTH, LAYERS = 2, 5, 3, 4, 3


def sample(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def network() -> Interactions:
    """Without σ: a slope of 1 below zero."""
    torch.manual_seed(0)
    return Interactions(WIDTH, LAYERS, slope=1.0).double()


@pytest.fixture
def graphs() -> Tensor:
    return higher_orders(sample(ITEMS, FIELDS, FIELDS), LAYERS)


def states_of(network: Interactions, graphs: Tensor, vectors: Tensor) -> list[Tensor]:
    return states(vectors, network(graphs, vectors))


def test_layer_l_is_homogeneous_of_degree_l_plus_1(network: Interactions, graphs: Tensor) -> None:
    vectors = sample(ITEMS, FIELDS, ROWS, WIDTH, seed=1)
    for layer, (once, thrice) in enumerate(
        zip(states_of(network, graphs, vectors), states_of(network, graphs, 3 * vectors), strict=True)
    ):
        torch.testing.assert_close(thrice, 3 ** (layer + 1) * once)


def test_layer_l_is_the_sum_of_the_monomials_with_the_products_of_edges(network: Interactions, graphs: Tensor) -> None:
    vectors = sample(ITEMS, FIELDS, ROWS, WIDTH, seed=1)
    for layer, found in enumerate(states_of(network, graphs, vectors)):
        expected = torch.zeros_like(found)
        for m, *others in itertools.product(range(FIELDS), repeat=layer + 1):
            monomial = vectors[:, m]
            coefficient = torch.ones(ITEMS, dtype=torch.float64)
            for k, n in enumerate(others):
                monomial = monomial * (vectors[:, n] @ network.weights[k])
                coefficient = coefficient * graphs[:, k, m, n]
            expected[:, m] += coefficient[:, None, None] * monomial
        torch.testing.assert_close(found, expected)


def test_a_field_without_an_edge_to_another_never_meets_it(network: Interactions) -> None:
    graphs = torch.rand(1, LAYERS, FIELDS, FIELDS, dtype=torch.float64)
    graphs[:, :, 0, 3] = 0
    vectors = sample(1, FIELDS, ROWS, WIDTH).requires_grad_()
    for state in states_of(network, graphs, vectors)[1:]:
        (gradient,) = torch.autograd.grad(state[:, 0].sum(), vectors, retain_graph=True)
        assert not gradient[:, 3].any()
        assert gradient[:, 1].any()


def test_renaming_fields_renames_graphs_and_states(network: Interactions) -> None:
    graph, vectors, names = sample(ITEMS, FIELDS, FIELDS), sample(ITEMS, FIELDS, ROWS, WIDTH), [3, 0, 4, 1, 2]
    orders = higher_orders(graph, LAYERS)
    renamed = higher_orders(graph[:, names][:, :, names], LAYERS)
    torch.testing.assert_close(renamed, orders[:, :, names][:, :, :, names])
    for before, after in zip(
        states_of(network, orders, vectors), states_of(network, renamed, vectors[:, names]), strict=True
    ):
        torch.testing.assert_close(after, before[:, names])


def test_first_order_is_symmetric_and_keeps_the_largest_half() -> None:
    graph = sample(3, 6, 6)
    first = higher_orders(graph, 1)[:, 0]
    torch.testing.assert_close(first, first.transpose(1, 2))
    kept = between_0_and_1(graph).masked_fill(torch.eye(6, dtype=torch.bool), 1).flatten(1)
    least = kept.topk(18).values.min(dim=1).values[:, None, None]
    kept = kept.view(3, 6, 6)
    kept = kept * (kept >= least)
    torch.testing.assert_close(first, (kept + kept.transpose(1, 2)) / 2)
    assert (first.diagonal(dim1=1, dim2=2) == 1).all()


@given(st.integers(2, 7), st.integers(1, 4), st.integers(0, 100))
def test_edges_of_all_orders_lie_in_0_to_1_on_the_edges_of_the_first(fields: int, orders: int, seed: int) -> None:
    graphs = higher_orders(sample(2, fields, fields, seed=seed), orders)
    assert graphs.shape == (2, orders, fields, fields)
    assert ((graphs >= 0) & (graphs <= 1 + 1e-9)).all()
    assert not graphs[:, 1:][(graphs[:, :1] == 0).expand_as(graphs[:, 1:])].any()


@given(st.floats(0.1, 10), st.floats(-5, 5))
def test_stretching_and_moving_a_graph_changes_nothing(stretch: float, move: float) -> None:
    graph = sample(2, 4, 4)
    torch.testing.assert_close(higher_orders(graph * stretch + move, 2), higher_orders(graph, 2))


def test_a_graph_without_differences_has_its_diagonal_only() -> None:
    first = higher_orders(torch.zeros(1, 4, 4), 1)[0, 0]
    assert (first.diagonal() == 1).all()
    assert first.isfinite().all()


@given(st.integers(1, 6), st.integers(1, 4), st.integers(2, 9), st.integers(0, 1000))
def test_the_gradient_in_closed_form_is_that_of_autograd(fields: int, orders: int, values: int, seed: int) -> None:
    """Also where entries are equal: several lowest, several highest, several at the bound of those kept."""
    generator = torch.Generator().manual_seed(seed)
    graph = torch.randint(values, (3, fields, fields), generator=generator).double().requires_grad_()
    upstream = torch.randn(3, orders, fields, fields, generator=generator, dtype=torch.float64)
    found, differentiable = (
        torch.autograd.grad(higher_orders(graph, orders), graph, upstream, create_graph=whether)[0]
        for whether in (False, True)
    )
    assert not found.requires_grad
    assert differentiable.requires_grad
    torch.testing.assert_close(found, differentiable.detach())


@given(st.integers(1, 12), st.integers(1, 4), st.data())
def test_the_largest_are_so_many_and_none_is_smaller_than_another(size: int, values: int, data: st.DataObject) -> None:
    entries = np.array(data.draw(st.lists(st.integers(0, values), min_size=2 * size, max_size=2 * size)), np.float32)
    entries, count = entries.reshape(2, size), data.draw(st.integers(0, size))
    for row, among in zip(entries, largest(entries, count), strict=True):
        assert among.sum() == count
        assert not count or count == size or row[among].min() >= row[~among].max()
        kept = torch.from_numpy(row.copy()).argsort(stable=True)[size - count :]  # as on a GPU
        assert sorted(kept.tolist()) == np.flatnonzero(among).tolist()


def test_an_item_without_numbers_changes_no_other_one() -> None:
    """Whose kept entries are told from equal ones."""
    graph = torch.tensor([[0.0, 5.0], [1.0, 2.0]])
    alone = higher_orders(graph[None], 2)[0]
    beside = higher_orders(torch.stack([graph, torch.full((2, 2), torch.nan)]), 2)[0]
    torch.testing.assert_close(beside, alone, rtol=0, atol=0)


def test_gradients_are_right_to_second_order(network: Interactions) -> None:
    """Through graphs, interactions and readout, as an inner step and a step over it need them."""
    torch.manual_seed(1)
    readout = Readout(3, WIDTH, heads=2, head_width=3).double()

    def logits(graph: Tensor, vectors: Tensor) -> Tensor:
        answer: Tensor = readout(vectors, network(higher_orders(graph, LAYERS), vectors))
        return answer

    graph, vectors = sample(1, 3, 3).requires_grad_(), sample(1, 3, 2, WIDTH).requires_grad_()
    assert torch.autograd.gradcheck(logits, (graph, vectors))
    assert torch.autograd.gradgradcheck(logits, (graph, vectors))


def test_the_readout_is_attention_written_out() -> None:
    torch.manual_seed(0)
    readout = Readout(FIELDS, WIDTH, heads=3, head_width=6).double()
    vectors, *messages = (sample(ITEMS, FIELDS, ROWS, WIDTH, seed=seed) for seed in range(LAYERS + 1))
    tokens = torch.stack(states(vectors, messages), dim=3)  # item field row state width
    heads = []
    for query, key, value in zip(readout.query, readout.key, readout.value, strict=True):
        scores = (tokens @ query) @ (tokens @ key).transpose(-2, -1) / 6**0.5
        heads.append((scores.softmax(dim=-1) @ (tokens @ value)).sum(dim=-2))
    outcome = torch.relu(torch.cat(heads, dim=-1)).transpose(1, 2)
    gate = torch.sigmoid(nn.functional.linear(outcome.flatten(2), readout.gate))
    torch.testing.assert_close(readout(vectors, messages), (gate * (outcome @ readout.weight)).sum(dim=-1))


def test_the_linear_readout_is_the_sum_over_fields_and_layers() -> None:
    torch.manual_seed(0)
    readout = LinearReadout(FIELDS, WIDTH, LAYERS).double()
    vectors, *messages = (sample(ITEMS, FIELDS, ROWS, WIDTH, seed=seed) for seed in range(LAYERS + 1))
    together = torch.cat(states(vectors, messages), dim=-1)  # item field row (state width)
    torch.testing.assert_close(readout(vectors, messages), torch.einsum("ifrw,fw->ir", together, readout.weight))


def test_items_and_rows_in_a_batch_are_themselves(network: Interactions, graphs: Tensor) -> None:
    readout = Readout(FIELDS, WIDTH).double()
    vectors = sample(ITEMS, FIELDS, ROWS, WIDTH, seed=1)
    together = readout(vectors, network(graphs, vectors))
    for item, row in itertools.product(range(ITEMS), range(ROWS)):
        own = vectors[item : item + 1, :, row : row + 1]
        alone = readout(own, network(graphs[item : item + 1], own))
        torch.testing.assert_close(together[item, row], alone[0, 0])
