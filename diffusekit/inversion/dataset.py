"""The training photographs: everything in a folder is checked and said before anything is trained.

Knows no prompts, no losses and no steps.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image, ImageOps

from .. import images, latents
from ..display import format_size, printable
from ..errors import DataSetError, FileRefused, UsageError
from ..models import Model
from .rng import stream

MAX_PHOTOS = 1000
MAX_BYTES = 256 * 2**20  # of one file
MAX_CAPTION = 1000  # characters
MIN_SIDE = 16
KEPT_SIDE = 2048  # larger photos are kept at this, or a hundred from a phone would not fit in memory
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".heic", ".avif")
_ORIENTATION = 0x0112
_BY_SYSTEMS = ("thumbs.db", "desktop.ini", "icon\r")
_HEIC = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}


@dataclass(frozen=True)
class FileStatus:
    """One line of the table shown before training: a file that was found, and what became of it."""

    file: str  # its name within the folder
    size: str  # "768x512", upright; "" when it was not opened
    used: bool
    note: str  # what was done to it, or why it was skipped


@dataclass(frozen=True, eq=False)
class Photo:
    """A usable photograph; `picture` is upright RGB, at most `KEPT_SIDE` on its shorter side."""

    file: str
    image: Image.Image
    alpha: Image.Image | None  # "L", as large as the picture; None when nothing is transparent
    caption: str | None  # the text of 00.txt beside 00.jpg
    sha256: str  # of the file's bytes


@dataclass(frozen=True, eq=False)
class DataSet:
    """The photos that are used, in the order of their names, and a row for every file found."""

    photos: tuple[Photo, ...]
    files: tuple[FileStatus, ...]

    @property
    def sha256(self) -> str:
        """Of the photos' bytes and captions in order: names, times and places do not count."""
        told = [[photo.sha256, photo.caption] for photo in self.photos]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()

    def with_notes(self, notes: Mapping[str, str]) -> DataSet:
        """The same photos; the rows of these files say one thing more."""
        rows = (replace(row, note=", ".join(filter(None, (row.note, notes.get(row.file))))) for row in self.files)
        return replace(self, rows=tuple(rows))


class _Skipped(Exception):
    """Why a file is not used."""


def collect(folder: Path, *, strict: bool = False) -> DataSet:
    """Read every file of a folder once, open what is a picture, and say what became of each.

    Order is by name (whatever its case, then exact), never the disk's. Sub-folders are not entered,
    links are followed only within the folder. A text is not listed when it is a picture's caption: its
    lines joined, at most `MAX_CAPTION` characters. `strict` refuses a folder in which anything is skipped,
    but for hidden files and what systems leave behind.

    Raises `UsageError` when there is no such folder, `DataSetError` when nothing or too much is in it.
    """
    paths = _paths(folder)
    captions = _captions(folder, paths)
    photos: list[Photo] = []
    rows: list[FileStatus] = []
    seen: dict[bytes, str] = {}  # digest of the decoded pixels: the file that came first
    for path in paths:
        caption = captions.get(_stem(path))
        try:
            if caption is not None and _is_text(path):
                if isinstance(caption, str):
                    continue  # it belongs to its picture
                raise caption
            photo, row = _photo(folder, path, caption if isinstance(caption, str) else None)
            digest = hashlib.sha256(f"{photo.image.size}".encode() + photo.image.tobytes())
            if (first := seen.setdefault(digest.digest(), row.file)) != row.file:
                raise _Skipped(f"a duplicate of {first}")
            photos.append(photo)
        except _Skipped as skipped:
            row = FileStatus(_shown(path.name), "", False, str(skipped))
            if strict and not _is_hidden(path.name):
                raise DataSetError(
                    f"{row.file} cannot be used: {row.note}",
                    "take it out of the folder, or mend it",
                ) from None
        rows.append(row)
    _check_count(len(photos), folder, rows)
    return DataSet(tuple(photos), tuple(rows))


def note_enlarged(data: DataSet, side: int) -> DataSet:
    """The same photos, with a note on those that have to be enlarged to squares of `side` pixels."""
    pictures = {photo.file: photo.image for photo in data.photos}
    small = {
        file: f"enlarged from {picture.width}x{picture.height}"
        for file, picture in pictures.items()
        if min(picture.size) < side
    }
    return data.with_notes(small)


