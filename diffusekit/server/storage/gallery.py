"""The images in the outputs folder: search, stars and trash, and the only files that are served.

There is nothing but the files to lose. What is known of an image is read from its file, once. Stars are in the hidden
file `.stars`.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ... import atomic, metadata
from ...errors import DiffusekitError, UsageError
from ..errors import ImageForbidden, ImageNotFound
from . import trash

STARS = ".stars"
MAX_IMAGES = 100_000  # that one search returns


@dataclass(frozen=True)
class GalleryEntry:
    """One image: its path below the outputs folder, its time, and its settings if the file has any."""

    path: str
    changed: float
    size: int
    prompt: str = ""
    settings: dict[str, Any] | None = None


class Gallery:
    """A folder of images. Safe to use from any thread."""

    def __init__(self, outputs: Path):
        self.outputs = outputs.resolve()
        self._known: dict[Path, GalleryEntry] = {}
        self._lock = threading.Lock()
        self._stars_lock = threading.Lock()

    def search(
        self, words: str = "", *, starred: bool = False, limit: int = MAX_IMAGES, offset: int = 0
    ) -> list[GalleryEntry]:
        """Images whose prompt contains all `words`, newest first; with `starred`, only starred ones."""
        terms = words.lower().split()
        with self._lock:
            read = ((path, self._entry(path)) for path in self._files())
            self._known = {path: entry for path, entry in read if entry}
            entries = sorted(self._known.values(), key=lambda e: (e.changed, e.path), reverse=True)
        stars = self.stars() if starred else {entry.path for entry in entries}
        matches = [e for e in entries if e.path in stars and all(term in e.prompt.lower() for term in terms)]
        return matches[offset : offset + limit]

    def path_of(self, name: str) -> Path:
        """The file of an image by its path below the outputs folder.

        Raises `ImageForbidden` for a path that leads out of it, is hidden or is not an image's, and `ImageNotFound`.
        """
        parts = name.split("/")
        strange = any(not p or p[0] == "." or any(c in p for c in '\\:\0"<>|?*') for p in parts)
        if strange or len(name) > 500 or Path(name).suffix.lower() not in metadata.FORMATS:
            raise ImageForbidden("only images in the outputs folder are served")
        path = self.outputs.joinpath(*parts)
        try:
            if not path.resolve().is_relative_to(self.outputs):
                raise ImageForbidden("only images in the outputs folder are served")
            exists = path.is_file()
        except (OSError, ValueError, RuntimeError):
            exists = False
        if not exists:
            raise ImageNotFound("there is no such image")
        return path

    def stars(self) -> set[str]:
        """The paths of starred images; empty when the file is missing or damaged."""
        try:
            return set((self.outputs / STARS).read_text(encoding="utf-8").splitlines())
        except (OSError, UnicodeDecodeError):
            return set()

    def toggle_star(self, name: str) -> bool:
        """Add or remove the star of an image; return whether it has one now."""
        self.path_of(name)
        with self._stars_lock:
            stars = self.stars() ^ {name}
            atomic.write_atomic(self.outputs / STARS, "".join(f"{star}\n" for star in sorted(stars)).encode())
        return name in stars

    def move_to_trash(self, name: str) -> str:
        """Move an image to the trash, where it keeps its star; return the id that `restore` needs."""
        return f"{trash.put(self.outputs, self.path_of(name))}/{name}"

    def restore(self, trash_id: str) -> str:
        """Move an image from the trash back to where it was; return its name.

        Raises `UsageError` when it is not in the trash, or when another image has taken its place.
        """
        stamp, _, name = trash_id.partition("/")
        if not (self.outputs / trash.FOLDER / trash_id).is_file():
            raise UsageError("this image is not in the trash", f"see the folder {trash.FOLDER}")
        trash.restore(self.outputs, stamp, name)
        return name

    def list_trash(self) -> list[str]:
        """The ids of the images in the trash, the latest first."""
        inside = self.outputs / trash.FOLDER
        files = [path.relative_to(inside) for path in inside.rglob("*") if path.is_file()]
        return sorted((file.as_posix() for file in files if file.parts[0].isdigit()), reverse=True)

    def _files(self) -> list[Path]:
        """Images below the folder; hidden files and folders, and links, are left out."""
        files = []
        for folder, folders, names in os.walk(self.outputs):
            folders[:] = [name for name in folders if not name.startswith(".")]
            files += [
                Path(folder, name)
                for name in names
                if not name.startswith(".") and Path(name).suffix.lower() in metadata.FORMATS
            ]
        return [path for path in files if not path.is_symlink()]

    def _entry(self, path: Path) -> GalleryEntry | None:
        """What is known of a file; None if it has disappeared."""
        try:
            status = path.stat()
        except OSError:
            return None
        known = self._known.get(path)
        if known and (known.changed, known.size) == (status.st_mtime, status.st_size):
            return known
        entry = GalleryEntry(path.relative_to(self.outputs).as_posix(), status.st_mtime, status.st_size)
        try:
            about = metadata.read(path)
        except (DiffusekitError, OSError):
            return entry
        if about.record is None:
            return replace(entry, prompt=about.parameters.get("Prompt", ""))
        settings = about.record.settings
        values = settings.model_dump(mode="json", exclude={"device", "dtype", "attention", "memory"})
        return replace(entry, prompt=settings.prompt, settings=values)
