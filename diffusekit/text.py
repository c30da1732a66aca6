"""Prompts to `Conditioning`: text to token ids, learned vectors beside the token table, hidden states.

A learned token takes one position per vector. Its vectors replace the rows of the token table while the text
encoder runs, and the table itself never changes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from .conditioning import Conditioning
from .embeddings import LearnedToken, find_mentions
from .models import TextModel, token_ids


@dataclass(frozen=True)
class TokenizedPrompt:
    """A prompt as a text encoder reads it.

    `ids` (T,) are token ids, begin, end and padding included. `vector_index` (T,) is -1 except where a learned
    vector replaces the token's row: there it is the index among the vectors of all tokens in order. `end` is
    the position of the end token. `truncated` is the text that did not fit.
    """

    ids: list[int]
    vector_index: list[int]
    end: int
    truncated: str


@dataclass(frozen=True)
class WordSpan:
    """A word of a prompt, or a learned token, at positions `start` to `stop` - 1 of a `TokenizedPrompt`."""

    text: str
    start: int
    stop: int


@dataclass(frozen=True)
class Piece:
    """A stretch of a prompt as ids: plain text, or a learned token, whose vectors stay together."""

    text: str
    ids: list[int]
    vector_index: list[int]
    divisible: bool


def tokenize(
    model: TextModel, prompt: str, tokens: Sequence[LearnedToken] = (), *, encoder: int = 0
) -> TokenizedPrompt:
    """Split a prompt into exactly as many token ids as a text encoder has positions (77).

    Learned tokens are found by their spellings and expanded here, on ids, never in the text. `encoder` chooses
    the tokenizer of a model that has two.
    """
    tokenizer = model.tokenizers[encoder]
    capacity = model.context_length - 2
    ids: list[int] = []
    vector_index: list[int] = []
    truncated: list[str] = []
    for piece in split_pieces(tokenizer, prompt, tokens):
        free = max(capacity - len(ids), 0)
        if truncated or (not piece.divisible and len(piece.ids) > free):
            truncated.append(piece.text)
            continue
        ids += piece.ids[:free]
        vector_index += piece.vector_index[:free]
        if len(piece.ids) > free:
            truncated.append(tokenizer.decode(piece.ids[free:]).strip())
    padding = capacity - len(ids)
    ids = [tokenizer.bos_token_id, *ids, tokenizer.eos_token_id, *[tokenizer.pad_token_id] * padding]
    end = ids.index(tokenizer.eos_token_id, 1)
    return TokenizedPrompt(ids, [-1, *vector_index, -1, *[-1] * padding], end, " ".join(truncated))


def split_pieces(tokenizer: Any, prompt: str, tokens: Sequence[LearnedToken]) -> Iterator[Piece]:
    """Yield the plain stretches of a prompt and its learned tokens, in order, without begin and end."""
    first = {}
    for token in tokens:
        first[id(token)] = sum(t.count for t in tokens[: len(first)])
    stand_in = next(i for i in range(len(tokenizer)) if i not in tokenizer.all_special_ids)
    end = 0
    for start, stop, token in [*find_mentions(prompt, tokens), (len(prompt), len(prompt), None)]:
        if plain := prompt[end:start].strip():
            ids = token_ids(tokenizer, plain)
            yield Piece(plain, ids, [-1] * len(ids), divisible=True)
        if token is not None:
            vector_index = [first[id(token)] + i for i in range(token.count)]
            yield Piece(prompt[start:stop], [stand_in] * token.count, vector_index, divisible=False)
        end = stop


def word_spans(model: TextModel, tokenized: TokenizedPrompt, tokens: Sequence[LearnedToken] = ()) -> list[WordSpan]:
    """List the words of a prompt in order: the pieces of one word together, a learned token as one word.

    Truncated text, begin, end and padding are left out.
    """
    owner = [token for token in tokens for _ in range(token.count)]
    first = {sum(t.count for t in tokens[:i]) for i in range(len(tokens))}
    names = token_names(model, tokenized)
    spans: list[WordSpan] = []
    start = 1
    for position in range(1, tokenized.end):
        vector, following = tokenized.vector_index[position : position + 2]
        if vector >= 0:
            if following != vector + 1 or following in first:
                spans.append(WordSpan(owner[vector].token, start, position + 1))
                start = position + 1
        elif names[position].endswith("</w>") or following >= 0 or position + 1 == tokenized.end:
            word = model.tokenizers[0].decode(tokenized.ids[start : position + 1]).strip()
            spans.append(WordSpan(word, start, position + 1))
            start = position + 1
    return spans


def token_names(model: TextModel, tokenized: TokenizedPrompt) -> list[str]:
    """Return each position's token as the vocabulary spells it; `</w>` ends a word."""
    return model.tokenizers[0].convert_ids_to_tokens(tokenized.ids)


