"""What a step learns from: views of the pictures, captions as the model reads them, noise, timesteps.

Sample number i is the same in every run of a seed, wherever and in whatever pieces it is computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from .. import text
from ..display import format_count
from ..embeddings import LearnedToken
from ..errors import DataSetError
from ..models import Model
from ..settings import InvertSettings
from .captions import find_templates, make_captions
from .dataset import DataSet, EncodedDataSet
from .rng import stream


@dataclass(frozen=True, eq=False)
class Batch:
    """B samples: `latents` and `noise` (B, C, h, w), `timesteps` (B,), caption `ids` and `places` (B, T),
    `weights` (B, 1, h, w) of the loss, or None."""

    latents: torch.Tensor
    noise: torch.Tensor
    timesteps: torch.Tensor
    ids: torch.Tensor
    vector_index: torch.Tensor
    weights: torch.Tensor | None


class Batches:
    """All samples of a run, by number."""

    def __init__(
        self,
        model: Model,
        encoded: EncodedDataSet,
        captions: Sequence[Sequence[str]],
        token: LearnedToken,
        seed: int,
    ):
        """`captions` are those of each photo, with `{}` where the token stands."""
        self._encoded, self._seed, self._device = encoded, seed, model.placement.device
        self._levels = int(model.scheduler_config.get("num_train_timesteps", 1000))
        texts = [[caption.replace("{}", token.token) for caption in group] for group in captions]
        said = [[text.tokenize(model, each, [token]) for each in group] for group in texts]
        self._ids = [torch.tensor([r.ids for r in group]) for group in said]
        self._places = [torch.tensor([r.vector_index for r in group]) for group in said]

    def batch(self, numbers: Sequence[int]) -> Batch:
        """The samples of these numbers; every picture comes once in each round of all of them."""
        rows = [self._one(number) for number in numbers]
        latents, noise, timesteps, ids, places, *masked = (
            torch.stack(column).to(self._device) for column in zip(*rows, strict=True)
        )
        return Batch(latents, noise, timesteps, ids, places, masked[0] if masked else None)

    def _one(self, number: int) -> tuple[torch.Tensor, ...]:
        encoded, rng = self._encoded, stream(self._seed, "sample", number)
        photos, views = encoded.mean.shape[:2]
        turn, place = divmod(number, photos)
        photo = int(stream(self._seed, "order", turn).permutation(photos)[place])
        view = int(rng.integers(views))
        caption = int(rng.integers(len(self._ids[photo])))
        timestep = torch.tensor(int(rng.integers(self._levels)))
        mean, std = encoded.mean[photo, view], encoded.std[photo, view]
        latents = mean + std * _normal(rng, mean)
        weights = () if encoded.mask is None else (encoded.mask[photo, view],)
        return (
            latents,
            _normal(rng, mean),
            timestep,
            self._ids[photo][caption],
            self._places[photo][caption],
            *weights,
        )


def usable_captions(
    model: Model, data: DataSet, settings: InvertSettings, token: LearnedToken
) -> tuple[DataSet, list[list[str]]]:
    """The captions of each photo that the model can learn the token from; the data set says what was left out.

    Of the templates, those whose every word the model knows; of all captions, those in which the token
    is not cut off. A photo whose own caption is left out has templates, unless only files are wanted.
    Raises `DataSetError` when a photo has no caption left.
    """
    paper = find_templates(settings.property)
    known = [caption for caption in paper if text.has_every_word(model, caption.replace("{}", ""))] or list(paper)
    said = make_captions(data, settings.property, settings.captions, token=settings.token)
    found, notes = [], {}
    for photo, group in zip(data.photos, said, strict=True):
        group = [c for c in group if c in known or c not in paper]
        fit = [caption for caption in group if _has_room(model, caption, token)]
        if left := len(group) - len(fit):
            notes[photo.file] = f"{left} caption{'s' * (left > 1)} left out: no room for the token"
        if not fit and settings.captions != "files":
            fit = [caption for caption in known if _has_room(model, caption, token)]
        if not fit:
            raise _no_room(model, photo.file, group[0], token)
        found.append(fit)
    return data.with_notes(notes), found


def _has_room(model: Model, caption: str, token: LearnedToken) -> bool:
    """Whether the token is among what the model sees of a caption."""
    return max(text.tokenize(model, caption.replace("{}", token.token), [token]).vector_index) >= 0


def _no_room(model: Model, file: str, caption: str, token: LearnedToken) -> DataSetError:
    room = model.context_length - 2
    vectors = format_count(token.count, "vector")
    return DataSetError(
        f"{file}: in the caption {caption[:60]!r} the model does not see the token: "
        f"its {vectors} and the words before must fit in {room} positions",
        "shorten the caption, put the token at its front, or use fewer --vectors",
    )


def _normal(rng: np.random.Generator, like: torch.Tensor) -> torch.Tensor:
    drawn = rng.standard_normal(tuple(like.shape), dtype=np.float32)
    return torch.from_numpy(drawn).to(like.device)
