"""Settings that are not given suit the model, and what a model of few steps decided is said."""

import json

import pytest

import diffusekit
from diffusekit import latents, models, schedule
from diffusekit.device import make_generators

PROMPT = "a red cat on the grass"


def stream(folder, **settings):
    return diffusekit.stream(PROMPT, model=str(folder), **({"device": "cpu", "seed": 5} | settings))


def draw(generation):
    *_, last = generation
    return last.x_next


def edit(folder, file, **changes):
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture
def sdxs(random_models, tmp_path):
    """SDXS: the scheduler of Stable Diffusion 1.x with trailing spacing."""
    folder = random_models.copy("sd-turbo", tmp_path / "sdxs-512-0.9")
    changes = {"_class_name": "PNDMScheduler", "skip_prk_steps": True, "set_alpha_to_one": False}
    edit(folder, "scheduler/scheduler_config.json", **changes)
    edit(folder, "model_index.json", scheduler=["diffusers", "PNDMScheduler"])
    return folder


def diffusers_latents(folder, pipeline="DiffusionPipeline", **card):
    """The latents of diffusers' own pipeline with its own scheduler, as a model card calls it."""
    import diffusers

    pipe = getattr(diffusers, pipeline).from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    generators = make_generators([5])
    start = latents.noise(latents.shape(models.load(str(folder), "cpu"), 64, 64), generators)
    return pipe(PROMPT, width=64, height=64, latents=start, generator=generators, output_type="latent", **card).images


# --- as the model cards say -------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sd-turbo", "sdxl-turbo"])
def test_turbo_draws_what_its_card_draws_without_any_setting(random_models, kind):
    expected = diffusers_latents(random_models[kind], num_inference_steps=1, guidance_scale=0.0)
    generation = stream(random_models[kind])
    assert (draw(generation) - expected).abs().max() < 1e-4 * max(1, expected.abs().max())
    settings = generation.images[0].record.settings
    assert (settings.steps, settings.guidance_scale, settings.spacing) == (1, 1.0, "trailing")
    assert settings.sampler == {"sd-turbo": "euler", "sdxl-turbo": "euler_a"}[kind]


@pytest.mark.slow
def test_the_guidance_of_a_card_does_not_drop_the_prompt(random_models):
    folder = random_models["sd-turbo"]
    expected = diffusers_latents(folder, num_inference_steps=4, guidance_scale=0.0)
    generation = stream(folder, steps=4, guidance_scale=0.0)
    assert (draw(generation) - expected).abs().max() < 1e-4 * max(1, expected.abs().max())
    assert generation.images[0].record.settings.guidance_scale == 1.0 and not generation.is_guided


@pytest.mark.slow
def test_a_latent_consistency_model_draws_what_its_card_draws(random_models):
    expected = diffusers_latents(random_models["lcm"], num_inference_steps=4, guidance_scale=8.0)
    generation = stream(random_models["lcm"])
    assert (draw(generation) - expected).abs().max() < 1e-4 * max(1, expected.abs().max())
    settings = generation.images[0].record.settings
    assert (settings.steps, settings.sampler, settings.guidance_scale) == (4, "lcm", 8.0)


@pytest.mark.slow
def test_sdxs_draws_its_single_step_with_its_own_scheduler(sdxs):
    expected = diffusers_latents(sdxs, num_inference_steps=1, guidance_scale=0.0)
    generation = stream(sdxs)
    assert (draw(generation) - expected).abs().max() < 1e-4 * max(1, expected.abs().max())
    assert [line for line in generation.warnings if "spoils" in line] == []
    assert generation.images[0].record.settings.sampler == "pndm"


@pytest.mark.slow
@pytest.mark.parametrize(("sampler", "scheduler"), [("ddim", "DDIMScheduler"), ("euler", "EulerDiscreteScheduler")])
def test_trailing_spacing_replaces_that_of_the_configuration(random_models, tmp_path, sampler, scheduler):
    """Merged models keep the configuration of the model that they were merged into."""
    import diffusers

    name = {"ddim": "Hyper-SD15-4steps", "euler": "sd-model"}[sampler]
    folder = random_models.copy("sd1", tmp_path / name)
    generation = stream(
        folder, **({} if sampler == "ddim" else {"spacing": "trailing", "sampler": "euler", "steps": 4})
    )
    generators = make_generators([5])
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    changes = {"timestep_spacing": "trailing"} | ({"clip_sample": False} if sampler == "ddim" else {})
    pipe.scheduler = getattr(diffusers, scheduler).from_config(pipe.scheduler.config, **changes)
    start = latents.noise(latents.shape(generation.model, 64, 64), generators)
    scale = 1.0 if sampler == "ddim" else 7.5
    expected = pipe(
        PROMPT, num_inference_steps=4, guidance_scale=scale, latents=start, width=64, height=64, output_type="latent"
    ).images
    assert (draw(generation) - expected).abs().max() < 1e-4 * max(1, expected.abs().max())
    assert generation.images[0].record.settings.spacing == "trailing"


# --- what is said, and what wins ---------------------------------------------------------------


