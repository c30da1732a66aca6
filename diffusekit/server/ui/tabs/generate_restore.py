"""From a picture back to the form: all its settings, all but the seed, or the seed alone.

Knows the form's components by the names of their settings, no tab.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import gradio as gr

from .... import metadata
from ....errors import DiffusekitError, UsageError
from ...jobs.queue import Jobs
from ..html import render_notice
from . import generate_form

RestoreMode = Literal["all", "remix", "seed"]
SAYS = {
    "all": "All settings are those of the picture.",
    "remix": "All settings but the seed are those of the picture.",
    "seed": "The seed is that of the picture.",
}


def read_form_values(jobs: Jobs, path: Path, what: RestoreMode) -> dict[str, Any]:
    """Values for the form from a picture file; raises `UsageError` when it does not tell any."""
    settings = metadata.read(path).settings
    if settings is None:
        raise UsageError(
            "this picture does not say how it was made",
            "read are the records of diffusekit, A1111, ComfyUI, InvokeAI, NovelAI and Fooocus",
        )
    if what == "seed":
        if settings.seed is None:
            raise UsageError("this picture does not tell its seed", "use all else of it")
        return {"seed": str(settings.seed)}
    return generate_form.values_of(settings, models=list(jobs.models.names()), seed=what == "all")


def form_updates(jobs: Jobs, path: Path, what: RestoreMode, fields: dict[str, Any]) -> dict[Any, Any]:
    """What an event returns to put a picture's settings into `fields`, components by name."""
    found = read_form_values(jobs, path, what)
    if "embedding" in found:
        found["embedding"] = _there(jobs, found["embedding"])
    return {fields[name]: gr.update(value=value) for name, value in found.items()}


def restore_notice(jobs: Jobs, path: Path, what: RestoreMode) -> str:
    """The notice for a restored picture, the axes of a grid, and what of it could not be had."""
    found = metadata.read(path)
    settings = found.settings
    axes = found.record.axes if found.record and what != "seed" else {}
    lost = [f"the grid's {name}: {', '.join(labels)}" for name, labels in axes.items()]
    if settings and what != "seed":
        missing = set(settings.embedding) - set(_there(jobs, list(settings.embedding)))
        lost += [f"the learned token {name} is not here" for name in sorted(missing)]
        if settings.model not in jobs.models.names():
            lost.append(f"the model {settings.model} is not here")
    return render_notice(SAYS[what], "; ".join(lost))


def learned_names(folder: Path) -> list[str]:
    """The names of the learned tokens in the folder."""
    from ....embeddings import list_files
    from ....embeddings.names import name_of

    try:
        return [name_of(path.stem) for path in list_files(folder)]
    except (DiffusekitError, OSError):
        return []


def _there(jobs: Jobs, names: list[str]) -> list[str]:
    known = set(learned_names(jobs.embeddings))
    return [name for name in names if name in known]
