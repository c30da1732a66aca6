"""What a finished run leaves to look at: the strip of previews, and the page about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PIL import Image

from .. import atomic, images
from . import report
from .run_folder import RunFolder

if TYPE_CHECKING:
    from .trainer import Inversion

THUMBNAIL = 128


def write(run: RunFolder, inversion: Inversion) -> None:
    """Write `strip.webp` and `index.html` into the run's folder."""
    shown = run.shown()
    baseline = [_small(picture) for picture in shown.pop("init", [])]
    previews = [(int(step), [_small(p) for p in pictures]) for step, pictures in shown.items()]
    strip = report.strip(previews, baseline, inversion.evaluator.labels)
    atomic.write_atomic(run.strip, images.encode(strip, "WEBP"))
    judge = inversion.evaluator.scorer
    notes = [
        f"Scores by {judge.name}."
        if judge
        else "No CLIP was at hand to judge: the last vectors were kept, and nothing was scored."
    ]
    if inversion.has_converged:
        notes.append("Training stopped because previews scored no better any more.")
    report.write(
        run.page,
        title=inversion.name,
        token=inversion.settings.token,
        settings=inversion.settings.model_dump(mode="json", exclude={"pictures"}),
        rows=inversion.dataset.files,
        log=run.notes(),
        strip=strip,
        photos=[_small(images.crop_square(photo.image, THUMBNAIL)) for photo in inversion.dataset.photos],
        notes=notes,
    )


def _small(picture: Image.Image) -> Image.Image:
    scale = THUMBNAIL / max(picture.size)
    if scale >= 1:
        return picture
    size = round(picture.width * scale), round(picture.height * scale)
    return picture.resize(size, Image.Resampling.LANCZOS)
