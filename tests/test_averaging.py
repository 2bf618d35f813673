"""Weight averaging over the last steps."""

import pytest
import torch
from torch import nn

from newcomer.training.averaging import Average


@pytest.mark.parametrize(
    ("share", "counted"), [(1.0, range(1, 11)), (0.5, range(6, 11)), (0.25, range(8, 11)), (1e-9, [10])]
)
def test_it_is_the_mean_of_the_last_share_of_steps(share: float, counted: range) -> None:
    weights = [nn.Parameter(torch.zeros(2, dtype=torch.float64)), nn.Parameter(torch.zeros(1, dtype=torch.float64))]
    mean, seen = Average(weights, share), {}
    for step in range(1, 11):
        with torch.no_grad():
            for n, weight in enumerate(weights):
                weight.fill_((step + n) ** 2)
        seen[step] = [weight.detach().clone() for weight in weights]
        mean.update(weights, step / 10)
    assert mean.copy_to(weights)
    for n, weight in enumerate(weights):
        torch.testing.assert_close(weight.detach(), torch.stack([seen[step][n] for step in counted]).mean(0))


def test_without_a_share_nothing_is_kept_or_changed() -> None:
    weight = nn.Parameter(torch.ones(3))
    mean = Average([weight], 0.0)
    mean.update([weight], 1.0)
    assert not mean.state_dict()
    assert not mean.copy_to([weight])
    assert torch.equal(weight, torch.ones(3))
