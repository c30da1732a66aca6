"""One-file checkpoints: read from shapes, loaded as diffusers loads them, and what they do not say."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from diffusekit import generate, model_files, models
from diffusekit.errors import ModelError
from diffusekit.model_files import original_layout
from tests.helpers.one_file import match_file, write_one_file

KINDS = ("sd1", "sd1-inpainting", "sd2", "sd2-inpainting", "sdxl", "sdxl-inpainting")
PROMPT = "A PHOTO of (a) naïve cat's 日本 😀 &amp; x"


@pytest.fixture(scope="session")
def one_files(random_models, tmp_path_factory):
    """For every kind: a folder and the file that has the same networks."""
    root = tmp_path_factory.mktemp("one_files")

    def find(kind: str) -> tuple[Path, Path]:
        folder, file = root / kind, root / f"{kind}.safetensors"
        if not file.exists():
            write_one_file(match_file(random_models[kind], folder), file)
        return folder, file

    return find


def same(one, other) -> bool:
    pairs = zip(one.state_dict().items(), other.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_has_the_networks_that_diffusers_reads_from_it(one_files, kind):
    """And the configurations of the folder, as far as they change an image."""
    import diffusers

    folder, file = one_files(kind)
    model = models.load(str(file), "cpu", prediction_type="v_prediction" if kind == "sd2" else None)
    pipeline = getattr(diffusers, json.loads((folder / "model_index.json").read_text())["_class_name"])
    theirs = pipeline.from_single_file(str(file), config=str(folder), local_files_only=True, safety_checker=None)
    encoders = [theirs.text_encoder, *([theirs.text_encoder_2] if kind.startswith("sdxl") else [])]
    tokenizers = [theirs.tokenizer, *([theirs.tokenizer_2] if kind.startswith("sdxl") else [])]
    assert same(model.unet, theirs.unet) and same(model.vae, theirs.vae)
    assert all(same(a, b) for a, b in zip(model.text_encoders, encoders, strict=True))
    for ours, other in zip(model.tokenizers, tokenizers, strict=True):
        assert ours(PROMPT, padding="max_length").input_ids == other(PROMPT, padding="max_length").input_ids
    for own, other, ignored in (
        (model.unet.config, theirs.unet.config, {"upcast_attention"}),
        (model.vae.config, theirs.vae.config, {"sample_size"}),
    ):
        assert {k: v for k, v in own.items() if k[0] != "_" and k not in ignored and other.get(k) != v} == {}
    assert model.task == ("inpainting" if "inpainting" in kind else "text")
    assert model.prediction_type == theirs.scheduler.config.prediction_type


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sd1", "sd2"])
def test_an_image_from_a_file_is_that_of_its_folder(one_files, kind):
    settings: dict[str, Any] = {"seed": 1, "steps": 2, "width": 64, "height": 64, "sampler": "ddim", "device": "cpu"}
    folder, file = (str(path) for path in one_files(kind))
    (first,) = generate("a red cat", model=file, **settings)
    (second,) = generate("a red cat", model=folder, **settings)
    assert first.image.tobytes() == second.image.tobytes()
    assert first.record.settings.model == kind
    assert len(first.record.model_hash) == 64 and first.record.revision == ""


@pytest.mark.parametrize(
    ("family", "native"), [(original_layout.SD1, 64), (original_layout.SD2, 96), (original_layout.SDXL, 128)]
)
def test_the_shapes_at_true_size_give_the_configurations_of_the_hub(family, native):
    """Written with meta tensors: nothing of two to seven gigabytes is made."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    from diffusekit.models.original_names import to_original
    from diffusekit.models.tensors import rename

    template = original_layout.read_template(family)
    shapes = {}
    with torch.device("meta"):
        parts: dict[str, Any] = {
            "unet": UNet2DConditionModel.from_config(template["unet"]),
            "vae": AutoencoderKL.from_config(template["vae"]),
        }
        for part in family.encoders:
            kind = CLIPTextModelWithProjection if part.is_projected else CLIPTextModel
            parts[part.folder] = kind(CLIPTextConfig(**template[part.folder]))
    for part, network in parts.items():
        found = to_original(family, part, rename(network.state_dict(), part), template[part])
        shapes |= {name: tuple(tensor.shape) for name, tensor in found.items()}
    configs = original_layout.derive_configs("x", family, shapes)
    for part in ("unet", "vae", *(encoder.folder for encoder in family.encoders)):
        assert {k: v for k, v in configs[part].items() if template[part].get(k, v) != v} == {}
    assert original_layout.find_family("x", shapes) is family
    assert native in (configs["unet"]["sample_size"], 96)


