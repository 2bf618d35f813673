"""Whether graphs of items can pay in a log: pair weights fitted to each item's own events, beside one weight a pair for all items.

A field-weighted factorization machine (FwFM: Pan et al., WWW 2018) has one weight r_mn for each pair of fields,

    logit = … + Σ_{m<n} r_mn ⟨v_m, v_n⟩,

which is what a second-order feature graph says (`nn.ctr.feature_graph`). A model is trained on most events of all items. Then its
logit is corrected, with all of that model frozen: by r_mn that all items share, then by each item's own bias and id embedding, and
beside these by each item's own r_imn. The last is an upper bound: no rule that makes a graph of an item's fields or few events
knows more of the item than the fit to all of its events. What it gains on events held out, over the same without r_imn, is what
second-order graphs of items can gain in this log, as far as the model's vectors v tell the fields' values apart.
"""

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from newcomer.data.click_log import ClickLog
from newcomer.errors import DataError
from newcomer.items.adaptation.rules import EventLikelihood
from newcomer.items.configuration import AveragedPretraining, Probabilities
from newcomer.items.encoding.encoder import Clicks
from newcomer.items.inference import frozen, select
from newcomer.items.learner import ItemLearner
from newcomer.items.methods.id_tuning import IdTuning
from newcomer.items.padding import by_item
from newcomer.metrics.ranking import auc
from newcomer.nn.optim.map_logistic import map_estimate
from newcomer.seeds import shuffled
from newcomer.shapes import Float, Tensor
from newcomer.streams.cold_start import OldItems
from newcomer.streams.stage import Stage
from newcomer.training.fit import evaluating
from newcomer.training.learner import Step

PARTS = 5
"""One of so many events is held out, and another one chooses the priors."""

MIN_EVENTS = 40
"""Events of an item from which it is looked at: fewer say nothing of its pairs."""

MIN_ITEMS, MIN_LABELS = 20, 50
"""Least number of such items, and of their held-out events with each label."""

MAX_EVENTS = 500_000
"""Events of the items that are looked at; of more, items are drawn."""

BATCH_SIZES, STEPS, EPOCHS = (64, 512), 1250, (2, 10)
"""Least steps of training, and epochs for them: pairs of vectors that have learned nothing look as if no graph could pay."""

MAX_ROWS = 32_768
"""Rows of a padded batch."""

Stds = tuple[float, float]
"""Prior stds of an item's bias and id embedding, and of its pair weights; 0: it has none."""

OWN_STDS = (0.1, 0.3, 1.0)
PAIR_STDS = (0.03, 0.1, 0.3, 1.0, 3.0)
TRIALS = len(OWN_STDS) + len(PAIR_STDS)

SHARED_STD = 1.0
"""Prior std of the weights that all items share."""

NEWTON_STEPS = 8

DRAWS = 200
"""Bootstrap samples of items."""

PAYS = 0.001
"""Least gain of AUC of which a model can have a part that anyone notices."""


@dataclass(frozen=True)
class GraphCeiling:
    """AUC on held-out events of the items that were looked at.

    `shared`: one weight a pair for all items, and each item's own bias and id embedding; `own`: each item's own weights, too. `low`
    and `high`: the interval that holds `own - shared` with a confidence of .95, by bootstrap over items. `prior_std`: of the
    weights, as chosen; at 0 items need no weights of their own and `own` is `shared`.
    """

    items: int
    events: int
    held_out: int
    shared: float
    own: float
    low: float
    high: float
    prior_std: float

    @property
    def gain(self) -> float:
        """What weights of its own for each item add to the AUC."""
        return self.own - self.shared

    @property
    def can_pay(self) -> bool:
        """Whether the gain is worth a graph, and is none by chance."""
        return self.gain >= PAYS and self.low > 0


