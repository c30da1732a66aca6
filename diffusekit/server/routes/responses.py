"""From a job to an HTTP response: wait for its end, cancel it when the client leaves, stream its events."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from pathlib import Path

from fastapi import Request
from starlette.responses import StreamingResponse

from ...errors import DiffusekitError
from ..errors import ShuttingDown
from ..jobs.events import JobEvent
from ..jobs.job import Failure, Job
from ..jobs.queue import Jobs


class JobFailed(DiffusekitError):
    """A job ended without what was asked for."""

    def __init__(self, failure: Failure):
        super().__init__(failure.message, failure.hint)
        self.exit_code = failure.code


async def wait_for_job(request: Request, jobs: Jobs, job: Job) -> Job:
    """Return the job when it is finished; cancel it when the client goes away first.

    Raises `JobFailed`, and `ShuttingDown` when the server stops before the job ends.
    """
    disconnect = asyncio.ensure_future(_wait_for_disconnect(request))
    end = asyncio.ensure_future(finish(jobs, job))
    try:
        await asyncio.wait((disconnect, end), return_when=asyncio.FIRST_COMPLETED)
        if not end.done():
            await asyncio.to_thread(jobs.cancel, job.id)
        return await end
    finally:
        for task in (disconnect, end):
            task.cancel()


async def _wait_for_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def finish(jobs: Jobs, job: Job, report: Callable[[Job], Awaitable[None]] | None = None) -> Job:
    """Return the job when it is finished; call `report` after each step. Raises as `raise_if_failed` does."""
    async with follow(jobs, job) as events:
        async for event in events:
            if event.is_last:
                return raise_if_failed(event)
            if report:
                await report(event.job)
    raise AssertionError("events end with the last one")


@contextlib.asynccontextmanager
async def follow(jobs: Jobs, job: Job, *, partials: int = 0) -> AsyncIterator[AsyncGenerator[JobEvent]]:
    """The events of a job; the job is cancelled when the block is left before the last one."""

    async def watch() -> AsyncGenerator[JobEvent]:
        nonlocal is_over
        async with contextlib.aclosing(jobs.watch_async(job.id, previews=False, partials=partials)) as events:
            async for event in events:
                is_over = event.is_last
                yield event

    is_over = False
    try:
        async with contextlib.aclosing(watch()) as events:
            yield events
    finally:
        if not is_over:
            jobs.cancel(job.id)


def raise_if_failed(event: JobEvent) -> Job:
    """The job of a last event; raises `JobFailed`, or `ShuttingDown` for a job that was requeued."""
    if event.job.failure:
        raise JobFailed(event.job.failure)
    if event.kind == "requeued":
        raise ShuttingDown(
            f"the server is stopping; job {event.job.id} continues when it is back",
            "its images will be in the outputs folder",
            retry_after=30,
        )
    return event.job


async def read_images(jobs: Jobs, job: Job) -> list[bytes]:
    """The image files of a job, as they are on disk."""

    def read() -> list[bytes]:
        return [Path(jobs.outputs, name).read_bytes() for name in job.pictures]

    return await asyncio.to_thread(read)


def sse_response(parts: AsyncIterator[str]) -> StreamingResponse:
    """Server-sent events, one string each."""
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(parts, media_type="text/event-stream", headers=headers)
