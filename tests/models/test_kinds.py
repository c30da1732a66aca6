"""What is given as a model and is none: every file, folder and address is named for what it is."""

import io
import json
import os
import pickle
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from diffusekit import models
from diffusekit.cli.main import run
from diffusekit.errors import ModelError

LDM = "model.diffusion_model."
SD1 = {f"{LDM}input_blocks.0.0.weight": (8, 4, 3, 3), "cond_stage_model.transformer.text_model.x": (4,)}
UNET = {f"{LDM}input_blocks.0.0.weight": (8, 4, 3, 3)}
REFINER = UNET | {"conditioner.embedders.0.model.ln_final.weight": (4,)}
SD2 = {f"{LDM}input_blocks.0.0.weight": (8, 4, 3, 3), "cond_stage_model.model.ln_final.weight": (4,)}
SDXL = {f"{LDM}input_blocks.0.0.weight": (8, 4, 3, 3), "conditioner.embedders.0.x": (4,)}
SDXL |= {"conditioner.embedders.1.model.x": (4,)}
FILES = {
    "dreamy_v8.safetensors": (SD1, "dreamy_v8 is not a whole checkpoint of Stable Diffusion 1.x"),
    "two.safetensors": (SD2, "two is not a whole checkpoint of Stable Diffusion 2.x"),
    "xl.safetensors": (SDXL, "xl is not a whole checkpoint of Stable Diffusion XL"),
    "refiner.safetensors": (REFINER, "refiner is the refiner of Stable Diffusion XL"),
    "unet-only.safetensors": (UNET, "has a U-Net, but no text encoder"),
    "sd3.safetensors": ({f"{LDM}joint_blocks.0.x": (4,)}, "is a one-file checkpoint of Stable Diffusion 3"),
    "flux.safetensors": ({"double_blocks.0.img_attn.x": (4,)}, "is a one-file checkpoint of FLUX"),
    "kohya.safetensors": ({"lora_unet_down_blocks_0.lora_up.weight": (8, 4)}, "is a LoRA"),
    "peft.safetensors": ({"unet.mid.lora_A.weight": (8, 4)}, "is a LoRA"),
    "lycoris.safetensors": ({"lora_unet_x.hada_w1_a": (8, 4)}, "is a LoRA"),
    "cat.safetensors": ({"emb_params": (2, 768)}, "is a learned token"),
    "diffusers-cat.safetensors": ({"<cat>": (768,)}, "is a learned token"),
    "xl-cat.safetensors": ({"clip_l": (1, 768), "clip_g": (1, 1280)}, "is a learned token"),
    "vae.safetensors": ({"encoder.down.0.block.0.x": (4,), "decoder.up.0.x": (4, 4, 3, 3)}, "is a VAE alone"),
    "unet.safetensors": ({"down_blocks.0.x": (4, 4, 3, 3), "conv_in.weight": (8, 4, 3, 3)}, "is a U-Net alone"),
    "clip.safetensors": ({"text_model.encoder.x": (400, 4)}, "is a text encoder alone"),
    "control.safetensors": ({"control_model.x": (4,)}, "is a ControlNet"),
    "other.safetensors": ({"something.else": (400, 4)}, "safetensors file of an unknown kind"),
}


@pytest.fixture
def copy(families, tmp_path) -> Path:
    return Path(shutil.copytree(families["sd1"], tmp_path / "copy"))


def refused(name: object) -> ModelError:
    with pytest.raises(ModelError) as error:
        models.load(str(name), "cpu")
    assert error.value.exit_code == 8 and error.value.hint and "\n" not in error.value.message
    assert "there is no model" not in error.value.message
    return error.value


@pytest.mark.parametrize("name", FILES)
def test_a_safetensors_file_is_named_by_its_tensors(name, tmp_path):
    shapes, says = FILES[name]
    save_file({key: torch.zeros(shape) for key, shape in shapes.items()}, tmp_path / name)
    assert says in refused(tmp_path / name).message
    assert says in refused(name).message  # relative to the current folder


