"""Files that look like models to everything that reads only names and headers."""

import json
from pathlib import Path

CHECKPOINT = {"model.diffusion_model.input_blocks.0.0.weight": ("F16", [320, 4, 3, 3])}
CHECKPOINT |= {"cond_stage_model.transformer.text_model.final_layer_norm.bias": ("F16", [768])}
LORA = {"lora_unet_mid_block.lora_down.weight": ("F16", [4, 8])}
VAE = {"decoder.up.0.block.0.conv1.weight": ("F32", [8, 8, 3, 3]), "encoder.down.0.x": ("F32", [1])}
EMBEDDING = {"emb_params": ("F32", [2, 768])}


def write_header(path: Path, tensors: dict[str, tuple[str, list[int]]], fill: bytes = b"\0") -> Path:
    """Write a safetensors file with these tensors, all of one byte."""
    entries, end = {}, 0
    for name, (dtype, shape) in tensors.items():
        size = 2 if dtype == "F16" else 4
        for side in shape:
            size *= side
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    header = json.dumps(entries).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(len(header).to_bytes(8, "little") + header + fill * end)
    return path


def write_a1111(root: Path) -> Path:
    """Write the folder of A1111 with two checkpoints, a VAE beside one, a LoRA, a VAE and an embedding."""
    models = root / "models"
    write_header(models / "Stable-diffusion" / "dreamy.safetensors", CHECKPOINT)
    write_header(models / "Stable-diffusion" / "SDXL" / "crisp.safetensors", CHECKPOINT, b"\1")
    write_header(models / "Stable-diffusion" / "dreamy.vae.safetensors", VAE)
    write_header(models / "Lora" / "style.safetensors", LORA)
    write_header(models / "VAE" / "sharp.safetensors", VAE)
    write_header(root / "embeddings" / "bad_hands.safetensors", EMBEDDING)
    write_header(models / "ControlNet" / "canny.safetensors", {"control_model.x": ("F16", [1])})
    return root
