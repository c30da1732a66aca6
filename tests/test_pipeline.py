"""Prompt to images: seeds, batches, sizes, memory, cancelling."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import diffusekit
from diffusekit import embeddings
from diffusekit.embeddings import LearnedToken
from diffusekit.errors import DiffusekitError, OutOfMemory, UsageError


def pixels(image) -> np.ndarray:
    return np.asarray(image.image, np.int16)


def make(prompt="a red cat", **settings):
    return diffusekit.generate(prompt, **({"steps": 3, "device": "cpu", "seed": 7} | settings))


def test_the_same_seed_is_the_same_image():
    a, b, c = make(), make(), make(seed=8)
    assert (pixels(a[0]) == pixels(b[0])).all()
    assert (pixels(a[0]) != pixels(c[0])).any()


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["dpm++_2m", "euler_a", "dpm++_2m_sde", "ddpm"])
def test_the_same_image_at_any_batch_size(sampler):
    alone = make(images=3, batch=1, sampler=sampler)
    together = make(images=3, batch=3, sampler=sampler)
    for a, b in zip(alone, together, strict=True):
        assert np.abs(pixels(a) - pixels(b)).max() <= 1
    assert [p.record.settings.seed for p in together] == [7, 8, 9]


@pytest.mark.slow
def test_several_prompts_keep_their_order():
    found = make(["a red cat", "a blue car"], images=2, batch=3)
    assert [p.record.settings.prompt for p in found] == ["a red cat"] * 2 + ["a blue car"] * 2
    assert [p.record.settings.seed for p in found] == [7, 8, 7, 8]
    assert (pixels(found[2]) == pixels(make("a blue car")[0])).mean() > 0.99


@pytest.mark.slow
def test_the_prompt_and_the_negative_prompt_matter():
    plain = pixels(make()[0])
    assert (plain != pixels(make("a blue car")[0])).any()
    assert (plain != pixels(make(negative_prompt="grass")[0])).any()
    assert (plain != pixels(make(guidance_scale=1.0)[0])).any()


def test_a_generation_keeps_what_it_warned_of_and_logs_each_warning_once(mini, caplog):
    generation = diffusekit.stream("a cat", model=mini, steps=1, negative_prompt="blue", guidance_scale=1)
    assert generation.warnings == ["`negative_prompt` has no effect without guidance (`guidance_scale` 1)"]
    assert [record.getMessage() for record in caplog.records] == generation.warnings
    assert diffusekit.stream("a cat", model=mini, steps=1).warnings == []


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
    with pytest.raises(UsageError, match="exceeds the largest seed"):
        make(seed=2**63 - 1, images=2)


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


def with_limit(model, limit, **settings):
    greedy = replace(model, unet=Greedy(model.unet, limit))
    return diffusekit.generate("a red cat", model=greedy, steps=2, seed=3, **settings)


@pytest.mark.slow
def test_out_of_memory_falls_back_to_smaller_batches(mini, caplog):
    images = with_limit(mini, 4, images=5, batch=5)  # guided: two samples an image
    assert len(images) == 5
    assert "continuing with a batch of 2" in caplog.text
    expected = make(images=5, steps=2, seed=3)
    for a, b in zip(images, expected, strict=True):
        assert np.abs(pixels(a) - pixels(b)).max() <= 1


def test_out_of_memory_for_one_image_is_an_error_and_leaves_the_model_as_it_was(mini, caplog):
    before = diffusekit.generate("a red cat", model=mini, steps=2, seed=3)[0]
    with pytest.raises(OutOfMemory) as error:
        with_limit(mini, 1)
    assert error.value.exit_code == 6 and "decoding in tiles" in caplog.text
    assert not mini.vae.use_tiling and not mini.vae.use_slicing
    after = diffusekit.generate("a red cat", model=mini, steps=2, seed=3)[0]
    assert (pixels(before) == pixels(after)).all()


def test_an_image_decoded_in_tiles_leaves_the_vae_as_it_was(mini):
    """The VAE runs out of memory once: the image is decoded in tiles, and the next one is not."""

    class Once:
        def __init__(self, vae):
            self.vae, self.tiled = vae, []

        def __getattr__(self, name):
            return getattr(self.vae, name)

        def __setattr__(self, name, value):
            if name in ("vae", "tiled"):
                super().__setattr__(name, value)
            else:
                setattr(self.vae, name, value)

        def decode(self, z):
            self.tiled.append(self.vae.use_tiling)
            if len(self.tiled) == 1:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return self.vae.decode(z)

    model = replace(mini, vae=Once(mini.vae))
    first, second = (diffusekit.generate("a red cat", model=model, steps=2, seed=3)[0] for _ in range(2))
    assert model.vae.tiled == [False, True, False] and not mini.vae.use_tiling and not mini.vae.use_slicing
    plain = diffusekit.generate("a red cat", model=mini, steps=2, seed=3)[0]
    assert (pixels(second) == pixels(plain)).all() and first.image.size == plain.image.size


def test_not_a_number_is_never_an_image(mini):
    class Broken(Greedy):
        def __call__(self, x, *args, **kwargs):
            output = super().__call__(x, *args, **kwargs)
            output.sample *= float("nan")
            return output

    running = diffusekit.stream("a red cat", model=replace(mini, unet=Broken(mini.unet, 99)), steps=2, seed=3)
    with pytest.raises(DiffusekitError, match="NaN or infinity"):
        for _ in running:
            pass
    assert running.images == []


# --- what other functions return is accepted ---------------------------------------------------


def test_a_loaded_model_is_used_as_it_is(mini):
    image = diffusekit.generate("a red cat", model=mini, steps=3, seed=7)[0]
    assert (pixels(image) == pixels(make()[0])).all()
    assert image.record.settings.model == "mini" and image.record.settings.dtype == "float32"


def test_a_loaded_models_few_step_lora_sets_the_defaults():
    fast = diffusekit.load_model("mini", "cpu", fast=True)
    image = diffusekit.generate("a red cat", model=fast, seed=7)[0]
    own = image.record.settings
    assert (own.fast, own.steps, own.guidance_scale) == (True, 4, 1.0)
    assert (pixels(image) == pixels(diffusekit.generate("a red cat", fast=True, seed=7, device="cpu")[0])).all()


@pytest.mark.parametrize("given", [{"device": "cpu"}, {"dtype": "float32"}, {"fast": True}])
def test_what_a_loaded_model_decides_is_not_given_again(mini, given):
    with pytest.raises(UsageError, match=f"`{next(iter(given))}` is decided"):
        diffusekit.stream("a red cat", model=mini, **given)


def test_tokens_are_given_as_objects_names_or_paths(mini, tmp_path):
    embeddings.save(LearnedToken("my_cat", "S*", (torch.randn(1, 256),), {}), tmp_path / "my_cat.safetensors")
    token = diffusekit.load_token(tmp_path / "my_cat.safetensors")
    shutil.copytree(tmp_path, "embeddings", ignore=shutil.ignore_patterns("embeddings", "config"))
    ways = [token, "my_cat", tmp_path / "my_cat.safetensors"]
    images = [diffusekit.generate("a S*", model=mini, tokens=[way], steps=2, seed=3)[0] for way in ways]
    assert all((pixels(image) == pixels(images[0])).all() for image in images)
    assert {image.record.embeddings["my_cat"] for image in images} == {token.sha256}
    assert (pixels(images[0]) != pixels(make("a", steps=2, seed=3)[0])).any()


def test_a_token_that_was_never_saved_is_used(mini):
    token = LearnedToken("new_cat", "S*", (torch.randn(1, 256),), {})
    image = diffusekit.generate("a S*", model=mini, tokens=[token], steps=2, seed=3)[0]
    assert image.record.settings.embedding == ("new_cat",)
    assert (pixels(image) != pixels(make("a", steps=2, seed=3)[0])).any()
