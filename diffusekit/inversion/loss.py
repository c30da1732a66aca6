"""The loss of latent diffusion: add noise to an image, let the frozen networks predict, compare.

The gradient reaches the learned vectors and nothing else.
"""

from __future__ import annotations

from typing import Any

import torch

from .. import schedule
from ..conditioning import Conditioning
from .batches import Batch


def loss(unet: Any, cond: Conditioning, batch: Batch, alpha_bar: torch.Tensor, prediction_type: str) -> torch.Tensor:
    """Squared error of the prediction for every sample, (B,) float32 (Ho et al., 2020, eq. 14).

    `cond` is the batch's captions with the learned vectors in them, and the sizes if the U-Net takes them.
    `alpha_bar` (1000,) is the model's noise schedule. If the batch has weights, the mean over the latents is weighted
    by them.
    """
    alpha = alpha_bar[batch.timesteps].sqrt()[:, None, None, None]
    sigma = (1 - alpha_bar[batch.timesteps]).sqrt()[:, None, None, None]
    x_t = alpha * batch.latents + sigma * batch.noise
    prediction = unet(x_t.to(unet.dtype), batch.timesteps, **cond.to(unet.dtype).unet_kwargs()).sample.float()
    error = (prediction - schedule.target(batch.latents, batch.noise, alpha, sigma, prediction_type)) ** 2
    if batch.weights is None:
        return error.mean((1, 2, 3))
    weights = batch.weights.expand_as(error)
    return (error * weights).sum((1, 2, 3)) / weights.sum((1, 2, 3)).clamp(min=1e-6)
