"""Any kind of job for one visitor: submitted, followed, and cancelled when the visitor leaves.

Knows no components.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from ..feed import Event
from ..job import Job
from ..jobs import Jobs
from ..waiting import checked
from .look import seconds

BEAT = 1.0  # seconds without news after which a visitor who left is noticed


async def follow(
    jobs: Jobs, kind: str, settings: Mapping[str, Any]
) -> AsyncGenerator[tuple[Event | None, Job]]:
    """Events of a new job, and None every second without one; leaving it cancels the job.

    Raises what `submit` raises, and the job's failure.
    """
    job = await asyncio.to_thread(jobs.submit, kind, settings, owner="page")
    events = jobs.follow(job.id)
    news: asyncio.Future[Event] | None = None
    try:
        while not job.over:
            news = news or asyncio.ensure_future(anext(events))
            await asyncio.wait({news}, timeout=BEAT)
            if not news.done():
                yield None, job
                continue
            event, news = news.result(), None
            job = checked(event) if event.last else event.job
            yield event, job
    finally:
        if news is not None:
            news.cancel()
            with contextlib.suppress(asyncio.CancelledError, StopAsyncIteration):
                await news
        await events.aclose()
        if not job.over:
            with contextlib.suppress(Exception):
                jobs.cancel(job.id)


def words(jobs: Jobs, job: Job) -> str:
    """How it goes, in a line."""
    if job.state == "queued":
        ahead = jobs.ahead(job.id)
        return "Next in line" if ahead < 2 else f"In line: {ahead} before this one"
    if job.note or not job.steps:
        return f"{(job.note or 'starting').capitalize()} …"
    left = f" · {seconds(job.eta)} left" if job.eta is not None and job.eta >= 0.5 else ""
    return f"Step {job.step} of {job.steps}{left}"
