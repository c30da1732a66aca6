"""Describe a model that is one file, or a file that was taken for one."""

from __future__ import annotations

from math import prod
from pathlib import Path

from ..errors import ModelError
from .description import Description, PartDescription
from .folder import native_size
from .kinds import refuse
from .one_file import ModelFile, read_file
from .original_layout import TEXT_PREFIXES, UNET, VAE_PREFIXES

# How the refusal of a file begins, and the kind of the file.
_KINDS = (("a LoRA", "lora"), ("a learned token", "embedding"), ("a VAE", "vae"), ("a one-file checkpoint", "model"))


def describe_file(name: str, path: Path) -> Description:
    """Say what a file is, from its header and its first bytes. Raises nothing: a damaged file has a `problem`."""
    error, size = refuse(str(path), path), 0
    try:
        size = path.stat().st_size
        if error is None:
            return _describe(name, read_file(name, path), size)
    except ModelError as refused:
        return Description(name, path, "file", "model", size_on_disk=size, problem=refused.message, hint=refused.hint)
    except (OSError, ValueError):
        pass
    message, hint = (error.message, error.hint) if error else (f"{path} does not exist", "")
    said = message.removeprefix(f"{path} is ")
    kind = next((kind for words, kind in _KINDS if said.startswith(words)), "")
    return Description(name, path, "file", kind, size_on_disk=size, problem=message, hint=hint)


def _describe(name: str, file: ModelFile, size: int) -> Description:
    notes = [file.assumption] if file.assumption else []
    notes += ["it also has averaged weights of training, which are not used"] if file.has_ema else []
    return Description(
        name,
        file.path,
        layout="file",
        kind="model",
        family=file.family,
        label=file.family.label,
        task=file.task,
        prediction_type=file.configs["scheduler"]["prediction_type"],
        defaults=file.defaults,
        native_size=native_size(file.configs["unet"], file.configs["vae"]),
        size_on_disk=size,
        parts=tuple(_describe_part(file, part) for part in file.family.networks),
        missing=() if file.has_vae else ("vae",),
        notes=tuple(notes),
        problem="" if file.has_vae else f"{file.path} has no VAE",
        hint="" if file.has_vae else "give one with `vae`",
    )


def _describe_part(file: ModelFile, part: str) -> PartDescription:
    starts = {"unet": (UNET,), "vae": VAE_PREFIXES} | {k: (v,) for k, v in TEXT_PREFIXES[file.family.name].items()}
    parameters: dict[str, int] = {}
    for name, (dtype, shape) in file.header.tensors.items():
        if name.startswith(starts[part]) and not name.endswith("position_ids"):
            parameters[dtype] = parameters.get(dtype, 0) + prod(shape)
    return PartDescription(part, (file.path.name,), parameters)
