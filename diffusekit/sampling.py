"""The sampling loop: from latents to less noisy latents, one `Step` at a time.

A generator: progress bars, previews, films and cancellation consume its Steps. Knows no settings, prompts or pixels.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from . import schedule
from .conditioning import Conditioning


@dataclass(frozen=True, eq=False)
class Step:
    """One evaluation of the U-Net. All tensors are (B, C, h, w).

    `x_t` = alpha * x0 + sigma * eps are the latents before the step and `x_next` those after it. `eps` (noise) and
    `x0` (clean latents) are predicted from `x_t` at `timestep`, guidance included. `outputs` are what the network
    returned: without the prompt and with it, or only with it when unguided.
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
        """Return (x0, eps) as predicted by one of the `outputs`."""
        return schedule.x0_and_eps(self.x_t, output, self.alpha, self.sigma, self.prediction_type)


@torch.no_grad()
def denoise(
    unet: Any,
    scheduler: Any,
    latents: torch.Tensor,
    cond: Conditioning,
    *,
    uncond: Conditioning | None = None,
    guidance_scale: float = 1.0,
    first_step: int = 0,
    generators: list[torch.Generator] | None = None,
) -> Iterator[Step]:
    """Denoise `latents` (B, C, h, w), already scaled for the scheduler, over its timesteps from `first_step` on.

    `cond` is the prompt and `uncond` the negative prompt. Both go through the U-Net in one batch of 2 B
    (classifier-free guidance, Ho and Salimans, 2022), unless `guidance_scale` is 1, which needs no `uncond`.
    `generators`, one per image, draw the noise of stochastic samplers. Close the iterator to cancel.
    """
    guided = guidance_scale != 1.0
    if guided:
        assert uncond is not None, "guidance needs the conditioning of a negative prompt"
        cond = uncond.concatenate(cond)
    if first_step and hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(first_step)
    takes_noise = "generator" in inspect.signature(scheduler.step).parameters
    noise_source = {"generator": generators} if takes_noise and generators is not None else {}
    prediction_type = scheduler.config.prediction_type
    for index, timestep in enumerate(scheduler.timesteps[first_step:], first_step):
        x_t = latents
        scaled = scheduler.scale_model_input(x_t, timestep).to(cond.dtype)
        alpha, sigma = schedule.alpha_sigma(scheduler, timestep)
        batch = torch.cat([scaled, scaled]) if guided else scaled
        outputs = unet(batch, timestep, **cond.unet_kwargs()).sample.float().chunk(2 if guided else 1)
        output = outputs[0] + guidance_scale * (outputs[1] - outputs[0]) if guided else outputs[0]
        x0, eps = schedule.x0_and_eps(x_t, output, alpha, sigma, prediction_type)
        latents = scheduler.step(output, timestep, x_t, **noise_source).prev_sample
        yield Step(index, int(timestep), sigma, latents, eps, x0, alpha, x_t, outputs, prediction_type)
