"""How an item's state follows from its events: three rules, and what each does within an episode of meta-learning."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, Self

import torch
from torch.nn import functional

from newcomer.items.encoding.encoder import Clicks, Values
from newcomer.items.networks.item_network import ItemNetwork, State
from newcomer.items.padding import Padded
from newcomer.nn.optim.map_logistic import likeliest
from newcomer.shapes import Float, Tensor
from newcomer.training.fit import fit

PLACES = 8192
"""Rows at once, the filled-up ones too: enough to be quick, few enough for any machine's memory."""

NEWTON = 5
"""Steps of Newton's method between two visits of the network."""


@dataclass(frozen=True)
class Events:
    """Rows of a batch of items, and what is known of the items; `own` and `clicks` are those of all."""

    network: ItemNetwork
    own: Values
    clicks: Clicks
    batch: Padded
    beside: State = field(default_factory=dict)
    """What is kept of all items and not adapted."""

    @classmethod
    def of(cls, network: ItemNetwork, own: Values, clicks: Clicks, batch: Padded, beside: State) -> Self:
        """Of a batch whose items alone have something beside their states."""
        numbers = torch.arange(len(batch.items), device=batch.items.device)
        return cls(network, [values[batch.items] for values in own], clicks, replace(batch, items=numbers), beside)

    def losses(self, state: State) -> Iterator[Float[Tensor, " item"]]:
        """Parts of each item's mean binary cross entropy in nats, to be added up; an item without rows has none.

        An item's rows are divided where they are too many for one pass.
        """
        counts = self.batch.real.sum(dim=1).clamp(min=1)
        for part in self._parts():
            losses = functional.binary_cross_entropy_with_logits(
                self.logits(state, part), self.clicks.label[part.rows], reduction="none"
            )
            yield (losses * part.real).sum(dim=1) / counts

    def loss(self, state: State) -> Float[Tensor, " item"]:
        """Each item's mean binary cross entropy in nats."""
        return torch.stack(list(self.losses(state))).sum(dim=0)

    def slopes(
        self, state: State, second_order: bool = False
    ) -> tuple[Float[Tensor, "item row"], Float[Tensor, "item row number"]]:
        """Every row's logit, and its derivative by each number of its item's state, in the order of `flat`.

        Each row gets a state of its own, so that one backward pass has them all.
        """
        found = [self._slopes(state, part, second_order) for part in self._parts()]
        logits, slopes = zip(*found, strict=True)
        return torch.cat(logits, dim=1), torch.cat(slopes, dim=1)

    def _slopes(self, state: State, part: Padded, second_order: bool) -> tuple[Tensor, Tensor]:
        items, rows = part.rows.shape
        of = torch.arange(items, device=part.rows.device).repeat_interleave(rows)
        with torch.enable_grad():
            each = {key: value[of] for key, value in state.items()}
            each = each if second_order else _leaves(each)
            alone = Padded(part.items[of], part.rows.reshape(-1, 1), part.real.reshape(-1, 1))
            logits = self.logits(each, alone)
            slopes = torch.autograd.grad(logits.sum(), list(each.values()), create_graph=second_order)
        logits = logits if second_order else logits.detach()
        return logits.view(items, rows), flat(dict(zip(each, slopes, strict=True))).view(items, rows, -1)

    def logits(self, state: State, batch: Padded | None = None) -> Float[Tensor, "item row"]:
        """Of all rows, or of those of another batch of the same items."""
        batch = batch or self.batch
        own = [values[batch.items] for values in self.own]
        beside = {key: value[batch.items] for key, value in self.beside.items()}
        logits: Tensor = self.network({**beside, **state}, own, self.clicks.values(batch.rows.flatten()))
        return logits

    def _parts(self) -> Iterator[Padded]:
        width = max(1, PLACES // len(self.batch.items))
        for begin in range(0, self.batch.rows.shape[1], width):
            end = begin + width
            yield Padded(self.batch.items, self.batch.rows[:, begin:end], self.batch.real[:, begin:end])


def flat(state: State) -> Float[Tensor, "item number"]:
    """All numbers of a state side by side."""
    return torch.cat([state[key].flatten(1) for key in sorted(state)], dim=1)


def unflat(numbers: Float[Tensor, "item number"], like: State) -> State:
    """The state that `flat` made these of, shaped as `like` is."""
    sizes = [like[key][0].numel() for key in sorted(like)]
    parts = zip(sorted(like), torch.split(numbers, sizes, dim=1), strict=True)
    return {key: part.reshape(-1, *like[key].shape[1:]) for key, part in parts}


class Adaptation(ABC):
    """A rule from a state and events to a new state. Items have nothing in common but the network, and that is not touched."""

    scale: float | None
    """What the network's `scales` begin with, one for every number of a state; None where the rule learns none."""

    from_the_start: bool
    """Whether all events so far are weighed against where the item began, not the new ones against where it is."""

    @abstractmethod
    def inner(self, events: Events, state: State, second_order: bool, before: Tensor | None = None) -> State:
        """Within an episode: the states after these events as functions of `state` and the network's scales.

        With `second_order` also of all other weights, through the gradients that the rule takes. `before`: `events.loss(state)`, if
        it has been asked for already.
        """

    @abstractmethod
    def warm(self, events: Events, state: State) -> State:
        """In service: the states after these events."""


@dataclass(frozen=True)
class Adam(Adaptation):
    """The paper's: `steps` of Adam on all events at once; in an episode `inner_steps` of gradient descent at `inner_rate`."""

    rate: float
    steps: int
    inner_rate: float
    inner_steps: int
    scale = None
    from_the_start = False

    def inner(self, events: Events, state: State, second_order: bool, before: Tensor | None = None) -> State:
        rates = dict.fromkeys(state, self.inner_rate)
        return _descended(events, state, rates, self.inner_steps, second_order, before)

    def warm(self, events: Events, state: State) -> State:
        mine = {key: value.clone().requires_grad_() for key, value in state.items()}
        optimizer = torch.optim.Adam(mine.values(), lr=self.rate)

        def loss(events: Events) -> Iterator[Tensor]:
            return (part.sum() for part in events.losses(mine))

        for _ in fit([events] * self.steps, loss, optimizer):
            pass
        return {key: value.detach() for key, value in mine.items()}


@dataclass(frozen=True)
class Descent(Adaptation):
    """Gradient descent on the mean loss at a learned rate for every number of a state, in episodes and in service alike."""

    scale: float
    steps: int
    from_the_start = False

    def inner(self, events: Events, state: State, second_order: bool, before: Tensor | None = None) -> State:
        return _descended(events, state, events.network.scales_now(), self.steps, second_order, before)

    def warm(self, events: Events, state: State) -> State:
        return {key: value.detach() for key, value in self.inner(events, state, second_order=False).items()}


@dataclass(frozen=True)
class Bayes(Adaptation):
    """The likeliest state, given where it was and what was seen since: φ ~ N(φ₀, diag(s²)), s learned.

    The logits are taken as linear in φ, `rounds` times over, so that the network is asked no oftener than that; see `nn.optim.map_logistic`.
    """

    scale: float
    rounds: int
    from_the_start = True

    def inner(self, events: Events, state: State, second_order: bool, before: Tensor | None = None) -> State:
        return self._likeliest(events, state, 1, second_order)

    def warm(self, events: Events, state: State) -> State:
        with torch.no_grad():
            return self._likeliest(events, state, self.rounds, second_order=False)

    def _likeliest(self, events: Events, begin: State, rounds: int, second_order: bool) -> State:
        spread = flat({key: value[None] for key, value in events.network.scales_now().items()})[0]
        labels, real = events.clicks.label[events.batch.rows], events.batch.real.to(spread.dtype)
        first = flat(begin)
        now = first
        for _ in range(rounds):
            logits, slopes = events.slopes(unflat(now, begin), second_order)
            at_first = logits - (slopes @ (now - first)[..., None])[..., 0]
            now = first + likeliest(at_first, slopes, labels, real, spread, NEWTON)
        return unflat(now, begin)


Rule = Literal["bayes", "descent", "adam"]


def adaptation(
    rule: Rule, spread: float, rounds: int, inner_rate: float, inner_steps: int, warm_rate: float, warm_steps: int
) -> Adaptation:
    """The rule of this name, with those of the settings that are its own."""
    if rule == "bayes":
        return Bayes(spread, rounds)
    if rule == "descent":
        return Descent(inner_rate, inner_steps)
    return Adam(warm_rate, warm_steps, inner_rate, inner_steps)


def _leaves(state: State) -> dict[str, Tensor]:
    return {key: value.detach().requires_grad_() for key, value in state.items()}


def _descended(
    events: Events,
    state: State,
    rates: Mapping[str, float | Tensor],
    steps: int,
    second_order: bool,
    before: Tensor | None,
) -> State:
    for _ in range(steps):
        with torch.enable_grad():
            at = dict(state) if second_order or before is not None else _leaves(state)
            parts = events.losses(at) if before is None else [before]
            keep = second_order or before is not None
            sums = [
                torch.autograd.grad(part.sum(), list(at.values()), create_graph=second_order, retain_graph=keep)
                for part in parts
            ]
        gradients = dict(zip(at, (sum(parts) for parts in zip(*sums, strict=True)), strict=True))
        state, before = {key: value - rates[key] * gradients[key] for key, value in state.items()}, None
    return state
