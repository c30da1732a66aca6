"""What the pipeline makes: an image with how it was made, or only that when a safety checker flagged it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from . import metadata


@dataclass(frozen=True, eq=False)
class GeneratedImage:
    """A finished image and how it was made."""

    image: Image.Image
    record: metadata.Record

    def save(self, path: str | Path) -> Path:
        """Write PNG, JPEG or WebP, by the file's ending, with the record inside. Existing files are kept."""
        return metadata.save(self.image, Path(path), self.record)

    def _repr_png_(self) -> bytes:
        return self.image._repr_png_()  # type: ignore[attr-defined]


@dataclass(frozen=True, eq=False)
class FlaggedImage:
    """An image that the model's safety checker flagged: only how it was made."""

    record: metadata.Record
