"""Training batches: views of the images, tokenized captions, noise and timesteps.

Sample number i is the same in every run with the same seed, on any device and in chunks of any size.
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
from .dataset import DataSet
from .encoded_dataset import EncodedDataSet
from .rng import stream


@dataclass(frozen=True, eq=False)
class Batch:
    """B samples: `latents` and `noise` (B, C, h, w), `timesteps` (B,), captions as token `ids` (B, E, T).

    E is the number of text encoders. `vector_index` (B, E, T) says which learned vector is at a position, -1 for none.
    `weights` (B, 1, h, w) are those of the loss, or None. `size_ids` (B, 6) are there if the U-Net takes them.
    """

    latents: torch.Tensor
    noise: torch.Tensor
    timesteps: torch.Tensor
    ids: torch.Tensor
    vector_index: torch.Tensor
    weights: torch.Tensor | None = None
    size_ids: torch.Tensor | None = None


class Batches:
    """All samples of a run, by number. `ids` and `vector_index` hold (captions, E, T) for each photo."""

    def __init__(
        self,
        model: Model,
        encoded: EncodedDataSet,
        captions: Sequence[Sequence[str]],
        token: LearnedToken,
        seed: int,
    ):
        """`captions` are those of each photo, with `{}` in the place of the token."""
        self._encoded, self._seed, self._device = encoded, seed, model.placement.device
        self._timesteps = int(model.scheduler_config.get("num_train_timesteps", 1000))
        self._takes_size = model.family.takes_size
        tokenized = [[_tokenize(model, caption, token) for caption in group] for group in captions]
        self.ids = [torch.tensor([[each.ids for each in caption] for caption in group]) for group in tokenized]
        self.vector_index = [
            torch.tensor([[each.vector_index for each in caption] for caption in group]) for group in tokenized
        ]

    def batch(self, numbers: Sequence[int]) -> Batch:
        """The samples of these numbers. In every epoch each photo comes once."""
        samples = [self._sample(number) for number in numbers]
        return Batch(**{name: torch.stack([each[name] for each in samples]).to(self._device) for name in samples[0]})

    def _sample(self, number: int) -> dict[str, torch.Tensor]:
        """The tensors of one sample, by their names in a `Batch`."""
        encoded, rng = self._encoded, stream(self._seed, "sample", number)
        photos, views = encoded.mean.shape[:2]
        epoch, position = divmod(number, photos)
        photo = int(stream(self._seed, "order", epoch).permutation(photos)[position])
        view = int(rng.integers(views))
        caption = int(rng.integers(len(self.ids[photo])))
        timestep = torch.tensor(int(rng.integers(self._timesteps)))
        mean, std = encoded.mean[photo, view], encoded.std[photo, view]
        sample = {
            "latents": mean + std * _normal(rng, mean),
            "noise": _normal(rng, mean),
            "timesteps": timestep,
            "ids": self.ids[photo][caption],
            "vector_index": self.vector_index[photo][caption],
        }
        if encoded.mask is not None:
            sample["weights"] = encoded.mask[photo, view]
        if self._takes_size:
            sample["size_ids"] = encoded.size_ids[photo, view]
        return sample


def _tokenize(model: Model, caption: str, token: LearnedToken) -> list[text.TokenizedPrompt]:
    """Read a caption with the token in the place of `{}`, as each text encoder does."""
    prompt = caption.replace("{}", token.token)
    return [text.tokenize(model, prompt, [token], encoder=number) for number in range(len(model.tokenizers))]


def usable_captions(
    model: Model, data: DataSet, settings: InvertSettings, token: LearnedToken
) -> tuple[DataSet, list[list[str]]]:
    """The captions of each photo that the token can be learned from, and the data set with a note on those left out.

    Templates with a word that the model does not know are left out, as are captions in which the token is cut off.
    A photo whose own caption is left out uses templates, unless `captions` is "files".
    Raises `DataSetError` when a photo has no caption left.
    """
    templates = find_templates(settings.property)
    known = [caption for caption in templates if text.has_every_word(model, caption.replace("{}", ""))] or list(
        templates
    )
    captions = make_captions(data, settings.property, settings.captions, token=settings.token)
    usable, notes = [], {}
    for photo, group in zip(data.photos, captions, strict=True):
        group = [caption for caption in group if caption in known or caption not in templates]
        kept = [caption for caption in group if _has_room(model, caption, token)]
        if count := len(group) - len(kept):
            notes[photo.file] = f"{count} caption{'s' * (count > 1)} left out: no room for the token"
        if not kept and settings.captions != "files":
            kept = [caption for caption in known if _has_room(model, caption, token)]
        if not kept:
            raise _no_room(model, photo.file, group[0], token)
        usable.append(kept)
    return data.with_notes(notes), usable


def _has_room(model: Model, caption: str, token: LearnedToken) -> bool:
    """Whether the token is within the positions that the model reads of a caption, with every text encoder."""
    return all(max(each.vector_index) >= 0 for each in _tokenize(model, caption, token))


def _no_room(model: Model, file: str, caption: str, token: LearnedToken) -> DataSetError:
    positions = model.context_length - 2
    vectors = format_count(token.count, "vector")
    return DataSetError(
        f"{file}: the caption {caption[:60]!r} is cut off before the token: "
        f"its {vectors} and the words before them must fit in {positions} positions",
        "shorten the caption, move the token to its beginning, or use fewer `vectors`",
    )


def _normal(rng: np.random.Generator, like: torch.Tensor) -> torch.Tensor:
    values = rng.standard_normal(tuple(like.shape), dtype=np.float32)
    return torch.from_numpy(values).to(like.device)
