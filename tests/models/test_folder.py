"""Folders in diffusers layout: spellings of weight files, wrong labels, guidance-distilled U-Nets, hashes."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import diffusekit
from diffusekit import latents, models
from diffusekit.errors import ModelError, UsageError

STEMS = {"text_encoder": "model", "unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model"}


@pytest.fixture
def copy(families, tmp_path) -> Path:
    return Path(shutil.copytree(families["sd1"], tmp_path / "copy"))


def refused(name) -> ModelError:
    with pytest.raises(ModelError) as error:
        models.load(str(name), "cpu")
    assert error.value.exit_code == 8 and error.value.hint and "\n" not in error.value.message
    return error.value


def draw(folder, **settings) -> torch.Tensor:
    """The final latents of three steps with a model."""
    settings: dict[str, Any] = {"steps": 3, "seed": 1, "device": "cpu", "sampler": "ddim"} | settings
    *_, last = diffusekit.stream("a red cat", model=str(folder), **settings)
    return last.x_next


# --- names of weight files -------------------------------------------------------------------


def rename(folder: Path, variant: str) -> None:
    for part, stem in STEMS.items():
        (folder / part / f"{stem}.safetensors").rename(folder / part / f"{stem}{variant}.safetensors")


def shard(folder: Path, spelling: str, *, index: str = "", count: int = 3) -> None:
    """Split the U-Net's weights; `spelling` has places for number and count, `index` names the index file."""
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    weight_map = {}
    for number in range(count):
        name = spelling.format(number + 1, count)
        part = dict(list(tensors.items())[number::count])
        save_file(part, folder / "unet" / name)
        weight_map |= dict.fromkeys(part, name)
    file.unlink()
    if index:
        (folder / "unet" / index).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


SPELLINGS = [
    ("diffusion_pytorch_model-{:05}-of-{:05}.safetensors", "diffusion_pytorch_model.safetensors.index.json"),
    ("diffusion_pytorch_model.fp16-{:05}-of-{:05}.safetensors", "diffusion_pytorch_model.safetensors.index.fp16.json"),
    ("diffusion_pytorch_model-{:05}-of-{:05}.fp16.safetensors", "diffusion_pytorch_model.safetensors.fp16.index.json"),
    ("diffusion_pytorch_model.fp16-{:05}-of-{:05}.safetensors", "diffusion_pytorch_model.fp16.safetensors.index.json"),
    ("diffusion_pytorch_model.fp16-{:05}-of-{:05}.safetensors", ""),
]


@pytest.mark.slow
@pytest.mark.parametrize(("spelling", "index"), SPELLINGS)
def test_shards_of_every_spelling_are_loaded(families, copy, spelling, index, capfd):
    shard(copy, spelling, index=index)
    assert torch.equal(draw(copy), draw(families["sd1"]))
    assert capfd.readouterr().err == ""


@pytest.mark.slow
@pytest.mark.parametrize("variant", [".fp16", ".non_ema", ".bf16", ".ema", ".fp32"])
def test_weights_under_another_name_are_loaded_when_alone(families, copy, variant, capfd):
    rename(copy, variant)
    assert torch.equal(draw(copy), draw(families["sd1"]))
    assert capfd.readouterr().err == ""


@pytest.mark.slow
@pytest.mark.parametrize("other", [".fp16", ".non_ema", ".fp16-00001-of-00002"])
@pytest.mark.parametrize("broken", [False, True])
def test_full_weights_come_before_others(families, copy, other, broken):
    """An unusable file of another precision beside whole weights changes nothing."""
    for part, stem in STEMS.items():
        data = (copy / part / f"{stem}.safetensors").read_bytes()
        tensors = {name: torch.zeros_like(t) for name, t in load_file(copy / part / f"{stem}.safetensors").items()}
        save_file(tensors, copy / part / f"{stem}{other}.safetensors")
        if broken:
            (copy / part / f"{stem}{other}.safetensors").write_bytes(data[:100])
    assert torch.equal(draw(copy), draw(families["sd1"]))


def test_half_precision_comes_before_weights_without_ema(families, copy):
    """Stable Diffusion 1.5 is on some disks as fp16 beside a full non_ema file."""
    rename(copy, ".fp16")
    for part, stem in STEMS.items():
        tensors = {n: torch.zeros_like(t) for n, t in load_file(copy / part / f"{stem}.fp16.safetensors").items()}
        save_file(tensors, copy / part / f"{stem}.non_ema.safetensors")
    assert torch.equal(draw(copy), draw(families["sd1"]))


def test_half_precision_files_are_used_for_half_precision(copy):
    for part, stem in STEMS.items():
        tensors = {n: t * 0 + 1 for n, t in load_file(copy / part / f"{stem}.safetensors").items()}
        save_file(tensors, copy / part / f"{stem}.fp16.safetensors")
    model = models.load(str(copy), "cpu", "bfloat16")
    assert all((p == 1).all() for p in model.unet.parameters())


