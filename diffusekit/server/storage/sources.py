"""Start images and masks that clients sent: decoded, stored without their names, and deleted after a week.

The id of a file is the SHA-256 of its size and pixels, so an image that is sent twice is stored once.
"""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

from PIL import Image

from ... import atomic, images
from ...errors import FileRefused, UsageError
from ...mask import Mask
from ...settings import ServeSettings
from ...start_image import StartImage

FOLDER = "sources"
MAX_AGE = 7 * 86_400  # seconds
MAX_FACTOR = 4  # times the largest image of a request: a photo may be larger than what is drawn


def open_sent(data: bytes, settings: ServeSettings) -> Image.Image:
    """Open an image that a client sent. Raises `FileRefused` for one that cannot be read, or is too large."""
    image, limit = images.open_image(data), MAX_FACTOR * settings.max_pixels
    if image.width * image.height > limit:
        raise FileRefused(f"the image is too large: {image.width}x{image.height}", f"the limit is {limit:,} pixels")
    return image


def store(settings: ServeSettings, source: StartImage | Mask) -> str:
    """Store an image or a mask below the server's state folder, and return its id. Old files are deleted."""
    folder = Path(settings.state) / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{source.sha256}.png"
    if path.exists():
        os.utime(path)
    else:
        atomic.write_atomic(path, images.encode(source.image, "PNG"), durable=False)
    for other in folder.glob("*.png"):
        if time.time() - other.stat().st_mtime > MAX_AGE:
            other.unlink(missing_ok=True)
    return source.sha256


def find(state: str | Path, name: str, id: str) -> Path:
    """The file of an id; raises `UsageError`, which begins with `name`, when there is none."""
    path = Path(state) / FOLDER / f"{id}.png"
    if not re.fullmatch(r"[0-9a-f]{64}", id) or not path.is_file():
        raise UsageError(f"{name} is not an image that was sent to this server", "send it again")
    return path
