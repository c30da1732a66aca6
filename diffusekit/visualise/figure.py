"""What a visualiser made: pictures, a film, a drawing, a page and numbers, each drawn when it is asked for.

The ending of the file's name chooses. Knows no models.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from .. import atomic, metadata
from ..errors import UsageError

STILLS = (".png", ".jpg", ".jpeg")
FILMS = (".webp", ".apng", ".gif", ".mp4")


@dataclass(frozen=True, eq=False)
class Visualization:
    """One thing to look at. What it cannot be is None; `save` says what it can.

    `sheet` makes one still picture, `film` its frames (RGB, all of one size), `svg` a drawing, `page` a
    web page. `numbers` are everything shown, as plain values. `record` is written into pictures: how the
    picture that is shown was made; without it they say only that a model was at work if `made` is true.
    """

    numbers: Mapping[str, Any]
    still: Callable[[], Image.Image] | None = None
    film: Callable[[], Iterable[Image.Image]] | None = None
    svg: Callable[[], str] | None = None
    html: Callable[[], str] | None = None
    record: metadata.Record | None = None
    ai_generated: bool = True
    frame_seconds: float = field(default=0.15, kw_only=True)  # a frame is shown; the last one ten times longer

    @property
    def endings(self) -> tuple[str, ...]:
        """The endings that `save` takes."""
        found: tuple[str, ...] = STILLS if self.still else ()
        found += FILMS if self.film else ()
        found += (".svg",) if self.svg else ()
        found += (".html",) if self.html else ()
        return (*found, ".json")

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write a file: .png or .jpg a still, .webp .apng .gif .mp4 a film, .svg, .html, .json numbers.

        Raises `UsageError` for another ending or a file that is there already, `DiskError`.
        """
        path = Path(path)
        self.check(path, overwrite=overwrite)
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
        return atomic.write_atomic(path, self._moving(frames, ending), _whole if ending != ".mp4" else None)

    def check(self, path: Path, *, overwrite: bool = False) -> None:
        """Raise, before any work, for a path that `save` would refuse."""
        if path.suffix.lower() not in self.endings:
            raise UsageError(
                f"{path.name!r} is not a kind of file this can be",
                f"endings: {', '.join(self.endings)}",
            )
        if path.exists() and not overwrite:
            raise UsageError(f"{path} already exists", "use another name, or set `overwrite`")

    def _moving(self, frames: list[Image.Image], ending: str) -> bytes:
        if ending == ".mp4":
            return _mp4(frames, self.frame_seconds)
        kind = {".webp": "WEBP", ".apng": "PNG", ".gif": "GIF"}[ending]
        each = round(self.frame_seconds * 1000)
        extras: dict[str, Any] = {}
        if kind == "GIF":
            extras["comment"] = b"Made with diffusekit" + (b" by a trained model" if self.ai_generated else b"")
        else:
            extras = metadata.save_kwargs(kind, self.record, self.ai_generated)
        if kind == "WEBP":
            extras["quality"] = 85
        file = BytesIO()
        frames[0].save(
            file,
            kind,
            save_all=True,
            append_images=frames[1:],
            loop=0,
            duration=[each] * (len(frames) - 1) + [each * 10],
            **extras,
        )
        return file.getvalue()

    def _repr_png_(self) -> bytes | None:
        if self.still is None:
            return None
        file = BytesIO()
        self.still().save(file, "PNG")
        return file.getvalue()


def _whole(path: Path) -> None:
    with Image.open(path) as film:
        film.seek(getattr(film, "n_frames", 1) - 1)
        film.load()


def _mp4(frames: list[Image.Image], seconds: float) -> bytes:
    """H.264 in MP4, by imageio-ffmpeg where it is installed."""
    try:
        import imageio_ffmpeg  # type: ignore[import-not-found]
    except ImportError:
        raise UsageError(
            "an MP4 needs imageio-ffmpeg, which is not installed",
            "pip install imageio-ffmpeg, or take .webp",
        ) from None
    import tempfile

    width, height = (side - side % 2 for side in frames[0].size)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.mp4"
        writer = imageio_ffmpeg.write_frames(
            str(path),
            (width, height),
            fps=1 / seconds,
            macro_block_size=2,
            ffmpeg_log_level="error",
        )
        writer.send(None)
        for frame in [*frames, *[frames[-1]] * 9]:
            writer.send(frame.convert("RGB").crop((0, 0, width, height)).tobytes())
        writer.close()
        return path.read_bytes()
