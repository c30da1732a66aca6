"""Merge a LoRA into the weights of a network (Hu et al., 2021)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch


@torch.no_grad()
def merge_lora(unet: Any, path: Path) -> None:
    """Add a LoRA file with PEFT's names to the weights of a U-Net: each layer's weight gains B·A."""
    from safetensors.torch import load_file

    tensors = load_file(path)
    for key in tensors:
        layer, is_down, _ = key.removeprefix("unet.").partition(".lora_A.weight")
        if is_down:
            weight = unet.get_submodule(layer).weight
            down, up = tensors[key].float(), tensors[key.replace("lora_A", "lora_B")].float()
            change = (up.flatten(1) @ down.flatten(1)).view_as(weight)
            weight.copy_(weight.float() + change.to(weight.device))
