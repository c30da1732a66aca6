"""The API that Open WebUI, SillyTavern, LibreChat and `webuiapi` know: A1111's `/sdapi/v1`.

What they send beyond what is done here is ignored. Knows no other API.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel

from ... import embeddings, images, metadata
from ...errors import DiffusekitError, FileRefused, UsageError
from ...schedule import SAMPLERS
from ...version import __version__
from ..jobs.job import Job
from ..jobs.queue import Jobs
from .responses import read_images, wait_for_job


class Txt2ImgRequest(BaseModel):
    """A1111's request, as far as it means something here. Sizes, guidance: None is what suits the model."""

    prompt: str = ""
    negative_prompt: str = ""
    seed: int = -1
    steps: int = 20
    cfg_scale: float | None = None
    width: int | None = None
    height: int | None = None
    sampler_name: str | None = None
    sampler_index: str | None = None
    scheduler: str | None = None
    batch_size: int = 1
    n_iter: int = 1
    send_images: bool = True
    override_settings: dict[str, Any] | None = None


class PngInfoRequest(BaseModel):
    """A picture file in base64, with or without `data:…,` before it."""

    image: str


class NotSupported(UsageError):
    """Something A1111 does and diffusekit does not."""

    status = 501


def router(jobs: Jobs) -> APIRouter:
    """The routes under /sdapi/v1."""
    routes = APIRouter(prefix="/sdapi/v1", tags=["A1111"])

    @routes.post("/txt2img")
    async def txt2img(wanted: Txt2ImgRequest, request: Request) -> dict[str, Any]:
        """Make pictures and wait for them; leaving cancels."""
        asked = _settings(wanted, jobs)
        job = await jobs.submit_async("generate", asked, owner="sdapi")
        job = await wait_for_job(request, jobs, job)
        made = await read_images(jobs, job)
        shown = [base64.b64encode(data).decode() for data in made] if wanted.send_images else []
        parameters = wanted.model_dump()
        info = await asyncio.to_thread(_info, jobs, job)
        return {"images": shown, "parameters": parameters, "info": json.dumps(info)}

    @routes.post("/img2img", include_in_schema=False)
    async def img2img() -> None:
        raise NotSupported("pictures from pictures are not made here", "use /sdapi/v1/txt2img")

    @routes.post("/png-info")
    def png_info(picture: PngInfoRequest) -> dict[str, Any]:
        """What a picture says of how it was made."""
        return _png_info(picture.image)

    @routes.get("/progress")
    def progress(skip_current_image: bool = False) -> dict[str, Any]:
        """How far the running job is."""
        return _progress(jobs, shown=not skip_current_image)

    @routes.post("/interrupt")
    def interrupt() -> dict[str, Any]:
        """Stop the job whose pictures are being made; a training goes on."""
        if (job := jobs.running_job) and job.kind == "generate":
            jobs.cancel(job.id)
        return {}

    @routes.post("/skip")
    def skip() -> dict[str, Any]:
        """Go on with the running job's next picture."""
        if (job := jobs.running_job) and job.kind == "generate":
            jobs.skip(job.id)
        return {}

    _about(routes, jobs)
    return routes


def _about(routes: APIRouter, jobs: Jobs) -> None:
    """The routes that say what there is."""

    @routes.get("/options")
    def options() -> dict[str, Any]:
        return {"sd_model_checkpoint": _title(jobs), "samples_format": "png"}

    @routes.post("/options")
    def choose(options: dict[str, Any]) -> None:
        """Choose the model of requests that name none; other options are ignored."""
        if title := options.get("sd_model_checkpoint"):
            jobs.model = _model(jobs, title)

    @routes.get("/sd-models")
    def sd_models() -> list[dict[str, Any]]:
        nothing = {"hash": None, "sha256": None, "filename": "", "config": None}
        return [{"title": title, "model_name": title} | nothing for title in jobs.models()]

    @routes.get("/samplers")
    def samplers() -> list[dict[str, Any]]:
        names = {s.label: name for name, s in reversed(SAMPLERS.items())}
        return [{"name": n, "aliases": [own], "options": {}} for n, own in names.items()][::-1]

    @routes.get("/schedulers")
    def schedulers() -> list[dict[str, Any]]:
        kinds = ["Automatic", *sorted({s.schedule_type for s in SAMPLERS.values()} - {""})]
        more = {"aliases": None, "default_rho": -1, "need_inner_model": False}
        return [{"name": kind.lower(), "label": kind} | more for kind in kinds]

    @routes.get("/embeddings")
    def learned() -> dict[str, Any]:
        return _learned(jobs)

    @routes.post("/refresh-embeddings")
    def refresh() -> dict[str, Any]:
        """Nothing to do: the folder is read whenever a prompt needs it."""
        return {}

    @routes.get("/upscalers")
    def upscalers() -> list[dict[str, Any]]:
        return [{"name": "None", "model_name": None, "model_path": None, "model_url": None, "scale": 1}]

    @routes.get("/latent-upscale-modes")
    def latent_upscale_modes() -> list[dict[str, Any]]:
        return []

    @routes.get("/sd-vae")
    def sd_vae() -> list[dict[str, Any]]:
        return []


