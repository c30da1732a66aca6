"""Tokens of real families: SDXL learns two tables at once, 2.x a velocity. Kinds that cannot learn are refused."""

import json
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import safe_open

from diffusekit import embeddings
from diffusekit.errors import UsageError
from diffusekit.inversion.encoded_dataset import find_size_ids
from diffusekit.inversion.run_folder import RunFolder
from diffusekit.inversion.trainer import Inversion
from diffusekit.pipeline import Generation
from diffusekit.settings import GenerateSettings
from tests.helpers.inversions import learn, quick
from tests.helpers.random_models import correct_end

PHOTO = (96, 48)  # a photo of twice the width: scaled to 128 x 64, a third of it on either side of the square


def prepare(settings, tmp_path) -> Inversion:
    run = Inversion(settings, tmp_path / "out")
    run.close()
    return run


@pytest.fixture
def one_photo(tmp_path):
    """A folder with one wide photo and its caption."""
    folder = tmp_path / "one"
    folder.mkdir()
    Image.effect_noise(PHOTO, 80).convert("RGB").save(folder / "0.png")
    (folder / "0.txt").write_text("an old {} in the snow")
    return folder


def learned_in_diffusers(folder, vectors):
    """The parts of a pipeline of diffusers, in which the rows of `<toy>` and `<toy>_1` are `vectors`."""
    from diffusers import StableDiffusionXLPipeline

    pipeline = StableDiffusionXLPipeline.from_pretrained(folder, local_files_only=True)
    tables = []
    for number, end in enumerate(("", "_2")):
        tokenizer, encoder = getattr(pipeline, f"tokenizer{end}"), getattr(pipeline, f"text_encoder{end}")
        tokenizer.add_tokens(["<toy>", "<toy>_1"])
        encoder.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        table = encoder.get_input_embeddings().weight
        table.data[-2:] = vectors[number]
        tables.append(table.requires_grad_(True))
    correct_end(pipeline)
    return pipeline, tables


@pytest.mark.slow
def test_the_gradients_of_sdxl_are_those_of_diffusers_parts(random_models, one_photo, tmp_path):
    """The loss written out with tokenizers, encoders, U-Net and noise schedule of a pipeline, and autograd."""
    from diffusers import DDPMScheduler

    settings = quick(tmp_path, random_models["sdxl"], pictures=str(one_photo), token="<toy>", captions="files")
    run = prepare(settings, tmp_path)
    value = run.optimizer.compute_gradient([0, 1])
    ours = [each.vectors for each in run.optimizer.placeholders]
    assert [each.shape for each in ours] == [(2, 32), (2, 48)]

    pipeline, tables = learned_in_diffusers(random_models["sdxl"], [each.detach() for each in ours])
    batch = run.batches.batch([0, 1])  # latents, noise and timesteps that the seed gives
    prompt = "an old <toy> <toy>_1 in the snow"
    states = []
    for tokenizer, encoder in (
        (pipeline.tokenizer, pipeline.text_encoder),
        (pipeline.tokenizer_2, pipeline.text_encoder_2),
    ):
        read = tokenizer([prompt] * 2, padding="max_length", max_length=77, truncation=True, return_tensors="pt")
        output = encoder(read.input_ids, output_hidden_states=True)
        states.append(output.hidden_states[-2])
        pooled = output[0]
    sizes = torch.tensor([[48, 96, 0, 32, 64, 64]] * 2)  # height and width, top and left, height and width
    scheduler: Any = DDPMScheduler.from_config(pipeline.scheduler.config)
    noisy = scheduler.add_noise(batch.latents, batch.noise, batch.timesteps)
    predicted = pipeline.unet(
        noisy,
        batch.timesteps,
        encoder_hidden_states=torch.cat(states, dim=-1),
        added_cond_kwargs={"text_embeds": pooled, "time_ids": sizes},
    ).sample
    loss = F.mse_loss(predicted, batch.noise)
    loss.backward()
    assert value == pytest.approx(loss.item(), rel=1e-5)
    for vectors, table in zip(ours, tables, strict=True):
        assert vectors.grad is not None and table.grad is not None
        assert vectors.grad.norm(dim=1).min() > 0
        assert torch.allclose(vectors.grad, table.grad[-2:], rtol=1e-3, atol=1e-3 * float(table.grad[-2:].abs().max()))


