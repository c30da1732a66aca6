"""One-file checkpoints in the original layout, written from folders in diffusers layout."""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from diffusekit.model_files import read_folder
from diffusekit.models.original_names import to_original
from diffusekit.models.tensors import read_part

HEAD = 64  # channels of an attention head, which a file does not say


def match_file(folder: Path, target: Path, *, prediction_type: str | None = None) -> Path:
    """Copy a folder, and give it the heads and the native size that a one-file checkpoint of it has."""
    shutil.copytree(folder, target)
    files = read_folder(target.name, target)
    for encoder in files.family.encoders:
        edit(target / encoder.folder / "config.json", num_attention_heads=1)
    unet = target / "unet" / "config.json"
    is_velocity = files.configs["scheduler"].get("prediction_type") == "v_prediction"
    size = {"sd1": 64, "sd2": 96 if is_velocity else 64, "sdxl": 128}[files.family.name]
    heads = 8 if files.family.name == "sd1" else [1] * len(files.configs["unet"]["block_out_channels"])
    edit(unet, sample_size=size, attention_head_dim=heads)
    return target


def edit(path: Path, **values) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def write_one_file(
    folder: Path,
    path: Path,
    *,
    ema: bool = False,
    dtype: torch.dtype = torch.float32,
    leave_out: tuple[str, ...] = (),
    extra: dict[str, torch.Tensor] | None = None,
    metadata: dict[str, str] | None = None,
) -> Path:
    """Write the networks of a folder into one file, as trainers write them. `ema` adds averaged weights, here zeros."""
    files = read_folder(folder.name, folder)
    tensors: dict[str, torch.Tensor] = {}
    for part in files.family.networks:
        tensors |= to_original(files.family, part, read_part(files, part), files.configs[part])
    if ema:
        unet = [name for name in tensors if name.startswith("model.diffusion_model.")]
        flat = {"model_ema." + "".join(name.split(".")[1:]): torch.zeros_like(tensors[name]) for name in unet}
        tensors |= flat | {"model_ema.decay": torch.tensor(0.9999), "model_ema.num_updates": torch.tensor(5)}
    tensors = {
        name: t.to(dtype).contiguous() for name, t in tensors.items() if not name.startswith(leave_out or ("-",))
    }
    save_file(tensors | (extra or {}), path, metadata)
    return path


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path)
