"""Which keys of a file are a learned token: every layout that diffusers, A1111, kohya and others write.

Knows tensors by name and no files. The layouts are listed in `embeddings/README.md`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ...display import quote
from ...errors import FileRefused
from ..names import name_of, safe_name, token_error
from ..token import MAX_VECTORS

_PAIRS = (("clip_l", "clip_g"), ("text_encoders_0", "text_encoders_1"))
_SINGLE = ("emb_params", "emp_params")  # kohya, Civitai; OneTrainer (spelled so)
_OUTPUTS = {"emb_params_out", "emp_params_out", "clip_l_out", "clip_g_out"}
_XTI = re.compile(r"(IN|MID|OUT)\d\d")
_LORA = re.compile(r"lora_|\.lora|bundle_emb\.|hada_")
_ELSEWHERE = "use a file that holds one token of textual inversion"


@dataclass(frozen=True)
class Layout:
    """What a file's keys mean: its token, and the keys of the vectors, one per text encoder."""

    token: str
    keys: tuple[str, ...]


def identify(names: Collection[str], metadata: Mapping[str, str], stem: str) -> Layout:
    """Find the token among a file's keys; a file that does not name it is named by its `stem`.

    Raises `FileRefused` (the caller names the file) for anything but one token.
    """
    own = metadata.get("token", "")
    keys = [name for name in names if name not in _OUTPUTS]
    for pair in _PAIRS:
        if set(keys) == set(pair):
            return Layout(own or name_of(stem), pair)
        if len(keys) == 1 and keys[0] in pair:
            other = pair[1 - pair.index(keys[0])]
            raise FileRefused(f"holds {keys[0]} but no {other}: half of a token", _ELSEWHERE)
    if not keys:
        raise FileRefused("holds no token", _ELSEWHERE)
    if any(_XTI.fullmatch(key) for key in keys):
        raise FileRefused(
            "holds an extended inversion (XTI: one token per layer of the U-Net), "
            "where one token for all layers is wanted",
            _ELSEWHERE,
        )
    if any(_LORA.search(key) for key in keys):
        raise FileRefused("is a LoRA, where a token of textual inversion is wanted", _ELSEWHERE)
    if len(keys) > 1:
        some = ", ".join(quote(key, 30) for key in sorted(keys)[:4])
        raise FileRefused(
            f"holds {len(keys)} tensors ({some}{', …' if len(keys) > 4 else ''}), where one token is wanted",
            _ELSEWHERE,
        )
    key = keys[0]
    return Layout(own or (name_of(stem) if key in _SINGLE else key), (key,))


def vectors_of(tensors: Mapping[str, torch.Tensor], layout: Layout) -> tuple[torch.Tensor, ...]:
    """The vectors, one tensor per text encoder, [D] made [1, D]; floating-point numbers as float32.

    Other kinds of numbers are left as they are, for `check` to refuse.
    """
    found = []
    for key in layout.keys:
        vectors = tensors[key].detach()
        if vectors.ndim == 1 and vectors.numel():
            vectors = vectors[None]
        wide = vectors.dtype in (torch.float16, torch.bfloat16, torch.float64)
        found.append((vectors.float() if wide else vectors).contiguous())
    return tuple(found)


def flatten(found: Any) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """(tensors, metadata) of what a pickle or an A1111 picture holds.

    Takes A1111's and the original paper's dictionary, a dictionary of tensors, and ComfyUI's list of
    dictionaries. Raises `FileRefused` (the caller names the file) for anything else.
    """
    if isinstance(found, list) and found and all(isinstance(part, Mapping) for part in found):
        return _joined([t for part in found for t in _tensors(part).values()]), {}
    if not isinstance(found, Mapping):
        kind = type(found).__name__
        raise FileRefused(f"holds a {quote(kind)}, where a token is wanted", _ELSEWHERE)
    if "string_to_param" in found:
        return _parameters(found)
    return _tensors(found), {}


def _parameters(found: Mapping[Any, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """A1111's dictionary, or that of the original paper, which has no name."""
    tensors = _tensors(found["string_to_param"])
    if len(tensors) != 1:
        some = ", ".join(quote(key, 30) for key in list(tensors)[:4])
        raise FileRefused(f"holds {len(tensors)} tokens ({some}), where one is wanted", _ELSEWHERE)
    own = found.get("diffusekit")
    facts = {str(k): str(v) for k, v in own.items()} if isinstance(own, Mapping) else {}
    if isinstance(step := found.get("step"), int) and not isinstance(step, bool):
        facts.setdefault("steps", str(step))
    if isinstance(base := found.get("sd_checkpoint_name"), str) and base:
        facts.setdefault("base_model", base)
    ((key, vectors),) = tensors.items()
    name = found.get("name")
    token = name if key == "*" else key  # A1111's placeholder for "my name"
    if isinstance(token, str) and token.strip():  # else the file's name is all there is
        facts.setdefault("token", token if not token_error(token) else safe_name(token))
    return {"emb_params": vectors}, facts


def _tensors(found: Any) -> dict[str, torch.Tensor]:
    """A mapping's tensors by name, if it holds nothing else and they are as small as tokens are."""
    if isinstance(found, torch.nn.ParameterDict):  # one from before torch 1.12 has no working items()
        found = found.__dict__.get("_parameters")
    items = found.items() if isinstance(found, Mapping) else ()
    tensors: dict[str, torch.Tensor] = {}
    for name, value in items:
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            kind = type(value).__name__
            raise FileRefused(f"holds a {quote(kind)} at {quote(str(name))}, where a tensor is wanted", _ELSEWHERE)
        if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
            raise FileRefused(f"holds a tensor of a strange kind at {quote(name)}", _ELSEWHERE)
        if value.numel() * value.element_size() > 2**24:
            raise FileRefused(
                f"holds a tensor of shape {list(value.shape)}, where at most {MAX_VECTORS} vectors are wanted",
                _ELSEWHERE,
            )
        tensors[name] = value.detach().contiguous()
    return tensors


def _joined(parts: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    """The rows of several tensors of one width, one after the other."""
    rows = [part[None] if part.ndim == 1 else part for part in parts]
    if not rows or any(r.ndim != 2 or r.shape[1] != rows[0].shape[1] for r in rows):
        shapes = ", ".join(str(list(part.shape)) for part in parts[:4])
        raise FileRefused(
            f"holds a list of tensors of shapes {shapes or 'none'}, where one width is wanted",
            _ELSEWHERE,
        )
    return {"emb_params": torch.cat(rows)}
