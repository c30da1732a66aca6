"""DDIM and PLMS whose steps end exactly at their next timestep.

diffusers' own step from timestep t to t - T // n, where T is the size of the noise schedule and n the number of steps.
Their timesteps lie further apart wherever n does not divide T, so the network is told less noise than there is.
"""

from fractions import Fraction
from typing import Any

import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_pndm import PNDMScheduler


class ExactDDIMScheduler(DDIMScheduler):
    """DDIM. With `is_exact`, each step ends at the next entry of `timesteps`; without, it is diffusers' own."""

    is_exact = False

    def step(self, model_output: torch.Tensor, timestep: Any, sample: torch.Tensor, **options: Any) -> Any:  # type: ignore[override]
        """Take one step, as `DDIMScheduler.step` does."""
        if self.is_exact:
            self.num_inference_steps: Any = _steps_of_length(self, _distance_to_next(self, timestep))
        return super().step(model_output, timestep, sample, **options)


class ExactPNDMScheduler(PNDMScheduler):
    """PLMS. With `is_exact`, each step ends at the next entry of `timesteps`; without, it is diffusers' own."""

    is_exact = False

    def step(self, model_output: torch.Tensor, timestep: Any, sample: torch.Tensor, **options: Any) -> Any:  # type: ignore[override]
        """Take one step, as `PNDMScheduler.step` does. The second one repeats the first, so it has its length."""
        if self.is_exact and self.counter != 1:
            self.num_inference_steps: Any = _steps_of_length(self, _distance_to_next(self, timestep))
        return super().step(model_output, timestep, sample, **options)


def _distance_to_next(scheduler: Any, timestep: Any) -> int:
    """Return the distance from `timestep` to the next lower one of the list, or to -1, which stands for no noise."""
    lower = scheduler.timesteps[scheduler.timesteps < timestep]
    return int(timestep) - (int(lower.max()) if len(lower) else -1)


def _steps_of_length(scheduler: Any, length: int) -> Fraction:
    """Return the number of steps that makes T // number equal to `length`, exactly."""
    return Fraction(scheduler.config.num_train_timesteps, length)
