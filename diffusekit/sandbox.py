"""The sandbox in which pickles are opened: a child process with few rights, little time and little memory.

It can write no file, open no connection and start no program. What it returns is checked like any untrusted file.
"""

from __future__ import annotations

import os
import re
import struct
import sys
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

from .display import format_size, quote
from .errors import FileRefused

SECONDS = 60  # for the child; on a slow disk, torch takes most of it to start
MEMORY = 2**30  # bytes, beyond what torch itself takes
REFUSED = 3  # exit code of a child that refuses the file
_ENVIRONMENT = ("PATH", "SYSTEMROOT", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LANG", "LC_ALL")
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


def make_environment(home: str) -> dict[str, str]:
    """Return the environment of a child: no secrets, and imports that do not depend on the current folder."""
    environment = {key: os.environ[key] for key in _ENVIRONMENT if key in os.environ}
    return environment | {"PYTHONPATH": os.pathsep.join(_import_path()), "OMP_NUM_THREADS": "1", "HOME": home}


def make_command(module: str, *arguments: str) -> list[str]:
    """Return the command that runs `child_main` of a module of diffusekit in a new process."""
    return [sys.executable, "-P", "-c", f"from {module} import child_main; child_main()", *arguments]


def _import_path() -> list[str]:
    """The folders from which the child imports diffusekit and torch, without the current directory."""
    current = Path.cwd()
    folders = [folder for folder in sys.path if folder and Path(folder).resolve() != current]
    return [str(Path(__file__).parents[1]), *folders]


def check_zip(file: BinaryIO, *, limit: int) -> None:
    """Refuse every zip that torch.save could not have written, before torch reads it."""
    hint = "use a .safetensors copy of it"
    try:
        with zipfile.ZipFile(file) as archive:
            parts = archive.infolist()
            error = _find_error(file, parts, limit)
            if not error and (damaged := archive.testzip()):
                error = f"has a wrong checksum for {quote(damaged)}"
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, OSError, EOFError):
        error = "is a damaged zip"
    if error:
        raise FileRefused(f"{error}, which torch.save does not write", hint)


def _find_error(file: BinaryIO, parts: list[zipfile.ZipInfo], limit: int) -> str:
    """Say what is wrong with a zip, or return ""."""
    names = [part.filename for part in parts]
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
    if sum(part.file_size for part in parts) > limit:
        return f"inflates beyond {format_size(limit)}"
    if any("constants.pkl" in name or "/code/" in name for name in names):
        return "has a program (TorchScript)"
    for part in parts:
        start = _read_at(file, part.header_offset, 30)
        size = struct.unpack_from("<H", start, 26)[0] if len(start) == 30 else 0
        if _read_at(file, part.header_offset + 30, size) != part.orig_filename.encode():
            return "has two names for one part"
    total = file.seek(0, os.SEEK_END)
    tail = _read_at(file, max(total - 22, 0), 22)
    if min(part.header_offset for part in parts) != 0 or not tail.startswith(b"PK\x05\x06"):
        return "has bytes before its start or after its end"
    return ""


def _read_at(file: BinaryIO, offset: int, count: int) -> bytes:
    file.seek(offset)
    return file.read(count)


def check_torch_version(version: str) -> None:
    """Refuse a torch below 2.10, whose `weights_only` has holes (CVE-2025-32434, CVE-2026-24747)."""
    if tuple(int(n) for n in re.findall(r"\d+", version)[:2]) < (2, 10):
        raise FileRefused(f"needs torch 2.10 or newer to be opened safely, got {version}", "update torch")


def drop_rights(*, memory: int = MEMORY, seconds: int = SECONDS) -> None:
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
            (resource.RLIMIT_AS, used + memory),
            (resource.RLIMIT_CPU, seconds),
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
