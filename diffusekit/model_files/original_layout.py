"""The original layout of one-file checkpoints: which family a file is of, and its configurations, from its shapes.

A file has no configurations. Those of its family are shipped in `configs/`, and what the shapes of the tensors say
replaces what they say. The shapes do not say the number of attention heads: families have 8 heads, or 64 channels a
head.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import ModelError
from .families import SD1, SD2, SDXL, SUPPORTED, EncoderPart, Family

Shapes = Mapping[str, tuple[int, ...]]
CONFIGS = Path(__file__).with_name("configs")
ENDINGS = (".safetensors", ".sft")
UNET, EMA = "model.diffusion_model.", "model_ema."
VAE_PREFIXES = ("first_stage_model.", "vae.")
# How the keys of each text encoder begin: in the layout of transformers, or in that of OpenCLIP.
TEXT_PREFIXES = {
    "sd1": {"text_encoder": "cond_stage_model.transformer."},
    "sd2": {"text_encoder": "cond_stage_model.model."},
    "sdxl": {
        "text_encoder": "conditioner.embedders.0.transformer.",
        "text_encoder_2": "conditioner.embedders.1.model.",
    },
}
_HEAD = 64  # channels of an attention head in every family but the U-Net of 1.x
_OPENCLIP_LAYERS = 23  # of the 24 of 2.x: the last one is not used
# Keys of families that cannot be loaded, and what they are.
_OTHERS = (
    ("joint_blocks.", "Stable Diffusion 3"),
    ("double_blocks.", "FLUX"),
    ("edm_mean", "Playground 2.5"),
    ("edm_vpred.sigma_max", "a CosXL model"),
    ("depth_model.", "Stable Diffusion with depth maps"),
)


def is_checkpoint(names: Mapping[str, Any]) -> bool:
    """Whether tensors of these names are a one-file checkpoint, of any family."""
    if f"{UNET}input_blocks.0.0.weight" in names:
        return True
    return any(("double_blocks." in name or "joint_blocks." in name) and "lora" not in name for name in names)


def find_family(name: str, shapes: Shapes) -> Family:
    """Return the family of a one-file checkpoint; raises `ModelError` for one that is not supported."""
    for key, other in _OTHERS:
        if any(key in each for each in shapes):
            raise ModelError(f"{name} is a one-file checkpoint of {other}, which is not supported", SUPPORTED)
    starts = {
        "conditioner.embedders.1.model.": SDXL,
        "cond_stage_model.transformer.": SD1,
        "cond_stage_model.model.": SD2,
    }
    for start, family in starts.items():
        if any(each.startswith(start) for each in shapes):
            return family
    if any(each.startswith("conditioner.embedders.0.model.") for each in shapes):
        raise ModelError(f"{name} is the refiner of Stable Diffusion XL, which is not supported", SUPPORTED)
    raise ModelError(
        f"{name} has a U-Net, but no text encoder that is known", "use a whole checkpoint, with text encoder and VAE"
    )


def read_template(family: Family) -> dict[str, Any]:
    """Read the configurations that are shipped for a family, by part."""
    return json.loads((CONFIGS / f"{family.name}.json").read_text())


def derive_configs(name: str, family: Family, shapes: Shapes) -> dict[str, dict[str, Any]]:
    """Return the configurations of the networks and the scheduler of a file. Raises `ModelError`."""
    configs = read_template(family)
    try:
        configs["unet"] |= _unet(name, {k.removeprefix(UNET): v for k, v in shapes.items() if k.startswith(UNET)})
        for encoder in family.encoders:
            configs[encoder.folder] |= _text(family, encoder, shapes)
        if family is SDXL:
            configs["unet"] |= _size_ids(configs, shapes)
        if vae := vae_part(shapes):
            configs["vae"] |= derive_vae(vae)
    except (KeyError, IndexError, ValueError) as error:
        raise ModelError(
            f"{name} is not a whole checkpoint of {family.label}: {str(error)[:100]} is missing", "fetch it again"
        ) from None
    return {part: configs[part] for part in (*family.networks, "scheduler")}


def vae_part(shapes: Shapes) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the VAE inside a checkpoint, without their prefix; empty if there is none."""
    for prefix in VAE_PREFIXES:
        if found := {k.removeprefix(prefix): v for k, v in shapes.items() if k.startswith(prefix)}:
            return found
    return {}


def derive_vae(shapes: Shapes) -> dict[str, Any]:
    """Return what the shapes of a VAE in the original layout say about its configuration."""
    channels: list[int] = []
    while (first := shapes.get(f"encoder.down.{len(channels)}.block.0.conv1.weight")) is not None:
        channels.append(first[0])
    layers = sum(f"encoder.down.0.block.{i}.conv1.weight" in shapes for i in range(10))
    return {
        "block_out_channels": channels,
        "layers_per_block": layers,
        "latent_channels": shapes["decoder.conv_in.weight"][1],
        "in_channels": shapes["encoder.conv_in.weight"][1],
        "out_channels": shapes["decoder.conv_out.weight"][0],
        "down_block_types": ["DownEncoderBlock2D"] * len(channels),
        "up_block_types": ["UpDecoderBlock2D"] * len(channels),
    }


