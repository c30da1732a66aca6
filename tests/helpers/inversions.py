"""For tests of inversion: three small images, and settings for a run of a second."""

from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from diffusekit.embeddings import LearnedToken
from diffusekit.inversion.trainer import invert
from diffusekit.settings import InvertSettings


def pictures(folder: Path, *, count: int = 3, side: int = 40, shade: int = 0) -> Path:
    """A yellow disc on three backgrounds."""
    folder.mkdir(exist_ok=True)
    for i in range(count):
        picture = Image.new("RGB", (side, side), (60 * i, 90 + shade, 200 - 60 * i))
        ImageDraw.Draw(picture).ellipse((8, 8, 30, 30), fill=(240, 200, 30))
        picture.save(folder / f"{i}.png")
    return folder


def quick(tmp_path: Path, model: Path | str, **changes: Any) -> InvertSettings:
    """Twelve steps on a model of a few thousand weights."""
    values: dict[str, Any] = {
        "pictures": str(pictures(tmp_path / "three")),
        "model": str(model),
        "init": "cat",
        "steps": 12,
        "batch": 2,
        "vectors": 2,
        "preview_every": 6,
        "checkpoint_every": 5,
        "patience": 0,
        "device": "cpu",
        "clip": "",
    }
    return InvertSettings(**(values | changes))


def learn(settings: InvertSettings, output: Path, **how: bool) -> LearnedToken:
    """A whole run with settings at hand."""
    values = settings.model_dump()
    return invert(values.pop("pictures"), output=output, **how, **values)
