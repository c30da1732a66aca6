"""A VAE in place of a model's own: every layout, checked against the model, and recorded."""

import json
import shutil
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from diffusekit import generate, metadata, model_files, models
from diffusekit.cli.main import run
from diffusekit.device import choose
from diffusekit.errors import ModelError, UsageError
from diffusekit.models.vae import describe_vae, load_vae
from tests.helpers.one_file import edit


@pytest.fixture(scope="session")
def vae(random_models, tmp_path_factory) -> Path:
    """Another VAE for Stable Diffusion 1.x than that of the random model, in its folder."""
    from diffusers import AutoencoderKL

    torch.manual_seed(7)
    folder = tmp_path_factory.mktemp("vae") / "sharp"
    config: Any = AutoencoderKL.load_config(random_models["sd1"] / "vae")
    network: Any = AutoencoderKL.from_config(config)
    network.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def taesd(tmp_path_factory) -> Path:
    from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny

    torch.manual_seed(8)
    folder = tmp_path_factory.mktemp("taesd") / "taesd"
    AutoencoderTiny().save_pretrained(folder)
    return folder


def original(folder: Path, path: Path, prefix: str = "") -> Path:
    """Write a VAE in the original layout, as trainers do."""
    from diffusekit.model_files import FAMILIES
    from diffusekit.models.original_names import to_original

    config = json.loads((folder / "config.json").read_text())
    tensors = to_original(FAMILIES["sd1"], "vae", load_file(folder / "diffusion_pytorch_model.safetensors"), config)
    named = {prefix + name.removeprefix("first_stage_model."): tensor.contiguous() for name, tensor in tensors.items()}
    save_file(named, path)
    return path


def load(folder: Path, path: Path):
    """Load a VAE alone, checked against the model in a folder."""
    found = describe_vae(str(path), model_files.read_folder("model", folder))
    assert found is not None
    return load_vae(found.files, choose("cpu", "float32"))


def layouts(vae: Path, tmp_path: Path) -> dict[str, Path]:
    """The same VAE in every layout."""
    file = Path(shutil.copy(vae / "diffusion_pytorch_model.safetensors", tmp_path / "sharp.safetensors"))
    old = {}
    for name, tensor in load_file(file).items():
        for new, before in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
            name = name.replace(f"attentions.0.{new}.", f"attentions.0.{before}.")
        old[name] = tensor
    save_file(old, tmp_path / "old.safetensors")
    (tmp_path / "model").mkdir()
    shutil.copytree(vae, tmp_path / "model" / "vae")
    return {
        "folder": vae,
        "file in a folder": vae / "diffusion_pytorch_model.safetensors",
        "folder of a model": tmp_path / "model",
        "diffusers file": file,
        "old diffusers file": tmp_path / "old.safetensors",
        "original file": original(vae, tmp_path / "sharp.vae.safetensors"),
        "prefixed": original(vae, tmp_path / "prefixed.safetensors", "first_stage_model."),
    }


@pytest.mark.slow
def test_every_layout_is_the_vae_that_diffusers_reads(random_models, vae, tmp_path):
    from diffusers import AutoencoderKL

    theirs = AutoencoderKL.from_pretrained(vae).eval()
    latents = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    for layout, path in layouts(vae, tmp_path).items():
        ours = load(random_models["sd1"], path)
        state = theirs.state_dict()
        assert all(torch.equal(tensor, state[name]) for name, tensor in ours.state_dict().items()), layout
        with torch.no_grad():
            assert torch.equal(ours.decode(latents).sample, theirs.decode(latents).sample), layout
    single = AutoencoderKL.from_single_file(str(tmp_path / "sharp.vae.safetensors"), config=str(vae))
    assert all(torch.equal(a, b) for a, b in zip(single.parameters(), theirs.parameters(), strict=True))


@pytest.mark.slow
def test_taesd_decodes_and_encodes_as_in_diffusers(random_models, taesd, tmp_path):
    """As a folder, as a file, and as the two files of its author."""
    from diffusers import AutoencoderTiny

    from diffusekit import latents

    theirs = AutoencoderTiny.from_pretrained(taesd).eval()
    file = Path(shutil.copy(taesd / "diffusion_pytorch_model.safetensors", tmp_path / "taesd.safetensors"))
    halves = {"encoder": {}, "decoder": {}}
    for name, tensor in load_file(file).items():
        half, _, rest = name.partition(".layers.")
        number, _, rest = rest.partition(".")
        halves[half][f"{int(number) + (half == 'decoder')}.{rest}"] = tensor
    for half, tensors in halves.items():
        save_file(tensors, tmp_path / f"taesd_{half}.safetensors")
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    pixels = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(2)) * 2 - 1
    loaded = models.load(str(random_models["sd1"]), "cpu")
    for path in (taesd, file, tmp_path / "taesd_decoder.safetensors"):
        model = replace(loaded, vae=load(random_models["sd1"], path))
        with torch.no_grad():
            assert torch.equal(latents.decode(model, x), theirs.decode(x).sample.clamp(-1, 1))
            assert torch.equal(latents.encode(model, pixels), theirs.encode(pixels).latents)
    (tmp_path / "taesd_encoder.safetensors").unlink()
    with pytest.raises(ModelError, match="is one half of TAESD"):
        load(random_models["sd1"], tmp_path / "taesd_decoder.safetensors")


