"""Pictures as people have them and pictures as tensors; untrusted files are opened only here.

uint8 and PIL exist only in this module; everywhere else a picture is a tensor (B, 3, H, W) in [-1, 1].
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageOps, UnidentifiedImageError

from .errors import FileRefused

if TYPE_CHECKING:
    import torch

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
MAX_PIXELS = 64_000_000


def to_pil(pictures: torch.Tensor) -> list[Image.Image]:
    """(B, 3, H, W) in [-1, 1] to RGB pictures, rounded on the device before they are copied."""
    assert pictures.ndim == 4 and pictures.shape[1] == 3, pictures.shape
    pixels = ((pictures.float().clamp(-1, 1) + 1) * 127.5).round().byte()
    return [Image.fromarray(p) for p in pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy()]


def grid(pictures: list[Image.Image], columns: int) -> Image.Image:
    """Pictures of one size side by side, row by row, without gaps."""
    width, height = pictures[0].size
    sheet = Image.new("RGB", (width * columns, height * -(-len(pictures) // columns)))
    for i, picture in enumerate(pictures):
        sheet.paste(picture, (i % columns * width, i // columns * height))
    return sheet


def open_picture(path: Path) -> Image.Image:
    """Open a picture file without decoding it yet.

    Only the kinds in `FORMATS`, at most `MAX_PIXELS` pixels; raises `FileRefused` otherwise.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture = Image.open(path, formats=FORMATS)
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise FileRefused(
            f"cannot open {path}: {error.strerror}", "give the path of a picture file"
        ) from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise FileRefused(
            f"{path} is too large to be opened safely", f"the limit is {MAX_PIXELS:,} pixels"
        ) from None
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError):
        raise FileRefused(
            f"{path} is not a picture that can be read", f"the kinds are {', '.join(FORMATS)}"
        ) from None
    if picture.width * picture.height > MAX_PIXELS:
        size = f"{picture.width}x{picture.height}"
        picture.close()
        raise FileRefused(f"{path} is too large: {size}", f"the limit is {MAX_PIXELS:,} pixels")
    return picture


def upright(picture: Image.Image) -> Image.Image:
    """The picture as RGB, turned as its EXIF orientation says; raises `FileRefused` when truncated."""
    try:
        return ImageOps.exif_transpose(picture).convert("RGB")
    except (OSError, ValueError, SyntaxError) as error:
        raise FileRefused(
            f"the picture is damaged: {error}", "save it again, or use another"
        ) from None
