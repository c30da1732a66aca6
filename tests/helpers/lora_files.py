"""Random LoRA files in the layouts that people have: those of kohya's scripts, PEFT, diffusers and LyCORIS."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

RANK = 4
ATTENTION = re.compile(r"(attn\d\.to_(q|k|v|out\.0)|(ff\.net\.(0\.proj|2))|proj_(in|out))$")
TEXT = re.compile(r"(self_attn\.(q|k|v|out)_proj|mlp\.fc[12])$")
CONVOLUTIONS = re.compile(r"(conv1|conv2|conv_shortcut|time_emb_proj|(down|up)samplers\.0\.conv)$")
OLD_NAMES = {"q_proj": "to_q", "k_proj": "to_k", "v_proj": "to_v", "out_proj": "to_out"}
Tensors = dict[str, torch.Tensor]


def write_lora(
    path: Path,
    folder: Path,
    layout: str,
    *,
    alpha: float | None = None,
    text: bool = True,
    convolutions: bool = False,
    seed: int = 0,
    metadata: dict[str, str] | None = None,
) -> Path:
    """Write a LoRA for the model in `folder`; with `convolutions` also for the U-Net's other layers, as LoCon does."""
    generator = torch.Generator().manual_seed(seed)
    tensors: Tensors = {}
    for part, name, layer in layers(folder, text=text, convolutions=convolutions):
        down, up = _matrices(layer, generator)
        tensors |= LAYOUTS[layout](part, name, down, up, alpha, folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata)
    return path


def layers(folder: Path, *, text: bool, convolutions: bool) -> Iterator[tuple[str, str, Any]]:
    """Yield (part, name of the module, module) of the layers that a LoRA changes; text names as older files have."""
    networks = _networks(folder)
    for part, network in networks.items():
        for name, module in network.named_modules():
            if not isinstance(module, (torch.nn.Linear, torch.nn.Conv2d)):
                continue
            if part == "unet":
                if ATTENTION.search(name) or (convolutions and CONVOLUTIONS.search(name)):
                    yield part, name, module
            elif text and TEXT.search(name):
                yield part, f"text_model.{name.removeprefix('text_model.')}", module


def _networks(folder: Path) -> dict[str, Any]:
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    found: dict[str, Any] = {"unet": UNet2DConditionModel.from_pretrained(folder / "unet")}
    found["text_encoder"] = CLIPTextModel.from_pretrained(folder / "text_encoder")
    if (folder / "text_encoder_2").exists():
        found["text_encoder_2"] = CLIPTextModelWithProjection.from_pretrained(folder / "text_encoder_2")
    return found


def _matrices(layer: Any, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    out, inside, *kernel = layer.weight.shape
    down = torch.randn(RANK, inside, *kernel, generator=generator) * 0.2
    return down, torch.randn(out, RANK, *(1 for _ in kernel), generator=generator) * 0.2


# --- layouts: each returns the tensors of one layer ------------------------------------------


def _kohya(part, name, down, up, alpha, folder) -> Tensors:
    prefixes = {"unet": "lora_unet", "text_encoder": "lora_te", "text_encoder_2": "lora_te2"}
    if part == "text_encoder" and (folder / "text_encoder_2").exists():
        prefixes["text_encoder"] = "lora_te1"
    layer = f"{prefixes[part]}_{name.replace('.', '_')}"
    scale = {} if alpha is None else {f"{layer}.alpha": torch.tensor(alpha)}
    return {f"{layer}.lora_down.weight": down, f"{layer}.lora_up.weight": up} | scale


def _original(part, name, down, up, alpha, folder) -> Tensors:
    """Kohya's names for SDXL: the U-Net's layers as in the original code of Stability."""
    return _kohya(part, original_name(name) if part == "unet" else name, down, up, alpha, folder)


def _diffusers(part, name, down, up, alpha, folder) -> Tensors:
    return {f"{part}.{name}.lora_A.weight": down, f"{part}.{name}.lora_B.weight": up}


def _old_diffusers(part, name, down, up, alpha, folder) -> Tensors:
    if part == "unet":
        return {f"{part}.{name}.lora.down.weight": down, f"{part}.{name}.lora.up.weight": up}
    layer = f"{part}.{name}.lora_linear_layer"
    return {f"{layer}.down.weight": down, f"{layer}.up.weight": up}


def _processors(part, name, down, up, alpha, folder) -> Tensors:
    """The first layout of diffusers, which has the attention layers alone."""
    if part == "unet" and (match := re.search(r"(.*attn\d)\.(to_q|to_k|to_v|to_out)(\.0)?$", name)):
        layer = f"unet.{match[1]}.processor.{match[2]}_lora"
    elif match := re.search(r"(.*self_attn)\.(\w+_proj)$", name):
        layer = f"{part}.{match[1]}.{OLD_NAMES[match[2]]}_lora"
    else:
        return {}
    return {f"{layer}.down.weight": down, f"{layer}.up.weight": up}


def _peft(part, name, down, up, alpha, folder) -> Tensors:
    """What `save_pretrained` of PEFT writes for a U-Net."""
    layer = f"base_model.model.{name}"
    return {f"{layer}.lora_A.weight": down, f"{layer}.lora_B.weight": up} if part == "unet" else {}


LAYOUTS: dict[str, Callable[..., Tensors]] = {
    "kohya": _kohya,
    "original": _original,
    "diffusers": _diffusers,
    "old diffusers": _old_diffusers,
    "processors": _processors,
    "peft": _peft,
}


def original_name(name: str) -> str:
    """The original name of a layer of an SDXL U-Net with two ResNets a level and no attention in the first level."""
    inner = {"conv1": "in_layers_2", "conv2": "out_layers_3", "time_emb_proj": "emb_layers_1"}
    inner |= {"conv_shortcut": "skip_connection"}
    kind, *words = name.split(".")
    if kind == "mid_block":
        rest = "_".join(words[2:])
        return f"middle_block_{ {'resnets': 0, 'attentions': 1}[words[0]] + 2 * int(words[1]) }_{inner.get(rest, rest)}"
    level, block, number = int(words[0]), words[1], int(words[2])
    rest = "_".join(words[3:])
    if block == "downsamplers":
        return f"input_blocks_{3 * level + 3}_0_op"
    if block == "upsamplers":
        return f"output_blocks_{3 * level + 2}_2_conv"
    first = 3 * level + 1 if kind == "down_blocks" else 3 * level
    part = {"resnets": 0, "attentions": 1}[block]
    return f"{'input' if kind == 'down_blocks' else 'output'}_blocks_{first + number}_{part}_{inner.get(rest, rest)}"
