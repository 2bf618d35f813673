"""Hypernetworks: a batch of items equals the items one by one."""

import torch
from torch import nn

from newcomer.nn.ctr.hypernetwork import GraphHypernetwork


def test_all_rows_in_one_product_are_one_mlp_a_row_on_characteristics_and_one_hot() -> None:
    torch.manual_seed(0)
    writer, characteristics = GraphHypernetwork(6, 4), torch.randn(3, 6)
    one_hot_weights = torch.randn(4, 4)  # by row: what the one-hot part adds, whatever the item
    with torch.no_grad():
        writer.biases[0].copy_(one_hot_weights[:, None])
    for m in range(4):
        first = nn.Linear(6 + 4, 4, bias=False)
        with torch.no_grad():
            first.weight[:, :6] = writer.weights[0][m].T
            first.weight[:, 6 + m] = one_hot_weights[m]
        hot = nn.functional.one_hot(torch.full((3,), m), 4).float()
        hidden = torch.relu(first(torch.cat([characteristics, hot], dim=1)))
        hidden = torch.relu(hidden @ writer.weights[1][m] + writer.biases[1][m])
        row = hidden @ writer.weights[2][m] + writer.biases[2][m]
        torch.testing.assert_close(writer(characteristics)[:, m], row)


def test_it_starts_at_a_given_graph() -> None:
    torch.manual_seed(0)
    writer, graph, items = GraphHypernetwork(6, 4), torch.randn(4, 4), torch.randn(3, 6)
    differences = writer(items)
    writer.start_at(graph)
    torch.testing.assert_close(writer(items), graph + differences)
    assert not torch.equal(differences[0], differences[1])
