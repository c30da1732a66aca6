"""THE loop: from noise to latents, one Step at a time.

A generator: progress bars, previews, films and cancelling are consumers of its Steps. It knows no
settings, no prompts and no pixels.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from . import schedule


@dataclass(frozen=True, eq=False)
class Step:
    """One evaluation of the U-Net, all tensors (B, C, h, w).

    `latents` are those after the step, `noised` those before it: alpha * x0 + sigma * eps. `noise` (eps)
    and `denoised` (x0) are what the network, guidance included, makes of `noised` at `timestep`.
    `outputs` are the network's own: without the prompt and with it, or with it alone when unguided.
    """

    index: int
    timestep: int
    sigma: float
    x_next: torch.Tensor
    eps: torch.Tensor
    x0: torch.Tensor
    alpha: float
    x_t: torch.Tensor
    outputs: tuple[torch.Tensor, ...]
    prediction_type: str

    def x0_and_eps(self, output: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(x0, eps) from one of the `outputs`."""
        return schedule.x0_and_eps(self.x_t, output, self.alpha, self.sigma, self.prediction_type)


@torch.no_grad()
def denoise(
    unet: Any,
    scheduler: Any,
    latents: torch.Tensor,
    states: torch.Tensor,
    *,
    negative: torch.Tensor | None = None,
    guidance_scale: float = 1.0,
    generators: list[torch.Generator] | None = None,
) -> Iterator[Step]:
    """Walk a scheduler's timesteps from `latents` (B, C, h, w), already scaled for it, to a picture's.

    `states` (B, T, D) are the prompt's and `negative` (B, T, D) what to steer away from: both go
    through the U-Net in one batch of two (classifier-free guidance, Ho and Salimans, 2022), unless
    `guidance_scale` is 1, which needs no guidance. `generators` draw the noise of stochastic samplers,
    one per image. Close the generator to cancel.
    """
    guided = guidance_scale != 1.0
    assert not guided or negative is not None, "guidance needs the states of a negative prompt"
    if guided:
        states = torch.cat([negative, states])  # type: ignore[list-item]
    takes_noise = "generator" in inspect.signature(scheduler.step).parameters
    noise_source = {"generator": generators} if takes_noise and generators is not None else {}
    kind = scheduler.config.prediction_type
    for index, timestep in enumerate(scheduler.timesteps):
        scaled = scheduler.scale_model_input(latents, timestep).to(states.dtype)
        alpha, sigma = schedule.alpha_sigma(scheduler, timestep)
        if guided:
            found = unet(torch.cat([scaled, scaled]), timestep, states).sample.float().chunk(2)
            output = found[0] + guidance_scale * (found[1] - found[0])
        else:
            output = unet(scaled, timestep, states).sample.float()
            found = (output,)
        noised = latents
        x0, eps = schedule.x0_and_eps(latents, output, alpha, sigma, kind)
        latents = scheduler.step(output, timestep, latents, **noise_source).prev_sample
        yield Step(index, int(timestep), sigma, latents, eps, x0, alpha, noised, found, kind)
