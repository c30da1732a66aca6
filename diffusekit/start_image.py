"""An image as a start: read it, identify it by a hash, and fit it to a size that a model takes."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps

from . import images, latents
from .models import Model

LARGEST = 4  # times the pixels of the model's native size


@dataclass(frozen=True, eq=False)
class StartImage:
    """An upright RGB image, and the SHA-256 of its size and pixels."""

    image: Image.Image
    sha256: str

    @classmethod
    def open(cls, source: Path | str | Image.Image) -> StartImage:
        """Open a file or take an image; raises `FileRefused` for one that cannot be read. White is behind it."""
        opened = source if isinstance(source, Image.Image) else images.open_image(Path(source))
        rgb = images.to_rgb(opened)
        size = f"{rgb.width}x{rgb.height}:".encode()
        return cls(rgb, hashlib.sha256(size + rgb.tobytes()).hexdigest())

    def default_size(self, model: Model) -> tuple[int, int]:
        """Return the width and height of the result when none are given: nearly those of the image."""
        return nearest_size(model, *self.image.size)

    def fit(self, width: int, height: int) -> Image.Image:
        """Resize the image, and cut off evenly what has other proportions."""
        if self.image.size == (width, height):
            return self.image
        return ImageOps.fit(self.image, (width, height), Image.Resampling.LANCZOS)


def nearest_size(model: Model, width: float, height: float, *, smallest: float = 0.0) -> tuple[int, int]:
    """Return the nearest width and height that the model takes.

    A larger area than `LARGEST` times the native one is made smaller, and one below `smallest` pixels larger.
    """
    multiple, area = latents.size_multiple(model), width * height
    scale = math.sqrt(min(max(area, smallest), LARGEST * model.native_size**2) / area)
    near_width, near_height = (max(round(side * scale / multiple), 1) * multiple for side in (width, height))
    return near_width, near_height
