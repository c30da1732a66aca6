"""Every sampler at every number of steps: through the schedule alone, with networks that know the answer."""

import logging
from fractions import Fraction

import numpy as np
import pytest
import torch

from diffusekit import SAMPLERS, generate, schedule, stream
from diffusekit.cli.main import run
from diffusekit.errors import UsageError
from tests.helpers.oracle import LANDS_WITHIN
from tests.helpers.sampler_sweep import (
    COMBINATIONS,
    MODELS,
    SD,
    check_schedule,
    diffusers_own,
    evaluations,
    final_distribution,
    final_noise,
    landing_error,
    sigmas_of,
)

EDGES = (1, 2, 3, 4, 50, 51, 61, 250, 463, 484, 500, 501, 600, 700, 995, 998, 999, 1000)
SCHEDULES = COMBINATIONS | MODELS


@pytest.mark.slow
@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize("name", SAMPLERS)
def test_timesteps_fall_within_the_noise_schedule_at_the_edges(name, kind):
    scheduler = schedule.make_scheduler(name, SCHEDULES[kind])
    for steps in EDGES:
        schedule.set_steps(scheduler, steps)
        check_schedule(name, scheduler, steps)


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLERS)
def test_timesteps_fall_within_the_noise_schedule_at_every_number_of_steps(name):
    every = range(1, 1001, 43) if name == "dpm++_2m_karras" else range(1, 1001)  # Karras' spacing takes 20 ms each
    for config in COMBINATIONS.values():
        scheduler = schedule.make_scheduler(name, config)
        for steps in every:
            schedule.set_steps(scheduler, steps)
            check_schedule(name, scheduler, steps)


@pytest.mark.parametrize("name", SAMPLERS)
def test_where_diffusers_sets_the_steps_asked_for_they_are_kept(name):
    for kind in ("leading, offset 1", "linspace, offset 1", "trailing, offset 1", "mini"):
        scheduler = schedule.make_scheduler(name, SCHEDULES[kind])
        for steps in (1, 2, 3, 7, 20, 30, 50, 250, 600):
            schedule.set_steps(scheduler, steps)
            own = diffusers_own(name, scheduler, steps)
            if own is None:
                assert (name == "lcm" and steps > 50) or steps == 1  # diffusers refuses, or starts without noise
            else:
                assert own == (scheduler.timesteps.tolist(), sigmas_of(scheduler))


@pytest.mark.slow
@pytest.mark.parametrize("steps", [2, 61])
@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_lands_on_x0_of_a_network_that_knows_it(name, kind, steps):
    scheduler = schedule.make_scheduler(name, MODELS[kind])
    # noise of 3.5 standard deviations is the largest in so small a sample
    tolerance = LANDS_WITHIN.get(name, 2e-2) + 3.5 * final_noise(scheduler)
    assert landing_error(name, MODELS[kind], steps) < tolerance


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mini", "SD 1.x", "zero-terminal"])
@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_lands_on_x0_at_the_ends_of_its_range(name, kind):
    scheduler = schedule.make_scheduler(name, MODELS[kind])
    tolerance = LANDS_WITHIN.get(name, 2e-2) + 3.5 * final_noise(scheduler)
    for steps in (1, 5, 501, 1000) if name != "lms" else (1, 5, 101):  # LMS integrates for 10 ms at each step
        assert landing_error(name, MODELS[kind], steps) < tolerance, steps


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("zero_terminal", [False, True])
@pytest.mark.parametrize("name", SAMPLERS)
def test_every_prediction_type_lands_or_is_refused(name, zero_terminal, prediction):
    config = SD | {
        "prediction_type": prediction,
        "timestep_spacing": "trailing",
        "rescale_betas_zero_snr": zero_terminal,
    }
    if prediction == "sample" and name in ("euler_a", "pndm"):
        with pytest.raises(UsageError, match=rf"the sampler {name} cannot use this model".replace("+", r"\+")):
            schedule.make_scheduler(name, config)
        return
    tolerance = LANDS_WITHIN.get(name, 2e-2) + 3.5 * 0.03
    assert landing_error(name, config, 7) < tolerance


@pytest.mark.parametrize("steps", [180, pytest.param(350, marks=pytest.mark.slow), 600])
@pytest.mark.parametrize("kind", ["mini", "linspace, offset 1"])
@pytest.mark.parametrize("name", ["ddim", "pndm"])
def test_many_steps_that_do_not_divide_the_schedule_give_the_right_distribution(name, kind, steps):
    """diffusers' own DDIM and PLMS end at a mean of 0.71 and a deviation of 0.66 with 600 steps."""
    mean, std = final_distribution(name, SCHEDULES[kind], steps)
    assert mean == pytest.approx(1, abs=0.04) and std == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("name", ["ddim", "pndm"])
