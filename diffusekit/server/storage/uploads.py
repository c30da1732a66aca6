"""Uploaded training sets: checked, copied without their file names, and deleted when no job needs them.

A set is a folder with a random name below the server's state folder.
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
MAX_AGE = 7 * 86_400  # seconds after which a set that no job names is deleted
_FOLDER = "pictures"
_TEXTS = 10_000  # bytes of a caption that are read


@dataclass(frozen=True)
class UploadedSet:
    """A training set: the status of every uploaded file, and the captions of the images that are used."""

    id: str
    folder: Path
    files: tuple[FileStatus, ...]
    captions: tuple[str, ...]

    @property
    def count(self) -> int:
        return len(self.captions)


def store(state: Path, files: Sequence[Path]) -> UploadedSet:
    """Copy the images among some files into a new set, with texts of the same name as their captions.

    Images are decoded and written again, upright. Raises `DataSetError` unless three to twenty can be used, and
    `DiskError`.
    """
    ordered = sorted(files, key=lambda path: (path.name.casefold(), path.name))
    if len([path for path in ordered if path.suffix.lower() not in dataset.TEXT_SUFFIXES]) > 2 * MAX_IMAGES:
        raise DataSetError(f"{len(ordered)} files are too many", f"choose {MIN_IMAGES} to {MAX_IMAGES} images")
    inside = state / _FOLDER
    inside.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=inside, prefix=".new-") as staging:
        names = _stage(ordered, Path(staging))
        collection = dataset.collect(Path(staging))
        if not MIN_IMAGES <= len(collection.photos) <= MAX_IMAGES:
            used = len(collection.photos)
            raise DataSetError(
                f"{format_count(used, 'image')} can be used{_describe_skipped(collection.files, names)}",
                f"choose {MIN_IMAGES} to {MAX_IMAGES} of one thing",
            )
        folder = _create_folder(inside)
        for i, photo in enumerate(collection.photos):
            atomic.write_atomic(folder / f"{i:02}.png", images.encode(photo.image, "PNG"))
        captions = tuple(photo.caption or "" for photo in collection.photos)
        _write_captions(folder, captions)
    statuses = tuple(_with_original_names(status, names) for status in collection.files)
    return UploadedSet(folder.name, folder, statuses, captions)


def find_folder(state: Path, set_id: str) -> Path:
    """The folder of a set; raises `UsageError` when there is none of that id."""
    folder = state / _FOLDER / set_id
    if not re.fullmatch(r"[0-9a-f]{16}", set_id) or not folder.is_dir():
        raise UsageError("pictures is not a set that was uploaded here", "upload the images again")
    return folder


def with_captions(state: Path, set_id: str, captions: Sequence[str]) -> str:
    """The id of the same images with these captions, in their order; a new set when the captions differ."""
    folder = find_folder(state, set_id)
    paths = sorted(folder.glob("*.png"))
    lines = [" ".join(caption.split()) for caption in captions[: len(paths)]]
    lines += [""] * (len(paths) - len(lines))
    if lines == _read_captions(folder, len(paths)):
        return set_id
    copy = _create_folder(folder.parent)
    for path in paths:
        shutil.copy(path, copy / path.name)
    _write_captions(copy, lines)
    return copy.name


def prune(state: Path, used: Collection[str]) -> None:
    """Remove sets that are old and not in `used`."""
    inside = state / _FOLDER
    for folder in inside.glob("*") if inside.is_dir() else ():
        if folder.name not in used and time.time() - folder.stat().st_mtime > MAX_AGE:
            shutil.rmtree(folder, ignore_errors=True)


def _stage(files: Sequence[Path], folder: Path) -> dict[str, str]:
    """Copy files under new names; return the original name of each."""
    names: dict[str, str] = {}
    stems: dict[str, str] = {}  # original to new
    texts = [path for path in files if path.suffix.lower() in dataset.TEXT_SUFFIXES]
    for i, path in enumerate(path for path in files if path not in texts):
        ending = path.suffix.lower() if path.suffix.lower() in dataset.SUFFIXES else ""
        stems.setdefault(path.stem, f"{i:02}")
        names[f"{i:02}{ending}"] = _shorten(path.name)
        shutil.copy(path, folder / f"{i:02}{ending}")
    for path in texts:
        if path.stem in stems:
            new = f"{stems[path.stem]}{path.suffix.lower()}"
            names[new] = _shorten(path.name)
            with path.open("rb") as text:
                (folder / new).write_bytes(text.read(_TEXTS))
    return names


def _shorten(name: str) -> str:
    short = name if len(name) <= 60 else f"{name[:50]}…{name[-8:]}"
    return printable(short)


def _with_original_names(status: FileStatus, names: dict[str, str]) -> FileStatus:
    """A status with the visitor's file names."""
    note = re.sub(r"(?<=duplicate of )\S+", lambda m: names.get(m[0], m[0]), status.note)
    return replace(status, file=names.get(status.file, status.file), note=note)


def _describe_skipped(files: Sequence[FileStatus], names: dict[str, str]) -> str:
    skipped = [_with_original_names(status, names) for status in files if not status.used]
    return "".join(f"; {status.file} is {status.note}" for status in skipped[:3])


def _create_folder(inside: Path) -> Path:
    folder = inside / secrets.token_hex(8)
    folder.mkdir()
    return folder


def _read_captions(folder: Path, count: int) -> list[str]:
    captions = []
    for i in range(count):
        path = folder / f"{i:02}.txt"
        captions.append(path.read_text(encoding="utf-8").strip() if path.exists() else "")
    return captions


def _write_captions(folder: Path, captions: Sequence[str]) -> None:
    for i, caption in enumerate(captions):
        if caption:
            atomic.write_atomic(folder / f"{i:02}.txt", f"{caption}\n".encode())
