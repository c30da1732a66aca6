"""Prompt to pictures: seeds, batches, sizes, memory, cancelling."""

import numpy as np
import pytest
import torch
from PIL import Image

import diffusekit
from diffusekit.errors import DiffusekitError, OutOfMemory, UsageError


def pixels(picture) -> np.ndarray:
    return np.asarray(picture.image, np.int16)


def make(prompt="a red cat", **settings):
    return diffusekit.generate(prompt, **({"steps": 3, "device": "cpu", "seed": 7} | settings))


def test_the_same_seed_is_the_same_picture():
    a, b, c = make(), make(), make(seed=8)
    assert (pixels(a[0]) == pixels(b[0])).all()
    assert (pixels(a[0]) != pixels(c[0])).any()


@pytest.mark.parametrize("sampler", ["dpm++_2m", "euler_a", "dpm++_2m_sde", "ddpm"])
def test_the_same_picture_at_any_batch_size(sampler):
    alone = make(images=3, batch=1, sampler=sampler)
    together = make(images=3, batch=3, sampler=sampler)
    for a, b in zip(alone, together, strict=True):
        assert np.abs(pixels(a) - pixels(b)).max() <= 1
    assert [p.record.settings.seed for p in together] == [7, 8, 9]


def test_several_prompts_keep_their_order():
    found = make(["a red cat", "a blue car"], images=2, batch=3)
    assert [p.record.settings.prompt for p in found] == ["a red cat"] * 2 + ["a blue car"] * 2
    assert [p.record.settings.seed for p in found] == [7, 8, 7, 8]
    assert (pixels(found[2]) == pixels(make("a blue car")[0])).mean() > 0.99


def test_the_prompt_and_the_negative_prompt_matter():
    plain = pixels(make()[0])
    assert (plain != pixels(make("a blue car")[0])).any()
    assert (plain != pixels(make(negative_prompt="grass")[0])).any()
    assert (plain != pixels(make(guidance_scale=1.0)[0])).any()


def test_the_record_is_complete():
    settings = diffusekit.generate("a star", steps=1, device="cpu")[0].record.settings
    assert settings.seed is not None and settings.guidance_scale == 3.0
    assert (settings.width, settings.height) == (128, 128)


def test_other_sizes():
    assert make(width=192, height=64)[0].image.size == (192, 64)


@pytest.mark.parametrize("width", [100, 136])
def test_a_size_that_cannot_be_drawn(width):
    with pytest.raises(UsageError, match="width must be a multiple of 32") as error:
        make(width=width)
    assert error.value.hint.startswith("try ")


def test_the_last_seeds():
    assert make(seed=2**63 - 1)[0].record.settings.seed == 2**63 - 1
    with pytest.raises(UsageError, match="not 2 seeds"):
        make(seed=2**63 - 1, images=2)


def test_too_many_steps_for_a_sampler():
    with pytest.raises(UsageError, match="lcm cannot take 60 steps"):
        make(sampler="lcm", steps=60)


def test_stream_counts_and_previews():
    running = diffusekit.stream("a red cat", steps=3, seed=1, images=2, batch=1, device="cpu")
    seen = 0
    for step in running:
        seen += 1
        assert len(running.preview(step)) == 1
    assert seen == running.total == 6
    assert len(running.images) == 2 and isinstance(running.images[0].image, Image.Image)


def test_stopping_keeps_what_is_finished():
    running = diffusekit.stream("a red cat", steps=3, seed=1, images=3, batch=1, device="cpu")
    for count, _ in enumerate(running):
        if count == 4:
            break
    assert len(running.images) == 1


class Greedy:
    """A U-Net that runs out of memory above `limit` samples."""

    def __init__(self, unet, limit):
        self.unet, self.limit = unet, limit

    def __getattr__(self, name):
        return getattr(self.unet, name)

    def __call__(self, x, *args, **kwargs):
        if len(x) > self.limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return self.unet(x, *args, **kwargs)


def with_limit(limit, **settings):
    import dataclasses

    running = diffusekit.stream("a red cat", steps=2, seed=3, device="cpu", **settings)
    running.model = dataclasses.replace(running.model, unet=Greedy(running.model.unet, limit))
    for _ in running:
        pass
    return running


def test_out_of_memory_falls_back_to_smaller_batches(caplog):
    running = with_limit(4, images=5, batch=5)  # guided: two samples a picture
    assert len(running.images) == 5
    assert "going on with 2 picture(s) at once" in caplog.text
    expected = make(images=5, steps=2, seed=3)
    for a, b in zip(running.images, expected, strict=True):
        assert np.abs(pixels(a) - pixels(b)).max() <= 1


def test_out_of_memory_for_one_picture_is_said(mini):
    try:
        with pytest.raises(OutOfMemory) as error:
            with_limit(1)
        assert error.value.exit_code == 6
    finally:
        mini.vae.disable_tiling()
        mini.vae.disable_slicing()
        diffusekit.load_model("mini", "cpu").vae.disable_tiling()
        diffusekit.load_model("mini", "cpu").vae.disable_slicing()


def test_not_a_number_is_never_a_picture(monkeypatch):
    import dataclasses

    running = diffusekit.stream("a red cat", steps=2, seed=3, device="cpu")
    unet = running.model.unet

    class Broken(Greedy):
        def __call__(self, x, *args, **kwargs):
            found = unet(x, *args, **kwargs)
            found.sample *= float("nan")
            return found

    running.model = dataclasses.replace(running.model, unet=Broken(unet, 99))
    with pytest.raises(DiffusekitError, match="not-a-number"):
        for _ in running:
            pass
    assert running.images == []


def test_public_names_are_found_and_others_are_not():
    assert set(diffusekit.__all__) <= set(dir(diffusekit))
    with pytest.raises(AttributeError):
        diffusekit.nothing  # noqa: B018
