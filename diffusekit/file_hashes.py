"""The SHA-256 of large files, kept in the user's cache with the size and time of each file."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import atomic
from .errors import DiffusekitError

_MAX_FILES = 2000  # that the cache remembers
_SHA256 = re.compile(r"[0-9a-f]{64}")


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file. Gigabytes take seconds, so it is computed again only when the file changes."""
    if found := known_sha256(path):
        return found
    sha256 = compute_sha256(path)
    key = str(path.resolve())
    rest = {name: entry for name, entry in _read_cache().items() if name != key}
    _write_cache({**rest, key: {"state": _state(path), "sha256": sha256}})
    return sha256


def known_sha256(path: Path) -> str:
    """Return the SHA-256 of a file if it was computed before and the file has not changed since, else ""."""
    entry = _read_cache().get(str(path.resolve()), {})
    try:
        return entry["sha256"] if entry and entry["state"] == _state(path) else ""
    except OSError:
        return ""


def compute_sha256(path: Path) -> str:
    """Read a file and return its SHA-256."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def old_hash(path: Path) -> str:
    """Return the eight digits by which A1111 named models before it used SHA-256: a hash of 64 KiB of the file."""
    with path.open("rb") as content:
        content.seek(0x100000)
        return hashlib.sha256(content.read(0x10000)).hexdigest()[:8]


def _state(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def _cache_file() -> Path:
    import platformdirs

    return platformdirs.user_cache_path("diffusekit") / "file-hashes.json"


def _read_cache() -> dict[str, Any]:
    """Read the known hashes, the latest last; a damaged entry is left out."""
    try:
        content = json.loads(_cache_file().read_text(encoding="utf-8"))
        return {key: value for key, value in content.items() if _is_entry(value)}
    except (OSError, ValueError, AttributeError, RecursionError):
        return {}


def _is_entry(value: object) -> bool:
    if not isinstance(value, Mapping):
        return False
    sha256 = value.get("sha256")
    return isinstance(value.get("state"), list) and isinstance(sha256, str) and bool(_SHA256.fullmatch(sha256))


def _write_cache(known: Mapping[str, Any]) -> None:
    newest = dict(list(known.items())[-_MAX_FILES:])
    with contextlib.suppress(DiffusekitError, OSError):  # a cache that cannot be written costs time only
        atomic.write_atomic(_cache_file(), json.dumps(newest).encode(), durable=False)
