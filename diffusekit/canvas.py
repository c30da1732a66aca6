"""A canvas: the area of a start image that is drawn, its mask, and how what was drawn goes back into the image."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageFilter

from .errors import UsageError
from .mask import PAINTED, Mask
from .models import Model
from .settings import GenerateSettings
from .start_image import StartImage, nearest_size

_LONGEST = 2.0  # proportions of an area around a mask, where the image is large enough
_FILL_BLURS = ((256, 1), (64, 1), (16, 2), (4, 4), (2, 2))  # radius in pixels, and how often it is laid over the others
Box = tuple[int, int, int, int]  # left, top, right and bottom, in pixels


@dataclass(frozen=True, eq=False)
class ImageCanvas:
    """An image, its mask, and the area that is drawn.

    `mask` is an "L" image of the size of `image`, white where it is painted; None paints everything. `box` is the area
    of the image that is drawn, which may reach beyond its edges. `size` are the width and height at which it is drawn.
    """

    image: Image.Image
    mask: Image.Image | None
    box: Box
    size: tuple[int, int]

    def pixels(self) -> Image.Image:
        """Return the area at the size at which it is drawn. Beyond the edges of the image its last pixels repeat."""
        return _resize(_crop(self.image, self.box), self.size)

    def painted(self) -> torch.Tensor:
        """Return which pixels of the area are painted: (1, 1, H, W), 0 or 1."""
        if self.mask is None:
            return torch.ones(1, 1, *self.size[::-1])
        mask = np.asarray(_resize(self.mask.crop(self.box), self.size))
        return torch.from_numpy((mask >= PAINTED).astype(np.float32))[None, None]

    def filled(self) -> Image.Image:
        """Return the area with blurred colors from around the mask where it is painted, as A1111's "fill"."""
        area = self.pixels()
        kept = Image.fromarray(((1 - self.painted()[0, 0].numpy()) * 255).astype(np.uint8))
        alone = Image.new("RGBa", self.size)
        alone.paste(area.convert("RGBA").convert("RGBa"), mask=kept)
        result = Image.new("RGBA", self.size, (127, 127, 127, 255))
        for radius, repeats in _FILL_BLURS:  # from far away colors come nearly transparent, so the widest blur is first
            blurred = alone.filter(ImageFilter.GaussianBlur(radius)).convert("RGBA")
            for _ in range(repeats):
                result.alpha_composite(blurred)
        return Image.composite(area, result.convert("RGB"), kept)

    def finish(self, drawn: Image.Image) -> Image.Image:
        """Return the whole image with what was drawn where it is painted. All other pixels are those of the image."""
        if self.mask is None:
            return drawn
        whole, (left, top, right, bottom) = self.image.copy(), self.box
        whole.paste(_resize(drawn, (right - left, bottom - top)), (left, top), self.mask.crop(self.box))
        return whole


def canvas_of(
    settings: GenerateSettings, model: Model, start: StartImage | None, mask: Mask | None = None
) -> ImageCanvas | None:
    """Return the canvas of a run, or None without a start image.

    Without a mask the result has the `width` and `height` of the settings, or nearly those of the image. With a mask it
    always has those of the image, and `width` and `height` are the size at which the area is drawn. The area is the
    whole image, or with `mask_padding` what the mask paints and that many pixels around it. Raises `UsageError` for a
    mask that does not fit the image.
    """
    if start is None:
        if mask is not None:
            raise UsageError("a mask says what of a start image is painted, and there is none", "give the image too")
        return None
    width, height, padding = settings.width, settings.height, settings.mask_padding
    if mask is None:
        default = start.default_size(model)
        size = width or default[0], height or default[1]
        return ImageCanvas(start.fit(*size), None, (0, 0, *size), size)
    image = start.image
    soft = mask.fit(*image.size, invert=settings.invert_mask, blur=settings.mask_blur)
    if padding is not None:
        box = _surround(soft, padding)
        near = nearest_size(model, *_sides(box), smallest=model.native_size**2)
    else:
        box, near = (0, 0, *image.size), start.default_size(model)
    size = width or near[0], height or near[1]
    return ImageCanvas(image, soft, _expand(box, size[0] / size[1], image.size), size)


def find_unused(settings: GenerateSettings, canvas: ImageCanvas | None) -> Iterator[str]:
    """Name the settings of an image or a mask that have no effect because there is none."""
    if settings.strength is not None and canvas is None:
        yield "`strength` has no effect without a start image"
    if canvas is None or canvas.mask is None:
        for name in ("invert_mask", "mask_blur", "mask_padding", "mask_content"):
            if getattr(settings, name) != GenerateSettings.model_fields[name].default:
                yield f"`{name}` has no effect without a mask"
    elif settings.mask_content != "original" and settings.strength == 1:
        yield "`mask_content` has no effect at `strength` 1, where the painted area starts from noise alone"


def _surround(mask: Image.Image, padding: int) -> Box:
    """Return the area of what a mask paints, with some pixels around it, and not too narrow."""
    left, top, right, bottom = _known(mask.getbbox())
    width, height = mask.size
    box = (max(left - padding, 0), max(top - padding, 0), min(right + padding, width), min(bottom + padding, height))
    longest = max(_sides(box)) / _LONGEST
    wide, tall = (min(max(side, math.ceil(longest)), most) for side, most in zip(_sides(box), mask.size, strict=True))
    return _place(box, wide, tall, mask.size)


def _expand(box: Box, proportion: float, size: tuple[int, int]) -> Box:
    """Make an area wider or higher, until its width is `proportion` times its height."""
    width, height = _sides(box)
    return _place(box, max(width, round(height * proportion)), max(height, round(width / proportion)), size)


def _place(box: Box, width: int, height: int, size: tuple[int, int]) -> Box:
    """Make an area larger around its center, inside an image of this size as far as it fits."""
    corner = []
    for first, last, side, most in zip(box[:2], box[2:], (width, height), size, strict=True):
        start = (first + last - side) // 2
        corner.append((most - side) // 2 if side > most else min(max(start, 0), most - side))
    return corner[0], corner[1], corner[0] + width, corner[1] + height


def _sides(box: Box) -> tuple[int, int]:
    return box[2] - box[0], box[3] - box[1]


def _crop(image: Image.Image, box: Box) -> Image.Image:
    """Cut out an area. Beyond the edges of the image its last pixels repeat."""
    left, top, right, bottom = box
    beyond = max(-left, 0), max(-top, 0), max(right - image.width, 0), max(bottom - image.height, 0)
    if not any(beyond):
        return image.crop(box)
    pixels = np.pad(np.asarray(image), ((beyond[1], beyond[3]), (beyond[0], beyond[2]), (0, 0)), mode="edge")
    left, top = left + beyond[0], top + beyond[1]
    width, height = _sides(box)
    return Image.fromarray(np.ascontiguousarray(pixels[top : top + height, left : left + width]))


def _resize(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)


def _known(box: Box | None) -> Box:
    assert box is not None, "a mask that paints nothing is refused before"
    return box
