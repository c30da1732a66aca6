"""A VAE of its own: a file in the original layout or in that of diffusers, a folder of diffusers, or TAESD."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from ..errors import ModelError
from .checks import check_vae
from .families import SDXL, Family
from .folder import ModelFolder, vae_scale_factor
from .headers import TensorHeader, read_header
from .kinds import identify_file
from .one_file import ModelFile
from .original_layout import ENDINGS, VAE_PREFIXES, derive_vae, vae_part
from .remote_code import read_config
from .weights import find_weights

CLASSES = ("AutoencoderKL", "AutoencoderTiny")
_STEM = "diffusion_pytorch_model"
_HINT = "give a .safetensors file or a folder of a VAE or TAESD"
_XL_NAME = re.compile(r"(?<![a-z])(sd[-_ ]?)?xl(?![a-z])|taesdxl", re.IGNORECASE)
_TAESD = re.compile(r"\d+\.(weight|bias|conv\.\d+\.(weight|bias))")


@dataclass(frozen=True, eq=False)
class VaeFiles:
    """What the files of a VAE say. `find_vae` makes it, and checks that it suits a model.

    `name` is what records say: the name of the file, or of the folder. `network` is the class. `weights` are its
    files, of which TAESD in its original layout has two. `starts` are the beginnings of its tensors' names.
    `warning` says in a sentence what may be wrong, or is "".
    """

    name: str
    network: str
    layout: Literal["original", "diffusers", "taesd"]
    weights: tuple[Path, ...]
    config: Mapping[str, Any]
    starts: tuple[str, ...] = ("",)
    warning: str = ""


def find_vae(path: Path, model: ModelFolder | ModelFile) -> VaeFiles:
    """Describe the VAE in a file or folder, and check it against the U-Net of `model`. Raises `ModelError`."""
    own = model.configs["vae"]
    if path.is_dir():
        vae = _read_folder(path)
    elif not path.exists():
        raise ModelError(f"there is no VAE {str(path)!r}", _HINT)
    else:
        vae = _read_file(path, own)
    check_vae(vae.name, vae.config, model.configs["unet"])
    if vae.network == "AutoencoderKL" and vae.config.get("scaling_factor", 0.18215) != own.get("scaling_factor"):
        raise ModelError(
            f"{vae.name} is the VAE of another family: its latents are scaled by {vae.config['scaling_factor']}, "
            f"those of {model.name} by {own.get('scaling_factor')}",
            f"use a VAE of {model.family.label}",
        )
    if (factor := vae_scale_factor(vae.config)) != (expected := vae_scale_factor(own)):
        raise ModelError(f"{vae.name} makes {factor} pixels of one latent, expected {expected}", _HINT)
    return replace(vae, warning=_compare_names(vae.name, model.family))


def _compare_names(name: str, family: Family) -> str:
    """Say when the name of a VAE is that of another family, which its tensors do not tell."""
    if family is SDXL or not _XL_NAME.search(name):
        return ""
    return f"the name of the VAE {name} says Stable Diffusion XL, and the model is {family.label}: colors may be wrong"


def _read_folder(path: Path) -> VaeFiles:
    folder = path / "vae" if (path / "vae" / "config.json").is_file() else path
    if not (folder / "config.json").is_file():
        raise ModelError(f"{path} is not the folder of a VAE: it has no config.json", _HINT)
    config = read_config(folder / "config.json")
    network = str(config.get("_class_name", ""))
    if network not in CLASSES:
        raise ModelError(f"{path} is a {network[:80]!r}, expected {' or '.join(CLASSES)}", _HINT)
    names = find_weights(folder, _STEM, half=False).names
    for name in names:
        read_header(folder / name)
    config = {"block_out_channels": [64] * (4 if network == "AutoencoderTiny" else 1)} | config
    name = path.resolve().name if folder is path else f"{path.resolve().name}/vae"
    return VaeFiles(name, network, "diffusers", tuple(folder / name for name in names), config)


def _read_file(path: Path, own: Mapping[str, Any]) -> VaeFiles:
    """Describe a file. It does not say how latents are scaled, so that is taken from the model's own VAE."""
    if path.suffix.lower() not in ENDINGS:
        what, hint = identify_file(path)
        raise ModelError(f"{path} is {what}, expected a VAE", hint)
    if path.stem.partition(".")[0] == _STEM and (path.parent / "config.json").is_file():
        return _read_folder(path.parent)
    header = read_header(path)
    shapes = {name: shape for name, (_, shape) in header.tensors.items()}
    inside = vae_part(shapes)
    original = inside or shapes
    base = {key: own[key] for key in ("scaling_factor", "force_upcast", "sample_size", "norm_num_groups") if key in own}
    try:
        if "encoder.down.0.block.0.conv1.weight" in original:
            config = {"_class_name": "AutoencoderKL", **base, **derive_vae(original)}
            starts = VAE_PREFIXES if inside else ("encoder.", "decoder.", "quant_conv.", "post_quant_conv.")
            return VaeFiles(path.name, "AutoencoderKL", "original", (path,), config, starts)
        if "encoder.down_blocks.0.resnets.0.conv1.weight" in shapes:
            config = {"_class_name": "AutoencoderKL", **base, **_derive_diffusers(shapes)}
            return VaeFiles(path.name, "AutoencoderKL", "diffusers", (path,), config)
        if "encoder.layers.0.weight" in shapes and "decoder.layers.0.weight" in shapes:
            channels = shapes["decoder.layers.0.weight"][1]
            return VaeFiles(path.name, "AutoencoderTiny", "diffusers", (path,), _tiny(channels))
        if shapes and all(_TAESD.fullmatch(name) for name in shapes):
            return _read_taesd(path)
    except (KeyError, IndexError) as error:
        raise ModelError(f"{path} is not a whole VAE: {str(error)[:80]} is missing", "fetch it again") from None
    raise ModelError(f"{path} is {identify_file(path)[0]}, expected a VAE", _HINT)


