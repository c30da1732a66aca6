"""Write files of gigabytes: into a temporary name, with the free space checked first, and renamed at the end."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .display import format_size
from .errors import DiskError, UsageError

_SPARE = 2**24  # bytes that stay free


def check_new(path: Path, *, overwrite: bool) -> None:
    """Raise `UsageError` for a path that exists already."""
    if (path.exists() or path.is_symlink()) and not overwrite:
        raise UsageError(f"{path} already exists", "use another name, or set `overwrite`")


def check_space(folder: Path, size: int) -> None:
    """Raise `DiskError` when the disk of a folder, which need not exist yet, has no room for `size` bytes."""
    place = next((each for each in (folder, *folder.absolute().parents) if each.is_dir()), Path("/"))
    free = shutil.disk_usage(place).free
    if size + _SPARE > free:
        raise DiskError(
            f"{format_size(size)} are needed, and the disk of {place} has {format_size(free)} free",
            "free some space, or use a folder on another disk",
        )


@contextmanager
def replace_path(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """Yield a new name beside `path` for a file or folder, and rename it to `path` at the end.

    On any error, what was written is removed and what was at `path` before is unchanged. Raises `UsageError` for a path
    that exists, and `DiskError` when writing fails.
    """
    check_new(path, overwrite=overwrite)
    temporary = path.with_name(f".{path.name[:60]}.{os.getpid()}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _sync(temporary)
        check_new(path, overwrite=overwrite)
        _swap(temporary, path)
    except BaseException as error:
        _remove(temporary)
        if isinstance(error, OSError):
            raise DiskError(
                f"cannot write {path}: {error.strerror or error}",
                "check the free space and the folder's permissions; what was there before is unchanged",
            ) from error
        raise


def _swap(new: Path, path: Path) -> None:
    """Rename a file or folder over what is at `path`, which is removed last when it is a folder."""
    if not path.is_dir() or path.is_symlink():
        new.replace(path)
        return
    old = path.with_name(f".{path.name[:60]}.{os.getpid()}.old")
    path.rename(old)
    try:
        new.rename(path)
    except OSError:
        old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _sync(path: Path) -> None:
    """Make sure that what was written is on the disk before it replaces anything."""
    for file in [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]:
        with file.open("rb") as content:
            os.fsync(content.fileno())


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