@pytest.mark.slow
def test_averaged_weights_of_training_are_left_alone(one_files, tmp_path):
    folder, file = one_files("sd1")
    ema = write_one_file(folder, tmp_path / "ema.safetensors", ema=True)
    assert model_files.read_file("ema", ema).has_ema and not model_files.read_file("sd1", file).has_ema
    assert same(models.load(str(ema), "cpu").unet, models.load(str(file), "cpu").unet)


@pytest.mark.slow
def test_half_precision_and_old_names_are_read(one_files, tmp_path):
    """Old trainers wrote no `text_model`, and a buffer that became float."""
    folder, _ = one_files("sd1")
    half = write_one_file(folder, tmp_path / "half.safetensors", dtype=torch.float16)
    assert model_files.read_file("half", half).precision == "half"
    from safetensors.torch import load_file, save_file

    tensors = load_file(half)
    old = {name.replace("transformer.text_model.", "transformer."): t for name, t in tensors.items()}
    old["cond_stage_model.transformer.embeddings.position_ids"] = torch.arange(77.0)[None]
    save_file(old, tmp_path / "old.safetensors")
    first, second = models.load(str(half), "cpu"), models.load(str(tmp_path / "old.safetensors"), "cpu")
    assert same(first.text_encoders[0], second.text_encoders[0]) and first.unet.dtype == torch.float32


SAYS = [
    ("plain", None, (), "", "v_prediction", True),
    ("plain", {"modelspec.prediction_type": "epsilon"}, (), "", "epsilon", False),
    ("plain", {"modelspec.architecture": "stable-diffusion-v2-512"}, (), "", "epsilon", False),
    ("plain", None, ("v_pred",), "", "v_prediction", False),
    ("plain", None, (), 'model:\n  params:\n    parameterization: "v"\n', "v_prediction", False),
    ("plain", None, (), "model:\n  params:\n    timesteps: 1000\n", "epsilon", False),
    ("v2-1_512-ema-pruned", None, (), "", "epsilon", True),
    ("v2-1_768-v-pruned", None, (), "", "v_prediction", True),
]


@pytest.mark.parametrize(("stem", "metadata", "markers", "sidecar", "prediction", "is_assumed"), SAYS)
def test_what_a_file_predicts_comes_from_what_it_says(
    one_files, tmp_path, stem, metadata, markers, sidecar, prediction, is_assumed
):
    from safetensors.torch import load_file, save_file

    file = tmp_path / f"{stem}.safetensors"
    save_file(load_file(one_files("sd2")[1]) | {name: torch.zeros(1) for name in markers}, file, metadata)
    if sidecar:
        file.with_suffix(".yaml").write_text(sidecar)
    read = model_files.read_file("two", file)
    assert read.configs["scheduler"]["prediction_type"] == prediction
    assert bool(read.assumption) is is_assumed and (not is_assumed or "`prediction_type`" in read.assumption)
    assert read.configs["unet"]["sample_size"] == (96 if prediction == "v_prediction" else 64)
    asked = model_files.read_file("two", file, prediction_type="epsilon")
    assert asked.configs["scheduler"]["prediction_type"] == "epsilon" and not asked.assumption


