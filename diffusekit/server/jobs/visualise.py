"""The kind of job that shows how a picture comes about: the lesson page, and one exhibit for each part of it.

They lie in a hidden folder of the outputs, which is no part of the gallery. Knows no page.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

from ... import metadata
from ...errors import UsageError
from ...settings import GenerateSettings, validate
from .context import JobContext

MAX_LESSONS = 40  # lessons
MAX_STEPS = 60  # every one is kept and drawn
MAX_PIXELS = 1024 * 1024
_FOLDER = ".lessons"
PAGE = "lesson.html"
FIGURES = ("noise", "film", "steps", "words", "decode")


def check(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of pictures, already checked, as those of a lesson; raises `UsageError`."""
    if not 1 <= len(settings["prompts"]) <= 2:
        raise UsageError(
            f"prompts are {len(settings['prompts'])}, one is shown, or two side by side",
            "leave some out",
        )
    if settings["steps"] > MAX_STEPS:
        raise UsageError(
            f"steps are {settings['steps']}, and every one is shown, at most {MAX_STEPS}",
            "use fewer",
        )
    if (settings.get("width") or 1) * (settings.get("height") or 1) > MAX_PIXELS:
        raise UsageError("width times height is too large to show every step", "make it smaller")
    return settings | {"batch": 1}


def find_folder(outputs: Path, job_id: str) -> Path:
    """Where a job's lesson lies; raises `UsageError` when there is none."""
    folder = outputs / _FOLDER / job_id
    if not re.fullmatch(r"[0-9a-f]{16}", job_id) or not (folder / PAGE).is_file():
        raise UsageError("this lesson is not kept any more", "make it again")
    return folder


def list_files(outputs: Path, job_id: str) -> Mapping[str, Path]:
    """The page (`lesson`) and the exhibits of a finished job, by name."""
    folder = find_folder(outputs, job_id)
    found = {"lesson": folder / PAGE}
    for name in FIGURES:
        path = folder / f"{name}.{'webp' if name == 'film' else 'png'}"
        if path.is_file():
            found[name] = path
    return found


def run(work: JobContext) -> Generator[None]:
    """Make the picture under watch, then draw what was seen; it may be stopped between all of it."""
    from ...embeddings import tokens_in_prompts
    from ...pipeline import Generation
    from ...visualise import attention_maps
    from ...visualise.lesson import render

    values = dict(work.job.settings)
    prompts = values.pop("prompts")
    work.note(f"loading {values['model']}")
    settings = validate(GenerateSettings, values)
    tokens = tokens_in_prompts([*prompts, settings.negative_prompt], settings.embedding, work.embeddings)
    watching = attention_maps.AttentionMapRecorder(Generation(settings, prompts, tokens))
    for step, state in enumerate(watching, 1):
        work.report_progress(step, watching.total)
        work.show_preview(lambda state=state: watching.generation.preview(state))
        yield
    work.note("drawing the page")
    yield
    folder = work.outputs / _FOLDER / work.job.id
    yield from _save_figures(watching, folder)
    page = render(watching.traces, watching.generation.tokens, attention_maps=watching.attention_maps)
    page.save(folder / PAGE, overwrite=True)
    _prune(work.outputs / _FOLDER)


def _save_figures(watching: Any, folder: Path) -> Generator[None]:
    """Noise, denoising, words, decoding: a picture or a film of each, for the first prompt."""
    from ...visualise import attention_maps, contact_sheet, forward, reverse

    trace = watching.traces[0]
    model, made = trace.model, trace.result.record.settings
    noise = forward.noise(trace.result, seed=made.seed or 0, model=made.model, device=made.device, dtype=made.dtype)
    noise.save(folder / "noise.png", overwrite=True)
    yield
    way = reverse.render(trace)
    way.save(folder / "steps.png", overwrite=True)
    yield
    pictures = list(trace.decode([moment.x0 for moment in trace.steps]))
    frames = [*pictures, trace.result.image]
    frames[0].save(
        folder / "film.webp",
        save_all=True,
        append_images=frames[1:],
        loop=0,
        duration=[180] * len(pictures) + [2000],
        **metadata.save_kwargs("WEBP", trace.result.record, True),
    )
    yield
    asked = (
        attention_maps.find_words(model, trace.prompt, (), watching.generation.tokens) if trace.prompt.strip() else {}
    )
    if asked:
        attention_maps.render(trace, watching.attention_maps[0], asked).save(folder / "words.png", overwrite=True)
    yield
    last = trace.steps[-1].x_next.float()
    cells = [
        [
            contact_sheet.SheetCell(contact_sheet.channel_grid(last, 256), "latents: the channels"),
            contact_sheet.SheetCell(trace.result.image, "decoded: the picture"),
        ]
    ]
    told = contact_sheet.render_sheet(cells, side=256, title="what the VAE makes of the last latents")
    metadata.save(told, folder / "decode.png", trace.result.record, overwrite=True)


def _prune(inside: Path) -> None:
    """Remove the oldest lessons."""
    folders = [path for path in inside.iterdir() if path.is_dir()]
    for old in sorted(folders, key=lambda path: path.stat().st_mtime, reverse=True)[MAX_LESSONS:]:
        shutil.rmtree(old, ignore_errors=True)
