"""Recognize files that are given as a token and are something else: a LoRA, a checkpoint, a VAE, a ControlNet.

The names of the tensors tell. Nothing is opened: a safetensors file has its names in the header, and in a pickle
they are plain text.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterable
from typing import BinaryIO

TOKEN_HINT = "use a file that holds one token of textual inversion"
_LORA = "a LoRA"
_SAMPLE = 4 * 2**20  # bytes of a header or pickle that are searched
_MAX_NAMES = 20_000
_IN_PICKLE = re.compile(rb"[\w.-]{3,200}")
# The first kind with a matching name counts. A LoRA may bring names of the networks that it changes, and a checkpoint
# has a VAE inside.
_KINDS = tuple(
    (kind, re.compile(pattern))
    for kind, pattern in (
        ("a hypernetwork", r"^(320|640|768|1024|1280)\.\d+\.|^layer_structure$"),
        (_LORA, r"lora_|\.lora|_lora\.|bundle_emb\.|hada_|lokr_|oft_blocks|\.dora_scale"),
        ("a ControlNet", r"^control_model\.|^controlnet_|^input_hint_block\.|^zero_convs\."),
        ("an IP-Adapter", r"^(image_proj|ip_adapter)(\.|$)"),
        ("a motion module", r"motion_modules\."),
        ("a checkpoint", r"^(model\.diffusion_model|cond_stage_model|conditioner\.embedders)\."),
        ("a VAE", r"^(first_stage_model\.)?(encoder\.(down|conv_in)|decoder\.(up|conv_in)|(post_)?quant_conv)"),
        ("an upscaler", r"^(conv_first|RRDB_trunk|body\.\d+\.rdb\d|model\.\d+\.sub)\b"),
        ("a T2I-Adapter", r"^(adapter\.)?body\.\d+\."),
        ("a U-Net", r"^(down_blocks|up_blocks|input_blocks|output_blocks|double_blocks|joint_blocks)\."),
        ("a text encoder", r"^(text_model|transformer\.text_model|vision_model|encoder\.block)\."),
    )
)


def name_kind(names: Iterable[str]) -> str:
    """Return what a file with tensors of these names is, like "a LoRA", or "" if it may be a token."""
    known = list(names)[:_MAX_NAMES]
    if len(known) < 2:  # a token can have any name
        return ""
    return next((kind for kind, pattern in _KINDS if any(pattern.search(name) for name in known)), "")


def hint_for(kind: str) -> str:
    """Return what to do with a file of a kind that `name_kind` names."""
    return "give it with `lora`" if kind == _LORA else TOKEN_HINT


def name_kind_of_file(file: BinaryIO) -> str:
    """Return what an open file that is too large for a token is, or "" if its names do not tell."""
    try:
        file.seek(0)
        start = file.read(_SAMPLE)
        if start[8:9] == b"{":
            length = int.from_bytes(start[:8], "little")
            return name_kind(json.loads(start[8 : 8 + length])) if length < _SAMPLE else ""
        if start[:2] == b"PK":
            with zipfile.ZipFile(file) as archive:
                name = next((name for name in archive.namelist() if name.endswith("data.pkl")), "")
                start = archive.open(name).read(_SAMPLE) if name else b""
    except (OSError, ValueError, RecursionError, RuntimeError, NotImplementedError, EOFError, zipfile.BadZipFile):
        return ""
    words = dict.fromkeys(match[0].decode("latin-1") for match in _IN_PICKLE.finditer(start))
    return name_kind(word for word in words if "." in word or "_" in word)
