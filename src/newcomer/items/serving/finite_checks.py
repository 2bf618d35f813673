"""Checks that states and scores are finite."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from newcomer.data.click_log import ClickLog
from newcomer.errors import LearnerError
from newcomer.items.networks.item_network import State
from newcomer.shapes import Bool, Tensor

COUNTS = ("seen",)
"""State tensors that count events; MWUF sets them to infinity for trained items."""


def all_finite(state: State) -> Bool[Tensor, " item"]:
    """Which items have finite states.

    >>> all_finite({"id": torch.tensor([[1.0, 2.0], [1.0, torch.nan]]), "bias": torch.zeros(2, 1)}).tolist()
    [True, False]
    """
    wholes = [value.isfinite() if key not in COUNTS else ~value.isnan() for key, value in state.items()]
    return torch.stack([whole.flatten(1).all(dim=1) for whole in wholes]).all(dim=0)


def require_finite_states(names: Sequence[str], state: State) -> None:
    """Raises LearnerError for the first item whose state is not finite."""
    if not names:
        return
    non_finite = (~all_finite(state)).nonzero()[:, 0].tolist()
    if non_finite:
        raise LearnerError(
            f"item '{names[non_finite[0]]}': its state would become no number; look for extreme numbers in its features and "
            "events, or lower the learning rate"
        )


def require_finite_scores(scores: NDArray[Any], log: ClickLog) -> None:
    """Raises LearnerError for the first score that is not finite."""
    wrong = np.flatnonzero(~np.isfinite(scores))
    if len(wrong):
        row = int(wrong[0])
        raise LearnerError(
            f"{len(wrong)} of {len(scores)} scores are no numbers, the first that of item '{log.items.ids[log.item[row]]}' "
            f"(row {log.row[row] + 1}); look for extreme numbers in its events, or train the model again at a lower rate"
        )
