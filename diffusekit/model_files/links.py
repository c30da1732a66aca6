"""Refuse links in a model's folder that lead out of it; the links of the hub's cache are the exception."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from pathlib import Path

from ..errors import ModelError
from .headers import unreadable

_BLOB = re.compile(r".*[/\\]models--[\w.-]+[/\\]blobs[/\\][0-9a-f]{40,64}")
_READ = (".json", ".txt", ".safetensors")


def check_links(name: str, folder: Path, parts: Collection[str]) -> None:
    """Raise `ModelError` when a file of the model `name` is a link to something outside its folder.

    Files of `folder` itself and of its subfolders `parts` are looked at. Links into `blobs/` of a hub cache are
    what the hub writes, and they are allowed.
    """
    root = Path(os.path.realpath(folder))
    for place in (folder, *(folder / part for part in parts)):
        for file in _links(place):
            if place == folder and file.name not in parts and not file.name.endswith(_READ):
                continue
            target = Path(os.path.realpath(file))
            if not target.is_relative_to(root) and not _BLOB.fullmatch(str(target)):
                raise ModelError(
                    f"{file.relative_to(folder).as_posix()} of {name} is a link to something outside its folder",
                    "if you trust it, copy the file it points to into the folder",
                )


def _links(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return [folder / entry.name for entry in entries if entry.is_symlink()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise unreadable(folder, error) from None
