"""Read JSON files and the headers of safetensors files, and say what a damaged file is.

Every size, depth and count is checked before it is used, so that no file costs more than a second to refuse.
"""

from __future__ import annotations

import json
import os
import stat
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

from ..display import format_size, quote
from ..errors import ModelError

MAX_JSON = 8 * 2**20  # bytes; a tokenizer has a few megabytes
MAX_HEADER = 16 * 2**20  # bytes; those of the largest models have one megabyte, and LoRA files a few with captions
MAX_TENSORS = 50_000
_MAX_DEPTH = 32  # of objects and lists within each other; a tokenizer has seven
_MAX_CONTAINERS = 500_000  # objects and lists of one file; a tokenizer has a list for each of its 49,000 merges
FETCH_AGAIN = "fetch or convert the model again"
_BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}


@dataclass(frozen=True)
class TensorHeader:
    """The header of a safetensors file: dtype and shape of every tensor, and the metadata."""

    tensors: Mapping[str, tuple[str, tuple[int, ...]]]
    metadata: Mapping[str, str]


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises `ModelError` that says what the file is instead."""
    data = read_start(path, MAX_JSON + 1)
    check_content(path, data)
    if len(data) > MAX_JSON:
        raise ModelError(f"{path} is larger than {format_size(MAX_JSON)}, too large for its JSON", FETCH_AGAIN)
    if data.startswith(b"\xef\xbb\xbf"):
        raise ModelError(f"{path} begins with a byte order mark", "save it as UTF-8 without one")
    try:
        content = _parse(data)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not valid JSON: {_reason(error)}", FETCH_AGAIN) from None
    if not isinstance(content, dict):
        raise ModelError(f"{path} is JSON, but not an object", FETCH_AGAIN)
    if _is_deeper(content, _MAX_DEPTH):
        raise ModelError(f"{path} has more than {_MAX_DEPTH} levels of objects and lists", FETCH_AGAIN)
    return content


def read_header(path: Path) -> TensorHeader:
    """Read and check the header of a safetensors file, before anybody reads its data.

    The tensors have known types, sizes that follow from type and shape, and fill the file without a gap or an
    overlap. Raises `ModelError` for anything else. A header is parsed once for each state of its file.
    """
    state = _stat(path)
    return _read_header(path, state.st_size, state.st_mtime_ns, state.st_ino)


@lru_cache(maxsize=64)
def _read_header(path: Path, size: int, _modified: int, _inode: int) -> TensorHeader:
    start = read_start(path, 4096)
    check_content(path, start)
    length = int.from_bytes(start[:8], "little")
    if len(start) < 10 or start[8:9] != b"{" or length >= 2**40:
        raise ModelError(f"{path} is not a safetensors file", FETCH_AGAIN)
    if 8 + length > size:
        raise ModelError(f"{path} is cut off after {format_size(size)}, within its header", FETCH_AGAIN)
    if length > MAX_HEADER:
        raise ModelError(
            f"{path} has a header of {format_size(length)}, expected at most {format_size(MAX_HEADER)}", FETCH_AGAIN
        )
    try:
        header, end = _check_header(_parse(read_start(path, 8 + length)[8:], unique=True))
    except (ValueError, TypeError, RecursionError) as error:
        raise ModelError(f"{path} has a damaged header: {_reason(error)}", FETCH_AGAIN) from None
    expected = 8 + length + end
    if size < expected:
        raise ModelError(f"{path} is cut off: it has {size:,} of {expected:,} bytes", FETCH_AGAIN)
    if size > expected:
        raise ModelError(f"{path} has {size - expected:,} bytes after its last tensor", FETCH_AGAIN)
    return header


def read_start(path: Path, count: int) -> bytes:
    """Read at most `count` bytes from the start of a regular file; raises `ModelError`."""
    _stat(path)
    try:
        with path.open("rb") as file:
            return file.read(count)
    except OSError as error:
        raise unreadable(path, error) from None


def _stat(path: Path) -> os.stat_result:
    """Return the state of a regular file; raises `ModelError` for everything else."""
    try:
        state = path.stat()
    except FileNotFoundError:
        reason = "is a link to a file that does not exist" if path.is_symlink() else "does not exist"
        raise ModelError(f"{path} {reason}", FETCH_AGAIN) from None
    except OSError as error:
        raise unreadable(path, error) from None
    if not stat.S_ISREG(state.st_mode):
        raise ModelError(f"{path} is not a regular file", FETCH_AGAIN)
    return state


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


def _parse(data: bytes, *, unique: bool = False) -> Any:
    """Parse JSON whose number of objects and lists is limited; `unique` refuses two entries of one name."""
    containers = data.count(b"{") + data.count(b"[")
    if containers > _MAX_CONTAINERS:
        raise ValueError(f"{containers:,} objects and lists, expected at most {_MAX_CONTAINERS:,}")
    return json.loads(data.decode("utf-8"), object_pairs_hook=_unique_keys if unique else None)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        again = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"two entries are named {quote(again)}")
    return content


def _is_deeper(content: Any, limit: int) -> bool:
    """Whether objects and lists are within each other more than `limit` times."""
    level = [content]
    for _ in range(limit):
        level = [
            value
            for each in level
            for value in (each.values() if isinstance(each, dict) else each)
            if isinstance(value, (dict, list))  # in this order of checks a large file costs half the time
        ]
        if not level:
            return False
    return True


def _check_header(entries: Any) -> tuple[TensorHeader, int]:
    """Return the header and where the last tensor ends; raises `ValueError` and others for what is not right."""
    if not isinstance(entries, dict):
        raise ValueError("it is not an object")
    metadata = entries.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its metadata is not text")
    if len(entries) > MAX_TENSORS:
        raise ValueError(f"{len(entries):,} tensors, expected at most {MAX_TENSORS:,}")
    spans = [(*_span(name, entry), name) for name, entry in entries.items()]
    end = 0
    for begin, stop, name in sorted(spans):
        if begin != end:
            what = "overlaps another one" if begin < end else "begins after a gap"
            raise ValueError(f"the tensor {quote(name)} {what}")
        end = stop
    return TensorHeader(
        {name: (entry["dtype"], tuple(entry["shape"])) for name, entry in entries.items()}, metadata
    ), end


def _span(name: str, entry: Any) -> tuple[int, int]:
    """Where a tensor begins and ends, after a look at its offsets, shape and dtype."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"the entry of {quote(name)} is not that of a tensor")
    (begin, end), shape, dtype = entry["data_offsets"], entry["shape"], entry["dtype"]
    if not isinstance(dtype, str) or dtype not in _BITS:
        raise ValueError(f"the tensor {quote(name)} has the unknown type {quote(str(dtype), 20)}")
    if not isinstance(shape, list) or len(shape) > 16:
        raise ValueError(f"the tensor {quote(name)} has an unusable shape")
    if not all(type(number) is int and 0 <= number < 2**63 for number in (begin, end, *shape)):
        raise ValueError(f"an offset or a side of the tensor {quote(name)} is not a whole number below 2^63")
    if (end - begin) * 8 != prod(shape) * _BITS[dtype]:
        raise ValueError(f"the tensor {quote(name)} of shape {quote(str(shape))} has {end - begin:,} bytes")
    return begin, end


def _reason(error: Exception) -> str:
    return str(error)[:120].partition("\n")[0] or type(error).__name__
