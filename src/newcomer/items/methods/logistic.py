"""Logistic regression: the plain rows of every table, and what is left of it without features, users or items: rates."""

from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn

from newcomer.data.schema import Schema
from newcomer.errors import LearnerError
from newcomer.items.adaptation.rules import MAPAdaptation
from newcomer.items.configuration import Pretraining, Probabilities
from newcomer.items.encoding.encoder import Values
from newcomer.items.learner import ItemLearner
from newcomer.items.networks.linear_network import LinearFields, LinearNetwork
from newcomer.items.training.linear_fit import STD, fit_linear
from newcomer.items.training.meta_learning import rule_meta_learning
from newcomer.items.training.model_selection import ModelSelection
from newcomer.items.training.pretraining import center_residuals
from newcomer.items.training.training_data import InMemory, TrainingData
from newcomer.nn.ctr.field_embeddings import FieldSize
from newcomer.training.learner import Step


class Logistic(ItemLearner):
    """Logistic regression with Gaussian priors: a weight for every value of `fields`, and a bias for every item.

    Weights and old items' biases are a MAP estimate under priors whose stds are estimated from the data
    (`items.training.linear_fit`), so that there is nothing to tune. A new item's bias begins at the old items' mean; a warm-up is
    its MAP estimate from all of its events: few events move it little.

    - `fields`: 'all'; the 'user' alone, so that the logit is that of the user's click rate, shrunk to that of all users; or 'none'.
    - `item_bias`: whether items differ beyond their fields. Without it and with `fields` 'none' every score is the click rate.
    - `calibrate`, `negative_rate`: see `items.configuration.Probabilities`.
    - `seed`, `device`: of the items held out for calibration; a GPU if there is one by default.
    """

    name = "logistic"
    network: LinearNetwork

    def __init__(
        self,
        schema: Schema,
        *,
        fields: LinearFields = "all",
        item_bias: bool = True,
        probabilities: Probabilities = Probabilities(),
        seed: int = 0,
        device: str | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(
            schema,
            Pretraining(epochs=1),
            rule_meta_learning(0),
            MAPAdaptation(STD, 1),
            "all",
            seed,
            device,
            probabilities=probabilities,
        )
        self.used_fields, self.item_bias = fields, item_bias

    def _build(self, item_sizes: Sequence[FieldSize], row_sizes: Sequence[FieldSize]) -> LinearNetwork:
        return LinearNetwork(item_sizes, row_sizes, self.used_fields, STD)

    def _train_network(
        self, stage: str, old: TrainingData, item_features: Values, residuals: nn.Embedding, selection: ModelSelection
    ) -> Iterator[Step]:
        if not isinstance(old, InMemory):
            raise LearnerError("logistic needs a log in memory, and this one is read in chunks; choose another learner")
        yield from fit_linear(self.network, residuals, item_features, old.clicks, self.item_bias)
        center_residuals(self.network, residuals)
        selection.update(self.network)
