"""What a model is: its networks, its tokenizers, and the facts that follow from its configuration."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

from .. import hub
from ..device import Placement

_TOKENIZER_LOCK = Lock()  # a call of a tokenizer may change its padding, so calls never overlap


@dataclass(frozen=True, eq=False)
class TextModel:
    """The part of a model that reads prompts: tokenizers and text encoders (one each; SDXL has two)."""

    name: str
    folder: Path
    revision: str
    placement: Placement
    tokenizers: tuple[Any, ...]
    text_encoders: tuple[Any, ...]

    @property
    def context_length(self) -> int:
        """How many tokens a prompt has, begin, end and padding included (77 for CLIP)."""
        return min(encoder.config.max_position_embeddings for encoder in self.text_encoders)

    @property
    def vocabulary_size(self) -> int:
        """How many tokens there are."""
        return max(len(tokenizer) for tokenizer in self.tokenizers)

    @property
    def text_layers(self) -> int:
        """Layers of the text encoders together."""
        return sum(encoder.config.num_hidden_layers for encoder in self.text_encoders)

    @property
    def widths(self) -> tuple[int, ...]:
        """Width of the token table of each text encoder."""
        return tuple(int(encoder.config.hidden_size) for encoder in self.text_encoders)


@dataclass(frozen=True, eq=False)
class Model(TextModel):
    """A frozen Stable Diffusion: tokenizers, text encoders, U-Net and VAE.

    `scheduler_config` is the noise schedule of its training; `schedule.make_scheduler` builds samplers from it.
    `fast` says that the few-step LoRA is merged into the U-Net's weights.
    """

    unet: Any
    vae: Any
    scheduler_config: dict[str, Any] = field(repr=False)
    fast: bool = False

    @property
    def vae_scale_factor(self) -> int:
        """How many pixels one latent is wide."""
        return _vae_scale_factor(self.vae.config)

    @property
    def native_size(self) -> int:
        """Width and height in pixels of the images the model was trained on."""
        return _native_size(self.unet.config, self.vae.config)

    @property
    def guidance_scale(self) -> float:
        """The guidance scale that suits the model."""
        return _guidance_scale(self.folder)

    @property
    def prediction_type(self) -> str:
        return self.scheduler_config.get("prediction_type", "epsilon")


@dataclass(frozen=True)
class ModelInfo:
    """What the files of a model say about it before any weights are loaded."""

    folder: Path
    revision: str
    native_size: int
    guidance_scale: float
    has_fast_lora: bool
    size_multiple: int  # sides of an image are multiples of it

    def nearest_side(self, pixels: int) -> int:
        """Return the side nearest to `pixels` that the U-Net can halve as often as it has levels."""
        return max(round(pixels / self.size_multiple), 1) * self.size_multiple


def describe(name: str) -> ModelInfo:
    """Read the configuration of the model `name`; raises `ModelError` as `hub.locate` does."""
    folder, revision = hub.locate(name)
    unet, vae = (json.loads((folder / part / "config.json").read_text()) for part in ("unet", "vae"))
    return ModelInfo(
        folder,
        revision,
        _native_size(unet, vae),
        _guidance_scale(folder),
        (folder / hub.FAST_LORA).is_file(),
        size_multiple=_vae_scale_factor(vae) * 2 ** (len(unet["block_out_channels"]) - 1),
    )


def _native_size(unet: Mapping[str, Any], vae: Mapping[str, Any]) -> int:
    size = unet["sample_size"]
    return (size if isinstance(size, int) else size[0]) * _vae_scale_factor(vae)


def _vae_scale_factor(vae: Mapping[str, Any]) -> int:
    return 2 ** (len(vae["block_out_channels"]) - 1)


def _guidance_scale(folder: Path) -> float:
    return 3.0 if folder == hub.MINI else 7.5


def fingerprint(model: Model) -> str:
    """Hash the token tables and both ends of the U-Net, to tell models of one family apart."""
    digest = hashlib.sha256()
    tables = [encoder.get_input_embeddings().weight for encoder in model.text_encoders]
    for weight in (*tables, model.unet.conv_in.weight, model.unet.conv_out.weight):
        digest.update(weight.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def token_ids(tokenizer: Any, text: str) -> list[int]:
    """Return the token ids of plain text, without begin, end and padding. Safe to call from any thread."""
    with _TOKENIZER_LOCK:
        return tokenizer(text, add_special_tokens=False, verbose=False).input_ids
