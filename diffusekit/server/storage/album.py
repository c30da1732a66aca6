"""What people do with finished pictures: star them, throw them away, take them back.

All of it is on disk in the outputs folder, in hidden places that are no pictures of the gallery: the
file `.stars` and the folder `.trash`. Knows no page.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path

from ... import atomic
from ...errors import DiskError, UsageError
from . import trash
from .gallery import Gallery, GalleryEntry

STARS = ".stars"
TRASH = trash.FOLDER


class Album:
    """A gallery that can be tidied. Safe to use from any thread."""

    def __init__(self, gallery: Gallery):
        self.gallery, self.outputs = gallery, gallery.outputs
        self._lock = threading.Lock()

    def search(self, words: str = "", *, starred: bool = False, limit: int = 100_000) -> list[GalleryEntry]:
        """Pictures whose prompt holds all words, newest first; with `starred`, those alone."""
        found = self.gallery.search(words, limit=100_000)
        if starred:
            stars = self.stars()
            found = [entry for entry in found if entry.path in stars]
        return found[:limit]

    def stars(self) -> set[str]:
        """The paths of starred pictures; a missing or damaged file has none."""
        try:
            return set((self.outputs / STARS).read_text(encoding="utf-8").splitlines())
        except (OSError, UnicodeDecodeError):
            return set()

    def toggle_star(self, name: str) -> bool:
        """Star a picture, or take its star away; returns whether it has one now."""
        self.gallery.path_of(name)
        with self._lock:
            stars = self.stars() ^ {name}
            self._keep(stars)
        return name in stars

    def move_to_trash(self, name: str) -> str:
        """Move a picture to the trash; returns what `take_back` needs. It keeps its star there."""
        path = self.gallery.path_of(name)
        kept = f"{time.time_ns()}/{name}"
        _move(path, self.outputs / TRASH / kept)
        return kept

    def restore(self, kept: str) -> str:
        """Put a picture back where it was; returns its name.

        Raises `UsageError` when it is not in the trash, or another has taken its place.
        """
        stamp, _, name = kept.partition("/")
        source = self.outputs / TRASH / kept
        inside = self.outputs / TRASH
        if not (stamp.isdigit() and source.resolve().is_relative_to(inside) and source.is_file()):
            raise UsageError("this picture is not in the trash", f"look into {TRASH}")
        if (self.outputs / name).exists():
            raise UsageError(f"{name} is there again", f"the other one stays in {TRASH}")
        _move(source, self.outputs / name)
        for folder in source.parents:
            if folder == inside or any(folder.iterdir()):
                break
            folder.rmdir()
        return name

    def list_trash(self) -> list[str]:
        """What is in the trash, the latest first."""
        inside = self.outputs / TRASH
        files = [path.relative_to(inside) for path in inside.rglob("*") if path.is_file()]
        return sorted((f.as_posix() for f in files if f.parts[0].isdigit()), reverse=True)

    def _keep(self, stars: set[str]) -> None:
        atomic.write_atomic(self.outputs / STARS, "".join(f"{name}\n" for name in sorted(stars)).encode())


def _move(source: Path, target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        source.rename(target)
    except OSError as error:
        raise DiskError(f"cannot move {source.name}: {error.strerror or error}", "may you write there?") from None
