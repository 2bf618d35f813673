"""A temperature is fitted only where logits are informative."""

import pytest
import torch

from newcomer.nn.features.temperature import HOTTEST, temperature


@pytest.mark.parametrize(
    "logits",
    [
        torch.zeros(6, 3),
        torch.full((6, 3), 7.5),
        torch.arange(6.0)[:, None].expand(6, 3),
        1e-12 * torch.randn(6, 3, generator=torch.Generator().manual_seed(0)).double(),
        torch.full((6, 3), float("nan")),
    ],
    ids=["zero", "equal", "equal in each row", "rounding", "no numbers"],
)
def test_uninformative_logits_have_temperature_1(logits: torch.Tensor) -> None:
    """Logits that are the same for all classes had 1e-4: whatever came later was taken for certain."""
    assert temperature(logits, torch.tensor([0, 1, 2, 0, 1, 2])) == 1.0


def test_misleading_logits_have_a_high_temperature() -> None:
    """Answers that are mostly wrong are worth less than none: their temperature is as high as it goes."""
    target = torch.tensor([0, 1] * 20)
    assert temperature(5.0 * torch.eye(2)[1 - target], target) == pytest.approx(HOTTEST, rel=1e-3)
