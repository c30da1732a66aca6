"""Follow jobs for one visitor: submit, report progress, and cancel when the visitor leaves or presses Stop."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from ... import images, metadata
from ...display import format_duration
from ...errors import DiffusekitError, ImagesFlagged
from ...visualise import xyz_grid
from ..jobs.events import JobEvent
from ..jobs.job import Job
from ..jobs.queue import Jobs
from ..routes.responses import JobFailed, raise_if_failed
from .html import thumbnail_url, to_data_url

POLL_INTERVAL = 1.0  # seconds without an event after which a visitor who left is noticed
CELL_WIDTH = 160  # pixels of an image in a grid that fills
RECENT = 15  # finished images that are shown beside the previews
Axes = Sequence[xyz_grid.Axis | None]


class VisitorJob:
    """The job that one press of a button started, and whether Stop was pressed meanwhile."""

    def __init__(self) -> None:
        self.job_id, self.is_stopped = "", False

    def attach(self, jobs: Jobs, job_id: str) -> None:
        self.job_id = job_id
        if self.is_stopped:
            self._cancel(jobs)

    def stop(self, jobs: Jobs) -> None:
        self.is_stopped = True
        if self.job_id:
            self._cancel(jobs)

    def _cancel(self, jobs: Jobs) -> None:
        with contextlib.suppress(DiffusekitError):
            jobs.cancel(self.job_id)


def stop_handler(jobs: Jobs) -> Callable[[VisitorJob | None], None]:
    """The handler of a Stop button."""
    return lambda visitor: visitor.stop(jobs) if visitor is not None else None


@dataclass(frozen=True)
class ProgressUpdate:
    """What the page shows now.

    `previews` are data URLs. `fraction` is 0 to 1, or None before the first step. `images` are paths below the
    outputs folder, set when the work is finished.
    """

    previews: tuple[str, ...] = ()
    fraction: float | None = None
    status: str = ""
    images: tuple[str, ...] = ()
    is_finished: bool = False
    prompt: str = ""
    warnings: tuple[str, ...] = ()


async def follow_job(
    jobs: Jobs, kind: str, settings: Mapping[str, Any], visitor: VisitorJob | None = None
) -> AsyncGenerator[tuple[JobEvent | None, Job]]:
    """Submit a job and yield its events, and None every second without one. Closing the generator cancels the job.

    Raises what `submit` raises, and the job's failure.
    """
    job, has_ended = await jobs.submit_async(kind, settings, owner="page"), False
    events = jobs.watch_async(job.id)
    if visitor is not None:
        visitor.attach(jobs, job.id)
    coming: asyncio.Future[JobEvent] | None = None
    try:
        while not job.is_finished:
            coming = coming or asyncio.ensure_future(anext(events))
            await asyncio.wait({coming}, timeout=POLL_INTERVAL)
            if not coming.done():
                yield None, job
                continue
            event, coming = coming.result(), None
            has_ended = event.is_last
            job = raise_if_failed(event) if event.is_last else event.job
            yield event, job
    finally:
        if coming is not None:
            coming.cancel()
            with contextlib.suppress(asyncio.CancelledError, StopAsyncIteration):
                await coming
        await events.aclose()
        if not has_ended:
            with contextlib.suppress(Exception):
                jobs.cancel(job.id)


async def follow_images(
    jobs: Jobs, settings: Mapping[str, Any], visitor: VisitorJob | None = None
) -> AsyncGenerator[ProgressUpdate]:
    """Generate the images of one form."""
    live: tuple[str, ...] = ()
    async with contextlib.aclosing(follow_job(jobs, "generate", settings, visitor)) as events:
        async for event, job in events:
            if event and event.preview:
                live = tuple(await asyncio.to_thread(lambda e=event: list(map(to_data_url, e.preview))))
            finished = tuple(thumbnail_url(jobs.outputs / name, 0.0) for name in job.pictures[-RECENT:])
            if job.is_finished:
                yield _final_update(job, live or finished)
                return
            fraction = job.progress if job.state == "running" and job.steps else None
            previews = finished + (live if job.passed < job.settings["images"] else ())
            yield ProgressUpdate(previews, fraction, status_line(jobs, job))


async def follow_grid(
    jobs: Jobs, axes: Axes, cells: Sequence[xyz_grid.GridCell], settings: Mapping[str, Any], visitor: VisitorJob
) -> AsyncGenerator[ProgressUpdate]:
    """Generate the images of a grid one after another, and the sheet with all of them."""
    grid, warnings, is_stopped = _Grid(axes), {}, False
    for number, cell in enumerate(cells):
        job: Job | None = None
        try:
            async with contextlib.aclosing(follow_job(jobs, "generate", cell.settings, visitor)) as events:
                async for event, job in events:
                    if event and event.preview:
                        await asyncio.to_thread(grid.show_preview, cell, event.preview[0])
                    if job.is_finished:
                        break
                    status = f"Grid: image {number + 1} of {len(cells)} · {status_line(jobs, job)}"
                    yield ProgressUpdate(grid.previews, (number + job.progress) / len(cells), status)
        except JobFailed as error:
            if error.exit_code != ImagesFlagged.exit_code:
                raise
            warnings[error.message] = None
            continue  # the place of a flagged image stays empty
        warnings |= dict.fromkeys(job.warnings if job else ())
        for name in job.pictures if job else ():
            await asyncio.to_thread(grid.add_image, cell, jobs.outputs, name)
        if is_stopped := visitor.is_stopped or bool(job and job.state == "cancelled"):
            break
    names = await asyncio.to_thread(grid.save, jobs.outputs, settings)
    is_complete = len(grid.images) == len(cells)
    ended = "Stopped" if is_stopped else "Done"
    status = "Done." if is_complete else f"{ended}: {len(grid.images)} of {len(cells)} images."
    prompt = f"a grid of {len(grid.images)} images"
    yield ProgressUpdate(grid.previews, None, status, names, True, prompt, tuple(warnings))


@dataclass
class _Grid:
    """The images of a grid by their position, as they come."""

    axes: Axes
    images: dict[tuple[int, int, int], Image.Image] = field(default_factory=dict)
    small: dict[tuple[int, int, int], Image.Image] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    previews: tuple[str, ...] = ()

    def show_preview(self, cell: xyz_grid.GridCell, preview: Image.Image) -> None:
        sheet = xyz_grid.render_sheet(self.axes, self.small | {(cell.x, cell.y, cell.z): _resize(preview)})
        self.previews = (to_data_url(sheet),)

    def add_image(self, cell: xyz_grid.GridCell, outputs: Path, name: str) -> None:
        with images.open_image(outputs / name) as opened:
            image = images.to_rgb(opened)
        self.images[cell.x, cell.y, cell.z] = image
        self.small[cell.x, cell.y, cell.z] = _resize(image)
        self.names.append(name)

    def save(self, outputs: Path, settings: Mapping[str, Any]) -> tuple[str, ...]:
        """Save the sheet among the images, with its record; returns paths below `outputs`, the sheet first."""
        if len(self.images) < 2:
            return tuple(self.names)
        first = metadata.read(outputs / self.names[0]).record
        record = xyz_grid.sheet_record(first, self.axes, settings) if first else None
        day, clock = time.strftime("%Y-%m-%d %H%M%S").split()
        path = outputs / day / f"{clock}-{secrets.token_hex(4)}-grid.png"
        saved = metadata.save(xyz_grid.render_sheet(self.axes, self.images), path, record)
        return (saved.relative_to(outputs).as_posix(), *self.names)


def status_line(jobs: Jobs, job: Job) -> str:
    """The state of a job in one line."""
    if job.state == "queued":
        ahead = jobs.count_ahead(job.id)
        return "Next in the queue" if ahead < 2 else f"In the queue: {ahead} jobs before this one"
    if job.note or not job.steps:
        return f"{(job.note or 'starting').capitalize()} …"
    parts = [f"Step {job.step} of {job.steps}"]
    count = job.settings.get("images", 1)
    if count > 1:
        parts.insert(0, f"{job.passed} of {count} finished")
    if job.eta is not None and job.eta >= 0.5:
        parts.append(f"{format_duration(job.eta)} left")
    return " · ".join(parts)


def _final_update(job: Job, previews: tuple[str, ...]) -> ProgressUpdate:
    prompt = "; ".join(job.settings["prompts"])
    if job.state == "cancelled":
        finished = f"; {len(job.pictures)} finished" if job.pictures else ""
        status = f"Stopped at step {job.step} of {job.steps}{finished}." if job.steps else "Stopped."
        return ProgressUpdate(previews, job.progress, status, job.pictures, True, prompt, job.warnings)
    duration = format_duration((job.finished or 0) - (job.started or 0))
    return ProgressUpdate(previews, 1.0, f"Done in {duration}.", job.pictures, True, prompt, job.warnings)


def _resize(image: Image.Image) -> Image.Image:
    return image.resize((CELL_WIDTH, max(1, round(CELL_WIDTH * image.height / image.width))))
