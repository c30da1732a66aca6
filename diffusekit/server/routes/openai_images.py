"""OpenAI's image API: `/v1/images/generations`, with partial images, and `/v1/models`.

Fields that have no effect are named in the response, as is the model.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from PIL import Image
from pydantic import AliasChoices, Field

from ... import images, metadata
from ...errors import DiffusekitError, ImagesFlagged, UsageError
from ..errors import ErrorResponse, ModelNotFound
from ..jobs.job import Job
from ..jobs.queue import Jobs
from .requests import ApiRequest, Neutral, fit_size, ignored_fields, merge, sampler_settings, spell_fields
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


# Fields without an effect here.
NEUTRAL: Neutral = {
    "quality": ("auto", "standard"),
    "style": ("vivid",),
    "background": ("auto", "opaque"),
    "moderation": ("auto",),
    "output_compression": (100,),
    "input_fidelity": (),
    "user": None,
    "safety_identifier": None,
    "prompt_cache_key": None,
}
# OpenAI's models, which clients send without being told: the server's own is used instead.
OPENAI_MODEL = re.compile(r"(openai/)?(chatgpt-image|dall-?e|gpt-image|gpt-4o-image)[\w.:-]*", re.IGNORECASE)


_DEFAULT = "Null: the model's default."


class ImagesRequest(ApiRequest):
    """OpenAI's request, with extensions that other local servers have too."""

    prompt: str = Field(examples=["a red cat"])
    model: str = Field("", description="A model of this server. Empty, or one of OpenAI's: the server's own.")
    n: int = 1
    size: str = Field("auto", description="WIDTHxHEIGHT, rounded to what the model takes, or auto: its native size.")
    response_format: Literal["b64_json", "url"] = "b64_json"
    output_format: Literal["png", "webp", "jpeg"] = "png"
    stream: bool = False
    partial_images: int = Field(0, ge=0, le=3)
    negative_prompt: str = ""
    steps: int | None = Field(
        None, validation_alias=AliasChoices("num_inference_steps", "steps"), examples=[20], description=_DEFAULT
    )
    guidance_scale: float | None = Field(None, examples=[3])
    guidance_rescale: float = Field(0.0, examples=[0])
    seed: int | None = Field(None, examples=[-1], description="-1 or null: random.")
    sampler: str | None = Field(None, examples=["dpm++_2m"])
    lora: list[str] = Field([], examples=[[]], description="LoRA files with their strengths: NAME:0.8.")


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
        settings, warnings = await asyncio.to_thread(read_request, body, jobs)
        return await respond(jobs, request, body, settings, warnings)

    return routes


async def respond(
    jobs: Jobs,
    request: Request,
    body: ImagesRequest,
    settings: dict[str, Any],
    warnings: list[str],
    *,
    event: str = "image_generation",
) -> Response:
    """Run a job and answer with its images, or with a stream of events whose names begin with `event`."""
    job = await jobs.submit_async("generate", settings, owner="openai", warnings=warnings)
    if body.stream:
        return sse_response(_events(jobs, job, body, event))
    job = await wait_for_job(request, jobs, job)
    if not job.pictures:
        raise UsageError(f"job {job.id} was cancelled before an image was finished")
    is_url = body.response_format == "url"
    kind = "png" if is_url else body.output_format
    files = await asyncio.to_thread(_files, jobs, job, kind)
    data = [{"b64_json": base64.b64encode(file).decode()} for file, _ in files]
    if is_url:
        data = [{"url": f"{request.base_url}outputs/{name}"} for name in job.pictures]
    common = {"created": int(job.created), "output_format": kind, "data": data, "size": files[0][1]}
    return JSONResponse(common | {"usage": USAGE} | _origin(jobs, job))


