"""Photographs that were uploaded to learn from: checked, copied without their names, and kept until nobody
needs them.

A set is a folder below the server's state folder, named by chance. Knows no training and no page.
"""

from __future__ import annotations

import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ... import atomic, images
from ...display import format_count, printable
from ...errors import DataSetError, UsageError
from ...inversion import dataset
from ...inversion.dataset import FileStatus

MIN_IMAGES, MAX_IMAGES = 3, 20
MAX_AGE = 7 * 86_400  # seconds that a set stays which no job names
_FOLDER = "pictures"
_TEXTS = 10_000  # bytes of a caption that are read


@dataclass(frozen=True)
class UploadedSet:
    """A set: what became of every file, and the captions of the pictures that are used."""

    id: str
    folder: Path
    rows: tuple[FileStatus, ...]
    captions: tuple[str, ...]

    @property
    def count(self) -> int:
        return len(self.captions)


def store(state: Path, files: Sequence[Path]) -> UploadedSet:
    """Copy the pictures among some files, and texts of the same name as their captions, into a new set.

    Pictures are decoded and written again, upright. Raises `DataSetError` when fewer than three or more
    than twenty can be used, `DiskError`.
    """
    ordered = sorted(files, key=lambda path: (path.name.casefold(), path.name))
    if len([path for path in ordered if path.suffix.lower() != ".txt"]) > 2 * MAX_IMAGES:
        raise DataSetError(f"these are {len(ordered)} files", f"choose {MIN_IMAGES} to {MAX_IMAGES} pictures")
    inside = state / _FOLDER
    inside.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=inside, prefix=".new-") as staging:
        names = _stage(ordered, Path(staging))
        found = dataset.collect(Path(staging))
        if not MIN_IMAGES <= len(found.photos) <= MAX_IMAGES:
            used = len(found.photos)
            raise DataSetError(
                f"{format_count(used, 'image')} can be used{_describe_skipped(found.files, names)}",
                f"choose {MIN_IMAGES} to {MAX_IMAGES} of one thing",
            )
        made = _create_folder(inside)
        for i, photo in enumerate(found.photos):
            atomic.write_atomic(made / f"{i:02}.png", images.encode(photo.image, "PNG"))
        captions = tuple(photo.caption or "" for photo in found.photos)
        _write_captions(made, captions)
    rows = tuple(_with_original_names(row, names) for row in found.files)
    return UploadedSet(made.name, made, rows, captions)


def find_folder(state: Path, number: str) -> Path:
    """The folder of a set; raises `UsageError` when there is none of that id."""
    folder = state / _FOLDER / number
    if not re.fullmatch(r"[0-9a-f]{16}", number) or not folder.is_dir():
        raise UsageError("pictures is not a set that was uploaded here", "choose the pictures again")
    return folder


def with_captions(state: Path, number: str, captions: Sequence[str]) -> str:
    """The id of the same pictures with other captions, in their order; a new set when they differ."""
    folder = find_folder(state, number)
    pictures = sorted(folder.glob("*.png"))
    told = [" ".join(caption.split()) for caption in captions[: len(pictures)]]
    told += [""] * (len(pictures) - len(told))
    if told == _read_captions(folder, len(pictures)):
        return number
    made = _create_folder(folder.parent)
    for picture in pictures:
        shutil.copy(picture, made / picture.name)
    _write_captions(made, told)
    return made.name


def prune(state: Path, kept: Collection[str]) -> None:
    """Remove sets that are old and not among `kept`."""
    inside = state / _FOLDER
    for folder in inside.glob("*") if inside.is_dir() else ():
        if folder.name not in kept and time.time() - folder.stat().st_mtime > MAX_AGE:
            shutil.rmtree(folder, ignore_errors=True)


def _stage(files: Sequence[Path], folder: Path) -> dict[str, str]:
    """Copy files under names of ours; returns what they were called."""
    names: dict[str, str] = {}
    places: dict[str, str] = {}  # a picture's stem: ours
    texts = [path for path in files if path.suffix.lower() == ".txt"]
    for i, path in enumerate(path for path in files if path.suffix.lower() != ".txt"):
        ending = path.suffix.lower() if path.suffix.lower() in dataset.SUFFIXES else ""
        places.setdefault(path.stem, f"{i:02}")
        names[f"{i:02}{ending}"] = _shown(path.name)
        shutil.copy(path, folder / f"{i:02}{ending}")
    for path in texts:
        if path.stem in places:
            ours = f"{places[path.stem]}.txt"
            names[ours] = _shown(path.name)
            with path.open("rb") as text:
                (folder / ours).write_bytes(text.read(_TEXTS))
    return names


def _shown(name: str) -> str:
    short = name if len(name) <= 60 else f"{name[:50]}…{name[-8:]}"
    return printable(short)


def _with_original_names(row: FileStatus, names: dict[str, str]) -> FileStatus:
    """A row that says what the visitor's files are called."""
    note = re.sub(r"(?<=duplicate of )\S+", lambda m: names.get(m[0], m[0]), row.note)
    return replace(row, file=names.get(row.file, row.file), note=note)


def _describe_skipped(rows: Sequence[FileStatus], names: dict[str, str]) -> str:
    skipped = [_with_original_names(row, names) for row in rows if not row.used]
    return "".join(f"; {row.file} is {row.note}" for row in skipped[:3])


def _create_folder(inside: Path) -> Path:
    folder = inside / secrets.token_hex(8)
    folder.mkdir()
    return folder


def _read_captions(folder: Path, count: int) -> list[str]:
    found = []
    for i in range(count):
        path = folder / f"{i:02}.txt"
        found.append(path.read_text(encoding="utf-8").strip() if path.exists() else "")
    return found


def _write_captions(folder: Path, captions: Sequence[str]) -> None:
    for i, caption in enumerate(captions):
        if caption:
            atomic.write_atomic(folder / f"{i:02}.txt", f"{caption}\n".encode())
