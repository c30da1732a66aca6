"""Refuse configurations that ask for code of their own: only classes that are named here are ever made."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..display import quote
from ..errors import ModelError
from .headers import read_json

_KEYS = ("auto_map", "custom_pipelines", "custom_pipeline", "trust_remote_code")
_ATTENTION = ("_attn_implementation", "_attn_implementation_internal", "attn_implementation")
_KNOWN_ATTENTION = ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention")
_CLASSES: Mapping[str, tuple[str, ...]] = {
    "unet": ("UNet2DConditionModel",),
    "vae": ("AutoencoderKL",),
    "text_encoder": ("CLIPTextModel", "CLIPTextModelWithProjection"),
    "text_encoder_2": ("CLIPTextModel", "CLIPTextModelWithProjection"),
    "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"),
    "tokenizer_2": ("CLIPTokenizer", "CLIPTokenizerFast"),
}
_LIBRARIES = ("diffusers", "transformers")
_DO_NOT_USE = "models that bring code are not loaded; use another copy of it"


def read_config(path: Path) -> dict[str, Any]:
    """Read a JSON configuration; raises `ModelError` when it asks for code that a model brings."""
    content = read_json(path)
    for level in (content, *(value for value in content.values() if isinstance(value, dict))):
        for key in _KEYS:
            if level.get(key):
                raise ModelError(f"{path} asks for code of its own (`{key}`)", _DO_NOT_USE)
        for key in _ATTENTION:
            if (kind := level.get(key)) is not None and kind not in _KNOWN_ATTENTION:
                raise ModelError(f"{path} asks for attention from elsewhere: {quote(str(kind))}", _DO_NOT_USE)
    return content


def check_index(name: str, folder: Path, index: Mapping[str, Any]) -> None:
    """Check the classes that a model_index.json names against those that are made here.

    Raises `ModelError` for another class of a part that is used, and for any class that lies in the folder.
    """
    for part, value in index.items():
        if not isinstance(value, list) or len(value) != 2 or not all(isinstance(each, str) for each in value):
            continue
        library, kind = value
        if any((place / f"{library}.py").exists() for place in (folder, folder / part) if _is_name(library)):
            raise ModelError(f"the {part} of {name} is code of its own ({quote(library)})", _DO_NOT_USE)
        allowed = _CLASSES.get(part)
        if allowed and (library not in _LIBRARIES or kind not in allowed):
            raise ModelError(
                f"the {part} of {name} is a {quote(kind)} of {quote(library)}, expected {' or '.join(allowed)}",
                _DO_NOT_USE if library not in _LIBRARIES else "this kind of model is not supported",
            )


def _is_name(library: str) -> bool:
    return library.replace("_", "").isalnum() and len(library) < 200
