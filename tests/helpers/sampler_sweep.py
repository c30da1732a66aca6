"""What must hold for every sampler at every number of steps, without a network."""

import json
from collections.abc import Mapping
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import torch

from diffusekit import schedule
from diffusekit.conditioning import Conditioning
from diffusekit.models import MINI
from diffusekit.sampling import denoise
from tests.helpers.oracle import Oracle

SD = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
# Noise schedules as models have them. Without a spacing, each sampler has its own default.
MODELS: dict[str, dict[str, Any]] = {
    "mini": json.loads((MINI / "scheduler" / "scheduler_config.json").read_text()),
    "SD 1.x": SD | {"prediction_type": "epsilon"},
    "SD 2.x-v": SD | {"prediction_type": "v_prediction"},
    "SD-Turbo": SD | {"prediction_type": "epsilon", "timestep_spacing": "trailing"},
    "zero-terminal": SD
    | {"prediction_type": "v_prediction", "timestep_spacing": "trailing", "rescale_betas_zero_snr": True},
    "SDXL": SD | {"prediction_type": "epsilon", "timestep_spacing": "leading"},
}
COMBINATIONS: dict[str, dict[str, Any]] = {
    f"{spacing}, offset {offset}": SD | {"timestep_spacing": spacing, "steps_offset": offset}
    for spacing in ("leading", "linspace", "trailing")
    for offset in (0, 1)
}


def evaluations(name: str, steps: int) -> int:
    """Return how often the network runs: Heun twice in each step but the last, PLMS twice in the first of several."""
    return {"heun": 2 * steps - 1, "pndm": steps + (steps > 1)}.get(name, steps)


def noise_levels(name: str, timesteps: list[float]) -> list[float]:
    """Return one timestep per step, after a check that only the second evaluations repeat one."""
    if name == "heun":
        assert timesteps[1::2] == timesteps[2::2]
        return timesteps[:1] + timesteps[1::2]
    if name == "pndm" and len(timesteps) > 1:
        assert timesteps[1] == timesteps[2]
        return timesteps[:1] + timesteps[2:]
    return timesteps


def check_schedule(name: str, scheduler: Any, steps: int) -> None:
    """Check the timesteps and sigmas of a scheduler whose steps are set."""
    timesteps = scheduler.timesteps.tolist()
    assert len(timesteps) == evaluations(name, steps), f"{len(timesteps)} evaluations"
    levels, size = noise_levels(name, timesteps), scheduler.config.num_train_timesteps
    assert len(levels) == steps, f"{len(levels)} steps"
    assert levels[-1] >= 0 and levels[0] <= size - 1, f"timesteps {levels[0]} to {levels[-1]}"
    assert steps > 1 or levels[0] >= size // 4, "the only step starts without noise"
    karras = name == "dpm++_2m_karras"  # it spaces sigmas, and several of them round to one timestep
    assert all(a > b or (karras and a == b) for a, b in pairwise(levels)), "timesteps do not fall"
    if hasattr(scheduler, "sigmas"):
        sigmas = scheduler.sigmas.tolist()
        assert len(sigmas) == len(timesteps) + 1 and sigmas[-1] == 0
        assert torch.isfinite(scheduler.sigmas).all()
        each = sigmas[:1] + sigmas[1::2] if name == "heun" else sigmas
        assert all(a > b for a, b in pairwise(each)), "sigmas do not fall"


def diffusers_own(name: str, scheduler: Any, steps: int) -> tuple[list[float], list[float]] | None:
    """Return the timesteps and sigmas that diffusers sets, or None where it refuses or sets unusable ones."""
    stock = type(scheduler).from_config(scheduler.config)
    try:
        stock.set_timesteps(steps)
        check_schedule(name, stock, steps)
        first = stock.index_for_timestep(stock.timesteps[0]) if hasattr(stock, "index_for_timestep") else 0
        assert first == 0, "the run starts at its second step"  # and fails after the last
    except (AssertionError, ValueError):
        return None
    return stock.timesteps.tolist(), sigmas_of(stock)


def write_ranges(numbers: list[int]) -> str:
    """Write sorted numbers with their ranges: `1-3, 7`; after five ranges, how many more numbers there are."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    written = ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in ranges[:5])
    left = sum(b - a + 1 for a, b in ranges[5:])
    return f"{written} and {left} more" if left else written


def sigmas_of(scheduler: Any) -> list[float]:
    return scheduler.sigmas.tolist() if hasattr(scheduler, "sigmas") else []


def final_noise(scheduler: Any) -> float:
    """Return the largest noise that a sampler may leave by design: that of the first timestep of the schedule.

    DDIM and PLMS end there with `set_alpha_to_one` off, and LCM where its last timestep is 0.
    """
    return float((1 - scheduler.alphas_cumprod[0]) ** 0.5)


def landing_error(name: str, config: Mapping[str, Any], steps: int) -> float:
    """Return how far from x0 a sampler ends, with a network that knows x0."""
    scheduler = schedule.make_scheduler(name, config)
    schedule.set_steps(scheduler, steps)
    draws = torch.Generator().manual_seed(steps)
    x0, noise = torch.randn(2, 8, 1, 1, 1, generator=draws)
    oracle = Oracle(x0, scheduler)
    cond = Conditioning(torch.zeros(8, 1, 1))
    *_, last = denoise(oracle, scheduler, noise * scheduler.init_noise_sigma, cond, generators=draws)  # type: ignore[arg-type]
    assert oracle.calls == evaluations(name, steps)
    error = (last.x_next - x0).abs().max().item()
    return error if error == error else float("inf")


class Normal:
    """The best denoiser for x0 from a normal distribution, whose noise a sampler must turn into that distribution."""

    def __init__(self, scheduler: Any, mean: float, std: float):
        self.scheduler, self.mean, self.std = scheduler, mean, std

    def __call__(self, x: torch.Tensor, timestep: Any, encoder_hidden_states: Any) -> SimpleNamespace:
        alpha, sigma = schedule.alpha_sigma(self.scheduler, timestep)
        norm = (alpha**2 + sigma**2) ** 0.5
        a, s = alpha / norm, sigma / norm
        x0 = self.mean + a * self.std**2 / (a**2 * self.std**2 + s**2) * (x - a * self.mean)
        eps = (x - a * x0) / s
        answers = {"epsilon": eps, "sample": x0, "v_prediction": a * eps - s * x0}
        return SimpleNamespace(sample=answers[self.scheduler.config.prediction_type])


def final_distribution(name: str, config: Mapping[str, Any], steps: int) -> tuple[float, float]:
    """Return the mean and standard deviation of the ends, where those of x0 are 1 and 0.5."""
    scheduler = schedule.make_scheduler(name, config)
    schedule.set_steps(scheduler, steps)
    draws = torch.Generator().manual_seed(1)
    noise = torch.randn(4096, 1, 1, 1, generator=draws) * scheduler.init_noise_sigma
    cond = Conditioning(torch.zeros(4096, 1, 1))
    *_, last = denoise(Normal(scheduler, 1.0, 0.5), scheduler, noise, cond, generators=draws)  # type: ignore[arg-type]
    return last.x_next.mean().item(), last.x_next.std().item()
