"""Pixels: PIL images and tensors, and the only place where untrusted image files are opened.

Tensors are (B, 3, H, W) in [-1, 1]. Only this module handles uint8 pixels. It imports no model.
"""

from __future__ import annotations

import warnings
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageCms, ImageOps

from .display import first_line
from .errors import FileRefused

if TYPE_CHECKING:
    import torch

READABLE_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
MAX_PIXELS = 64_000_000


def to_pil(images: torch.Tensor) -> list[Image.Image]:
    """Convert a tensor (B, 3, H, W) in [-1, 1] to RGB images. Rounding happens on the tensor's device."""
    assert images.ndim == 4 and images.shape[1] == 3, images.shape
    pixels = ((images.float().clamp(-1, 1) + 1) * 127.5).round().byte()
    return [Image.fromarray(p) for p in pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy()]


def to_tensor(image: Image.Image) -> torch.Tensor:
    """Convert an image to a tensor (3, H, W), float32 in [-1, 1] on the CPU. `to_pil` restores the same pixels."""
    import numpy as np
    import torch

    pixels = np.array(image.convert("RGB"), dtype=np.float32)
    return torch.from_numpy(pixels / 127.5 - 1).permute(2, 0, 1).contiguous()


def crop_square(image: Image.Image, side: int, *, offset: tuple[float, float] = (0.5, 0.5)) -> Image.Image:
    """Cut the largest square out of an image and resize it to `side` pixels with a Lanczos filter.

    `offset` is the position of the square: 0 to 1 from left to right, and from top to bottom.
    """
    assert side > 0 and min(offset) >= 0 and max(offset) <= 1, (side, offset)
    edge = min(image.size)
    left = round((image.width - edge) * offset[0])
    top = round((image.height - edge) * offset[1])
    cut = image.crop((left, top, left + edge, top + edge))
    return cut if edge == side else cut.resize((side, side), Image.Resampling.LANCZOS)


def make_grid(images: list[Image.Image], columns: int) -> Image.Image:
    """Paste images of one size into a grid, row by row, without gaps."""
    width, height = images[0].size
    sheet = Image.new("RGB", (width * columns, height * -(-len(images) // columns)))
    for i, image in enumerate(images):
        sheet.paste(image, (i % columns * width, i // columns * height))
    return sheet


def encode(image: Image.Image, format: str) -> bytes:
    """Encode an image as the bytes of a PNG or WEBP file."""
    file = BytesIO()
    image.save(file, format, **({"quality": 90} if format == "WEBP" else {"compress_level": 1}))
    return file.getvalue()


def open_image(source: Path | bytes, name: str = "", formats: tuple[str, ...] = READABLE_FORMATS) -> Image.Image:
    """Open an image file, or the bytes of one, without decoding it yet. Messages call it `name`.

    Raises `FileRefused` unless the format is in `formats` and there are at most `MAX_PIXELS` pixels.
    """
    name = name or (str(source) if isinstance(source, Path) else "the image")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            file = BytesIO(source) if isinstance(source, bytes) else source
            image = Image.open(file, formats=formats)
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise FileRefused(f"cannot open {name}: {error.strerror}", "give the path of an image file") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise FileRefused(f"{name} is too large to be opened safely", f"the limit is {MAX_PIXELS:,} pixels") from None
    except Exception:  # Pillow's readers raise anything at all on bytes made to confuse them
        raise FileRefused(f"{name} is not an image that can be read", f"formats: {', '.join(formats)}") from None
    if image.width * image.height > MAX_PIXELS:
        size = f"{image.width}x{image.height}"
        image.close()
        raise FileRefused(f"{name} is too large: {size}", f"the limit is {MAX_PIXELS:,} pixels")
    return image


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an opened image (its first frame, if animated) to upright 8-bit sRGB.

    The EXIF orientation and an embedded color profile are applied, 16-bit and float values are scaled to
    8 bits, and transparent pixels become white. Raises `FileRefused` for a truncated or damaged file.
    """
    upright = _load_upright(image)
    alpha = _alpha(upright)
    colors = _to_srgb(_to_8_bit(upright), image.info.get("icc_profile"))
    if alpha is not None:
        colors = Image.composite(colors, Image.new("RGB", colors.size, "white"), alpha)
    colors.info = {}  # Pillow would write the profile and the orientation again, which no longer apply
    return colors


def read_alpha(image: Image.Image) -> Image.Image | None:
    """Return the opacity of each pixel as an upright "L" image, or None when nothing is transparent.

    Raises `FileRefused` for a truncated or damaged file.
    """
    return _alpha(_load_upright(image))


def _load_upright(image: Image.Image) -> Image.Image:
    """Decode a copy and apply its EXIF orientation. Unreadable EXIF is ignored."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the library is silent
        try:
            image.load()
        except Exception as error:  # as above: not only OSError
            raise FileRefused(f"the image is damaged: {first_line(error)}", "save it again, or use another") from None
        try:
            return ImageOps.exif_transpose(image)
        except Exception:
            return image.copy()


def _alpha(image: Image.Image) -> Image.Image | None:
    if not image.has_transparency_data:
        return None
    key = image.info.get("transparency")
    if image.mode.startswith("I"):  # 16-bit gray, of which one value is transparent
        import numpy as np

        opaque = np.where(np.asarray(image) == key, 0, 255).astype(np.uint8)
        alpha = Image.fromarray(opaque)
    else:
        if isinstance(key, tuple) and max(key) > 255:  # a 16-bit color, but only 8 bits were read
            image.info["transparency"] = tuple(value >> 8 for value in key)
        alpha = image.convert("RGBA").getchannel("A")
    return None if alpha.getextrema()[0] == 255 else alpha


def _to_8_bit(image: Image.Image) -> Image.Image:
    """Convert to "L", "RGB", "CMYK" or "LAB" with 8 bits a channel, without transparency."""
    if image.mode.startswith(("I", "F")):
        return _scale_to_8_bit(image)
    image.info.pop("transparency", None)
    if image.mode in ("L", "RGB", "CMYK", "LAB"):
        return image
    if image.mode in ("1", "LA"):
        return image.convert("L")
    return image.convert("RGB")


def _scale_to_8_bit(image: Image.Image) -> Image.Image:
    """Convert gray values of 16 bits and more, or floats, to 8 bits.

    White is 65535 for integers. For floats it is the smallest of 1, 255 and 65535 that no value exceeds.
    An image with negative or larger values is stretched from its darkest to its brightest value.
    """
    import numpy as np

    pixels = np.nan_to_num(np.asarray(image).astype(np.float64))
    dark, bright = 0.0, 65535.0
    if pixels.min() < 0 or pixels.max() > bright:
        dark, bright = pixels.min(), pixels.max()
    elif image.mode == "F":
        bright = next(white for white in (1.0, 255.0, 65535.0) if pixels.max() <= white)
    scaled = (pixels - dark) * (255 / ((bright - dark) or 1.0))
    return Image.fromarray(scaled.round().astype(np.uint8))


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert to sRGB with the embedded ICC profile. A broken or unsuitable profile is ignored."""
    try:
        own = ImageCms.createProfile("LAB") if image.mode == "LAB" else None
        if profile and own is None:
            own = ImageCms.ImageCmsProfile(BytesIO(profile))
        if own is not None and "sRGB" not in ImageCms.getProfileDescription(own):
            srgb = ImageCms.createProfile("sRGB")
            image = ImageCms.profileToProfile(image, own, srgb, outputMode="RGB") or image
    except (ImageCms.PyCMSError, ImportError, OSError, ValueError, TypeError):
        pass
    return image.convert("RGB")
