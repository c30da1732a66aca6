"""Images with a mask: the same latents as diffusers, what is kept and painted, records, and what is refused."""

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionInpaintPipeline, StableDiffusionXLInpaintPipeline
from PIL import Image, ImageDraw

from diffusekit import SAMPLERS, generate, images, latents, metadata, models, schedule, stream
from diffusekit.canvas import canvas_of
from diffusekit.cli.main import run
from diffusekit.errors import UsageError
from diffusekit.mask import Mask
from diffusekit.settings import GenerateSettings
from diffusekit.start_image import StartImage

STEPS, SEED = 6, 5
PROMPT, NEGATIVE = "a red cat", "a dog"


def circle(size=(128, 128), box=(40, 44, 104, 84)):
    mask = Image.new("L", size)
    ImageDraw.Draw(mask).ellipse(box, fill=255)
    return mask


def pixels(image):
    return np.asarray(image.convert("RGB")).astype(int)


@pytest.fixture(scope="module")
def beach(tmp_path_factory):
    path = tmp_path_factory.mktemp("start") / "beach.png"
    return generate("a beach by the sea", seed=5, steps=8)[0].save(path)


@pytest.fixture(scope="module")
def pairs(families, random_models):
    """Our model and diffusers' pipeline of one kind, loaded when they are asked for."""
    loaded = {}

    def pair(kind):
        if kind not in loaded:
            folder = families[kind] if kind in families else random_models[kind]
            pipeline = StableDiffusionXLInpaintPipeline if "xl" in kind else StableDiffusionInpaintPipeline
            more = {} if "xl" in kind else {"safety_checker": None}
            pipe = pipeline.from_pretrained(folder, **more)
            pipe.set_progress_bar_config(disable=True)
            loaded[kind] = models.load(str(folder), "cpu"), pipe
        return loaded[kind]

    return pair