@pytest.mark.slow
def test_what_a_model_of_few_steps_decided_is_said(random_models):
    line = "sd-turbo is a Turbo model (its name is 'sd-turbo'), so these are used: "
    assert stream(random_models["sd-turbo"]).warnings == [
        f"{line}`steps` 1, `sampler` euler, `guidance_scale` 1, `spacing` trailing"
    ]
    given = stream(random_models["sd-turbo"], steps=3, sampler="ddim", spacing="leading")
    assert given.warnings[0] == f"{line}`guidance_scale` 1"
    all_given = stream(random_models["sd-turbo"], steps=3, sampler="ddim", guidance_scale=2, spacing="leading")
    assert not any("Turbo" in warning for warning in all_given.warnings)
    settings = all_given.settings
    assert (settings.steps, settings.sampler, settings.guidance_scale) == (3, "ddim", 2)
    assert settings.spacing == "leading"


@pytest.mark.slow
def test_a_doubt_is_said_and_changes_nothing(random_models, tmp_path):
    folder = random_models.copy("sd-turbo", tmp_path / "model")
    generation = stream(folder)
    assert (generation.settings.steps, generation.settings.sampler) == (20, "dpm++_2m")
    assert [warning.partition(" (")[0] for warning in generation.warnings] == ["model may be a model of few steps"]
    assert not stream(folder, steps=4, sampler="euler", guidance_scale=1).warnings


def test_a_model_of_many_steps_is_loaded_in_silence(mini):
    generation = diffusekit.stream(PROMPT, model=mini, seed=1)
    settings = generation.settings
    assert (settings.steps, settings.sampler, settings.guidance_scale) == (20, "dpm++_2m", 3.0)
    assert generation.warnings == []


def test_fast_keeps_its_own_defaults():
    settings = diffusekit.stream(PROMPT, fast=True, device="cpu").settings
    assert (settings.steps, settings.sampler, settings.guidance_scale) == (4, "ddim", 1.0)


def test_a_spacing_without_effect_is_said(mini):
    line = "`spacing` has no effect with the sampler"
    for sampler in ("lcm", "dpm++_2m_karras"):
        assert not schedule.uses_spacing(sampler)
        generation = diffusekit.stream(PROMPT, model=mini, sampler=sampler, spacing="trailing")
        assert f"{line} {sampler}" in generation.warnings
    assert diffusekit.stream(PROMPT, model=mini, sampler="euler", spacing="trailing").warnings == []


@pytest.mark.slow
def test_the_spacing_changes_the_timesteps(mini):
    first = {}
    for spacing in schedule.SPACINGS:
        generation = diffusekit.stream(PROMPT, model=mini, sampler="euler", steps=4, spacing=spacing, seed=1)
        first[spacing] = [step.timestep for step in generation]
    assert first == {"leading": [751, 501, 251, 1], "linspace": [999, 666, 333, 0], "trailing": [999, 749, 499, 249]}


@pytest.mark.slow
@pytest.mark.parametrize(("strength", "steps"), [(None, 7), (0.5, 8), (1.0, 4)])
def test_from_an_image_as_many_steps_are_taken(random_models, strength, steps):
    from PIL import Image

    generation = stream(random_models["lcm"], image=Image.new("RGB", (64, 64), "red"), strength=strength)
    assert generation.settings.steps == steps
    assert generation.total == 4


# --- guidance 0 --------------------------------------------------------------------------------


def test_a_guidance_scale_of_0_is_off(mini):
    options = {"model": mini, "steps": 2, "seed": 3, "negative_prompt": ""}
    off, one = (diffusekit.generate(PROMPT, guidance_scale=scale, **options)[0] for scale in (0, 1))
    assert off.image.tobytes() == one.image.tobytes() and off.record == one.record
    assert off.record.settings.guidance_scale == 1.0


@pytest.mark.slow
def test_an_older_image_with_guidance_0_is_repeated(mini, tmp_path):
    """Until 0.6 it was that of the negative prompt alone."""
    from diffusekit import metadata

    made = diffusekit.generate("a blue car", model=mini, steps=2, seed=3, guidance_scale=1)[0]
    older = {"prompt": "a red cat", "negative_prompt": "a blue car", "guidance_scale": 0.0}
    record = made.record.model_copy(update={"settings": made.record.settings.model_copy(update=older)})
    settings = metadata.read(metadata.save(made.image, tmp_path / "old.png", record)).settings
    assert settings is not None and settings.prompt == "a blue car" and settings.guidance_scale == 1.0
    options = settings.model_dump(include={"negative_prompt", "steps", "seed", "guidance_scale", "sampler", "spacing"})
    again = diffusekit.generate(settings.prompt, model=mini, **options)[0]
    assert again.image.tobytes() == made.image.tobytes()


@pytest.mark.slow
def test_what_suits_a_model_is_known_before_it_is_loaded(random_models):
    info = models.describe(str(random_models["lcm"]))
    assert (info.defaults.steps, info.defaults.sampler, info.guidance_scale) == (4, "lcm", 8.0)
