"""Look at what has been learned: previews at fixed seeds, and the paper's two scores of them.

Reconstruction: how much pictures of the token alone look like the training pictures. Editability: how much
pictures of the token somewhere, or as something, look like the prompt without the token (Gal et al., 2022,
section 5). Both by CLIP; without a CLIP there are pictures and no scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from .. import clip_score, images
from ..embeddings import LearnedToken
from ..models import Model
from ..pipeline import Generation
from ..settings import GenerateSettings, InvertSettings

EDIT_PROMPTS = {
    "object": ("an app icon of {}", "an oil painting of {}", "{} in the snow", "{} on the beach"),
    "style": (
        "a cat in the style of {}",
        "a house in the style of {}",
        "a tree in the style of {}",
        "a car in the style of {}",
    ),
}
LOOKS = 4  # pictures of the token alone
STEPS = 14
MIN_EDITABILITY = 0.9  # of the init word's editability, that a good token still has
MIN_GAIN = 0.02  # of editability, that counts as progress; less is the noise of four pictures


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Pictures of the token alone, then of the edit prompts; scores are None without a judge."""

    images: list[Image.Image]
    reconstruction: float | None = None
    editability: float | None = None

    def scores(self) -> dict[str, float]:
        if self.reconstruction is None or self.editability is None:
            return {}
        return {
            "reconstruction": round(self.reconstruction, 4),
            "editability": round(self.editability, 4),
        }


class Evaluator:
    """Makes previews of a run, always of the same prompts and seeds."""

    def __init__(self, model: Model, settings: InvertSettings, photos: Sequence[Image.Image], prompt: str):
        """`prompt` has `{}` where the token stands; `photos` are the training pictures."""
        self._settings = GenerateSettings(
            prompt="",
            model=settings.model,
            device=settings.device,
            dtype=settings.dtype,
            steps=STEPS,
            seed=settings.seed,
            batch=LOOKS,
        )
        self.prompt, self.edit_prompts, self._token = prompt, EDIT_PROMPTS[settings.property], settings.token
        self.scorer = clip_score.load_scorer(model, settings.clip)
        self.photo_similarity = None
        if self.scorer is not None:
            fitted = [images.to_tensor(images.crop_square(photo, model.native_size)) for photo in photos]
            self._photo_embeddings = self.scorer.embed_images(torch.stack(fitted))
            self._text_embeddings = self.scorer.embed_texts([remove_token(edit) for edit in self.edit_prompts])
            self.photo_similarity = clip_score.mean_pairwise_similarity(self._photo_embeddings)

    @property
    def labels(self) -> list[str]:
        prompts = [*[self.prompt] * LOOKS, *self.edit_prompts]
        return [prompt.replace("{}", self._token) for prompt in prompts]

    def evaluate(self, word: str, tokens: Sequence[LearnedToken] = ()) -> Evaluation:
        """Preview a learned token, or a plain word to compare with, in the token's place."""
        alone = self._generate([self.prompt.replace("{}", word)], LOOKS, tokens)
        edited = self._generate([edit.replace("{}", word) for edit in self.edit_prompts], 1, tokens)
        if self.scorer is None:
            return Evaluation(alone + edited)
        seen, changed = self._embed(alone), self._embed(edited)
        return Evaluation(
            alone + edited,
            float((seen @ self._photo_embeddings.T).mean()),
            float((changed * self._text_embeddings).sum(1).mean()),
        )

    def _generate(self, prompts: list[str], each: int, tokens: Sequence[LearnedToken]) -> list[Image.Image]:
        running = Generation(self._settings.model_copy(update={"images": each}), prompts, tokens)
        for _ in running:
            pass
        return [picture.image for picture in running.images]

    def _embed(self, pictures: list[Image.Image]) -> torch.Tensor:
        assert self.scorer is not None
        return self.scorer.embed_images(torch.stack([images.to_tensor(p) for p in pictures]))


def remove_token(edit: str) -> str:
    """An edit prompt without its token: "a picture in the snow"."""
    if edit.startswith("{}"):
        return "a picture " + edit.removeprefix("{} ")
    return edit.replace(" in the style of {}", "").removesuffix(" of {}")


def is_better(new: dict[str, Any], old: dict[str, Any] | None, baseline: dict[str, Any]) -> bool:
    """Whether scores beat others by both measures.

    The higher reconstruction among those that keep 90 % of the init word's editability; among those that
    do not, the more editable.
    """
    if not old or not new:
        return True
    floor = MIN_EDITABILITY * baseline["editability"]
    keeps_new, keeps_old = new["editability"] >= floor, old["editability"] >= floor
    if keeps_new != keeps_old:
        return keeps_new
    measure = "reconstruction" if keeps_new else "editability"
    return new[measure] > old[measure]
