"""The header of a safetensors file: checked before any tensor is made, and written.

The check is stricter than the library's. All sizes must add up, so that no bytes can hide between or
behind the tensors. Format: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from ...display import quote
from ...errors import FileRefused
from .other_kinds import hint_for, name_kind

MAX_HEADER = 2 * 2**20
MAX_TENSORS = 64
_SIZES = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U64": 8,
    "U32": 4,
    "U16": 2,
    "U8": 1,
    "BOOL": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
}


@dataclass(frozen=True)
class Header:
    """The header of a safetensors file: metadata, and dtype and shape of every tensor."""

    metadata: dict[str, str]
    tensors: dict[str, tuple[str, tuple[int, ...]]]


class _DuplicateKey(ValueError):
    """The header has two entries of one name."""


def length(first: bytes, size: int) -> int:
    """Read the length of the header from the `first` 8 bytes of a file of `size` bytes.

    Raises `FileRefused` when the length is impossible. Here and below, the caller adds the file's name.
    """
    if len(first) < 8 or size < 10:
        raise _refused(f"has {size} bytes, which is too short for a safetensors file")
    number = int.from_bytes(first[:8], "little")
    if number > size - 8:
        raise _refused(
            f"has a header of {number:,} bytes in a file of {size:,}: it is truncated, or not a safetensors file"
        )
    if number > MAX_HEADER:
        raise _refused(f"has a header of {number:,} bytes, expected at most {MAX_HEADER:,}")
    return number


def parse(text: bytes, size: int) -> Header:
    """Parse and check the header `text` of a file of `size` bytes; raises `FileRefused` for the first error."""
    if not text.startswith(b"{"):
        raise _refused("has a header that does not start with '{'")
    try:
        entries = json.loads(text.decode("utf-8"), object_pairs_hook=_unique_keys)
    except UnicodeDecodeError:
        raise _refused("has a header that is not UTF-8") from None
    except _DuplicateKey as error:
        raise _refused(f"has two entries {quote(str(error))}") from None
    except (ValueError, RecursionError):
        raise _refused("has a header that is not JSON") from None
    metadata = entries.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise _refused("has metadata that is not text")
    if len(entries) > MAX_TENSORS:
        if kind := name_kind(entries):
            raise FileRefused(f"is {kind}, expected a token of textual inversion", hint_for(kind))
        raise _refused(f"has {len(entries):,} tensors, expected at most {MAX_TENSORS}")
    spans = [_span(name, entry) for name, entry in entries.items()]
    end = 0
    for begin, stop in sorted(spans):
        if begin != end:
            raise _refused(f"has tensors {'that overlap' if begin < end else 'with a gap between them'}")
        end = stop
    if (actual := size - 8 - len(text)) != end:
        more = "more" if actual > end else "fewer"
        raise _refused(f"has {abs(actual - end):,} bytes {more} than its header says")
    return Header(metadata, {k: (v["dtype"], tuple(v["shape"])) for k, v in entries.items()})


def _span(name: str, entry: Any) -> tuple[int, int]:
    """Return (begin, end) of one tensor's bytes, checked against its dtype and shape."""
    try:
        dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        numbers = [*shape, begin, end]
        if not isinstance(dtype, str) or not all(type(n) is int and n >= 0 for n in numbers):
            raise TypeError
        if set(entry) != {"dtype", "shape", "data_offsets"} or len(shape) > 8:
            raise TypeError
    except (KeyError, TypeError, ValueError):
        raise _refused(f"has an invalid entry for the tensor {quote(name)}") from None
    if dtype not in _SIZES:
        raise _refused(f"has the dtype {quote(dtype)}, expected F32, F16 or BF16")
    if (expected := prod(shape) * _SIZES[dtype]) != end - begin:
        raise _refused(
            f"has {end - begin:,} bytes for the tensor {quote(name)}, "
            f"expected {str(expected) if expected < 2**60 else 'far more'}"
        )
    return begin, end


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, value in pairs:
        if name in result:
            raise _DuplicateKey(name)
        result[name] = value
    return result


def _refused(message: str) -> FileRefused:
    return FileRefused(message, "use another copy of it")


def build(tensors: Mapping[str, tuple[tuple[int, ...], bytes]], metadata: Mapping[str, str]) -> bytes:
    """Build a safetensors file of float32 tensors {name: (shape, little-endian bytes)}.

    Equal content gives equal bytes, which the library does not promise for metadata.
    """
    entries: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    end = 0
    for name, (shape, raw) in tensors.items():
        assert prod(shape) * 4 == len(raw), (shape, len(raw))
        entries[name] = {
            "dtype": "F32",
            "shape": list(shape),
            "data_offsets": [end, end + len(raw)],
        }
        end += len(raw)
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + b"".join(raw for _, raw in tensors.values())
