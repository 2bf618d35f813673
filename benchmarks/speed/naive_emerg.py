"""EmerG's meta-learning one item at a time, as in its released code: the whole model is copied for every item.

Reference implementation of `newcomer.items.training.meta_learning.episode_loss` with the paper's rule (one inner step at a fixed
learning rate, first-order gradients): it leaves the gradient of the same mean over the same episodes.
"""

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from newcomer.items.encoding.encoder import Clicks, Values
from newcomer.items.networks.item_network import ItemNetwork
from newcomer.items.padding import PaddedBatch
from newcomer.items.training.episodes import Episodes

Rows = tuple[int, Tensor, Tensor]
"""An item, its support rows and its query rows."""


def unpadded(episodes: Episodes) -> Iterator[Rows]:
    """Each episode without padding."""
    support, query = episodes.support, episodes.query
    for n, item in enumerate(support.items.tolist()):
        yield item, support.rows[n, support.real[n]], query.rows[n, query.real[n]]


def single_episodes(episodes: Episodes) -> Iterator[Episodes]:
    """Each episode as a batch of its own."""
    for n in range(len(episodes.support.items)):
        one = slice(n, n + 1)
        yield Episodes(
            *(PaddedBatch(s.items[one], s.rows[one], s.real[one]) for s in (episodes.support, episodes.query))
        )


def backward(
    network: ItemNetwork,
    item_features: Values,
    clicks: Clicks,
    episodes: Episodes,
    support_share: float,
    inner_lr: float,
) -> float:
    """The mean loss of the episodes in nats; its gradient is added to that of the network's weights."""
    batch = list(unpadded(episodes))
    return sum(
        _episode(network, item_features, clicks, rows, support_share, inner_lr, 1 / len(batch)) for rows in batch
    )


def _episode(
    network: ItemNetwork, item_features: Values, clicks: Clicks, rows: Rows, share: float, rate: float, weight: float
) -> float:
    item, support, query = rows
    features = [values[item : item + 1] for values in item_features]
    initial = network.initial_state(features, 1)
    model = copy.deepcopy(network)
    state = {key: nn.Parameter(value.detach().clone()) for key, value in initial.items()}

    def loss(events: Tensor, part: float) -> Tensor:
        logits = model(state, features, clicks.values(events))[0]
        return weight * part * binary_cross_entropy_with_logits(logits, clicks.label[events])

    before = loss(support, share)
    before.backward()  # type: ignore[no-untyped-call]
    _step(state, rate / (weight * share))
    after = loss(query, 1 - share)
    after.backward()  # type: ignore[no-untyped-call]
    _add_gradients(network, model)
    torch.autograd.backward(list(initial.values()), [_gradient(state[key]) for key in initial])
    return before.item() + after.item()


@torch.no_grad()
def _step(state: dict[str, nn.Parameter], rate: float) -> None:
    """In-place gradient descent. Gradients are kept: the support loss is part of the outer loss as well."""
    for value in state.values():
        value.sub_(_gradient(value), alpha=rate)


def _add_gradients(network: ItemNetwork, model: nn.Module) -> None:
    """Add the gradients of a copy to those of the original weights."""
    for shared, copied in zip(network.parameters(), model.parameters(), strict=True):
        if copied.grad is not None:
            shared.grad = copied.grad if shared.grad is None else shared.grad.add_(copied.grad)


def _gradient(value: nn.Parameter) -> Tensor:
    assert value.grad is not None  # every part of a state reaches the logits
    return value.grad