def difference(model, pipe, sampler, strength, *, is_masked=True):
    """Between the latents of `stream` and those of diffusers, which gets the image encoded as we encode it.

    diffusers draws from the distribution of the VAE, and we take its mean.
    """
    side = model.native_size
    generator = torch.Generator().manual_seed(1)
    image = images.to_pil(torch.rand(1, 3, side, side, generator=generator) * 2 - 1)[0]
    mask = circle((side, side), (side // 5, side // 3, side - 9, side - 3))
    if not is_masked:
        image, mask = None, Image.new("L", (side, side), "white")
    options = {"sampler": sampler, "steps": STEPS, "guidance_scale": 5.0, "negative_prompt": NEGATIVE, "seed": SEED}
    more = {"image": image, "mask": mask, "strength": strength} if is_masked else {}
    *_, last = stream(PROMPT, model=model, **more, **options)
    start = images.to_tensor(image or Image.new("RGB", (side, side)))[None]
    kept = start * (torch.from_numpy(np.array(mask)) < 128)
    pipe.scheduler = schedule.make_scheduler(sampler, model.scheduler_config)
    theirs = pipe(
        PROMPT,
        image=latents.encode(model, start),
        mask_image=mask,
        masked_image_latents=latents.encode(model, kept),
        negative_prompt=NEGATIVE,
        width=side,
        height=side,
        strength=strength,
        num_inference_steps=STEPS,
        guidance_scale=5.0,
        generator=torch.Generator().manual_seed(SEED),
        output_type="latent",
    ).images
    return (last.x_next - theirs).abs().max().item()


@pytest.mark.slow
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_latents_of_the_4_channel_method_are_those_of_diffusers(pairs, sampler):
    for kind in ("sd1", "sd2"):
        for strength in (0.6, 1.0):
            assert difference(*pairs(kind), sampler, strength) < 1e-4, (kind, strength)


@pytest.mark.slow
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_latents_of_9_channel_models_are_those_of_diffusers(pairs, sampler):
    assert difference(*pairs("sd1-inpainting"), sampler, 1.0) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sd1-inpainting", "sd2-inpainting"])
def test_9_channel_models_of_other_families_and_strengths(pairs, kind):
    for sampler, strength in (("euler", 0.6), ("dpm++_2m", 1.0)):
        assert difference(*pairs(kind), sampler, strength) < 1e-4, sampler


@pytest.mark.slow
def test_a_9_channel_model_without_a_mask_paints_everything(pairs):
    """As diffusers does with a white mask, and as ComfyUI does for images from text."""
    assert difference(*pairs("sd1-inpainting"), "ddim", 1.0, is_masked=False) < 1e-4


# --- what is kept and what is painted ----------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"mask_padding": 16}, {"batch": 2, "images": 2}, {"prompt_syntax": "a1111"}])
def test_every_pixel_where_the_mask_is_black_is_that_of_the_image(beach, options):
    mask = circle()
    made = generate("a [red|white] boat", image=beach, mask=mask, steps=3, seed=3, **options)
    for each in made:
        change = np.abs(pixels(each.image) - pixels(Image.open(beach))).max(2)
        assert not change[np.asarray(mask) == 0].any()
        assert change[np.asarray(mask) > 0].mean() > 10
        assert each.record.settings.strength == 1


def test_previews_show_the_image_around_what_is_painted(beach):
    mask, generation = circle(), stream("a boat", image=beach, mask=circle(), steps=2, seed=3)
    [preview] = generation.preview(next(iter(generation)))
    assert not (pixels(preview) - pixels(Image.open(beach)))[np.asarray(mask) == 0].any()


def test_an_inverted_mask_paints_the_rest(beach):
    mask = circle()
    made = generate("a boat", image=beach, mask=mask, invert_mask=True, steps=2, seed=3)[0].image
    same = (pixels(made) == pixels(Image.open(beach))).all(2)
    assert same[np.asarray(mask) > 0].all() and same[np.asarray(mask) == 0].mean() < 0.3


def test_soft_edges_change_a_rim_gradually_and_nothing_beyond(beach):
    mask = circle()
    made = generate("a boat", image=beach, mask=mask, mask_blur=2, steps=2, seed=3)[0].image
    changed = (pixels(made) != pixels(Image.open(beach))).any(2)
    soft = np.asarray(Mask.of(mask).fit(128, 128, blur=2))
    rim = (soft > 0) & (np.asarray(mask) == 0)
    assert not changed[soft == 0].any() and changed[rim].mean() > 0.2
    assert 200 < rim.sum() < 2500


@pytest.mark.parametrize("size", [(150, 70), (40, 200), (128, 128), (300, 210)])
def test_the_result_has_the_size_of_the_image(size):
    image = Image.effect_noise(size, 80).convert("RGB")
    mask = Image.new("L", size)
    mask.paste(255, (size[0] // 4, size[1] // 4, size[0] // 2, size[1] // 2))
    for options in ({}, {"mask_padding": 0}, {"mask_padding": 8, "width": 64, "height": 96}):
        made = generate("a cat", image=image, mask=mask, steps=1, seed=1, sampler="ddim", **options)[0]
        change = np.abs(pixels(made.image) - pixels(image)).max(2)
        assert made.image.size == size and not change[np.asarray(mask) == 0].any() and change.any()
        drawn = made.record.settings
        assert drawn.width % 32 == drawn.height % 32 == 0 and drawn.width * drawn.height <= 5 * 128**2
        if "width" in options:
            assert (drawn.width, drawn.height) == (64, 96)


def test_a_small_area_is_drawn_at_the_native_size_and_at_most_twice_as_long_as_wide():
    image, mask = Image.new("RGB", (1000, 600), "teal"), Image.new("L", (1000, 600))
    mask.paste(255, (900, 10, 960, 22))
    made = stream("a cat", image=image, mask=mask, mask_padding=10, steps=1, sampler="ddim").settings
    assert (made.width, made.height) == (192, 96)
    mask.paste(255, (100, 100, 300, 200))
    whole = stream("a cat", image=image, mask=mask, steps=1, sampler="ddim").settings
    assert (whole.width, whole.height) == (320, 192)


def test_a_mask_that_fits_the_image_in_another_size_is_scaled(beach):
    small = circle().resize((64, 64))
    made = generate("a boat", image=beach, mask=small, steps=1, sampler="ddim", seed=3)[0]
    same = (pixels(made.image) == pixels(Image.open(beach))).all(2)
    assert same[:40].all() and same[90:].all() and not same[60:68, 60:68].any()


@pytest.mark.parametrize("content", ["fill", "noise", "nothing"])
def test_what_the_painted_area_starts_from(beach, content):
    options = {"image": beach, "mask": circle(), "strength": 0.5, "steps": 4, "sampler": "ddim", "seed": 3}
    first = next(iter(stream("a boat", **options))).x_t
    other = next(iter(stream("a boat", mask_content=content, **options))).x_t
    painted = torch.nn.functional.interpolate(
        torch.from_numpy(np.array(circle()) > 127).float()[None, None], size=first.shape[2:]
    ).bool()
    change = (first - other).abs().amax(1, keepdim=True)
    assert change[painted].mean() > 0.01
    if content != "fill":  # the VAE spreads colors beyond the mask
        assert not change[~painted].any()


def test_filled_colors_are_those_around_the_mask():
    image = Image.new("RGB", (128, 128), (200, 40, 40))
    image.paste((0, 0, 255), (40, 40, 90, 90))
    mask = Image.new("L", (128, 128))
    mask.paste(255, (40, 40, 90, 90))
    settings = GenerateSettings(mask_content="fill")
    canvas = canvas_of(settings, models.load("mini", "cpu"), StartImage.open(image), Mask.of(mask))
    filled = pixels(canvas.filled())
    assert np.abs(filled - [200, 40, 40]).max() < 30 and (filled[0, 0] == [200, 40, 40]).all()


# --- what is read, recorded and refused ---------------------------------------------------------


def test_a_mask_with_transparent_pixels_paints_its_opaque_ones(tmp_path):
    gray = circle()
    strokes = Image.new("RGBA", gray.size, (10, 10, 10, 0))
    strokes.putalpha(gray)
    strokes.save(tmp_path / "strokes.png")
    assert Mask.open(tmp_path / "strokes.png").sha256 == Mask.open(gray).sha256
    holes = Image.new("RGBA", gray.size, "red")
    holes.putalpha(Image.eval(gray, lambda value: 255 - value))
    assert Mask.from_transparency(holes).sha256 == Mask.of(gray).sha256
    assert Mask.from_transparency(gray) is None


def test_the_file_records_the_mask_and_has_no_path(beach, tmp_path):
    mask = circle()
    mask.save(tmp_path / "secret-mask.png")
    made = generate("a boat", image=beach, mask=tmp_path / "secret-mask.png", mask_padding=8, seed=3, steps=1)[0]
    for name in ("boat.png", "boat.webp"):
        path = made.save(tmp_path / name)
        raw = path.read_bytes()
        assert b"compositeWithTrainedAlgorithmicMedia" in raw and b"secret" not in raw
        found = metadata.read(path)
        assert found.record.mask == Mask.of(mask).sha256 and found.record.settings.mask_padding == 8
        assert set(found.missing) == {"start_image", "mask"}
        assert found.parameters["Inpaint area"] == "Only masked" and found.parameters["Masked area padding"] == "8"


@pytest.mark.parametrize(
    ("mask", "sentence"),
    [
        (Image.new("L", (128, 128)), "paints nothing"),
        (Image.new("L", (128, 64), 255), "the mask is 128x64, and the image 128x128"),
    ],
)
def test_masks_that_are_refused(beach, mask, sentence):
    with pytest.raises(UsageError, match=sentence):
        stream("a boat", image=beach, mask=mask)


def test_a_mask_too_thin_for_the_latents_is_refused(beach):
    mask = Image.new("L", (128, 128))
    mask.paste(255, (41, 41, 42, 80))
    with pytest.raises(UsageError, match="less than a latent") as refused:
        stream("a boat", image=beach, mask=mask)
    assert "mask_padding" in refused.value.hint
    assert stream("a boat", image=beach, mask=mask, mask_padding=4, steps=1).settings.width == 96


def test_what_has_no_effect_is_said(beach):
    assert not stream("a boat", steps=10).warnings
    options = {"mask_blur": 2.0, "mask_padding": 3, "invert_mask": True, "mask_content": "fill"}
    said = stream("a boat", image=beach, **options).warnings
    assert len(said) == 4 and all("no effect without a mask" in sentence for sentence in said)
    said = stream("a boat", image=beach, mask=circle(), mask_content="fill").warnings
    assert len(said) == 1 and "at `strength` 1" in said[0]
    with pytest.raises(UsageError, match="a mask says what of a start image is painted"):
        stream("a boat", mask=circle())


@pytest.mark.slow
def test_the_command_and_again(beach, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    circle((150, 150)).save("mask.png")
    Image.open(beach).resize((150, 150)).save("beach.png")
    command = ["generate", "a boat", "--image", "beach.png", "--mask", "mask.png", "--mask-blur", "2", "--steps", "2"]
    assert run([*command, "--seed", "5", "-o", "boat.png"]) == 0
    assert run(["again", "boat.png", "-o", "twice.png"]) == 3
    assert run(["again", "boat.png", "--image", "beach.png", "-o", "twice.png"]) == 3
    assert "give it with --mask" in capsys.readouterr().err
    assert run(["again", "boat.png", "--image", "beach.png", "--mask", "mask.png", "-o", "twice.png"]) == 0
    assert Image.open("boat.png").size == (150, 150)
    assert Image.open("boat.png").tobytes() == Image.open("twice.png").tobytes()
    circle((150, 150), (10, 10, 40, 40)).save("other.png")
    assert run(["again", "boat.png", "--image", "beach.png", "--mask", "other.png", "-o", "3.png"]) == 0
    assert "other.png is not the mask that boat.png was made with" in capsys.readouterr().err
    assert run(["generate", "a boat", "--mask", "mask.png"]) == 2
    assert "give it with --image" in capsys.readouterr().err
    assert run(["generate", "a boat", "--image", "beach.png", "--mask", "none.png"]) == 3
    assert run(["info", "boat.png"]) == 0
    shown = capsys.readouterr().out
    assert "mask blur" in shown and "SHA-256" in shown and "compositeWith" in shown
