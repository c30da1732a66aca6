"""The visualise job: the lesson page about one or two images, and a figure for each part of it.

The files are in a hidden folder of the outputs, which the gallery does not show.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

from ... import metadata
from ...errors import UsageError
from ...settings import GenerateSettings, ServeSettings, validate
from . import generate
from .context import JobContext

MAX_LESSONS = 40  # lessons
MAX_STEPS = 60  # every one is stored and drawn
MAX_PIXELS = 1024 * 1024
_FOLDER = ".lessons"
PAGE = "lesson.html"
FIGURES = ("noise", "film", "steps", "words", "decode")


def check(values: Mapping[str, Any], server: ServeSettings) -> dict[str, Any]:
    """Check the settings of a generate job for one image of one prompt, or of two side by side.

    Raises `UsageError` that begins with the field's name.
    """
    settings = generate.check(dict(values) | {"images": 1}, server)
    if not 1 <= len(settings["prompts"]) <= 2:
        raise UsageError(
            f"prompts must be one, or two side by side, got {len(settings['prompts'])}",
            "leave some out",
        )
    if (settings["steps"] or 1) > MAX_STEPS:  # no model has a default above it
        raise UsageError(
            f"steps must be at most {MAX_STEPS}, because every one is shown, got {settings['steps']}",
            "use fewer",
        )
    if (settings.get("width") or 1) * (settings.get("height") or 1) > MAX_PIXELS:
        raise UsageError("width times height is too large to show every step", "make it smaller")
    return settings | {"batch": 1}


def find_folder(outputs: Path, job_id: str) -> Path:
    """The folder of a job's lesson; raises `UsageError` when there is none."""
    folder = outputs / _FOLDER / job_id
    if not re.fullmatch(r"[0-9a-f]{16}", job_id) or not (folder / PAGE).is_file():
        raise UsageError("this lesson was deleted", "create it again")
    return folder


def list_files(outputs: Path, job_id: str) -> Mapping[str, Path]:
    """The page (`lesson`) and the figures of a finished job, by name."""
    folder = find_folder(outputs, job_id)
    paths = {"lesson": folder / PAGE}
    for name in FIGURES:
        path = folder / f"{name}.{'webp' if name == 'film' else 'png'}"
        if path.is_file():
            paths[name] = path
    return paths


def run(context: JobContext) -> Generator[None]:
    """Generate and record the images, then draw the page; the job may be stopped after each part."""
    from ...embeddings import tokens_in_prompts
    from ...pipeline import Generation
    from ...visualise import attention_maps
    from ...visualise.lesson import render

    values = dict(context.job.settings)
    prompts = values.pop("prompts")
    context.set_note(f"loading {values['model']}")
    settings = validate(GenerateSettings, values)
    tokens = tokens_in_prompts([*prompts, settings.negative_prompt], settings.embedding, context.embeddings)
    generation = Generation(settings, prompts, tokens, folder=context.embeddings, lora_folder=context.loras)
    recorder = attention_maps.AttentionMapRecorder(generation)
    for step, state in enumerate(recorder, 1):
        context.report_progress(step, recorder.total)
        context.show_preview(lambda state=state: recorder.generation.preview(state))
        yield
    context.set_note("drawing the page")
    yield
    folder = context.outputs / _FOLDER / context.job.id
    yield from _save_figures(recorder, folder)
    page = render(recorder.traces, recorder.generation.tokens, attention_maps=recorder.attention_maps)
    page.save(folder / PAGE, overwrite=True)
    _prune(context.outputs / _FOLDER)


def _save_figures(recorder: Any, folder: Path) -> Generator[None]:
    """Draw noise, denoising, words and decoding of the first prompt, as an image or a film each."""
    from ...visualise import attention_maps, contact_sheet, forward, reverse

    trace = recorder.traces[0]
    model, settings = trace.model, trace.result.record.settings
    noise = forward.noise(trace.result, seed=settings.seed or 0, model=model)
    noise.save(folder / "noise.png", overwrite=True)
    yield
    reverse.render(trace).save(folder / "steps.png", overwrite=True)
    yield
    images = list(trace.decode([moment.x0 for moment in trace.steps]))
    frames = [*images, trace.result.image]
    frames[0].save(
        folder / "film.webp",
        save_all=True,
        append_images=frames[1:],
        loop=0,
        duration=[180] * len(images) + [2000],
        **metadata.save_kwargs("WEBP", trace.result.record, True),
    )
    yield
    words = (
        attention_maps.find_words(model, trace.prompt, (), recorder.generation.tokens) if trace.prompt.strip() else {}
    )
    if words:
        attention_maps.render(trace, recorder.attention_maps[0], words).save(folder / "words.png", overwrite=True)
    yield
    last = trace.steps[-1].x_next.float()
    cells = [
        [
            contact_sheet.SheetCell(contact_sheet.channel_grid(last, 256), "latents: the channels"),
            contact_sheet.SheetCell(trace.result.image, "decoded: the image"),
        ]
    ]
    sheet = contact_sheet.render_sheet(cells, side=256, title="what the VAE makes of the last latents")
    metadata.save(sheet, folder / "decode.png", trace.result.record, overwrite=True)


def _prune(folder: Path) -> None:
    """Remove the oldest lessons."""
    folders = [path for path in folder.iterdir() if path.is_dir()]
    for old in sorted(folders, key=lambda path: path.stat().st_mtime, reverse=True)[MAX_LESSONS:]:
        shutil.rmtree(old, ignore_errors=True)
