"""Work for one visitor: jobs are submitted and followed, and cancelled when the visitor leaves.

Generators of `Moment`s: what the page shows now. Knows no components.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from ... import images, metadata
from ...display import format_duration
from ...visualise import xyz_grid
from ..jobs.job import Job
from ..jobs.queue import Jobs
from .progress_view import Run, follow
from .thumbs import address, thumbnail

LIVE = 160  # pixels a picture is wide in a grid that fills


@dataclass(frozen=True)
class Moment:
    """What there is to see: previews (addresses), how far (0 to 1, None: not begun), words, and at the
    end the pictures, as paths below the outputs folder, with the prompt."""

    views: tuple[str, ...] = ()
    share: float | None = None
    words: str = ""
    made: tuple[str, ...] = ()
    over: bool = False
    prompt: str = ""


async def pictures(jobs: Jobs, settings: Mapping[str, Any], run: Run | None = None) -> AsyncGenerator[Moment]:
    """The pictures of one form."""
    live: tuple[str, ...] = ()
    async with contextlib.aclosing(follow(jobs, "generate", settings, run)) as events:
        async for event, job in events:
            if event and event.preview:
                live = tuple(await asyncio.to_thread(lambda e=event: list(map(address, e.preview))))
            done = tuple(_small(jobs.outputs, name) for name in job.pictures[-15:])
            if job.is_finished:
                yield _last(job, live or done)
                return
            share = job.progress if job.state == "running" and job.steps else None
            views = done + (live if job.passed < job.settings["images"] else ())
            yield Moment(views, share, _words(jobs, job))


async def grid(
    jobs: Jobs,
    axes: Sequence[xyz_grid.Axis | None],
    cells: Sequence[xyz_grid.GridCell],
    settings: Mapping[str, Any],
    run: Run,
) -> AsyncGenerator[Moment]:
    """The pictures of a grid over some `settings`, one after another, and the sheet with all of them."""
    seen: dict[tuple[int, int, int], Image.Image] = {}
    live: dict[tuple[int, int, int], Image.Image] = {}
    made: list[str] = []
    view = ""
    for number, cell in enumerate(cells):
        place, job = (cell.x, cell.y, cell.z), None
        async with contextlib.aclosing(follow(jobs, "generate", cell.settings, run)) as events:
            async for event, job in events:
                if event and event.preview:
                    small = live | {place: _cell(event.preview[0])}
                    view = await asyncio.to_thread(lambda s=small: address(xyz_grid.render_sheet(axes, s)))
                if job.is_finished:
                    break
                words = f"Grid: picture {number + 1} of {len(cells)} · {_words(jobs, job)}"
                share = (number + job.progress) / len(cells)
                yield Moment((view,) if view else (), share, words)
        for name in job.pictures if job else ():
            seen[place] = await asyncio.to_thread(_opened, jobs.outputs / name)
            live[place] = _cell(seen[place])
            made.append(name)
        if run.stopped or (job and job.state == "cancelled"):
            break
    if len(seen) > 1:
        sheet = xyz_grid.render_sheet(axes, seen)
        made.insert(0, await asyncio.to_thread(_kept, jobs.outputs, sheet, made[0], axes, settings))
    prompt = f"a grid of {len(seen)} pictures"
    stopped = len(seen) < len(cells)
    words = f"Stopped: {len(seen)} of {len(cells)} pictures." if stopped else "Done."
    yield Moment((view,) if view else (), None, words, tuple(made), True, prompt)


def _last(job: Job, views: tuple[str, ...]) -> Moment:
    if job.state == "cancelled":
        finished = f"; {len(job.pictures)} finished" if job.pictures else ""
        words = f"Stopped at step {job.step} of {job.steps}{finished}." if job.steps else "Stopped."
        return Moment(views, job.progress, words, job.pictures, True, _prompt(job))
    took = format_duration((job.finished or 0) - (job.started or 0))
    return Moment(views, 1.0, f"Done in {took}.", job.pictures, True, _prompt(job))


def _prompt(job: Job) -> str:
    return "; ".join(job.settings["prompts"])


def _words(jobs: Jobs, job: Job) -> str:
    """How it goes, in a line."""
    if job.state == "queued":
        ahead = jobs.count_ahead(job.id)
        return "Next in line" if ahead < 2 else f"In line: {ahead} before this one"
    if job.note or not job.steps:
        return f"{(job.note or 'starting').capitalize()} …"
    parts = [f"Step {job.step} of {job.steps}"]
    count = job.settings.get("images", 1)
    if count > 1:
        parts.insert(0, f"{job.passed} of {count} finished")
    if job.eta is not None and job.eta >= 0.5:
        parts.append(f"{format_duration(job.eta)} left")
    return " · ".join(parts)


def _small(outputs: Path, name: str) -> str:
    return thumbnail(outputs / name, 0.0)


def _cell(picture: Image.Image) -> Image.Image:
    return picture.resize((LIVE, max(1, round(LIVE * picture.height / picture.width))))


def _opened(path: Path) -> Image.Image:
    with images.open_image(path) as picture:
        return images.to_rgb(picture)


def _kept(
    outputs: Path,
    sheet: Image.Image,
    first: str,
    axes: Sequence[xyz_grid.Axis | None],
    settings: Mapping[str, Any],
) -> str:
    """Save a sheet among the pictures, with its record; returns its path below the outputs folder."""
    made = metadata.read(outputs / first).record
    record = xyz_grid.sheet_record(made, axes, settings) if made else None
    day, clock = time.strftime("%Y-%m-%d %H%M%S").split()
    path = outputs / day / f"{clock}-{secrets.token_hex(4)}-grid.png"
    return metadata.save(sheet, path, record).relative_to(outputs).as_posix()
