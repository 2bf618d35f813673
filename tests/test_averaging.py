"""Weight averaging over the last steps."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from newcomer.data.datasets.simulated_clicks import simulate_click_log
from newcomer.items.methods.id_tuning import IdTuning
from newcomer.streams.cold_start import OldItems
from newcomer.streams.stage import Stage
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


def test_pretraining_ends_at_the_mean_over_its_last_steps() -> None:
    """The initial id and bias apart, into which the residuals' mean moves afterwards."""
    log = simulate_click_log(old_items=8, old_events=40, new_items=3, new_events=12, users=10)
    learner = IdTuning(log.schema, width=4, hidden=[8], pretrain_epochs=2, batch_size=40, weight_averaging=0.5)

    def weights() -> Tensor:
        named = learner.network.named_parameters()
        return torch.cat([weight.detach().flatten() for name, weight in named if name != "start"])

    steps = {
        step.step / step.steps: weights()
        for step in learner.fit_stage(Stage("old", OldItems(log.of_items(np.arange(8))), {}))
        if step.part == "pretrain"
    }
    last = [weight for done, weight in steps.items() if done > 0.5]
    assert len(steps) == 2 * len(last) > 2
    torch.testing.assert_close(weights(), torch.stack(last).mean(0))
    assert not torch.allclose(weights(), last[-1])
