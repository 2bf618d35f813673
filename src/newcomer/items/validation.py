"""Choosing by items that were held back: how a network does on the whole life of new items."""

import copy

import numpy as np
import torch
from torch import nn

from newcomer.items.encoding import Encoder
from newcomer.items.network import ItemNetwork
from newcomer.items.warm import WarmUp, scored, tuned
from newcomer.metrics.ranking import auc
from newcomer.streams.cold_start import Trial
from newcomer.training.fit import evaluating


def life_auc(network: ItemNetwork, encoder: Encoder, trial: Trial, warm_up: WarmUp, device: torch.device) -> float:
    """Mean of the pooled AUC on the query, cold and after each phase. Changes nothing."""
    names = {name: number for number, name in enumerate(trial.items.ids)}
    place = np.array([names.get(name, -1) for name in trial.query.items.ids])
    own = [values.to(device) for values in encoder.items(trial.items)]
    query = encoder.clicks(trial.query, place[trial.query.item]).to(device)
    with evaluating(network):
        written = network.begin(own, len(names))
    state = {key: value.detach().clone() for key, value in written.items()}
    found = [auc(trial.query.label, scored(network, state, own, query))]
    for phase in trial.phases:
        clicks = encoder.clicks(phase, place[phase.item]).to(device)
        for items, new, _ in tuned(network, state, own, clicks, warm_up):
            for key, value in new.items():
                state[key][items] = value
        found.append(auc(trial.query.label, scored(network, state, own, query)))
    return float(np.mean(found))


class Best:
    """Remembers the modules as they were after their best epoch; without a trial, the last is the best."""

    def __init__(
        self, modules: nn.ModuleList, encoder: Encoder, trial: Trial | None, warm_up: WarmUp, device: torch.device
    ) -> None:
        self.modules, self.encoder, self.trial, self.warm_up, self.device = modules, encoder, trial, warm_up, device
        self.score, self.weights = -np.inf, modules.state_dict()

    def consider(self, network: ItemNetwork) -> None:
        """Ask after every epoch."""
        if self.trial is None:
            return
        score = life_auc(network, self.encoder, self.trial, self.warm_up, self.device)
        if score > self.score:
            self.score, self.weights = score, copy.deepcopy(self.modules.state_dict())

    def restore(self) -> None:
        self.modules.load_state_dict(self.weights)
