"""Describe a model in diffusers layout: what it is, how large it is in memory, and what it lacks."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

from ..errors import ModelError
from .description import Description, PartDescription
from .folder import ModelFolder, native_size, read_folder
from .headers import read_header, read_json
from .kinds import refuse


def describe_folder(name: str, path: Path) -> Description:
    """Say what a folder is, from its JSON files and headers. Raises nothing: a damaged model has a `problem`."""
    error: ModelError | None = refuse(str(path), path)
    known: dict[str, Any] = {"layout": "folder", "size_on_disk": _size_of(path)}
    if error is None:
        try:
            return _describe(name, read_folder(name, path), known)
        except ModelError as refused:
            error = refused
        known |= {"kind": "model", "label": _label(path), "missing": _missing_parts(path)}
    message = error.message.replace(f"{path}/", "")
    return Description(name, path, problem=message, hint=error.hint, **known)


def _describe(name: str, folder: ModelFolder, known: dict[str, Any]) -> Description:
    parts = tuple(_describe_part(folder, part) for part in folder.family.networks)
    unet, vae, schedule = folder.configs["unet"], folder.configs["vae"], folder.configs["scheduler"]
    return Description(
        name,
        folder.path,
        kind="model",
        family=folder.family,
        label=folder.family.label,
        task=folder.task,
        prediction_type=schedule.get("prediction_type", "epsilon"),
        defaults=folder.defaults,
        native_size=native_size(unet, vae),
        parts=parts,
        has_safety_checker=folder.has_safety_checker,
        **known,
    )


def _describe_part(folder: ModelFolder, part: str) -> PartDescription:
    """Count the parameters of a network in the precision that full precision would load."""
    names = folder.weights(part, half=False).names
    parameters: dict[str, int] = {}
    for file in names:
        for dtype, shape in read_header(folder.path / part / file).tensors.values():
            parameters[dtype] = parameters.get(dtype, 0) + prod(shape)
    return PartDescription(part, tuple(f"{part}/{file}" for file in names), parameters)


def _missing_parts(path: Path) -> tuple[str, ...]:
    """Which parts a model_index.json names that have no folder."""
    try:
        index = read_json(path / "model_index.json")
    except ModelError:
        return ("model_index.json",)
    named = [part for part, value in index.items() if isinstance(value, list) and value and value[0]]
    return tuple(part for part in named if not (path / part).is_dir())


def _label(path: Path) -> str:
    """The class that a model_index.json names, if it can be read."""
    try:
        return str(read_json(path / "model_index.json").get("_class_name") or "")[:80]
    except ModelError:
        return ""


def _size_of(path: Path) -> int:
    try:
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    except OSError:
        return 0
