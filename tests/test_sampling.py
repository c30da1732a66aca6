"""The loop: guidance, cancelling, and what a Step says."""

from itertools import pairwise

import torch

from diffusekit import schedule
from diffusekit.sampling import denoise


class Counting:
    """A network that remembers how many samples it was given."""

    def __init__(self):
        self.batches = []

    def __call__(self, x, timestep, states):
        from types import SimpleNamespace

        assert len(x) == len(states)
        self.batches.append(len(x))
        return SimpleNamespace(sample=0.1 * x + states.mean((1, 2))[:, None, None, None])


def start(name="ddim", steps=4, batch=3):
    scheduler = schedule.make_scheduler(name, {"beta_schedule": "scaled_linear"})
    scheduler.set_timesteps(steps)
    return scheduler, torch.randn(batch, 4, 8, 8, generator=torch.Generator().manual_seed(0))


def run(scale, **more):
    scheduler, x = start()
    unet = Counting()
    steps = list(denoise(unet, scheduler, x, torch.ones(3, 2, 2), guidance_scale=scale, **more))
    return unet, steps


def test_guidance_goes_through_in_one_batch_of_two():
    unet, _ = run(5.0, negative=torch.zeros(3, 2, 2))
    assert unet.batches == [6] * 4


def test_guidance_of_one_is_skipped():
    unet, _ = run(1.0)
    assert unet.batches == [3] * 4


def test_guidance_of_zero_is_the_negative_prompt_alone():
    _, away = run(0.0, negative=torch.full((3, 2, 2), 2.0))
    scheduler, x = start()
    alone = list(denoise(Counting(), scheduler, x, torch.full((3, 2, 2), 2.0)))
    torch.testing.assert_close(away[-1].x_next, alone[-1].x_next)


def test_steps_say_where_they_are():
    _, steps = run(1.0)
    assert [s.index for s in steps] == [0, 1, 2, 3]
    assert [s.timestep for s in steps] == sorted((s.timestep for s in steps), reverse=True)
    assert all(a.sigma > b.sigma for a, b in pairwise(steps))
    assert all(t.shape == (3, 4, 8, 8) for s in steps for t in (s.x_next, s.eps, s.x0))


def test_closing_cancels_after_the_current_step():
    scheduler, x = start(steps=50)
    unet = Counting()
    running = denoise(unet, scheduler, x, torch.ones(3, 2, 2))
    next(running)
    next(running)
    running.close()
    assert len(unet.batches) == 2
