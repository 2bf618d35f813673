"""Image augmentation on the device: horizontal flips and random resized crops."""

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch.nn import functional as F

from newcomer.shapes import Float, Tensor

Augmentation = Literal["none", "flip", "crop", "crop-only"]
"""Mirror images means that left and right are the same: not so in handwriting, printed text, and signs."""

AREA = (0.25, 1.0)
"""Range of a crop's area relative to the image."""
RATIO = (3 / 4, 4 / 3)
"""Range of a crop's aspect ratio."""


def augmented(encoded: Mapping[str, Tensor], kind: Augmentation, generator: torch.Generator) -> dict[str, Tensor]:
    """The batch with augmented images (`pixel_values`): half of them mirrored, for `crop` a random resized crop of each besides,
    and for `crop-only` that alone.

    Texts are not changed.
    """
    if kind == "none" or "pixel_values" not in encoded:
        return dict(encoded)
    images = encoded["pixel_values"]
    return {**encoded, "pixel_values": _resampled(images, _windows(len(images), kind, generator))}


def _windows(count: int, kind: Augmentation, generator: torch.Generator) -> Float[Tensor, "batch 2 3"]:
    """Affine matrix of each crop, in image coordinates from −1 to 1."""
    window = torch.zeros(count, 2, 3)
    width = height = torch.ones(count)
    if kind != "flip":
        area = torch.empty(count).uniform_(*AREA, generator=generator)
        ratio = torch.empty(count).uniform_(*map(math.log, RATIO), generator=generator).exp()
        width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
        window[:, :, 2] = torch.empty(count, 2).uniform_(-1, 1, generator=generator) * (
            1 - torch.stack([width, height], 1)
        )
    mirrored = torch.rand(count, generator=generator) < (0.0 if kind == "crop-only" else 0.5)
    window[:, 0, 0] = torch.where(mirrored, -width, width)
    window[:, 1, 1] = height
    return window


def _resampled(
    images: Float[Tensor, "batch channel height width"], windows: Float[Tensor, "batch 2 3"]
) -> Float[Tensor, "batch channel height width"]:
    grid = F.affine_grid(windows.to(images), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
