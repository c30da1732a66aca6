"""A denoiser that knows where every sampler must land."""

from types import SimpleNamespace

import torch

from diffusekit import schedule

# Largest error of a sampler's last latents: PLMS is rough in its first steps, LCM adds noise; others are exact.
LANDS_WITHIN = {"pndm": 0.25, "lcm": 1e-3}


class Oracle:
    """A denoiser that knows x0, and answers as a network of any prediction type would."""

    def __init__(self, x0: torch.Tensor, scheduler):
        self.x0, self.scheduler, self.calls = x0, scheduler, 0

    def __call__(self, x, timestep, encoder_hidden_states):
        self.calls += 1
        alpha, sigma = schedule.alpha_sigma(self.scheduler, timestep)
        if schedule.in_sigma_space(self.scheduler):  # the network sees latents of unit variance
            norm = (1 + sigma**2) ** 0.5
            alpha, sigma = 1 / norm, sigma / norm
        eps = (x - alpha * self.x0) / sigma
        kind = self.scheduler.config.prediction_type
        answer = {"epsilon": eps, "sample": self.x0, "v_prediction": alpha * eps - sigma * self.x0}
        return SimpleNamespace(sample=answer[kind])
