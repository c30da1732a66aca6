"""The hash of a local model: SHA-256 over its files, kept in the user's cache, and where a model of a hash lies."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import atomic, model_files
from ..errors import DiffusekitError, ModelError

_MAX_MODELS = 500  # that the cache remembers


def hash_model(folder: Path, *, half: bool) -> str:
    """Return the SHA-256 of a file, or of the files of a model in diffusers layout, in one precision.

    That of a folder covers names and contents of weights, configurations and tokenizer. That of a file is what A1111
    and Civitai know. Gigabytes take seconds, so the hash is kept with the size and time of every file, and computed
    again when one of them differs.
    """
    is_file = folder.is_file()
    files = [folder] if is_file else model_files.read_folder(folder.name, folder, weights=False).files(half=half)
    state = [[f.relative_to(folder).as_posix(), f.stat().st_size, f.stat().st_mtime_ns] for f in files]
    key, known = f"{folder.resolve()} {'half' if half else 'full'}", _read_cache()
    found = known.get(key)
    if found is not None and found["state"] == state:
        return found["sha256"]
    lines, digest = [], ""
    for file, (name, *_) in zip(files, state, strict=True):
        with file.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
            lines.append(f"{digest}  {name}\n")
    sha256 = digest if is_file else hashlib.sha256("".join(lines).encode()).hexdigest()
    rest = {k: v for k, v in known.items() if k != key}
    _write_cache({**rest, key: {"state": state, "sha256": sha256, "folder": str(folder.resolve()), "half": half}})
    return sha256


def find_by_hash(sha256: str) -> Path | None:
    """Return the folder or file of a local model or VAE that was used here before, if it still has this hash."""
    for entry in reversed(_read_cache().values()):
        folder = Path(entry["folder"])
        if entry["sha256"] == sha256:
            with contextlib.suppress(ModelError, OSError):
                if hash_model(folder, half=entry["half"]) == sha256:
                    return folder
    return None


def _cache_file() -> Path:
    import platformdirs

    return platformdirs.user_cache_path("diffusekit") / "model-hashes.json"


def _read_cache() -> dict[str, Any]:
    """Read the known hashes, the latest last; a damaged entry is left out."""
    try:
        content = json.loads(_cache_file().read_text(encoding="utf-8"))
        return {key: value for key, value in content.items() if _is_entry(value)}
    except (OSError, ValueError, AttributeError, RecursionError):
        return {}


def _is_entry(value: object) -> bool:
    kinds = {"state": list, "sha256": str, "folder": str, "half": bool}
    return isinstance(value, Mapping) and all(isinstance(value.get(key), kind) for key, kind in kinds.items())


def _write_cache(known: Mapping[str, Any]) -> None:
    newest = dict(list(known.items())[-_MAX_MODELS:])
    with contextlib.suppress(DiffusekitError, OSError):  # a cache that cannot be written costs time only
        atomic.write_atomic(_cache_file(), json.dumps(newest).encode(), durable=False)
