"""Latents: their shape, the noise they start from, and the VAE between images and latents.

Knows no prompts and no samplers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

from .errors import UsageError
from .models import Model


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
    encoded = model.vae.encode(pixels.to(model.vae.device, model.vae.dtype))
    if hasattr(encoded, "latents"):
        return encoded.latents.float(), torch.zeros_like(encoded.latents, dtype=torch.float32)
    return encoded.latent_dist.mean.float(), encoded.latent_dist.std.float()


@torch.no_grad()
def decode(model: Model, latents: torch.Tensor, *, tiled: bool = False) -> torch.Tensor:
    """Decode latents (B, C, h, w) as images (B, 3, H, W) in [-1, 1].

    `tiled` needs less memory: one image and one tile at a time, with blended seams.
    """
    scaled = latents.to(model.vae.device, model.vae.dtype) / model.vae.config.scaling_factor
    with _tiling(model.vae) if tiled else nullcontext():
        return model.vae.decode(scaled).sample.clamp(-1, 1)


@contextmanager
def _tiling(vae: Any) -> Iterator[None]:
    """Switch slicing and tiling on for a while: the VAE is shared, so it is left as it was."""
    before = vae.use_slicing, vae.use_tiling
    vae.enable_slicing()
    vae.enable_tiling()
    try:
        yield
    finally:
        vae.use_slicing, vae.use_tiling = before