def graph_ceiling(log: ClickLog, seed: int = 0) -> Generator[Step, None, GraphCeiling]:
    """Train a model on the log, and return what item graphs could add to it at most; see the module.

    Raises DataError for a log in which fewer than `MIN_ITEMS` items have `MIN_EVENTS` events, for fewer than `MIN_LABELS` held-out
    clicks or others, and for fewer than two fields beside the item's id.
    """
    if len(log.schema.nodes) < 3:
        raise DataError("item graphs need two fields beside the item's id; this log has fewer")
    chosen, part = _chosen_items(log, seed), _parts(len(log), seed)
    _require_labels(log.label[(part == 0) & np.isin(log.item, chosen)])
    train = log.take(part > 0)
    model = IdTuning(
        log.schema, probabilities=Probabilities(calibrate=False), pretraining=_pretraining(len(train)), seed=seed
    )
    yield from model.fit_stage(Stage("old", OldItems(train), {}))
    known = np.array([name in model.known for name in log.items.ids])
    wanted = np.flatnonzero(np.isin(log.item, chosen) & known[log.item])
    rows = _Rows.of(model, log.take(wanted), part[wanted])
    losses = dict[Stds, float]()
    for done, stds in enumerate(_grid(losses), 1):
        losses[stds] = rows.log_loss(rows.logits(stds, rows.part > 1), rows.part == 1)
        yield Step("pair weights", done, TRIALS)
    held_out = rows.part == 0
    best, without = (min(among, key=losses.__getitem__) for among in (losses, [one for one in losses if not one[1]]))
    shared, own = (rows.logits(stds, ~held_out)[held_out] for stds in (without, best))
    label, item, weight = rows.label[held_out], rows.item[held_out], rows.weight[held_out]
    low, high = _interval(item, label, weight, shared, own, seed)
    of_shared, of_own = (auc(label, score, weight) for score in (shared, own))
    return GraphCeiling(len(np.unique(rows.item)), len(rows.item), len(label), of_shared, of_own, low, high, best[1])


def _grid(losses: Mapping[Stds, float]) -> Iterator[Stds]:
    """First stds of bias and id embedding alone, then of pair weights beside the best of them."""
    yield from ((std, 0.0) for std in OWN_STDS)
    best = min(losses, key=losses.__getitem__)
    yield from ((best[0], std) for std in PAIR_STDS)


