"""Small copies of pictures, as text that a page can hold. Knows no page."""

from __future__ import annotations

import base64
from functools import lru_cache
from pathlib import Path

from PIL import Image

from ... import images
from ...errors import DiffusekitError

SIDE = 192


def address(picture: Image.Image) -> str:
    """A picture as a `data:` address."""
    return f"data:image/webp;base64,{base64.b64encode(images.encode(picture, 'WEBP')).decode()}"


@lru_cache(maxsize=2000)
def thumbnail(path: Path, changed: float) -> str:
    """The address of a picture file's small copy, `changed` being its time; "" if it is damaged."""
    try:
        with images.open_image(path) as picture:
            picture.draft("RGB", (SIDE, SIDE))
            small = images.to_rgb(picture)
        small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
        return address(small)
    except (DiffusekitError, OSError, ValueError):
        return ""
