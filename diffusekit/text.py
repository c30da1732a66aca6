"""From words to the states the U-Net looks at: prompt, token ids, hidden states; and what was cut.

A learned token stands in a prompt as so many ids as it has vectors; its vectors take the place of the
token table's rows while the text encoder runs, and the table itself is never touched. Knows no weights on
words.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from .embeddings import LearnedToken, find_mentions
from .models import TextModel, token_ids

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TokenizedPrompt:
    """A prompt as a model reads it.

    `ids` (T,) are token ids, begin and end and padding included. `rows` (T,) says where a learned vector
    stands instead: its index among the vectors of all tokens one after another, -1 elsewhere. `cut` is
    the text that did not fit.
    """

    ids: list[int]
    vector_index: list[int]
    truncated: str


@dataclass(frozen=True)
class WordSpan:
    """A word of a prompt, or a learned token: its places in a `Reading` are `start` to `stop` - 1."""

    text: str
    start: int
    stop: int


@dataclass(frozen=True)
class _Piece:
    text: str
    ids: list[int]
    rows: list[int]
    whole: bool  # a learned token is never cut in half


def tokenize(model: TextModel, prompt: str, tokens: Sequence[LearnedToken] = ()) -> TokenizedPrompt:
    """Split a prompt into exactly as many token ids as the text encoder has positions (77).

    Learned tokens are found by their spellings and expanded here, on ids, never in the text.
    """
    tokenizer = model.tokenizers[0]
    room = model.context_length - 2
    ids: list[int] = []
    rows: list[int] = []
    lost: list[str] = []
    for piece in _pieces(tokenizer, prompt, tokens):
        keep = max(room - len(ids), 0)
        if lost or (piece.whole and len(piece.ids) > keep):
            lost.append(piece.text)
            continue
        ids += piece.ids[:keep]
        rows += piece.rows[:keep]
        if len(piece.ids) > keep:
            lost.append(tokenizer.decode(piece.ids[keep:]).strip())
    padding = room - len(ids)
    return TokenizedPrompt(
        [tokenizer.bos_token_id, *ids, tokenizer.eos_token_id, *[tokenizer.pad_token_id] * padding],
        [-1, *rows, -1, *[-1] * padding],
        " ".join(lost),
    )


def _pieces(tokenizer: Any, prompt: str, tokens: Sequence[LearnedToken]) -> Iterator[_Piece]:
    """The prompt's plain stretches and its learned tokens, in order."""
    first = {}
    for token in tokens:
        first[id(token)] = sum(t.count for t in tokens[: len(first)])
    stand_in = next(i for i in range(len(tokenizer)) if i not in tokenizer.all_special_ids)
    end = 0
    for start, stop, token in [*find_mentions(prompt, tokens), (len(prompt), len(prompt), None)]:
        if plain := prompt[end:start].strip():
            ids = token_ids(tokenizer, plain)
            yield _Piece(plain, ids, [-1] * len(ids), whole=False)
        if token is not None:
            rows = [first[id(token)] + i for i in range(token.count)]
            yield _Piece(prompt[start:stop], [stand_in] * token.count, rows, whole=True)
        end = stop


def word_spans(model: TextModel, reading: TokenizedPrompt, tokens: Sequence[LearnedToken] = ()) -> list[WordSpan]:
    """The words that a model reads, in order: pieces of one word together, a learned token as one.

    What was cut is not among them, nor are begin, end and padding.
    """
    tokenizer = model.tokenizers[0]
    owner = [token for token in tokens for _ in range(token.count)]
    first = {sum(t.count for t in tokens[:i]) for i in range(len(tokens))}
    stop = reading.ids.index(tokenizer.eos_token_id, 1)
    found: list[WordSpan] = []
    start = 1
    for place in range(1, stop):
        row = reading.vector_index[place]
        after = reading.vector_index[place + 1]
        if row >= 0:
            if after != row + 1 or after in first:
                found.append(WordSpan(owner[row].token, start, place + 1))
                start = place + 1
        elif tokenizer.convert_ids_to_tokens(reading.ids[place]).endswith("</w>") or after >= 0 or place + 1 == stop:
            text = tokenizer.decode(reading.ids[start : place + 1]).strip()
            found.append(WordSpan(text, start, place + 1))
            start = place + 1
    return found


@contextmanager
def injected_vectors(encoder: Any, places: torch.Tensor, vectors: torch.Tensor) -> Iterator[None]:
    """While open, `encoder` sees `vectors[places]` (k, D) wherever `places` (B, T) is not -1.

    The token table keeps every bit; gradients flow into `vectors`.
    """

    def put(_module: Any, _ids: Any, looked_up: torch.Tensor) -> torch.Tensor:
        learned = vectors[places.clamp(min=0)].to(looked_up.dtype)
        return torch.where((places >= 0)[..., None], learned, looked_up)

    hook = encoder.get_input_embeddings().register_forward_hook(put)
    try:
        yield
    finally:
        hook.remove()


@torch.no_grad()
def encode(model: TextModel, prompts: Sequence[str], tokens: Sequence[LearnedToken] = ()) -> torch.Tensor:
    """The text encoder's last hidden states (B, T, D), one row per prompt; equal prompts are read once.

    A prompt that is too long is cut, and the log says what was lost.
    """
    different = list(dict.fromkeys(prompts))
    readings = [tokenize(model, prompt, tokens) for prompt in different]
    for reading in readings:
        if reading.truncated:
            log.warning("the prompt is too long for this model; it does not see: %r", reading.truncated)
    device = model.placement.device
    ids = torch.tensor([reading.ids for reading in readings], device=device)
    if tokens:
        places = torch.tensor([reading.vector_index for reading in readings], device=device)
        vectors = torch.cat([token.vectors[0] for token in tokens]).to(device)
        with injected_vectors(model.text_encoders[0], places, vectors):
            states = model.text_encoders[0](ids).last_hidden_state
    else:
        states = model.text_encoders[0](ids).last_hidden_state
    if len(different) == len(prompts):
        return states
    return states[[different.index(prompt) for prompt in prompts]]
