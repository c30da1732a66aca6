"""Read a LoRA file: header, tensors and hash. Only safetensors are opened."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from ..display import quote
from ..errors import FileRefused, ModelError
from ..model_files import read_header
from . import layouts
from .hashes import hash_lora
from .layouts import LayerKey

ENDING = ".safetensors"
_FETCH_AGAIN = "fetch this LoRA again"
_MAX_FILES = 6  # LoRA files that stay in memory


@dataclass(frozen=True)
class LoraHeader:
    """What the header of a LoRA file says: the shapes of its matrices by layer and role, and its metadata."""

    path: Path
    shapes: Mapping[LayerKey, Mapping[str, tuple[int, ...]]] = field(repr=False)
    names: Mapping[LayerKey, Mapping[str, str]] = field(repr=False)  # of tensors, by layer and role
    metadata: Mapping[str, str] = field(repr=False)
    ignored: tuple[str, ...] = ()  # tensors that are no part of a LoRA

    @property
    def alias(self) -> str:
        """The name that kohya's scripts gave it, or ""."""
        alias = self.metadata.get("ss_output_name", "")
        return alias if isinstance(alias, str) and alias != "None" else ""

    @property
    def context_width(self) -> int | None:
        """The width of the text states that its U-Net part was trained with, if a layer tells."""
        found = (key for key in self.shapes if key.layer.endswith(("attn2_to_k", "attn2_to_v")))
        return next((self.shapes[key]["down"][1] for key in found), None)

    @property
    def is_xl(self) -> bool:
        """Whether it has layers that only Stable Diffusion XL has."""
        return any(key.part == layouts.TEXT_ENCODER_2 or "transformer_blocks_1_" in key.layer for key in self.shapes)


@dataclass(frozen=True, eq=False)
class LoraLayer:
    """One layer: `down` (r, in, kernel…) and `up` (out, r, 1…); the change of the weight is scale · up · down."""

    down: torch.Tensor
    up: torch.Tensor
    scale: float


@dataclass(frozen=True, eq=False)
class LoraWeights:
    """A LoRA file in memory. `sha256` is that of its tensors without the header, as A1111 and kohya compute it."""

    header: LoraHeader
    layers: Mapping[LayerKey, LoraLayer] = field(repr=False)
    sha256: str = ""


def read_lora_header(path: Path) -> LoraHeader:
    """Read the header of a LoRA file; raises `FileRefused` for a damaged file and for what is not a LoRA."""
    try:
        header = read_header(path)
    except ModelError as error:
        raise FileRefused(error.message, _FETCH_AGAIN) from None
    shapes: dict[LayerKey, dict[str, tuple[int, ...]]] = {}
    names: dict[LayerKey, dict[str, str]] = {}
    if family := layouts.name_other_family(header.tensors):
        raise FileRefused(f"{path} is a LoRA for {family}", "use a LoRA for Stable Diffusion 1.x, 2.x or XL")
    try:
        for name, key, role in layouts.split_names(header.tensors):
            if role in names.setdefault(key, {}):
                raise FileRefused(f"has two matrices for {key.layer!r}", _FETCH_AGAIN)
            names[key][role] = name
            shapes.setdefault(key, {})[role] = header.tensors[name][1]
        for key, roles in shapes.items():
            _check_layer(key, roles)
    except FileRefused as error:
        raise FileRefused(f"{path} {error.message}", error.hint) from None
    if not shapes:
        raise FileRefused(f"{path} has no tensors of a LoRA", layouts.SUPPORTED)
    ignored = tuple(name for name in header.tensors if name.startswith("bundle_emb."))
    return LoraHeader(path, shapes, names, header.metadata, ignored)


