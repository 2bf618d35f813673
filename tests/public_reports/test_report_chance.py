"""The global random state is restored, on every device."""

from typing import Any

import pytest
import torch

from newcomer.items.networks.item_network import seeded_rng


def test_only_the_generator_that_is_used_is_started_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """A click model was made in the midst of a user's own training on a GPU: all CUDA generators were started anew."""
    touched: list[Any] = []
    for device in (torch.cuda, torch.mps, torch.xpu):
        for name in ("manual_seed", "manual_seed_all"):
            if hasattr(device, name):
                monkeypatch.setattr(device, name, touched.append)
    torch.manual_seed(3)
    touched.clear()
    before = torch.get_rng_state()
    with seeded_rng(0, "weights"):
        first = torch.randn(4)
    assert torch.equal(torch.get_rng_state(), before)
    with seeded_rng(0, "weights"):
        assert torch.equal(torch.randn(4), first)
    with seeded_rng(0, "others"):
        assert not torch.equal(torch.randn(4), first)
    assert touched == []
