"""Choosing by items that were held back: how a network does on the whole life of new items."""

import numpy as np
import torch
from torch import Tensor, nn

from newcomer.items.adaptation.rules import Adaptation
from newcomer.items.encoding.encoder import Encoder, joined_clicks
from newcomer.items.inference import History, begun, scored, tuned
from newcomer.items.networks.item_network import ItemNetwork
from newcomer.metrics.ranking import auc
from newcomer.streams.cold_start import Trial


def life_auc(
    network: ItemNetwork, encoder: Encoder, trial: Trial, adaptation: Adaptation, history: History, device: torch.device
) -> float:
    """Mean of the pooled AUC on the query, cold and after each phase. Changes nothing."""
    names = {name: number for number, name in enumerate(trial.items.ids)}
    place = np.array([names.get(name, -1) for name in trial.query.items.ids])
    own = [values.to(device) for values in encoder.items(trial.items)]
    query = encoder.clicks(trial.query, place[trial.query.item]).to(device)
    cold = begun(network, own, len(names))
    state, past = dict(cold), None
    found = [auc(trial.query.label, scored(network, state, own, query))]
    for phase in trial.phases:
        clicks = encoder.clicks(phase, place[phase.item]).by_row().to(device)
        past = joined_clicks([past, clicks]) if past is not None and history == "all" else clicks
        start = cold if adaptation.from_the_start and history == "all" else state
        for items, new in tuned(network, start, own, past, adaptation):
            for key, value in new.items():
                state[key] = state[key].index_copy(0, items, value)
        found.append(auc(trial.query.label, scored(network, state, own, query)))
    return float(np.mean(found))


class Best(nn.Module):
    """Remembers modules as they were after their best epoch; without a trial, the last is the best."""

    score: Tensor

    def __init__(
        self,
        modules: nn.ModuleList,
        encoder: Encoder,
        trial: Trial | None,
        adaptation: Adaptation,
        history: History,
        device: torch.device,
    ) -> None:
        super().__init__()
        self.of = [modules]  # in a list: they are looked at, they are not parts
        self.encoder, self.trial, self.adaptation, self.history, self.device = (
            encoder,
            trial,
            adaptation,
            history,
            device,
        )
        self.register_buffer("score", torch.tensor(-np.inf, dtype=torch.float64))
        for key, value in self._weights().items() if trial else ():
            self.register_buffer(key, value.clone())

    def consider(self, network: ItemNetwork) -> None:
        """Ask after every epoch."""
        if self.trial is None:
            return
        score = life_auc(network, self.encoder, self.trial, self.adaptation, self.history, self.device)
        if score > self.score:
            self.score.fill_(score)
            for key, value in self._weights().items():
                getattr(self, key).copy_(value)

    def restore(self) -> None:
        if self.trial is not None:
            names = self.of[0].state_dict()
            self.of[0].load_state_dict({key: getattr(self, _flat(key)) for key in names})

    def _weights(self) -> dict[str, Tensor]:
        return {_flat(key): value for key, value in self.of[0].state_dict().items()}


def _flat(key: str) -> str:
    return "best_" + key.replace(".", "_")
