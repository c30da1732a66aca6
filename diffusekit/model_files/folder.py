"""A model in diffusers layout, described from its JSON files and the headers of its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ModelError
from .checks import check_configs, check_tokenizer
from .distillation import SamplingDefaults, find_defaults
from .families import PIPELINES, SUPPORTED, Family, Task
from .headers import read_header, read_json, unreadable
from .links import check_links
from .remote_code import check_index, read_config
from .safety_files import names_checker
from .weights import WeightFiles, find_weights, stem_of

# Pipelines that cannot be loaded, in words.
_CLASSES = {
    "StableDiffusionXLImg2ImgPipeline": "Stable Diffusion XL (its refiner)",
    "StableDiffusion3Pipeline": "Stable Diffusion 3",
    "StableDiffusionInstructPix2PixPipeline": "InstructPix2Pix",
    "StableDiffusionUpscalePipeline": "Stable Diffusion upscaler",
    "StableDiffusionLatentUpscalePipeline": "Stable Diffusion upscaler",
    "StableDiffusionDepth2ImgPipeline": "Stable Diffusion with depth maps",
    "FluxPipeline": "FLUX",
    "PixArtAlphaPipeline": "PixArt",
}
# What diffusers takes for a value that a config.json leaves out.
_DEFAULTS = {"unet": {"block_out_channels": [320, 640, 1280, 1280]}, "vae": {"block_out_channels": [64]}}


@dataclass(frozen=True, eq=False)
class ModelFolder:
    """What a folder in diffusers layout says about its model. `read_folder` makes it.

    `configs` are those of the networks and of the scheduler, by folder. `index` is model_index.json.
    """

    name: str
    path: Path
    family: Family
    task: Task
    configs: Mapping[str, Mapping[str, Any]]
    index: Mapping[str, Any]

    @property
    def defaults(self) -> SamplingDefaults:
        """Steps, sampler, guidance and spacing that suit the model."""
        names = {"the origin of the model": self.index.get("_name_or_path")}
        return find_defaults(self.name, self.family.name, self.configs["unet"], self.configs["scheduler"], names=names)

    @property
    def has_safety_checker(self) -> bool:
        return names_checker(self.index)

    @property
    def zeroes_empty_prompt(self) -> bool:
        """Whether an empty negative prompt is zeros. Pipelines of diffusers for SDXL do so unless told otherwise."""
        return self.family.takes_size and self.index.get("force_zeros_for_empty_prompt", True) is not False

    def weights(self, part: str, *, half: bool) -> WeightFiles:
        """Choose the weight files of a network; raises `ModelError` when no precision is whole."""
        return find_weights(self.path / part, stem_of(part), half=half)

    def files(self, *, half: bool) -> list[Path]:
        """List every file that decides about an image: weights, configurations, tokenizer. In a fixed order."""
        found = [self.path / "model_index.json"]
        for part in self.family.parts:
            found += sorted(p for p in (self.path / part).iterdir() if p.suffix in (".json", ".txt") and p.is_file())
        weights = {part: self.weights(part, half=half).names for part in self.family.networks}
        return [p for p in found if ".index." not in p.name] + [
            self.path / part / name for part, names in weights.items() for name in names
        ]

    @property
    def precision(self) -> str:
        """The precisions of the U-Net's weights by their names: "full", "half" or "full and half"."""
        variants = {self.weights("unet", half=half).is_half for half in (False, True)}
        return " and ".join(word for word, is_half in (("full", False), ("half", True)) if is_half in variants)


def read_folder(name: str, path: Path, *, weights: bool = True) -> ModelFolder:
    """Describe the model `name` in a folder, and check that its parts fit together.

    Without `weights`, only the JSON files are read. Raises `ModelError` for a folder that is not whole, for a family
    that is not supported, and for a model that brings code or links to files elsewhere.
    """
    family = describe_class(name, path / "model_index.json")
    try:
        missing = [part for part in family.parts if not (path / part).is_dir()]
    except OSError as error:
        raise unreadable(path, error) from None
    if missing:
        raise ModelError(f"the model {name} has no {' and no '.join(missing)}", "fetch the whole model again")
    check_links(name, path, family.parts)
    index = read_json(path / "model_index.json")
    check_index(name, path, index)
    files = dict.fromkeys(family.networks, "config.json") | {"scheduler": "scheduler_config.json"}
    configs = {part: _DEFAULTS.get(part, {}) | read_config(path / part / file) for part, file in files.items()}
    for encoder in family.encoders:
        if isinstance(inner := configs[encoder.folder].get("text_config"), dict):
            configs[encoder.folder] = {**inner, **configs[encoder.folder]}
    family, task = check_configs(name, family, configs)
    for tokenizer in family.tokenizers:
        check_tokenizer(path / tokenizer)
    folder = ModelFolder(name, path, family, task, configs, index)
    if weights:
        for part in family.networks:
            for file in folder.weights(part, half=False).names:
                read_header(path / part / file)
    return folder


def describe_class(name: str, path: Path) -> Family:
    """Return the family that the pipeline of a model_index.json belongs to, 1.x for 1.x and 2.x.

    Raises `ModelError` for a pipeline that is not supported.
    """
    pipeline = read_json(path).get("_class_name")
    if isinstance(pipeline, str) and pipeline in PIPELINES:
        return PIPELINES[pipeline]
    if pipeline is None:
        raise ModelError(f"{path} names no pipeline class, so the model {name} is not supported", SUPPORTED)
    own = isinstance(pipeline, str) and _CLASSES.get(pipeline)
    what = f"{own} model ({pipeline})" if own else f"model of the class {str(pipeline)[:80]!r}"
    raise ModelError(f"{name} is a {what.replace('model model', 'model')}, which is not supported", SUPPORTED)


def native_size(unet: Mapping[str, Any], vae: Mapping[str, Any]) -> int:
    """Width and height in pixels of the images that a model was trained on."""
    size = unet.get("sample_size") or 64  # Stable Diffusion 1.x
    return (size if isinstance(size, int) else int(size[0])) * vae_scale_factor(vae)


def vae_scale_factor(vae: Mapping[str, Any]) -> int:
    """How many pixels one latent is wide."""
    return 2 ** (len(vae["block_out_channels"]) - 1)
