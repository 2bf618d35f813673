"""Augmentation: crops and flips of the same images."""

import torch
from torch import Tensor

from newcomer.nn.features.augmentation import AREA, RATIO, _windows, augmented


def chance(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ramp(count: int = 64, size: int = 8) -> Tensor:
    """Pictures that get lighter from left to right."""
    return torch.linspace(0, 1, size).expand(count, 3, size, size).clone()


def test_flipped_pictures_are_mirrored_or_as_they_were() -> None:
    pictures = ramp()
    seen = augmented({"pixel_values": pictures}, "flip", chance())["pixel_values"]
    mirrored, same = (
        torch.tensor([torch.allclose(s, p, atol=1e-5) for s, p in zip(seen, wanted, strict=True)])
        for wanted in (pictures.flip(-1), pictures)
    )
    assert (mirrored ^ same).all()
    assert 16 < mirrored.sum() < 48


def test_crops_lie_within_the_picture_and_keep_their_share() -> None:
    windows = _windows(500, "crop", chance())
    width, height = windows[:, 0, 0].abs(), windows[:, 1, 1]
    assert (windows[:, 0, 2].abs() + width <= 1 + 1e-6).all()
    assert (windows[:, 1, 2].abs() + height <= 1 + 1e-6).all()
    assert (width * height >= AREA[0] * 0.85).all()
    assert (width / height).log().abs().max() <= torch.tensor(RATIO[1]).log() + 0.2


def test_crops_alone_are_the_same_crops_never_mirrored() -> None:
    """A user trained on handwriting, which nobody writes from right to left."""
    both, alone = _windows(500, "crop", chance()), _windows(500, "crop-only", chance())
    assert (both[:, 0, 0] < 0).any()
    assert torch.equal(alone[:, 0, 0], both[:, 0, 0].abs())
    assert torch.equal(alone[:, :, 1:], both[:, :, 1:])
    seen = augmented({"pixel_values": ramp()}, "crop-only", chance())["pixel_values"]
    assert (seen.diff(dim=-1)[..., 1:-1] >= -1e-6).all()  # lighter from left to right still; edges are reflected


def test_crops_are_as_likely_anywhere_in_the_picture() -> None:
    """An offset, as a share of the room that it has, is uniform from −1 to 1 on both axes: mean 0, mean square 1/3."""
    windows = _windows(4000, "crop", chance())
    room = 1 - torch.stack([windows[:, 0, 0].abs(), windows[:, 1, 1]], dim=1)
    share = (windows[:, :, 2] / room)[(room > 0.01).all(dim=1)]
    torch.testing.assert_close(share.mean(0), torch.zeros(2), atol=0.05, rtol=0)
    torch.testing.assert_close(share.T @ share / len(share), torch.eye(2) / 3, atol=0.03, rtol=0)


def test_a_crop_of_an_even_picture_is_even() -> None:
    pictures = torch.full((8, 3, 8, 8), 0.25)
    assert torch.allclose(augmented({"pixel_values": pictures}, "crop", chance())["pixel_values"], pictures)


def test_texts_and_none_are_left_alone() -> None:
    tokens = {"input_ids": torch.arange(4)}
    assert augmented(tokens, "crop", chance())["input_ids"] is tokens["input_ids"]
    pictures = ramp()
    assert augmented({"pixel_values": pictures}, "none", chance())["pixel_values"] is pictures


def test_the_same_chance_sees_the_same() -> None:
    one, other = (augmented({"pixel_values": ramp()}, "crop", chance(3))["pixel_values"] for _ in range(2))
    assert torch.equal(one, other)
