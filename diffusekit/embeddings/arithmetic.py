"""Sums of words: "Paris - France + England", and the way between a token's start and its end.

Knows the grammar of such sums, no files.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

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
    """The vector (D,) of a sum of words, each optionally times a number.

    A word of several tokens, and a learned token of several vectors, counts as their mean; a minus
    needs a space before it ("blue-green" is one word). Raises `UsageError` for bad grammar.
    """
    if "\0" in expression or re.search(r"[()\[\]{}=/^|]", expression):
        raise UsageError(f"{expression[:60]!r} holds other marks than + - and *", _HINT)
    marked, at = "", 0
    found = find_mentions(expression, tokens)
    for number, (start, end, _) in enumerate(found):
        marked += f"{expression[at:start]} \0{number}\0"
        at = end
    total = torch.zeros(vocabulary.width)
    for factor, words, learned in _terms(marked + expression[at:], expression):
        if learned is None:
            vector = vocabulary.vectors(words).mean(dim=0)
        else:
            vector = found[learned][2].vectors[encoder].mean(dim=0)
        total += factor * vector
    if not total.isfinite().all() or float(total.norm()) < 1e-6 * vocabulary.typical_norm:
        raise UsageError(f"{expression[:60]!r} comes to nothing that has a direction", _HINT)
    return total


def _terms(marked: str, expression: str) -> list[tuple[float, str, int | None]]:
    """(factor, words, number of a learned token) of every term of a sum."""
    terms: list[tuple[float, str, int | None]] = []
    sign: float | None = 1.0  # None: a term has ended, and only a sign may follow
    factor: float | None = None
    fresh = True  # whether a sign may stand here
    for piece in _PIECE.finditer(marked.strip()):
        kind, text = piece.lastgroup, piece[piece.lastgroup or 0]
        if kind == "sign" and fresh and factor is None:
            sign, fresh = -1.0 if text == "-" else 1.0, False
        elif kind == "factor" and sign is not None and factor is None:
            factor, fresh = float(text), False
        elif kind == "word" and sign is None and terms[-1][2] is None:
            terms[-1] = (terms[-1][0], f"{terms[-1][1]} {text}", None)
        elif kind in ("word", "learned") and sign is not None:
            number = int(text) if kind == "learned" else None
            terms.append((sign * (1.0 if factor is None else factor), text, number))
            sign, factor, fresh = None, None, True
        else:
            raise UsageError(f"{expression[:60]!r} is no sum of words", _HINT)
    if sign is not None or not all(math.isfinite(term[0]) for term in terms):
        raise UsageError(f"{expression[:60]!r} is no sum of words", _HINT)
    return terms


def interpolate(token: LearnedToken, start: Tensor | tuple[Tensor, ...], amount: float) -> LearnedToken:
    """The token on the straight way from its start vectors (n, D) (0) to what was learned (1).

    Nearer to the start it is easier to edit by other words, nearer to the end more alike. `start` is
    a tuple where there are two text encoders. Raises `UsageError` for an amount outside 0 to 1.
    """
    if not 0 <= amount <= 1:
        raise UsageError(f"the amount is {amount}, from 0 to 1 is wanted", "0 is the start")
    starts = (start,) if isinstance(start, Tensor) else start
    assert [s.shape for s in starts] == [v.shape for v in token.vectors], "shapes differ"
    vectors = tuple(torch.lerp(s.detach().float().cpu(), v, amount) for s, v in zip(starts, token.vectors, strict=True))
    facts = token.metadata | {"interpolated": f"{amount:g}"}
    facts.pop("scores", None)  # they were another token's
    return replace(token, vectors=vectors, metadata=facts, path=None, sha256="")