def read_request(body: ImagesRequest, jobs: Jobs) -> tuple[dict[str, Any], list[str]]:
    """The settings of a generate job, and warnings of what has no effect."""
    warnings = ignored_fields(body.model_extra or {}, NEUTRAL, type(body).model_fields)
    if body.partial_images and not body.stream:
        warnings.append("partial_images has no effect without stream")
    if body.response_format == "url" and body.stream:
        warnings.append("response_format has no effect in a stream, which carries the images")
    elif body.response_format == "url" and body.output_format != "png":
        warnings.append("output_format has no effect with response_format url, which is that of a PNG")
    model, model_warnings = _find_model(body.model.strip(), jobs)
    size, size_warnings = fit_size(jobs.models, model, *_parse_size(body.size))
    sampler, sampler_warnings = sampler_settings(body.sampler, None, jobs.models.defaults_of(model).sampler)
    settings: dict[str, Any] = {
        "prompt": body.prompt,
        "negative_prompt": body.negative_prompt,
        "images": body.n,
        "steps": body.steps,
        "guidance_scale": body.guidance_scale,
        "guidance_rescale": body.guidance_rescale,
        "seed": None if body.seed == -1 else body.seed,
        "lora": body.lora,
        "model": model,
        **sampler,
        **size,
    }
    return settings, merge(warnings, model_warnings, size_warnings, sampler_warnings)


def _find_model(name: str, jobs: Jobs) -> tuple[str, list[str]]:
    """The model that a request means; a model of OpenAI's is answered with the server's."""
    if not name:
        return jobs.models.default, []
    if name not in jobs.models.names() and OPENAI_MODEL.fullmatch(name):
        return jobs.models.default, [f"model {name[:60]!r} is not on this server; {jobs.models.default_title} was used"]
    return jobs.models.resolve(name, ModelNotFound), []


def _parse_size(size: str) -> tuple[int | None, int | None]:
    """Width and height; none for the native size."""
    text = "".join(size.lower().replace("×", "x").split())
    if text in ("", "auto"):
        return None, None
    width, cross, height = text.partition("x")
    if not (cross and width.isdecimal() and height.isdecimal() and len(text) < 20):
        raise UsageError(f"size must be WIDTHxHEIGHT or auto, got {size[:60]!r}")
    return int(width), int(height)


def _origin(jobs: Jobs, job: Job) -> dict[str, Any]:
    """The model of a job, and what of the request had no effect."""
    return {"model": jobs.models.title_of(job.settings["model"]), "warnings": spell_fields(job.warnings, FIELDS)}


def error_body(error: ErrorResponse) -> dict[str, Any]:
    """An error as OpenAI's clients expect it."""
    field = FIELDS.get(error.field, error.field)
    codes = {401: "invalid_api_key", 429: "queue_full", 503: "unavailable"}
    if error.code == ImagesFlagged.exit_code:  # as OpenAI answers for an image that it does not hand out
        codes[error.status] = "content_policy_violation"
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


async def _events(jobs: Jobs, job: Job, body: ImagesRequest, name: str) -> AsyncIterator[str]:
    """Partial images while the job runs, then every image; to leave cancels."""
    sent = 0
    try:
        async with follow(jobs, job, partials=body.partial_images) as events:
            async for event in events:
                if event.preview and sent < body.partial_images:
                    data = await asyncio.to_thread(_partial_data, event.preview[0], body, job)
                    yield _event(f"{name}.partial_image", data | {"partial_image_index": sent})
                    sent += 1
                if event.is_last:
                    job = raise_if_failed(event)
        for file, size in await asyncio.to_thread(_files, jobs, job, body.output_format):
            yield _event(
                f"{name}.completed", _image_data(file, size, body, job) | {"usage": USAGE} | _origin(jobs, job)
            )
    except DiffusekitError as error:
        data = {"type": "error"} | error_body(ErrorResponse.from_error(error))
        yield f"event: error\ndata: {json.dumps(data)}\n\n"


def _event(name: str, data: dict[str, Any]) -> str:
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
