"""Write a file so that it is whole or not there at all, whatever happens meanwhile.

Knows no formats.
"""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from .errors import DiskError


def write_atomic(path: Path, data: bytes, check: Callable[[Path], object] | None = None) -> Path:
    """Write `data` beside `path`, sync it, let `check` open it again, and rename it into place.

    Raises `DiskError` when that fails; then what was at `path` is still there, and nothing else.
    """
    beside = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        crash_point("before writing")
        with beside.open("wb") as file:
            half = len(data) // 2
            file.write(data[:half])
            crash_point("half written")
            file.write(data[half:])
            file.flush()
            crash_point("before syncing")
            os.fsync(file.fileno())
        if check is not None:
            check(beside)
        crash_point("before renaming")
        beside.replace(path)
        _sync_folder(path.parent)
        crash_point("after renaming")
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise DiskError(
            f"cannot write {path}: {error.strerror or error}",
            "free some space or choose another place; what was there is untouched",
        ) from error
    except BaseException:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise
    return path


def crash_point(site: str) -> None:
    """A place where a crash would hurt most; tests stop the process here."""


def _sync_folder(folder: Path) -> None:
    """Make a rename last through a power cut, where the system can."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
