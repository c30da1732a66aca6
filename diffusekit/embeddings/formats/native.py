"""Safetensors: read tokens of any layout from it, and write the native format.

Native files have one key, the token itself, float32 (k, D). With two text encoders the keys are `clip_l`
and `clip_g`. The metadata describe the token.
"""

from __future__ import annotations

import torch

from ...errors import FileRefused
from ..token import LearnedToken
from . import header

PAIR = ("clip_l", "clip_g")
# metadata of the file itself, or that repeat what the vectors say; the rest describe the token
FILE_METADATA = ("format", "token", "vectors", "width")


def parse(data: bytes) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Return (tensors, metadata) of a safetensors file, after checking its header; raises `FileRefused`."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    length = header.length(data, len(data))
    metadata = header.parse(data[8 : 8 + length], len(data)).metadata
    try:
        return load(data), metadata
    except (SafetensorError, RuntimeError, ValueError, KeyError) as error:
        raise FileRefused(f"cannot be read: {error}", "use another copy of it") from None


def build(token: LearnedToken) -> bytes:
    """Build the native file of a token. Equal tokens give equal bytes."""
    keys = (token.token,) if len(token.vectors) == 1 else PAIR
    shape = {"vectors": str(token.count), "width": "+".join(map(str, token.width))}
    return build_safetensors(keys, token.vectors, token.metadata | shape | {"format": "pt", "token": token.token})


def build_safetensors(keys: tuple[str, ...], vectors: tuple[torch.Tensor, ...], metadata: dict[str, str]) -> bytes:
    """Build a safetensors file of named vectors, as float32."""
    tensors = {
        key: (tuple(v.shape), v.detach().float().cpu().contiguous().numpy().astype("<f4").tobytes())
        for key, v in zip(keys, vectors, strict=True)
    }
    return header.build(tensors, metadata)
