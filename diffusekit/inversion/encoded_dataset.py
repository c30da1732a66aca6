"""The training images as latents: every view of every photo is encoded by the VAE once, before training."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from PIL import Image

from .. import images, latents
from ..models import Model
from .dataset import DataSet
from .rng import stream


@dataclass(frozen=True, eq=False)
class EncodedDataSet:
    """The VAE's distribution for N photos in V views each; float32 on the device.

    Views are crops times flips: crop 0, crop 0 flipped, crop 1, ... A latent is `mean + std * noise`, scaled as the
    U-Net expects it.
    """

    mean: torch.Tensor  # (N, V, C, h, w)
    std: torch.Tensor  # (N, V, C, h, w)
    mask: torch.Tensor | None  # (N, V, 1, h, w) in [0, 1], 1 where the photo is opaque
    size_ids: torch.Tensor  # (N, V, 6): height and width of the photo, top and left of the square, its side twice


@torch.no_grad()
def encode(
    model: Model,
    data: DataSet,
    *,
    side: int,
    crops: int = 1,
    flip: bool = False,
    alpha_mask: bool = False,
    seed: int = 0,
) -> EncodedDataSet:
    """Encode squares of `side` pixels of every photo: the center, or `crops` random ones.

    Each view is encoded separately and its crop has a random stream of its own, so the latents of a photo do not
    depend on the other photos. With `alpha_mask`, the transparency of the photos becomes the mask.
    Raises `UsageError` when the model cannot generate images of `side` pixels.
    """
    assert crops >= 1 and data.photos, (crops, len(data.photos))
    _, height, width = latents.shape(model, side, side)
    means, stds, masks, size_ids = [], [], [], []
    for index, photo in enumerate(data.photos):
        for offset in _offsets(seed, index, crops):
            pixels = images.to_tensor(images.crop_square(photo.image, side, offset=offset))
            mask = _mask(photo.alpha, side, (width, height), offset)
            for flipped in (False, True) if flip else (False,):
                view = pixels.flip(-1) if flipped else pixels
                mean, std = latents.distribution(model, view[None])
                means.append(mean[0])
                stds.append(std[0])
                masks.append(mask.flip(-1) if flipped else mask)
                size_ids.append(find_size_ids(photo.image.size, side, offset, flipped=flipped))
    scale = model.vae.config.scaling_factor
    shape = (len(data.photos), len(means) // len(data.photos))
    return EncodedDataSet(
        mean=(torch.stack(means) * scale).unflatten(0, shape),
        std=(torch.stack(stds) * scale).unflatten(0, shape),
        mask=torch.stack(masks).to(model.vae.device).unflatten(0, shape) if alpha_mask else None,
        size_ids=torch.tensor(size_ids, device=model.vae.device).unflatten(0, shape),
    )


def find_size_ids(
    size: tuple[int, int], side: int, offset: tuple[float, float] = (0.5, 0.5), *, flipped: bool = False
) -> list[float]:
    """Say how a square was made, as U-Nets of SDXL take it (Podell et al., 2023, section 2.2).

    These are height and width of the photo of `size` (width, height), top and left of the square of `side` pixels in
    the photo that was scaled to it, and height and width of the square. With them a small photo need not teach the
    token to look enlarged, and a cut one not to be cut.
    """
    scale = side / min(size)
    left, top = (round(free * share) for free, share in zip(_free(size, scale, side), offset, strict=True))
    left = _free(size, scale, side)[0] - left if flipped else left
    return [float(value) for value in (size[1], size[0], top, left, side, side)]


def _free(size: tuple[int, int], scale: float, side: int) -> tuple[int, int]:
    """Pixels of the scaled photo outside the square: in its width and in its height."""
    return round(size[0] * scale) - side, round(size[1] * scale) - side


def _offsets(seed: int, index: int, crops: int) -> list[tuple[float, float]]:
    """The positions of the squares in a photo: the center, or random ones."""
    if crops == 1:
        return [(0.5, 0.5)]
    pairs = (stream(seed, "crop", index, crop).random(2) for crop in range(crops))
    return [(float(x), float(y)) for x, y in pairs]


def _mask(alpha: Image.Image | None, side: int, size: tuple[int, int], offset: tuple[float, float]) -> torch.Tensor:
    """(1, h, w): how much of each latent is opaque; ones for a photo without transparency."""
    if alpha is None:
        return torch.ones(1, size[1], size[0])
    small = images.crop_square(alpha, side, offset=offset).resize(size, Image.Resampling.BOX)
    return (images.to_tensor(small)[:1] + 1) / 2