@dataclass(frozen=True)
class _Rows:
    """Events of some items, and what their logits are made of."""

    clicks: Clicks
    part: NDArray[np.int64]
    base: Float[Tensor, " row"]
    """Logits with weights that all items share."""
    own: Float[Tensor, "row number"]
    """Derivatives with respect to an item's bias and id embedding."""
    pairs: Float[Tensor, "row pair"]
    """⟨v_m, v_n⟩, with unit std."""

    @classmethod
    def of(cls, model: ItemLearner, log: ClickLog, part: NDArray[np.int64]) -> Self:
        numbers = np.array([model.known.get(name, -1) for name in log.items.ids])
        clicks = model.encoder.clicks(log, numbers[log.item]).to(model.device).by_row()
        pairs = _pairs(model, clicks)
        pairs = pairs / pairs.std(dim=0).clamp(min=1e-12)
        base, own = _linearized(model, clicks)
        fitted = torch.from_numpy(part > 1).to(model.device)
        std = pairs.new_full((pairs.shape[1],), SHARED_STD)
        weights = clicks.weights(fitted.nonzero()[:, 0])[None].to(base)
        shared = map_estimate(
            base[None, fitted], pairs[None, fitted], clicks.label[None, fitted], weights, std, NEWTON_STEPS
        )
        return cls(clicks, part, base + pairs @ shared[0], own, pairs)

    @property
    def item(self) -> NDArray[np.int64]:
        found: NDArray[np.int64] = self.clicks.item.cpu().numpy()
        return found

    @property
    def label(self) -> NDArray[np.float64]:
        found: NDArray[np.float64] = self.clicks.label.double().cpu().numpy()
        return found

    @property
    def weight(self) -> NDArray[np.float64]:
        every = torch.arange(len(self.clicks), device=self.clicks.item.device)
        found: NDArray[np.float64] = self.clicks.weights(every).double().cpu().numpy()
        return found

    def log_loss(self, logits: NDArray[np.float64], rows: NDArray[np.bool_]) -> float:
        """Weighted mean over these rows, in nats."""
        logit, label = logits[rows], self.label[rows]
        return float(np.average(np.logaddexp(0, logit) - label * logit, weights=self.weight[rows]))

    def logits(self, stds: Stds, fitted: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Logits of all rows, after the MAP estimate of each item's numbers from its `fitted` rows."""
        jacobian = torch.cat([self.own, self.pairs], dim=1) if stds[1] else self.own
        scale = jacobian.new_full((jacobian.shape[1],), stds[1])
        scale[: self.own.shape[1]] = stds[0]
        found, mask = torch.empty_like(self.base), torch.from_numpy(fitted).to(self.base.device)
        for batch in by_item(self.clicks.item, MAX_ROWS):
            rows = batch.rows
            labels, weights = self.clicks.label[rows], (batch.real & mask[rows]) * self.clicks.weights(rows).to(scale)
            moved = map_estimate(self.base[rows], jacobian[rows], labels, weights, scale, NEWTON_STEPS)
            logits = self.base[rows] + (jacobian[rows] @ moved[..., None])[..., 0]
            found[rows[batch.real]] = logits[batch.real]
        return found.double().cpu().numpy()


def _linearized(model: ItemLearner, clicks: Clicks) -> tuple[Float[Tensor, " row"], Float[Tensor, "row number"]]:
    """Logits of the trained model, and their Jacobian with respect to the item's state."""
    width = sum(value[0].numel() for value in model.state.values())
    logits = torch.empty(len(clicks), device=model.device)
    jacobian = torch.empty(len(clicks), width, device=model.device)
    with frozen(model.network), torch.no_grad():
        for batch in by_item(clicks.item, MAX_ROWS):
            likelihood = EventLikelihood.of(model.network, model.item_features, clicks, batch, {})
            found, moved = likelihood.jacobian(select(model.state, batch.items))
            rows = batch.rows[batch.real]
            logits[rows], jacobian[rows] = found[batch.real], moved[batch.real]
    return logits, jacobian


def _pairs(model: ItemLearner, clicks: Clicks) -> Float[Tensor, "row pair"]:
    """Inner products of the vectors of all pairs of fields."""
    one, other = map(list, zip(*combinations(range(model.network.fields), 2), strict=True))
    found = []
    with evaluating(model.network):
        for begin in range(0, len(clicks), MAX_ROWS):
            rows = torch.arange(begin, min(begin + MAX_ROWS, len(clicks)), device=model.device)
            of, values = clicks.item[rows], clicks.values(rows)
            vectors = model.network.embed_rows(model.state["id"], model.item_features, of, values)
            found.append((vectors[:, one] * vectors[:, other]).sum(dim=-1))
    return torch.cat(found)


def _chosen_items(log: ClickLog, seed: int) -> NDArray[np.int64]:
    """Items with enough events, drawn up to `MAX_EVENTS` events."""
    counts = np.bincount(log.item, minlength=len(log.items))
    items = np.flatnonzero(counts >= MIN_EVENTS)
    if len(items) < MIN_ITEMS:
        raise DataError(
            f"{len(items)} items have {MIN_EVENTS} events or more; to see whether item graphs can pay takes {MIN_ITEMS} of them"
        )
    items = items[shuffled(len(items), seed, "graph ceiling", "items")]
    return np.sort(items[: max(MIN_ITEMS, int(np.searchsorted(np.cumsum(counts[items]), MAX_EVENTS)) + 1)])


def _require_labels(held_out: NDArray[np.floating]) -> None:
    """Raises DataError if AUCs of these labels would say nothing."""
    clicks = int(held_out.sum())
    if min(clicks, len(held_out) - clicks) < MIN_LABELS:
        raise DataError(
            f"the fifth of the events that is held out has {clicks} clicks among {len(held_out)}; to see whether item graphs can "
            f"pay takes {MIN_LABELS} clicks and as many others"
        )


def _pretraining(rows: int) -> AveragedPretraining:
    """Settings of a training on so many events."""
    small, large = BATCH_SIZES
    batch = large if rows >= STEPS * large else small
    return AveragedPretraining(batch_size=batch, epochs=min(max(-(-STEPS * batch // rows), EPOCHS[0]), EPOCHS[1]))


def _parts(rows: int, seed: int) -> NDArray[np.int64]:
    """Part of each event: 0 held out, 1 chooses the priors, others are only fitted."""
    part = np.empty(rows, dtype=np.int64)
    part[shuffled(rows, seed, "graph ceiling", "parts")] = np.arange(rows) % PARTS
    return part


def _interval(
    item: NDArray[np.int64],
    label: NDArray[np.float64],
    weight: NDArray[np.float64],
    shared: NDArray[np.float64],
    own: NDArray[np.float64],
    seed: int,
) -> tuple[float, float]:
    """The .95 interval of the difference of pooled AUCs, by bootstrap over items."""
    items, of = np.unique(item, return_inverse=True)
    chance = np.random.default_rng(seed)
    rankings = [_Ranking(label, score) for score in (shared, own)]
    differences = []
    for _ in range(DRAWS):
        drawn = np.bincount(chance.integers(len(items), size=len(items)), minlength=len(items))[of]
        one, other = (ranking.auc(drawn * weight) for ranking in rankings)
        differences.append(other - one)
    low, high = np.quantile(differences, [0.025, 0.975])
    return float(low), float(high)


class _Ranking:
    """Rows in the order of their scores, for AUCs under many weights of rows."""

    def __init__(self, label: NDArray[np.float64], score: NDArray[np.float64]) -> None:
        self._order = np.argsort(score, kind="stable")
        self._label = label[self._order]

    def auc(self, weight: NDArray[np.float64]) -> float:
        """The weighted AUC; ties, of which continuous scores have few, count by their order."""
        weight = weight[self._order]
        below = np.cumsum(weight * (1 - self._label))
        clicks = weight * self._label
        return float((clicks @ below) / (clicks.sum() * below[-1]))
