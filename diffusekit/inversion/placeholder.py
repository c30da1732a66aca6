"""The vectors that are learned: k rows beside a frozen token table, where they start, and how long they may be.

Nothing of the model is trainable, so nothing has to be restored. Knows no pictures.
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
    """`rows` (k, D) float32, the only parameter there is; `start` (k, D) is where they began.

    `longest` is the length no row may exceed, 0 for any.
    """

    vectors: torch.nn.Parameter
    start: torch.Tensor
    max_norm: float

    @torch.no_grad()
    def clip_norms(self) -> None:
        """Shorten rows that have become too long, keeping their direction."""
        if self.max_norm:
            norms = self.vectors.norm(dim=1, keepdim=True)
            self.vectors.mul_((self.max_norm / norms).clamp(max=1.0))

    @torch.no_grad()
    def distance(self) -> float:
        """Mean distance of the rows from their start, in lengths of the start."""
        return float(((self.vectors - self.start).norm(dim=1) / self.start.norm(dim=1)).mean())

    @torch.no_grad()
    def mean_norm(self) -> float:
        """Mean length of the rows."""
        return float(self.vectors.norm(dim=1).mean())


def create(
    model: Model, vocabulary: Vocabulary, words: str, *, count: int, start: str, norm_bound: float
) -> Placeholder:
    """`count` rows that start from some words, of one token or several.

    From the words' rows of the table (`start` is "word"), or from the text encoder's states at their
    positions ("output": Cross-Initialization, Pang et al., 2023), scaled to a table's typical length
    where rows are bounded.
    """
    found = vocabulary.vectors(words)
    if start == "output":
        found = _states(model, words, len(found))
        if norm_bound:
            found = found * (vocabulary.typical_norm / found.norm(dim=1, keepdim=True))
    rows = resample(found.float(), count).to(model.placement.device)
    holder = Placeholder(torch.nn.Parameter(rows.clone()), rows.clone(), norm_bound * vocabulary.typical_norm)
    holder.clip_norms()
    holder.start = holder.vectors.detach().clone()
    return holder


@torch.no_grad()
def _states(model: Model, words: str, count: int) -> torch.Tensor:
    return text.encode(model, [words]).states[0, 1 : 1 + count].cpu()


def resample(rows: torch.Tensor, count: int) -> torch.Tensor:
    """`count` rows out of (m, D): means of neighbours when there are too many, repeated when too few."""
    if len(rows) >= count:
        return torch.stack([part.mean(0) for part in torch.tensor_split(rows, count)])
    return rows[torch.arange(count) % len(rows)]


def guess_init(name: str, vocabulary: Vocabulary) -> str:
    """Words to start from when none are given: the last word of a folder's name that the model knows
    ("my_cat": cat), or else a word for anything."""
    named = "".join(c if c.isalpha() else " " for c in name.lower()).split()
    for word in [*reversed(named), *FALLBACK_WORDS]:
        if word in vocabulary.words:
            return word
    raise UsageError("there is no word to start from", "say --init WORD, what the thing is")
