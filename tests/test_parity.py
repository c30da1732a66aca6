"""From the same latents, our loop and diffusers' own pipeline end in the same latents."""

import pytest
import torch
from diffusers import StableDiffusionPipeline

from diffusekit import models, schedule, text
from diffusekit.sampling import denoise

STEPS = 6


def pipeline(folder):
    """Plain diffusers, with no help from us."""
    found = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    found.set_progress_bar_config(disable=True)
    return found


@pytest.fixture(scope="module")
def pairs(families):
    folders = {"mini": models.MINI} | families
    return {name: (models.load(str(f), "cpu"), pipeline(f)) for name, f in folders.items()}


def difference(model, pipe, sampler, scale):
    size = (
        model.unet.config.in_channels,
        model.unet.config.sample_size,
        model.unet.config.sample_size,
    )
    noise = torch.randn(1, *size, generator=torch.Generator().manual_seed(3))
    ours = schedule.make_scheduler(sampler, model.scheduler_config)
    ours.set_timesteps(STEPS)
    cond, uncond = text.encode(model, ["a red cat on the grass"]), text.encode(model, ["a dog"])
    draws = [torch.Generator().manual_seed(5)]
    *_, last = denoise(
        model.unet,
        ours,
        noise * ours.init_noise_sigma,
        cond,
        uncond=uncond,
        guidance_scale=scale,
        generators=draws,
    )
    pipe.scheduler = schedule.make_scheduler(sampler, model.scheduler_config)
    theirs = pipe(
        "a red cat on the grass",
        negative_prompt="a dog",
        num_inference_steps=STEPS,
        guidance_scale=scale,
        latents=noise,
        generator=torch.Generator().manual_seed(5),
        output_type="latent",
    ).images
    return (last.x_next - theirs).abs().max().item()


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1.0, 5.0])
@pytest.mark.parametrize("sampler", schedule.SAMPLERS)
def test_mini(pairs, sampler, scale):
    assert difference(*pairs["mini"], sampler, scale) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("family", ["sd1", "sd2"])
@pytest.mark.parametrize("sampler", schedule.SAMPLERS)
def test_families(pairs, family, sampler):
    assert difference(*pairs[family], sampler, 5.0) < 1e-4
