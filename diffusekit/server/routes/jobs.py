"""Our own small API: jobs, their events, and the gallery. Knows no other API."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Query
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, Field

from ... import images
from ...errors import UsageError
from ..jobs.events import JobEvent
from ..jobs.queue import Jobs
from ..storage.gallery import Gallery
from .responses import sse_response


class JobRequest(BaseModel):
    """A job to be done."""

    kind: str = Field("generate", description="What is to be done: generate.", max_length=40)
    settings: dict[str, Any] = Field(description="The settings of that verb; `prompts` may be several prompts.")


class JobFinished(UsageError):
    """What was asked for does not fit the state things are in."""

    status = 409


def router(jobs: Jobs, gallery: Gallery) -> APIRouter:
    """The routes under /api and /outputs."""
    routes = APIRouter(tags=["diffusekit"])

    @routes.post("/api/jobs", status_code=202)
    async def submit(wanted: JobRequest) -> Response:
        """Queue a job."""
        job = await jobs.submit_async(wanted.kind, wanted.settings, owner="api")
        return JSONResponse(job.to_json(), 202, {"Location": f"/api/jobs/{job.id}"})

    @routes.get("/api/jobs")
    def newest(limit: int = Query(100, ge=1, le=1000)) -> list[dict[str, Any]]:
        """The newest jobs, newest first."""
        return [job.to_json() for job in jobs.list(limit)]

    @routes.get("/api/jobs/{job_id}")
    def one(job_id: str) -> dict[str, Any]:
        """A job, and how many come before it."""
        return jobs.get(job_id).to_json() | {"ahead": jobs.count_ahead(job_id)}

    @routes.delete("/api/jobs/{job_id}")
    def cancel(job_id: str) -> dict[str, Any]:
        """Stop a job after its present step; finished pictures stay."""
        if jobs.get(job_id).is_finished:
            raise JobFinished(f"job {job_id} is over already", "there is nothing left to stop")
        return jobs.cancel(job_id).to_json()

    @routes.get("/api/jobs/{job_id}/events")
    async def events(job_id: str, previews: bool = True) -> StreamingResponse:
        """Progress, previews and the end of a job as server-sent events. Leaving does not cancel."""
        jobs.get(job_id)
        return sse_response(_events(jobs, job_id, previews=previews))

    @routes.get("/api/pictures")
    def pictures(
        words: str = Query("", max_length=1000),
        limit: int = Query(100, ge=1, le=1000),
        offset: int = Query(0, ge=0),
    ) -> list[dict[str, Any]]:
        """Finished pictures whose prompt holds all words, newest first."""
        return [vars(entry) for entry in gallery.search(words, limit=limit, offset=offset)]

    @routes.head("/outputs/{name:path}", include_in_schema=False)
    @routes.get("/outputs/{name:path}")
    def picture(name: str) -> Response:
        """A finished picture."""
        return FileResponse(gallery.path_of(name), headers={"Cache-Control": "private"})

    return routes


async def _events(jobs: Jobs, job_id: str, *, previews: bool) -> AsyncIterator[str]:
    async with contextlib.aclosing(jobs.watch_async(job_id, previews=previews)) as events:
        async for event in events:
            said = await asyncio.to_thread(_said, event)
            yield f"event: {event.kind}\ndata: {json.dumps(said)}\n\n"


def _said(event: JobEvent) -> dict[str, Any]:
    shown = [base64.b64encode(images.encode(p, "WEBP")).decode() for p in event.preview]
    return event.job.to_json() | ({"preview_webp": shown} if shown else {})
