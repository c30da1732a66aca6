"""An image as a start: the same latents as diffusers, sizes, records, and what is refused."""

import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline
from PIL import Image

from diffusekit import SAMPLERS, generate, images, latents, metadata, models, schedule, stream, text
from diffusekit.cli.main import run
from diffusekit.errors import UsageError
from diffusekit.sampling import denoise
from diffusekit.start_image import StartImage

STEPS, STRENGTH = 8, 0.6


@pytest.fixture(scope="module")
def cat(tmp_path_factory):
    path = tmp_path_factory.mktemp("start") / "cat.png"
    return generate("a red cat on the grass", seed=3, steps=6)[0].save(path)


@pytest.fixture(scope="module")
def pipelines(families):
    found = {}
    for name, folder in families.items():  # diffusers takes start latents of four channels only, and mini has six
        pipe = StableDiffusionImg2ImgPipeline.from_pretrained(folder, safety_checker=None)
        pipe.set_progress_bar_config(disable=True)
        found[name] = models.load(str(folder), "cpu"), pipe
    return found


@pytest.mark.slow
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_latents_are_those_of_diffusers(pipelines, sampler):
    """diffusers rounds the number of steps down, 4 of 8 at a strength of 0.6, and so do we."""
    for name, (model, pipe) in pipelines.items():
        pixels = torch.rand(1, 3, model.native_size, model.native_size, generator=torch.Generator().manual_seed(1))
        start = latents.encode(model, pixels * 2 - 1)
        scheduler = schedule.make_scheduler(sampler, model.scheduler_config)
        pipe.scheduler = schedule.make_scheduler(sampler, model.scheduler_config)
        theirs = pipe(
            "a red cat",
            image=start,
            strength=STRENGTH,
            negative_prompt="a dog",
            num_inference_steps=STEPS,
            guidance_scale=5.0,
            generator=torch.Generator().manual_seed(5),
            output_type="latent",
        ).images
        scheduler.set_timesteps(STEPS)
        first = (STEPS - int(STEPS * STRENGTH)) * scheduler.order
        draws = [torch.Generator().manual_seed(5)]
        noise = latents.noise(tuple(start.shape[1:]), draws)
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(first)
        *_, last = denoise(
            model.unet,
            scheduler,
            scheduler.add_noise(start, noise, scheduler.timesteps[first : first + 1]),
            text.encode(model, ["a red cat"]),
            uncond=text.encode(model, ["a dog"]),
            guidance_scale=5.0,
            first_step=first,
            generators=draws,
        )
        assert (last.x_next - theirs).abs().max() < 1e-4, name


