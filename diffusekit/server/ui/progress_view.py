"""Any kind of job for one visitor: submitted, followed, and cancelled when the visitor leaves.

Knows no components.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

from ...display import format_duration
from ...errors import DiffusekitError
from ..jobs.events import JobEvent
from ..jobs.job import Job
from ..jobs.queue import Jobs
from ..routes.responses import raise_if_failed

BEAT = 1.0  # seconds without news after which a visitor who left is noticed


class Run:
    """What one press of a button began: the job it is at, and whether Stop was pressed meanwhile."""

    def __init__(self) -> None:
        self.job, self.stopped = "", False

    def at(self, jobs: Jobs, job: str) -> None:
        self.job = job
        if self.stopped:
            self._cancel(jobs)

    def stop(self, jobs: Jobs) -> None:
        self.stopped = True
        if self.job:
            self._cancel(jobs)

    def _cancel(self, jobs: Jobs) -> None:
        with contextlib.suppress(DiffusekitError):
            jobs.cancel(self.job)


def stopping(jobs: Jobs) -> Callable[[Run | None], None]:
    """The handler of a Stop button."""
    return lambda run: run.stop(jobs) if run is not None else None


async def follow(
    jobs: Jobs, kind: str, settings: Mapping[str, Any], run: Run | None = None
) -> AsyncGenerator[tuple[JobEvent | None, Job]]:
    """Events of a new job of a run, and None every second without one; leaving it cancels the job.

    Raises what `submit` raises, and the job's failure.
    """
    job, ended = await jobs.submit_async(kind, settings, owner="page"), False
    events = jobs.watch_async(job.id)
    if run is not None:
        run.at(jobs, job.id)
    news: asyncio.Future[JobEvent] | None = None
    try:
        while not job.is_finished:
            news = news or asyncio.ensure_future(anext(events))
            await asyncio.wait({news}, timeout=BEAT)
            if not news.done():
                yield None, job
                continue
            event, news = news.result(), None
            ended = event.is_last
            job = raise_if_failed(event) if event.is_last else event.job
            yield event, job
    finally:
        if news is not None:
            news.cancel()
            with contextlib.suppress(asyncio.CancelledError, StopAsyncIteration):
                await news
        await events.aclose()
        if not ended:
            with contextlib.suppress(Exception):
                jobs.cancel(job.id)


def words(jobs: Jobs, job: Job) -> str:
    """How it goes, in a line."""
    if job.state == "queued":
        ahead = jobs.count_ahead(job.id)
        return "Next in line" if ahead < 2 else f"In line: {ahead} before this one"
    if job.note or not job.steps:
        return f"{(job.note or 'starting').capitalize()} …"
    left = f" · {format_duration(job.eta)} left" if job.eta is not None and job.eta >= 0.5 else ""
    return f"Step {job.step} of {job.steps}{left}"
