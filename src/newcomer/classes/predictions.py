"""What a classifier says of an input: the likeliest classes, and whether it belongs to any."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from newcomer.data.containers import plain
from newcomer.errors import SettingError
from newcomer.shapes import Float, Tensor


@dataclass(frozen=True)
class Answer:
    """What is said of one input."""

    classes: list[str]
    """The likeliest classes, the likeliest first."""
    probabilities: list[float]
    known: bool
    """False where it is further from every class than the share asked for of their own examples is."""


def ranked(
    probabilities: Float[Tensor, "batch klass"], classes: Sequence[str], top: int, known: Sequence[bool]
) -> list[Answer]:
    """The `top` classes of each row with their probabilities; of equal ones the class learned first."""
    best = probabilities.sort(dim=1, descending=True, stable=True)
    return [
        Answer([classes[i] for i in order[:top]], shares[:top], sure)
        for order, shares, sure in zip(best.indices.tolist(), best.values.tolist(), known, strict=True)
    ]


def choices(top: Any, reject: Any) -> tuple[int, float | None]:
    """`top` and `reject` as Python's own numbers.

    Raises SettingError unless `top` is a whole number from 1 on and `reject` None or a share.
    """
    top, reject = plain(top), plain(reject)
    if isinstance(top, bool) or not isinstance(top, int) or top < 1:
        raise SettingError(f"answer: top = {top!r}; give a whole number from 1 on")
    if reject is None:
        return top, None
    if isinstance(reject, bool) or not isinstance(reject, (int, float)) or not 0 <= reject <= 1:
        raise SettingError(f"answer: reject = {reject!r}; give a share of known examples from 0 to 1, e.g. 0.05")
    return top, reject
