"""The pictures in the outputs folder: found, searched, and the only files that are served.

There is no index to lose: what is known of a picture is read from its file, once. Knows no HTTP.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ... import metadata
from ...errors import DiffusekitError, FileRefused


class ImageForbidden(FileRefused):
    """A name that is no picture's inside the outputs folder, whether or not there is such a file."""

    status = 403


class ImageNotFound(FileRefused):
    """A good name, but no picture."""

    status = 404


@dataclass(frozen=True)
class GalleryEntry:
    """One picture: its path below the outputs folder, its time, and how it was made if it says so."""

    path: str
    changed: float
    size: int
    prompt: str = ""
    settings: dict[str, Any] | None = None


class Gallery:
    """A folder of pictures. Safe to use from any thread."""

    def __init__(self, outputs: Path):
        self.outputs = outputs.resolve()
        self._known: dict[Path, GalleryEntry] = {}
        self._lock = threading.Lock()

    def search(self, words: str = "", *, limit: int = 100, offset: int = 0) -> list[GalleryEntry]:
        """Pictures whose prompt holds all `words`, newest first."""
        wanted = words.lower().split()
        with self._lock:
            read = ((path, self._entry(path)) for path in self._files())
            self._known = {path: entry for path, entry in read if entry}
            entries = sorted(self._known.values(), key=lambda e: (e.changed, e.path), reverse=True)
        found = [e for e in entries if all(word in e.prompt.lower() for word in wanted)]
        return found[offset : offset + limit]

    def path_of(self, name: str) -> Path:
        """The file of a picture by its path below the outputs folder; raises `ImageForbidden` for whatever
        leads out of it, is hidden, or is no picture, and `ImageNotFound`."""
        parts = name.split("/")
        strange = any(not p or p[0] == "." or any(c in p for c in '\\:\0"<>|?*') for p in parts)
        if strange or len(name) > 500 or Path(name).suffix.lower() not in metadata.FORMATS:
            raise ImageForbidden("only pictures in the outputs folder are served")
        path = self.outputs.joinpath(*parts)
        try:
            if not path.resolve().is_relative_to(self.outputs):
                raise ImageForbidden("only pictures in the outputs folder are served")
            there = path.is_file()
        except (OSError, ValueError, RuntimeError):
            there = False
        if not there:
            raise ImageNotFound("there is no such picture")
        return path

    def _files(self) -> list[Path]:
        """Pictures below the folder; hidden files and folders, and links, are left out."""
        found = []
        for folder, folders, names in os.walk(self.outputs):
            folders[:] = [name for name in folders if not name.startswith(".")]
            found += [
                Path(folder, name)
                for name in names
                if not name.startswith(".") and Path(name).suffix.lower() in metadata.FORMATS
            ]
        return [path for path in found if not path.is_symlink()]

    def _entry(self, path: Path) -> GalleryEntry | None:
        """What is known of a file; None if it vanished meanwhile."""
        try:
            about = path.stat()
        except OSError:
            return None
        known = self._known.get(path)
        if known and (known.changed, known.size) == (about.st_mtime, about.st_size):
            return known
        plain = GalleryEntry(path.relative_to(self.outputs).as_posix(), about.st_mtime, about.st_size)
        try:
            found = metadata.read(path)
        except (DiffusekitError, OSError):
            return plain
        if found.record is None:
            return replace(plain, prompt=found.parameters.get("Prompt", ""))
        made = found.record.settings
        settings = made.model_dump(mode="json", exclude={"device", "dtype"})
        return replace(plain, prompt=made.prompt, settings=settings)
