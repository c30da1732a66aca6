"""The words in a model's token table: their vectors, and the words nearest to a learned vector."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from ..errors import UsageError
from ..models import TextModel, token_ids

_WORD_END = "</w>"  # CLIP's mark of a piece that ends a word


class Vocabulary:
    """The whole words in the token table of one text encoder. `typical_norm` is the median norm of its rows."""

    def __init__(self, model: TextModel, encoder: int = 0):
        self._tokenizer = model.tokenizers[encoder]
        table = model.text_encoders[encoder].get_input_embeddings().weight
        self._table: Tensor = table.detach().float().cpu()
        self._special = set(self._tokenizer.all_special_ids)
        pieces = self._tokenizer.get_vocab()
        self._rows = {
            word: index
            for piece, index in sorted(pieces.items(), key=lambda item: item[1])
            if piece.endswith(_WORD_END)
            and index not in self._special
            and index < len(self._table)
            and (word := _readable(piece.removesuffix(_WORD_END)))
        }
        self._words = list(self._rows)
        self._norms = self._table.norm(dim=1)
        self._sorted = self._norms.sort().values
        self.typical_norm = float(self._norms.median())

    @property
    def words(self) -> list[str]:
        """All whole words, in table order."""
        return list(self._words)

    def word_metadata(self, name: str) -> dict[str, str]:
        """Return the metadata entry for a token whose name is a word of the model, else an empty dictionary."""
        return {"word": name} if name.lower() in self._rows else {}

    @property
    def width(self) -> int:
        """The width of the vectors."""
        return self._table.shape[1]

    def norm_percentile(self, norms: Tensor) -> list[float]:
        """Return for each norm (n,) the percentage, 0 to 100, of table rows with at most that norm."""
        flat = norms.detach().float().cpu().flatten()
        below = torch.searchsorted(self._sorted, flat, right=True)
        return [100 * int(b) / len(self._sorted) for b in below]

    def nearest(self, vectors: Tensor, count: int = 5, exclude: Sequence[str] = ()) -> list[list[tuple[str, float]]]:
        """Return for each vector (n, D) the `count` words with the largest cosine similarity, nearest first."""
        assert vectors.ndim == 2 and vectors.shape[1] == self.width, vectors.shape
        excluded = {word.lower() for word in exclude}
        words = [word for word in self._words if word.lower() not in excluded]
        unit = torch.nn.functional.normalize(vectors.detach().float().cpu())
        cosines = unit @ self._table.T / self._norms.clamp(min=1e-12)
        best = cosines[:, [self._rows[word] for word in words]].topk(min(count, len(words)), dim=1)
        return [
            [(words[i], float(c)) for i, c in zip(indices, values, strict=True)]
            for indices, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]

    def vectors(self, words: str) -> Tensor:
        """Return the table rows (k, D) of the tokens of `words`; raises `UsageError` when there are none."""
        ids = token_ids(self._tokenizer, words)
        if not ids or any(i in self._special or i >= len(self._table) for i in ids):
            raise UsageError(f"the model has no token for {words[:60]!r}", "use a word of its vocabulary")
        return self._table[ids].clone()

    def unknown_words(self, text: str) -> dict[str, list[str]]:
        """Return the words of a text that the model reads in several pieces, with the pieces.

        A piece that is part of a character is "".
        """
        unknown = {}
        for word in text.split():
            pieces = self._tokenizer.convert_ids_to_tokens(token_ids(self._tokenizer, word))
            if not all(piece.endswith(_WORD_END) for piece in pieces):
                unknown[word] = [_readable(piece.removesuffix(_WORD_END)) for piece in pieces]
        return unknown


def make_vocabularies(model: TextModel) -> tuple[Vocabulary, ...]:
    """Make the vocabulary of each text encoder of a model. SDXL has two."""
    return tuple(Vocabulary(model, encoder) for encoder in range(len(model.text_encoders)))


@cache
def _bytes_by_character() -> dict[str, int]:
    """Map each character of a piece to the byte it stands for (GPT-2's table, which CLIP uses too)."""
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in visible]
    return {chr(byte): byte for byte in visible} | {chr(256 + i): byte for i, byte in enumerate(others)}


def _readable(piece: str) -> str:
    """Decode a piece to text, or to "" when it is part of a character or invisible."""
    try:
        text = bytes(_bytes_by_character()[c] for c in piece).decode("utf-8")
    except (KeyError, UnicodeDecodeError):
        return ""
    return text if text.isprintable() else ""
