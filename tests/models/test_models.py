"""Models are found and loaded, or refused, and their code never runs."""

import json
import pickle
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

import diffusekit
from diffusekit import models, text
from diffusekit.errors import ModelError


@pytest.fixture
def copy(families, tmp_path) -> Path:
    return Path(shutil.copytree(families["sd1"], tmp_path / "copy"))


def refused(name) -> ModelError:
    with pytest.raises(ModelError) as error:
        models.load(str(name), "cpu")
    assert error.value.exit_code == 8 and error.value.hint and "\n" not in error.value.message
    return error.value


def test_mini_is_frozen(mini):
    parts = (mini.unet, mini.vae, *mini.text_encoders)
    assert not any(p.requires_grad for part in parts for p in part.parameters())
    assert not any(part.training for part in parts)
    assert (mini.vae_scale_factor, mini.native_size, mini.prediction_type) == (8, 128, "v_prediction")


def test_families_load(families):
    for name, prediction in (("sd1", "epsilon"), ("sd2", "v_prediction")):
        model = models.load(str(families[name]), "cpu")
        assert (model.prediction_type, model.native_size, model.guidance_scale) == (prediction, 16, 7.5)


def test_the_last_model_stays_in_memory(mini):
    assert models.load("mini", "cpu") is models.load("mini", "cpu")


def test_two_threads_that_load_at_once_get_one_model(families):
    models.load(str(families["sd1"]), "cpu")  # so that the next one is not in memory
    with ThreadPoolExecutor(2) as threads:
        one, two = threads.map(lambda _: models.load(str(families["sd2"]), "cpu"), range(2))
    assert one is two and not any(p.is_meta for p in one.unet.parameters())


def test_tokenizer_and_text_encoder_are_loaded_alone(mini):
    part = models.load_text("mini")
    assert part is models.load_text("mini") and part.text_encoders[0] is not mini.text_encoders[0]
    assert torch.equal(text.encode(part, ["a red cat"]).states, text.encode(mini, ["a red cat"]).states)
    assert (part.context_length, part.widths) == (77, (256,))


@pytest.mark.parametrize("name", ["mini", "sd1"])
def test_a_model_is_described_before_it_is_loaded(families, name):
    name = str(families.get(name, name))
    info, model = models.describe(name), models.load(name, "cpu")
    assert (info.folder, info.native_size, info.guidance_scale) == (
        model.folder,
        model.native_size,
        model.guidance_scale,
    )
    assert info.has_fast_lora == (name == "mini")


def test_an_unknown_name_lists_the_models():
    assert "available: mini" in refused("sd-1.5").hint


