"""What the files of a model say about it: family, task, parts, precision, size in memory, and what is missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..display import format_size
from ..errors import ModelError
from .distillation import SamplingDefaults
from .families import Family, Task

# The precisions of safetensors by the names that torch and the setting `dtype` use.
DTYPE_NAMES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
DTYPE_NAMES |= {"F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "I8": "int8", "U8": "uint8"}
PURPOSES = {"text": "", "inpainting": " for inpainting"}


@dataclass(frozen=True)
class PartDescription:
    """One network of a model: unet, vae, text_encoder, text_encoder_2 or safety_checker.

    `files` are relative to the model's folder; of a one-file checkpoint they are the file itself. `parameters` counts
    the numbers of the network by precision as safetensors spells it: {"F16": 859_520_964}.
    """

    name: str
    files: tuple[str, ...]
    parameters: Mapping[str, int]

    @property
    def count(self) -> int:
        """How many parameters the network has."""
        return sum(self.parameters.values())

    @property
    def precision(self) -> str:
        """The precisions in which nearly all parameters are stored: "float16", or "float16 and float32"."""
        return name_precisions(self.parameters)


@dataclass(frozen=True)
class Description:
    """What is known of a model, or of a file that was taken for one, before any weights are read.

    `name` is what the user calls it, `path` a folder in diffusers layout or one file. `kind` is "model", "lora", "vae",
    "embedding", or "" for anything else. `label` is the family in words for people, also of one that cannot be loaded.
    `prediction_type` is "" when the files do not say it. `defaults` are steps, sampler and guidance that suit the
    model, and say what a model of few steps is.

    `missing` names what the model lacks. `problem` is the sentence why it cannot be loaded, and `hint` what to do; both
    are "" for a model that can be loaded. What is unknown is empty, so a damaged model is described as far as it goes.
    """

    name: str
    path: Path
    layout: str = ""  # "folder" or "file"
    kind: str = ""
    family: Family | None = None
    label: str = ""
    task: Task | None = None
    prediction_type: str = ""
    defaults: SamplingDefaults | None = None
    native_size: int | None = None
    size_on_disk: int = 0
    parts: tuple[PartDescription, ...] = ()
    missing: tuple[str, ...] = ()
    has_safety_checker: bool = False
    notes: tuple[str, ...] = ()  # sentences about what a user should know
    problem: str = ""
    hint: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)  # of other kinds: the rank of a LoRA, for example

    def check(self) -> None:
        """Raise `ModelError` with the problem and the hint if the model cannot be loaded."""
        if self.problem:
            raise ModelError(self.problem, self.hint)

    @property
    def precision(self) -> str:
        """The precisions of the U-Net, or of all parts when there is none."""
        unet = [part for part in self.parts if part.name == "unet"]
        total: dict[str, int] = {}
        for part in unet or self.parts:
            for dtype, count in part.parameters.items():
                total[dtype] = total.get(dtype, 0) + count
        return name_precisions(total)

    def memory(self, *, half: bool) -> int:
        """Bytes of all networks once they are loaded in half or in full precision, without the safety checker."""
        return sum(part.count for part in self.parts if part.name != "safety_checker") * (2 if half else 4)

    def summary(self) -> str:
        """Say what the model is in a few words, for lists and messages."""
        if not self.label:
            return "unknown"
        words = [f"{self.label}{PURPOSES.get(self.task or 'text', '')}"]
        words += [self.defaults.kind] if self.defaults and self.defaults.kind else []
        words += [self.prediction_type] if self.prediction_type not in ("", "epsilon") else []
        words += [self.precision] if self.precision else []
        words += [f"{format_size(self.memory(half=True))} in half precision"] if self.parts else []
        return ", ".join(words)


def name_precisions(parameters: Mapping[str, int]) -> str:
    """Name the precisions of at least a hundredth of the parameters, the most frequent first."""
    total = sum(parameters.values())
    common = sorted((d for d, n in parameters.items() if n * 100 >= total and n), key=lambda d: -parameters[d])
    return " and ".join(DTYPE_NAMES.get(dtype, dtype) for dtype in common)
