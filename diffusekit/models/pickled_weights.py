"""Convert a checkpoint in a pickle to safetensors, in the sandbox. Nothing in the pickle is ever run here.

The child reads the file, which it may not write, and sends a safetensors file. The parent writes and checks it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from .. import large_files
from ..display import format_size, quote
from ..errors import FileRefused, UsageError
from ..model_files.headers import MAX_HEADER, read_header
from ..model_files.original_layout import EMA
from ..sandbox import MEMORY, REFUSED, check_torch_version, check_zip, drop_rights, make_command, make_environment
from .weights_writer import DTYPES, Progress, build_header, lay_out, to_bytes

ENDINGS = (".ckpt", ".pt", ".pth", ".bin")
_SECONDS, _BYTES_A_SECOND = 120, 10_000_000  # of the child: to start, and for the file
_CHUNK = 2**22
_HINT = "use a .safetensors copy of it"
# Classes that checkpoints of PyTorch Lightning name. They are read as something that does nothing.
_LIGHTNING = ("pytorch_lightning", "lightning.pytorch")


def import_checkpoint(
    source: Path,
    target: Path,
    *,
    keep_ema: bool = False,
    overwrite: bool = False,
    on_progress: Progress = lambda count: None,
    on_size: Progress = lambda count: None,
) -> Path:
    """Convert the weights in a pickle to a safetensors file, with the names and precisions that they have.

    Averaged weights of training are left out unless `keep_ema`. Raises `FileRefused` for a file that needs anything but
    tensors, or too much time or memory, `UsageError` for a target that exists, and `DiskError`.
    """
    large_files.check_new(target, overwrite=overwrite)
    if target.suffix.lower() not in (".safetensors", ".sft"):
        raise UsageError(f"{target.name} does not end in .safetensors", "use a name that does")
    size = _check_source(source)
    large_files.check_space(target, size)
    on_size(size)
    with large_files.replace_path(target, overwrite=overwrite) as path:
        _receive(source, path, size, keep_ema=keep_ema, on_progress=on_progress)
        _check_answer(source, path)
    return target


def _check_source(source: Path) -> int:
    """Return the size of a file that may be a pickle of weights; raises `FileRefused` for any other."""
    try:
        if not source.is_file():
            what = "a folder" if source.is_dir() else "not a file that exists"
            raise FileRefused(f"{source} is {what}", "give the path of a .ckpt, .pt or .bin file")
        with source.open("rb") as file:
            start = file.read(16)
            if start[8:9] == b"{":
                raise FileRefused(f"{source} is a safetensors file, which needs no conversion", "use it as it is")
            if start[:2] == b"PK":
                check_zip(file, limit=source.stat().st_size)
            elif start[:1] != b"\x80":
                raise FileRefused(f"{source} is not a pickle", "give the path of a .ckpt, .pt or .bin file")
        return source.stat().st_size
    except FileRefused as error:
        if str(source) in error.message:
            raise
        raise FileRefused(f"{source} {error.message}", error.hint) from None
    except OSError as error:
        raise FileRefused(f"cannot open {source}: {error.strerror or error}", "check its permissions") from None


def _receive(source: Path, path: Path, size: int, *, keep_ema: bool, on_progress: Progress) -> None:
    """Write what the child sends to `path`; raises the child's `FileRefused`."""
    seconds = _SECONDS + size // _BYTES_A_SECOND
    command = make_command(__name__, str(source.resolve()), str(seconds), "ema" if keep_ema else "")
    with tempfile.TemporaryDirectory() as empty, path.open("wb") as file:
        child = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=empty, env=make_environment(empty)
        )
        timer = threading.Timer(seconds, child.kill)
        timer.start()
        try:
            assert child.stdout is not None
            answer = _copy(child.stdout, file, limit=2 * size + MAX_HEADER, on_progress=on_progress)
            code = child.wait()
        finally:
            timer.cancel()
            child.kill()
            child.wait()
    if code == REFUSED:
        try:
            message, hint = json.loads(answer)
        except ValueError:
            message, hint = "could not be opened", _HINT
        raise FileRefused(f"{source} {str(message)[:300]}", str(hint)[:300])
    if code != 0:
        raise FileRefused(f"{source} could not be opened within the time and memory that its size needs", _HINT)


def _copy(answer: IO[bytes], file: IO[bytes], *, limit: int, on_progress: Progress) -> bytes:
    """Copy the child's answer to a file; return its first bytes, which hold the message of a refusal."""
    start, total = b"", 0
    while chunk := answer.read(_CHUNK):
        start = start or chunk[:2000]
        total += len(chunk)
        if total > limit:
            raise FileRefused(f"holds more than {format_size(limit)} of tensors", _HINT)
        file.write(chunk)
        on_progress(len(chunk))
    return start


