"""Image search by CLIP: which images are similar to a phrase, or to another image.

The embeddings of images are cached, in memory and in a file beside the jobs, so each image is embedded once. CLIP runs
on the CPU with a text encoder of its own, so it does not disturb the worker.
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
from ..models import ServerModels
from .gallery import GalleryEntry

log = logging.getLogger(__name__)
BATCH = 16


class ImageSearch:
    """Ranks the images of a folder by the CLIP of the server's default model.

    Safe to use from any thread; one at a time is served.
    """

    def __init__(self, server_models: ServerModels, outputs: Path, cache: Path):
        """`cache` is the file of the embeddings."""
        self._models, self._outputs, self._cache = server_models, outputs, cache
        self._scorer: clip_score.ClipScorer | None = None
        self._model = ""  # that the scorer belongs to
        self._embeddings: dict[str, torch.Tensor] = {}
        self._lock = threading.Lock()

    def index(self, entries: Sequence[GalleryEntry]) -> Iterator[tuple[int, int]]:
        """Embed the images that are new; yields (done, of all).

        Raises `ModelError` when the model has no CLIP and none is in the cache.
        """
        with self._lock:
            scorer = self._load()
            new = [entry for entry in entries if _key(entry) not in self._embeddings]
            for start in range(0, len(new), BATCH):
                yield start, len(new)
                self._embed(scorer, new[start : start + BATCH])
            if new:
                self._write_cache(scorer)

    def rank(
        self, entries: Sequence[GalleryEntry], query: str | Path, *, min_similarity: float = -1.0
    ) -> list[tuple[float, GalleryEntry]]:
        """The indexed entries, with their similarity to a phrase or an image file, most similar first.

        Raises `FileRefused` for a file that is not an image.
        """
        with self._lock:
            scorer = self._load()
            known = [entry for entry in entries if _key(entry) in self._embeddings]
            if not known:
                return []
            if isinstance(query, Path):
                direction = scorer.embed_images(_pixels(query)[None])[0]
            else:
                direction = scorer.embed_texts([query])[0]
            cosines = torch.stack([self._embeddings[_key(entry)] for entry in known]) @ direction
        order = cosines.argsort(descending=True).tolist()
        return [(float(cosines[i]), known[i]) for i in order if cosines[i] >= min_similarity]

    def _embed(self, scorer: clip_score.ClipScorer, entries: Sequence[GalleryEntry]) -> None:
        for entry in entries:
            try:
                pixels = _pixels(self._outputs / entry.path)
            except DiffusekitError:
                continue
            self._embeddings[_key(entry)] = scorer.embed_images(pixels[None])[0]

    def _load(self) -> clip_score.ClipScorer:
        """The scorer of the default model, which a client may have changed."""
        name = self._models.default
        if self._scorer is not None and name == self._model:
            return self._scorer
        if not self._models.is_loaded:  # transformers may not be imported by two threads at once
            raise ModelError("the model is still being loaded", "try again in a moment")
        clip = InvertSettings.model_fields["clip"].default
        scorer = clip_score.load_scorer(models.load_text(name), clip)
        if scorer is None:
            raise ModelError(
                f"{name} has no CLIP to compare images with",
                f"download {clip} into the cache, or search by words",
            )
        if self._scorer is None or scorer.name != self._scorer.name:
            self._embeddings = self._read_cache(scorer)
        self._scorer, self._model = scorer, name
        return scorer

    def _read_cache(self, scorer: clip_score.ClipScorer) -> dict[str, torch.Tensor]:
        from safetensors import safe_open

        try:
            with safe_open(self._cache, "pt") as file:
                if (file.metadata() or {}).get("judge") == scorer.name:
                    return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except Exception as error:  # missing or damaged: all images are embedded again
            log.debug("%s is not used: %s", self._cache, error)
        return {}

    def _write_cache(self, scorer: clip_score.ClipScorer) -> None:
        from safetensors.torch import save

        try:
            atomic.write_atomic(self._cache, save(self._embeddings, {"judge": scorer.name}))
        except DiffusekitError as error:
            log.warning("%s", error.message)


def _key(entry: GalleryEntry) -> str:
    return f"{entry.changed}|{entry.size}|{entry.path}"


def _pixels(path: Path) -> torch.Tensor:
    with images.open_image(path) as image:
        image.thumbnail((512, 512))
        return images.to_tensor(images.to_rgb(image))
