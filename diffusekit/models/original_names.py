"""From diffusers layout to the original layout of one-file checkpoints: names of tensors, and their shapes.

diffusers has the way from the original layout only. A test sends every family there and back through its converter.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from ..errors import ModelError
from ..model_files import Family
from ..model_files.original_layout import TEXT_PREFIXES, UNET

if TYPE_CHECKING:
    from .tensors import Tensors

_UNET_ENDS = {
    "time_embedding.linear_1.": "time_embed.0.",
    "time_embedding.linear_2.": "time_embed.2.",
    "add_embedding.linear_1.": "label_emb.0.0.",
    "add_embedding.linear_2.": "label_emb.0.2.",
    "conv_in.": "input_blocks.0.0.",
    "conv_norm_out.": "out.0.",
    "conv_out.": "out.2.",
}
_RESNET = {
    "norm1.": "in_layers.0.",
    "conv1.": "in_layers.2.",
    "norm2.": "out_layers.0.",
    "conv2.": "out_layers.3.",
    "time_emb_proj.": "emb_layers.1.",
    "conv_shortcut.": "skip_connection.",
}
_VAE_ATTENTION = {"group_norm.": "norm.", "to_q.": "q.", "to_k.": "k.", "to_v.": "v.", "to_out.0.": "proj_out."}
_OPENCLIP = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.": "ln_final.",
}
_OPENCLIP_LAYER = {
    "layer_norm1.": "ln_1.",
    "layer_norm2.": "ln_2.",
    "mlp.fc1.": "mlp.c_fc.",
    "mlp.fc2.": "mlp.c_proj.",
    "self_attn.out_proj.": "attn.out_proj.",
}
_LAYER = re.compile(r"encoder\.layers\.(\d+)\.(.+)")
_BLOCK = re.compile(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)")
_MIDDLE = re.compile(r"mid_block\.(resnets|attentions)\.(\d+)\.(.+)")


def to_original(family: Family, part: str, tensors: Tensors, config: Mapping[str, Any]) -> Tensors:
    """Give the tensors of one network the names and shapes of the original layout.

    Raises `ModelError` for a network that the original layout has no names for.
    """
    if part == "unet":
        names = {name: f"{UNET}{_name_unet(name, config)}" for name in tensors}
        return {names[name]: tensor for name, tensor in tensors.items()}
    if part == "vae":
        return {f"first_stage_model.{_name_vae(name, config)}": _widen(name, t) for name, t in tensors.items()}
    prefix = TEXT_PREFIXES[family.name][part]
    if prefix.endswith(".model."):
        return _to_openclip({name.removeprefix("text_model."): t for name, t in tensors.items()}, prefix)
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


def _name_unet(name: str, config: Mapping[str, Any]) -> str:
    for start, original in _UNET_ENDS.items():
        if name.startswith(start):
            return original + name.removeprefix(start)
    layers = config["layers_per_block"]
    if match := _MIDDLE.fullmatch(name):
        kind, number, rest = match.groups()
        return f"middle_block.{2 * int(number) if kind == 'resnets' else 1}.{_inner(kind, rest)}"
    if (match := _BLOCK.fullmatch(name)) and isinstance(layers, int):
        way, level, kind, number, rest = match[1], int(match[2]), match[3], int(match[4]), match[5]
        first = level * (layers + 1)
        if kind == "downsamplers":
            return f"input_blocks.{first + layers + 1}.0.{rest.replace('conv.', 'op.', 1)}"
        if kind == "upsamplers":  # the last in its block, after the attention where there is one
            has_attention = str(config["up_block_types"][level]).startswith("CrossAttn")
            return f"output_blocks.{first + layers}.{2 if has_attention else 1}.{rest}"
        block = f"input_blocks.{first + 1 + number}" if way == "down" else f"output_blocks.{first + number}"
        return f"{block}.{0 if kind == 'resnets' else 1}.{_inner(kind, rest)}"
    raise _no_name("U-Net", name)


def _inner(kind: str, rest: str) -> str:
    return _replace_start(rest, _RESNET) if kind == "resnets" else rest


def _name_vae(name: str, config: Mapping[str, Any]) -> str:
    if name.startswith(("quant_conv.", "post_quant_conv.")):
        return name
    half, _, rest = name.partition(".")
    if match := _MIDDLE.fullmatch(rest):
        kind, number, rest = match.groups()
        if kind == "attentions":
            return f"{half}.mid.attn_1.{_replace_start(rest, _VAE_ATTENTION)}"
        return f"{half}.mid.block_{int(number) + 1}.{rest.replace('conv_shortcut', 'nin_shortcut')}"
    if match := _BLOCK.fullmatch(rest):
        way, level, kind, number, rest = match.groups()
        level = level if way == "down" else str(len(config["block_out_channels"]) - 1 - int(level))
        if kind == "resnets":
            return f"{half}.{way}.{level}.block.{number}.{rest.replace('conv_shortcut', 'nin_shortcut')}"
        return f"{half}.{way}.{level}.{way}sample.{rest}"
    if half in ("encoder", "decoder") and rest.startswith(("conv_in.", "conv_out.", "conv_norm_out.")):
        return f"{half}.{rest.replace('conv_norm_out', 'norm_out')}"
    raise _no_name("VAE", name)


def _widen(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """The original VAE has convolutions of one pixel where diffusers has linear layers in its attention."""
    is_linear = ".attentions." in name and tensor.ndim == 2
    return tensor[:, :, None, None] if is_linear else tensor


def _to_openclip(tensors: Tensors, prefix: str) -> Tensors:
    found: Tensors = {}
    for name, tensor in tensors.items():
        if match := _LAYER.fullmatch(name):
            start, rest = f"transformer.resblocks.{match[1]}.", match[2]
            if rest.startswith(("self_attn.k_proj.", "self_attn.v_proj.")):
                continue
            if rest.startswith("self_attn.q_proj."):  # queries, keys and values are one tensor
                parts = [tensors[name.replace("q_proj", each)] for each in ("q_proj", "k_proj", "v_proj")]
                found[f"{prefix}{start}attn.in_proj_{rest.rpartition('.')[2]}"] = torch.cat(parts)
            else:
                found[f"{prefix}{start}{_replace_start(rest, _OPENCLIP_LAYER)}"] = tensor
        elif name == "text_projection.weight":
            found[f"{prefix}text_projection"] = tensor.T
        else:
            found[f"{prefix}{_replace_start(name, _OPENCLIP)}"] = tensor
    return found


def _replace_start(name: str, table: Mapping[str, str]) -> str:
    for start, original in table.items():
        if name.startswith(start):
            return original + name.removeprefix(start)
    raise _no_name("network", name)


def _no_name(network: str, name: str) -> ModelError:
    return ModelError(
        f"the original layout has no place for {name!r} of the {network}", "convert this model to a folder instead"
    )
