"""The header of a safetensors file: checked byte by byte before any tensor is made, and written.

Stricter than the library: everything has to add up, so that nothing can hide behind or between the
tensors. Knows no torch. Format: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from ...display import quote
from ...errors import FileRefused

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
    """What a safetensors file says of itself: metadata, and dtype and shape of every tensor."""

    metadata: dict[str, str]
    tensors: dict[str, tuple[str, tuple[int, ...]]]


class _Repeated(ValueError):
    pass


def length(first: bytes, size: int) -> int:
    """The number of bytes of header after the first 8 of a file of `size` bytes.

    Raises `FileRefused` (the caller names the file) when it cannot be.
    """
    if len(first) < 8 or size < 10:
        raise _refused(f"is {size} bytes long, which is too short for a safetensors file")
    number = int.from_bytes(first[:8], "little")
    if number > size - 8:
        raise _refused(
            f"announces a header of {number:,} bytes in a file of {size:,}: it is cut short, or no safetensors file"
        )
    if number > MAX_HEADER:
        raise _refused(f"has a header of {number:,} bytes, at most {MAX_HEADER:,} are wanted")
    return number


def parse(text: bytes, size: int) -> Header:
    """Check the header `text` of a file of `size` bytes; raises `FileRefused` for the first fault."""
    if not text.startswith(b"{"):
        raise _refused("has a header that does not begin with '{'")
    try:
        found = json.loads(text.decode("utf-8"), object_pairs_hook=_unique)
    except UnicodeDecodeError:
        raise _refused("has a header that is not UTF-8") from None
    except _Repeated as error:
        raise _refused(f"names {quote(str(error))} twice") from None
    except (ValueError, RecursionError):
        raise _refused("has a header that is not JSON") from None
    metadata = found.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise _refused("has metadata that are not text")
    if len(found) > MAX_TENSORS:
        raise _refused(f"holds {len(found):,} tensors, at most {MAX_TENSORS} are wanted")
    spans = [_span(name, entry) for name, entry in found.items()]
    end = 0
    for begin, stop in sorted(spans):
        if begin != end:
            kind = "overlap" if begin < end else "leave a hole between them"
            raise _refused(f"holds tensors that {kind}")
        end = stop
    if (held := size - 8 - len(text)) != end:
        less = "more" if held > end else "fewer"
        raise _refused(f"holds {abs(held - end):,} bytes {less} than its header says")
    return Header(metadata, {k: (v["dtype"], tuple(v["shape"])) for k, v in found.items()})


def _span(name: str, entry: Any) -> tuple[int, int]:
    """(begin, end) of one tensor's bytes, after checking them against dtype and shape."""
    try:
        dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        numbers = [*shape, begin, end]
        if not isinstance(dtype, str) or not all(type(n) is int and n >= 0 for n in numbers):
            raise TypeError
        if set(entry) != {"dtype", "shape", "data_offsets"} or len(shape) > 8:
            raise TypeError
    except (KeyError, TypeError, ValueError):
        raise _refused(f"does not describe its tensor {quote(name)} properly") from None
    if dtype not in _SIZES:
        raise _refused(f"holds {quote(dtype)} numbers, where F32, F16 or BF16 are wanted")
    if (wanted := prod(shape) * _SIZES[dtype]) != end - begin:
        raise _refused(
            f"gives {end - begin:,} bytes to the tensor {quote(name)}, "
            f"which takes {str(wanted) if wanted < 2**60 else 'far more'}"
        )
    return begin, end


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise _Repeated(name)
        found[name] = value
    return found


def _refused(message: str) -> FileRefused:
    return FileRefused(message, "use another copy of it")


def build(tensors: Mapping[str, tuple[tuple[int, ...], bytes]], metadata: Mapping[str, str]) -> bytes:
    """A whole safetensors file of float32 tensors {name: (shape, little-endian bytes)}.

    Equal content gives equal bytes, which the library does not promise for metadata.
    """
    described: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    end = 0
    for name, (shape, raw) in tensors.items():
        assert prod(shape) * 4 == len(raw), (shape, len(raw))
        described[name] = {
            "dtype": "F32",
            "shape": list(shape),
            "data_offsets": [end, end + len(raw)],
        }
        end += len(raw)
    text = json.dumps(described, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + b"".join(raw for _, raw in tensors.values())
