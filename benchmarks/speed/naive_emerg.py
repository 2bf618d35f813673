"""EmerG's meta-learning one item at a time, as its released code goes about it: the whole model is copied for every item.

The plain twin of `newcomer.items.training.meta_learning.episode_loss` with the paper's rule: one inner step at a fixed rate, gradients of first
order. It leaves the gradient of the same mean over the same episodes, so that the two can be compared.
"""

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from newcomer.items.encoding.encoder import Clicks, Values
from newcomer.items.networks.item_network import ItemNetwork
from newcomer.items.padding import Padded
from newcomer.items.training.episodes import Episodes

Rows = tuple[int, Tensor, Tensor]
"""An item, its rows to support and its rows to query."""


def apart(episodes: Episodes) -> Iterator[Rows]:
    """Each episode by itself, without the places that only fill up."""
    support, query = episodes.support, episodes.query
    for n, item in enumerate(support.items.tolist()):
        yield item, support.rows[n, support.real[n]], query.rows[n, query.real[n]]


def alone(episodes: Episodes) -> Iterator[Episodes]:
    """Each episode as a batch of its own."""
    for n in range(len(episodes.support.items)):
        one = slice(n, n + 1)
        yield Episodes(*(Padded(s.items[one], s.rows[one], s.real[one]) for s in (episodes.support, episodes.query)))


def backward(
    network: ItemNetwork, own: Values, clicks: Clicks, episodes: Episodes, support_share: float, inner_rate: float
) -> float:
    """The loss in nats of these episodes; its gradient is added to that of the network's weights."""
    batch = list(apart(episodes))
    return sum(_episode(network, own, clicks, rows, support_share, inner_rate, 1 / len(batch)) for rows in batch)


def _episode(
    network: ItemNetwork, own: Values, clicks: Clicks, rows: Rows, share: float, rate: float, weight: float
) -> float:
    item, support, query = rows
    mine = [values[item : item + 1] for values in own]
    begun = network.begin(mine, 1)
    model = copy.deepcopy(network)
    state = {key: nn.Parameter(value.detach().clone()) for key, value in begun.items()}

    def loss(events: Tensor, part: float) -> Tensor:
        logits = model(state, mine, clicks.values(events))[0]
        return weight * part * binary_cross_entropy_with_logits(logits, clicks.label[events])

    before = loss(support, share)
    before.backward()  # type: ignore[no-untyped-call]
    _step(state, rate / (weight * share))
    after = loss(query, 1 - share)
    after.backward()  # type: ignore[no-untyped-call]
    _hand_over(network, model)
    torch.autograd.backward(list(begun.values()), [_gradient(state[key]) for key in begun])
    return before.item() + after.item()


@torch.no_grad()
def _step(state: dict[str, nn.Parameter], rate: float) -> None:
    """Gradient descent in place. The gradients stay: the support loss counts in the outer step as well."""
    for value in state.values():
        value.sub_(_gradient(value), alpha=rate)


def _hand_over(network: ItemNetwork, model: nn.Module) -> None:
    """The copy's gradients, added to those of the weights that it was copied from."""
    for shared, copied in zip(network.parameters(), model.parameters(), strict=True):
        if copied.grad is not None:
            shared.grad = copied.grad if shared.grad is None else shared.grad.add_(copied.grad)


def _gradient(value: nn.Parameter) -> Tensor:
    assert value.grad is not None  # every part of a state reaches the logits
    return value.grad
