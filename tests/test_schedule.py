"""Every sampler lands on the x0 that an oracle knows, and x0 is right at every step."""

import pytest
import torch

from diffusekit import schedule
from diffusekit.conditioning import Conditioning
from diffusekit.models import MINI
from diffusekit.sampling import denoise
from tests.helpers.oracle import LANDS_WITHIN, Oracle

SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}


def configs():
    import json

    yield "mini", json.loads((MINI / "scheduler" / "scheduler_config.json").read_text())
    yield "sd-epsilon", SD | {"prediction_type": "epsilon"}
    yield "sd-v", SD | {"prediction_type": "v_prediction"}


@pytest.mark.parametrize("name", schedule.SAMPLERS)
@pytest.mark.parametrize("kind,config", configs(), ids=lambda v: v if isinstance(v, str) else "")
def test_every_sampler_lands_on_x0(name, kind, config):
    torch.manual_seed(0)
    x0 = torch.randn(2, 4, 8, 8)
    scheduler = schedule.make_scheduler(name, config)
    scheduler.set_timesteps(25)
    noise = torch.randn(2, 4, 8, 8) * scheduler.init_noise_sigma
    draws = [torch.Generator().manual_seed(i) for i in range(2)]
    oracle = Oracle(x0, scheduler)
    steps = list(denoise(oracle, scheduler, noise, Conditioning(torch.zeros(2, 1, 1)), generators=draws))
    assert len(steps) == oracle.calls == len(scheduler.timesteps)
    for step in steps:  # x0 as we compute it does not depend on the sampler
        assert (step.x0 - x0).abs().max() < 2e-2
    tolerance = LANDS_WITHIN.get(name, 2e-2)
    assert (steps[-1].x_next - x0).abs().max() < tolerance


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("alpha,sigma", [(0.8, 0.6), (1.0, 7.5), (0.1, 0.995)])
def test_x0_and_eps_undo_noising(kind, alpha, sigma):
    torch.manual_seed(1)
    x0, eps = torch.randn(2, 2, 4, 4, 4, dtype=torch.float64)
    norm = (alpha**2 + sigma**2) ** 0.5
    output = {"epsilon": eps, "sample": x0, "v_prediction": (alpha * eps - sigma * x0) / norm}[kind]
    found, noise = schedule.x0_and_eps(alpha * x0 + sigma * eps, output, alpha, sigma, kind)
    torch.testing.assert_close(found, x0)
    torch.testing.assert_close(noise, eps)


@pytest.mark.parametrize("name", ["ddim", "ddpm", "euler", "euler_a", "heun"])
def test_x0_is_the_schedulers_own_where_it_has_one(name):
    scheduler = schedule.make_scheduler(name, SD | {"prediction_type": "epsilon"})
    scheduler.set_timesteps(8)
    torch.manual_seed(2)
    x = torch.randn(1, 4, 8, 8) * scheduler.init_noise_sigma
    for timestep in scheduler.timesteps[:3]:
        output = torch.randn(1, 4, 8, 8)
        scheduler.scale_model_input(x, timestep)
        alpha, sigma = schedule.alpha_sigma(scheduler, timestep)
        x0, _ = schedule.x0_and_eps(x, output, alpha, sigma, "epsilon")
        made = scheduler.step(output, timestep, x)
        torch.testing.assert_close(x0, made.pred_original_sample, rtol=1e-4, atol=1e-4)
        x = made.prev_sample
