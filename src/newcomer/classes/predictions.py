"""Top-k predictions of a classifier, with rejection of unknown inputs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from newcomer.data.containers import to_python
from newcomer.errors import SettingError
from newcomer.shapes import Float, Tensor


@dataclass(frozen=True)
class Prediction:
    """Top-k prediction for one input."""

    classes: list[str]
    """The top classes, most probable first."""
    probabilities: list[float]
    known: bool
    """False if the novelty score exceeds the rejection threshold: the input probably belongs to no known class."""


def ranked(
    probabilities: Float[Tensor, "batch class"], classes: Sequence[str], top: int, known: Sequence[bool]
) -> list[Prediction]:
    """The `top` classes of each row with their probabilities; ties go to the class learned first."""
    best = probabilities.sort(dim=1, descending=True, stable=True)
    return [
        Prediction([classes[i] for i in order[:top]], shares[:top], sure)
        for order, shares, sure in zip(best.indices.tolist(), best.values.tolist(), known, strict=True)
    ]


def choices(top: Any, reject: Any) -> tuple[int, float | None]:
    """`top` and `reject` as Python numbers.

    Raises SettingError unless `top` is a whole number from 1 on and `reject` None or a share.
    """
    top, reject = to_python(top), to_python(reject)
    if isinstance(top, bool) or not isinstance(top, int) or top < 1:
        raise SettingError(f"predict_topk: top = {top!r}; give a whole number from 1 on")
    if reject is None:
        return top, None
    if isinstance(reject, bool) or not isinstance(reject, (int, float)) or not 0 <= reject <= 1:
        raise SettingError(f"predict_topk: reject = {reject!r}; give a share of known examples from 0 to 1, e.g. 0.05")
    return top, reject
