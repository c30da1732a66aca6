"""diffusekit's own HTTP API: jobs, their events, and the gallery."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from pydantic import ConfigDict, Field

from ... import images
from ..errors import JobFinished
from ..jobs.events import JobEvent
from ..jobs.queue import Jobs
from ..storage.gallery import Gallery
from .requests import ApiRequest
from .responses import sse_response
from .sent_images import store_base64

EVENT_NAMES = {"requeued": "kept"}  # where clients know an event by another name


class JobRequest(ApiRequest):
    """A job to run. A field that is null has its default."""

    model_config = ConfigDict(extra="forbid")

    kind: str = Field("generate", description="What to do: generate.", max_length=40)
    settings: dict[str, Any] = Field(description="The settings of that verb; `prompts` may be several prompts.")
    image: str | None = Field(None, description="A start image, in base64 or as a data: URL.")
    mask: str | None = Field(None, description="Where the start image is painted: white. In base64.")


def router(jobs: Jobs, gallery: Gallery) -> APIRouter:
    """The routes under /api and /outputs."""
    routes = APIRouter(tags=["diffusekit"])
    _add_jobs(routes, jobs)
    _add_images(routes, gallery)
    return routes


def _add_jobs(routes: APIRouter, jobs: Jobs) -> None:
    @routes.post("/api/jobs", status_code=202)
    async def submit(body: JobRequest, request: Request) -> Response:
        """Queue a job."""
        warnings = _server_settings(body.settings, jobs)
        ids = await asyncio.to_thread(store_base64, jobs, body.image, body.mask)
        job = await jobs.submit_async(body.kind, body.settings | ids, owner="api", warnings=warnings)
        root_path = request.scope.get("root_path", "")
        return JSONResponse(job.to_json(), 202, {"Location": f"{root_path}/api/jobs/{job.id}"})

    @routes.get("/api/jobs")
    def list_jobs(limit: int = Query(100, ge=1, le=1000)) -> list[dict[str, Any]]:
        """The newest jobs, newest first."""
        return [job.to_json() for job in jobs.list(limit)]

    @routes.get("/api/jobs/{job_id}")
    def get(job_id: str) -> dict[str, Any]:
        """A job, and how many come before it."""
        return jobs.get(job_id).to_json() | {"ahead": jobs.count_ahead(job_id)}

    @routes.delete("/api/jobs/{job_id}")
    def cancel(job_id: str) -> dict[str, Any]:
        """Stop a job after its present step; finished images stay."""
        if jobs.get(job_id).is_finished:
            raise JobFinished(f"job {job_id} is finished", "it can no longer be cancelled")
        return jobs.cancel(job_id).to_json()

    @routes.get("/api/jobs/{job_id}/events")
    async def events(job_id: str, previews: bool = True) -> StreamingResponse:
        """Progress, previews and the end of a job as server-sent events. To leave does not cancel."""
        jobs.get(job_id)
        return sse_response(_events(jobs, job_id, previews=previews))


def _server_settings(given: Mapping[str, Any], jobs: Jobs) -> list[str]:
    """A sentence about each given setting that only the server decides."""
    own = {name: getattr(jobs.settings, name) for name in ("device", "dtype", "attention", "memory")}
    return [
        f"{name} has no effect: this server uses {own[name] or 'what is free'}"
        for name in own
        if given.get(name, own[name]) not in (None, "auto", own[name])
    ]


def _add_images(routes: APIRouter, gallery: Gallery) -> None:
    @routes.get("/api/pictures")
    def search(
        words: str = Query("", max_length=1000),
        limit: int = Query(100, ge=1, le=1000),
        offset: int = Query(0, ge=0),
    ) -> list[dict[str, Any]]:
        """Finished images whose prompt contains all words, newest first."""
        return [vars(entry) for entry in gallery.search(words, limit=limit, offset=offset)]

    @routes.head("/outputs/{name:path}", include_in_schema=False)
    @routes.get("/outputs/{name:path}")
    def image(name: str) -> Response:
        """A finished image."""
        return FileResponse(gallery.path_of(name), headers={"Cache-Control": "private"})


async def _events(jobs: Jobs, job_id: str, *, previews: bool) -> AsyncIterator[str]:
    async with contextlib.aclosing(jobs.watch_async(job_id, previews=previews)) as events:
        async for event in events:
            name = EVENT_NAMES.get(event.kind, event.kind)
            data = await asyncio.to_thread(_event_data, event)
            yield f"event: {name}\ndata: {json.dumps(data)}\n\n"


def _event_data(event: JobEvent) -> dict[str, Any]:
    previews = [base64.b64encode(images.encode(image, "WEBP")).decode() for image in event.preview]
    return event.job.to_json() | ({"preview_webp": previews} if previews else {})