def test_size_ids_say_where_the_square_is():
    assert find_size_ids((800, 400), 64) == [400, 800, 0, 32, 64, 64]
    assert find_size_ids((400, 800), 64, (0.5, 1.0)) == [800, 400, 64, 0, 64, 64]
    assert find_size_ids((800, 400), 64, (0.25, 0.5)) == [400, 800, 0, 16, 64, 64]
    assert find_size_ids((800, 400), 64, (0.25, 0.5), flipped=True) == [400, 800, 0, 48, 64, 64]
    assert find_size_ids((64, 64), 1024) == [64, 64, 0, 0, 1024, 1024]


@pytest.mark.slow
def test_each_table_has_its_own_start_bound_and_rate(random_models, tmp_path):
    run = prepare(quick(tmp_path, random_models["sdxl"], norm_bound=0.5), tmp_path)
    tables = [encoder.get_input_embeddings().weight for encoder in run.model.text_encoders]
    (cat,) = run.model.tokenizers[0]("cat", add_special_tokens=False).input_ids
    typical = [float(table.norm(dim=1).median()) for table in tables]
    assert typical[0] != pytest.approx(typical[1], rel=0.05)
    for number, placeholder in enumerate(run.optimizer.placeholders):
        word = tables[number][cat]
        assert placeholder.max_norm == pytest.approx(typical[number] / 2)
        assert torch.allclose(placeholder.start, word * min(1, placeholder.max_norm / word.norm()), rtol=1e-5)
        width = tables[number].shape[1]
        assert run.learning_rates[number] == pytest.approx(typical[number] / 3 / width**0.5)
    given = prepare(quick(tmp_path, random_models["sdxl"], learning_rate=0.01, start="output", vectors=1), tmp_path)
    assert given.learning_rates == (0.01, 0.01)
    states = given.model.text_encoders[1](
        torch.tensor([[49406, cat, 49407, *[0] * 74]]), output_hidden_states=True
    ).hidden_states[-2][0, 1]
    start = given.optimizer.placeholders[1].start[0]
    assert torch.allclose(start, states * typical[1] / states.norm(), rtol=1e-3, atol=1e-6)


def test_2x_pads_captions_with_its_own_token(random_models, tmp_path):
    run = prepare(quick(tmp_path, random_models["sd2"]), tmp_path)
    ids = run.batches.ids[0][0, 0].tolist()
    assert ids[ids.index(49407) + 1 :] == [0] * (76 - ids.index(49407)) and run.model.tokenizers[0].decode([0]) == "!"
    batch = run.batches.batch([0])
    assert batch.size_ids is None and run.model.prediction_type == "v_prediction"


@pytest.mark.slow
def test_a_merge_with_a_model_of_few_steps_is_warned_of(random_models, tmp_path, caplog):
    folder = random_models.copy("sdxl", tmp_path / "dreamyXL_v2Turbo")
    run = prepare(quick(tmp_path, folder), tmp_path)
    assert run.model.family.name == "sdxl"
    assert "is a merge with Turbo" in caplog.text and "with a plain Stable Diffusion XL model" in caplog.text


