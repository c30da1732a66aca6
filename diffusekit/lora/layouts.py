"""The names of a LoRA file's tensors: which network, which layer and which matrix each of them is.

Kohya's scripts, PEFT, diffusers and LyCORIS spell the same layer differently. Here a layer has one name, that of its
module with `_` for every dot, and the U-Net's layers have a second one, that of the original Stable Diffusion.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from ..errors import FileRefused

SUPPORTED = "supported: LoRA and LoCon in the layouts of kohya, PEFT, diffusers and LyCORIS"
UNET, TEXT_ENCODER, TEXT_ENCODER_2 = "unet", "text_encoder", "text_encoder_2"
# The first kind with a matching name counts.
_OTHER_KINDS = tuple(
    (kind, re.compile(pattern))
    for kind, pattern in (
        ("a LoHa of LyCORIS", r"\.hada_"),
        ("a LoKr of LyCORIS", r"\.lokr_"),
        ("a DoRA", r"\.dora_scale$|\.lora_magnitude_vector"),
        ("an OFT or BOFT", r"\.b?oft_"),
        ("an (IA)³", r"\.(ia3_l|on_input)"),
        ("a GLoRA of LyCORIS", r"\.(a1|a2|b1|b2|bm1|bm2)(\.weight)?$"),
        ("a VeRA", r"\.vera_"),
        ("a LoRA with changes of whole weights, as LyCORIS' full training makes them,", r"\.(diff|diff_b|set_weight)$"),
        ("a LoRA with norm layers of LyCORIS", r"\.(w_norm|b_norm)$"),
        ("a LoRA with biases", r"\.(lora_[AB]|lora_up|lora_down)(\.\w+)?\.bias$"),
        ("a LoRA for another shape of weights", r"\.reshape_weight$"),
    )
)
_OTHER_FAMILIES = tuple(
    (family, re.compile(pattern))
    for family, pattern in (
        ("FLUX", r"double_blocks|single_blocks|single_transformer_blocks"),
        ("Stable Diffusion 3", r"joint_blocks|^(transformer|lora_unet|lora_transformer)[._]transformer_blocks"),
        ("Stable Cascade", r"^lora_prior_"),
        ("a video model", r"(temporal|motion_modules|time_stack)"),
        ("another kind of model than Stable Diffusion", r"^(transformer|diffusion_model\.layers|lora_te3)[._]"),
    )
)
_MATRIX = re.compile(
    r"(?P<layer>.+?)(?:\.lora_(?P<kohya>down|up|mid)|\.lora_(?P<peft>[AB])(?:\.\w+)?"
    r"|(?:\.lora_linear_layer|\.lora|_lora)\.(?P<old>down|up))\.weight"
)
_PREFIXES = (  # the longest first
    ("base_model.model.unet.", UNET),
    ("base_model.model.", ""),
    ("lora_unet_", UNET),
    ("lora_te1_", TEXT_ENCODER),
    ("lora_te2_", TEXT_ENCODER_2),
    ("lora_te_", TEXT_ENCODER),
    ("lycoris_", ""),
    ("text_encoder_2.", TEXT_ENCODER_2),
    ("text_encoder.", TEXT_ENCODER),
    ("diffusion_model.", UNET),
    ("unet.", UNET),
)
_OLD_PROJECTIONS = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}
_IN_RESNET = {
    "conv1": "in_layers_2",
    "conv2": "out_layers_3",
    "time_emb_proj": "emb_layers_1",
    "conv_shortcut": "skip_connection",
}


class LayerKey(NamedTuple):
    """A layer of a LoRA file: the network, and the layer's name with `_` for every dot."""

    part: str
    layer: str


def split_names(names: Iterable[str]) -> Iterator[tuple[str, LayerKey, str]]:
    """Yield (name, layer, role) for the tensors of a LoRA; the role is down, up, mid or alpha.

    Raises `FileRefused` without the file's name for another kind of file, and for a tensor of an unknown name.
    """
    names = [name for name in names if not name.startswith("bundle_emb.")]
    for kind, pattern in _OTHER_KINDS:
        if any(pattern.search(name) for name in names):
            raise FileRefused(f"is {kind} and cannot be used", SUPPORTED)
    for name in names:
        match = _MATRIX.fullmatch(name)
        if match:
            role = match["kohya"] or match["old"] or {"A": "down", "B": "up"}[match["peft"]]
            yield name, layer_of(match["layer"]), role
        elif name.endswith(".alpha"):
            layer = re.sub(r"(\.lora_linear_layer|\.lora|_lora)$", "", name.removesuffix(".alpha"))
            yield name, layer_of(layer), "alpha"
        else:
            raise FileRefused(f"has a tensor of an unknown kind, {name[:100]!r}", SUPPORTED)


