"""OpenAI's image API: `/v1/images/generations`, with partial images, and `/v1/models`.

Fields without a meaning here (quality, style, background, user) are ignored.
"""

from __future__ import annotations

import asyncio
import base64
import json
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from PIL import Image
from pydantic import AliasChoices, BaseModel, Field

from ... import images, metadata
from ...errors import DiffusekitError, UsageError
from ..errors import ErrorResponse, ModelNotFound
from ..jobs.job import Job
from ..jobs.queue import Jobs
from .responses import follow, raise_if_failed, sse_response, wait_for_job

# How OpenAI's clients spell the fields of `GenerateSettings`.
FIELDS = {"steps": "num_inference_steps", "images": "n", "width": "size", "height": "size"}
ENDINGS = {"png": ".png", "webp": ".webp", "jpeg": ".jpg"}
USAGE = {
    "input_tokens": 0,
    "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
    "output_tokens": 0,
    "total_tokens": 0,
}


class ImagesRequest(BaseModel):
    """OpenAI's request, with extensions that other local servers have too."""

    prompt: str
    model: str | None = None
    n: int = 1
    size: str = Field("auto", description="WIDTHxHEIGHT, or auto: the model's native size.")
    response_format: Literal["b64_json", "url"] = "b64_json"
    output_format: Literal["png", "webp", "jpeg"] = "png"
    stream: bool = False
    partial_images: int = Field(0, ge=0, le=3)
    negative_prompt: str = ""
    steps: int = Field(20, validation_alias=AliasChoices("num_inference_steps", "steps"))
    guidance_scale: float | None = None
    seed: int | None = None
    sampler: str | None = None


def router(jobs: Jobs) -> APIRouter:
    """The routes under /v1."""
    routes = APIRouter(prefix="/v1", tags=["OpenAI"])
    started = int(time.time())

    @routes.get("/models")
    def models() -> dict[str, Any]:
        """The models that requests may name."""
        common = {"object": "model", "created": started, "owned_by": "diffusekit"}
        return {"object": "list", "data": [{"id": title} | common for title in jobs.models.names()]}

    @routes.get("/models/{name:path}")
    def model(name: str) -> dict[str, Any]:
        """One model."""
        jobs.models.resolve(name, ModelNotFound)
        return {"id": name, "object": "model", "created": started, "owned_by": "diffusekit"}

    @routes.post("/images/generations")
    async def generations(body: ImagesRequest, request: Request) -> Response:
        """Generate images and wait for them, or stream them; to leave cancels."""
        job = await jobs.submit_async("generate", _settings(body, jobs), owner="openai")
        if body.stream:
            return sse_response(_events(jobs, job, body))
        job = await wait_for_job(request, jobs, job)
        if not job.pictures:
            raise UsageError(f"job {job.id} was cancelled before an image was finished")
        common = {"created": int(job.created), "output_format": body.output_format}
        if body.response_format == "url":
            data = [{"url": f"{request.base_url}outputs/{name}"} for name in job.pictures]
            return JSONResponse(common | {"data": data, "output_format": "png", "usage": USAGE})
        files = await asyncio.to_thread(_files, jobs, job, body.output_format)
        data = [{"b64_json": base64.b64encode(file).decode()} for file, _ in files]
        return JSONResponse(common | {"data": data, "size": files[0][1], "usage": USAGE})

    return routes


def _settings(body: ImagesRequest, jobs: Jobs) -> dict[str, Any]:
    """The settings of a generate job."""
    settings: dict[str, Any] = {
        "prompt": body.prompt,
        "negative_prompt": body.negative_prompt,
        "images": body.n,
        "steps": body.steps,
        "guidance_scale": body.guidance_scale,
        "seed": body.seed,
        "sampler": body.sampler,
    }
    if body.model is not None:
        settings["model"] = jobs.models.resolve(body.model, ModelNotFound)
    if body.size != "auto":
        width, cross, height = body.size.lower().partition("x")
        if not (cross and width.isdecimal() and height.isdecimal() and len(body.size) < 20):
            raise UsageError(f"size must be WIDTHxHEIGHT or auto, got {body.size[:60]!r}")
        settings |= {"width": int(width), "height": int(height)}
    return settings


def error_body(error: ErrorResponse) -> dict[str, Any]:
    """An error as OpenAI's clients expect it."""
    field = FIELDS.get(error.field, error.field)
    codes = {401: "invalid_api_key", 429: "queue_full", 503: "unavailable"}
    return {
        "error": {
            "message": error.sentence,
            "type": "invalid_request_error" if error.status < 429 else "server_error",
            "param": field or None,
            "code": "model_not_found" if field == "model" else codes.get(error.status),
        }
    }


def _files(jobs: Jobs, job: Job, kind: str) -> list[tuple[bytes, str]]:
    """A job's image files in a format, with the same record inside, and their sizes."""
    return [_file(jobs.outputs / name, kind) for name in job.pictures]


def _file(path: Path, kind: str) -> tuple[bytes, str]:
    with images.open_image(path) as image:
        size = f"{image.width}x{image.height}"
        if kind == "png":
            return path.read_bytes(), size
        with tempfile.TemporaryDirectory(prefix="diffusekit-") as folder:
            other = Path(folder, "picture").with_suffix(ENDINGS[kind])
            metadata.save(image, other, metadata.read(path).record)
            return other.read_bytes(), size


async def _events(jobs: Jobs, job: Job, body: ImagesRequest) -> AsyncIterator[str]:
    """Partial images while the job runs, then every image; to leave cancels."""
    sent = 0
    try:
        async with follow(jobs, job, partials=body.partial_images) as events:
            async for event in events:
                if event.preview and sent < body.partial_images:
                    data = await asyncio.to_thread(_partial_data, event.preview[0], body, job)
                    yield _event("partial_image", data | {"partial_image_index": sent})
                    sent += 1
                if event.is_last:
                    job = raise_if_failed(event)
        for file, size in await asyncio.to_thread(_files, jobs, job, body.output_format):
            yield _event("completed", _image_data(file, size, body, job) | {"usage": USAGE})
    except DiffusekitError as error:
        data = {"type": "error"} | error_body(ErrorResponse.from_error(error))
        yield f"event: error\ndata: {json.dumps(data)}\n\n"


def _event(kind: str, data: dict[str, Any]) -> str:
    name = f"image_generation.{kind}"
    return f"event: {name}\ndata: {json.dumps({'type': name} | data)}\n\n"


def _partial_data(image: Image.Image, body: ImagesRequest, job: Job) -> dict[str, Any]:
    file = images.encode(image, body.output_format.upper())
    return _image_data(file, f"{image.width}x{image.height}", body, job)


def _image_data(file: bytes, size: str, body: ImagesRequest, job: Job) -> dict[str, Any]:
    return {
        "b64_json": base64.b64encode(file).decode(),
        "created_at": int(job.created),
        "size": size,
        "quality": "auto",
        "background": "opaque",
        "output_format": body.output_format,
    }
