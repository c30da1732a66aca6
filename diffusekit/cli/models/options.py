"""What the verbs of `diffusekit models` share: the name of a model, --json, and a description as text and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...display import format_count, format_size
from ..completion import complete_model

if TYPE_CHECKING:
    from ...model_catalog import CatalogEntry
    from ...model_files import Description

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Name = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="A name, an alias, a file, a folder, or a hub id.", autocompletion=complete_model
    ),
]


def describe_as_json(entry: CatalogEntry) -> dict[str, Any]:
    """A model as one JSON object."""
    about = entry.description
    return {
        "name": entry.name,
        "kind": about.kind,
        "layout": about.layout,
        "family": about.family.name if about.family else "",
        "label": about.label,
        "task": about.task or "",
        "prediction_type": about.prediction_type,
        "stored_precision": about.precision,
        "native_size": about.native_size,
        "size_mb": round(about.size_on_disk / 1e6, 1),
        "memory_half_mb": round(about.memory(half=True) / 1e6, 1),
        "memory_full_mb": round(about.memory(half=False) / 1e6, 1),
        "parts": {part.name: {"parameters": part.count, "precision": part.precision} for part in about.parts},
        "missing": list(about.missing),
        "safety_checker": about.has_safety_checker,
        "problem": about.problem,
        "hint": about.hint,
        "notes": list(about.notes),
        "embedded": entry.place == "embedded",
        "place": entry.place,
        "path": "" if entry.place == "embedded" else str(about.path),
        "revision": entry.revision,
        "refs": list(entry.refs),
    }


def describe_as_rows(about: Description) -> dict[str, str]:
    """What is known of a model, row by row; what is unknown has no row."""
    kinds = {"model": "model", "lora": "LoRA", "vae": "VAE", "embedding": "learned token"}
    layouts = {"folder": "a folder in diffusers layout", "file": "one file"}
    defaults = about.defaults
    suits = f"{defaults.steps} steps, {defaults.sampler}, guidance {defaults.guidance_scale:g}" if defaults else ""
    rows = {
        "kind": kinds.get(about.kind, "unknown"),
        "layout": layouts.get(about.layout, ""),
        "family": about.label,
        "task": {"text": "images from text", "inpainting": "inpainting"}.get(about.task or "", ""),
        "distilled": f"{defaults.kind} ({defaults.reason})" if defaults and defaults.kind else "",
        "suits": suits,
        "prediction": about.prediction_type,
        "native size": f"{about.native_size} pixels" if about.native_size else "",
        "stored as": about.precision,
        "on disk": format_size(about.size_on_disk) if about.size_on_disk else "",
        "in memory": _say_memory(about),
        "missing": ", ".join(about.missing),
    }
    rows |= {
        part.name: f"{format_count(part.count, 'parameter')}, {part.precision}" for part in about.parts if part.count
    }
    rows |= {str(key): str(value) for key, value in about.facts.items()}
    rows["safety checker"] = "yes" if about.has_safety_checker else ""
    return {key: value for key, value in rows.items() if value}


def _say_memory(about: Description) -> str:
    if not about.parts:
        return ""
    half, full = format_size(about.memory(half=True)), format_size(about.memory(half=False))
    return f"{half} in half precision, {full} in full"
