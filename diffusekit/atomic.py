"""Atomic file writes, of one file or of several."""

import contextlib
import errno
import hashlib
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
    temporary = _temporary(path)
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


def check_destination(path: Path) -> None:
    """Refuse a path that cannot be written, before the work whose result it is for.

    Raises `UsageError` for a name that is too long, a folder, a device, and a file in the place of a folder, and
    `DiskError` for a folder that cannot be written.
    """
    parent = path.parent
    try:
        if "\0" in str(path):
            raise ValueError("embedded null character")
        folder = next((p for p in (parent, *parent.parents) if p.exists()), parent)
        longest = max(path.parts, key=lambda part: len(os.fsencode(part)), default="")
        size, limit = len(os.fsencode(longest)), _max_name(folder)
        if size > limit:
            raise UsageError(
                f"the name {longest[:20]}… has {size} bytes, expected at most {limit}", "use a shorter name"
            )
        if not folder.is_dir():
            raise UsageError(f"{folder} is a file, so there cannot be {path}", "use another folder")
        if path.exists() and not path.is_file():
            kind = "a folder" if path.is_dir() else "not a regular file"
            raise UsageError(f"{path} is {kind}, expected a file or a new name", "use another name")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise DiskError(f"cannot write in {folder}: no permission", "use another folder, or change its permissions")
    except OSError as error:
        _check_length(path, error)
        raise DiskError(f"cannot write {path}: {error.strerror or error}", "use another folder") from None
    except ValueError as error:  # no name has these characters, or not in this system's encoding
        raise UsageError(f"{str(path)!r} cannot be the name of a file: {error}", "use another name") from None


def _check_length(path: Path, error: OSError) -> None:
    """Raise `UsageError` if the system said that a name or the whole path is too long."""
    if error.errno == errno.ENAMETOOLONG:
        name = max(path.parts, key=len)
        size = f"{len(os.fsencode(name))} bytes in one name, {len(os.fsencode(path))} altogether"
        raise UsageError(f"the name {name[:20]}… is too long: {size}", "use a shorter name") from None


def _max_name(folder: Path) -> int:
    """Return how many bytes a name may have in a folder."""
    try:
        return os.pathconf(folder, "PC_NAME_MAX")
    except (AttributeError, OSError, ValueError):  # not on Windows, and not on every file system
        return 255


def _temporary(path: Path) -> Path:
    """Return the hidden name under which a file is written first. It is never longer than the file's own."""
    name = path.name if len(os.fsencode(path.name)) < 60 else hashlib.sha256(os.fsencode(path.name)).hexdigest()[:40]
    return path.with_name(f".{name}.new")


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
