"""What a step learns from: views of the pictures, captions as the model reads them, noise, timesteps.

Sample number i is the same in every run of a seed, wherever and in whatever pieces it is computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from .. import text
from ..embeddings import LearnedToken
from ..models import Model
from .dataset import Encoded
from .draws import draw


@dataclass(frozen=True, eq=False)
class Batch:
    """B samples: `latents` and `noise` (B, C, h, w), `timesteps` (B,), caption `ids` and `places` (B, T),
    `weights` (B, 1, h, w) of the loss, or None."""

    latents: torch.Tensor
    noise: torch.Tensor
    timesteps: torch.Tensor
    ids: torch.Tensor
    places: torch.Tensor
    weights: torch.Tensor | None


class Samples:
    """All samples of a run, by number."""

    def __init__(
        self, model: Model, encoded: Encoded, captions: Sequence[Sequence[str]], token: LearnedToken,
        seed: int,
    ):  # fmt: skip
        """`captions` are those of each photo, with `{}` where the token stands."""
        self._encoded, self._seed, self._device = encoded, seed, model.placement.device
        self._levels = int(model.scheduler_config.get("num_train_timesteps", 1000))
        texts = [[caption.replace("{}", token.token) for caption in group] for group in captions]
        said = [[text.read(model, each, [token]) for each in group] for group in texts]
        self._ids = [torch.tensor([r.ids for r in group]) for group in said]
        self._places = [torch.tensor([r.rows for r in group]) for group in said]

    def batch(self, numbers: Sequence[int]) -> Batch:
        """The samples of these numbers; every picture comes once in each round of all of them."""
        rows = [self._one(number) for number in numbers]
        latents, noise, timesteps, ids, places, *masked = (
            torch.stack(column).to(self._device) for column in zip(*rows, strict=True)
        )
        return Batch(latents, noise, timesteps, ids, places, masked[0] if masked else None)

    def _one(self, number: int) -> tuple[torch.Tensor, ...]:
        encoded, rng = self._encoded, draw(self._seed, "sample", number)
        photos, views = encoded.mean.shape[:2]
        turn, place = divmod(number, photos)
        photo = int(draw(self._seed, "order", turn).permutation(photos)[place])
        view = int(rng.integers(views))
        caption = int(rng.integers(len(self._ids[photo])))
        timestep = torch.tensor(int(rng.integers(self._levels)))
        mean, std = encoded.mean[photo, view], encoded.std[photo, view]
        latents = mean + std * _normal(rng, mean)
        weights = () if encoded.mask is None else (encoded.mask[photo, view],)
        return (
            latents, _normal(rng, mean), timestep, self._ids[photo][caption], self._places[photo][caption],
            *weights,
        )  # fmt: skip


def _normal(rng: np.random.Generator, like: torch.Tensor) -> torch.Tensor:
    drawn = rng.standard_normal(tuple(like.shape), dtype=np.float32)
    return torch.from_numpy(drawn).to(like.device)
