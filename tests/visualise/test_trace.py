"""Recording a trace: the same image, every step, correct numbers, little memory."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from diffusekit import generate, models, schedule, stream
from diffusekit.visualise import TraceRecorder, record_trace
from diffusekit.visualise.trace import TraceStep, rms


def pixels(result):
    return np.asarray(result.image)


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["dpm++_2m", "euler_a", "heun"])
def test_recording_does_not_change_the_image(sampler):
    settings = {"seed": 5, "steps": 4, "sampler": sampler}
    trace = record_trace("a red cat", **settings)
    assert (pixels(trace.result) == pixels(generate("a red cat", **settings)[0])).all()


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["ddim", "euler", "dpm++_2m_karras", "heun", "pndm"])
def test_x_t_is_the_mix_of_x0_and_eps(sampler):
    for m in record_trace("a house", seed=1, steps=5, sampler=sampler).steps:
        made = m.alpha * m.x0.float() + m.sigma * m.eps.float()
        torch.testing.assert_close(made, m.x_t.float(), rtol=4e-3, atol=4e-3 * (1 + m.sigma))
        assert m.snr == pytest.approx(m.alpha_bar / (1 - m.alpha_bar), rel=1e-4)


def test_each_step_starts_from_the_latents_of_the_step_before():
    steps = record_trace("a house", seed=1, steps=5).steps
    assert [m.index for m in steps] == list(range(5))
    for before, after in pairwise(steps):
        assert torch.equal(before.x_next, after.x_t)
        assert before.alpha_bar < after.alpha_bar


def test_guidance_is_the_difference_of_the_two_predictions():
    scale = 4.0
    for m in record_trace("a house", seed=1, steps=3, guidance_scale=scale).steps:
        combined = m.x0_uncond.float() + scale * m.guidance
        error = (combined - m.x0.float()).abs().max()
        assert error <= 4e-3 * (1 + combined.abs().max()) * scale


def test_without_guidance_there_is_one_prediction():
    (m,) = record_trace("a house", seed=1, steps=1, guidance_scale=1).steps
    assert m.x0_uncond is None and m.x0_cond is None and m.guidance is None
    assert "rms_guidance" not in m.numbers()


def test_numbers_agree_with_the_schedule():
    trace = record_trace("a house", seed=1, steps=4)
    table = schedule.make_scheduler("ddim", trace.model.scheduler_config).alphas_cumprod
    for m in trace.steps:
        numbers = m.numbers()
        assert numbers["alpha_bar"] == pytest.approx(float(table[m.timestep]), rel=1e-3)
        assert numbers["rms_denoised"] == pytest.approx(rms(m.x0))


@pytest.mark.slow
def test_each_image_of_a_batch_has_a_trace():
    recorder = TraceRecorder(stream(["a cat", "a dog"], seed=3, steps=2, images=2, batch=3))
    for _ in recorder:
        pass
    assert [t.prompt for t in recorder.traces] == ["a cat", "a cat", "a dog", "a dog"]
    alone = record_trace("a dog", seed=4, steps=2)
    assert (
        recorder.traces[3].result.record.settings.seed,
        alone.result.record.settings.seed,
    ) == (4, 4)
    for ours, theirs in zip(recorder.traces[3].steps, alone.steps, strict=True):
        torch.testing.assert_close(ours.x_t, theirs.x_t, rtol=2e-2, atol=2e-2)


def test_the_last_latents_decode_to_the_image():
    trace = record_trace("a red cat", seed=5, steps=6)
    (last,) = trace.decode([trace.steps[-1].x_next])
    difference = np.abs(np.asarray(last, int) - np.asarray(trace.result.image, int))
    assert difference.mean() < 1.0  # half precision


def test_fifty_steps_of_a_large_model_fit():
    """A U-Net of Stable Diffusion's latents (4, 64, 64): fifty steps fit in 200 MB."""
    m = TraceStep(0, 1, 0.6, 0.8, *(torch.zeros(4, 64, 64, dtype=torch.float16) for _ in range(6)))
    held = sum(v.nbytes for v in vars(m).values() if isinstance(v, torch.Tensor))
    assert 50 * held < 200e6


def test_a_step_does_not_keep_the_batch_in_memory():
    for step in stream("a cat", steps=1, seed=1, images=2, batch=2):
        kept = TraceStep.of(step, 1)
        assert kept.x_t.untyped_storage().nbytes() == kept.x_t.nbytes
        assert kept.x_t.dtype == torch.float16


def test_any_family_can_be_recorded(families):
    for name in ("sd1", "sd2"):
        trace = record_trace("a cat", model=str(families[name]), steps=2, seed=1, device="cpu")
        assert len(trace.steps) == 2
        assert len(list(trace.decode([m.x0 for m in trace.steps]))) == 2
    models.load("mini", "cpu")
