"""Choose how the networks of a model compute attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..device import Attention


def choose_attention(kind: Attention, unet: Any, vae: Any, text_encoders: Sequence[Any]) -> None:
    """Let networks compute attention by torch's kernels, by those of xformers, or written out.

    Text encoders have masks and 77 tokens. They are written out with `math` and use torch's kernels otherwise.
    """
    from diffusers.models.attention_processor import AttnProcessor, XFormersAttnProcessor

    if kind == "sdpa":  # what the libraries do by themselves
        return
    processor = AttnProcessor if kind == "math" else XFormersAttnProcessor
    for network in (unet, vae):
        if hasattr(network, "set_attn_processor"):  # TAESD has no attention
            network.set_attn_processor(processor())
    if kind == "math":
        for encoder in text_encoders:
            encoder.set_attn_implementation("eager")
