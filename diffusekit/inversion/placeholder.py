"""The vectors that are learned: k rows beside a frozen token table, their start, and their longest norm.

Nothing of the model is trainable, so nothing has to be restored.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .. import text
from ..embeddings import Vocabulary
from ..errors import UsageError
from ..models import Model

FALLBACK_WORDS = ("thing", "object", "photo", "picture")


@dataclass(eq=False)
class Placeholder:
    """`vectors` (k, D) float32 is the only parameter of training; `start` (k, D) is its initial value.

    `max_norm` is the largest norm a vector may have, 0 for any.
    """

    vectors: torch.nn.Parameter
    start: torch.Tensor
    max_norm: float

    @torch.no_grad()
    def clip_norms(self) -> None:
        """Scale vectors that are too long down to `max_norm`."""
        if self.max_norm:
            norms = self.vectors.norm(dim=1, keepdim=True)
            self.vectors.mul_((self.max_norm / norms).clamp(max=1.0))

    @torch.no_grad()
    def distance(self) -> float:
        """Mean distance of the vectors from their start, in norms of the start."""
        return float(((self.vectors - self.start).norm(dim=1) / self.start.norm(dim=1)).mean())

    @torch.no_grad()
    def mean_norm(self) -> float:
        """Mean norm of the vectors."""
        return float(self.vectors.norm(dim=1).mean())


def create(
    model: Model, vocabulary: Vocabulary, words: str, *, count: int, start: str, norm_bound: float
) -> Placeholder:
    """Make `count` vectors that start from some words, of one token or several.

    If `start` is "word", they start from the words' rows of the token table. If it is "output", they start from the
    text encoder's states at the words' positions (Cross-Initialization, Pang et al., 2023). `norm_bound` is in
    typical norms of the table, 0 for none. With a bound, the states are scaled to the typical norm.
    Raises `UsageError` if the model has no token for the words.
    """
    rows = vocabulary.vectors(words)
    if start == "output":
        rows = _encoder_states(model, words, len(rows))
        if norm_bound:
            rows = rows * (vocabulary.typical_norm / rows.norm(dim=1, keepdim=True))
    vectors = resample(rows.float(), count).to(model.placement.device)
    placeholder = Placeholder(torch.nn.Parameter(vectors.clone()), vectors, norm_bound * vocabulary.typical_norm)
    placeholder.clip_norms()
    placeholder.start = placeholder.vectors.detach().clone()
    return placeholder


@torch.no_grad()
def _encoder_states(model: Model, words: str, count: int) -> torch.Tensor:
    return text.encode(model, [words]).states[0, 1 : 1 + count].cpu()


def resample(rows: torch.Tensor, count: int) -> torch.Tensor:
    """Make `count` rows out of (m, D): means of neighbors if there are too many, repetitions if too few."""
    if len(rows) >= count:
        return torch.stack([part.mean(0) for part in torch.tensor_split(rows, count)])
    return rows[torch.arange(count) % len(rows)]


def guess_init(name: str, vocabulary: Vocabulary) -> str:
    """The init word for a folder name: its last word that the model knows ("my_cat": cat), or a general word."""
    words = "".join(c if c.isalpha() else " " for c in name.lower()).split()
    for word in [*reversed(words), *FALLBACK_WORDS]:
        if word in vocabulary.words:
            return word
    raise UsageError("the model knows no word to start from", "set `init` to a word for what the images show")
