"""Which pictures look like a phrase, or like a picture: cosines by the CLIP that a model brings.

What CLIP makes of a picture is kept, in memory and in a file beside the jobs, so each is looked at once.
Runs on the CPU with a text encoder of its own: it does not meet the worker. Knows no page.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from ... import atomic, clip_score, images, models
from ...errors import DiffusekitError, ModelError
from ...settings import InvertSettings
from ..jobs.queue import Jobs
from .gallery import GalleryEntry

log = logging.getLogger(__name__)
BATCH = 16


class ImageSearch:
    """Ranks pictures of a folder. Safe to use from any thread; one at a time looks."""

    def __init__(self, jobs: Jobs, kept: Path):
        """`kept` is the file for what was seen."""
        self._jobs, self._model, self._outputs, self._kept = jobs, jobs.model, jobs.outputs, kept
        self._judge: clip_score.ClipScorer | None = None
        self._seen: dict[str, torch.Tensor] = {}
        self._lock = threading.Lock()

    def index(self, entries: Sequence[GalleryEntry]) -> Iterator[tuple[int, int]]:
        """Look at those pictures that are new; yields (done, of all) as it goes.

        Raises `ModelError` when the model has no CLIP and none is in the cache.
        """
        with self._lock:
            judge = self._ready()
            new = [entry for entry in entries if _key(entry) not in self._seen]
            for start in range(0, len(new), BATCH):
                yield start, len(new)
                self._look_at(judge, new[start : start + BATCH])
            if new:
                self._keep()

    def rank(
        self, entries: Sequence[GalleryEntry], wanted: str | Path, *, min_similarity: float = -1.0
    ) -> list[tuple[float, GalleryEntry]]:
        """The entries that were looked at, the likest to a phrase or a picture file first.

        Raises `FileRefused` for a file that is no picture.
        """
        with self._lock:
            judge = self._ready()
            known = [entry for entry in entries if _key(entry) in self._seen]
            if not known:
                return []
            if isinstance(wanted, Path):
                direction = judge.embed_images(_pixels(wanted)[None])[0]
            else:
                direction = judge.embed_texts([wanted])[0]
            cosines = torch.stack([self._seen[_key(entry)] for entry in known]) @ direction
        order = cosines.argsort(descending=True).tolist()
        return [(float(cosines[i]), known[i]) for i in order if cosines[i] >= min_similarity]

    def _look_at(self, judge: clip_score.ClipScorer, entries: Sequence[GalleryEntry]) -> None:
        for entry in entries:
            try:
                pixels = _pixels(self._outputs / entry.path)
            except DiffusekitError:
                continue
            self._seen[_key(entry)] = judge.embed_images(pixels[None])[0]

    def _ready(self) -> clip_score.ClipScorer:
        if self._judge is None:
            if not self._jobs.is_ready:  # transformers may not be imported by two threads at once
                raise ModelError("the model is still being loaded", "try again in a moment")
            clip = InvertSettings.model_fields["clip"].default
            judge = clip_score.load_scorer(models.load_text(self._model), clip)
            if judge is None:
                raise ModelError(
                    f"{self._model} brings no CLIP to compare pictures with",
                    f"with {clip} in the cache it works; searching by words always does",
                )
            self._judge = judge
            self._load(judge.name)
        return self._judge

    def _load(self, judge: str) -> None:
        from safetensors import safe_open

        try:
            with safe_open(self._kept, "pt") as file:
                if (file.metadata() or {}).get("judge") == judge:
                    self._seen = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except Exception as error:  # missing, or not what it should be: everything is looked at anew
            log.debug("%s is not used: %s", self._kept, error)

    def _keep(self) -> None:
        from safetensors.torch import save

        assert self._judge is not None
        try:
            atomic.write_atomic(self._kept, save(self._seen, {"judge": self._judge.name}))
        except DiffusekitError as error:
            log.warning("%s", error.message)


def _key(entry: GalleryEntry) -> str:
    return f"{entry.changed}|{entry.size}|{entry.path}"


def _pixels(path: Path) -> torch.Tensor:
    with images.open_image(path) as picture:
        picture.thumbnail((512, 512))
        return images.to_tensor(images.to_rgb(picture))
