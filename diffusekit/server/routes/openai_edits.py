"""OpenAI's `/v1/images/edits` and `/v1/images/variations`: multipart forms with an image, and what they become.

An edit with a mask, or with transparent pixels, paints what is transparent. One without starts from the image.
"""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import Field, ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from ...errors import DiffusekitError, FileRefused, UsageError
from ...mask import Mask
from ...start_image import StartImage
from ..jobs.queue import Jobs
from ..storage import sources
from .openai_images import ImagesRequest, read_request, respond
from .requests import merge
from .sent_images import store_images

MAX_FILES, MAX_FIELDS, MAX_FIELD = 17, 60, 200_000  # of a form; the last in bytes
FILES = ("image", "mask")


class EditRequest(ImagesRequest):
    """The fields of a form beside its files. Without a size, the result has that of the image."""

    strength: float | None = Field(None, description="How much changes. Default: 1 where it is painted, else 0.6.")


class VariationRequest(EditRequest):
    """A variation needs no prompt."""

    prompt: str = ""


def router(jobs: Jobs) -> APIRouter:
    """The routes that take forms."""
    routes = APIRouter(prefix="/v1", tags=["OpenAI"])

    @routes.post("/images/edits")
    async def edits(request: Request) -> Response:
        """Change an image, or paint what is transparent in it or in a mask; to leave cancels."""
        body, files = await _read_form(request, EditRequest)
        settings, warnings = await asyncio.to_thread(_read_edit, body, files, jobs)
        return await respond(jobs, request, body, settings, warnings, event="image_edit")

    @routes.post("/images/variations")
    async def variations(request: Request) -> Response:
        """Generate images that resemble an image; to leave cancels."""
        body, files = await _read_form(request, VariationRequest)
        if "mask" in files:
            raise UsageError("mask is not taken by variations", "use /v1/images/edits")
        settings, warnings = await asyncio.to_thread(_read_edit, body, files, jobs, takes_mask=False)
        return await respond(jobs, request, body, settings, warnings, event="image_edit")

    return routes


async def _read_form(request: Request, kind: type[EditRequest]) -> tuple[EditRequest, dict[str, list[bytes]]]:
    """Read a form: its fields, and the bytes of its files by name. Raises `UsageError` for anything else."""
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise UsageError("the body is not a form", "send multipart/form-data with the file image")
    fields: dict[str, str] = {}
    files: dict[str, list[bytes]] = {}
    try:
        form = await request.form(max_files=MAX_FILES, max_fields=MAX_FIELDS, max_part_size=MAX_FIELD)
    except HTTPException as error:
        raise UsageError(f"the form cannot be read: {error.detail}", "send image, mask and prompt") from None
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            files.setdefault(name.removesuffix("[]"), []).append(await value.read())
        else:
            fields[name] = value
    await form.close()
    try:
        return kind.model_validate(fields), files
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        raise UsageError(f"{name}: {first['msg']}", "see docs/serving.md") from None


def _read_edit(
    body: EditRequest, files: dict[str, list[bytes]], jobs: Jobs, *, takes_mask: bool = True
) -> tuple[dict[str, Any], list[str]]:
    """The settings of a generate job with an image, and warnings of what has no effect."""
    settings, warnings = read_request(body, jobs)
    if "image" not in files:
        raise UsageError("image is missing", "send an image file in the form")
    if len(files["image"]) > 1:
        warnings = merge(warnings, [f"only the first of {len(files['image'])} images has an effect"])
    others = [name for name in files if name not in FILES]
    warnings = merge(warnings, [f"{name[:60]} is not a known file and has no effect" for name in others])
    opened = _open("image", files["image"][0], jobs)
    start, mask = StartImage.open(opened), None
    if "mask" in files:
        mask = Mask.from_transparency(_open("mask", files["mask"][0], jobs))
        if mask is None:
            raise UsageError("mask has no transparent pixels", "what is transparent is painted")
    elif takes_mask:
        mask = Mask.from_transparency(opened)
    settings["strength"] = body.strength
    width, height = settings.get("width"), settings.get("height")
    size = (width, height) if width and height else None
    return settings | store_images(jobs, start, mask, size=size), warnings


def _open(name: str, data: bytes, jobs: Jobs) -> Any:
    try:
        return sources.open_sent(data, jobs.settings)
    except DiffusekitError as error:
        raise FileRefused(f"{name}: {error.message}", error.hint) from None
