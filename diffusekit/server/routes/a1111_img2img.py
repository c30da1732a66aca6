"""A1111's img2img: its fields, and the settings and images of a job that they give."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from ...errors import UsageError
from ...mask import Mask
from ...start_image import StartImage
from ..jobs.queue import Jobs
from .a1111_fields import NEUTRAL, Txt2ImgRequest, read_request
from .requests import Neutral, merge
from .sent_images import ResizeMode, open_base64, store_images

RESIZE_MODES: tuple[ResizeMode, ...] = ("stretch", "crop", "fill", "stretch")
CONTENTS = ("fill", "original", "noise", "nothing")
IMAGE_NEUTRAL: Neutral = {
    **NEUTRAL,
    "image_cfg_scale": None,  # only of models that are told what to change
    "initial_noise_multiplier": (0, 1),
    "mask_blur_x": None,  # see `_blur`
    "mask_blur_y": None,
    "mask_round": (True,),
    "latent_mask": (),
    "img2img_fix_steps": (False,),
}


class Img2ImgRequest(Txt2ImgRequest):
    """The supported fields of A1111's request. Without a size, the result has that of the image, rounded."""

    init_images: list[str] = Field(description="The start image, in base64 or as a data: URL.")
    denoising_strength: float = Field(0.75, examples=[0.75])
    resize_mode: int = Field(0, ge=0, le=3, description="0 and 3: stretch. 1: crop. 2: fill the edges.")
    mask: str | None = Field(None, description="White is painted.")
    mask_blur: float = 4
    inpainting_mask_invert: int = 0
    inpainting_fill: int = Field(0, ge=0, le=3, description="0: fill. 1: original. 2: latent noise. 3: latent nothing.")
    inpaint_full_res: bool = Field(True, description="Draw only the masked area, at the whole size.")
    inpaint_full_res_padding: int = Field(0, ge=0)
    include_init_images: bool = False


def read_img2img(body: Img2ImgRequest, jobs: Jobs) -> tuple[dict[str, Any], list[str]]:
    """The settings of a generate job with an image, and warnings of what has no effect."""
    settings, warnings = read_request(body, jobs, IMAGE_NEUTRAL)
    if not body.init_images:
        raise UsageError("init_images has no image", "send one in base64")
    start = StartImage.open(open_base64(jobs, body.init_images[0], "init_images"))
    if len(body.init_images) > 1:
        warnings = merge(warnings, [f"only the first of {len(body.init_images)} init_images has an effect"])
    settings["strength"] = body.denoising_strength
    mask = None
    if body.mask:
        mask = Mask.open(open_base64(jobs, body.mask, "mask"))
        settings |= {"invert_mask": bool(body.inpainting_mask_invert), "mask_blur": _blur(body)}
        if body.denoising_strength < 1:  # otherwise nothing of the content remains
            settings["mask_content"] = CONTENTS[body.inpainting_fill]
        if body.inpaint_full_res:
            settings["mask_padding"] = body.inpaint_full_res_padding
    width, height = settings.get("width"), settings.get("height")
    if width and height and settings.get("mask_padding") is None:
        if body.resize_mode == 3:
            warnings = merge(warnings, ["resize_mode 3 (latent upscale) has the effect of 0 on this server"])
        return settings | store_images(
            jobs, start, mask, size=(width, height), mode=RESIZE_MODES[body.resize_mode]
        ), warnings
    return settings | store_images(jobs, start, mask), warnings


def _blur(body: Img2ImgRequest) -> float:
    """The blur of both directions; A1111 has one for each."""
    given = body.model_extra or {}
    blurs = [value for name in ("mask_blur_x", "mask_blur_y") if isinstance(value := given.get(name), int | float)]
    return max(blurs) if blurs else body.mask_blur
