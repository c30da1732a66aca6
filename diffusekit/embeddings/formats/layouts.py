"""The layouts of token files: which keys hold a token, for diffusers, A1111, kohya and others.

Here a file is tensors by name. The layouts are listed in `embeddings/README.md`.
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
from ..token import MAX_BYTES, MAX_VECTORS
from .other_kinds import TOKEN_HINT, hint_for, name_kind

_PAIRS = (("clip_l", "clip_g"), ("text_encoders_0", "text_encoders_1"))
_SINGLE = ("emb_params", "emp_params")  # kohya and Civitai; OneTrainer (not a typing error)
_OUTPUTS = {"emb_params_out", "emp_params_out", "clip_l_out", "clip_g_out"}
_XTI = re.compile(r"(IN|MID|OUT)\d\d")
_HINT = TOKEN_HINT
_HYPERNETWORK_WIDTHS = (320, 640, 768, 1024, 1280)  # A1111's keys, each with two networks


@dataclass(frozen=True)
class Layout:
    """The token of a file, and the keys of its vectors, one for each text encoder."""

    token: str
    keys: tuple[str, ...]


def identify(names: Collection[str], metadata: Mapping[str, str], stem: str) -> Layout:
    """Find the token among the keys of a file. A token without a name gets the file's `stem`.

    Raises `FileRefused` for anything but one token. Here and below, the caller adds the file's name.
    """
    own = metadata.get("token", "")
    keys = [name for name in names if name not in _OUTPUTS]
    for pair in _PAIRS:
        if set(keys) == set(pair):
            return Layout(own or name_of(stem), pair)
        if len(keys) == 1 and keys[0] in pair:
            other = pair[1 - pair.index(keys[0])]
            raise FileRefused(f"has {keys[0]} but not {other}, which is half of a token", _HINT)
    if not keys:
        raise FileRefused("has no token", _HINT)
    if any(_XTI.fullmatch(key) for key in keys):
        raise FileRefused(
            "has an extended inversion (XTI, one token for each layer of the U-Net), expected one token for all layers",
            _HINT,
        )
    if kind := name_kind(keys):
        raise FileRefused(f"is {kind}, expected a token of textual inversion", hint_for(kind))
    if len(keys) > 1:
        some = ", ".join(quote(key, 30) for key in sorted(keys)[:4])
        raise FileRefused(
            f"has {len(keys)} tensors ({some}{', …' if len(keys) > 4 else ''}), expected one token",
            _HINT,
        )
    key = keys[0]
    return Layout(own or (name_of(stem) if key in _SINGLE else key), (key,))


def vectors_of(tensors: Mapping[str, torch.Tensor], layout: Layout) -> tuple[torch.Tensor, ...]:
    """Return the vectors (k, D), one tensor for each text encoder, with floating-point numbers as float32.

    Other dtypes stay as they are, and `check` refuses them later.
    """
    result = []
    for key in layout.keys:
        vectors = tensors[key].detach()
        if vectors.ndim == 1 and vectors.numel():
            vectors = vectors[None]
        is_float = vectors.dtype in (torch.float16, torch.bfloat16, torch.float64)
        result.append((vectors.float() if is_float else vectors).contiguous())
    return tuple(result)


def flatten(content: Any) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Convert the content of a pickle or an A1111 image to (tensors, metadata).

    It can be A1111's or the original paper's dictionary, a dictionary of tensors, or ComfyUI's list of
    dictionaries. Raises `FileRefused` for anything else.
    """
    if isinstance(content, list) and content and all(isinstance(part, Mapping) for part in content):
        return _concatenate([t for part in content for t in _tensors(part).values()]), {}
    if not isinstance(content, Mapping):
        raise FileRefused(f"has a {quote(type(content).__name__)}, expected a token", _HINT)
    if "string_to_param" in content:
        return _from_a1111(content)
    inside = content.get("state_dict", content)
    kind = name_kind(map(str, inside)) if isinstance(inside, Mapping) else ""
    if kind or any(isinstance(content.get(width), (tuple, list)) for width in _HYPERNETWORK_WIDTHS):
        raise FileRefused(f"is {kind or 'a hypernetwork'}, expected a token of textual inversion", _HINT)
    return _tensors(content), {}


def _from_a1111(content: Mapping[Any, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Read A1111's dictionary, or that of the original paper, which has no name."""
    tensors = _tensors(content["string_to_param"])
    if len(tensors) != 1:
        some = ", ".join(quote(key, 30) for key in list(tensors)[:4])
        raise FileRefused(f"has {len(tensors)} tokens ({some}), expected one", _HINT)
    own = content.get("diffusekit")
    metadata = {str(k): str(v) for k, v in own.items()} if isinstance(own, Mapping) else {}
    if isinstance(step := content.get("step"), int) and not isinstance(step, bool):
        metadata.setdefault("steps", str(step))
    if isinstance(base := content.get("sd_checkpoint_name"), str) and base:
        metadata.setdefault("base_model", base)
    ((key, vectors),) = tensors.items()
    name = content.get("name")
    token = name if key == "*" else key  # A1111 writes "*" for the token's own name
    if isinstance(token, str) and token.strip():  # otherwise only the file has a name
        metadata.setdefault("token", token if not token_error(token) else safe_name(token))
    return {"emb_params": vectors}, metadata


def _tensors(content: Any) -> dict[str, torch.Tensor]:
    """Return the tensors of a mapping by name; raises `FileRefused` for other values and for large tensors."""
    if isinstance(content, torch.nn.ParameterDict):  # items() fails on one saved before torch 1.12
        content = content.__dict__.get("_parameters")
    items = content.items() if isinstance(content, Mapping) else ()
    tensors: dict[str, torch.Tensor] = {}
    for name, value in items:
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            kind = quote(type(value).__name__)
            raise FileRefused(f"has a {kind} at {quote(str(name))}, expected a tensor", _HINT)
        if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
            raise FileRefused(f"has a sparse, quantized or meta tensor at {quote(name)}", _HINT)
        if value.numel() * value.element_size() > MAX_BYTES:
            raise FileRefused(
                f"has a tensor of shape {list(value.shape)}, expected at most {MAX_VECTORS} vectors",
                _HINT,
            )
        tensors[name] = value.detach().contiguous()
    return tensors


def _concatenate(parts: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    """Concatenate the rows of several tensors of one width."""
    rows = [part[None] if part.ndim == 1 else part for part in parts]
    if not rows or any(r.ndim != 2 or r.shape[1] != rows[0].shape[1] for r in rows):
        shapes = ", ".join(str(list(part.shape)) for part in parts[:4])
        raise FileRefused(
            f"has a list of tensors of shapes {shapes or 'none'}, expected one width",
            _HINT,
        )
    return {"emb_params": torch.cat(rows)}