def test_steps_that_end_at_the_next_timestep_are_diffusers_where_the_distances_are_equal(name):
    ends = []
    for exact in (False, True):
        scheduler = schedule.make_scheduler(name, MODELS["mini"])
        schedule.set_steps(scheduler, 20)
        scheduler.is_exact = exact
        x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
        for timestep in scheduler.timesteps:
            x = scheduler.step(0.3 * x + 0.1, timestep, x).prev_sample
        ends.append(x)
    assert torch.equal(*ends)
    assert scheduler.num_inference_steps == Fraction(1000, 50)


def test_heun_and_plms_take_as_many_steps_and_more_evaluations():
    assert evaluations("heun", 20) == stream("a cat", steps=20, sampler="heun").total == 39
    assert evaluations("pndm", 20) == stream("a cat", steps=20, sampler="pndm").total == 21
    assert stream("a cat", steps=20, sampler="euler").total == 20


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ddim", "ddpm", "pndm"])
def test_61_steps_draw_the_image_that_60_steps_draw(name):
    few, more = (generate("a red cat on the grass", seed=3, sampler=name, steps=n)[0].image for n in (60, 61))
    a, b = (torch.tensor(np.asarray(image), dtype=torch.float32) for image in (few, more))
    assert b.std() > 40  # that of the mosaic was 30
    if name != "ddpm":  # which draws other noise
        assert (a - b).abs().mean() < 2


def test_karras_spacing_goes_to_the_end_where_its_first_timesteps_are_equal():
    """diffusers starts at the second of them, and fails after the last step: 700 steps and more of `mini`."""
    scheduler = schedule.make_scheduler("dpm++_2m_karras", MODELS["mini"])
    schedule.set_steps(scheduler, 1000)
    assert scheduler.timesteps[0] == scheduler.timesteps[1]
    assert diffusers_own("dpm++_2m_karras", scheduler, 1000) is None
    assert landing_error("dpm++_2m_karras", MODELS["mini"], 1000) < 1e-3


def test_a_model_with_a_short_noise_schedule_names_its_limit():
    short = SD | {"num_train_timesteps": 100}
    for name in SAMPLERS:
        scheduler = schedule.make_scheduler(name, short)
        for steps in (1, 3, 61, 99, 100):
            schedule.set_steps(scheduler, steps)
            check_schedule(name, scheduler, steps)
        with pytest.raises(UsageError, match="1 to 100 with this model, whose noise schedule has 100") as caught:
            schedule.set_steps(scheduler, 101)
        assert "100 `steps` or fewer" in caught.value.hint


def test_a_number_of_steps_outside_1_to_1000_is_refused_before_a_model_is_loaded(capsys):
    for steps in ("0", "1001"):
        assert run(["generate", "a cat", "--steps", steps, "--model", "nowhere/at-all"]) == 2
        error = capsys.readouterr().err
        assert "--steps" in error and steps in error and "hint:" in error


@pytest.mark.parametrize("name,fewest", [(n, s.min_steps) for n, s in SAMPLERS.items() if s.min_steps > 1])
def test_too_few_steps_for_a_sampler_are_named_once(name, fewest, caplog):
    with caplog.at_level(logging.WARNING):
        spoiled = stream(["a cat", "a dog"], steps=fewest - 1, sampler=name, images=2)
    said = f"the sampler {name} spoils images of fewer than {fewest} `steps`, got {fewest - 1}"
    assert spoiled.warnings == [said] == [record.getMessage() for record in caplog.records]
    assert stream("a cat", steps=fewest, sampler=name).warnings == []


@pytest.mark.parametrize("name", [n for n, s in SAMPLERS.items() if s.min_steps == 1])
def test_other_samplers_take_few_steps_without_a_warning(name):
    assert schedule.find_problems(name, MODELS["mini"], 4) == []


def test_steps_that_start_in_the_middle_of_the_noise_schedule_are_named():
    """With leading spacing the distance is rounded down, so that 501 steps start at half of the noise."""
    for steps, start, fine in ((2, 501, 5), (334, 667, 333), (501, 501, 500)):
        (said,) = schedule.find_problems("ddim", MODELS["SD 1.x"], steps)
        assert f"{steps} `steps` of ddim start at timestep {start} of 1000" in said and f"set `steps` to {fine}" in said
    for steps in (1, 5, 20, 50, 333, 500, 999):
        assert schedule.find_problems("ddim", MODELS["SD 1.x"], steps) == []
        assert schedule.find_problems("euler", MODELS["SD 1.x"], steps) == []
        assert schedule.find_problems("ddim", MODELS["mini"], steps) == []