def _derive_diffusers(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    channels: list[int] = []
    while first := shapes.get(f"encoder.down_blocks.{len(channels)}.resnets.0.conv1.weight"):
        channels.append(first[0])
    return {
        "block_out_channels": channels,
        "layers_per_block": sum(f"encoder.down_blocks.0.resnets.{i}.conv1.weight" in shapes for i in range(10)),
        "latent_channels": shapes["decoder.conv_in.weight"][1],
        "in_channels": shapes["encoder.conv_in.weight"][1],
        "out_channels": shapes["decoder.conv_out.weight"][0],
        "down_block_types": ["DownEncoderBlock2D"] * len(channels),
        "up_block_types": ["UpDecoderBlock2D"] * len(channels),
    }


def _tiny(channels: int) -> dict[str, Any]:
    return {
        "_class_name": "AutoencoderTiny",
        "latent_channels": channels,
        "block_out_channels": [64] * 4,
        "scaling_factor": 1.0,
    }


def _read_taesd(path: Path) -> VaeFiles:
    """Describe TAESD in its original layout, whose encoder and decoder are two files: taesd_encoder, taesd_decoder."""
    halves = [
        path.with_name(path.name.replace("encoder", half).replace("decoder", half)) for half in ("encoder", "decoder")
    ]
    if halves[0] == halves[1] or not all(half.is_file() for half in halves):
        raise ModelError(
            f"{path} is one half of TAESD, and the other one is not beside it",
            "put taesd_encoder.safetensors and taesd_decoder.safetensors into one folder",
        )
    headers: list[TensorHeader] = [read_header(half) for half in halves]
    channels = headers[1].tensors["1.weight"][1][1]
    name = path.name.replace("_encoder", "").replace("_decoder", "")
    return VaeFiles(name, "AutoencoderTiny", "taesd", (halves[0], halves[1]), _tiny(channels))
