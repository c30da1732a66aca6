"""The loop: guidance, cancelling, and what a Step says."""

from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch

from diffusekit import schedule
from diffusekit.conditioning import Conditioning
from diffusekit.sampling import denoise, rescale_guided
from tests.helpers.oracle import LANDS_WITHIN, Oracle


class Counting:
    """A network that remembers how many samples it was given."""

    def __init__(self):
        self.batches = []

    def __call__(self, x, timestep, encoder_hidden_states):
        assert len(x) == len(encoder_hidden_states)
        self.batches.append(len(x))
        return SimpleNamespace(sample=0.1 * x + encoder_hidden_states.mean((1, 2))[:, None, None, None])


def start(name="ddim", steps=4, batch=3):
    scheduler = schedule.make_scheduler(name, {"beta_schedule": "scaled_linear"})
    scheduler.set_timesteps(steps)
    return scheduler, torch.randn(batch, 4, 8, 8, generator=torch.Generator().manual_seed(0))


def prompts(value):
    return Conditioning(torch.full((3, 2, 2), value))


def run(scale, **more):
    scheduler, x = start()
    unet = Counting()
    steps = list(denoise(unet, scheduler, x, prompts(1.0), guidance_scale=scale, **more))
    return unet, steps


def test_guidance_goes_through_in_one_batch_of_two():
    unet, _ = run(5.0, uncond=prompts(0.0))
    assert unet.batches == [6] * 4


def test_guidance_of_one_is_skipped():
    unet, _ = run(1.0)
    assert unet.batches == [3] * 4


def test_guidance_of_zero_is_the_negative_prompt_alone():
    _, away = run(0.0, uncond=prompts(2.0))
    scheduler, x = start()
    alone = list(denoise(Counting(), scheduler, x, prompts(2.0)))
    torch.testing.assert_close(away[-1].x_next, alone[-1].x_next)


def test_rescaled_guidance_is_that_of_diffusers():
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg

    guided, with_prompt = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0)) * 3
    for share in (0.0, 0.7, 1.0):
        expected = rescale_noise_cfg(guided, with_prompt, guidance_rescale=share)
        torch.testing.assert_close(rescale_guided(guided, with_prompt, share), expected)
    _, unguided = run(1.0, guidance_rescale=0.7)
    assert torch.equal(unguided[-1].x_next, run(1.0)[1][-1].x_next)


def test_steps_say_where_they_are():
    _, steps = run(1.0)
    assert [s.index for s in steps] == [0, 1, 2, 3]
    assert [s.timestep for s in steps] == sorted((s.timestep for s in steps), reverse=True)
    assert all(a.sigma > b.sigma for a, b in pairwise(steps))
    assert all(t.shape == (3, 4, 8, 8) for s in steps for t in (s.x_next, s.eps, s.x0))


def test_closing_cancels_after_the_current_step():
    scheduler, x = start(steps=50)
    unet = Counting()
    running = denoise(unet, scheduler, x, prompts(1.0))
    next(running)
    next(running)
    running.close()
    assert len(unet.batches) == 2


@pytest.mark.parametrize("sampler,first", [("ddim", 2), ("euler", 3), ("heun", 2)])
def test_a_run_from_the_middle_ends_as_the_whole_run(sampler, first):
    scheduler, x = start(sampler, steps=5)
    whole = list(denoise(Counting(), scheduler, x, prompts(0.1)))
    scheduler, _ = start(sampler, steps=5)
    rest = list(denoise(Counting(), scheduler, whole[first].x_t, prompts(0.1), first_step=first))
    assert [step.index for step in rest] == [step.index for step in whole[first:]]
    for a, b in zip(rest, whole[first:], strict=True):
        assert (a.timestep, a.alpha, a.sigma) == (b.timestep, b.alpha, b.sigma)
        assert torch.equal(a.x_t, b.x_t) and torch.equal(a.x0, b.x0) and torch.equal(a.x_next, b.x_next)


@pytest.mark.parametrize("sampler", schedule.SAMPLERS)
def test_every_sampler_lands_on_x0_from_the_middle(sampler):
    """Multistep samplers have no history there, so only the end is compared."""
    scheduler, x0 = start(sampler, steps=20, batch=1)
    oracle, first = Oracle(x0, scheduler), 10
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(first)
    alpha, sigma = schedule.alpha_sigma(scheduler, scheduler.timesteps[first])
    x = alpha * x0 + sigma * torch.randn(x0.shape, generator=torch.Generator().manual_seed(1))
    draws = [torch.Generator().manual_seed(2)]
    *_, last = denoise(oracle, scheduler, x, Conditioning(torch.zeros(1, 1, 1)), first_step=first, generators=draws)
    assert (last.x_next - x0).abs().max() < LANDS_WITHIN.get(sampler, 2e-2)
