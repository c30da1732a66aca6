"""Settings from an image back into the Generate form: all of them, all but the seed, or the seed alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import gradio as gr

from .... import metadata
from ....errors import UsageError
from ....lora_request import parse_request
from ...jobs.queue import Jobs
from ..context import Updates, small_button
from ..html import render_notice
from .generate_form import form_from_settings, learned_names, lora_names

RestoreMode = Literal["all", "remix", "seed"]
RestoreButtons = dict[RestoreMode, gr.Button]
MESSAGES: dict[RestoreMode, str] = {
    "all": "All settings of the image are restored.",
    "remix": "All settings of the image except the seed are restored.",
    "seed": "The seed of the image is restored.",
}
_PARTLY = "The settings of the image are restored as far as they are known."


def add_buttons() -> RestoreButtons:
    """Lay out one button for each mode."""
    return {
        "all": small_button("Use all"),
        "remix": small_button("Remix"),
        "seed": small_button("Use seed"),
    }


def read_settings(path: Path) -> metadata.ImageMetadata:
    """The metadata of an image; raises `UsageError` if it does not say how the image was made."""
    found = metadata.read(path)
    if found.settings is None:
        raise UsageError(
            "this image has no generation settings",
            f"metadata of {metadata.PROGRAM_NAMES} can be read",
        )
    return found


def form_values(jobs: Jobs, path: Path, mode: RestoreMode) -> dict[str, Any]:
    """Values for the form from an image file; raises `UsageError` if it has none.

    Prompts that are unknown are left out, so that the form keeps its own.
    """
    found = read_settings(path)
    settings = found.settings
    assert settings is not None
    if mode == "seed":
        if settings.seed is None:
            reason = found.missing.get("seed", "")
            raise UsageError(f"this image has no seed{reason and f': it {reason}'}", "use its other settings")
        return {"seed": str(settings.seed)}
    values = form_from_settings(settings, models=list(jobs.models.names()), seed=mode == "all")
    return {name: value for name, value in values.items() if name not in found.missing or "prompt" not in name}


def form_updates(jobs: Jobs, path: Path, mode: RestoreMode, fields: Mapping[str, Any]) -> Updates:
    """The updates that put an image's settings into `fields`, components by setting."""
    values = form_values(jobs, path, mode)
    if "embedding" in values:
        values["embedding"] = _available(jobs, values["embedding"])
    if "lora" in values:
        values["lora"] = _available_loras(jobs, values["lora"])
    return {fields[name]: gr.update(value=value) for name, value in values.items()}


def restore_notice(jobs: Jobs, path: Path, mode: RestoreMode) -> str:
    """What was restored, and what was not."""
    message = MESSAGES[mode] if mode == "seed" or not metadata.read(path).missing else _PARTLY
    return render_notice(message, describe_gaps(jobs, path, mode))


def describe_gaps(jobs: Jobs, path: Path, mode: RestoreMode) -> str:
    """What the metadata does not say, the axes of a grid, and what this server does not have."""
    found = metadata.read(path)
    settings = found.settings
    if mode == "seed" or settings is None:
        return ""
    axes = found.record.axes if found.record else {}
    missing = [_describe(name, reason) for name, reason in _gaps(found, mode).items()]
    missing += [f"grid axis {name}: {', '.join(labels)}" for name, labels in axes.items()]
    tokens = set(settings.embedding) - set(_available(jobs, list(settings.embedding)))
    missing += [f"the learned token {name} is not on this server" for name in sorted(tokens)]
    loras = set(settings.lora) - set(_available_loras(jobs, list(settings.lora)))
    missing += [f"the LoRA {parse_request(text).name} is not on this server" for text in sorted(loras)]
    if settings.model not in jobs.models.names():
        missing.append(f"the model {settings.model} is not on this server")
    return "; ".join(missing)


def _gaps(found: metadata.ImageMetadata, mode: RestoreMode) -> dict[str, str]:
    """What another program's metadata does not give: the size once, and the seed only where it is restored."""
    left_out = {"height"} if mode == "all" else {"height", "seed"}
    return {name: reason for name, reason in found.missing.items() if name not in left_out}


def _describe(name: str, reason: str) -> str:
    return f"the {'size' if name == 'width' else name.replace('_', ' ')} {reason}"


def _available_loras(jobs: Jobs, requests: list[str]) -> list[str]:
    known = set(lora_names(jobs.loras))
    return [text for text in requests if parse_request(text).name in known]


def _available(jobs: Jobs, names: list[str]) -> list[str]:
    known = set(learned_names(jobs.embeddings))
    return [name for name in names if name in known]
