"""A1111's API, `/sdapi/v1`, which Open WebUI, SillyTavern, LibreChat and `webuiapi` use.

Fields that have no effect are named in the response.
"""

from __future__ import annotations

import asyncio
import base64
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from ... import embeddings, images, lora, metadata
from ...errors import DiffusekitError, FileRefused
from ...schedule import SAMPLERS
from ...version import __version__
from ..errors import ErrorResponse
from ..jobs.job import Job
from ..jobs.queue import Jobs
from .a1111_fields import FIELDS, Txt2ImgRequest, ignored_options, read_request
from .a1111_img2img import Img2ImgRequest, read_img2img
from .requests import decode_base64, spell_fields
from .responses import read_images, wait_for_job

WARNINGS_HEADER = "X-Diffusekit-Warnings"  # a JSON list of sentences
MAX_HEADER = 4000  # characters


class PngInfoRequest(BaseModel):
    """An image file in base64, or as a `data:` URL."""

    image: str


def router(jobs: Jobs) -> APIRouter:
    """The routes under /sdapi/v1."""
    routes = APIRouter(prefix="/sdapi/v1", tags=["A1111"])
    _add_generation(routes, jobs)
    _add_options(routes, jobs)
    _add_lists(routes, jobs)
    _add_loras(routes, jobs)
    return routes


def error_body(error: ErrorResponse) -> dict[str, Any]:
    """An error as A1111's clients expect it."""
    return {"detail": error.sentence, "field": FIELDS.get(error.field, error.field), "code": error.code}


def _add_generation(routes: APIRouter, jobs: Jobs) -> None:
    @routes.post("/txt2img")
    async def txt2img(body: Txt2ImgRequest, request: Request, response: Response) -> dict[str, Any]:
        """Generate images and wait for them; to leave cancels."""
        settings, warnings = await asyncio.to_thread(read_request, body, jobs)
        return await _generate(jobs, body, settings, warnings, request, response) | {"parameters": body.model_dump()}

    @routes.post("/img2img")
    async def img2img(body: Img2ImgRequest, request: Request, response: Response) -> dict[str, Any]:
        """Generate images from an image, or paint a part of it, and wait for them; to leave cancels."""
        settings, warnings = await asyncio.to_thread(read_img2img, body, jobs)
        sent = body.model_dump()
        if not body.include_init_images:
            sent |= {"init_images": None, "mask": None}
        return await _generate(jobs, body, settings, warnings, request, response) | {"parameters": sent}

    @routes.get("/progress")
    def progress(skip_current_image: bool = False) -> dict[str, Any]:
        """The progress of the running job."""
        return _progress(jobs, preview=not skip_current_image)

    @routes.post("/interrupt")
    def interrupt() -> dict[str, Any]:
        """Stop the running job if it generates images; a training continues."""
        if (job := jobs.running_job) and job.kind == "generate":
            jobs.cancel(job.id)
        return {}

    @routes.post("/skip")
    def skip() -> dict[str, Any]:
        """Continue with the running job's next image."""
        if (job := jobs.running_job) and job.kind == "generate":
            jobs.skip(job.id)
        return {}


async def _generate(
    jobs: Jobs,
    body: Txt2ImgRequest,
    settings: dict[str, Any],
    warnings: list[str],
    request: Request,
    response: Response,
) -> dict[str, Any]:
    """Run a job to its end; return its images and `info`."""
    job = await jobs.submit_async("generate", settings, owner="sdapi", warnings=warnings)
    job = await wait_for_job(request, jobs, job)
    files = await read_images(jobs, job) if body.send_images else []
    info = await asyncio.to_thread(_info, jobs, job)
    if header := warnings_header(info["warnings"]):
        response.headers[WARNINGS_HEADER] = header
    return {"images": [base64.b64encode(file).decode() for file in files], "info": json.dumps(info)}


def _add_options(routes: APIRouter, jobs: Jobs) -> None:
    @routes.get("/options")
    def get_options() -> dict[str, Any]:
        vae = jobs.models.vae or "Automatic"
        return {"sd_model_checkpoint": jobs.models.a1111_title, "sd_vae": vae, "samples_format": "png"}

    @routes.post("/options")
    def set_options(options: dict[str, Any], response: Response) -> None:
        """Choose the model of all requests that name none, and the VAE; a header names the other options."""
        if title := options.get("sd_model_checkpoint"):
            jobs.models.choose_default(title)
        if "sd_vae" in options:
            jobs.models.choose_vae(options["sd_vae"])
        if header := warnings_header(ignored_options(options)):
            response.headers[WARNINGS_HEADER] = header

    @routes.post("/png-info")
    def png_info(body: PngInfoRequest) -> dict[str, Any]:
        """The metadata of an image file."""
        return _png_info(body.image)

    @routes.post("/refresh-embeddings")
    def refresh_embeddings() -> dict[str, Any]:
        """Do nothing: the folder is read whenever a prompt needs it."""
        return {}


def _add_loras(routes: APIRouter, jobs: Jobs) -> None:
    @routes.get("/loras")
    def loras() -> list[dict[str, Any]]:
        """The LoRA files that prompts may name: `<lora:name:0.8>`."""
        return _loras(jobs.loras)

    @routes.post("/refresh-loras")
    def refresh_loras() -> dict[str, Any]:
        """Do nothing: the folder is read for every request."""
        return {}


