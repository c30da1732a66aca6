"""The hash of a LoRA file as A1111 and kohya compute it, kept in the user's cache, and the file that has a hash."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from .. import atomic
from ..errors import DiffusekitError

_MAX_KNOWN = 2000  # files that the cache remembers


def hash_lora(path: Path) -> str:
    """Return the SHA-256 of what comes after the header of a safetensors file.

    It stays the same when the metadata is edited. It is kept with the size and time of the file.
    """
    status, key, known = path.stat(), str(path.resolve()), _read_cache()
    size, time, sha256 = known.get(key, (0, 0, ""))
    if sha256 and (size, time) == (status.st_size, status.st_mtime_ns):
        return sha256
    with path.open("rb") as file:
        file.seek(int.from_bytes(file.read(8), "little"), 1)
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    known.pop(key, None)
    _write_cache({**known, key: (status.st_size, status.st_mtime_ns, sha256)})
    return sha256


def find_by_hash(sha256: str, paths: Iterable[Path] = ()) -> Path | None:
    """Return the file whose hash begins with `sha256`: one that was used here before, or one of `paths`."""
    if len(sha256) < 8:
        return None
    known = [Path(key) for key, (_, _, known) in reversed(_read_cache().items()) if known.startswith(sha256)]
    for path in (*known, *paths):
        with contextlib.suppress(OSError):
            if hash_lora(path).startswith(sha256):
                return path
    return None


def _cache_file() -> Path:
    import platformdirs

    return platformdirs.user_cache_path("diffusekit") / "lora-hashes.json"


def _read_cache() -> dict[str, tuple[int, int, str]]:
    """Read the known hashes, the latest last; a damaged entry is left out."""
    try:
        content = json.loads(_cache_file().read_text(encoding="utf-8"))
        return {
            key: (int(entry[0]), int(entry[1]), str(entry[2]))
            for key, entry in content.items()
            if isinstance(entry, list) and len(entry) == 3
        }
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}


def _write_cache(known: dict[str, tuple[int, int, str]]) -> None:
    newest = dict(list(known.items())[-_MAX_KNOWN:])
    with contextlib.suppress(DiffusekitError, OSError):  # a cache that cannot be written costs time only
        atomic.write_atomic(_cache_file(), json.dumps(newest).encode(), durable=False)
