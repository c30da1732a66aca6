"""What was thrown away and can be taken back until somebody empties the trash. Knows no page.

A trash is a hidden folder beside the things that were in it: `outputs/.trash`, `embeddings/.trash`.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from ...display import format_count, format_size
from ...errors import DiskError

FOLDER = ".trash"


@dataclass(frozen=True)
class Usage:
    """How much there is in a trash."""

    files: int
    size: int  # bytes

    def __str__(self) -> str:
        return f"{format_count(self.files, 'file')}, {format_size(self.size)}"


def usage(folder: Path) -> Usage:
    """What is in the trash of a folder."""
    return measure(folder / FOLDER)


def measure(folder: Path) -> Usage:
    """How much there is in a folder; links count as themselves, not as what they lead to."""
    files = size = 0
    for inside, _, names in os.walk(folder):
        for name in names:
            try:
                size += os.lstat(Path(inside, name)).st_size
            except OSError:  # it was taken back meanwhile
                continue
            files += 1
    return Usage(files, size)


def empty(folder: Path) -> Usage:
    """Delete for good what is in the trash of a folder; says what that was. Raises `DiskError`."""
    before = usage(folder)
    trash = folder / FOLDER
    try:
        if trash.is_symlink():
            trash.unlink()
        elif trash.exists():
            shutil.rmtree(trash)
    except OSError as error:
        raise DiskError(f"the trash could not be emptied: {error.strerror or error}", "may you write there?") from None
    return before