def _settings(wanted: Txt2ImgRequest, jobs: Jobs) -> dict[str, Any]:
    """Our settings of A1111's."""
    asked: dict[str, Any] = {
        "prompt": wanted.prompt,
        "negative_prompt": wanted.negative_prompt,
        "steps": wanted.steps,
        "guidance_scale": wanted.cfg_scale,
        "seed": None if wanted.seed == -1 else wanted.seed,
        "images": wanted.batch_size * wanted.n_iter,
        "width": wanted.width,
        "height": wanted.height,
        "sampler": _sampler(wanted.sampler_name or wanted.sampler_index, wanted.scheduler),
    }
    if title := (wanted.override_settings or {}).get("sd_model_checkpoint"):
        asked["model"] = _model(jobs, title)
    return asked


def _sampler(label: str | None, scheduler: str | None) -> str | None:
    """A1111's names, older ones with the schedule in the name, or ours."""
    if not label or label in SAMPLERS:
        return label or None
    kind = "" if (scheduler or "automatic").lower() == "automatic" else (scheduler or "").lower()
    if label.endswith(" Karras"):
        label, kind = label.removesuffix(" Karras"), "karras"
    names = {(s.label.lower(), s.schedule_type.lower()): name for name, s in SAMPLERS.items()}
    found = names.get((label.lower(), kind)) or names.get((label.lower(), ""))
    if found is None:
        known = ", ".join(dict.fromkeys(s.label for s in SAMPLERS.values()))
        raise UsageError(f"sampler {label[:60]!r} is not known", f"there are: {known}")
    return found


def _model(jobs: Jobs, title: Any) -> str:
    known = jobs.models()
    if not isinstance(title, str) or title not in known:
        raise UsageError(
            f"model {str(title)[:100]!r} is not one this server has",
            f"there are: {', '.join(known)}",
        )
    return known[title]


def _title(jobs: Jobs) -> str:
    return next((t for t, name in jobs.models().items() if name == jobs.model), jobs.model)


def _info(jobs: Jobs, job: Job) -> dict[str, Any]:
    """What A1111's clients read from the `info` string of an answer."""
    found = [metadata.read(jobs.outputs / name).record for name in job.pictures]
    records = [record for record in found if record is not None]
    asked = job.settings
    made = records[0].settings.model_dump(mode="json") if records else asked
    sampler = SAMPLERS[asked["sampler"]]
    seeds = [record.settings.seed for record in records]
    return {
        "prompt": asked["prompts"][0],
        "all_prompts": [record.settings.prompt for record in records],
        "negative_prompt": asked["negative_prompt"],
        "seed": asked["seed"],
        "all_seeds": seeds,
        "subseed": asked["seed"],
        "all_subseeds": seeds,
        "width": made["width"],
        "height": made["height"],
        "sampler_name": sampler.label,
        "cfg_scale": made["guidance_scale"],
        "steps": asked["steps"],
        "batch_size": asked["images"],
        "sd_model_name": _title(jobs) if asked["model"] == jobs.model else asked["model"],
        "sd_model_hash": "",
        "infotexts": [metadata.format_infotext(record) for record in records],
        "job_timestamp": time.strftime("%Y%m%d%H%M%S", time.localtime(job.created)),
        "version": f"diffusekit {__version__}",
    }


def _progress(jobs: Jobs, *, shown: bool) -> dict[str, Any]:
    job, preview = jobs.running_job, jobs.request_preview() if shown else ()
    stamp = time.strftime("%Y%m%d%H%M%S", time.localtime(job.created)) if job else "0"
    encoded = base64.b64encode(images.encode(preview[0], "PNG")).decode() if preview else None
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
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise FileRefused("the picture is not in base64", "send a picture file") from None
    found = _read(data)
    return {
        "info": metadata.format_infotext(found.record) if found.record else _written(found.parameters),
        "items": {},
        "parameters": found.parameters,
    }


def _read(data: bytes) -> metadata.ImageMetadata:
    """What a file that was sent says of itself; the file is looked into and thrown away."""
    with tempfile.TemporaryDirectory(prefix="diffusekit-") as folder:
        path = Path(folder, "picture")
        path.write_bytes(data)
        try:
            return metadata.read(path)
        except FileRefused as error:
            raise FileRefused(error.message.replace(str(path), "the picture"), error.hint) from None


def _written(parameters: dict[str, str]) -> str:
    """The infotext that was parsed, put together again."""
    rest = {k: v for k, v in parameters.items() if k not in ("Prompt", "Negative prompt")}
    if not any(parameters.values()):
        return ""
    line = ", ".join(f"{key}: {value}" for key, value in rest.items())
    negative = parameters.get("Negative prompt", "")
    return f"{parameters.get('Prompt', '')}\nNegative prompt: {negative}\n{line}"


def _learned(jobs: Jobs) -> dict[str, Any]:
    loaded: dict[str, Any] = {}
    skipped: dict[str, Any] = {}
    for path in embeddings.list_files(jobs.embeddings):
        try:
            token = embeddings.read(path)
        except DiffusekitError:
            skipped[path.stem] = {}
            continue
        nothing = {"step": None, "sd_checkpoint": None, "sd_checkpoint_name": None}
        loaded[token.name] = nothing | {"shape": token.width[0], "vectors": token.count}
    return {"loaded": loaded, "skipped": skipped}
