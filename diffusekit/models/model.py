"""What a model is: its networks, its tokenizers, and the facts that follow from its configuration."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

from .. import hub, model_files
from ..device import Attention, Placement
from ..model_files import Family, ModelFile, ModelFolder, SamplingDefaults, Task
from ..model_files.folder import native_size, vae_scale_factor
from .identity import hash_model
from .memory import MemoryPlan
from .safety_checker import SafetyChecker

_TOKENIZER_LOCK = Lock()  # a call of a tokenizer may change its padding, so calls never overlap


@dataclass(frozen=True, eq=False)
class TextModel:
    """The part of a model that reads prompts: tokenizers and text encoders (one each; SDXL has two).

    `name` is mini, a hub id, or the name of a local folder without its path. `revision` is "" for a local folder.
    `zeroes_empty_prompt` says that an empty negative prompt is zeros, and not the states of no words (SDXL).
    """

    name: str
    folder: Path
    revision: str
    placement: Placement
    family: Family
    tokenizers: tuple[Any, ...]
    text_encoders: tuple[Any, ...]
    zeroes_empty_prompt: bool = field(default=False, kw_only=True)

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
    `defaults` are the steps, the sampler and the guidance that suit it.
    `task` is "inpainting" for a U-Net that also takes a mask and masked latents. `fast` says that the few-step LoRA
    is merged into the U-Net's weights. `vae_path` and `vae_name` are those of a VAE in place of the model's own;
    `prediction_is_given` says that `prediction_type` replaced what the files say. `warnings` are sentences about what
    was assumed.
    """

    unet: Any
    vae: Any
    scheduler_config: dict[str, Any] = field(repr=False)
    defaults: SamplingDefaults
    task: Task = "text"
    fast: bool = False
    vae_path: Path | None = None
    vae_name: str = ""
    prediction_is_given: bool = False
    warnings: tuple[str, ...] = ()
    attention: Attention = "sdpa"
    plan: MemoryPlan | None = None

    @property
    def vae_scale_factor(self) -> int:
        """How many pixels one latent is wide."""
        return vae_scale_factor(self.vae.config)

    @property
    def native_size(self) -> int:
        """Width and height in pixels of the images the model was trained on."""
        return native_size(self.unet.config, self.vae.config)

    @property
    def guidance_scale(self) -> float:
        """The guidance scale that suits the model."""
        return self.defaults.guidance_scale

    @property
    def prediction_type(self) -> str:
        return self.scheduler_config.get("prediction_type", "epsilon")

    @property
    def is_guidance_distilled(self) -> bool:
        """Whether the U-Net takes the guidance scale as an input, and needs no second evaluation for it."""
        return self.unet.config.time_cond_proj_dim is not None

    @cached_property
    def safety_checker(self) -> SafetyChecker | None:
        """The safety checker that the model brings; raises `ModelError` for one that cannot be used."""
        return SafetyChecker.find(self.name, self.folder, self.placement)

    @cached_property
    def sha256(self) -> str:
        """The hash of a local model's files; "" for a model that a `revision` identifies."""
        return "" if self.revision else hash_model(self.folder, half=self.placement.is_half)

    @cached_property
    def vae_sha256(self) -> str:
        """The hash of the file of a VAE in place of the model's own, "" for its own."""
        return hash_model(self.vae_path, half=False) if self.vae_path else ""


@dataclass(frozen=True)
class ModelInfo:
    """What the files of a model say about it before any weights are loaded."""

    name: str
    folder: Path
    revision: str
    family: Family
    task: Task
    native_size: int
    defaults: SamplingDefaults
    has_fast_lora: bool
    has_safety_checker: bool
    size_multiple: int  # sides of an image are multiples of it

    @property
    def guidance_scale(self) -> float:
        """The guidance scale that suits the model."""
        return self.defaults.guidance_scale

    def nearest_side(self, pixels: int) -> int:
        """Return the side nearest to `pixels` that the U-Net can halve as often as it has levels."""
        return max(round(pixels / self.size_multiple), 1) * self.size_multiple


def describe(name: str) -> ModelInfo:
    """Read the configuration of the model `name`; raises `ModelError` as `load` does."""
    place = hub.locate(name)
    files = model_files.read_model(place.name, place.folder, weights=False)
    unet, vae = files.configs["unet"], files.configs["vae"]
    return ModelInfo(
        name=place.name,
        folder=place.folder,
        revision=place.revision,
        family=files.family,
        task=files.task,
        native_size=native_size(unet, vae),
        defaults=sampling_defaults(place.folder, files),
        has_fast_lora=(place.folder / hub.FAST_LORA).is_file(),
        has_safety_checker=files.has_safety_checker,
        size_multiple=vae_scale_factor(vae) * 2 ** (len(unet["block_out_channels"]) - 1),
    )


def sampling_defaults(folder: Path, files: ModelFolder | ModelFile) -> SamplingDefaults:
    """Return the steps, the sampler and the guidance that suit the model of a folder."""
    return replace(files.defaults, guidance_scale=3.0) if folder == hub.MINI else files.defaults


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