def layer_of(name: str) -> LayerKey:
    """Return the layer of a name without its matrix, like `unet.mid_block.attentions.0.proj_in`."""
    prefix, part = next(((prefix, part) for prefix, part in _PREFIXES if name.startswith(prefix)), ("", ""))
    layer = name.removeprefix(prefix).replace(".processor.", ".")
    if match := re.fullmatch(r"(.*self_attn\.)(to_q|to_k|to_v|to_out)", layer):
        layer = match[1] + _OLD_PROJECTIONS[match[2]]
    if layer.endswith(".to_out"):
        layer += ".0"
    layer = layer.replace(".", "_")
    if not part:
        part = TEXT_ENCODER if layer.startswith(("text_model_", "encoder_layers_")) else UNET
    return LayerKey(part, layer if part == UNET else layer.removeprefix("text_model_"))


def name_other_family(names: Iterable[str]) -> str:
    """Return the family of models that a LoRA belongs to, if its layers tell that it is none of ours."""
    names = list(names)
    return next((family for family, pattern in _OTHER_FAMILIES if any(map(pattern.search, names))), "")


def layers_of_text_encoder(encoder: Any) -> dict[str, Any]:
    """Return the layers of a text encoder that a LoRA can change, by name."""
    return {name.removeprefix("text_model.").replace(".", "_"): layer for name, layer in _layers(encoder)}


def layers_of_unet(unet: Any) -> dict[str, Any]:
    """Return the layers of a U-Net that a LoRA can change, by either of their names."""
    originals = dict(_original_blocks(unet))
    found: dict[str, Any] = {}
    for name, layer in _layers(unet):
        found[name.replace(".", "_")] = layer
        words = name.split(".")
        block = next((b for b in (name, ".".join(words[:4]), ".".join(words[:3])) if b in originals), "")
        if block:
            rest = name.removeprefix(block).removeprefix(".").replace(".", "_")
            found["_".join(filter(None, (originals[block], _IN_RESNET.get(rest, rest))))] = layer
    return found


def _layers(network: Any) -> Iterator[tuple[str, Any]]:
    import torch

    for name, module in network.named_modules():
        if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d)):
            yield name, module


def _original_blocks(unet: Any) -> Iterator[tuple[str, str]]:
    """Yield our name and the original one of every block of a U-Net."""
    yield from _FIXED.items()
    number = 1
    for i, block in enumerate(unet.down_blocks):
        for j in range(len(block.resnets)):
            yield f"down_blocks.{i}.resnets.{j}", f"input_blocks_{number}_0"
            yield f"down_blocks.{i}.attentions.{j}", f"input_blocks_{number}_1"
            number += 1
        if block.downsamplers:
            yield f"down_blocks.{i}.downsamplers.0.conv", f"input_blocks_{number}_0_op"
            number += 1
    number = 0
    for i, block in enumerate(unet.up_blocks):
        has_attention = bool(getattr(block, "attentions", None))
        for j in range(len(block.resnets)):
            yield f"up_blocks.{i}.resnets.{j}", f"output_blocks_{number}_0"
            yield f"up_blocks.{i}.attentions.{j}", f"output_blocks_{number}_1"
            number += 1
        if block.upsamplers:
            yield f"up_blocks.{i}.upsamplers.0.conv", f"output_blocks_{number - 1}_{1 + has_attention}_conv"


_FIXED: Mapping[str, str] = {
    "conv_in": "input_blocks_0_0",
    "conv_out": "out_2",
    "time_embedding.linear_1": "time_embed_0",
    "time_embedding.linear_2": "time_embed_2",
    "add_embedding.linear_1": "label_emb_0_0",
    "add_embedding.linear_2": "label_emb_0_2",
    "mid_block.resnets.0": "middle_block_0",
    "mid_block.attentions.0": "middle_block_1",
    "mid_block.resnets.1": "middle_block_2",
}