def _check_layer(key: LayerKey, roles: Mapping[str, tuple[int, ...]]) -> None:
    """Raise `FileRefused` unless the matrices of a layer belong together."""
    if missing := {"down", "up"} - set(roles):
        raise FileRefused(f"lacks the matrix {missing.pop()!r} of {quote(key.layer, 100)}", _FETCH_AGAIN)
    down, up, mid = roles["down"], roles["up"], roles.get("mid")
    fits = len(down) in (2, 4) and len(up) in (2, 4) and all((*down, *up)) and up[2:] in ((), (1, 1))
    if mid is not None:  # LyCORIS' Tucker form: 1 × 1, then the kernel, then 1 × 1
        fits = fits and len(mid) == 4 and down[2:] in ((), (1, 1)) and mid[1] == down[0] and mid[0] == up[1]
    elif fits:
        fits = up[1] == down[0]
    if not fits or roles.get("alpha", ()) not in ((), (1,)):
        shapes = ", ".join(f"{role} {list(shape)}" for role, shape in roles.items())
        raise FileRefused(f"has matrices that do not fit each other in {quote(key.layer, 100)}: {shapes}", _FETCH_AGAIN)


def load_lora(path: Path) -> LoraWeights:
    """Read a LoRA file whole. The last ones stay in memory for as long as the file is not changed.

    Raises `FileRefused` for a damaged file, numbers that are not finite, and what is not a LoRA.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise FileRefused(f"cannot open {path}: {error.strerror or error}", "give the path of a file") from None
    return _load(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=_MAX_FILES)
def _load(path: Path, _size: int, _time: int) -> LoraWeights:
    from safetensors import SafetensorError, safe_open

    header = read_lora_header(path)
    read_alpha = _alphas(header)
    layers = {}
    try:
        with safe_open(path, "pt") as file:
            for key, names in header.names.items():
                tensors = {role: file.get_tensor(name) for role, name in names.items()}
                if not all(tensor.float().isfinite().all() for tensor in tensors.values()):
                    raise FileRefused(f"{path} has NaN or infinity in {key.layer!r}", _FETCH_AGAIN)
                layers[key] = _layer(tensors, read_alpha(key, names["down"]))
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise FileRefused(f"{path} cannot be read: {error}", _FETCH_AGAIN) from None
    return LoraWeights(header, layers, hash_lora(path))


def _layer(tensors: Mapping[str, torch.Tensor], default_scale: float) -> LoraLayer:
    down, up = tensors["down"], tensors["up"]
    rank = down.shape[0]
    scale = float(tensors["alpha"]) / rank if "alpha" in tensors else default_scale
    if "mid" in tensors:
        down = torch.einsum("omhw,mi->oihw", tensors["mid"].float(), down.flatten(1).float())
    return LoraLayer(down, up, scale)


def _alphas(header: LoraHeader) -> Any:
    """Return how the scale of a layer without an own alpha is found: in PEFT's configuration, or 1."""
    configs = _peft_configs(header)

    def scale_of(key: LayerKey, name: str) -> float:
        rank = header.shapes[key]["down"][0]
        config = configs.get(key.part) or configs.get("")
        if not config:
            return 1.0
        alpha = _number(config.get("lora_alpha"), rank)
        patterns = config.get("alpha_pattern")
        for pattern, value in patterns.items() if isinstance(patterns, dict) else ():
            layer = name.partition(".lora_")[0]
            if layer == pattern or layer.endswith(f".{pattern}"):
                alpha = _number(value, rank)
        return alpha / (rank**0.5 if config.get("use_rslora") else rank)

    return scale_of


def _number(value: Any, default: float) -> float:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e6
    return float(value) if is_number else float(default)


def _peft_configs(header: LoraHeader) -> dict[str, Mapping[str, Any]]:
    """Return PEFT's configurations by network, "" for the only one.

    diffusers keeps them in the metadata of the file, and PEFT in adapter_config.json beside it.
    """
    found: dict[str, dict[str, Any]] = {}
    try:
        for key, value in json.loads(header.metadata.get("lora_adapter_metadata", "{}")).items():
            part, _, setting = key.partition(".")
            found.setdefault(part, {})[setting] = value
        beside = header.path.with_name("adapter_config.json")
        if not found and header.path.name == "adapter_model.safetensors" and beside.is_file():
            found[""] = json.loads(beside.read_text(encoding="utf-8"))
    except (ValueError, AttributeError, OSError, RecursionError):
        raise FileRefused(f"the configuration of {header.path} is not valid JSON", _FETCH_AGAIN) from None
    return {part: config for part, config in found.items() if isinstance(config, dict)}