def _check_answer(source: Path, path: Path) -> None:
    """Read the file just written as an untrusted one."""
    from ..errors import ModelError

    try:
        header = read_header(path)
    except ModelError as error:
        raise FileRefused(f"{source} gave no readable weights", error.hint) from None
    if {"string_to_param", "emb_params"} & set(header.tensors) or len(header.tensors) < 3:
        raise FileRefused(f"{source} is not the weights of a model", f"diffusekit embeddings import {source}")


# --- in the child ------------------------------------------------------------------------------


def child_main() -> None:
    """Send the tensors of the pickle that the arguments name; exit with `REFUSED` to refuse it."""
    path, seconds, keep_ema = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "ema"
    try:
        code = send(path, sys.stdout.buffer, seconds=seconds, keep_ema=keep_ema)
    except FileRefused as error:
        sys.stdout.buffer.write(json.dumps([error.message, error.hint]).encode())
        code = REFUSED
    except MemoryError:
        code = 1
    sys.stdout.buffer.flush()
    os._exit(code)


def send(path: Path, out: IO[bytes], *, seconds: int, keep_ema: bool) -> int:
    """Drop the rights of this process for good, load the pickle, and write a safetensors file to `out`."""
    import torch

    check_torch_version(torch.__version__)
    allowed = _allow()
    _warm(allowed)
    drop_rights(memory=MEMORY + 2 * path.stat().st_size, seconds=seconds)
    tensors = flatten(load(path, allowed), keep_ema=keep_ema)
    shapes = {name: (DTYPES[str(t.dtype).removeprefix("torch.")], tuple(t.shape)) for name, t in tensors.items()}
    out.write(build_header(shapes, {"format": "pt"}))
    for name in lay_out(shapes):
        out.write(to_bytes(tensors[name]))
    return 0


class _Inert:
    """What stands for a class of PyTorch Lightning."""


def _allow() -> list[Any]:
    """Return what a pickle may name besides tensors: numbers of numpy, and names that become `_Inert`."""
    import _codecs

    import numpy as np
    import torch

    scalar: Any = np._core.multiarray.scalar  # type: ignore[attr-defined]
    inert = [(_Inert, f"{package}.callbacks.model_checkpoint.ModelCheckpoint") for package in _LIGHTNING]
    numbers = [np.dtype, *(type(np.dtype(name)) for name in ("float64", "float32", "int64", "int32"))]
    scalars = [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    return [torch.nn.ParameterDict, *inert, *numbers, *scalars, (_codecs.encode, "_codecs.encode")]


def _warm(allowed: list[Any]) -> None:
    """Let torch import now what it would import late, when it may not."""
    import io

    import torch

    file = io.BytesIO()
    torch.save({"warm": torch.zeros(1)}, file)
    file.seek(0)
    with torch.serialization.safe_globals(allowed):
        torch.load(file, map_location="cpu", weights_only=True)
    to_bytes(torch.zeros(1))


def load(path: Path, allowed: list[Any]) -> Any:
    """Load a pickle with `weights_only`; raises `FileRefused` for anything but tensors."""
    import torch

    mapped: dict[str, Any] = {"mmap": True} if zipfile.is_zipfile(path) else {}
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(allowed):
            warnings.simplefilter("ignore")
            return torch.load(str(path), map_location="cpu", weights_only=True, **mapped)
    except MemoryError:
        raise
    except Exception as error:  # a hostile pickle can raise any error
        request = re.search(r"(?:GLOBAL|global:?|function|class) ([\w]+(?:\.[\w]+)+)", str(error))
        if request:
            raise FileRefused(
                f"asks for {quote(request[1])} when it is opened, which weights do not need",
                "do not open it with any program; use a .safetensors copy",
            ) from None
        raise FileRefused("was not written by torch.save, or is damaged", _HINT) from None


def flatten(loaded: Any, *, keep_ema: bool) -> dict[str, Any]:
    """Return the tensors of a state dict by name, without what else training left in the file."""
    import torch

    while isinstance(loaded, Mapping) and isinstance(loaded.get("state_dict"), Mapping):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, Mapping):
        raise FileRefused("holds no named weights", _HINT)
    if "string_to_param" in loaded:
        raise FileRefused("is a learned token, not the weights of a model", "diffusekit embeddings import FILE")
    found = {k: v for k, v in loaded.items() if isinstance(k, str) and isinstance(v, torch.Tensor)}
    found = {k: v for k, v in found.items() if keep_ema or not k.startswith(EMA)}
    if not found:
        raise FileRefused("holds no named weights", _HINT)
    for name, tensor in found.items():
        if tensor.layout is not torch.strided or str(tensor.dtype).removeprefix("torch.") not in DTYPES:
            raise FileRefused(f"has {quote(name)} in the precision {tensor.dtype}, which cannot be converted", _HINT)
    return found
