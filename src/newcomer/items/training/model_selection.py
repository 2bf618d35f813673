"""Model selection on held-out items: AUC over the whole life of a new item."""

import copy

import numpy as np
import torch
from torch import Tensor, nn

from newcomer.errors import LearnerError
from newcomer.items.adaptation.rules import Adaptation
from newcomer.items.encoding.encoder import Encoder
from newcomer.items.inference import WarmupEvents
from newcomer.items.lifecycle import Lifecycle
from newcomer.items.networks.item_network import ItemNetwork, State
from newcomer.metrics.ranking import auc
from newcomer.nn.ctr.row_shards import RowShard
from newcomer.streams.cold_start import ValidationLife


def lifecycle_auc(lifecycle: Lifecycle, encoder: Encoder, validation: ValidationLife, device: torch.device) -> float:
    """Mean pooled AUC on the query events: cold, and after each warm-up phase. Changes nothing.

    Raises LearnerError for a score that is not finite.
    """

    def query_auc(state: State) -> float:
        scores = lifecycle.predict(state, item_features, query)
        if not np.isfinite(scores).all():
            raise LearnerError("the scores of held-out items are not finite; lower the learning rate")
        return auc(validation.query.label, scores, validation.query.weight)

    names = {name: number for number, name in enumerate(validation.items.ids)}
    item_rows = np.array([names.get(name, -1) for name in validation.query.items.ids])
    item_features = [values.to(device) for values in encoder.items(validation.items)]
    query = encoder.clicks(validation.query, item_rows[validation.query.item]).to(device)
    phases = (encoder.clicks(phase, item_rows[phase.item]).by_row().to(device) for phase in validation.phases)
    aucs = [query_auc(state) for state in lifecycle.states(item_features, len(names), phases)]
    return float(np.mean(aucs))


class ModelSelection(nn.Module):
    """Keeps the weights of the epoch with the best validation AUC; without validation items, the last epoch's."""

    score: Tensor

    def __init__(
        self,
        modules: nn.ModuleList,
        encoder: Encoder,
        validation: ValidationLife | None,
        adaptation: Adaptation,
        warmup_events: WarmupEvents,
        device: torch.device,
    ) -> None:
        super().__init__()
        self.of = [modules]  # in a list, so that they are no submodules
        self.encoder, self.validation, self.adaptation, self.warmup_events, self.device = (
            encoder,
            validation,
            adaptation,
            warmup_events,
            device,
        )
        self.register_buffer("score", torch.tensor(-np.inf, dtype=torch.float64))
        for key, value in self._weights().items() if validation else ():
            self.register_buffer(key, copy.deepcopy(value))

    def update(self, network: ItemNetwork) -> None:
        """Evaluate after an epoch, and keep the weights if they are the best so far."""
        if self.validation is None:
            return
        lifecycle = Lifecycle(network, self.adaptation, self.warmup_events)
        score = lifecycle_auc(lifecycle, self.encoder, self.validation, self.device)
        if score > self.score:
            self.score.fill_(score)
            with torch.no_grad():  # a kept shard is a parameter too
                for key, value in self._weights().items():
                    getattr(self, key).copy_(value)

    def load_best(self) -> None:
        if self.validation is not None:
            names = self.of[0].state_dict()
            self.of[0].load_state_dict({key: getattr(self, _buffer_name(key)) for key in names})

    def _weights(self) -> dict[str, Tensor]:
        weights = self.of[0].state_dict(keep_vars=True)  # which says of a shard that it is one
        return {
            _buffer_name(key): value if isinstance(value, RowShard) else value.detach()
            for key, value in weights.items()
        }


def _buffer_name(key: str) -> str:
    return "best_" + key.replace(".", "_")
