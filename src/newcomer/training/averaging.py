"""Weight averaging over the last steps of training (Izmailov et al., UAI 2018)."""

from collections.abc import Iterable

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel


class Average(nn.Module):
    """Running mean of `parameters` over the last `share` of all steps; inactive for share 0."""

    def __init__(self, parameters: Iterable[nn.Parameter], share: float) -> None:
        super().__init__()
        self.begins = 1 - share
        self.mean = AveragedModel(nn.ParameterList(parameters)) if share else None

    @torch.no_grad()
    def update(self, parameters: Iterable[nn.Parameter], done: float) -> None:
        """Add the parameters after a step; `done`: share of all steps done."""
        if self.mean is not None and done > self.begins:
            self.mean.update_parameters(nn.ParameterList(parameters))

    @torch.no_grad()
    def copy_to(self, parameters: Iterable[nn.Parameter]) -> bool:
        """Set the parameters to their mean; returns whether there is one."""
        if self.mean is None:
            return False
        for parameter, mean in zip(parameters, self.mean.module.parameters(), strict=True):
            parameter.copy_(mean)
        return True
