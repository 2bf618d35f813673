"""Pictures seen a little differently each time, on the device they are on."""

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch.nn import functional as F

from newcomer.shapes import Float, Tensor

Augmentation = Literal["none", "flip", "crop"]

AREA = (0.25, 1.0)
"""Share of a picture that a crop keeps."""
RATIO = (3 / 4, 4 / 3)
"""Of a crop's width to its height."""


def augmented(encoded: Mapping[str, Tensor], kind: Augmentation, chance: torch.Generator) -> dict[str, Tensor]:
    """The same batch with its pictures (`pixel_values`) changed: half of them mirrored, and for `crop` a part of each, resized.

    Texts are left as they are.
    """
    if kind == "none" or "pixel_values" not in encoded:
        return dict(encoded)
    pictures = encoded["pixel_values"]
    return {**encoded, "pixel_values": _seen_through(pictures, _windows(len(pictures), kind, chance))}


def _windows(count: int, kind: Augmentation, chance: torch.Generator) -> Float[Tensor, "batch 2 3"]:
    """Where in a picture, from −1 to 1 each way, the corners of the new one lie."""
    window = torch.zeros(count, 2, 3)
    width = height = torch.ones(count)
    if kind == "crop":
        area = torch.empty(count).uniform_(*AREA, generator=chance)
        ratio = torch.empty(count).uniform_(*map(math.log, RATIO), generator=chance).exp()
        width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
        window[:, :, 2] = torch.empty(count, 2).uniform_(-1, 1, generator=chance) * (
            1 - torch.stack([width, height], 1)
        )
    mirrored = torch.rand(count, generator=chance) < 0.5
    window[:, 0, 0] = torch.where(mirrored, -width, width)
    window[:, 1, 1] = height
    return window


def _seen_through(
    pictures: Float[Tensor, "batch channel height width"], windows: Float[Tensor, "batch 2 3"]
) -> Float[Tensor, "batch channel height width"]:
    grid = F.affine_grid(windows.to(pictures), list(pictures.shape), align_corners=False)
    return F.grid_sample(pictures, grid, padding_mode="reflection", align_corners=False)