def _check_count(count: int, folder: Path, rows: list[FileStatus]) -> None:
    if count > MAX_PHOTOS:
        raise DataSetError(
            f"{folder} holds more than {MAX_PHOTOS:,} pictures, a token is learned from a few",
            "choose three to ten that show one thing, or fifty of a style",
        )
    if not count:
        reasons = "".join(f"; {row.file} is {row.note}" for row in rows[:3])
        raise DataSetError(
            f"there is no picture to learn from in {folder}{reasons}",
            f"put three to ten photos there: {', '.join(images.READABLE_FORMATS)}",
        )


def _paths(folder: Path) -> list[Path]:
    """What lies in the folder, in an order that is the same on every disk."""

    def order(path: Path) -> tuple[str, str, str]:
        name = unicodedata.normalize("NFC", path.name)
        return name.casefold(), name, path.name

    try:
        paths = sorted(folder.iterdir(), key=order)
    except OSError as error:
        raise UsageError(
            f"cannot read the folder {folder}: {error.strerror}",
            "give the folder that holds your photos",
        ) from None
    pictures = sum(path.suffix.lower() in SUFFIXES for path in paths)
    if pictures > MAX_PHOTOS:  # said before the first of them is decoded
        _check_count(pictures, folder, [])
    return paths


def _captions(folder: Path, paths: list[Path]) -> dict[str, str | _Skipped]:
    """The text beside each picture by the name they share, or why it cannot be used."""
    pictures = {_stem(path) for path in paths if path.suffix.lower() in SUFFIXES}
    texts = (path for path in paths if _is_text(path) and _stem(path) in pictures)
    found: dict[str, str | _Skipped] = {}
    for path in texts:
        try:
            told = unicodedata.normalize("NFC", _bytes(folder, path).decode("utf-8-sig"))
            found[_stem(path)] = text = " ".join(told.split())
            if not text:
                raise _Skipped("an empty caption")
        except UnicodeDecodeError:
            found[_stem(path)] = _Skipped("a caption that is not UTF-8 text")
        except _Skipped as skipped:
            found[_stem(path)] = skipped
    return found


def _bytes(folder: Path, path: Path) -> bytes:
    """What is in a file, when it is one and may be read."""
    if _is_hidden(path.name):
        raise _Skipped("a hidden file" if path.name.startswith(".") else "left by the system")
    try:
        if path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):
            raise _Skipped("a link out of the folder")
        if path.is_dir():
            raise _Skipped("a sub-folder, which is not entered")
        if not path.is_file():
            raise _Skipped("a broken link" if path.is_symlink() else "not a file")
        if path.stat().st_size > MAX_BYTES:
            raise _Skipped(f"too large: more than {format_size(MAX_BYTES)}")
        with path.open("rb") as file:
            return file.read(MAX_BYTES)
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        reason = getattr(error, "strerror", None) or "links in a circle"
        raise _Skipped(f"cannot be read: {reason}") from None


def _photo(folder: Path, path: Path, caption: str | None) -> tuple[Photo, FileStatus]:
    data = _bytes(folder, path)
    if kind := _unread_kind(data):
        raise _Skipped(f"{kind} is not read; save it as JPEG")
    try:
        opened = images.open_image(data, "it")
        notes = list(_stored(opened))
        picture, alpha = images.to_rgb(opened), images.read_alpha(opened)
    except FileRefused as error:
        raise _Skipped(error.message.removeprefix("it is ").removeprefix("the picture is ")) from None
    size = f"{picture.width}x{picture.height}"
    if min(picture.size) < MIN_SIDE:
        raise _Skipped(f"too small: {size}")
    if alpha is not None:
        if not alpha.getbbox():
            raise _Skipped("transparent all over")
        notes.append("transparent parts filled with white")
    if min(picture.size) > KEPT_SIDE:
        picture = ImageOps.cover(picture, (KEPT_SIDE, KEPT_SIDE), Image.Resampling.LANCZOS)
        alpha = alpha and alpha.resize(picture.size, Image.Resampling.LANCZOS)
        notes.append(f"kept at {picture.width}x{picture.height}")
    if caption and len(caption) > MAX_CAPTION:
        caption = caption[:MAX_CAPTION].rstrip()
        notes.append(f"caption cut to {MAX_CAPTION:,} characters")
    name, sha256 = _shown(path.name), hashlib.sha256(data).hexdigest()
    return Photo(name, picture, alpha, caption, sha256), FileStatus(name, size, True, ", ".join(notes))


