"""Write safetensors files one tensor at a time, so that a model of gigabytes needs memory for one tensor only."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

Progress = Callable[[int], None]  # is told how many more bytes were written
# Names of precisions in safetensors.
DTYPES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
}
_BYTES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
Shapes = Mapping[str, tuple[str, tuple[int, ...]]]  # by name: precision and shape


def count_bytes(shapes: Shapes) -> int:
    """Return the size of all tensors."""
    return sum(prod(shape) * _BYTES[dtype] for dtype, shape in shapes.values())


def lay_out(shapes: Shapes) -> dict[str, tuple[int, int]]:
    """Return where each tensor begins and ends: wide numbers first, so that every one is aligned."""
    spans: dict[str, tuple[int, int]] = {}
    end = 0
    for name, (dtype, shape) in sorted(shapes.items(), key=lambda item: -_BYTES[item[1][0]]):
        begin, end = end, end + prod(shape) * _BYTES[dtype]
        spans[name] = begin, end
    return spans


def build_header(shapes: Shapes, metadata: Mapping[str, str]) -> bytes:
    """Return the first bytes of a safetensors file whose tensors follow as `lay_out` says."""
    entries: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    for name, span in lay_out(shapes).items():
        dtype, shape = shapes[name]
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": list(span)}
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def to_bytes(tensor: torch.Tensor) -> memoryview:
    """Return the bytes of a tensor on the CPU, little-endian as every machine that torch runs on."""
    import torch

    if not tensor.numel():
        return memoryview(b"")
    array: Any = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
    return memoryview(array)


def write_weights(
    path: Path,
    shapes: Shapes,
    tensors: Iterable[tuple[str, torch.Tensor]],
    *,
    metadata: Mapping[str, str],
    on_progress: Progress = lambda count: None,
) -> None:
    """Write tensors, which have the shapes and precisions of `shapes`, and come in any order."""
    header, spans = build_header(shapes, metadata), lay_out(shapes)
    with path.open("wb") as file:
        file.write(header)
        for name, tensor in tensors:
            file.seek(len(header) + spans.pop(name)[0])
            data = to_bytes(tensor)
            file.write(data)
            on_progress(len(data))
    assert not spans, next(iter(spans))
