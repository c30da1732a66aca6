"""Prompts as a model reads them, without the weights that draw: how many tokens, and what is cut.

Keeps its own tokenizer, so that counting while somebody types never waits for the worker and never pushes
a model out of memory. Knows no page.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ... import models, text
from ...embeddings import LearnedToken, tokens_in_prompts


@dataclass(frozen=True)
class Count:
    """How much of a prompt fits: `used` of `room` tokens; `cut` is what the model does not see."""

    used: int
    room: int
    cut: str
    learned: tuple[str, ...] = ()


def count(model: str, prompt: str, given: tuple[str, ...] = (), folder: Path | None = None) -> Count:
    """Read a prompt; `given` are learned tokens named beside it, from `folder`.

    Raises `ModelError` when there is no such model, `UsageError` for learned tokens that clash.
    """
    tokens = tokens_in_prompts([prompt], given, folder)
    reader = models.load_text(model)
    reading = text.tokenize(reader, prompt, tokens)
    spans = text.word_spans(reader, reading, tokens)
    return Count(
        reading.end - 1, len(reading.ids) - 2, reading.truncated, _seen(tokens, prompt, {span.text for span in spans})
    )


def _seen(tokens: list[LearnedToken], prompt: str, words: set[str]) -> tuple[str, ...]:
    return tuple(token.name for token in tokens if token.token in words or token.name in prompt)


def side(name: str) -> int:
    """Width and height in pixels of the pictures a model was made for."""
    return _info(name).native_size


def guidance(name: str) -> float:
    """The guidance scale that suits a model."""
    return _info(name).guidance_scale


def fast(name: str) -> bool:
    """Whether a model brings weights for few steps."""
    return _info(name).has_fast_lora


@lru_cache(maxsize=4)
def _info(name: str) -> models.ModelInfo:
    return models.describe(name)
