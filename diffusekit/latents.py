"""Latents: their shape, the noise they start from, and the VAE's ways from pixels and back to them.

Knows no prompts and no samplers.
"""

from __future__ import annotations

import torch

from .errors import UsageError
from .models import Model


def shape(model: Model, width: int, height: int) -> tuple[int, int, int]:
    """(channels, h, w) of the latents of a picture; raises `UsageError` unless both sides are
    multiples of what the model can draw."""
    step = model.vae_scale_factor * 2 ** (len(model.unet.config.block_out_channels) - 1)
    for name, pixels in (("width", width), ("height", height)):
        if pixels % step:
            below = max(pixels // step * step, step)
            raise UsageError(
                f"{name} must be a multiple of {step} for this model, got {pixels}",
                f"try {below} or {below + step}",
            )
    return model.unet.config.in_channels, height // model.vae_scale_factor, width // model.vae_scale_factor


def noise(size: tuple[int, int, int], generators: list[torch.Generator]) -> torch.Tensor:
    """Gaussian noise (B, C, h, w) in float32 on the CPU, each image drawn by its own generator."""
    return torch.stack([torch.randn(size, generator=g) for g in generators])


@torch.no_grad()
def encode(model: Model, pictures: torch.Tensor) -> torch.Tensor:
    """Pictures (B, 3, H, W) in [-1, 1] to latents (B, C, h, w), float32 and scaled as the U-Net expects.

    The mean of what the VAE finds likely, so the same picture has the same latents every time.
    """
    assert pictures.ndim == 4 and pictures.shape[1] == 3, pictures.shape
    found = model.vae.encode(pictures.to(model.vae.device, model.vae.dtype)).latent_dist
    return found.mean.float() * model.vae.config.scaling_factor


@torch.no_grad()
def decode(model: Model, latents: torch.Tensor) -> torch.Tensor:
    """Latents (B, C, h, w) to pictures (B, 3, H, W) in [-1, 1]."""
    scaled = latents.to(model.vae.device, model.vae.dtype) / model.vae.config.scaling_factor
    return model.vae.decode(scaled).sample.clamp(-1, 1)
