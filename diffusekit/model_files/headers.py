"""Read JSON files and the headers of safetensors files, and say what a damaged file is."""

from __future__ import annotations

import json
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from ..display import format_size, quote
from ..errors import ModelError

MAX_JSON = 64 * 2**20  # bytes; a tokenizer has a few megabytes
MAX_HEADER = 100_000_000  # bytes, the limit of the safetensors library
FETCH_AGAIN = "fetch or convert the model again"
_BITS = {"F64": 64, "I64": 64, "U64": 64, "C64": 64, "F32": 32, "I32": 32, "U32": 32, "F4": 4, "F6_E2M3": 6}
_BITS |= {"F6_E3M2": 6, "F16": 16, "BF16": 16, "I16": 16, "U16": 16}  # all others have 8


@dataclass(frozen=True)
class TensorHeader:
    """The header of a safetensors file: dtype and shape of every tensor, and the metadata."""

    tensors: Mapping[str, tuple[str, tuple[int, ...]]]
    metadata: Mapping[str, str]


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises `ModelError` that says what the file is instead."""
    data = read_start(path, MAX_JSON)
    check_content(path, data)
    if data.startswith(b"\xef\xbb\xbf"):
        raise ModelError(f"{path} begins with a byte order mark", "save it as UTF-8 without one")
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not valid JSON: {_reason(error)}", FETCH_AGAIN) from None
    if not isinstance(content, dict):
        raise ModelError(f"{path} is JSON, but not an object", FETCH_AGAIN)
    return content


def read_header(path: Path) -> TensorHeader:
    """Read the header of a safetensors file and compare it with the file's size.

    Raises `ModelError` for anything but a whole safetensors file.
    """
    start = read_start(path, 4096)
    check_content(path, start)
    size, length = path.stat().st_size, int.from_bytes(start[:8], "little")
    if len(start) < 8 or length > MAX_HEADER or not start[8:].lstrip(b" ").startswith(b"{"):
        raise ModelError(f"{path} is not a safetensors file", FETCH_AGAIN)
    if 8 + length > size:
        raise ModelError(f"{path} is cut off after {format_size(size)}, within its header", FETCH_AGAIN)
    try:
        entries = json.loads(read_start(path, 8 + length)[8:])
        metadata = entries.pop("__metadata__", None) or {}
        ends = [_end(entry) for entry in entries.values()]
        tensors = {name: (entry["dtype"], tuple(entry["shape"])) for name, entry in entries.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ModelError(f"{path} has a damaged header: {_reason(error)}", FETCH_AGAIN) from None
    expected = 8 + length + max(ends, default=0)
    if size < expected:
        raise ModelError(f"{path} is cut off: it has {size:,} of {expected:,} bytes", FETCH_AGAIN)
    if size > expected:
        raise ModelError(f"{path} has {size - expected:,} bytes after its last tensor", FETCH_AGAIN)
    return TensorHeader(tensors, metadata if isinstance(metadata, dict) else {})


def read_start(path: Path, count: int) -> bytes:
    """Read at most `count` bytes from the start of a regular file; raises `ModelError`."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ModelError(f"{path} is not a regular file", FETCH_AGAIN)
        with path.open("rb") as file:
            return file.read(count)
    except FileNotFoundError:
        reason = "is a link to a file that does not exist" if path.is_symlink() else "does not exist"
        raise ModelError(f"{path} {reason}", FETCH_AGAIN) from None
    except OSError as error:
        raise unreadable(path, error) from None


def unreadable(path: Path, error: OSError) -> ModelError:
    """Return the error for a file or folder that the system does not let us read."""
    reason = error.strerror or type(error).__name__
    return ModelError(f"{path} cannot be read: {reason}", "check its permissions and those of its folder")


def check_content(path: Path, data: bytes) -> None:
    """Raise `ModelError` when a file holds nothing, a web page, or a pointer of Git LFS instead of its content."""
    if not data:
        raise ModelError(f"{path} is empty", FETCH_AGAIN)
    if not data.strip(b"\0"):
        raise ModelError(f"{path} holds only zero bytes", FETCH_AGAIN)
    if data.startswith(b"version https://git-lfs"):
        raise ModelError(
            f"{path} is a pointer of Git LFS, not the file itself", "run `git lfs pull` in that repository"
        )
    if data.lstrip()[:15].lower().startswith((b"<!doctype html", b"<html")):
        raise ModelError(f"{path} is a web page, not the file itself", FETCH_AGAIN)


def _end(entry: Mapping[str, Any]) -> int:
    """Where a tensor ends, after a look at its offsets, shape and dtype."""
    (start, end), shape, bits = entry["data_offsets"], entry["shape"], _BITS.get(entry["dtype"], 8)
    if not all(type(number) is int and number >= 0 for number in (start, end, *shape)):
        raise ValueError("an offset or a side is not a whole number")
    if (end - start) * 8 != prod(shape) * bits:
        raise ValueError(f"a tensor of shape {quote(str(list(shape)))} has {end - start:,} bytes")
    return end


def _reason(error: Exception) -> str:
    return str(error)[:120].partition("\n")[0] or type(error).__name__
