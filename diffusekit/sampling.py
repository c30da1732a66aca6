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
from .conditioning import Conditioning, ConditioningSchedule


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


@dataclass(frozen=True, eq=False)
class MaskedLatents:
    """What stays of an image while a part of it is painted.

    `mask` (1, 1, h, w) is 1 where latents are painted and 0 where they are kept. `original` (1, C, h, w) are the
    latents of the image, and `noise` (B, C, h, w) is that of the run.
    """

    mask: torch.Tensor
    original: torch.Tensor
    noise: torch.Tensor

    def keep(self, latents: torch.Tensor, scheduler: Any, timestep: torch.Tensor | None) -> torch.Tensor:
        """Replace what is kept by the image with the noise of a timestep, or without noise (Lugmayr et al., 2022)."""
        kept = self.original
        if timestep is not None:
            kept = scheduler.add_noise(kept.expand_as(self.noise), self.noise, timestep.expand(len(self.noise)))
        return (1 - self.mask) * kept + self.mask * latents


class _Prompts:
    """The rows that the U-Net gets at each step: without a prompt, if that is needed, then with each prompt."""

    def __init__(
        self,
        cond: Conditioning | ConditioningSchedule,
        uncond: Conditioning | ConditioningSchedule | None,
        *,
        is_guided: bool,
    ):
        self._cond = cond.schedule()
        self._uncond = None if uncond is None else uncond.schedule()
        self._weights = self._cond.weights[..., None, None, None]
        if not is_guided and len(self._weights) == 1:
            self._uncond = None
        else:
            assert uncond is not None, "guidance needs the conditioning of a negative prompt"
        self._latest: tuple[Conditioning, Conditioning | None] | None = None
        self._rows: Conditioning | None = None

    def at(self, share: float) -> Conditioning:
        """Return the rows of the step that begins after `share` of the run."""
        now = self._cond.at(share), None if self._uncond is None else self._uncond.at(share)
        if self._rows is None or now != self._latest:
            self._latest, self._rows = now, now[0] if now[1] is None else now[1].concatenate(now[0])
        return self._rows

    def compose(self, output: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Split the output of the U-Net into that without a prompt, if there is one, and that with the prompts."""
        if self._uncond is None:
            return (output,)
        without, *each = output.chunk(len(self._weights) + 1)
        if len(each) == 1:
            return without, each[0]
        weights = self._weights.to(output)
        return without, without + sum(weights[i] * (one - without) for i, one in enumerate(each))


def _widen(latents: torch.Tensor, channels: torch.Tensor | None) -> torch.Tensor:
    """Add further input channels (1, K, h, w) to each of the latents."""
    if channels is None:
        return latents
    return torch.cat([latents, channels.to(latents).expand(len(latents), -1, -1, -1)], 1)


def rescale_guided(guided: torch.Tensor, with_prompt: torch.Tensor, share: float) -> torch.Tensor:
    """Scale guided predictions (B, C, h, w) to the standard deviation of those with the prompt, each image by itself.

    Guidance widens the spread of the prediction, so that images are too bright and too dark. `share` is how much of
    the result is scaled, 0 to 1 (Lin et al., 2023, section 3.4).
    """
    ratio = with_prompt.std((1, 2, 3), keepdim=True) / guided.std((1, 2, 3), keepdim=True)
    return share * (guided * ratio) + (1 - share) * guided


def _guide(outputs: tuple[torch.Tensor, ...], scale: float, rescale: float) -> torch.Tensor:
    """Combine the predictions without and with the prompt; the only one of an unguided step is returned as it is."""
    if len(outputs) == 1:
        return outputs[0]
    without, with_prompt = outputs
    guided = without + scale * (with_prompt - without)
    return rescale_guided(guided, with_prompt, rescale) if rescale else guided


@torch.no_grad()
def denoise(
    unet: Any,
    scheduler: Any,
    latents: torch.Tensor,
    cond: Conditioning | ConditioningSchedule,
    *,
    uncond: Conditioning | ConditioningSchedule | None = None,
    guidance_scale: float = 1.0,
    guidance_rescale: float = 0.0,
    first_step: int = 0,
    generators: list[torch.Generator] | None = None,
    masked: MaskedLatents | None = None,
    channels: torch.Tensor | None = None,
) -> Iterator[Step]:
    """Denoise `latents` (B, C, h, w), already scaled for the scheduler, over its timesteps from `first_step` on.

    `cond` is the prompt and `uncond` the negative prompt. Both go through the U-Net in one batch (classifier-free
    guidance, Ho and Salimans, 2022), unless `guidance_scale` is 1, which needs no `uncond`. A schedule may compose
    several prompts for each image (Liu et al., 2022), which always needs `uncond`. `guidance_rescale` is the share of
    `rescale_guided`. `generators`, one per image, draw the noise of stochastic samplers. `masked` keeps a part of the
    latents. `channels` (1, K, h, w) are those that an inpainting U-Net takes too. Close the iterator to cancel.
    """
    prompts = _Prompts(cond, uncond, is_guided=guidance_scale != 1)
    if (first_step or masked) and hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(first_step)
    takes_noise = "generator" in inspect.signature(scheduler.step).parameters
    noise_source = {"generator": generators} if takes_noise and generators is not None else {}
    prediction_type = scheduler.config.prediction_type
    timesteps = scheduler.timesteps
    for index, timestep in enumerate(timesteps[first_step:], first_step):
        x_t, now = latents, prompts.at(index / len(timesteps))
        scaled = scheduler.scale_model_input(x_t, timestep).to(now.dtype)
        alpha, sigma = schedule.alpha_sigma(scheduler, timestep)
        batch = _widen(scaled, channels).repeat(len(now) // len(scaled), 1, 1, 1)
        outputs = prompts.compose(unet(batch, timestep, **now.unet_kwargs()).sample.float())
        output = _guide(outputs, guidance_scale, guidance_rescale)
        x0, eps = schedule.x0_and_eps(x_t, output, alpha, sigma, prediction_type)
        latents = scheduler.step(output, timestep, x_t, **noise_source).prev_sample
        if masked is not None:
            latents = masked.keep(latents, scheduler, timesteps[index + 1] if index + 1 < len(timesteps) else None)
        yield Step(index, int(timestep), sigma, latents, eps, x0, alpha, x_t, outputs, prediction_type)
