"""The mathematics of noise: alpha and sigma of each step, the table of samplers, and x0 from a prediction.

Symbols are those of DDPM (Ho et al., 2020) and EDM (Karras et al., 2022): noised latents are
x = alpha * x0 + sigma * eps. Variance-preserving samplers have alpha² + sigma² = 1. Samplers in sigma space have
alpha = 1. The samplers are diffusers' schedulers, configured. Knows no networks, and imports no torch, so that
the names of the samplers cost nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """A diffusers scheduler with its options, under the names that people know.

    `label` and `schedule_type` are A1111's words, which image metadata uses. `aliases` are the names of other
    programs. `sigma_space` says that its latents are x0 + sigma * eps, not scaled to unit variance. `stochastic`
    says that it draws noise at every step.
    """

    scheduler: str
    label: str
    description: str
    options: Mapping[str, Any] = field(default_factory=dict)
    schedule_type: str = ""
    aliases: tuple[str, ...] = ()
    sigma_space: bool = False
    stochastic: bool = False


SAMPLERS: dict[str, Sampler] = {
    "ddim": Sampler(
        scheduler="DDIMScheduler",
        label="DDIM",
        description="DDIM steps straight to the next noise level and adds no new noise.",
        aliases=("ddim", "ddim_v3"),
    ),
    "ddpm": Sampler(
        scheduler="DDPMScheduler",
        label="DDPM",
        description="DDPM adds a little fresh noise at every step, as the theory has it.",
        aliases=("ddpm",),
        stochastic=True,
    ),
    "euler": Sampler(
        scheduler="EulerDiscreteScheduler",
        label="Euler",
        description="Euler follows the predicted noise in a straight line and adds no new noise.",
        aliases=("euler",),
        sigma_space=True,
    ),
    "euler_a": Sampler(
        scheduler="EulerAncestralDiscreteScheduler",
        label="Euler a",
        description="Euler ancestral steps a little too far and then adds fresh noise, at every step.",
        aliases=("euler_ancestral", "euler_a"),
        sigma_space=True,
        stochastic=True,
    ),
    "heun": Sampler(
        scheduler="HeunDiscreteScheduler",
        label="Heun",
        description="Heun tries the step, asks the U-Net again where it arrives, and takes the mean direction.",
        aliases=("heun",),
        sigma_space=True,
    ),
    "dpm++_2m": Sampler(
        scheduler="DPMSolverMultistepScheduler",
        label="DPM++ 2M",
        description="DPM++ 2M also uses how the prediction changed since the last step, which saves many steps.",
        aliases=("dpmpp_2m",),
    ),
    "dpm++_2m_karras": Sampler(
        scheduler="DPMSolverMultistepScheduler",
        label="DPM++ 2M",
        description="DPM++ 2M uses how the prediction changed since the last step; Karras' spacing puts more of the "
        "steps where little noise is left.",
        options={"use_karras_sigmas": True},
        schedule_type="Karras",
    ),
    "dpm++_2m_sde": Sampler(
        scheduler="DPMSolverMultistepScheduler",
        label="DPM++ 2M SDE",
        description="DPM++ 2M SDE uses how the prediction changed since the last step, and adds fresh noise.",
        options={"algorithm_type": "sde-dpmsolver++"},
        aliases=("dpmpp_2m_sde", "dpmpp_2m_sde_gpu"),
        stochastic=True,
    ),
    "unipc": Sampler(
        scheduler="UniPCMultistepScheduler",
        label="UniPC",
        description="UniPC extrapolates the next latents from the last predictions, and corrects them there.",
        aliases=("uni_pc", "unipc"),
    ),
    "lms": Sampler(
        scheduler="LMSDiscreteScheduler",
        label="LMS",
        description="LMS fits a curve through the directions of the last four steps and follows it.",
        aliases=("lms",),
        sigma_space=True,
    ),
    "pndm": Sampler(
        scheduler="PNDMScheduler",
        label="PLMS",
        description="PLMS fits a curve through the directions of the last four steps and follows it.",
        options={"skip_prk_steps": True},
        aliases=("plms", "pndm"),
    ),
    "lcm": Sampler(
        scheduler="LCMScheduler",
        label="LCM",
        description="LCM jumps to the predicted x0, adds fresh noise of the next level, and predicts again.",
        aliases=("lcm",),
        stochastic=True,
    ),
}
_IN_SIGMA_SPACE = {sampler.scheduler for sampler in SAMPLERS.values() if sampler.sigma_space}


# The keys of a scheduler's configuration that belong to a model's training; the others belong to sampling.
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
    """Make a new diffusers scheduler for the sampler `name`, with the noise schedule of a model's `config`.

    Schedulers keep state, so every run needs its own. Latents are never clipped to [-1, 1], which some
    schedulers do by default.
    """
    import diffusers

    sampler = SAMPLERS[name]
    trained = {key: config[key] for key in _TRAINED_WITH if key in config}
    scheduler_class = getattr(diffusers, sampler.scheduler)
    return scheduler_class.from_config(trained | {"clip_sample": False} | dict(sampler.options))


def alpha_sigma(scheduler: Any, timestep: torch.Tensor) -> tuple[float, float]:
    """Return (alpha, sigma) of the latents that a scheduler denoises next, at `timestep`.

    Schedulers with a table of sigmas are read at their step index, because Karras' spacing falls between
    timesteps. The others are looked up in `alphas_cumprod`.
    """
    if not hasattr(scheduler, "sigmas"):
        alpha_bar = float(scheduler.alphas_cumprod[int(timestep)])
        return alpha_bar**0.5, (1 - alpha_bar) ** 0.5
    index = scheduler.step_index if scheduler.step_index is not None else scheduler.begin_index
    if index is None:
        index = scheduler.index_for_timestep(timestep)
    sigma = float(scheduler.sigmas[index])
    if in_sigma_space(scheduler):
        return 1.0, sigma
    alpha = (1 + sigma**2) ** -0.5
    return alpha, alpha * sigma


def in_sigma_space(scheduler: Any) -> bool:
    """Whether a scheduler's latents are x0 + sigma * eps, not scaled to unit variance."""
    return type(scheduler).__name__ in _IN_SIGMA_SPACE


def x0_and_eps(
    x: torch.Tensor, output: torch.Tensor, alpha: float, sigma: float, prediction_type: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (x0, eps) from a network's `output` for the latents `x` = alpha * x0 + sigma * eps.

    `prediction_type` is `epsilon`, `sample` (x0) or `v_prediction` (v = a * eps - s * x0 on the unit circle
    a² + s² = 1; Salimans and Ho, 2022).
    """
    if prediction_type == "epsilon":
        return (x - sigma * output) / alpha, output
    if prediction_type == "sample":
        return output, (x - alpha * output) / sigma
    assert prediction_type == "v_prediction", prediction_type
    norm = (alpha**2 + sigma**2) ** 0.5
    a, s, x = alpha / norm, sigma / norm, x / norm
    return a * x - s * output, s * x + a * output


def target(
    x0: torch.Tensor, eps: torch.Tensor, alpha: torch.Tensor, sigma: torch.Tensor, prediction_type: str
) -> torch.Tensor:
    """Return what a network should predict for alpha * x0 + sigma * eps.

    `alpha` and `sigma` are on the unit circle and broadcast over the latents (B, C, h, w).
    """
    if prediction_type == "epsilon":
        return eps
    if prediction_type == "sample":
        return x0
    assert prediction_type == "v_prediction", prediction_type
    return alpha * eps - sigma * x0
