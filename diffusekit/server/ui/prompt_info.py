"""What the page knows of a model without its U-Net: how prompts are tokenized, its words, its defaults.

Handlers call this while somebody types, so nothing here waits for the worker.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ... import models, text
from ...embeddings import LearnedToken, Vocabulary, make_vocabularies, tokens_in_prompts
from ...inversion import placeholder

_TOKENIZING = threading.Lock()  # a tokenizer changes its own settings while it works


@dataclass(frozen=True)
class TokenCount:
    """How much of a prompt fits: `used` of `limit` tokens. `truncated` is the text that the model does not see."""

    used: int
    limit: int
    truncated: str
    learned: tuple[str, ...] = ()


def count_tokens(model: str, prompt: str, embedding: Sequence[str] = (), folder: Path | None = None) -> TokenCount:
    """Count the tokens of a prompt; `embedding` are names of learned tokens chosen beside it, in `folder`.

    Raises `ModelError` when there is no such model, `UsageError` for learned tokens that clash.
    """
    tokens = tokens_in_prompts([prompt], tuple(embedding), folder)
    model_text = models.load_text(model)
    with _TOKENIZING:
        tokenized = text.tokenize(model_text, prompt, tokens)
        spans = text.word_spans(model_text, tokenized, tokens)
    learned = _learned_in(tokens, prompt, {span.text for span in spans})
    return TokenCount(tokenized.end - 1, len(tokenized.ids) - 2, tokenized.truncated, learned)


def _learned_in(tokens: Sequence[LearnedToken], prompt: str, words: Collection[str]) -> tuple[str, ...]:
    return tuple(token.name for token in tokens if token.token in words or token.name in prompt)


@lru_cache(maxsize=2)
def load_vocabularies(model: str) -> tuple[Vocabulary, ...]:
    """The words of each text encoder of a model; raises `ModelError` when it cannot be loaded."""
    return make_vocabularies(models.load_text(model))


def suggest_init(model: str, name: str) -> str:
    """The word that a training run of this name would start from."""
    return placeholder.guess_init(name, load_vocabularies(model)[0])


@lru_cache(maxsize=4)
def describe_model(name: str) -> models.ModelInfo:
    """Native size, guidance scale and few-step LoRA of a model, from its configuration files."""
    return models.describe(name)
