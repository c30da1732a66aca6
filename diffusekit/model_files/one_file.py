"""A one-file checkpoint in the original layout, described from its header."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ModelError
from .checks import check_configs
from .distillation import SamplingDefaults, find_defaults
from .families import SD2, Family, Task
from .folder import ModelFolder, read_folder
from .headers import TensorHeader, read_header
from .original_layout import EMA, UNET, derive_configs, find_family, is_checkpoint, read_template, vae_part
from .prediction import PredictionType, find_prediction

_HALF = ("F16", "BF16")


@dataclass(frozen=True, eq=False)
class ModelFile:
    """What the header of a one-file checkpoint says about its model. `read_file` makes it.

    `configs` are those that the parts would have in diffusers layout; `tokenizers` says how prompts are padded.
    `assumption` says what the file does not say and was assumed, "" if nothing was.
    """

    name: str
    path: Path
    family: Family
    task: Task
    configs: Mapping[str, Mapping[str, Any]]
    tokenizers: Mapping[str, Mapping[str, Any]]
    index: Mapping[str, Any]
    header: TensorHeader
    assumption: str = ""

    @property
    def has_safety_checker(self) -> bool:
        return False

    @property
    def zeroes_empty_prompt(self) -> bool:
        """Whether an empty negative prompt is zeros, as for SDXL in diffusers."""
        return self.family.takes_size

    @property
    def defaults(self) -> SamplingDefaults:
        """The steps, the sampler and the guidance that suit the model."""
        names = {"the title in its file": self.header.metadata.get("modelspec.title")}
        return find_defaults(self.name, self.family.name, self.configs["unet"], self.configs["scheduler"], names=names)

    @property
    def has_vae(self) -> bool:
        return bool(vae_part({name: shape for name, (_, shape) in self.header.tensors.items()}))

    @property
    def has_ema(self) -> bool:
        """Whether the averaged weights of training are there beside those that programs use."""
        return sum(name.startswith(EMA) for name in self.header.tensors) > 100

    def files(self, *, half: bool) -> list[Path]:
        """List every file that decides about an image."""
        return [self.path]

    @property
    def precision(self) -> str:
        """The precision of the U-Net's weights: "full", "half" or "8-bit"."""
        found = {dtype for name, (dtype, _) in self.header.tensors.items() if name.startswith(UNET)}
        if any(dtype.startswith("F8") for dtype in found):
            return "8-bit"
        return "half" if found & set(_HALF) else "full"


def read_file(name: str, path: Path, *, prediction_type: PredictionType | None = None) -> ModelFile:
    """Describe the one-file checkpoint `name`, and check that its parts fit together.

    `prediction_type` says what the file may not say. Raises `ModelError` for a file that is damaged or not whole, and
    for a family that is not supported.
    """
    header = read_header(path)
    shapes = {_plain(key): shape for key, (_, shape) in header.tensors.items()}
    if not is_checkpoint(shapes):
        raise ModelError(f"{path} is not a one-file checkpoint", "give a checkpoint, or a folder in diffusers layout")
    family = find_family(name, shapes)
    configs = derive_configs(name, family, shapes)
    family, task = check_configs(name, family, configs)
    found = find_prediction(path, family, task, header.tensors, header.metadata)
    prediction = prediction_type or found.type
    configs["scheduler"] |= {"prediction_type": prediction}
    if found.has_zero_terminal_snr:
        configs["scheduler"] |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    if size := _native_latents(header, family, prediction, task):
        configs["unet"]["sample_size"] = size
    template = read_template(family)
    return ModelFile(
        name=name,
        path=path,
        family=family,
        task=task,
        configs=configs,
        tokenizers={part: template[part] for part in family.tokenizers},
        index=template["model_index"] | ({"_class_name": _inpainting(template)} if task == "inpainting" else {}),
        header=header,
        assumption="" if prediction_type else found.assumption,
    )


def read_model(
    name: str, path: Path, *, weights: bool = True, prediction_type: PredictionType | None = None
) -> ModelFolder | ModelFile:
    """Describe a model in a folder or in one file; see `read_folder` and `read_file`."""
    if path.is_file():
        return read_file(name, path, prediction_type=prediction_type)
    return read_folder(name, path, weights=weights)


def _plain(key: str) -> str:
    """Return a key without the spelling of old converters."""
    old = "cond_stage_model.transformer.embeddings.", "cond_stage_model.transformer.encoder."
    return key.replace("transformer.", "transformer.text_model.", 1) if key.startswith(old) else key


def _inpainting(template: Mapping[str, Any]) -> str:
    return str(template["model_index"]["_class_name"]).replace("Pipeline", "InpaintPipeline")


def _native_latents(header: TensorHeader, family: Family, prediction: PredictionType, task: Task) -> int | None:
    """Return the side of the latents of training, from the metadata. Without it, 2.x has 768 pixels with velocity."""
    width, _, height = str(header.metadata.get("modelspec.resolution", "")).lower().partition("x")
    if width == height and width.isdecimal() and width.isascii() and len(width) < 5 and 64 <= int(width) <= 2048:
        return int(width) // 8
    if family is not SD2:
        return None
    return 96 if prediction == "v_prediction" and task == "text" else 64
