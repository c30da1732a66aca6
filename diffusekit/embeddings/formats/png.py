"""A1111's embeddings in PNG images: in a text chunk, or in the low bits of the pixels.

The decoder is written from A1111's format. Sizes and inflated data are limited.
"""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from ... import images
from ...display import format_size
from ...errors import FileRefused
from . import layouts

MAGIC = b"\x89PNG\r\n\x1a\n"
MAX_TEXT = 12 * 2**20
MAX_PIXELS = 4_000_000
_KEY = b"sd-ti-embedding"
_HINT = "use the embedding as .safetensors"


def matches(data: bytes) -> bool:
    """Whether the bytes start like a PNG."""
    return data.startswith(MAGIC)


def parse(data: bytes) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Return (tensors, metadata) of the embedding in a PNG.

    Raises `FileRefused` when there is none, or when the PNG is damaged or has bytes after its end. The
    caller adds the file's name.
    """
    text = None
    for kind, body in _chunks(data):
        if kind in (b"tEXt", b"zTXt", b"iTXt") and body.startswith(_KEY + b"\0"):
            text = _decode_text(kind, body[len(_KEY) + 1 :])
    if text is not None:
        try:
            content = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            raise FileRefused("has an embedding that is not base64", _HINT) from None
    else:
        content = _decode_pixels(data)
    try:
        decoded = json.loads(content, object_hook=_decode_tensor)
    except (ValueError, RecursionError, TypeError):
        raise FileRefused("has a damaged embedding", _HINT) from None
    return layouts.flatten(decoded)


def _decode_tensor(entry: dict[str, Any]) -> Any:
    if set(entry) != {"TORCHTENSOR"}:
        return entry
    return torch.tensor(entry["TORCHTENSOR"], dtype=torch.float32)


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield (type, body) of every chunk; raises `FileRefused` for wrong lengths, checksums or trailing bytes."""
    at = len(MAGIC)
    while at + 12 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
        end = at + 12 + size
        if end > len(data) or zlib.crc32(kind + body) != int.from_bytes(data[end - 4 : end], "big"):
            break
        yield kind, body
        if kind == b"IEND":
            if end != len(data):
                raise FileRefused(
                    f"is an image followed by {len(data) - end:,} bytes of other data",
                    "use another copy of it",
                )
            return
        at = end
    raise FileRefused("is a damaged PNG", "use another copy of it")


def _decode_text(kind: bytes, body: bytes) -> bytes:
    """Return the text of a text chunk, without its keyword."""
    compressed = kind == b"zTXt"
    if kind == b"zTXt":
        body = body[1:]
    elif kind == b"iTXt":
        compressed = body[:1] == b"\1"
        body = body[2:].split(b"\0", 2)[-1]
    return inflate(body) if compressed else body


def inflate(compressed: bytes) -> bytes:
    """Inflate to at most `MAX_TEXT` bytes; raises `FileRefused` for more, and for damaged data."""
    stream = zlib.decompressobj()
    try:
        inflated = stream.decompress(compressed, MAX_TEXT)
    except zlib.error:
        raise FileRefused("has a damaged embedding", _HINT) from None
    if not stream.eof:
        error = "is truncated" if len(inflated) < MAX_TEXT else f"inflates beyond {format_size(MAX_TEXT)}"
        raise FileRefused(f"has an embedding that {error}", _HINT)
    return inflated


def _decode_pixels(data: bytes) -> bytes:
    """Decode JSON from the pixels: low nibbles left of the visible image, high nibbles right of it.

    Black columns separate the two blocks from the image. The data is deflated and xored with a fixed
    pseudorandom sequence. An image may have got a black frame, so the second attempt crops it.
    """
    with images.open_image(data, "it") as image:
        if image.width * image.height > MAX_PIXELS:
            size = f"{image.width}x{image.height}"
            raise FileRefused(f"has {size} pixels, too many for an embedding", _HINT)
        try:
            pixels = np.asarray(image.convert("RGB"))
        except (OSError, ValueError, SyntaxError):
            raise FileRefused("is a damaged PNG", "use another copy of it") from None
    for candidate in (pixels, _crop_frame(pixels)):
        nibbles = candidate & 0x0F
        black = np.flatnonzero(nibbles.sum(axis=(0, 2)) == 0)
        if len(black) < 2 or black[0] == 0:
            continue
        low, high = _unmask(nibbles[:, : black[0]]), _unmask(nibbles[:, black[-1] + 1 :])
        if low.size and low.size == high.size:
            return inflate((high << 4 | low).tobytes())
    raise FileRefused("is an image without an embedding", _HINT)


def _crop_frame(pixels: np.ndarray) -> np.ndarray:
    """Remove rows and columns in which every pixel has a color channel of 0."""
    lit = (pixels > 0).all(axis=2)
    rows, columns = np.flatnonzero(lit.sum(axis=1)), np.flatnonzero(lit.sum(axis=0))
    if not len(rows):
        return pixels[:0, :0]
    return pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _unmask(block: np.ndarray) -> np.ndarray:
    """Flatten a block of nibbles and remove the pseudorandom sequence."""
    flat = block.reshape(-1)
    return flat ^ (random_sequence(flat.size) & 0x0F)


def random_sequence(count: int) -> np.ndarray:
    """Return `count` bytes of A1111's generator: x' = 1664525 x + 1013904223 mod 2^32 from 0, then mod 255."""
    values = np.empty(max(count, 1), dtype=np.uint32)
    values[0] = factor_one = 1013904223
    factor, step, filled = 1664525, factor_one, 1
    while filled < count:  # doubling: `filled` affine steps make one affine step
        more = min(filled, count - filled)
        values[filled : filled + more] = values[:more] * np.uint32(factor) + np.uint32(step)
        step, factor = (factor * step + step) % 2**32, factor * factor % 2**32
        filled += more
    return (values[:count] % 255).astype(np.uint8)