def torch_zip(words: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + words)
    return file.getvalue()


def plain_zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("model/model_index.json", "{}")
    return file.getvalue()


def png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("v1-5.ckpt", torch_zip(b"model.diffusion_model.x") + b"\0" * 2**20, "pickle"),
        (
            "v1-5-legacy.ckpt",
            b"\x80\x02}q\x00model.diffusion_model." + b"\0" * 2**20,
            "one-file checkpoint in a pickle",
        ),
        ("a1111.pt", torch_zip(b"string_to_param"), "is a learned token in a pickle"),
        ("learned_embeds.bin", pickle.dumps({"<cat>": [1.0]}), "is a pickle, which can run code"),
        ("lora.pt", torch_zip(b"lora_unet_x"), "is a LoRA in a pickle"),
        ("flux-q4.gguf", b"GGUF\x03\0\0\0" + b"\0" * 100, "is quantized weights in GGUF"),
        ("model.zip", plain_zip(), "is an archive"),
        ("model.tar.gz", b"\x1f\x8b\x08\0" + b"\0" * 100, "is an archive"),
        ("model.7z", b"7z\xbc\xaf\x27\x1c" + b"\0" * 100, "is an archive"),
        ("model.onnx", b"\x08\x07\0onnx", "is a network in ONNX"),
        ("galaxy.png", png(), "is an image"),
        ("config.json", b'{"a": 1}', "is a JSON file"),
        ("notes.txt", b"hello", "is a text file"),
        ("model.py", b"import os", "is a text file"),
        ("empty.safetensors", b"", "is an empty file"),
        ("empty.ckpt", b"", "is an empty file"),
        ("pointer.safetensors", b"version https://git-lfs.github.com/spec/v1\n", "is a pointer of Git LFS"),
        ("page.safetensors", b"<!DOCTYPE html><html>", "is a web page"),
        ("cut.safetensors", (1000).to_bytes(8, "little") + b'{"a":', "is cut off"),
        ("noise.safetensors", b"\xff" * 1000, "is not a safetensors file"),
        ("noise", bytes(range(256)) * 9, "is a file of an unknown kind"),
    ],
)
def test_other_files_are_named_by_their_first_bytes(name, data, says, tmp_path):
    (tmp_path / name).write_bytes(data)
    assert says in refused(tmp_path / name).message


def test_a_pickle_is_never_opened(tmp_path):
    class Bad:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    (tmp_path / "bad.ckpt").write_bytes(pickle.dumps(Bad()))
    refused(tmp_path / "bad.ckpt")
    assert not (tmp_path / "ran").exists()


def test_files_and_parts_of_a_whole_model_lead_to_its_folder(copy):
    for name in ("model_index.json", "unet/diffusion_pytorch_model.safetensors", "vae/config.json"):
        error = refused(copy / name)
        assert "is one file of a model" in error.message and str(copy) in error.hint
    error = refused(copy / "unet")
    assert "it is one part of a model" in error.message and str(copy) in error.hint


def folders(root: Path, copy: Path) -> dict[str, str]:
    """Folders that are no models, and what each is called."""
    lora = {"lora_unet_x.lora_up.weight": torch.zeros(2, 2)}
    checkpoint = {key: torch.zeros(shape) for key, shape in SD1.items()}
    for name in ("a1111/models/Stable-diffusion", "comfy/models/checkpoints", "files"):
        (root / name).mkdir(parents=True)
        save_file(checkpoint, root / name / "dreamy.safetensors")
    for name in ("empty", "lora", "one", "notes"):
        (root / name).mkdir()
    save_file(lora, root / "lora" / "pytorch_lora_weights.safetensors")
    (root / "one" / "config.json").write_text(json.dumps({"_class_name": "ControlNetModel"}))
    (root / "notes" / "a.txt").write_text("a")
    (root / "cache/models--owner--name/snapshots").mkdir(parents=True)
    shutil.copytree(copy, root / "many" / "sd")
    return {
        "a1111": "the folder of A1111, Forge or ComfyUI, whose models/Stable-diffusion/ holds 'dreamy.safetensors'",
        "comfy": "whose models/checkpoints/ holds 'dreamy.safetensors'",
        "files": "it holds 'dreamy.safetensors'",
        "empty": "it is empty",
        "lora": "it is a LoRA",
        "one": "it is one network ('ControlNetModel')",
        "notes": "it holds 'a.txt'",
        "cache": "it is the hub's cache",
        "cache/models--owner--name": "it is a model of the hub's cache",
        "many": "it holds 1 of them",
    }


