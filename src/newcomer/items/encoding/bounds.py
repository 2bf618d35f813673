"""How far out an encoded number may lie. What was kept before there was a bound must not carry an item away."""

import torch

from newcomer.data.vocabulary import BOUND
from newcomer.items.encoding.encoder import Values
from newcomer.shapes import Tensor

FINITE = 1e18
"""Further out than any number, near enough for its square."""


def within_bounds(values: Values) -> Values:
    """The same where all lies within; else numbers cut off and vectors shortened. NaN stays what it is, 'not known'.

    >>> within_bounds([torch.tensor([0.5, 1e7, -torch.inf, torch.nan]), torch.tensor([3])])
    [tensor([  0.5000,  10.0000, -10.0000,      nan]), tensor([3])]
    """
    return [_bounded(value) if value.is_floating_point() else value for value in values]


def out_of_bounds(values: Values) -> list[int]:
    """The things of which any value lies further out.

    >>> out_of_bounds([torch.tensor([0.5, 11.0, torch.nan]), torch.tensor([300, 2, 2])])
    [1]
    """
    found: set[int] = set()
    for value in values:
        if value.is_floating_point() and len(value):
            other = (value != _bounded(value)) & ~value.isnan()
            found |= set(other.reshape(len(value), -1).any(dim=1).nonzero()[:, 0].tolist())
    return sorted(found)


def _bounded(value: Tensor) -> Tensor:
    if value.ndim < 2:
        return value.clamp(-BOUND, BOUND)
    near = value.clamp(-FINITE, FINITE)
    size = near.double().square().mean(dim=-1, keepdim=True).sqrt()
    shorter = (near * (BOUND / size)).to(value.dtype)
    return torch.where(size > BOUND * (1 + 1e-6), shorter, near)