@pytest.mark.slow
def test_another_vae_is_another_run_and_its_path_is_told_to_nobody(random_models, tmp_path):
    settings = quick(tmp_path, random_models["sd1"], steps=1, preview_every=0, preview_images=1)
    vae = random_models["sd2"] / "vae"
    run = Inversion(settings.model_copy(update={"vae": str(vae)}), tmp_path / "out")
    list(run)
    run.close()
    assert run.identity()["vae"] == run.model.vae_sha256 != ""
    assert str(vae.parent) not in run.folder.report.read_text()
    with pytest.raises(UsageError, match="vae was "):
        Inversion(settings.model_copy(update={"steps": 2}), tmp_path / "out", resume=True)


@pytest.mark.parametrize(
    ("kind", "says", "hint"),
    [
        ("sdxl-inpainting", "is a model for inpainting", "learn the token with a Stable Diffusion XL model"),
        ("lcm", "is an LCM .* takes the guidance scale as an input", "that it was distilled from; it works in both"),
        ("sdxl-turbo", "is a Turbo model .* distilled for few steps", "the Stable Diffusion XL model"),
    ],
)
def test_kinds_that_cannot_learn_a_token_are_refused(random_models, tmp_path, kind, says, hint):
    with pytest.raises(UsageError, match=says) as caught:
        Inversion(quick(tmp_path, random_models[kind]), tmp_path / "out")
    assert hint in caught.value.hint and caught.value.exit_code == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sdxl", "sd2-zsnr"])
def test_a_stopped_run_ends_bit_exactly_as_one_that_was_not(random_models, tmp_path, kind):
    """With validation images, checkpoints, the log and the report, as for Stable Diffusion 1.x."""
    settings = quick(tmp_path, random_models[kind], steps=4, preview_every=2, checkpoint_every=1, preview_images=1)
    learn(settings, tmp_path / "whole")
    run = Inversion(settings, tmp_path / "cut")
    for progress in run:
        if progress.step == 3:
            run.save_checkpoint()
            break
    run.close()
    learn(settings, tmp_path / "cut", resume=True)
    whole, cut = (tmp_path / name for name in ("whole", "cut"))
    assert (whole / "three.safetensors").read_bytes() == (cut / "three.safetensors").read_bytes()
    assert (whole / "three/log.jsonl").read_text() == (cut / "three/log.jsonl").read_text()

    token = embeddings.read(cut / "three.safetensors")
    start = embeddings.decode_vectors(token.metadata["start_vectors"], token.vectors)
    assert len(start) == (2 if kind == "sdxl" else 1)
    assert not any(torch.equal(a, b) for a, b in zip(start, token.vectors, strict=True))
    folder = RunFolder(cut, "three")
    assert [step for step, _ in folder.validation_images()] == [0, 2, 4]
    page = folder.report.read_text()
    assert ("nearest words, second encoder" in page) == ("norm, second encoder" in page) == (kind == "sdxl")
    assert ("moved_2" in folder.read_log().latest) == (kind == "sdxl")


@pytest.mark.slow
def test_a_run_of_sdxl_goes_on_from_its_token_and_is_drawn(random_models, tmp_path):
    settings = quick(tmp_path, random_models["sdxl"], steps=1, preview_every=0, preview_images=1)
    first = learn(settings, tmp_path / "out", overwrite=False)
    with safe_open(first.path, "pt") as file:
        assert sorted(file.keys()) == ["clip_g", "clip_l"]
    rates = json.loads(first.metadata["learning_rate"])
    assert len(rates) == 2 and rates[0] != rates[1]
    again = prepare(settings.model_copy(update={"init": str(first.path), "name": "more"}), tmp_path)
    for placeholder, vectors in zip(again.optimizer.placeholders, first.vectors, strict=True):
        assert torch.allclose(placeholder.start, vectors, rtol=1e-6)
    own = GenerateSettings(prompt="", model=settings.model, steps=2, seed=1, device="cpu")
    drawn = []
    for prompt in ("a picture of S*", "a picture of a cat"):
        running = Generation(own, [prompt], [first])
        list(running)
        drawn.append(running.images[0].image.tobytes())
    assert drawn[0] != drawn[1]