def test_a_pickle_beside_safetensors_is_not_looked_at(families, copy):
    (copy / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"\x80\x02garbage")
    assert torch.equal(draw(copy), draw(families["sd1"]))


@pytest.mark.parametrize(("spelling", "index"), SPELLINGS[:3])
def test_a_missing_shard_is_named(copy, spelling, index):
    shard(copy, spelling, index=index)
    (copy / "unet" / spelling.format(2, 3)).unlink()
    message = refused(copy).message
    assert f"has no {spelling.format(2, 3)}: 2 of 3 shards are there" in message


def test_only_pickles(copy):
    (copy / "unet" / "diffusion_pytorch_model.safetensors").rename(copy / "unet" / "diffusion_pytorch_model.bin")
    error = refused(copy)
    assert "holds no .safetensors weights, only diffusion_pytorch_model.bin" in error.message


# --- wrong labels ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "changes", "says"),
    [
        ("unet", {"in_channels": 8}, "is made for InstructPix2Pix"),
        ("unet", {"in_channels": 5}, "is made for depth maps"),
        ("unet", {"in_channels": 7}, "is made for upscaling"),
        ("unet", {"out_channels": 8}, "is of another kind of model: 4 channels in and 8 out"),
        ("unet", {"in_channels": 16, "out_channels": 16}, "takes latents of 16 channels, its VAE has 4"),
        ("vae", {"latent_channels": 16}, "takes latents of 4 channels, its VAE has 16"),
        ("unet", {"addition_embed_type": "text_time"}, "is that of Stable Diffusion XL"),
        ("unet", {"addition_embed_type": "image"}, "needs more than a prompt"),
        ("unet", {"class_embed_type": "projection"}, "needs more than a prompt (it has class_embed_type)"),
        ("unet", {"num_class_embeds": 1000}, "needs more than a prompt (it has num_class_embeds)"),
        ("unet", {"encoder_hid_dim_type": "image_proj"}, "needs more than a prompt"),
        ("unet", {"cross_attention_dim": 768}, "takes text states of width 768, its text encoder makes 32"),
        ("unet", {"cross_attention_dim": [32, 64]}, "takes text states of width 32 and 64"),
        ("text_encoder", {"hidden_size": 1024}, "takes text states of width 32, its text encoder makes 1024"),
        ("text_encoder", {"model_type": "t5"}, "the text_encoder of copy is a 't5', expected CLIP"),
        ("unet", {"_class_name": "SD3Transformer2DModel"}, "is a 'SD3Transformer2DModel', expected UNet2DCondition"),
        ("vae", {"_class_name": "AutoencoderTiny"}, "is a 'AutoencoderTiny', expected AutoencoderKL"),
        ("vae", {"shift_factor": 0.0609}, "moves its latents (shift_factor)"),
        ("vae", {"in_channels": 4}, "has in_channels 4, expected 3"),
        ("vae", {"block_out_channels": []}, "unusable block_out_channels"),
        ("vae", {"scaling_factor": "x"}, "unusable scaling_factor"),
        ("unet", {"sample_size": "big"}, "unusable sample_size"),
        ("unet", {"in_channels": None}, "unusable in_channels"),
        ("scheduler", {"prediction_type": "flow_prediction"}, "predicts 'flow_prediction', which is not supported"),
    ],
)
def test_a_wrong_label_is_refused_before_weights_are_read(copy, part, changes, says, monkeypatch):
    file = copy / part / ("scheduler_config.json" if part == "scheduler" else "config.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    for weights in copy.rglob("*.safetensors"):
        weights.write_bytes(b"")  # would be refused as empty
    assert says in refused(copy).message


@pytest.mark.parametrize(
    ("label", "says"),
    [
        ("StableDiffusion3Pipeline", "is a Stable Diffusion 3 model (StableDiffusion3Pipeline), which is not"),
        ("StableDiffusionXLImg2ImgPipeline", "is a Stable Diffusion XL (its refiner) model"),
        ("WanPipeline", "is a model of the class 'WanPipeline'"),
    ],
)
def test_a_family_is_called_by_its_name(copy, label, says):
    index = json.loads((copy / "model_index.json").read_text()) | {"_class_name": label}
    (copy / "model_index.json").write_text(json.dumps(index))
    error = refused(copy)
    assert says in error.message and "Stable Diffusion 1.x, 2.x and XL" in error.hint


def test_a_tokenizer_with_more_words_than_the_encoder_is_refused(copy):
    """Its ids would be out of range of the token table."""
    config = json.loads((copy / "tokenizer" / "tokenizer.json").read_text())
    vocabulary = config["model"]["vocab"]
    vocabulary |= {f"extra{i}</w>": len(vocabulary) + i for i in range(500)}
    (copy / "tokenizer" / "tokenizer.json").write_text(json.dumps(config))
    assert "words, its text_encoder" in refused(copy).message


def test_latents_have_the_channels_of_the_vae(mini):
    assert latents.shape(mini, 128, 128) == (mini.vae.config.latent_channels, 16, 16)


# --- guidance-distilled U-Nets ---------------------------------------------------------------


@pytest.fixture(scope="module")
def distilled(families, tmp_path_factory) -> Path:
    """sd1 with a U-Net that takes the guidance scale as an input, as latent consistency models do."""
    from diffusers import UNet2DConditionModel

    folder = Path(shutil.copytree(families["sd1"], tmp_path_factory.mktemp("distilled") / "lcm"))
    config = dict(UNet2DConditionModel.load_config(folder / "unet")) | {"time_cond_proj_dim": 256}
    torch.manual_seed(1)
    UNet2DConditionModel.from_config(config).save_pretrained(folder / "unet")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1.0, 3.0, 7.5])
