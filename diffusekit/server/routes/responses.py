"""From a job to an HTTP answer: wait for its end, notice that the client left, stream what happens.

Knows no API's shapes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from fastapi import Request
from starlette.responses import StreamingResponse

from ...errors import DiffusekitError
from ..jobs.events import JobEvent
from ..jobs.job import Failure, Job
from ..jobs.queue import Jobs, ShuttingDown


class JobFailed(DiffusekitError):
    """A job ended without what was asked for."""

    def __init__(self, failure: Failure):
        super().__init__(failure.message, failure.hint)
        self.exit_code = failure.code


async def wait_for_job(request: Request, jobs: Jobs, job: Job) -> Job:
    """The job when it is over; it is cancelled when the client goes away first.

    Raises `JobFailed`, and `ShuttingDown` when the server ends before the job.
    """
    gone = asyncio.ensure_future(_gone(request))
    last = asyncio.ensure_future(_last(jobs, job))
    try:
        await asyncio.wait((gone, last), return_when=asyncio.FIRST_COMPLETED)
        if not last.done():
            await asyncio.to_thread(jobs.cancel, job.id)
        return raise_if_failed(await last)
    finally:
        for task in (gone, last):
            task.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _last(jobs: Jobs, job: Job) -> JobEvent:
    async with contextlib.aclosing(jobs.watch_async(job.id, previews=False)) as events:
        async for event in events:
            if event.is_last:
                return event
    raise AssertionError("events end with the last one")


def raise_if_failed(event: JobEvent) -> Job:
    """The job of a last event, unless it failed or was put off."""
    if event.job.failure:
        raise JobFailed(event.job.failure)
    if event.kind == "kept":
        raise ShuttingDown(
            f"the server is stopping; job {event.job.id} goes on when it is back",
            "its pictures will be in the outputs folder",
            retry_after=30,
        )
    return event.job


async def read_images(jobs: Jobs, job: Job) -> list[bytes]:
    """The finished pictures of a job, as they are on disk."""

    def read() -> list[bytes]:
        return [Path(jobs.outputs, name).read_bytes() for name in job.pictures]

    return await asyncio.to_thread(read)


def sse_response(parts: AsyncIterator[str]) -> StreamingResponse:
    """Server-sent events, one string each."""
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(parts, media_type="text/event-stream", headers=headers)
