"""What every visualiser returns: stills, films, drawings, pages and numbers, rendered when they are asked for."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from .. import atomic, metadata
from ..errors import UsageError

STILLS = (".png", ".jpg", ".jpeg")
FILMS = (".webp", ".apng", ".gif", ".mp4")
_PILLOW_FORMATS = {".webp": "WEBP", ".apng": "PNG", ".gif": "GIF"}


@dataclass(frozen=True, eq=False)
class Visualization:
    """One result in several forms. A form that a visualiser does not offer is None.

    `numbers` holds every value that is shown, as plain JSON types. `still` draws one image, `film` its
    frames (RGB, all of one size), `svg` a vector drawing, `html` a web page. `record` is written into
    images as metadata. Without a record, an image carries only the AI label, if `ai_generated` is true.
    """

    numbers: Mapping[str, Any]
    still: Callable[[], Image.Image] | None = None
    film: Callable[[], Iterable[Image.Image]] | None = None
    svg: Callable[[], str] | None = None
    html: Callable[[], str] | None = None
    record: metadata.Record | None = None
    ai_generated: bool = True
    frame_seconds: float = field(default=0.15, kw_only=True)  # the last frame stays ten times longer

    @property
    def endings(self) -> tuple[str, ...]:
        """The file name endings that `save` accepts."""
        forms = ((self.still, STILLS), (self.film, FILMS), (self.svg, (".svg",)), (self.html, (".html",)))
        return (*(ending for form, endings in forms if form for ending in endings), ".json")

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write a file in the format that its ending names.

        .png and .jpg are stills. .webp, .apng, .gif and .mp4 are films. .svg, .html and .json hold the
        drawing, the page and the numbers. Raises `UsageError` for another ending or an existing file,
        and `DiskError`.
        """
        path = Path(path)
        check_path(path, self.endings, overwrite=overwrite)
        ending = path.suffix.lower()
        if ending == ".json":
            text = json.dumps(self.numbers, ensure_ascii=False, indent=1, allow_nan=False)
            return atomic.write_atomic(path, f"{text}\n".encode())
        if ending == ".svg" and self.svg:
            return atomic.write_atomic(path, self.svg().encode())
        if ending == ".html" and self.html:
            return atomic.write_atomic(path, self.html().encode("utf-8", "replace"))
        if ending in STILLS and self.still:
            return metadata.save(self.still(), path, self.record, label=self.ai_generated, overwrite=overwrite)
        assert self.film is not None
        frames = list(self.film())
        if ending == ".mp4":
            return atomic.write_atomic(path, _encode_mp4(frames, self.frame_seconds))
        return atomic.write_atomic(path, self._encode_film(frames, _PILLOW_FORMATS[ending]), _check_film)

    def _encode_film(self, frames: list[Image.Image], file_format: str) -> bytes:
        """Frames as an endless animation, with metadata where the format has room for it."""
        milliseconds = round(self.frame_seconds * 1000)
        extras: dict[str, Any]
        if file_format == "GIF":
            extras = {"comment": b"Made with diffusekit" + (b" by a trained model" if self.ai_generated else b"")}
        else:
            extras = metadata.save_kwargs(file_format, self.record, self.ai_generated)
        if file_format == "WEBP":
            extras["quality"] = 85
        file = BytesIO()
        frames[0].save(
            file,
            file_format,
            save_all=True,
            append_images=frames[1:],
            loop=0,
            duration=[milliseconds] * (len(frames) - 1) + [milliseconds * 10],
            **extras,
        )
        return file.getvalue()

    def _repr_png_(self) -> bytes | None:
        if self.still is None:
            return None
        file = BytesIO()
        self.still().save(file, "PNG")
        return file.getvalue()


def check_path(path: Path, endings: tuple[str, ...], *, overwrite: bool = False) -> None:
    """Refuse a path before any work is done.

    Raises `UsageError` for an ending that is not in `endings`, for an existing file unless `overwrite`
    is set, for a name that cannot be written, and for an .mp4 when imageio-ffmpeg is not installed. Raises
    `DiskError` for a folder that cannot be written.
    """
    ending = path.suffix.lower()
    if ending not in endings:
        raise UsageError(f"cannot write {path.name!r} in this format", f"supported endings: {', '.join(endings)}")
    atomic.check_destination(path)
    if path.exists() and not overwrite:
        raise UsageError(f"{path} already exists", "choose another name, or set `overwrite`")
    if ending == ".mp4" and find_spec("imageio_ffmpeg") is None:
        raise UsageError(
            "an .mp4 file needs imageio-ffmpeg, which is not installed", "pip install imageio-ffmpeg, or use .webp"
        )


def _check_film(path: Path) -> None:
    """Decode the last frame, to be sure that the file is complete."""
    with Image.open(path) as film:
        film.seek(getattr(film, "n_frames", 1) - 1)
        film.load()


def _encode_mp4(frames: list[Image.Image], frame_seconds: float) -> bytes:
    """Frames as H.264 in MP4, encoded by imageio-ffmpeg."""
    import tempfile

    import imageio_ffmpeg  # type: ignore[import-not-found]

    width, height = (side - side % 2 for side in frames[0].size)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.mp4"
        writer = imageio_ffmpeg.write_frames(
            str(path), (width, height), fps=1 / frame_seconds, macro_block_size=2, ffmpeg_log_level="error"
        )
        writer.send(None)
        for frame in [*frames, *[frames[-1]] * 9]:
            writer.send(frame.convert("RGB").crop((0, 0, width, height)).tobytes())
        writer.close()
        return path.read_bytes()
