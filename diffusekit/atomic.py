"""Atomic file writes, of one file or of several."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from .errors import DiffusekitError, DiskError, UsageError


def write_atomic(
    path: Path, data: bytes, check: Callable[[Path], object] | None = None, *, durable: bool = True
) -> Path:
    """Write `data` to a temporary file beside `path`, let `check` read it, then rename it into place.

    With `durable`, the file and its folder are synced first, so that the file survives a power cut.
    Raises `DiskError` when writing fails, and whatever `check` raises. Then the old file at `path` is
    unchanged, and the temporary file is gone.
    """
    temporary = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        crash_point("before writing")
        with temporary.open("wb") as file:
            half = len(data) // 2
            file.write(data[:half])
            crash_point("half written")
            file.write(data[half:])
            file.flush()
            crash_point("before syncing")
            if durable:
                os.fsync(file.fileno())
        if check is not None:
            check(temporary)
        crash_point("before renaming")
        temporary.replace(path)
        if durable:
            _sync_folder(path.parent)
        crash_point("after renaming")
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise DiskError(
                f"cannot write {path}: {error.strerror or error}",
                "check the free space and the folder's permissions; the old file is unchanged",
            ) from error
        raise
    return path


def write_all(
    files: dict[Path, bytes], *, overwrite: bool, check: Callable[[Path], object] | None = None
) -> list[Path]:
    """Write all files or none, and return their paths. Raises `UsageError` when one exists already."""
    for path in files:
        if (path.exists() or path.is_symlink()) and not overwrite:
            raise UsageError(f"{path} already exists", "use another name, or set `overwrite`")
    old: dict[Path, bytes | None] = {}
    try:
        for path, data in files.items():
            before = path.read_bytes() if path.is_file() else None
            write_atomic(path, data, check)
            old[path] = before
    except DiffusekitError:
        for path, before in old.items():
            if before is None:
                path.unlink(missing_ok=True)
            else:
                write_atomic(path, before)
        raise
    return list(files)


def crash_point(site: str) -> None:
    """Mark a point where a crash would do the most harm. Tests replace this function to stop the process."""


def _sync_folder(folder: Path) -> None:
    """Sync a folder, so that a rename in it survives a power cut. Only POSIX systems can."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