def test_a_folder_without_an_index_is_named_by_what_it_holds(copy, tmp_path):
    for name, says in folders(tmp_path / "there", copy).items():
        error = refused(tmp_path / "there" / name)
        assert "is not a model in diffusers layout" in error.message and says in error.message, (name, error.message)
    assert "owner/name" in refused(tmp_path / "there" / "cache").hint
    for name in ("a1111/models/Stable-diffusion", "files"):
        assert str(tmp_path / "there" / name / "dreamy.safetensors") in refused(tmp_path / "there" / name).hint
    assert str(tmp_path / "there" / "many" / "sd") in refused(tmp_path / "there" / "many").hint


@pytest.mark.parametrize(
    ("address", "hint"),
    [
        ("https://huggingface.co/owner/name", "give its id: owner/name"),
        ("https://huggingface.co/owner/name/tree/main", "give its id: owner/name"),
        ("https://huggingface.co/owner/name/blob/v2/model_index.json", "give its id: owner/name@v2"),
        ("huggingface.co/owner/name", "give its id: owner/name"),
        ("https://civitai.com/models/4384/dreamshaper", "hub id"),
        ("file:///home/x/model", "hub id"),
    ],
)
def test_addresses_lead_to_ids(address, hint):
    error = refused(address)
    assert "is an address" in error.message and hint in error.hint


def test_links_pipes_and_odd_names(tmp_path):
    (tmp_path / "dead").symlink_to(tmp_path / "nothing")
    assert "is a link to something that does not exist" in refused(tmp_path / "dead").message
    os.mkfifo(tmp_path / "pipe")
    assert "is a device or a pipe" in refused(tmp_path / "pipe").message
    assert "is empty" in refused("").message
    for name in ("x" * 5000, "a\0b", "~nobody/x", "../../x/y", "owner/..", "a/b@../../c"):
        with pytest.raises(ModelError) as error:
            models.load(name, "cpu")
        assert error.value.exit_code == 8 and error.value.hint


def test_a_folder_that_cannot_be_read(copy, monkeypatch):
    def denied(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", denied)
    assert "cannot be read: Permission denied" in refused(copy).message


def test_a_path_that_looks_like_a_hub_id_says_that_there_is_no_folder():
    error = refused("m/sd15")
    assert "is not in the cache" in error.message and "there is no folder m/sd15 here either" in error.message


def test_a_longer_path_says_which_folder_is_missing(tmp_path):
    with pytest.raises(ModelError, match=f"{tmp_path / 'nowhere'} does not exist"):
        models.load(str(tmp_path / "nowhere" / "sd15"), "cpu")


@pytest.mark.parametrize(
    "verb", [["generate", "x"], ["visualise", "samplers", "--no-path"], ["visualise", "tokens", "x"]]
)
def test_every_verb_says_the_same(verb, capsys, tmp_path):
    save_file({key: torch.zeros(shape) for key, shape in SD1.items()}, tmp_path / "dreamy.safetensors")
    assert run([*verb, "--model", "dreamy.safetensors", "-o", "x.svg"]) in (2, 8)
    assert run([*verb, "--model", "dreamy.safetensors"]) == 8
    assert "dreamy is not a whole checkpoint of Stable Diffusion 1.x" in capsys.readouterr().err