def _add_lists(routes: APIRouter, jobs: Jobs) -> None:
    """The routes that list what there is."""

    @routes.get("/sd-models")
    def sd_models() -> list[dict[str, Any]]:
        return jobs.models.list_a1111()

    @routes.get("/samplers")
    def samplers() -> list[dict[str, Any]]:
        names = {s.label: name for name, s in reversed(SAMPLERS.items())}
        return [{"name": n, "aliases": [own], "options": {}} for n, own in names.items()][::-1]

    @routes.get("/schedulers")
    def schedulers() -> list[dict[str, Any]]:
        labels = ["Automatic", *sorted({s.schedule_type for s in SAMPLERS.values()} - {""}), "SGM Uniform"]
        more = {"aliases": None, "default_rho": -1, "need_inner_model": False}
        return [{"name": label.lower(), "label": label} | more for label in labels]

    @routes.get("/embeddings")
    def list_embeddings() -> dict[str, Any]:
        return _embeddings(jobs.embeddings)

    @routes.get("/upscalers")
    def upscalers() -> list[dict[str, Any]]:
        return [{"name": "None", "model_name": None, "model_path": None, "model_url": None, "scale": 1}]

    @routes.get("/latent-upscale-modes")
    def latent_upscale_modes() -> list[dict[str, Any]]:
        return []

    @routes.get("/sd-vae")
    def sd_vae() -> list[dict[str, str]]:
        return jobs.models.list_vae()

    @routes.post("/refresh-checkpoints")
    @routes.post("/refresh-vae")
    def refresh_models() -> None:
        """Do nothing: the folders are read for every request."""


def warnings_header(sentences: Sequence[str]) -> str:
    """The value of the header: as many sentences as it may hold, "" for none."""
    shown = list(sentences)
    while len(text := json.dumps(shown)) > MAX_HEADER:
        shown.pop()
    return text if shown else ""


def _info(jobs: Jobs, job: Job) -> dict[str, Any]:
    """What A1111's clients read from the `info` string of a response."""
    about = [metadata.read(jobs.outputs / name).record for name in job.pictures]
    records = [record for record in about if record is not None]
    asked = job.settings
    used = records[0].settings.model_dump(mode="json") if records else asked
    seeds = [record.settings.seed for record in records]
    return {
        "prompt": asked["prompts"][0],
        "all_prompts": [record.settings.prompt for record in records],
        "negative_prompt": asked["negative_prompt"],
        "seed": asked["seed"],
        "all_seeds": seeds,
        "subseed": asked["seed"],
        "all_subseeds": seeds,
        "width": used["width"],
        "height": used["height"],
        "sampler_name": SAMPLERS[used["sampler"]].label if used["sampler"] else "",
        "cfg_scale": used["guidance_scale"],
        "steps": used["steps"],
        "batch_size": asked["images"],
        "sd_model_name": jobs.models.title_of(asked["model"]),
        "sd_model_hash": records[0].model_hash[:10] if records else "",
        "infotexts": [metadata.format_infotext(record) for record in records],
        "job_timestamp": time.strftime("%Y%m%d%H%M%S", time.localtime(job.created)),
        "warnings": spell_fields(job.warnings, FIELDS),
        "version": f"diffusekit {__version__}",
    }


def _progress(jobs: Jobs, *, preview: bool) -> dict[str, Any]:
    job, previews = jobs.running_job, jobs.request_preview() if preview else ()
    stamp = time.strftime("%Y%m%d%H%M%S", time.localtime(job.created)) if job else "0"
    encoded = base64.b64encode(images.encode(previews[0], "PNG")).decode() if previews else None
    return {
        "progress": job.progress if job else 0.0,
        "eta_relative": (job.eta or 0.0) if job else 0.0,
        "state": {
            "skipped": False,
            "interrupted": False,
            "stopping_generation": False,
            "job": job.id if job else "",
            "job_count": int(job is not None) + jobs.queue_length,
            "job_timestamp": stamp,
            "job_no": len(job.pictures) if job else 0,
            "sampling_step": job.step if job else 0,
            "sampling_steps": job.steps if job else 0,
        },
        "current_image": encoded,
        "textinfo": (job.note or None) if job else None,
    }


def _png_info(text: str) -> dict[str, Any]:
    about = _read_metadata(decode_base64(text))
    return {"info": about.text, "items": about.items, "parameters": about.parameters}


def _read_metadata(data: bytes) -> metadata.ImageMetadata:
    """Read the metadata of an image file that was sent; the file is deleted afterwards."""
    with tempfile.TemporaryDirectory(prefix="diffusekit-") as folder:
        path = Path(folder, "picture")
        path.write_bytes(data)
        try:
            return metadata.read(path)
        except FileRefused as error:
            raise FileRefused(error.message.replace(str(path), "the image"), error.hint) from None


def _loras(folder: Path) -> list[dict[str, Any]]:
    return [
        {"name": name, "alias": header.alias or name, "path": header.path.name, "metadata": dict(header.metadata)}
        for name, header in lora.list_loras(folder).items()
    ]


def _embeddings(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = {}
    skipped: dict[str, Any] = {}
    for path in embeddings.list_files(folder):
        try:
            token = embeddings.read(path)
        except DiffusekitError:
            skipped[path.stem] = {}
            continue
        empty = {"step": None, "sd_checkpoint": None, "sd_checkpoint_name": None}
        loaded[token.name] = empty | {"shape": sum(token.width), "vectors": token.count}
    return {"loaded": loaded, "skipped": skipped}
