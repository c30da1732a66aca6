"""The vectors that are learned: k rows beside each frozen token table, their start, and their longest norm.

Nothing of the model is trainable, so nothing has to be restored.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from .. import embeddings, models, text
from ..display import format_count, printable
from ..embeddings import ENDINGS, LearnedToken, Vocabulary
from ..errors import FileRefused, UsageError
from ..models import Model
from ..settings import InvertSettings

log = logging.getLogger(__name__)

FALLBACK_WORDS = ("thing", "object", "photo", "picture")


@dataclass(eq=False)
class Placeholder:
    """The vectors for one text encoder. SDXL has two encoders, and learns the vectors for both at once.

    `vectors` (k, D) float32 is the only parameter of training; `start` (k, D) is its initial value. `typical_norm` is
    the median norm of the encoder's token table, `max_norm` the largest norm a vector may have, 0 for any.
    """

    vectors: torch.nn.Parameter
    start: torch.Tensor
    typical_norm: float
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
    model: Model, vocabularies: Sequence[Vocabulary], words: str, *, count: int, start: str, norm_bound: float
) -> tuple[Placeholder, ...]:
    """Make `count` vectors for each text encoder that start from some words, of one token or several.

    If `start` is "word", they start from the words' rows of the token tables. If it is "output", they start from the
    text encoders' states at the words' positions (Cross-Initialization, Pang et al., 2023). `norm_bound` is in
    typical norms of each table, 0 for none. With a bound, the states are scaled to the typical norm.
    Raises `UsageError` if the model has no token for the words.
    """
    tables = [vocabulary.vectors(words) for vocabulary in vocabularies]
    if start == "output":
        tables = _encoder_states(model, words, [len(rows) for rows in tables])
        if norm_bound:
            pairs = zip(tables, vocabularies, strict=True)
            tables = [rows * (each.typical_norm / rows.norm(dim=1, keepdim=True)) for rows, each in pairs]
    return _placeholders(model, vocabularies, [resample(rows.float(), count) for rows in tables], norm_bound)


def create_initial(
    model: Model, vocabularies: Sequence[Vocabulary], settings: InvertSettings, init: str, folders: Sequence[Path]
) -> tuple[tuple[Placeholder, ...], LearnedToken | None]:
    """Make the vectors that training starts from: of words, or of a learned token, which is returned too.

    The token is looked for in `folders`. Words that the model does not know are warned of.
    Raises `UsageError` and `FileRefused`.
    """
    token, bound = find_token(init, vocabularies[0], folders), settings.norm_bound
    if token is None:
        warn_of_unknown_words(init, vocabularies)
        count, start = settings.vectors, settings.start
        return create(model, vocabularies, init, count=count, start=start, norm_bound=bound), None
    check_token(token, model, count=settings.vectors, start=settings.start)
    return _placeholders(model, vocabularies, [vectors.float() for vectors in token.vectors], bound), token


def _placeholders(
    model: Model, vocabularies: Sequence[Vocabulary], tables: Sequence[torch.Tensor], norm_bound: float
) -> tuple[Placeholder, ...]:
    made = []
    for rows, vocabulary in zip(tables, vocabularies, strict=True):
        vectors, typical = rows.to(model.placement.device), vocabulary.typical_norm
        placeholder = Placeholder(torch.nn.Parameter(vectors.clone()), vectors, typical, norm_bound * typical)
        placeholder.clip_norms()
        placeholder.start = placeholder.vectors.detach().clone()
        made.append(placeholder)
    return tuple(made)


@torch.no_grad()
def _encoder_states(model: Model, words: str, counts: Sequence[int]) -> list[torch.Tensor]:
    """The states of each text encoder at the positions of some words; SDXL has both side by side."""
    states = text.encode(model, [words]).states[0].cpu().split(model.widths, dim=-1)
    return [each[1 : 1 + count] for each, count in zip(states, counts, strict=True)]


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


def find_token(init: str, vocabulary: Vocabulary, folders: Sequence[Path]) -> LearnedToken | None:
    """The learned token that `init` names in one of the folders, or by the path of its file; None if it is words.

    A word of the model is that word, even if a token has the same name. `<name>` is always the token.
    Raises `UsageError` when `init` can only be a token and there is none.
    """
    bracketed = init.startswith("<") and init.endswith(">")
    is_path = init.endswith(ENDINGS) or Path(init).is_absolute()
    if not bracketed and not is_path and (init.lower() in vocabulary.words or len(init.split()) != 1):
        return None
    errors = []
    for folder in folders:
        try:
            return embeddings.load_token(init, folder)
        except UsageError as error:
            errors.append(error)
    if bracketed or is_path:
        raise errors[0]
    return None


def check_token(token: LearnedToken, model: Model, *, count: int, start: str) -> None:
    """Raise `FileRefused` if vectors cannot start from a token of another model, `UsageError` for other settings."""
    embeddings.check_compatible(token, model)
    base, own = token.metadata.get("base_hash"), models.fingerprint(model)
    if base and base != own:
        raise FileRefused(
            f"the token {token.name} was learned for {token.metadata.get('base_model', 'another model')!r} ({base}), "
            f"and this model is {model.name!r} ({own})",
            "start from a token of the same model, or set `init` to words",
        )
    if token.count != count:
        raise UsageError(
            f"the token {token.name} has {format_count(token.count, 'vector')}, and `vectors` is {count}",
            f"set `vectors` to {token.count}",
        )
    if start != "word":
        raise UsageError(
            f"`start` is {start!r}, which needs init words, and {token.name} is a learned token",
            "leave out `start`, or set `init` to words",
        )


def warn_of_unknown_words(init: str, vocabularies: Sequence[Vocabulary]) -> None:
    """Log each init word that the model does not know as a word, with the pieces that it reads instead."""
    unknown: dict[str, list[str]] = {}
    for vocabulary in vocabularies:
        unknown = vocabulary.unknown_words(init) | unknown
    for word, pieces in unknown.items():
        readable = [printable(piece) for piece in pieces if piece]
        parts = ", ".join(map(repr, readable)) if len(readable) == len(pieces) else "parts of characters"
        log.warning(
            "the model does not know the init word %r: it reads %s (%s), and the vectors start from these; "
            "set `init` to a word that it knows",
            printable(word),
            format_count(len(pieces), "piece"),
            parts,
        )
