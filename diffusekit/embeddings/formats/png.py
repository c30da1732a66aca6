"""A1111's embeddings inside pictures: in a PNG text chunk, or in the low bits of its pixels.

Knows PNG's chunks and A1111's encoding, re-made from its description; everything is bounded: sizes, and
how far anything inflates.
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
from ...errors import FileRefused
from . import layouts

MAGIC = b"\x89PNG\r\n\x1a\n"
MAX_TEXT = 12 * 2**20
MAX_VALUES = 4_000_000  # of the pixel block that carries data
_KEY = b"sd-ti-embedding"
_HINT = "use the embedding as .safetensors"


def extract(data: bytes) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """(tensors, metadata) of the embedding in a PNG's bytes.

    Raises `FileRefused` (the caller names the file) when there is none, or the PNG is damaged or is
    followed by something else.
    """
    text = None
    for kind, body in _chunks(data):
        if kind in (b"tEXt", b"zTXt", b"iTXt") and body.startswith(_KEY + b"\0"):
            text = _text(kind, body[len(_KEY) + 1 :])
    if text is not None:
        try:
            found = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            raise FileRefused("has an embedding text that is not base64", _HINT) from None
    else:
        found = _from_pixels(data)
    try:
        decoded = json.loads(found, object_hook=_tensor)
    except (ValueError, RecursionError, TypeError):
        raise FileRefused("carries an embedding that is damaged", _HINT) from None
    return layouts.flatten(decoded)


def _tensor(found: dict[str, Any]) -> Any:
    if set(found) != {"TORCHTENSOR"}:
        return found
    return torch.tensor(found["TORCHTENSOR"], dtype=torch.float32)


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(kind, body) of every chunk, checking lengths and sums, and that nothing follows the end."""
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
                    f"is a picture followed by {len(data) - end:,} bytes of something else",
                    "use another copy of it",
                )
            return
        at = end
    raise FileRefused("is a damaged PNG", "use another copy of it")


def _text(kind: bytes, body: bytes) -> bytes:
    """The text of a text chunk, after its keyword."""
    packed = kind == b"zTXt"
    if kind == b"zTXt":
        body = body[1:]
    elif kind == b"iTXt":
        packed = body[:1] == b"\1"
        body = body[2:].split(b"\0", 2)[-1]
    return inflate(body) if packed else body


def inflate(packed: bytes) -> bytes:
    """Inflate at most `MAX_TEXT` bytes; raises `FileRefused` for more, and for what is damaged."""
    stream = zlib.decompressobj()
    try:
        found = stream.decompress(packed, MAX_TEXT)
    except zlib.error:
        raise FileRefused("carries an embedding that is damaged", _HINT) from None
    if not stream.eof:
        fault = "is cut short" if len(found) < MAX_TEXT else "inflates without end"
        raise FileRefused(f"carries an embedding that {fault}", _HINT)
    return found


def _from_pixels(data: bytes) -> bytes:
    """JSON from the pixels: low nibbles left of the picture, high nibbles right of it.

    Black columns separate the blocks from the picture; both are xored with a fixed random sequence
    and deflated. A picture may have got a black frame, so a second try goes without it.
    """
    with images.open_image(data, "it") as picture:
        if picture.width * picture.height > MAX_VALUES:
            size = f"{picture.width}x{picture.height}"
            raise FileRefused(f"is {size} pixels large, too much for an embedding", _HINT)
        try:
            pixels = np.asarray(picture.convert("RGB"))
        except (OSError, ValueError, SyntaxError):
            raise FileRefused("is a damaged PNG", "use another copy of it") from None
    for candidate in (pixels, _cropped(pixels)):
        nibbles = candidate & 0x0F
        black = np.flatnonzero(nibbles.sum(axis=(0, 2)) == 0)
        if len(black) < 2 or black[0] == 0:
            continue
        low, high = _plain(nibbles[:, : black[0]]), _plain(nibbles[:, black[-1] + 1 :])
        if low.size and low.size == high.size:
            return inflate((high << 4 | low).tobytes())
    raise FileRefused("is a picture that carries no embedding", _HINT)


def _cropped(pixels: np.ndarray) -> np.ndarray:
    """The picture without rows and columns in which no pixel has some of each color."""
    lit = (pixels > 0).all(axis=2)
    rows, columns = np.flatnonzero(lit.sum(axis=1)), np.flatnonzero(lit.sum(axis=0))
    if not len(rows):
        return pixels[:0, :0]
    return pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _plain(block: np.ndarray) -> np.ndarray:
    """A block of nibbles, flat, freed of the random sequence."""
    flat = block.reshape(-1)
    return flat ^ (sequence(flat.size) & 0x0F)


def sequence(count: int) -> np.ndarray:
    """`count` bytes of A1111's generator: x' = 1664525 x + 1013904223 mod 2^32 from 0; x' mod 255."""
    values = np.empty(max(count, 1), dtype=np.uint32)
    values[0] = factor_one = 1013904223
    factor, step, filled = 1664525, factor_one, 1
    while filled < count:  # doubling: `filled` steps at once are again one affine step
        more = min(filled, count - filled)
        values[filled : filled + more] = values[:more] * np.uint32(factor) + np.uint32(step)
        step, factor = (factor * step + step) % 2**32, factor * factor % 2**32
        filled += more
    return (values[:count] % 255).astype(np.uint8)
