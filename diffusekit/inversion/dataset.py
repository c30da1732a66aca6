"""The training images: read a folder, check every file, and report what became of it before training starts."""

from __future__ import annotations

import hashlib
import json
import unicodedata
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image, ImageOps

from .. import images
from ..display import format_size, printable
from ..errors import DataSetError, FileRefused, UsageError

MAX_PHOTOS = 1000
MAX_BYTES = 256 * 2**20  # of one file
MAX_CAPTION = 1000  # characters
MIN_SIDE = 16  # pixels
MAX_SIDE = 2048  # pixels: larger photos are reduced, or a hundred from a phone would not fit into memory
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".heic", ".avif")
TEXT_SUFFIXES = (".txt", ".caption")  # of captions, as kohya's trainer reads them
_ORIENTATION = 0x0112
_BY_SYSTEMS = ("thumbs.db", "desktop.ini", "icon\r")
_HEIC = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}


@dataclass(frozen=True)
class FileStatus:
    """A file in the folder, and what became of it: one line of the table before training."""

    file: str  # name, without control characters
    size: str  # "768x512" after rotation, "" when it was not opened
    used: bool
    note: str  # what was done to it, or why it was skipped


@dataclass(frozen=True, eq=False)
class Photo:
    """A usable training image. `image` is upright RGB, at most `MAX_SIDE` on its shorter side."""

    file: str
    image: Image.Image
    alpha: Image.Image | None  # "L", as large as the image; None when nothing is transparent
    caption: str | None  # the text of 00.txt or 00.caption beside 00.jpg
    sha256: str  # of the file's bytes


@dataclass(frozen=True, eq=False)
class DataSet:
    """The photos that are used, in the order of their names, and the status of every file in the folder."""

    photos: tuple[Photo, ...]
    files: tuple[FileStatus, ...]

    @property
    def sha256(self) -> str:
        """SHA-256 of the photos' bytes and captions, in order. File names and times do not matter."""
        content = [[photo.sha256, photo.caption] for photo in self.photos]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def with_notes(self, notes: Mapping[str, str]) -> DataSet:
        """The same data set, with a note added to some files."""
        files = (replace(f, note=", ".join(filter(None, (f.note, notes.get(f.file))))) for f in self.files)
        return replace(self, files=tuple(files))


class _Skipped(Exception):
    """The reason why a file is not used."""


def collect(folder: Path, *, strict: bool = False) -> DataSet:
    """Read every file of a folder once, open the images, and record what became of each file.

    Files are ordered by name, first without regard to case. Sub-folders are not entered, and links are followed only
    within the folder. The text file of an image, .txt or .caption, is its caption and is not listed: its lines are
    joined and cut to `MAX_CAPTION` characters. Of two, the .txt file is used. `strict` refuses a folder in which a
    file is skipped, except for hidden files and files of the operating system.

    Raises `UsageError` when the folder cannot be read, `DataSetError` when it holds no image or too many.
    """
    paths = _paths(folder)
    texts = _text_files(paths)
    captions = _captions(folder, texts)
    photos: list[Photo] = []
    files: list[FileStatus] = []
    seen: dict[bytes, str] = {}  # digest of the decoded pixels: the first file with them
    for path in paths:
        caption = captions.get(_stem(path))
        try:
            if caption is not None and _is_text(path):
                if path != texts[_stem(path)]:
                    raise _Skipped(f"not used: the caption is in {_display_name(texts[_stem(path)].name)}")
                if isinstance(caption, str):
                    continue  # it belongs to its image
                raise caption
            photo, status = _read_photo(folder, path, caption if isinstance(caption, str) else None)
            digest = hashlib.sha256(f"{photo.image.size}".encode() + photo.image.tobytes())
            if (first := seen.setdefault(digest.digest(), status.file)) != status.file:
                raise _Skipped(f"a duplicate of {first}")
            photos.append(photo)
        except _Skipped as skipped:
            status = FileStatus(_display_name(path.name), "", False, str(skipped))
            if strict and not _is_hidden(path.name):
                raise DataSetError(
                    f"{status.file} cannot be used: {status.note}", "remove it from the folder, or repair it"
                ) from None
        files.append(status)
    _check_count(len(photos), folder, files)
    return DataSet(tuple(photos), tuple(files))


def note_enlarged(data: DataSet, side: int) -> DataSet:
    """The same data set, with a note on photos that have to be enlarged to squares of `side` pixels."""
    photos = {photo.file: photo.image for photo in data.photos}
    return data.with_notes(
        {
            file: f"enlarged from {image.width}x{image.height}"
            for file, image in photos.items()
            if min(image.size) < side
        }
    )


def _check_count(count: int, folder: Path, files: list[FileStatus]) -> None:
    if count > MAX_PHOTOS:
        raise DataSetError(
            f"{folder} holds more than {MAX_PHOTOS:,} images, but a token is learned from a few",
            "choose three to ten of one thing, or up to fifty of a style",
        )
    if not count:
        reasons = "".join(f"; {file.file}: {file.note}" for file in files[:3])
        raise DataSetError(
            f"{folder} holds no image that can be used{reasons}",
            f"put three to ten images there: {', '.join(images.READABLE_FORMATS)}",
        )


def _paths(folder: Path) -> list[Path]:
    """The paths in the folder, in an order that does not depend on the disk."""

    def order(path: Path) -> tuple[str, str, str]:
        name = unicodedata.normalize("NFC", path.name)
        return name.casefold(), name, path.name

    try:
        paths = sorted(folder.iterdir(), key=order)
    except OSError as error:
        raise UsageError(
            f"cannot read the folder {folder}: {error.strerror}", "give the folder with the training images"
        ) from None
    count = sum(path.suffix.lower() in SUFFIXES for path in paths)
    if count > MAX_PHOTOS:  # before the first of them is decoded
        _check_count(count, folder, [])
    return paths


