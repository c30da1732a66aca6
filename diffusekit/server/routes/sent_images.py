"""Start images and masks in requests: opened, brought to the size that was asked for, and stored for the job."""

from __future__ import annotations

from typing import Literal

import numpy as np
from PIL import Image, ImageOps

from ...errors import FileRefused
from ...mask import Mask
from ...start_image import StartImage
from ..jobs.queue import Jobs
from ..storage import sources
from .requests import decode_base64

ResizeMode = Literal["stretch", "crop", "fill"]
_FILTER = Image.Resampling.LANCZOS


def store_images(
    jobs: Jobs,
    start: StartImage,
    mask: Mask | None = None,
    *,
    size: tuple[int, int] | None = None,
    mode: ResizeMode = "crop",
) -> dict[str, str]:
    """Store a start image and its mask for a job, both resized to `size` if it is given.

    Returns `start_image` and `mask`, the ids that the job takes. Raises `UsageError` for a mask that does not fit.
    """
    if size is not None:
        if mask is not None:
            mask = Mask.of(resize(mask.fit(*start.image.size, is_checked=False), size, mode))
        start = StartImage.open(resize(start.image, size, mode))
    ids = {"start_image": sources.store(jobs.settings, start)}
    return ids if mask is None else ids | {"mask": sources.store(jobs.settings, mask)}


def store_base64(jobs: Jobs, image: str | None, mask: str | None) -> dict[str, str]:
    """Store a start image and its mask that were sent in base64; return the ids that a job takes."""
    ids = {}
    if image:
        ids["start_image"] = sources.store(jobs.settings, StartImage.open(open_base64(jobs, image, "image")))
    if mask:
        ids["mask"] = sources.store(jobs.settings, Mask.open(open_base64(jobs, mask, "mask")))
    return ids


def open_base64(jobs: Jobs, text: str, field: str) -> Image.Image:
    """Open an image that was sent in base64. Raises `FileRefused`, which begins with the field's name."""
    try:
        return sources.open_sent(decode_base64(text), jobs.settings)
    except FileRefused as error:
        raise FileRefused(f"{field}: {error.message}", error.hint) from None


def resize(image: Image.Image, size: tuple[int, int], mode: ResizeMode) -> Image.Image:
    """Resize an image as A1111 does: stretch it, cut off what is too long, or repeat the pixels at its edges."""
    if image.size == size:
        return image
    if mode == "stretch":
        return image.resize(size, _FILTER)
    if mode == "crop":
        return ImageOps.fit(image, size, _FILTER)
    inside = ImageOps.contain(image, size, _FILTER)
    left, top = (size[0] - inside.width) // 2, (size[1] - inside.height) // 2
    around = ((top, size[1] - inside.height - top), (left, size[0] - inside.width - left))
    pixels = np.asarray(inside)
    return Image.fromarray(np.pad(pixels, (*around, (0, 0))[: pixels.ndim], mode="edge"))
