"""Pickles: opened in a child process that has few rights, little time and little memory.

The child loads tensors only (`weights_only`). It can write no file, open no connection and start no
program. What it returns is checked again like any untrusted file.
"""

from __future__ import annotations

import json
import os
import re
import struct
import subprocess
import sys
import tempfile
import warnings
import zipfile
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...display import format_size, quote
from ...errors import FileRefused
from ..token import MAX_BYTES
from . import layouts, native

if TYPE_CHECKING:
    import torch

SECONDS = 60  # for the child; on a slow disk, torch takes most of it to start
MEMORY = 2**30  # bytes, beyond what torch itself takes
_REFUSED = 3  # exit code of a child that refuses the file
_ENVIRONMENT = ("PATH", "SYSTEMROOT", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LANG", "LC_ALL")
_CODE = "from diffusekit.embeddings.formats.pickle_sandbox import child_main; child_main()"
_HINT = "use a .safetensors copy of it"
_BLOCKED = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.spawn",
    "os.fork",
    "os.kill",
    "os.remove",
    "os.rename",
    "os.link",
    "os.symlink",
    "os.mkdir",
    "os.rmdir",
    "os.truncate",
    "os.chmod",
    "subprocess.",
    "socket.",
    "shutil.",
    "pty.",
    "ctypes.",
    "webbrowser.",
    "urllib.",
    "ftplib.",
    "smtplib.",
    "http.",
    "ssl.",
)


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
        _check_zip(data)
    tensors, metadata = native.parse(open_in_child(data))
    return tensors, {str(k): str(v) for k, v in json.loads(metadata.get("metadata", "{}")).items()}


def _check_zip(data: bytes) -> None:
    """Refuse every zip that torch.save could not have written, before torch reads it."""
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            parts = archive.infolist()
            names = [part.filename for part in parts]
            error = _zip_error(data, parts, names)
            if not error and (damaged := archive.testzip()):
                error = f"has a wrong checksum for {quote(damaged)}"
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, OSError, EOFError):
        error = "is a damaged zip"
    if error:
        raise FileRefused(f"{error}, which torch.save does not write", _HINT)


def _zip_error(data: bytes, parts: list[zipfile.ZipInfo], names: list[str]) -> str:
    """Say what is wrong with a zip, or return ""."""
    if sum(name.rpartition("/")[2] == "data.pkl" for name in names) != 1:
        return "does not have exactly one data.pkl"
    if len(set(names)) != len(names):
        return "has two parts of one name"
    if any(n.startswith("/") or "\\" in n or ":" in n or ".." in n.split("/") for n in names):
        return "has parts outside its folder"
    if any(part.flag_bits & 0x61 for part in parts):
        return "has encrypted or patched parts"
    if any(part.compress_type != zipfile.ZIP_STORED for part in parts):
        return "has compressed parts"
    if sum(part.file_size for part in parts) > MAX_BYTES:
        return f"inflates beyond {format_size(MAX_BYTES)}"
    if any("constants.pkl" in name or "/code/" in name for name in names):
        return "has a program (TorchScript)"
    for part in parts:
        at = part.header_offset
        size = struct.unpack_from("<H", data, at + 26)[0] if at + 30 <= len(data) else 0
        if data[at + 30 : at + 30 + size] != part.orig_filename.encode():
            return "has two names for one part"
    end = data.rfind(b"PK\x05\x06")
    if min(part.header_offset for part in parts) != 0 or end + 22 != len(data):
        return "has bytes before its start or after its end"
    return ""


def open_in_child(data: bytes) -> bytes:
    """Convert a pickle to a safetensors file in a child process; raises the child's `FileRefused`."""
    environment = {key: os.environ[key] for key in _ENVIRONMENT if key in os.environ}
    environment["PYTHONPATH"] = os.pathsep.join(_import_path())
    with tempfile.TemporaryDirectory() as empty:
        environment |= {"OMP_NUM_THREADS": "1", "HOME": empty}
        try:
            done = subprocess.run(
                [sys.executable, "-P", "-c", _CODE],
                input=data,
                capture_output=True,
                timeout=SECONDS,
                cwd=empty,
                env=environment,
            )
        except subprocess.TimeoutExpired:
            raise FileRefused(f"takes more than {SECONDS} seconds to open", _HINT) from None
    if done.returncode == 0:
        return done.stdout
    if done.returncode == _REFUSED:
        message, hint = json.loads(done.stdout)
        raise FileRefused(message, hint)
    raise FileRefused("could not be opened within the time and memory that a token needs", _HINT)


def _import_path() -> list[str]:
    """The folders from which the child imports diffusekit and torch, without the current directory."""
    current = Path.cwd()
    folders = [folder for folder in sys.path if folder and Path(folder).resolve() != current]
    return [str(Path(__file__).parents[3]), *folders]


# --- in the child ------------------------------------------------------------------------------


def child_main() -> None:
    """Read a pickle from stdin and write its tensors to stdout as safetensors; exit with 3 to refuse it."""
    try:
        answer, code = convert(sys.stdin.buffer.read(), restrict=True), 0
    except FileRefused as error:
        answer, code = json.dumps([error.message, error.hint]).encode(), _REFUSED
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


def check_torch_version(version: str) -> None:
    """Refuse a torch below 2.10, whose `weights_only` has holes (CVE-2025-32434, CVE-2026-24747)."""
    if tuple(int(n) for n in re.findall(r"\d+", version)[:2]) < (2, 10):
        raise FileRefused(f"needs torch 2.10 or newer to be opened safely, got {version}", "update torch")


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


def drop_rights() -> None:
    """Forbid this process to write files, start programs and open connections; limit its time and memory."""
    try:
        import resource
    except ImportError:  # Windows has no such limits; the audit hook and the time limit remain
        pass
    else:
        pages = Path("/proc/self/statm")
        used = 3 * 2**30
        if pages.exists():
            used = int(pages.read_text().split()[0]) * os.sysconf("SC_PAGESIZE")
        limits = [
            (resource.RLIMIT_AS, used + MEMORY),
            (resource.RLIMIT_CPU, SECONDS),
            (resource.RLIMIT_FSIZE, 0),
            (resource.RLIMIT_CORE, 0),
        ]
        for kind, limit in limits:
            try:
                resource.setrlimit(kind, (limit, limit))
            except (ValueError, OSError):  # macOS defines RLIMIT_AS but does not support it
                pass
    sys.addaudithook(_block)


def _block(event: str, arguments: tuple[Any, ...]) -> None:
    writes = event == "open" and bool(set("wax+") & set(arguments[1] or "") or arguments[2] & (os.O_WRONLY | os.O_RDWR))
    if writes or event.startswith(_BLOCKED):
        raise PermissionError(event)
