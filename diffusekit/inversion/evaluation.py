"""Evaluate a token while it is learned: validation images at fixed seeds, and the paper's two scores of them.

Reconstruction is the similarity of images of the token alone to the training images. Editability is the similarity
of images of the edit prompts to those prompts without the token (Gal et al., 2022, section 5). Both are measured by
CLIP. Without a CLIP there are images and no scores.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from PIL import Image

from .. import clip_score, images, latents
from ..embeddings import LearnedToken
from ..errors import UsageError
from ..models import Model
from ..pipeline import Generation
from ..settings import GenerateSettings, InvertSettings
from .validation_plan import ValidationPlan

EDIT_PROMPTS = {
    "object": ("an app icon of {}", "an oil painting of {}", "{} in the snow", "{} on the beach"),
    "style": (
        "a cat in the style of {}",
        "a house in the style of {}",
        "a tree in the style of {}",
        "a car in the style of {}",
    ),
}
STEPS = 14  # of sampling
BATCH_PIXELS = 2**16  # on a CPU: larger images are drawn one by one, so that stopping does not wait for the others


class EvaluationStopped(Exception):
    """An evaluation was given up between two steps of sampling."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Images of the token alone, then of the edit prompts. Scores are None without a CLIP."""

    images: list[Image.Image]
    reconstruction: float | None = None
    editability: float | None = None

    def scores(self) -> dict[str, float]:
        """The scores, rounded as in the log; empty when there are none."""
        if self.reconstruction is None or self.editability is None:
            return {}
        return {"reconstruction": round(self.reconstruction, 4), "editability": round(self.editability, 4)}


class Evaluator:
    """Makes validation images of a run, always of the same prompts and seeds."""

    def __init__(
        self,
        model: Model,
        settings: InvertSettings,
        photos: Sequence[Image.Image],
        prompt: str,
        plan: ValidationPlan | None = None,
    ):
        """`photos` are the training images; `prompt` has `{}` in the place of the token.

        Raises `UsageError` when the model cannot draw images of the size in the settings.
        """
        self._plan = plan or ValidationPlan(0)
        size = settings.preview_size or model.native_size
        _check_size(model, size)
        on_gpu = model.placement.device.type != "cpu"
        self._settings = GenerateSettings(
            prompt="",
            model=settings.model,
            device=settings.device,
            dtype=settings.dtype,
            steps=STEPS,
            no_safety_checker=True,  # they are measured, and their number counts
            seed=settings.seed,
            width=size,
            height=size,
            batch=4 if on_gpu else max(1, min(4, BATCH_PIXELS // size**2)),
        )
        self.prompt, self._token = prompt, settings.token
        self.edit_prompts = EDIT_PROMPTS[settings.property][: self._plan.edit_images]
        self.scorer = clip_score.load_scorer(model, settings.clip)
        self.photo_similarity: float | None = None  # of the training images to each other
        if self.scorer is not None:
            squares = [images.to_tensor(images.crop_square(photo, model.native_size)) for photo in photos]
            self._photo_embeddings = self.scorer.embed_images(torch.stack(squares))
            if self.edit_prompts:
                self._text_embeddings = self.scorer.embed_texts([remove_token(edit) for edit in self.edit_prompts])
            self.photo_similarity = clip_score.mean_pairwise_similarity(self._photo_embeddings)

    @property
    def prompts(self) -> list[str]:
        """The prompt of each validation image, with the token."""
        prompts = [*[self.prompt] * self._plan.token_images, *self.edit_prompts]
        return [prompt.replace("{}", self._token) for prompt in prompts]

    def evaluate(
        self,
        word: str,
        tokens: Sequence[LearnedToken] = (),
        *,
        is_stopped: Callable[[], bool] = lambda: False,
    ) -> Evaluation:
        """Evaluate a learned token, or a plain word to compare with, in the token's place.

        Raises `EvaluationStopped` after the step of sampling in which `is_stopped` became true.
        """
        alone = self._generate([self.prompt.replace("{}", word)], self._plan.token_images, tokens, is_stopped)
        edits = [edit.replace("{}", word) for edit in self.edit_prompts]
        edited = self._generate(edits, 1, tokens, is_stopped)
        if self.scorer is None or not edited:
            return Evaluation(alone + edited)
        return Evaluation(
            alone + edited,
            reconstruction=float((self._embed(alone) @ self._photo_embeddings.T).mean()),
            editability=float((self._embed(edited) * self._text_embeddings).sum(1).mean()),
        )

    def _generate(
        self, prompts: list[str], count: int, tokens: Sequence[LearnedToken], is_stopped: Callable[[], bool]
    ) -> list[Image.Image]:
        if not prompts:
            return []
        generation = Generation(self._settings.model_copy(update={"images": count}), prompts, tokens)
        for _ in generation:
            if is_stopped():
                raise EvaluationStopped
        return [generated.image for generated in generation.images]

    def _embed(self, pictures: list[Image.Image]) -> torch.Tensor:
        assert self.scorer is not None
        return self.scorer.embed_images(torch.stack([images.to_tensor(picture) for picture in pictures]))


def remove_token(prompt: str) -> str:
    """An edit prompt without its token: "a picture in the snow"."""
    if prompt.startswith("{}"):
        return "a picture " + prompt.removeprefix("{} ")
    return prompt.replace(" in the style of {}", "").removesuffix(" of {}")


def _check_size(model: Model, size: int) -> None:
    try:
        latents.shape(model, size, size)
    except UsageError as error:
        raise UsageError(f"`preview_size` {size} cannot be drawn: {error.message}", error.hint) from None