def _unet(name: str, shapes: Shapes) -> dict[str, Any]:
    levels = _find_levels(name, shapes)
    channels, depths = [width for width, _ in levels], [depth for _, depth in levels]
    layers = sum(f"input_blocks.{i}.0.in_layers.2.weight" in shapes for i in range(1, 100)) // len(levels)
    _check_structure(name, shapes, depths, layers)
    first = next(i for i in range(1, 100) if f"input_blocks.{i}.1.proj_in.weight" in shapes)
    is_linear = len(shapes[f"input_blocks.{first}.1.proj_in.weight"]) == 2
    config: dict[str, Any] = {
        "in_channels": shapes["input_blocks.0.0.weight"][1],
        "out_channels": shapes["out.2.weight"][0],
        "block_out_channels": channels,
        "layers_per_block": layers,
        "down_block_types": ["CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in depths],
        "up_block_types": ["CrossAttnUpBlock2D" if depth else "UpBlock2D" for depth in reversed(depths)],
        "cross_attention_dim": shapes[f"input_blocks.{first}.1.transformer_blocks.0.attn2.to_k.weight"][1],
        "use_linear_projection": is_linear,
    }
    if is_linear:
        config["attention_head_dim"] = [max(1, width // _HEAD) for width in channels]
    if set(depths) - {0, 1}:
        config["transformer_layers_per_block"] = [max(1, depth) for depth in depths]
    return config


def _find_levels(name: str, shapes: Shapes) -> list[tuple[int, int]]:
    """Return the channels and the transformer blocks of each level of the way down."""
    levels: list[list[tuple[int, int]]] = [[]]
    for i in range(1, 100):
        block = f"input_blocks.{i}"
        if f"{block}.0.op.weight" in shapes:
            levels.append([])
        elif (conv := shapes.get(f"{block}.0.in_layers.2.weight")) is not None:
            levels[-1].append((conv[0], _depth(shapes, block)))
        else:
            break
    if not levels[0]:
        raise KeyError(f"{UNET}input_blocks.1.0.in_layers.2.weight")
    if any(len(set(level)) != 1 or len(level) != len(levels[0]) for level in levels):
        raise _unknown_structure(name)
    return [level[0] for level in levels]


def _check_structure(name: str, shapes: Shapes, depths: list[int], layers: int) -> None:
    """Check that the middle and the way up are as deep as the way down says. Distilled U-Nets differ."""
    up = [_depth(shapes, f"output_blocks.{i}") for i in range(len(depths) * (layers + 1))]
    expected = [depth for depth in reversed(depths) for _ in range(layers + 1)]
    if up != expected or _depth(shapes, "middle_block") != (depths[-1] or 1):
        raise _unknown_structure(name)


def _depth(shapes: Shapes, block: str) -> int:
    start = f"{block}.1.transformer_blocks."
    return sum(f"{start}{i}.norm1.weight" in shapes for i in range(50))


def _unknown_structure(name: str) -> ModelError:
    return ModelError(
        f"the U-Net of {name} has other layers than those of its family (like SSD-1B and other distilled ones)",
        "use its folder in diffusers layout",
    )


def _text(family: Family, part: EncoderPart, shapes: Shapes) -> dict[str, Any]:
    prefix = TEXT_PREFIXES[family.name][part.folder]
    own = {k.removeprefix(prefix).removeprefix("text_model."): v for k, v in shapes.items() if k.startswith(prefix)}
    if prefix.endswith(".model."):
        tokens, positions = own["token_embedding.weight"], own["positional_embedding"]
        layer, inner = "transformer.resblocks.{}.ln_1.weight", own["transformer.resblocks.0.mlp.c_fc.weight"][0]
        limit = _OPENCLIP_LAYERS if family is SD2 else 1000
    else:
        tokens, positions = own["embeddings.token_embedding.weight"], own["embeddings.position_embedding.weight"]
        layer, inner, limit = "encoder.layers.{}.layer_norm1.weight", own["encoder.layers.0.mlp.fc1.weight"][0], 1000
    width = tokens[1]
    config: dict[str, Any] = {
        "vocab_size": tokens[0],
        "hidden_size": width,
        "max_position_embeddings": positions[0],
        "num_hidden_layers": min(limit, sum(layer.format(i) in own for i in range(100))),
        "intermediate_size": inner,
        "num_attention_heads": max(1, width // _HEAD),
    }
    if part.is_projected:
        config["projection_dim"] = own["text_projection"][1]
    return config


def _size_ids(configs: Mapping[str, Mapping[str, Any]], shapes: Shapes) -> dict[str, Any]:
    total, pooled = shapes[f"{UNET}label_emb.0.0.weight"][1], configs["text_encoder_2"]["projection_dim"]
    return {"projection_class_embeddings_input_dim": total, "addition_time_embed_dim": max(1, (total - pooled) // 6)}
