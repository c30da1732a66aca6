"""The training command: from nothing to a folder plain diffusers loads, and on from where it stopped."""

import subprocess
import sys

import pytest
import torch
from conftest import ROOT

from training.mini.recipe import RECIPES, Clock, warm_then_decay
from training.mini.unet import build_unet, scheduler, timestep_weights


def train(folder, *more):
    return subprocess.run(
        [sys.executable, "-m", "training.mini", "--steps", "2", "--pictures", "100", "--recipe", "cpu",
         "--work", str(folder / "work"), "--output", str(folder / "model"), *more],
        cwd=ROOT, capture_output=True, text=True, timeout=600,
    )  # fmt: skip


@pytest.mark.slow
def test_from_nothing_to_a_model_and_on(tmp_path):
    from diffusers import StableDiffusionPipeline

    done = train(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "the first loss is 1.0" in done.stdout or "the first loss is 0.9" in done.stdout
    pipe = StableDiffusionPipeline.from_pretrained(tmp_path / "model")
    pipe.set_progress_bar_config(disable=True)
    assert pipe("a cat", num_inference_steps=1).images[0].size == (128, 128)
    done = train(tmp_path, "--steps", "3")
    assert "step 2" in done.stdout and "unet: 3 steps" in done.stdout


def test_the_noise_schedule_ends_in_noise_and_shares_out_its_timesteps():
    alphas = scheduler().alphas_cumprod
    assert 0 < alphas[-1] < 1e-4
    weights = timestep_weights(alphas)
    assert weights.sum() == pytest.approx(1, abs=1e-4) and (weights > 0).all()
    snr = (alphas / (1 - alphas)).log()
    assert abs(snr[weights.argmax()]) < 0.7


def test_the_unet_starts_as_nothing():
    unet = build_unet(RECIPES["cpu"])
    assert 11e6 <= sum(p.numel() for p in unet.parameters()) <= 24e6
    with torch.no_grad():
        found = unet(torch.randn(1, 4, 16, 16), torch.tensor([500]), torch.randn(1, 77, 256)).sample
    assert found.abs().max() == 0


def test_clock_and_learning_rate():
    clock = Clock(minutes=1, steps=10)
    clock.step = 5
    assert clock.progress == 0.5
    again = Clock(minutes=1)
    again.resume({"seconds": 30.0, "step": 3})
    assert 0.5 <= again.progress < 0.6 and again.step == 3
    assert warm_then_decay(1.0, 999) == 0 and warm_then_decay(0.1, 999) == 1
    assert warm_then_decay(0.0, 0) < 0.01
