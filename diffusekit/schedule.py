"""The mathematics of noise: alpha and sigma of each step, the table of samplers, and x0 from a prediction.

Symbols are those of DDPM (Ho et al., 2020) and EDM (Karras et al., 2022): noised latents are
x = alpha * x0 + sigma * eps. Variance-preserving samplers have alpha² + sigma² = 1. Samplers in sigma space have
alpha = 1. The samplers are diffusers' schedulers, configured. Knows no networks, and imports no torch, so that
the names of the samplers cost nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from .errors import UsageError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """A diffusers scheduler with its options, under the names that people know.

    `label` and `schedule_type` are A1111's words, which image metadata uses. `aliases` are the names of other
    programs. `sigma_space` says that its latents are x0 + sigma * eps, not scaled to unit variance. `stochastic`
    says that it draws noise at every step. `min_steps` is the number from which an image of `mini` differs by
    less than 15 of 255 from that of 50 steps, where fewer give a wrong image (docs/samplers.md). `predictions` are
    the prediction types that the scheduler implements.
    """

    scheduler: str
    label: str
    description: str
    options: Mapping[str, Any] = field(default_factory=dict)
    schedule_type: str = ""
    aliases: tuple[str, ...] = ()
    sigma_space: bool = False
    stochastic: bool = False
    min_steps: int = 1
    predictions: tuple[str, ...] = ("epsilon", "v_prediction", "sample")


SAMPLERS: dict[str, Sampler] = {
    "ddim": Sampler(
        scheduler="ExactDDIMScheduler",
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
        predictions=("epsilon", "v_prediction"),
        sigma_space=True,
        stochastic=True,
    ),
    "heun": Sampler(
        scheduler="HeunDiscreteScheduler",
        label="Heun",
        description="Heun tries the step, asks the U-Net again where it arrives, and takes the mean direction.",
        aliases=("heun",),
        sigma_space=True,
        min_steps=7,
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
        min_steps=9,
    ),
    "dpm++_2m_sde": Sampler(
        scheduler="DPMSolverMultistepScheduler",
        label="DPM++ 2M SDE",
        description="DPM++ 2M SDE uses how the prediction changed since the last step, and adds fresh noise.",
        options={"algorithm_type": "sde-dpmsolver++"},
        aliases=("dpmpp_2m_sde", "dpmpp_2m_sde_gpu"),
        stochastic=True,
        min_steps=5,
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
        scheduler="ExactPNDMScheduler",
        label="PLMS",
        description="PLMS fits a curve through the directions of the last four steps and follows it.",
        options={"skip_prk_steps": True},
        aliases=("plms", "pndm"),
        predictions=("epsilon", "v_prediction"),
        min_steps=16,
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


SPACINGS = ("leading", "linspace", "trailing")
# What A1111 and ComfyUI call trailing spacing, in lower case.
TRAILING_SCHEDULES = ("sgm uniform", "simple", "trailing")

# diffusers' DDIM and PLMS step by T // n timesteps. Up to this share of T, lost to rounding, their own steps are kept.
_MAX_DRIFT = 0.05

# The largest alpha_bar at which pure noise can take the place of noised latents. A thousandth is usual.
_MAX_SIGNAL = 0.05

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
    schedulers do by default. Raises `UsageError` for a model whose predictions the sampler cannot use.
    """
    import diffusers

    from . import exact_schedulers

    sampler = SAMPLERS[name]
    _check_prediction(name, config.get("prediction_type", "epsilon"))
    trained = {key: config[key] for key in _TRAINED_WITH if key in config}
    own = sampler.scheduler.startswith("Exact")
    scheduler_class = getattr(exact_schedulers if own else diffusers, sampler.scheduler)
    scheduler = scheduler_class.from_config(trained | {"clip_sample": False} | dict(sampler.options))
    if scheduler.config.prediction_type == "epsilon" and scheduler.alphas_cumprod[-1] == 0:
        scheduler.alphas_cumprod[-1] = 2**-24  # x0 = (x - sigma * eps) / alpha. The other schedulers do the same.
    return scheduler


def _check_prediction(name: str, prediction_type: str) -> None:
    """Raise `UsageError` if sampler `name` cannot use what a model predicts."""
    able = [other for other, sampler in SAMPLERS.items() if prediction_type in sampler.predictions]
    if name in able:
        return
    if not able:
        expected = ", ".join(SAMPLERS["ddim"].predictions)
        raise UsageError(
            f"this model's scheduler has the prediction_type {prediction_type!r}, expected one of {expected}",
            "use a Stable Diffusion model, or correct its scheduler/scheduler_config.json",
        )
    raise UsageError(
        f"the sampler {name} cannot use this model, which predicts the clean latents (prediction_type 'sample')",
        f"use another `sampler`: {', '.join(able)}",
    )