@pytest.mark.parametrize("sampler", ["lcm", "ddim", "dpm++_2m"])
def test_a_guidance_distilled_model_equals_diffusers(distilled, scale, sampler):
    from diffusers import StableDiffusionPipeline

    from diffusekit import schedule
    from diffusekit.device import make_generators

    pipeline = StableDiffusionPipeline.from_pretrained(distilled, safety_checker=None)
    pipeline.scheduler = schedule.make_scheduler(sampler, dict(pipeline.scheduler.config))
    pipeline.set_progress_bar_config(disable=True)
    model = models.load(str(distilled), "cpu")
    generators = make_generators([5])
    start = latents.noise(latents.shape(model, 16, 16), generators)
    theirs = pipeline(
        "a red cat",
        num_inference_steps=4,
        guidance_scale=scale,
        latents=start,
        generator=generators,
        width=16,
        height=16,
        output_type="latent",
    ).images
    generation = diffusekit.stream(
        "a red cat", model=str(distilled), device="cpu", steps=4, guidance_scale=scale, seed=5, sampler=sampler
    )
    *_, last = generation
    assert len(last.outputs) == 1 and not generation.is_guided
    assert (last.x_next - theirs).abs().max() < 1e-4


def test_a_guidance_distilled_model_obeys_the_guidance_scale(distilled):
    assert not torch.equal(draw(distilled, guidance_scale=1.5), draw(distilled, guidance_scale=8.0))
    generation = diffusekit.stream("x", model=str(distilled), device="cpu", negative_prompt="dog", steps=1)
    assert any("guidance-distilled" in warning for warning in generation.warnings)


def test_no_token_is_learned_with_a_guidance_distilled_model(distilled):
    """The loss has no guidance scale to give to the U-Net."""
    from PIL import Image

    Path("photos").mkdir()
    for i in range(3):
        Image.new("RGB", (64, 64), (60 * i, 90, 120)).save(f"photos/{i}.png")
    with pytest.raises(UsageError, match="takes the guidance scale as an input"):
        diffusekit.invert("photos", token="<it>", init="cat", model=str(distilled), device="cpu", steps=1)


# --- what a model brings ---------------------------------------------------------------------


def test_a_safety_checker_is_known_before_the_model_is_loaded(copy):
    assert not models.describe(str(copy)).has_safety_checker
    index = json.loads((copy / "model_index.json").read_text())
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    (copy / "model_index.json").write_text(json.dumps(index))
    assert models.describe(str(copy)).has_safety_checker


def test_a_model_without_a_safety_checker_is_loaded_in_silence(families, caplog):
    models.load(str(families["sd2"]), "cpu")
    models.load(str(families["sd1"]), "cpu")
    assert not caplog.records


# --- families --------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "family", "task", "widths"),
    [
        ("sd1", "sd1", "text", (32,)),
        ("sd1-inpainting", "sd1", "inpainting", (32,)),
        ("lcm", "sd1", "text", (32,)),
        ("sd2-inpainting", "sd2", "inpainting", (64,)),
        ("sd2", "sd2", "text", (64,)),
        ("sdxl", "sdxl", "text", (32, 48)),
        ("sdxl-inpainting", "sdxl", "inpainting", (32, 48)),
    ],
)
def test_a_family_is_known_by_its_configurations(random_models, kind, family, task, widths):
    model, info = models.load(str(random_models[kind]), "cpu"), models.describe(str(random_models[kind]))
    assert (model.family.name, model.task, model.widths) == (family, task, widths)
    assert (info.family, info.task, info.native_size) == (model.family, task, model.native_size)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"addition_embed_type": None}, "is not that of Stable Diffusion XL (its addition_embed_type is 'None')"),
        ({"cross_attention_dim": 32}, "takes text states of width 32, its text encoders make 32 and 48"),
        ({"projection_class_embeddings_input_dim": 95}, "takes 95 numbers for the pooled prompt and the sizes"),
    ],
)
def test_parts_of_sdxl_that_do_not_fit_are_refused(random_models, tmp_path, changes, says):
    folder = random_models.copy("sdxl", tmp_path / "copy")
    config = folder / "unet" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | changes))
    assert says in refused(folder).message
