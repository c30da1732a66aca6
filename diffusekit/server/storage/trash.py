"""The trash: a hidden folder, `outputs/.trash` or `embeddings/.trash`, beside what was moved into it.

What is in it can be restored until somebody empties it.
"""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from ...display import format_count, format_size
from ...errors import DiskError, UsageError

FOLDER = ".trash"


@dataclass(frozen=True)
class Usage:
    """How many files there are in a folder, and their size in bytes."""

    files: int
    size: int

    def __str__(self) -> str:
        return f"{format_count(self.files, 'file')}, {format_size(self.size)}"


def put(root: Path, *paths: Path) -> str:
    """Move files and folders below `root` into its trash; return the name of their folder there."""
    stamp = str(time.time_ns())
    for path in paths:
        _move(path, root / FOLDER / stamp / path.relative_to(root))
    return stamp


def restore(root: Path, stamp: str, *names: str) -> None:
    """Move what `put` moved back to where it was; `names` are paths relative to `root`.

    Raises `UsageError` for what is not in the trash, and when something else has taken its place.
    """
    inside = root / FOLDER / stamp
    for name in names:
        source = inside / name
        if not (stamp.isdigit() and source.resolve().is_relative_to(inside.resolve()) and source.exists()):
            raise UsageError("this is not in the trash", f"see the folder {FOLDER}")
        if (root / name).exists():
            raise UsageError(f"{name} exists again", f"the earlier one stays in {FOLDER}")
    for name in names:
        _move(inside / name, root / name)
    for folder in (*(parent for name in names for parent in (inside / name).parents),):
        if folder.is_relative_to(inside) and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def usage(root: Path) -> Usage:
    """How much there is in the trash of a folder."""
    return measure(root / FOLDER)


def measure(folder: Path) -> Usage:
    """How much there is in a folder; links count as themselves, not as their targets."""
    files = size = 0
    for inside, _, names in os.walk(folder):
        for name in names:
            try:
                size += os.lstat(Path(inside, name)).st_size
            except OSError:  # it was restored in the meantime
                continue
            files += 1
    return Usage(files, size)


def empty(root: Path) -> Usage:
    """Delete the trash of a folder; return how much that was. Raises `DiskError`."""
    before = usage(root)
    folder = root / FOLDER
    try:
        if folder.is_symlink():
            folder.unlink()
        elif folder.exists():
            shutil.rmtree(folder)
    except OSError as error:
        reason = error.strerror or error
        raise DiskError(f"the trash could not be emptied: {reason}", "check the folder's permissions") from None
    return before


def _move(source: Path, target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(source, target)
    except OSError as error:
        reason = error.strerror or error
        raise DiskError(f"cannot move {source.name}: {reason}", "check the folder's permissions") from None