def set_steps(scheduler: Any, steps: int, device: Any = None) -> None:
    """Give a scheduler the timesteps of `steps` denoising steps, 1 to T, the size of the model's noise schedule.

    A step leads from one noise level to the next. PLMS takes the first one twice, so it evaluates the network
    `steps` + 1 times. Heun evaluates it twice in all but the last, 2 * `steps` - 1 times. The timesteps are those of
    diffusers, where these are `steps` different ones of the T. Otherwise the surplus ones at the end are left out,
    and those beyond the noise schedule are shifted into it. A single step begins at the noisiest timestep where
    diffusers begins at the cleanest. Raises `UsageError`.
    """
    size = scheduler.config.num_train_timesteps
    if not 1 <= steps <= size:
        raise UsageError(
            f"`steps` should be 1 to {size} with this model, whose noise schedule has {size} timesteps, got {steps}",
            f"use {size} `steps` or fewer",
        )
    trained_steps = getattr(scheduler.config, "original_inference_steps", None)  # LCM takes some of these
    more = {"original_inference_steps": size} if trained_steps and not steps <= trained_steps <= size else {}
    scheduler.set_timesteps(steps, device=device, **more)
    if not getattr(scheduler.config, "use_karras_sigmas", False):  # Karras' levels differ, but round to one timestep
        levels = _levels(scheduler)
        chosen = _fit_table(levels, steps, size)
        if chosen != levels:
            _set_levels(scheduler, chosen)
        if hasattr(scheduler, "is_exact"):
            stride = size // steps
            off = sum(abs(t - following - stride) for t, following in pairwise(chosen))
            scheduler.is_exact = off > _MAX_DRIFT * size
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)  # by default the first timestep is searched, which fails where it occurs twice


def uses_spacing(name: str) -> bool:
    """Whether the timesteps of a sampler follow the spacing: LCM has its own, and Karras' spacing is another."""
    return name in SAMPLERS and name != "lcm" and not SAMPLERS[name].options.get("use_karras_sigmas")


def find_problems(name: str, config: Mapping[str, Any], steps: int, *, fewest: int | None = None) -> list[str]:
    """Return a sentence for each thing that spoils the images of `steps` steps of sampler `name`.

    `config` is a model's noise schedule. `fewest` replaces the sampler's `min_steps`. Nothing is wrong with most
    numbers, so the list is usually empty.
    """
    found = []
    fewest = SAMPLERS[name].min_steps if fewest is None else fewest
    if steps < fewest:
        found.append(f"the sampler {name} spoils images of fewer than {fewest} `steps`, got {steps}")
    scheduler = make_scheduler(name, config)
    size = scheduler.config.num_train_timesteps
    if (start := _find_late_start(scheduler, steps)) is not None:
        near = sorted(range(2, size + 1), key=lambda other: abs(other - steps))
        fine = next((other for other in near if _find_late_start(scheduler, other) is None), None)
        found.append(
            f"{steps} `steps` of {name} start at timestep {start} of {size} with this model, where noise alone is not "
            f"expected, so images lose contrast or stay noise" + (f": set `steps` to {fine}" if fine else "")
        )
    return found


def _find_late_start(scheduler: Any, steps: int) -> int | None:
    """Return the first timestep, if the model expects more of an image there than pure noise can stand for."""
    set_steps(scheduler, steps)
    alpha, sigma = alpha_sigma(scheduler, scheduler.timesteps[0])
    late = alpha**2 / (alpha**2 + sigma**2) > _MAX_SIGNAL
    return int(scheduler.timesteps[0]) if late else None


def _levels(scheduler: Any) -> list[float]:
    """Return the timesteps of a scheduler without those that are repeated: one per noise level."""
    kind, timesteps = type(scheduler).__name__, scheduler.timesteps.tolist()
    if kind == "HeunDiscreteScheduler":
        return timesteps[:1] + timesteps[1::2]
    return timesteps[:1] + timesteps[2:] if kind.endswith("PNDMScheduler") else timesteps


def _fit_table(levels: list[float], steps: int, size: int) -> list[float]:
    """Return `steps` strictly falling timesteps of 0 to `size` - 1, `levels` where these are such."""
    kept = levels[:steps]
    if (surplus := kept[0] - (size - 1)) > 0:
        kept = [t - surplus for t in kept]
    starts_clean = steps == 1 and kept[0] < size // 4  # the noise would stay in the image
    if not starts_clean and len(kept) == steps and kept[-1] >= 0 and all(a > b for a, b in pairwise(kept)):
        return kept
    return [float(round((size - 1) * (1 - i / max(1, steps - 1)))) for i in range(steps)]


def _set_levels(scheduler: Any, levels: list[float]) -> None:
    """Replace the timesteps of a scheduler, and the sigmas that belong to them."""
    import torch

    kind, old = type(scheduler).__name__, scheduler.timesteps
    repeats = torch.ones(len(levels), dtype=torch.int64)
    if kind == "HeunDiscreteScheduler":
        repeats[1:] = 2
    elif kind.endswith("PNDMScheduler"):
        repeats[1:2] = 2
    timesteps = torch.tensor(levels, dtype=torch.float64).repeat_interleave(repeats)
    scheduler.timesteps = timesteps.to(old.device, old.dtype)
    scheduler.num_inference_steps = len(levels)
    if hasattr(scheduler, "sigmas"):
        table = ((1 - scheduler.alphas_cumprod) / scheduler.alphas_cumprod) ** 0.5
        sigmas = table[timesteps.long()]
        scheduler.sigmas = torch.cat([sigmas.to(scheduler.sigmas), scheduler.sigmas[-1:]])


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
