"""The mathematics of noise: how much there is at each step, the samplers, and x0 from a prediction.

Symbols are those of DDPM (Ho et al., 2020) and EDM (Karras et al., 2022): a noised picture is
x = alpha * x0 + sigma * eps. Variance-preserving samplers have alpha² + sigma² = 1; those that work in
sigma space have alpha = 1. The samplers are diffusers' schedulers, configured. Knows no networks, and
imports no torch: the names of the samplers cost nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Sampler:
    """A diffusers scheduler under the name people know, with what is switched on in it."""

    scheduler: str
    label: str  # as A1111 writes it in a picture
    options: Mapping[str, Any] = field(default_factory=dict)
    schedule_type: str = ""
    stochastic: bool = False


SAMPLERS: dict[str, Sampler] = {
    "ddim": Sampler("DDIMScheduler", "DDIM"),
    "ddpm": Sampler("DDPMScheduler", "DDPM", stochastic=True),
    "euler": Sampler("EulerDiscreteScheduler", "Euler"),
    "euler_a": Sampler("EulerAncestralDiscreteScheduler", "Euler a", stochastic=True),
    "heun": Sampler("HeunDiscreteScheduler", "Heun"),
    "dpm++_2m": Sampler("DPMSolverMultistepScheduler", "DPM++ 2M"),
    "dpm++_2m_karras": Sampler("DPMSolverMultistepScheduler", "DPM++ 2M", {"use_karras_sigmas": True}, "Karras"),
    "dpm++_2m_sde": Sampler(
        "DPMSolverMultistepScheduler",
        "DPM++ 2M SDE",
        {"algorithm_type": "sde-dpmsolver++"},
        stochastic=True,
    ),
    "unipc": Sampler("UniPCMultistepScheduler", "UniPC"),
    "lms": Sampler("LMSDiscreteScheduler", "LMS"),
    "pndm": Sampler("PNDMScheduler", "PLMS", {"skip_prk_steps": True}),
    "lcm": Sampler("LCMScheduler", "LCM", stochastic=True),
}


# What a model was trained with; everything else in its scheduler's configuration is a matter of sampling.
_TRAINED_WITH = (
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "prediction_type",
    "timestep_spacing",
    "steps_offset",
    "set_alpha_to_one",
    "rescale_betas_zero_snr",
)


def make_scheduler(name: str, config: Mapping[str, Any]) -> Any:
    """A fresh diffusers scheduler for the sampler `name`, with the noise schedule of a model's `config`.

    Schedulers keep state: make one for every run. Latents are never clipped to [-1, 1], as some
    schedulers do to pixels unless told otherwise.
    """
    import diffusers

    sampler = SAMPLERS[name]
    trained = {key: config[key] for key in _TRAINED_WITH if key in config}
    kind = getattr(diffusers, sampler.scheduler)
    return kind.from_config(trained | {"clip_sample": False} | dict(sampler.options))


def alpha_sigma(scheduler: Any, timestep: torch.Tensor) -> tuple[float, float]:
    """(alpha, sigma) of the latents a scheduler is about to denoise at `timestep`.

    Schedulers with a table of sigmas say it themselves, since Karras' spacing falls between timesteps;
    the others are looked up in `alphas_cumprod`.
    """
    if not hasattr(scheduler, "sigmas"):
        alpha_bar = float(scheduler.alphas_cumprod[int(timestep)])
        return alpha_bar**0.5, (1 - alpha_bar) ** 0.5
    if scheduler.step_index is None:
        scheduler._init_step_index(timestep)
    ratio = float(scheduler.sigmas[scheduler.step_index])
    if in_sigma_space(scheduler):
        return 1.0, ratio
    alpha = (1 + ratio**2) ** -0.5
    return alpha, alpha * ratio


def in_sigma_space(scheduler: Any) -> bool:
    """Whether a scheduler's latents are x0 + sigma * eps, not scaled to unit variance."""
    return type(scheduler).__name__ in (
        "EulerDiscreteScheduler",
        "EulerAncestralDiscreteScheduler",
        "HeunDiscreteScheduler",
        "LMSDiscreteScheduler",
    )


def x0_and_eps(
    x: torch.Tensor, output: torch.Tensor, alpha: float, sigma: float, kind: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """(x0, eps) from a network's `output` for the latents `x` = alpha * x0 + sigma * eps.

    `kind` is the prediction type: `epsilon`, `sample` (x0) or `v_prediction`
    (v = a * eps - s * x0 on the unit circle a² + s² = 1; Salimans and Ho, 2022).
    """
    if kind == "epsilon":
        return (x - sigma * output) / alpha, output
    if kind == "sample":
        return output, (x - alpha * output) / sigma
    assert kind == "v_prediction", kind
    norm = (alpha**2 + sigma**2) ** 0.5
    a, s, x = alpha / norm, sigma / norm, x / norm
    return a * x - s * output, s * x + a * output


def target(x0: torch.Tensor, eps: torch.Tensor, alpha: torch.Tensor, sigma: torch.Tensor, kind: str) -> torch.Tensor:
    """What a network of prediction type `kind` should answer for alpha * x0 + sigma * eps.

    `alpha` and `sigma` lie on the unit circle and broadcast over the latents (B, C, h, w).
    """
    if kind == "epsilon":
        return eps
    if kind == "sample":
        return x0
    assert kind == "v_prediction", kind
    return alpha * eps - sigma * x0
