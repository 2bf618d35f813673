"""Adaptation of an item's state to its events: MAP estimate, SGD with learned rates, Adam."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, Self

import torch
from torch.nn import functional

from newcomer.data.weights import LEAST
from newcomer.items.encoding.encoder import Clicks, Values
from newcomer.items.networks.item_network import ItemNetwork, State
from newcomer.items.padding import PaddedBatch
from newcomer.nn.optim.gaussian_summary import GaussianSummary
from newcomer.nn.optim.map_logistic import map_estimate
from newcomer.shapes import Float, Tensor
from newcomer.training.fit import fit

MAX_PADDED_ROWS = 8192
"""Rows of a padded batch, padding included: bounds memory."""

ROWS_TOGETHER = 1024
"""Rows of one pass of the network, whose activations take some ten times the memory of the rows' Jacobian; more are not faster."""

NEWTON_STEPS = 5
"""Newton steps per linearization of the network."""


@dataclass(frozen=True)
class EventLikelihood:
    """Log likelihood of the events of a batch of items, each times its weight; `item_features` and `clicks` cover all items."""

    network: ItemNetwork
    item_features: Values
    clicks: Clicks
    batch: PaddedBatch
    fixed: State = field(default_factory=dict)
    """Parts of the states that are not adapted (`ItemNetwork.statistics`)."""

    @classmethod
    def of(cls, network: ItemNetwork, item_features: Values, clicks: Clicks, batch: PaddedBatch, fixed: State) -> Self:
        """For a batch where `fixed` has one row per item of the batch."""
        numbers = torch.arange(len(batch.items), device=batch.items.device)
        return cls(
            network, [values[batch.items] for values in item_features], clicks, replace(batch, items=numbers), fixed
        )

    def losses(self, state: State) -> Iterator[Float[Tensor, " item"]]:
        """Summands of each item's weighted mean binary cross entropy in nats; 0 for an item without rows.

        Rows are split if there are too many for one forward pass.
        """
        totals = self.weights().sum(dim=1).clamp(min=LEAST)
        for part in self._parts():
            losses = functional.binary_cross_entropy_with_logits(
                self.logits(state, part), self.clicks.label[part.rows], reduction="none"
            )
            yield (losses * self.weights(part)).sum(dim=1) / totals

    def weights(self, batch: PaddedBatch | None = None) -> Float[Tensor, "item row"]:
        """Weights of all rows, or of the rows of `batch`; 0 for padding."""
        batch = batch or self.batch
        return self.clicks.weights(batch.rows) * batch.real

    def loss(self, state: State) -> Float[Tensor, " item"]:
        """Each item's weighted mean binary cross entropy in nats."""
        return torch.stack(list(self.losses(state))).sum(dim=0)

    def jacobian(
        self, state: State, second_order: bool = False
    ) -> tuple[Float[Tensor, "item row"], Float[Tensor, "item row number"]]:
        """Logits, and their Jacobian with respect to the item's state in the order of `flatten_state`.

        The state is repeated per row, so that one backward pass yields all rows' gradients.
        """
        parts = [self._jacobian(state, part, second_order) for part in self._parts()]
        logits, jacobian = zip(*parts, strict=True)
        return torch.cat(logits, dim=1), torch.cat(jacobian, dim=1)

    def _jacobian(self, state: State, part: PaddedBatch, second_order: bool) -> tuple[Tensor, Tensor]:
        items, rows = part.rows.shape
        of = torch.arange(items, device=part.rows.device).repeat_interleave(rows)
        with torch.enable_grad():
            each = {key: value[of] for key, value in state.items()}
            each = each if second_order else _leaves(each)
            alone = PaddedBatch(part.items[of], part.rows.reshape(-1, 1), part.real.reshape(-1, 1))
            logits = self.logits(each, alone)
            jacobian = torch.autograd.grad(logits.sum(), list(each.values()), create_graph=second_order)
        logits = logits if second_order else logits.detach()
        return logits.view(items, rows), flatten_state(dict(zip(each, jacobian, strict=True))).view(items, rows, -1)

    def logits(self, state: State, batch: PaddedBatch | None = None) -> Float[Tensor, "item row"]:
        """Logits of all rows, or of the rows of `batch`, which has the same items."""
        batch = batch or self.batch
        item_features = [values[batch.items] for values in self.item_features]
        fixed = {key: value[batch.items] for key, value in self.fixed.items()}
        logits: Tensor = self.network({**fixed, **state}, item_features, self.clicks.values(batch.rows.flatten()))
        return logits

    def first(self, rows: int) -> Self:
        """Of the first `rows` events of each item alone."""
        return replace(self, batch=self.batch.first(rows))

    def _parts(self) -> Iterator[PaddedBatch]:
        width = max(1, ROWS_TOGETHER // len(self.batch.items))
        for begin in range(0, self.batch.rows.shape[1], width):
            end = begin + width
            yield PaddedBatch(self.batch.items, self.batch.rows[:, begin:end], self.batch.real[:, begin:end])


def flatten_state(state: State) -> Float[Tensor, "item number"]:
    """A state as one vector per item; keys in sorted order."""
    return torch.cat([state[key].flatten(1) for key in sorted(state)], dim=1)


def unflatten_state(numbers: Float[Tensor, "item number"], like: State) -> State:
    """Inverse of `flatten_state`, with the shapes of `like`."""
    sizes = [like[key][0].numel() for key in sorted(like)]
    parts = zip(sorted(like), torch.split(numbers, sizes, dim=1), strict=True)
    return {key: part.reshape(-1, *like[key].shape[1:]) for key, part in parts}


class Adaptation(ABC):
    """Maps a state and events to a new state. The network is frozen, so items are independent."""

    initial_scale: float | None
    """Initial value of the network's learned `scales`, one per entry of a state; None if the rule learns none."""

    from_initial_state: bool
    """Whether to adapt the initial state to all events so far, not the current state to the new ones."""

    @abstractmethod
    def inner_update(
        self, events: EventLikelihood, state: State, second_order: bool, initial_loss: Tensor | None = None
    ) -> State:
        """Inner loop of an episode: adapted states, differentiable with respect to `state` and the network's scales.

        `second_order`: also differentiate through the inner gradients. `initial_loss`: `events.loss(state)`, if already computed.
        """

    @abstractmethod
    def warm(self, events: EventLikelihood, state: State, summary: GaussianSummary | None = None) -> State:
        """Adapted states at serving time, without gradients. `summary`: of earlier events, for the MAP estimate alone."""


@dataclass(frozen=True)
class AdamAdaptation(Adaptation):
    """Full-batch Adam, `steps` steps (the paper's); in an episode `inner_steps` of gradient descent at `inner_lr`."""

    rate: float
    steps: int
    inner_lr: float
    inner_steps: int
    initial_scale = None
    from_initial_state = False

    def inner_update(
        self, events: EventLikelihood, state: State, second_order: bool, initial_loss: Tensor | None = None
    ) -> State:
        rates = dict.fromkeys(state, self.inner_lr)
        return _gradient_descent(events, state, rates, self.inner_steps, second_order, initial_loss)

    def warm(self, events: EventLikelihood, state: State, summary: GaussianSummary | None = None) -> State:
        tuned = {key: value.clone().requires_grad_() for key, value in state.items()}
        optimizer = torch.optim.Adam(tuned.values(), lr=self.rate)

        def loss(events: EventLikelihood) -> Iterator[Tensor]:
            return (part.sum() for part in events.losses(tuned))

        for _ in fit([events] * self.steps, loss, optimizer):
            pass
        return {key: value.detach() for key, value in tuned.items()}


@dataclass(frozen=True)
class LearnedSGD(Adaptation):
    """Gradient descent on the mean loss with a learned rate per entry of a state (Meta-SGD), in episodes and at serving time."""

    initial_scale: float
    steps: int
    from_initial_state = False

    def inner_update(
        self, events: EventLikelihood, state: State, second_order: bool, initial_loss: Tensor | None = None
    ) -> State:
        return _gradient_descent(
            events, state, events.network.positive_scales(), self.steps, second_order, initial_loss
        )

    def warm(self, events: EventLikelihood, state: State, summary: GaussianSummary | None = None) -> State:
        return {key: value.detach() for key, value in self.inner_update(events, state, second_order=False).items()}


@dataclass(frozen=True)
class MAPAdaptation(Adaptation):
    """MAP estimate of the state under the prior φ ~ N(φ₀, diag(s²)), s learned.

    The logits are linearized in φ, `linearizations` times, each followed by Newton steps; see `nn.optim.map_logistic`. They are
    linearized at φ₀ first, or at the mode of the prior and a summary of earlier events.
    """

    initial_scale: float
    linearizations: int
    from_initial_state = True

    def inner_update(
        self, events: EventLikelihood, state: State, second_order: bool, initial_loss: Tensor | None = None
    ) -> State:
        return self._map_estimate(events, state, 1, second_order)

    def warm(self, events: EventLikelihood, state: State, summary: GaussianSummary | None = None) -> State:
        with torch.no_grad():
            return self._map_estimate(events, state, self.linearizations, second_order=False, summary=summary)

    @torch.no_grad()
    def absorb(self, events: EventLikelihood, initial: State, summary: GaussianSummary, rows: int) -> GaussianSummary:
        """The summary with the first `rows` events of each item, expanded at the MAP estimate from all of `events`.

        `events` has no padding: each item has as many.
        """
        scale, first = prior_std(events.network), events.first(rows)
        estimate = self.warm(events, initial, summary)
        logits, jacobian = first.jacobian(estimate)
        delta = (flatten_state(estimate) - flatten_state(initial)) / scale
        labels, weights = first.clicks.label[first.batch.rows], first.weights()
        return summary.with_rows(jacobian * scale, logits, labels, weights, delta)

    def _map_estimate(
        self,
        events: EventLikelihood,
        begin: State,
        linearizations: int,
        second_order: bool,
        summary: GaussianSummary | None = None,
    ) -> State:
        scale = prior_std(events.network)
        labels, weights = events.clicks.label[events.batch.rows], events.weights().to(scale.dtype)
        initial = flatten_state(begin)
        current = initial if summary is None else initial + summary.mode() * scale
        for _ in range(linearizations):
            logits, jacobian = events.jacobian(unflatten_state(current, begin), second_order)
            at_initial = logits - (jacobian @ (current - initial)[..., None])[..., 0]
            current = initial + map_estimate(at_initial, jacobian, labels, weights, scale, NEWTON_STEPS, summary)
        return unflatten_state(current, begin)


AdaptationName = Literal["map", "learned_sgd", "adam"]


def build_adaptation(
    rule: AdaptationName,
    prior_std: float,
    linearizations: int,
    inner_lr: float,
    inner_steps: int,
    warmup_lr: float,
    warmup_steps: int,
) -> Adaptation:
    """The adaptation of this name, from a learner's settings."""
    if rule == "map":
        return MAPAdaptation(prior_std, linearizations)
    if rule == "learned_sgd":
        return LearnedSGD(inner_lr, inner_steps)
    return AdamAdaptation(warmup_lr, warmup_steps, inner_lr, inner_steps)


def prior_std(network: ItemNetwork) -> Float[Tensor, " number"]:
    """The learned prior std of every number of a flat state."""
    return flatten_state({key: value[None] for key, value in network.positive_scales().items()})[0]


def _leaves(state: State) -> dict[str, Tensor]:
    return {key: value.detach().requires_grad_() for key, value in state.items()}


def _gradient_descent(
    events: EventLikelihood,
    state: State,
    rates: Mapping[str, float | Tensor],
    steps: int,
    second_order: bool,
    initial_loss: Tensor | None,
) -> State:
    for _ in range(steps):
        with torch.enable_grad():
            at = dict(state) if second_order or initial_loss is not None else _leaves(state)
            parts = events.losses(at) if initial_loss is None else [initial_loss]
            keep = second_order or initial_loss is not None
            sums = [
                torch.autograd.grad(part.sum(), list(at.values()), create_graph=second_order, retain_graph=keep)
                for part in parts
            ]
        gradients = dict(zip(at, (sum(parts) for parts in zip(*sums, strict=True)), strict=True))
        state, initial_loss = {key: value - rates[key] * gradients[key] for key, value in state.items()}, None
    return state
