"""The words of a model's token table: where they lie, and which lie near a learned vector.

Knows no files and no prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from ..errors import UsageError
from ..models import TextModel, token_ids

_END = "</w>"  # CLIP's mark of a piece that ends a word


class Vocabulary:
    """The whole words of one text encoder's token table; `typical_norm` is the rows' median norm."""

    def __init__(self, model: TextModel, encoder: int = 0):
        self._tokenizer = model.tokenizers[encoder]
        table = model.text_encoders[encoder].get_input_embeddings().weight
        self._table: Tensor = table.detach().float().cpu()
        self._special = set(self._tokenizer.all_special_ids)
        pieces = self._tokenizer.get_vocab()
        self._rows = {
            word: index
            for piece, index in sorted(pieces.items(), key=lambda item: item[1])
            if piece.endswith(_END)
            and index not in self._special
            and index < len(self._table)
            and (word := _readable(piece.removesuffix(_END)))
        }
        self._words = list(self._rows)
        self._norms = self._table.norm(dim=1)
        self._sorted = self._norms.sort().values
        self.typical_norm = float(self._norms.median())

    @property
    def words(self) -> list[str]:
        """All whole words, in the order of the table."""
        return list(self._words)

    def word(self, name: str) -> dict[str, str]:
        """The fact that a token's name is a word of the model, where it is one."""
        return {"word": name} if name.lower() in self._rows else {}

    @property
    def width(self) -> int:
        return self._table.shape[1]

    def percentile(self, norms: Tensor) -> list[float]:
        """For every norm (n,): how many percent of the table's rows are no longer, 0 to 100."""
        flat = norms.detach().float().cpu().flatten()
        below = torch.searchsorted(self._sorted, flat, right=True)
        return [100 * int(b) / len(self._sorted) for b in below]

    def nearest(self, vectors: Tensor, count: int = 5, leave_out: Sequence[str] = ()) -> list[list[tuple[str, float]]]:
        """For every vector (n, D) the `count` words of largest cosine, the nearest first."""
        assert vectors.ndim == 2 and vectors.shape[1] == self.width, vectors.shape
        out = {word.lower() for word in leave_out}
        words = [word for word in self._words if word.lower() not in out]
        unit = torch.nn.functional.normalize(vectors.detach().float().cpu())
        cosines = unit @ self._table.T / self._norms.clamp(min=1e-12)
        best = cosines[:, [self._rows[word] for word in words]].topk(min(count, len(words)), dim=1)
        return [
            [(words[i], float(c)) for i, c in zip(places, values, strict=True)]
            for places, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]

    def vectors(self, words: str) -> Tensor:
        """The rows (k, D) of the tokens of some words; raises `UsageError` if they are of none."""
        ids = token_ids(self._tokenizer, words)
        if not ids or any(i in self._special or i >= len(self._table) for i in ids):
            raise UsageError(f"the model knows no token for {words[:60]!r}", "use a word of its vocabulary")
        return self._table[ids].clone()


@cache
def _bytes() -> dict[str, int]:
    """Which byte each character of a piece stands for (GPT-2's table, which CLIP's tokenizer has)."""
    printed = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printed]
    return {chr(byte): byte for byte in printed} | {chr(256 + i): byte for i, byte in enumerate(others)}


def _readable(piece: str) -> str:
    """A piece as text; "" for one that is only a part of a character, or cannot be seen."""
    try:
        text = bytes(_bytes()[c] for c in piece).decode("utf-8")
    except (KeyError, UnicodeDecodeError):
        return ""
    return text if text.isprintable() else ""
