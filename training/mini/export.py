"""Write the trained parts as a Stable Diffusion folder that plain diffusers loads, in fp16."""

import hashlib
import json
from pathlib import Path

import diffusers
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection

from .unet import make_scheduler

FAST = "fast.safetensors"  # the LoRA of few steps


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
    """Save what is given below `folder`; every other part stays as it lies there."""
    if tokenizer is not None:
        tokenizer.save_pretrained(folder / "tokenizer")
    make_scheduler().save_pretrained(folder / "scheduler")
    for name, part in (
        ("text_encoder", text),
        ("unet", unet),
        ("vae", vae),
        ("image_encoder", image),
    ):
        if part is not None:
            _check(name, part)
            part.half().save_pretrained(folder / name)
            part.float()
            _tidy(folder / name / "config.json")
    if text_projection is not None:
        save_file(
            {"text_projection.weight": text_projection.half().contiguous()},
            folder / "text_projection.safetensors",
        )
    if fast is not None:
        save_file(fast, folder / FAST)
    parts = {
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
    (folder / "model_index.json").write_text(json.dumps(parts, indent=2) + "\n")
    sums = [f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.relative_to(folder)}" for p in _weights(folder)]
    (folder / "SHA256SUMS").write_text("\n".join(sums) + "\n")


def _weights(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.safetensors"))


def _tidy(config: Path) -> None:
    """Two entries set right: transformers loads in the precision its config names, and a plain
    `from_pretrained` shall get float32; and where a network once lay is nobody's business."""
    entries = json.loads(config.read_text())
    entries.pop("_name_or_path", None)
    if "dtype" in entries:
        entries["dtype"] = "float32"
    config.write_text(json.dumps(entries, indent=2) + "\n")


def _check(name: str, part: torch.nn.Module) -> None:
    for key, value in part.state_dict().items():
        if value.is_floating_point() and not (value.abs().max() < 60_000):
            raise ValueError(f"{name}.{key} does not fit in fp16 (or is not finite)")
