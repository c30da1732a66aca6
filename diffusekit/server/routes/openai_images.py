"""The API that any OpenAI client knows: `/v1/images/generations`, with partial images, and `/v1/models`.

Fields that mean nothing here (quality, style, background, user) are ignored. Knows no other API.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
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
from ..errors import ErrorResponse, error_body
from ..jobs.job import Job
from ..jobs.queue import Jobs
from .responses import raise_if_failed, sse_response, wait_for_job

ENDINGS = {"png": ".png", "webp": ".webp", "jpeg": ".jpg"}
USAGE = {
    "input_tokens": 0,
    "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
    "output_tokens": 0,
    "total_tokens": 0,
}


class ImagesRequest(BaseModel):
    """OpenAI's request, and the extensions that other local servers have too."""

    prompt: str
    model: str | None = None
    n: int = 1
    size: str = Field("auto", description="WIDTHxHEIGHT, or auto: what suits the model.")
    response_format: Literal["b64_json", "url"] = "b64_json"
    output_format: Literal["png", "webp", "jpeg"] = "png"
    stream: bool = False
    partial_images: int = Field(0, ge=0, le=3)
    negative_prompt: str = ""
    steps: int = Field(20, validation_alias=AliasChoices("num_inference_steps", "steps"))
    guidance_scale: float | None = None
    seed: int | None = None
    sampler: str | None = None


class ModelNotFound(UsageError):
    """A model that this server does not have."""

    status = 404


def router(jobs: Jobs) -> APIRouter:
    """The routes under /v1."""
    routes = APIRouter(prefix="/v1", tags=["OpenAI"])
    began = int(time.time())

    @routes.get("/models")
    def models() -> dict[str, Any]:
        """The models that requests may name."""
        common = {"object": "model", "created": began, "owned_by": "diffusekit"}
        return {"object": "list", "data": [{"id": title} | common for title in jobs.models()]}

    @routes.get("/models/{name:path}")
    def model(name: str) -> dict[str, Any]:
        """One of them."""
        _known_model(jobs, name)
        return {"id": name, "object": "model", "created": began, "owned_by": "diffusekit"}

    @routes.post("/images/generations")
    async def generations(wanted: ImagesRequest, request: Request) -> Response:
        """Make pictures and wait for them, or stream them; leaving cancels."""
        asked = _settings(wanted, jobs)
        job = await jobs.submit_async("generate", asked, owner="openai")
        if wanted.stream:
            return sse_response(_events(jobs, job, wanted))
        job = await wait_for_job(request, jobs, job)
        if not job.pictures:
            raise UsageError(f"job {job.id} was cancelled before a picture was finished")
        common = {"created": int(job.created), "output_format": wanted.output_format}
        if wanted.response_format == "url":
            data = [{"url": f"{request.base_url}outputs/{name}"} for name in job.pictures]
            return JSONResponse(common | {"data": data, "output_format": "png", "usage": USAGE})
        made = await asyncio.to_thread(_files, jobs, job, wanted.output_format)
        data = [{"b64_json": base64.b64encode(file).decode()} for file, _ in made]
        return JSONResponse(common | {"data": data, "size": made[0][1], "usage": USAGE})

    return routes


def _settings(wanted: ImagesRequest, jobs: Jobs) -> dict[str, Any]:
    """Our settings of OpenAI's."""
    asked: dict[str, Any] = {
        "prompt": wanted.prompt,
        "negative_prompt": wanted.negative_prompt,
        "images": wanted.n,
        "steps": wanted.steps,
        "guidance_scale": wanted.guidance_scale,
        "seed": wanted.seed,
        "sampler": wanted.sampler,
    }
    if wanted.model is not None:
        asked["model"] = _known_model(jobs, wanted.model)
    if wanted.size != "auto":
        width, cross, height = wanted.size.lower().partition("x")
        if not (cross and width.isdecimal() and height.isdecimal() and len(wanted.size) < 20):
            raise UsageError(f"size is WIDTHxHEIGHT or auto, got {wanted.size[:60]!r}")
        asked |= {"width": int(width), "height": int(height)}
    return asked


def _known_model(jobs: Jobs, name: str) -> str:
    known = jobs.models()
    if name not in known:
        raise ModelNotFound(f"model {name[:100]!r} is not one this server has", f"there are: {', '.join(known)}")
    return known[name]


def _files(jobs: Jobs, job: Job, kind: str) -> list[tuple[bytes, str]]:
    """The bytes of a job's pictures in a format, with the same record inside, and their sizes."""
    return [_file(jobs.outputs / name, kind) for name in job.pictures]


def _file(path: Path, kind: str) -> tuple[bytes, str]:
    with images.open_image(path) as picture:
        size = f"{picture.width}x{picture.height}"
        if kind == "png":
            return path.read_bytes(), size
        with tempfile.TemporaryDirectory(prefix="diffusekit-") as folder:
            other = Path(folder, "picture").with_suffix(ENDINGS[kind])
            metadata.save(picture, other, metadata.read(path).record)
            return other.read_bytes(), size


async def _events(jobs: Jobs, job: Job, wanted: ImagesRequest) -> AsyncIterator[str]:
    """Partial images while they come to be, then every picture; leaving cancels."""
    count = wanted.partial_images
    sent, ended = 0, False
    try:
        watching = jobs.watch_async(job.id, previews=False, partials=count)
        async with contextlib.aclosing(watching) as events:
            async for event in events:
                if event.preview and sent < count:
                    said = await asyncio.to_thread(_partial, event.preview[0], wanted, job)
                    yield _event("partial_image", said | {"partial_image_index": sent})
                    sent += 1
                if event.is_last:
                    ended = True
                    job = raise_if_failed(event)
        for file, size in await asyncio.to_thread(_files, jobs, job, wanted.output_format):
            said = _shown(file, size, wanted, job)
            yield _event("completed", said | {"usage": USAGE})
    except DiffusekitError as error:
        said = {"type": "error"} | error_body(ErrorResponse.from_error(error), "/v1/")
        yield f"event: error\ndata: {json.dumps(said)}\n\n"
    finally:
        if not ended:
            jobs.cancel(job.id)


def _event(kind: str, said: dict[str, Any]) -> str:
    name = f"image_generation.{kind}"
    return f"event: {name}\ndata: {json.dumps({'type': name} | said)}\n\n"


def _partial(picture: Image.Image, wanted: ImagesRequest, job: Job) -> dict[str, Any]:
    kind = wanted.output_format.upper()
    return _shown(images.encode(picture, kind), f"{picture.width}x{picture.height}", wanted, job)


def _shown(file: bytes, size: str, wanted: ImagesRequest, job: Job) -> dict[str, Any]:
    return {
        "b64_json": base64.b64encode(file).decode(),
        "created_at": int(job.created),
        "size": size,
        "quality": "auto",
        "background": "opaque",
        "output_format": wanted.output_format,
    }
