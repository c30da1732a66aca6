"""Arithmetic with words and tokens: "Paris - France + England", and interpolation of a token."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..display import quote
from ..errors import UsageError
from .lookup import find_mentions
from .token import LearnedToken
from .vocabulary import Vocabulary

_HINT = 'write for example "Paris - France + England" or "0.5 * cat + dog"'
_PIECE = re.compile(
    r"""\s*(?:
      (?P<factor>(?:\d+\.?\d*|\.\d+))\s*\*\s*
    | (?P<sign>\+|(?<!\S)-)
    | \0(?P<learned>\d+)\0
    | (?P<word>(?!-)[^\s+*\0]+)
    | (?P<other>\S)
    )""",
    re.VERBOSE,
)


def combine(vocabulary: Vocabulary, expression: str, tokens: Sequence[LearnedToken] = (), encoder: int = 0) -> Tensor:
    """Compute the vector (D,) of a sum of words and learned tokens, each with an optional factor.

    A word of several tokens, or a learned token of several vectors, counts as their mean. A minus needs a
    space before it, because "blue-green" is one word. Raises `UsageError` for an invalid expression.
    """
    if expression.encode("utf-8", "ignore").decode() != expression:
        raise UsageError(f"{quote(expression)} is not UTF-8 text", _HINT)
    if "\0" in expression or re.search(r"[()\[\]{}=/^|]", expression):
        raise UsageError(f"{expression[:60]!r} has operators other than +, - and *", _HINT)
    marked, at = "", 0
    mentions = find_mentions(expression, tokens)
    for number, (start, end, _) in enumerate(mentions):
        marked += f"{expression[at:start]} \0{number}\0"
        at = end
    total = torch.zeros(vocabulary.width)
    for factor, words, learned in _terms(marked + expression[at:], expression):
        if learned is None:
            vector = vocabulary.vectors(words).mean(dim=0)
        else:
            vector = mentions[learned][2].vectors[encoder].mean(dim=0)
        total += factor * vector
    if not total.isfinite().all() or float(total.norm()) < 1e-6 * vocabulary.typical_norm:
        raise UsageError(f"{expression[:60]!r} adds up to zero", _HINT)
    return total


def _terms(marked: str, expression: str) -> list[tuple[float, str, int | None]]:
    """Split a sum into terms (factor, words, number of a learned token or None)."""
    terms: list[tuple[float, str, int | None]] = []
    sign: float | None = 1.0  # None after a complete term, which only a sign or another word can follow
    factor: float | None = None
    sign_allowed = True
    for piece in _PIECE.finditer(marked.strip()):
        kind, text = piece.lastgroup, piece[piece.lastgroup or 0]
        if kind == "sign" and sign_allowed and factor is None:
            sign, sign_allowed = -1.0 if text == "-" else 1.0, False
        elif kind == "factor" and sign is not None and factor is None:
            factor, sign_allowed = float(text), False
        elif kind == "word" and sign is None and terms[-1][2] is None:
            terms[-1] = (terms[-1][0], f"{terms[-1][1]} {text}", None)
        elif kind in ("word", "learned") and sign is not None:
            number = int(text) if kind == "learned" else None
            terms.append((sign * (1.0 if factor is None else factor), text, number))
            sign, factor, sign_allowed = None, None, True
        else:
            raise UsageError(f"{expression[:60]!r} is not a sum of words", _HINT)
    if sign is not None or not all(math.isfinite(term[0]) for term in terms):
        raise UsageError(f"{expression[:60]!r} is not a sum of words", _HINT)
    return terms


def interpolate(token: LearnedToken, start: Tensor | tuple[Tensor, ...], amount: float) -> LearnedToken:
    """Interpolate linearly between a token's start vectors (k, D) and its learned vectors.

    At `amount` 0 it is the start, which is easy to edit with other words. At 1 it is what was learned,
    which resembles the photos most. For two text encoders `start` is a tuple. Raises `UsageError` for an
    amount outside 0 to 1.
    """
    if not 0 <= amount <= 1:
        raise UsageError(f"expected an amount from 0 to 1, got {amount}", "0 is the start, 1 is what was learned")
    starts = (start,) if isinstance(start, Tensor) else start
    assert [s.shape for s in starts] == [v.shape for v in token.vectors], "shapes differ"
    vectors = tuple(torch.lerp(s.detach().float().cpu(), v, amount) for s, v in zip(starts, token.vectors, strict=True))
    metadata = token.metadata | {"interpolated": f"{amount:g}"}
    metadata.pop("scores", None)  # those of the learned token
    return replace(token, vectors=vectors, metadata=metadata, path=None, sha256="")
