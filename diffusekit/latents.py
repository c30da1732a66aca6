"""Latents: their shape, the noise they start from, and the VAE between images and latents.

Knows no prompts and no samplers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from .errors import UsageError
from .models import Model
from .models.memory import TILES


def shape(model: Model, width: int, height: int) -> tuple[int, int, int]:
    """Return (C, h, w) of the latents of an image of `width` by `height` pixels.

    Raises `UsageError` unless the U-Net can halve both sides as often as it has levels.
    """
    factor, multiple = model.vae_scale_factor, size_multiple(model)
    for name, pixels in (("width", width), ("height", height)):
        if pixels % multiple:
            below = max(pixels // multiple * multiple, multiple)
            raise UsageError(
                f"{name} must be a multiple of {multiple} for this model, got {pixels}",
                f"try {below} or {below + multiple}",
            )
    return model.vae.config.latent_channels, height // factor, width // factor


def size_multiple(model: Model) -> int:
    """Return the number of pixels of which both sides of an image are a multiple."""
    return model.vae_scale_factor * 2 ** (len(model.unet.config.block_out_channels) - 1)


def noise(size: tuple[int, int, int], generators: list[torch.Generator]) -> torch.Tensor:
    """Draw Gaussian noise (B, C, h, w) in float32 on the CPU, each image from its own generator."""
    return torch.stack([torch.randn(size, generator=g) for g in generators])


@torch.no_grad()
def encode(model: Model, pixels: torch.Tensor) -> torch.Tensor:
    """Encode images (B, 3, H, W) in [-1, 1] as latents (B, C, h, w), float32 and scaled as the U-Net expects.

    The result is the mean of the VAE's distribution, so it is the same for every call.
    """
    return distribution(model, pixels)[0] * model.vae.config.scaling_factor


@torch.no_grad()
def distribution(model: Model, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and standard deviation (B, C, h, w) of the latents of images, float32 and not scaled.

    TAESD has no distribution: its deviation is 0.
    """
    assert pixels.ndim == 4 and pixels.shape[1] == 3, pixels.shape
    encoded = model.vae.encode(pixels.to(model.placement.device, model.vae.dtype))
    if hasattr(encoded, "latents"):
        return encoded.latents.float(), torch.zeros_like(encoded.latents, dtype=torch.float32)
    return encoded.latent_dist.mean.float(), encoded.latent_dist.std.float()


@torch.no_grad()
def decode(model: Model, latents: torch.Tensor, *, tiled: bool = False) -> torch.Tensor:
    """Decode latents (B, C, h, w) as images (B, 3, H, W) in [-1, 1].

    The model's memory plan says whether images are decoded one by one, and in tiles with blended seams. `tiled` does
    both in any case.
    """
    scaled = latents.to(model.placement.device, model.vae.dtype) / model.vae.config.scaling_factor
    height, width = (side * model.vae_scale_factor for side in latents.shape[-2:])
    sliced, tile = model.plan.choose_decode(width, height, len(latents)) if model.plan else (False, 0)
    if tiled:
        sliced, tile = True, next((tile for tile in (*TILES, 128) if tile < max(width, height)), 64)
    with _saved_memory(model.vae, sliced, tile, model.vae_scale_factor):
        return model.vae.decode(scaled).sample.clamp(-1, 1)


@contextmanager
def _saved_memory(vae: Any, sliced: bool, tile: int, scale: int) -> Iterator[None]:
    """Let a VAE decode one image at a time, in tiles, for a while: it is shared, so it is left as it was."""
    if not sliced and not tile:
        yield
        return
    names = ("use_slicing", "use_tiling", "tile_sample_min_size", "tile_latent_min_size")
    before = {name: getattr(vae, name) for name in names}
    vae.use_slicing = sliced
    if tile:
        vae.use_tiling, vae.tile_sample_min_size, vae.tile_latent_min_size = True, tile, tile // scale
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(vae, name, value)