def test_a_file_of_xl_that_is_marked_has_a_zero_terminal_schedule(one_files, tmp_path):
    from safetensors.torch import load_file, save_file

    _, file = one_files("sdxl")
    assert model_files.read_file("xl", file).configs["scheduler"]["prediction_type"] == "epsilon"
    marked = {"v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)}
    save_file(load_file(file) | marked, tmp_path / "noob.safetensors")
    schedule = model_files.read_file("noob", tmp_path / "noob.safetensors").configs["scheduler"]
    assert schedule["prediction_type"] == "v_prediction"
    assert schedule["rescale_betas_zero_snr"] and schedule["timestep_spacing"] == "trailing"


@pytest.mark.slow
def test_the_assumption_is_a_warning_and_the_setting_ends_it(one_files):
    folder, file = one_files("sd2")
    settings: dict[str, Any] = {"seed": 1, "steps": 1, "width": 64, "height": 64, "sampler": "ddim", "device": "cpu"}
    from diffusekit import stream

    run = stream("a cat", model=str(file), **settings)
    assert any("v_prediction is assumed" in sentence for sentence in run.warnings)
    run = stream("a cat", model=str(file), prediction_type="epsilon", **settings)
    assert not any("assumed" in sentence for sentence in run.warnings)
    assert run.model.prediction_type == "epsilon" and run.model.native_size == 512
    assert stream("a cat", model=str(folder), prediction_type="epsilon", **settings).model.prediction_type == "epsilon"


def broken(file: Path, path: Path, change) -> Path:
    from safetensors.torch import load_file, save_file

    tensors = load_file(file)
    change(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    return path


UNET = "model.diffusion_model."
BREAKS = {
    "no-vae": (lambda t: [t.pop(k) for k in list(t) if k.startswith("first_stage_model.")], "has no VAE"),
    "no-text": (lambda t: [t.pop(k) for k in list(t) if k.startswith("cond_stage_model.")], "no text encoder"),
    "no-middle": (lambda t: [t.pop(k) for k in list(t) if "middle_block.1." in k], "has other layers"),
    "one-less": (lambda t: t.pop(f"{UNET}output_blocks.5.0.in_layers.2.bias"), "is not whole"),
    "one-more": (lambda t: t.update({f"{UNET}time_embed.cond_proj.weight": torch.ones(2, 2)}), "tensors that its"),
    "other-shape": (lambda t: t.update({f"{UNET}out.0.bias": torch.ones(7)}), "of shape [7], expected [32]"),
    "other-text": (
        lambda t: t.update(
            {"cond_stage_model.transformer.text_model.embeddings.token_embedding.weight": torch.ones(9, 16)}
        ),
        "takes text states of width 32, its text encoder makes 16",
    ),
    "depth-map": (lambda t: t.update({f"{UNET}input_blocks.0.0.weight": torch.ones(32, 5, 3, 3)}), "depth map"),
    "playground": (lambda t: t.update({"edm_mean": torch.ones(4)}), "Playground 2.5, which is not supported"),
}


@pytest.mark.parametrize("kind", BREAKS)
def test_a_file_that_is_not_whole_or_not_known_is_refused(one_files, tmp_path, kind):
    change, says = BREAKS[kind]
    file = broken(one_files("sd1")[1], tmp_path / "broken.safetensors", change)
    with pytest.raises(ModelError) as error:
        models.load(str(file), "cpu")
    assert says in error.value.message and error.value.hint and "\n" not in error.value.message


def test_a_checkpoint_beside_the_parts_of_its_folder_is_a_model(one_files, tmp_path):
    """Repositories of the hub have both."""
    _, file = one_files("sd1")
    (tmp_path / "model_index.json").write_text("{}")
    (tmp_path / "v1-5-pruned-emaonly.safetensors").symlink_to(file)
    assert models.describe(str(tmp_path / "v1-5-pruned-emaonly.safetensors")).family.name == "sd1"


def test_a_file_is_described_without_its_weights(one_files):
    info = models.describe(str(one_files("sdxl-inpainting")[1]))
    assert (info.name, info.family.name, info.task, info.native_size) == ("sdxl-inpainting", "sdxl", "inpainting", 1024)
    assert info.revision == "" and not info.has_fast_lora


def test_a_description_counts_parts_and_says_what_is_missing(one_files, tmp_path):
    _, file = one_files("sd2")
    described = model_files.describe("two", file)
    assert (described.kind, described.layout, described.label) == ("model", "file", "Stable Diffusion 2.x")
    assert not described.problem and "v_prediction is assumed" in described.notes[0]
    assert {part.name for part in described.parts} == {"unet", "vae", "text_encoder"}
    assert all(part.count > 1000 and part.precision == "float32" for part in described.parts)
    bare = broken(file, tmp_path / "bare.safetensors", BREAKS["no-vae"][0])
    described = model_files.describe("bare", bare)
    assert described.missing == ("vae",) and "has no VAE" in described.problem and described.hint


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sd1", "sd2", "sdxl"])
def test_our_loop_ends_in_the_latents_of_diffusers_pipeline_on_the_same_file(one_files, kind):
    import diffusers

    from diffusekit import schedule, stream

    folder, file = one_files(kind)
    pipeline = getattr(diffusers, json.loads((folder / "model_index.json").read_text())["_class_name"])
    theirs = pipeline.from_single_file(str(file), config=str(folder), local_files_only=True)
    theirs.set_progress_bar_config(disable=True)
    settings: dict[str, Any] = {"seed": 1, "steps": 4, "width": 64, "height": 64, "sampler": "ddim", "device": "cpu"}
    settings |= {"guidance_scale": 5.0, "negative_prompt": "a dog"}
    run = stream("a red cat", model=str(file), prediction_type="v_prediction" if kind == "sd2" else None, **settings)
    *_, last = run
    theirs.scheduler = schedule.make_scheduler("ddim", run.model.scheduler_config)
    latents = theirs(
        "a red cat",
        negative_prompt="a dog",
        num_inference_steps=4,
        guidance_scale=5.0,
        width=64,
        height=64,
        generator=torch.Generator().manual_seed(1),
        output_type="latent",
    ).images
    assert (last.x_next - latents).abs().max() < 1e-4