def _stored(picture: Image.Image) -> Iterator[str]:
    """What is unusual in how a picture is stored; asked before it is decoded."""
    layouts = [str(args) for *_, args in getattr(picture, "tile", ())]  # EXIF may decode, and empty it
    if _orientation(picture) in range(2, 9):
        yield "turned by its EXIF orientation"
    if picture.mode in ("I", "F"):
        yield "32 bit"
    elif any(";16" in layout for layout in layouts):
        yield "16 bit"
    if picture.mode == "CMYK":
        yield "converted from CMYK"
    try:
        frames = getattr(picture, "n_frames", 1)
    except Exception:  # as above: frames are counted by reading the file to its end
        frames = 1
    if frames > 1:
        yield f"first of {frames:,} frames"


def _orientation(picture: Image.Image) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return picture.getexif().get(_ORIENTATION, 1)
        except Exception:  # damaged EXIF raises anything; `upright` passes over it too
            return 1


def _unread_kind(data: bytes) -> str:
    """Phones' formats that Pillow or we do not read, by the brands in their first box; or ""."""
    if data[4:8] != b"ftyp":
        return ""
    end = min(int.from_bytes(data[:4], "big"), 256)
    brands = {data[8:12], *(data[i : i + 4] for i in range(16, end, 4))}
    if brands & {b"avif", b"avis"}:
        return "AVIF"
    return "HEIC" if brands & _HEIC else ""


def _is_text(path: Path) -> bool:
    return path.suffix.lower() == ".txt"


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in _BY_SYSTEMS


def _stem(path: Path) -> str:
    return unicodedata.normalize("NFC", path.stem)


def _shown(name: str) -> str:
    """A file's name without what a terminal or a page would obey."""
    return printable(unicodedata.normalize("NFC", name))


@dataclass(frozen=True, eq=False)
class EncodedDataSet:
    """The VAE's distribution of every view of every photo, encoded once; float32 on the device.

    Views are crops times flips: crop 0, crop 0 flipped, crop 1, ... Latents are
    `mean + std * noise`, scaled as the U-Net expects them.
    """

    mean: torch.Tensor  # (N, V, C, h, w)
    std: torch.Tensor  # (N, V, C, h, w)
    mask: torch.Tensor | None  # (N, V, 1, h, w) in [0, 1], 1 where the photo is opaque


@torch.no_grad()
def encode(
    model: Model,
    data: DataSet,
    *,
    side: int,
    crops: int = 1,
    flip: bool = False,
    alpha_mask: bool = False,
    seed: int = 0,
) -> EncodedDataSet:
    """Encode squares of `side` pixels of every photo: the centre, or `crops` drawn by `seed`.

    Each view is encoded by itself and drawn by its own generator, so a photo's latents do not depend
    on the others. With `alpha_mask` the photos' transparency comes along as a mask.
    Raises `UsageError` when the model cannot draw pictures of `side`.
    """
    assert crops >= 1 and data.photos, (crops, len(data.photos))
    _, height, width = latents.shape(model, side, side)
    means, stds, masks = [], [], []
    for index, photo in enumerate(data.photos):
        for offset in _offsets(seed, index, crops):
            pixels = images.to_tensor(images.crop_square(photo.image, side, offset=offset))
            mask = _mask(photo.alpha, side, (width, height), offset)
            for flipped in (False, True) if flip else (False,):
                view = pixels.flip(-1) if flipped else pixels
                found = model.vae.encode(view[None].to(model.vae.device, model.vae.dtype))
                means.append(found.latent_dist.mean[0].float())
                stds.append(found.latent_dist.std[0].float())
                masks.append(mask.flip(-1) if flipped else mask)
    scale = model.vae.config.scaling_factor
    views = (len(data.photos), len(means) // len(data.photos))
    return EncodedDataSet(
        mean=(torch.stack(means) * scale).unflatten(0, views),
        std=(torch.stack(stds) * scale).unflatten(0, views),
        mask=torch.stack(masks).to(model.vae.device).unflatten(0, views) if alpha_mask else None,
    )


def _offsets(seed: int, index: int, crops: int) -> list[tuple[float, float]]:
    """Where the squares of a photo lie: the centre, or wherever chance puts them."""
    if crops == 1:
        return [(0.5, 0.5)]
    drawn = (stream(seed, "crop", index, crop).random(2) for crop in range(crops))
    return [(float(x), float(y)) for x, y in drawn]


def _mask(alpha: Image.Image | None, side: int, size: tuple[int, int], offset: tuple[float, float]) -> torch.Tensor:
    """(1, h, w): how much of each latent is opaque; ones for a photo without transparency."""
    if alpha is None:
        return torch.ones(1, size[1], size[0])
    small = images.crop_square(alpha, side, offset=offset).resize(size, Image.Resampling.BOX)
    return (images.to_tensor(small)[:1] + 1) / 2