def test_a_hub_id_without_a_network(monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    error = refused("nobody/nothing")
    assert "not in the cache" in error.message and "mini" in error.hint


def test_a_model_in_the_hubs_cache(families, tmp_path, monkeypatch):
    from huggingface_hub import constants

    cache = tmp_path / "hub"
    commit = "a" * 40
    folder = cache / "models--someone--tiny"
    shutil.copytree(families["sd1"], folder / "snapshots" / commit)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(commit)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    assert models.load("someone/tiny", "cpu").revision == commit
    assert list(models.installed()) == ["mini", "someone/tiny"]


def test_a_folder_without_an_index_is_refused(tmp_path):
    assert "model_index.json" in refused(tmp_path).message


def test_pickles_are_not_opened(copy):
    """Only .safetensors are read, also when a .bin lies beside."""
    (copy / "unet" / "diffusion_pytorch_model.safetensors").unlink()

    class Bad:
        def __reduce__(self):
            return Path.touch, (copy / "ran",)

    (copy / "unet" / "diffusion_pytorch_model.bin").write_bytes(pickle.dumps(Bad()))
    assert "no .safetensors weights" in refused(copy).message
    assert not (copy / "ran").exists()


@pytest.mark.parametrize("kind", [["pipeline", "Evil"], "EvilPipeline", "StableDiffusion3Pipeline", None])
def test_unknown_pipelines_are_refused(copy, kind):
    index = json.loads((copy / "model_index.json").read_text())
    (copy / "model_index.json").write_text(json.dumps(index | {"_class_name": kind}))
    (copy / "pipeline.py").write_text(f"open({str(copy / 'ran')!r}, 'w')")
    assert "not supported" in refused(copy).message
    assert not (copy / "ran").exists()


def test_a_configuration_that_asks_for_code_is_refused_and_the_code_is_not_run(copy):
    (copy / "unet" / "evil.py").write_text(f"open({str(copy / 'ran')!r}, 'w')")
    config = json.loads((copy / "unet" / "config.json").read_text())
    for asks in (
        {"auto_map": {"AutoModel": "evil.Evil"}},
        {"trust_remote_code": True},
        {"_attn_implementation_internal": "someone/kernel"},
    ):
        (copy / "unet" / "config.json").write_text(json.dumps(config | asks))
        assert re.search("asks for (code|attention)", refused(copy).message)
    assert not (copy / "ran").exists()


@pytest.mark.parametrize(
    ("part", "value", "says"),
    [
        ("unet", ["my_unet", "MyUNet"], "is a 'MyUNet' of 'my_unet', expected UNet2DConditionModel"),
        ("text_encoder", ["transformers", "T5EncoderModel"], "is a 'T5EncoderModel'"),
        ("my_part", ["evil", "Evil"], "is code of its own"),
    ],
)
def test_only_classes_of_the_libraries_are_accepted(copy, part, value, says):
    (copy / "evil.py").write_text(f"open({str(copy / 'ran')!r}, 'w')")
    index = json.loads((copy / "model_index.json").read_text())
    (copy / "model_index.json").write_text(json.dumps(index | {part: value}))
    assert says in refused(copy).message
    assert not (copy / "ran").exists()


@pytest.mark.parametrize("link", ["vae", "unet/config.json", "model_index.json", "tokenizer/tokenizer.json"])
def test_links_that_leave_the_folder_are_refused(copy, tmp_path, link):
    outside = tmp_path / "outside"
    (copy / link).rename(outside)
    (copy / link).symlink_to(outside)
    message = refused(copy).message
    assert f"{link} of copy is a link to something outside its folder" in message and str(tmp_path) not in message


def test_links_within_the_folder_and_into_a_hub_cache_are_followed(copy, tmp_path):
    blobs = tmp_path / "hub" / "models--someone--tiny" / "blobs"
    blobs.mkdir(parents=True)
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(blobs / ("a" * 64))
    weights.symlink_to(blobs / ("a" * 64))
    (copy / "vae").rename(copy / "other")
    (copy / "vae").symlink_to("other")
    assert models.load(str(copy), "cpu").name == "copy"


@pytest.mark.parametrize("shard", ["../x.safetensors", "/etc/passwd", "a/b.safetensors", "C:\\x", "\\\\h\\s"])
def test_shards_outside_the_folder_are_refused(copy, shard):
    index = copy / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"conv_in.weight": shard}}))
    assert "outside its folder" in refused(copy).message


def test_a_missing_part_is_named(copy):
    shutil.rmtree(copy / "vae")
    assert "no vae" in refused(copy).message


def test_half_precision_files_are_used_when_alone(copy):
    for part, stem in (
        ("unet", "diffusion_pytorch_model"),
        ("vae", "diffusion_pytorch_model"),
        ("text_encoder", "model"),
    ):
        (copy / part / f"{stem}.safetensors").rename(copy / part / f"{stem}.fp16.safetensors")
    assert models.load(str(copy), "cpu").unet.dtype.is_floating_point


def test_the_source_never_asks_for_what_is_unsafe():
    import ast

    for path in Path(diffusekit.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.keyword):
                unsafe = {"trust_remote_code": True, "weights_only": False}
                assert node.arg != "custom_pipeline"
                if node.arg in unsafe and isinstance(node.value, ast.Constant):
                    assert node.value.value is not unsafe[node.arg], path
