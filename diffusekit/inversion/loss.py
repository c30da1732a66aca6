"""The loss of latent diffusion: noise a picture, let the frozen networks predict, compare.

Gradients reach the learned vectors and nothing else.
"""

from __future__ import annotations

from typing import Any

import torch

from .. import schedule
from ..conditioning import Conditioning
from .batches import Batch


def loss(unet: Any, cond: Conditioning, batch: Batch, alpha_bar: torch.Tensor, kind: str) -> torch.Tensor:
    """Squared error of the prediction for every sample, (B,) float32 (Ho et al., 2020, eq. 14).

    `cond` are the batch's captions with the learned vectors in them. `alpha_bar` (1000,) is the model's noise
    schedule and `kind` its prediction type. Where the batch has weights, the mean is taken over them.
    """
    alpha = alpha_bar[batch.timesteps].sqrt()[:, None, None, None]
    sigma = (1 - alpha_bar[batch.timesteps]).sqrt()[:, None, None, None]
    noised = alpha * batch.latents + sigma * batch.noise
    found = unet(noised.to(unet.dtype), batch.timesteps, **cond.to(unet.dtype).unet_kwargs()).sample.float()
    error = (found - schedule.target(batch.latents, batch.noise, alpha, sigma, kind)) ** 2
    if batch.weights is None:
        return error.mean((1, 2, 3))
    weights = batch.weights.expand_as(error)
    return (error * weights).sum((1, 2, 3)) / weights.sum((1, 2, 3)).clamp(min=1e-6)
