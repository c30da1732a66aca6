"""The fields of A1111's txt2img: those with an effect, and the values with which the others change nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from ..jobs.queue import Jobs
from .requests import ApiRequest, Neutral, first_of, fit_size, ignored_fields, merge, sampler_settings

# How A1111's clients spell the fields of `GenerateSettings`.
FIELDS = {
    "guidance_scale": "cfg_scale",
    "sampler": "sampler_name",
    "images": "batch_size",
    "strength": "denoising_strength",
    "start_image": "init_images",
    "invert_mask": "inpainting_mask_invert",
    "mask_padding": "inpaint_full_res_padding",
    "mask_content": "inpainting_fill",
    "model": "override_settings",
}
# Fields without an effect here, and the values with which they have none in A1111. None: any value, because another
# field decides whether it counts, or because it says nothing about the image.
NEUTRAL: Neutral = {
    "enable_hr": (),
    "restore_faces": (),
    "tiling": (),
    "styles": (),
    "subseed": (-1, 0),
    "subseed_strength": (0, -1),
    "seed_resize_from_h": (-1, 0),
    "seed_resize_from_w": (-1, 0),
    "refiner_checkpoint": ("None",),
    "s_churn": (0,),
    "s_min_uncond": (0,),
    "s_tmax": (0,),
    "s_tmin": (0,),
    "s_noise": (1,),
    "clip_skip": (0, 1),
    "distilled_cfg_scale": (3.5,),
    "firstphase_width": (0,),
    "firstphase_height": (0,),
    "do_not_save_samples": (),
    "override_settings_restore_afterwards": (True,),
    "infotext": (),
    "script_name": ("None",),
    "firstpass_image": (),
    "init_images": (),
    "mask": (),
    "eta": None,  # see `_ignored`
    "denoising_strength": None,
    "hr_scale": None,
    "hr_upscaler": None,
    "hr_second_pass_steps": None,
    "hr_resize_x": None,
    "hr_resize_y": None,
    "hr_checkpoint_name": None,
    "hr_sampler_name": None,
    "hr_scheduler": None,
    "hr_prompt": None,
    "hr_negative_prompt": None,
    "hr_cfg": None,
    "hr_distilled_cfg": None,
    "hr_additional_modules": None,
    "refiner_switch_at": None,
    "script_args": None,
    "alwayson_scripts": None,  # see `_ignored`
    "comments": None,
    "disable_extra_networks": None,
    "do_not_save_grid": None,
    "save_images": None,
    "force_task_id": None,
}
NEUTRAL_OPTIONS: Neutral = {
    "CLIP_stop_at_last_layers": (1, 0),
    "samples_format": ("png",),
    "sd_checkpoint_hash": None,
}
TAKEN = ("sd_model_checkpoint", "sd_vae")  # of the options
ETA = {"ddim": (None, 0), "euler_a": (None, 1)}  # where A1111 uses it: its own value


class Txt2ImgRequest(ApiRequest):
    """The supported fields of A1111's request. For steps, sampler, size and guidance, null is the model's default.

    The others are named in `warnings`, inside `info` of the response, when they are sent to change something.
    """

    prompt: str = Field("", examples=["a red cat"])
    negative_prompt: str = Field("", examples=[""])
    seed: int = Field(-1, description="-1: random.")
    steps: int | None = Field(None, examples=[20])
    cfg_scale: float | None = Field(None, examples=[7])
    width: int | None = Field(None, examples=[128], description="Rounded to what the model takes.")
    height: int | None = Field(None, examples=[128], description="Rounded to what the model takes.")
    sampler_name: str | None = Field(None, examples=["Euler a"])
    sampler_index: str | None = Field(None, examples=["Euler a"])
    scheduler: str | None = Field(None, examples=["Automatic"])
    batch_size: int = Field(1, ge=1)
    n_iter: int = Field(1, ge=1)
    send_images: bool = True
    override_settings: dict[str, Any] | None = Field(None, examples=[{}])


def read_request(body: Txt2ImgRequest, jobs: Jobs, neutral: Neutral = NEUTRAL) -> tuple[dict[str, Any], list[str]]:
    """The settings of a generate job, and warnings of what has no effect."""
    options = body.override_settings or {}
    model = jobs.models.default
    if title := options.get("sd_model_checkpoint"):
        model = jobs.models.resolve(title)
    vae = jobs.models.resolve_vae(options["sd_vae"]) if "sd_vae" in options else jobs.models.vae
    default = jobs.models.defaults_of(model).sampler
    name = first_of(body.sampler_name, body.sampler_index)
    sampler, sampler_warnings = sampler_settings(name, body.scheduler, default)
    size, size_warnings = fit_size(jobs.models, model, body.width, body.height)
    settings: dict[str, Any] = {
        "prompt": body.prompt,
        "negative_prompt": body.negative_prompt,
        "prompt_syntax": "a1111",
        "steps": body.steps,
        "guidance_scale": body.cfg_scale,
        "seed": None if body.seed == -1 else body.seed,
        "images": body.batch_size * body.n_iter,
        "batch": body.batch_size if body.n_iter > 1 else None,
        "model": model,
        "vae": vae,
        **sampler,
        **size,
    }
    return settings, merge(
        _ignored(body, sampler.get("sampler", default), neutral),
        ignored_options(options, prefix="override_settings."),
        sampler_warnings,
        size_warnings,
    )


def _ignored(body: Txt2ImgRequest, sampler: str, neutral: Neutral) -> list[str]:
    """Warnings of the fields of a request that have no effect."""
    given = body.model_extra or {}
    sentences = ignored_fields(given, neutral, type(body).model_fields)
    if given.get("eta") not in ETA.get(sampler, (None, 0, 1)):
        sentences.append("eta has no effect on this server")
    scripts = given.get("alwayson_scripts")
    for name, script in scripts.items() if isinstance(scripts, dict) else ():
        if script:
            sentences.append(f"alwayson_scripts: there is no script {name[:60]!r} on this server")
    asked, older = body.sampler_name, body.sampler_index
    if asked and older and older not in ("Euler", asked):
        sentences.append("sampler_index has no effect beside sampler_name")
    return sentences


def ignored_options(options: Mapping[str, Any], *, prefix: str = "") -> list[str]:
    """Warnings of the options that have no effect."""
    others = {name: value for name, value in options.items() if name not in TAKEN}
    return ignored_fields(others, NEUTRAL_OPTIONS, TAKEN, prefix=prefix)
