"""Pickles: opened in a child process that has few rights, little time and little memory.

The child loads tensors only (`weights_only`). It can write no file, open no connection and start no
program. What it returns is checked again like any untrusted file.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import warnings
from io import BytesIO
from typing import TYPE_CHECKING, Any

from ...display import quote
from ...errors import FileRefused
from ...sandbox import REFUSED, SECONDS, check_torch_version, check_zip, drop_rights, make_command, make_environment
from ..token import MAX_BYTES
from . import layouts, native

if TYPE_CHECKING:
    import torch

_HINT = "use a .safetensors copy of it"


def matches(data: bytes) -> bool:
    """Whether the bytes start like a pickle, or like the zip in which torch stores one."""
    if data[:2] == b"PK":
        return True
    # a safetensors header of 128 or 640 bytes starts the same, but its length continues with zeros
    return len(data) > 1 and data[0] == 0x80 and data[1] <= 5 and data[3:8] != bytes(5)


def parse(data: bytes) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Return (tensors, metadata) of a pickle.

    Raises `FileRefused` when it needs anything but tensors, or too much time or memory. The caller adds
    the file's name.
    """
    if data[:2] == b"PK":
        check_zip(BytesIO(data), limit=MAX_BYTES)
    tensors, metadata = native.parse(open_in_child(data))
    return tensors, {str(k): str(v) for k, v in json.loads(metadata.get("metadata", "{}")).items()}


def open_in_child(data: bytes) -> bytes:
    """Convert a pickle to a safetensors file in a child process; raises the child's `FileRefused`."""
    with tempfile.TemporaryDirectory() as empty:
        try:
            done = subprocess.run(
                make_command(__name__),
                input=data,
                capture_output=True,
                timeout=SECONDS,
                cwd=empty,
                env=make_environment(empty),
            )
        except subprocess.TimeoutExpired:
            raise FileRefused(f"takes more than {SECONDS} seconds to open", _HINT) from None
    if done.returncode == 0:
        return done.stdout
    if done.returncode == REFUSED:
        message, hint = json.loads(done.stdout)
        raise FileRefused(message, hint)
    raise FileRefused("could not be opened within the time and memory that a token needs", _HINT)


# --- in the child ------------------------------------------------------------------------------


def child_main() -> None:
    """Read a pickle from stdin and write its tensors to stdout as safetensors; exit with 3 to refuse it."""
    try:
        answer, code = convert(sys.stdin.buffer.read(), restrict=True), 0
    except FileRefused as error:
        answer, code = json.dumps([error.message, error.hint]).encode(), REFUSED
    except MemoryError:
        answer, code = b"", 1
    sys.stdout.buffer.write(answer)
    sys.stdout.buffer.flush()
    os._exit(code)


def convert(data: bytes, *, restrict: bool = False) -> bytes:
    """Convert a pickle to a safetensors file with its metadata, without running anything in it.

    `restrict` first drops the rights of this process for good. Only the child does that.
    """
    import torch
    from safetensors.torch import save

    check_torch_version(torch.__version__)
    if restrict:
        save({"warm": torch.zeros(1)})
        load_pickle(_warm_pickle())  # torch imports now what it would import late
        drop_rights()
    tensors, metadata = layouts.flatten(load_pickle(data))
    # safetensors does not write views of one storage, so each tensor is copied
    return save({k: v.clone() for k, v in tensors.items()}, {"metadata": json.dumps(metadata)})


def _warm_pickle() -> bytes:
    import torch

    file = BytesIO()
    torch.save({"warm": torch.zeros(1)}, file)
    return file.getvalue()


def load_pickle(data: bytes) -> Any:
    """Load a pickle with `weights_only`; raises `FileRefused` for anything but tensors."""
    import torch

    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals([torch.nn.ParameterDict]):
            warnings.simplefilter("ignore")
            return torch.load(BytesIO(data), map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # a hostile pickle can raise any error
        request = re.search(r"(?:GLOBAL|global:?|function|class) ([\w]+(?:\.[\w]+)+)", str(error))
        if request:
            raise FileRefused(
                f"asks for {quote(request[1])} when it is opened, which a token does not need",
                "do not open it with any program; use a .safetensors copy",
            ) from None
        raise FileRefused("was not written by torch.save, or is damaged", _HINT) from None
