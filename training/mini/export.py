"""Write the trained networks as a Stable Diffusion folder that plain diffusers loads, in fp16."""

import hashlib
import json
from pathlib import Path

import diffusers
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection

from diffusekit.hub import FAST_LORA

from .unet import make_scheduler


def export(
    folder: Path,
    *,
    tokenizer: CLIPTokenizer | None = None,
    text: CLIPTextModel | None = None,
    unet: UNet2DConditionModel | None = None,
    vae: AutoencoderKL | None = None,
    image: CLIPVisionModelWithProjection | None = None,
    text_projection: torch.Tensor | None = None,
    fast: dict[str, torch.Tensor] | None = None,
) -> None:
    """Save what is given to `folder`. Every other file of the folder stays as it is."""
    if tokenizer is not None:
        tokenizer.save_pretrained(folder / "tokenizer")
    make_scheduler().save_pretrained(folder / "scheduler")
    for name, network in (("text_encoder", text), ("unet", unet), ("vae", vae), ("image_encoder", image)):
        if network is not None:
            _save_network(folder / name, network)
    if text_projection is not None:
        weights = {"text_projection.weight": text_projection.half().contiguous()}
        save_file(weights, folder / "text_projection.safetensors")
    if fast is not None:
        save_file(fast, folder / FAST_LORA)
    (folder / "model_index.json").write_text(json.dumps(_model_index(), indent=2) + "\n")
    sums = [f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.relative_to(folder)}" for p in _weight_files(folder)]
    (folder / "SHA256SUMS").write_text("\n".join(sums) + "\n")


def _model_index() -> dict[str, object]:
    return {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": diffusers.__version__,
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }


def _weight_files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.safetensors"))


def _save_network(folder: Path, network: torch.nn.Module) -> None:
    """Save a network in fp16. It is in float32 again afterwards."""
    for key, value in network.state_dict().items():
        if value.is_floating_point() and not (value.abs().max() < 60_000):
            raise ValueError(f"{folder.name}.{key} does not fit in fp16, or is not finite")
    network.half().save_pretrained(folder)  # type: ignore[operator]
    network.float()
    _clean_config(folder / "config.json")


def _clean_config(path: Path) -> None:
    """Set the precision to float32, which a plain `from_pretrained` should give, and remove the path it came from."""
    config = json.loads(path.read_text())
    config.pop("_name_or_path", None)
    if "dtype" in config:
        config["dtype"] = "float32"
    path.write_text(json.dumps(config, indent=2) + "\n")
