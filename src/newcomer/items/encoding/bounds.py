"""Bounds of encoded numbers, for values encoded before there was a bound."""

import torch

from newcomer.data.vocabulary import BOUND
from newcomer.items.encoding.encoder import Values
from newcomer.shapes import Tensor

FINITE = 1e18
"""Larger than any encoded number; its square is finite in float64."""


def within_bounds(values: Values) -> Values:
    """Clip numbers to the bound, and scale vectors down to it; NaN ('missing') stays.

    >>> within_bounds([torch.tensor([0.5, 1e7, -torch.inf, torch.nan]), torch.tensor([3])])
    [tensor([  0.5000,  10.0000, -10.0000,      nan]), tensor([3])]
    """
    return [_bounded(value) if value.is_floating_point() else value for value in values]


def out_of_bounds(values: Values) -> list[int]:
    """Indices of the rows with a value out of bounds.

    >>> out_of_bounds([torch.tensor([0.5, 11.0, torch.nan]), torch.tensor([300, 2, 2])])
    [1]
    """
    rows: set[int] = set()
    for value in values:
        if value.is_floating_point() and len(value):
            other = (value != _bounded(value)) & ~value.isnan()
            rows |= set(other.reshape(len(value), -1).any(dim=1).nonzero()[:, 0].tolist())
    return sorted(rows)


def _bounded(value: Tensor) -> Tensor:
    if value.ndim < 2:
        return value.clamp(-BOUND, BOUND)
    near = value.clamp(-FINITE, FINITE)
    size = near.double().square().mean(dim=-1, keepdim=True).sqrt()
    shorter = (near * (BOUND / size)).to(value.dtype)
    return torch.where(size > BOUND * (1 + 1e-6), shorter, near)