def padding_id(model: TextModel) -> int:
    """Return the token id that fills a prompt up to the context length."""
    return model.tokenizers[0].pad_token_id


def has_every_word(model: TextModel, prompt: str) -> bool:
    """Whether every word of a prompt is one token of the model, and not several pieces."""
    tokenizer = model.tokenizers[0]
    return all(name.endswith("</w>") for name in tokenizer.convert_ids_to_tokens(token_ids(tokenizer, prompt)))


def input_vectors(model: TextModel, tokenized: TokenizedPrompt, tokens: Sequence[LearnedToken] = ()) -> torch.Tensor:
    """Return the vector that enters the first text encoder at each position, (T, D), float32 on the CPU.

    It is a row of the token table, or a vector of a learned token.
    """
    table = model.text_encoders[0].get_input_embeddings().weight.detach()
    vectors = table[torch.tensor(tokenized.ids, device=table.device)].float().cpu()
    learned = [vector for token in tokens for vector in token.vectors[0].float()]
    for position, index in enumerate(tokenized.vector_index):
        if index >= 0:
            vectors[position] = learned[index]
    return vectors


def find_truncated(model: TextModel, prompts: Sequence[str], tokens: Sequence[LearnedToken] = ()) -> list[str]:
    """Return the part of each prompt that is beyond the model's context length, where there is one."""
    readings = (tokenize(model, prompt, tokens) for prompt in dict.fromkeys(prompts))
    return [reading.truncated for reading in readings if reading.truncated]


@torch.no_grad()
def encode(model: TextModel, prompts: Sequence[str], tokens: Sequence[LearnedToken] = ()) -> Conditioning:
    """Encode prompts into a `Conditioning` of one row per prompt; equal prompts are encoded once.

    A prompt that is too long is truncated. `find_truncated` says what is lost.
    """
    unique = list(dict.fromkeys(prompts))
    device = model.placement.device
    ids, vector_index = [], []
    for number in range(len(model.tokenizers)):
        tokenized = [tokenize(model, prompt, tokens, encoder=number) for prompt in unique]
        ids.append(torch.tensor([each.ids for each in tokenized], device=device))
        vector_index.append(torch.tensor([each.vector_index for each in tokenized], device=device))
    learned = zip(*(token.vectors for token in tokens), strict=True)
    vectors = [torch.cat(each).to(device) for each in learned]
    cond = encode_ids(model.text_encoders, ids, vector_index, vectors)
    return cond if len(unique) == len(prompts) else cond[[unique.index(prompt) for prompt in prompts]]


def encode_ids(
    encoders: Sequence[Any],
    ids: Sequence[torch.Tensor],
    vector_index: Sequence[torch.Tensor] = (),
    vectors: Sequence[torch.Tensor] = (),
) -> Conditioning:
    """Run token ids through the text encoders. Every argument has one entry per encoder.

    `ids` and `vector_index` are (B, T), `vectors` (k, D) as for `injected_vectors`; without `vectors` the token
    tables are used alone. One encoder gives its last hidden states. Several give their last but one, side by
    side (SDXL). Gradients flow into `vectors`.
    """
    several = len(encoders) > 1
    outputs = []
    for number, encoder in enumerate(encoders):
        with injected_vectors(encoder, vector_index[number], vectors[number]) if vectors else nullcontext():
            outputs.append(encoder(ids[number], output_hidden_states=several))
    if not several:
        return Conditioning(outputs[0].last_hidden_state, outputs[0].pooler_output)
    states = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
    return Conditioning(states, outputs[-1].text_embeds)


@contextmanager
def injected_vectors(encoder: Any, vector_index: torch.Tensor, vectors: torch.Tensor) -> Iterator[None]:
    """While open, `encoder` sees `vectors[vector_index]` wherever `vector_index` (B, T) is not -1.

    `vectors` are (k, D), and gradients flow into them. The token table does not change.
    """

    def replace(_module: Any, _ids: Any, rows: torch.Tensor) -> torch.Tensor:
        # not `vectors[index]`: threads add up the gradient of an index in any order
        learned = F.embedding(vector_index.clamp(min=0), vectors).to(rows.dtype)
        return torch.where((vector_index >= 0)[..., None], learned, rows)

    hook = encoder.get_input_embeddings().register_forward_hook(replace)
    try:
        yield
    finally:
        hook.remove()
