"""Bring in a token from a pickle, safely: a child process with nothing to steal or break opens it.

The child allows tensors only (`weights_only`), may write no file, open no connection and start no
program, and has little time and memory; what it hands back is checked again like any stranger's file.
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
from typing import Any

from ...display import quote
from ...errors import FileRefused
from ..token import LearnedToken
from . import layouts, native

SECONDS = 60  # for the child, most of which torch takes to start on a slow disk
MEMORY = 2**30  # beyond what torch itself takes
_REFUSED = 3
_KEPT = ("PATH", "SYSTEMROOT", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LANG", "LC_ALL")
_CODE = "from diffusekit.embeddings.formats.pickle_sandbox import child; child()"
_HINT = "use a .safetensors copy of it"
_BARRED = (
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


def import_pickle(path: Path | str, token: str = "") -> LearnedToken:
    """Read a token from a file of any kind, pickles included; `token` replaces what the file says.

    The file itself is not touched. Raises `FileRefused` when it asks for anything but tensors, takes
    too long or too much, or is not one token.
    """
    path = Path(path)
    data = native.contents(path)
    if not native.is_pickle(data):
        return native.parse_whole(path, data, token)
    try:
        if data[:2] == b"PK":
            _check_zip(data)
        answer = _ask_child(data)
        own = native.header_of(answer, len(answer)).metadata
        told = json.loads(own.get("metadata", "{}"))
        metadata = {str(k): str(v) for k, v in told.items()} | ({"token": token} if token else {})
        return native.assemble(path, data, native.load(answer), metadata)
    except FileRefused as error:
        raise native.named(path, error) from None


def _check_zip(data: bytes) -> None:
    """Refuse every zip but the plain one that torch.save writes, before torch looks at it."""
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            parts = archive.infolist()
            names = [part.filename for part in parts]
            fault = _zip_fault(data, parts, names)
            if not fault and (bad := archive.testzip()):
                fault = f"has a wrong checksum for {quote(bad)}"
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, OSError, EOFError):
        fault = "is a damaged zip"
    if fault:
        raise FileRefused(f"{fault}; torch.save writes no such file", _HINT)


def _zip_fault(data: bytes, parts: list[zipfile.ZipInfo], names: list[str]) -> str:
    if sum(name.rpartition("/")[2] == "data.pkl" for name in names) != 1:
        return "does not hold exactly one data.pkl"
    if len(set(names)) != len(names):
        return "holds two parts of one name"
    if any(n.startswith("/") or "\\" in n or ":" in n or ".." in n.split("/") for n in names):
        return "holds parts that would lie outside its folder"
    if any(part.flag_bits & 0x61 for part in parts):
        return "holds encrypted or patched parts"
    if any(part.compress_type != zipfile.ZIP_STORED for part in parts):
        return "holds compressed parts"
    if sum(part.file_size for part in parts) > native.MAX_BYTES:
        return "inflates beyond 16 MiB"
    if any("constants.pkl" in name or "/code/" in name for name in names):
        return "holds a program (TorchScript)"
    for part in parts:
        at = part.header_offset
        size = struct.unpack_from("<H", data, at + 26)[0] if at + 30 <= len(data) else 0
        if data[at + 30 : at + 30 + size] != part.orig_filename.encode():
            return "names its parts in two ways"
    end = data.rfind(b"PK\x05\x06")
    if min(part.header_offset for part in parts) != 0 or end + 22 != len(data):
        return "has something in front of it or behind it"
    return ""


def _ask_child(data: bytes) -> bytes:
    """A safetensors file of what the pickle holds, from a child process; or its refusal."""
    environment = {key: os.environ[key] for key in _KEPT if key in os.environ}
    environment["PYTHONPATH"] = os.pathsep.join(_places())
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
            raise FileRefused(f"takes longer than {SECONDS} seconds to open", _HINT) from None
    if done.returncode == 0:
        return done.stdout
    if done.returncode == _REFUSED:
        message, hint = json.loads(done.stdout)
        raise FileRefused(message, hint)
    raise FileRefused("could not be opened in the time and memory that a token takes", _HINT)


def _places() -> list[str]:
    """Where Python finds diffusekit and torch, without the folder the user happens to be in."""
    here = Path.cwd()
    places = [place for place in sys.path if place and Path(place).resolve() != here]
    return [str(Path(__file__).parents[3]), *places]


# --- in the child ------------------------------------------------------------------------------


def child() -> None:
    """Read a pickle from stdin and write its tensors to stdout as safetensors; exit 3 to refuse."""
    # torch's warnings go the same way as everything else that nobody reads
    try:
        answer, code = opened(sys.stdin.buffer.read(), guard=True), 0
    except FileRefused as error:
        answer, code = json.dumps([error.message, error.hint]).encode(), _REFUSED
    except MemoryError:
        answer, code = b"", 1
    sys.stdout.buffer.write(answer)
    sys.stdout.buffer.flush()
    os._exit(code)


def opened(data: bytes, *, guard: bool = False) -> bytes:
    """The tensors of a pickle as safetensors, its facts as metadata; never runs anything in it.

    `guard` also takes away, for good, what this process may do: for the child alone.
    """
    import torch
    from safetensors.torch import save

    _check_torch(torch.__version__)
    if guard:
        save({"warm": torch.zeros(1)})
        _load(torch, _saved(torch))  # whatever torch imports late, it imports now
        _give_up_rights()
    tensors, metadata = layouts.flatten(_load(torch, data))
    # views of one storage, which safetensors does not write, become tensors of their own
    return save({k: v.clone() for k, v in tensors.items()}, {"metadata": json.dumps(metadata)})


def _saved(torch: Any) -> bytes:
    file = BytesIO()
    torch.save({"warm": torch.zeros(1)}, file)
    return file.getvalue()


def _check_torch(version: str) -> None:
    """Below torch 2.10 a pickle can get past `weights_only` (CVE-2025-32434, CVE-2026-24747)."""
    if tuple(int(n) for n in re.findall(r"\d+", version)[:2]) < (2, 10):
        raise FileRefused(f"needs torch 2.10 or newer to be opened safely, this is {version}", "update torch")


def _load(torch: Any, data: bytes) -> Any:
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals([torch.nn.ParameterDict]):
            warnings.simplefilter("ignore")
            return torch.load(BytesIO(data), map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # a pickle made to confuse raises anything at all
        asked = re.search(r"(?:GLOBAL|global:?|function|class) ([\w]+(?:\.[\w]+)+)", str(error))
        if asked:
            raise FileRefused(
                f"asks for {quote(asked[1])} when it is opened, which is no part of a token",
                "do not open it with anything; use a .safetensors copy",
            ) from None
        raise FileRefused("is no file that torch.save wrote, or is damaged", _HINT) from None


def _give_up_rights() -> None:
    """From here on: no files written, no programs, no connections; bounded time and memory."""
    try:
        import resource
    except ImportError:  # Windows has no such limits; the hook and the clock remain
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
            except (ValueError, OSError):  # macOS knows RLIMIT_AS only by name
                pass
    sys.addaudithook(_bar)


def _bar(event: str, arguments: tuple[Any, ...]) -> None:
    writes = event == "open" and bool(set("wax+") & set(arguments[1] or "") or arguments[2] & (os.O_WRONLY | os.O_RDWR))
    if writes or event.startswith(_BARRED):
        raise PermissionError(event)
