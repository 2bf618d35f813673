"""No state and no score that is not a finite number is kept, or given as an answer."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from newcomer.data.click_log import Log
from newcomer.errors import LearnerError
from newcomer.items.networks.item_network import State
from newcomer.shapes import Bool, Tensor

COUNTS = ("seen",)
"""Parts of a state that count events: of an item that is not new, MWUF writes infinitely many."""


def sound(state: State) -> Bool[Tensor, " item"]:
    """Which items have a state of finite numbers alone.

    >>> sound({"id": torch.tensor([[1.0, 2.0], [1.0, torch.nan]]), "bias": torch.zeros(2, 1)}).tolist()
    [True, False]
    """
    wholes = [value.isfinite() if key not in COUNTS else ~value.isnan() for key, value in state.items()]
    return torch.stack([whole.flatten(1).all(dim=1) for whole in wholes]).all(dim=0)


def require_sound(names: Sequence[str], state: State) -> None:
    """Raises LearnerError, with its name, for the first of these items whose state is no finite number."""
    if not names:
        return
    unsound = (~sound(state)).nonzero()[:, 0].tolist()
    if unsound:
        raise LearnerError(
            f"item '{names[unsound[0]]}': its state would become no number; look for numbers far out in its features and events, "
            "or lower the learning rate"
        )


def require_numbers(scores: NDArray[Any], log: Log) -> None:
    """Raises LearnerError, with its item and row, for the first score that is no number."""
    wrong = np.flatnonzero(~np.isfinite(scores))
    if len(wrong):
        row = int(wrong[0])
        raise LearnerError(
            f"{len(wrong)} of {len(scores)} scores are no numbers, the first that of item '{log.items.ids[log.item[row]]}' "
            f"(row {log.row[row] + 1}); look for numbers far out in its events, or teach the model anew at a lower rate"
        )
