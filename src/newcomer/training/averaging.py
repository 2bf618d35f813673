"""The mean of weights over the last steps of training (Izmailov et al., UAI 2018), which lies amid what they wandered through."""

from collections.abc import Iterable

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel


class Average(nn.Module):
    """The mean of `parameters` over the last `share` of all steps; with a share of nothing it keeps and does nothing."""

    def __init__(self, parameters: Iterable[nn.Parameter], share: float) -> None:
        super().__init__()
        self.begins = 1 - share
        self.mean = AveragedModel(nn.ParameterList(parameters)) if share else None

    @torch.no_grad()
    def see(self, parameters: Iterable[nn.Parameter], done: float) -> None:
        """What they are after a step, with which this share of all steps is `done`."""
        if self.mean is not None and done > self.begins:
            self.mean.update_parameters(nn.ParameterList(parameters))

    @torch.no_grad()
    def give(self, parameters: Iterable[nn.Parameter]) -> bool:
        """Make them the mean; whether there is one."""
        if self.mean is None:
            return False
        for parameter, mean in zip(parameters, self.mean.module.parameters(), strict=True):
            parameter.copy_(mean)
        return True