def wrong(vae: Path, taesd: Path, tmp_path: Path, random_models) -> dict[str, tuple[Path, str]]:
    """What is given as a VAE, and what is said of it."""
    xl, wide, other = (Path(shutil.copytree(vae, tmp_path / name)) for name in ("xl-scale", "wide", "unknown"))
    edit(xl / "config.json", scaling_factor=0.13025)
    edit(wide / "config.json", latent_channels=16)
    edit(other / "config.json", _class_name="VQModel")
    (tmp_path / "notes").mkdir()
    save_file({"lora_unet_x.lora_up.weight": torch.zeros(2, 2)}, tmp_path / "lora.safetensors")
    tensors = load_file(vae / "diffusion_pytorch_model.safetensors")
    del tensors["decoder.conv_out.bias"]
    save_file(tensors, tmp_path / "cut.safetensors")
    (tmp_path / "kl-f8.vae.pt").write_bytes(b"\x80\x02}q\x00decoder.conv_in" + bytes(2**20))
    return {
        "family": (xl, "is the VAE of another family: its latents are scaled by 0.13025, those of"),
        "channels": (wide, "takes latents of 4 channels, its VAE has 16"),
        "class": (other, "is a 'VQModel', expected AutoencoderKL or AutoencoderTiny"),
        "nothing": (tmp_path / "missing.safetensors", "there is no VAE"),
        "empty": (tmp_path / "notes", "has no config.json"),
        "lora": (tmp_path / "lora.safetensors", "is a LoRA, which changes a model and is not one, expected a VAE"),
        "cut": (tmp_path / "cut.safetensors", "is not whole: 'decoder.conv_out.bias' is missing"),
        "pickle": (tmp_path / "kl-f8.vae.pt", "is a pickle, which can run code when it is opened, expected a VAE"),
    }


def test_a_vae_that_does_not_suit_is_refused(random_models, vae, taesd, tmp_path):
    for kind, (path, says) in wrong(vae, taesd, tmp_path, random_models).items():
        with pytest.raises(ModelError) as error:
            load(random_models["sd1"], path)
        assert says in error.value.message and error.value.hint, kind
    assert "diffusekit models import" in error.value.hint


@pytest.mark.slow
def test_an_image_says_which_vae_made_it_and_is_made_again(random_models, vae, tmp_path, capsys):
    file = original(vae, tmp_path / "sharp.safetensors")
    flags = ["--steps", "1", "--seed", "1", "--size", "64x64", "--sampler", "ddim", "--device", "cpu"]
    model = str(random_models["sd1"])
    assert run(["generate", "a cat", "--model", model, "--vae", str(file), *flags, "-o", "a.png"]) == 0
    found = metadata.read(Path("a.png"))
    assert found.record is not None
    digest = sha256(file.read_bytes()).hexdigest()
    assert found.record.settings.vae == "sharp.safetensors" and found.record.vae_hash == digest
    assert found.parameters["VAE"] == "sharp.safetensors" and found.parameters["VAE hash"] == digest[:10]
    assert str(tmp_path) not in Path("a.png").read_bytes().decode("latin-1")
    assert run(["again", "a.png", "-o", "b.png"]) == 0
    assert Image.open("a.png").tobytes() == Image.open("b.png").tobytes()
    assert run(["generate", "a cat", "--model", model, *flags, "-o", "c.png"]) == 0
    assert Image.open("a.png").tobytes() != Image.open("c.png").tobytes()
    assert "VAE" not in metadata.read(Path("c.png")).parameters
    file.unlink()
    capsys.readouterr()
    assert run(["again", "a.png", "-o", "d.png"]) == 8
    assert "the VAE 'sharp.safetensors' (hash " in capsys.readouterr().err


def test_a_loaded_model_has_its_vae_already(mini, vae):
    with pytest.raises(UsageError, match="`vae` is decided when a model is loaded"):
        generate("a cat", model=mini, vae=str(vae))


def test_a_name_that_says_xl_is_a_warning_with_another_family(random_models, vae, tmp_path):
    file = original(vae, tmp_path / "sdxl_vae.safetensors")
    found = model_files.find_vae(file, model_files.read_folder("model", random_models["sd1"]))
    assert "says Stable Diffusion XL" in found.warning


def test_a_request_cannot_name_a_file_of_the_server(tmp_path):
    from diffusekit.server.jobs.generate import check
    from diffusekit.settings import ServeSettings

    with pytest.raises(UsageError, match="vae '/etc/passwd' is not one this server has"):
        check({"prompt": "a", "vae": "/etc/passwd"}, ServeSettings())
    own = ServeSettings(vae="/models/sharp.safetensors", prediction_type="epsilon")
    assert check({"prompt": "a"}, own)["vae"] == "/models/sharp.safetensors"
    assert check({"prompt": "a"}, own)["prediction_type"] == "epsilon"