@pytest.mark.parametrize("sampler", ["ddim", "euler_a", "heun"])
def test_the_generation_takes_those_steps(mini, cat, sampler):
    """`stream` starts where the test above starts."""
    options = {"seed": 5, "steps": STEPS, "strength": STRENGTH, "sampler": sampler}
    generation = stream("a blue cat", image=cat, **options)
    steps = list(generation)
    scheduler = schedule.make_scheduler(sampler, mini.scheduler_config)
    scheduler.set_timesteps(STEPS)
    first = (STEPS - 4) * scheduler.order
    assert [s.timestep for s in steps] == [int(t) for t in scheduler.timesteps[first:]]
    assert generation.total == len(steps) and generation.first_step == steps[0].index == first
    start = latents.encode(mini, images.to_tensor(Image.open(cat))[None])
    noise = latents.noise(tuple(start.shape[1:]), [torch.Generator().manual_seed(5)])
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(first)
    expected = scheduler.add_noise(start, noise, scheduler.timesteps[first : first + 1])
    torch.testing.assert_close(steps[0].x_t, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_strength_says_how_much_changes(cat):
    def difference(strength):
        image = generate("a blue cat on the grass", image=cat, strength=strength, seed=5, steps=10)[0].image
        return (images.to_tensor(image) - images.to_tensor(Image.open(cat))).abs().mean().item()

    weak, medium, strong = (difference(strength) for strength in (0.1, 0.5, 1.0))
    assert weak < medium < strong


def test_the_same_image_at_any_batch_size_and_from_any_source(cat):
    options = {"seed": 5, "steps": 5, "images": 2}
    together = generate("a blue cat", image=Image.open(cat), batch=2, **options)
    for one, other in zip(generate("a blue cat", image=str(cat), batch=1, **options), together, strict=True):
        assert (images.to_tensor(one.image) - images.to_tensor(other.image)).abs().max() < 0.02
        assert one.record.start_image == other.record.start_image == StartImage.open(cat).sha256


@pytest.mark.slow
@pytest.mark.parametrize(
    "size,given,expected",
    [
        ((128, 128), {}, (128, 128)),
        ((130, 70), {}, (128, 64)),
        ((256, 256), {}, (256, 256)),
        ((4000, 3000), {}, (288, 224)),
        ((3, 3), {}, (32, 32)),
        ((300, 100), {"width": 128, "height": 128}, (128, 128)),
    ],
)
def test_sizes(mini, size, given, expected):
    assert latents.size_multiple(mini) == 32
    image = Image.effect_noise(size, 80)
    made = generate("a cat", image=image, steps=2, seed=1, **given)[0]
    assert made.image.size == expected
    assert (made.record.settings.width, made.record.settings.height) == expected


@pytest.mark.parametrize(
    "steps,strength,expected", [(10, 0.1, 1), (10, 0.3, 3), (100, 0.29, 29), (10, 1.0, 10), (1, 1, 1)]
)
def test_the_number_of_steps(cat, steps, strength, expected):
    assert stream("a cat", image=cat, steps=steps, strength=strength, sampler="ddim").total == expected


def test_a_strength_that_leaves_no_step_is_refused(cat):
    with pytest.raises(UsageError, match="leaves none of 10 steps") as refused:
        stream("a cat", image=cat, steps=10, strength=0.05)
    assert "at least 0.1" in refused.value.hint
    assert "no effect without a start image" in stream("a cat", strength=0.5).warnings[0]


def test_the_file_says_that_it_was_made_from_an_image_and_has_no_path(cat, tmp_path):
    made = generate("a blue cat", image=cat, seed=5, steps=3)[0]
    for name in ("blue.png", "blue.jpg", "blue.webp"):
        path = made.save(tmp_path / name)
        raw = path.read_bytes()
        assert b"compositeWithTrainedAlgorithmicMedia" in raw and str(cat).encode() not in raw
        found = metadata.read(path)
        assert found.record.start_image == StartImage.open(cat).sha256
        assert found.label and "start_image" in found.missing
        assert found.parameters["Denoising strength"] == "0.6"
        assert found.parameters["Init image hash"] == found.record.start_image[:32]


@pytest.mark.slow
def test_the_command_and_again(cat, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command = ["generate", "a blue cat", "--image", str(cat), "--strength", "0.5", "--seed", "5", "--steps", "4"]
    assert run([*command, "-o", "blue.png"]) == 0
    assert run(["again", "blue.png", "-o", "twice.png"]) == 3
    assert "made from another image" in capsys.readouterr().err
    assert run(["again", "blue.png", "--image", str(cat), "-o", "twice.png"]) == 0
    assert Image.open("blue.png").tobytes() == Image.open("twice.png").tobytes()
    Image.new("RGB", (128, 128), "white").save("white.png")
    capsys.readouterr()
    assert run(["again", "blue.png", "--image", "white.png", "-o", "other.png"]) == 0
    assert "not the image that blue.png was made from" in capsys.readouterr().err
    assert run(["generate", "a cat", "--image", "none.png"]) == 3
    assert run([*command, "--no-metadata", "-o", "bare.png"]) == 0
    bare = metadata.read(tmp_path / "bare.png")
    assert bare.record is None and b"compositeWith" in (tmp_path / "bare.png").read_bytes()
