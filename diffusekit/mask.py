"""A mask: which pixels of a start image are painted. White is painted, black is kept, and gray is a soft edge."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageChops, ImageFilter

from . import images
from .errors import UsageError

PAINTED = 128  # from this gray value on, a pixel is painted where there is no soft edge
_SAME_SHAPE = 0.02  # relative difference of the proportions of a mask and its image


@dataclass(frozen=True, eq=False)
class Mask:
    """An upright "L" image, white where it is painted, and the SHA-256 of its size and pixels."""

    image: Image.Image
    sha256: str

    @classmethod
    def open(cls, source: Path | str | Image.Image) -> Mask:
        """Open a file or take an image; raises `FileRefused` for one that cannot be read.

        The opaque pixels of an image with transparent ones are painted, whatever their color.
        """
        opened = source if isinstance(source, Image.Image) else images.open_image(Path(source))
        alpha = images.read_alpha(opened)
        return cls.of(images.to_rgb(opened).convert("L") if alpha is None else alpha)

    @classmethod
    def from_transparency(cls, source: Image.Image) -> Mask | None:
        """Paint the transparent pixels of an image, as OpenAI's API does. None if it has none."""
        alpha = images.read_alpha(source)
        return None if alpha is None else cls.of(ImageChops.invert(alpha))

    @classmethod
    def of(cls, gray: Image.Image) -> Mask:
        """Make a mask from an "L" image."""
        size = f"{gray.width}x{gray.height}:".encode()
        return cls(gray, hashlib.sha256(size + gray.tobytes()).hexdigest())

    def fit(
        self, width: int, height: int, *, invert: bool = False, blur: float = 0.0, is_checked: bool = True
    ) -> Image.Image:
        """Return the mask at the size of its image, inverted and with soft edges if that is asked for.

        `blur` is the standard deviation of a Gaussian, in pixels of the image. It softens both sides of an edge.
        Raises `UsageError` for a mask of other proportions than the image, and for one that paints nothing, unless
        `is_checked` is false.
        """
        own = self.image.width / self.image.height
        if abs(own * height / width - 1) > _SAME_SHAPE:
            raise UsageError(
                f"the mask is {self.image.width}x{self.image.height}, and the image {width}x{height}",
                "give a mask with the proportions of the image",
            )
        mask = self.image
        if mask.size != (width, height):
            mask = mask.resize((width, height), Image.Resampling.LANCZOS)
        if invert:
            mask = ImageChops.invert(mask)
        if is_checked and not mask.point([value >= PAINTED for value in range(256)]).getbbox():
            how = "black" if invert else "white"
            raise UsageError("the mask paints nothing", f"{how} is painted; `invert_mask` exchanges white and black")
        return mask.filter(ImageFilter.GaussianBlur(blur)) if blur else mask