def _text_files(paths: list[Path]) -> dict[str, Path]:
    """The text file of each image by the name they share. A .txt file goes before a .caption file."""
    stems = {_stem(path) for path in paths if path.suffix.lower() in SUFFIXES}
    files = sorted((path for path in paths if _is_text(path) and _stem(path) in stems), key=_text_order, reverse=True)
    return {_stem(path): path for path in files}


def _text_order(path: Path) -> int:
    return TEXT_SUFFIXES.index(path.suffix.lower())


def _captions(folder: Path, texts: Mapping[str, Path]) -> dict[str, str | _Skipped]:
    """The caption of each image, or why its text file cannot be used."""
    captions: dict[str, str | _Skipped] = {}
    for stem, path in texts.items():
        try:
            text = unicodedata.normalize("NFC", _read_bytes(folder, path).decode("utf-8-sig"))
            captions[stem] = caption = " ".join(text.split())
            if not caption:
                raise _Skipped("an empty caption")
        except UnicodeDecodeError:
            captions[stem] = _Skipped("a caption that is not UTF-8 text")
        except _Skipped as skipped:
            captions[stem] = skipped
    return captions


def _read_bytes(folder: Path, path: Path) -> bytes:
    """The content of a regular file within the folder."""
    if _is_hidden(path.name):
        raise _Skipped("a hidden file" if path.name.startswith(".") else "a file of the operating system")
    try:
        if path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):
            raise _Skipped("a link to outside the folder")
        if path.is_dir():
            raise _Skipped("a sub-folder, which is not entered")
        if not path.is_file():
            raise _Skipped("a broken link" if path.is_symlink() else "not a file")
        if path.stat().st_size > MAX_BYTES:
            raise _Skipped(f"too large: more than {format_size(MAX_BYTES)}")
        with path.open("rb") as file:
            return file.read(MAX_BYTES)
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links
        reason = getattr(error, "strerror", None) or "a loop of links"
        raise _Skipped(f"cannot be read: {reason}") from None


def _read_photo(folder: Path, path: Path, caption: str | None) -> tuple[Photo, FileStatus]:
    data = _read_bytes(folder, path)
    if format := _unsupported_format(data):
        raise _Skipped(f"{format} is not supported, save it as JPEG")
    try:
        file = images.open_image(data, "it")
        notes = list(_conversions(file))
        image, alpha = images.to_rgb(file), images.read_alpha(file)
    except FileRefused as error:
        raise _Skipped(error.message.removeprefix("it is ").removeprefix("the image is ")) from None
    size = f"{image.width}x{image.height}"
    if min(image.size) < MIN_SIDE:
        raise _Skipped(f"too small: {size}")
    if alpha is not None:
        if not alpha.getbbox():
            raise _Skipped("fully transparent")
        notes.append("transparent parts filled with white")
    if min(image.size) > MAX_SIDE:
        image = ImageOps.cover(image, (MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
        alpha = alpha and alpha.resize(image.size, Image.Resampling.LANCZOS)
        notes.append(f"reduced to {image.width}x{image.height}")
    if caption and len(caption) > MAX_CAPTION:
        caption = caption[:MAX_CAPTION].rstrip()
        notes.append(f"caption cut to {MAX_CAPTION:,} characters")
    name, sha256 = _display_name(path.name), hashlib.sha256(data).hexdigest()
    return Photo(name, image, alpha, caption, sha256), FileStatus(name, size, True, ", ".join(notes))


def _conversions(file: Image.Image) -> Iterator[str]:
    """Notes on what decoding will convert. To be called before the image is decoded."""
    layouts = [str(args) for *_, args in getattr(file, "tile", ())]  # reading EXIF may decode the image and empty it
    if _orientation(file) in range(2, 9):
        yield "rotated by its EXIF orientation"
    if file.mode in ("I", "F"):
        yield "32 bit"
    elif any(";16" in layout for layout in layouts):
        yield "16 bit"
    if file.mode == "CMYK":
        yield "converted from CMYK"
    try:
        frames = getattr(file, "n_frames", 1)
    except Exception:  # frames are counted by reading the file to its end, and damaged files raise anything
        frames = 1
    if frames > 1:
        yield f"first of {frames:,} frames"


def _orientation(file: Image.Image) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return file.getexif().get(_ORIENTATION, 1)
        except Exception:  # damaged EXIF raises anything; `to_rgb` ignores it too
            return 1


def _unsupported_format(data: bytes) -> str:
    """The name of a phone's format that is not supported, by the brands in its first box, or ""."""
    if data[4:8] != b"ftyp":
        return ""
    end = min(int.from_bytes(data[:4], "big"), 256)
    brands = {data[8:12], *(data[i : i + 4] for i in range(16, end, 4))}
    if brands & {b"avif", b"avis"}:
        return "AVIF"
    return "HEIC" if brands & _HEIC else ""


def _is_text(path: Path) -> bool:
    return path.suffix.lower() in TEXT_SUFFIXES


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in _BY_SYSTEMS


def _stem(path: Path) -> str:
    return unicodedata.normalize("NFC", path.stem)


def _display_name(name: str) -> str:
    """The name of a file without control characters."""
    return printable(unicodedata.normalize("NFC", name))
