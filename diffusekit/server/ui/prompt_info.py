"""Prompts as a model reads them, without the weights that draw: how many tokens, and what is cut.

Keeps its own tokenizer, so that counting while somebody types never waits for the worker and never pushes
a model out of memory. Knows no page.
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from functools import lru_cache
from types import SimpleNamespace

from ... import models, text
from ...device import choose
from ...embeddings import LearnedToken, tokens_in_prompts

_LOCK = threading.Lock()  # a tokenizer is changed while it is used


@dataclass(frozen=True)
class Count:
    """How much of a prompt fits: `used` of `room` tokens; `cut` is what the model does not see."""

    used: int
    room: int
    cut: str
    learned: tuple[str, ...] = ()


def count(model: str, prompt: str, given: tuple[str, ...] = ()) -> Count:
    """Read a prompt; `given` are learned tokens named beside it.

    Raises `ModelError` when there is no such model, `UsageError` for learned tokens that clash.
    """
    tokens = tokens_in_prompts([prompt], given)
    with _LOCK:
        reader = _reader(model)
        reading = text.tokenize(reader, prompt, tokens)
        end = reading.ids.index(reader.tokenizers[0].eos_token_id, 1)
        seen = {word.text for word in text.word_spans(reader, reading, tokens)}
    return Count(end - 1, len(reading.ids) - 2, reading.truncated, _seen(tokens, prompt, seen))


def _seen(tokens: list[LearnedToken], prompt: str, words: set[str]) -> tuple[str, ...]:
    return tuple(token.name for token in tokens if token.token in words or token.name in prompt)


@lru_cache(maxsize=4)
def _reader(name: str) -> models.Model:
    """A model that can read and nothing else."""
    from transformers import CLIPTokenizer

    folder, revision = models.find(name)
    config = json.loads((folder / "text_encoder" / "config.json").read_text())
    limits = SimpleNamespace(max_position_embeddings=config["max_position_embeddings"])
    return models.Model(
        name=name,
        folder=folder,
        revision=revision,
        tokenizers=(CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True),),
        text_encoders=(SimpleNamespace(config=limits),),
        unet=None,
        vae=None,
        scheduler_config={},
        placement=choose("cpu", "float32"),
    )


@lru_cache(maxsize=4)
def side(name: str) -> int:
    """Width and height in pixels of the pictures a model was made for."""
    folder, _ = models.find(name)
    size = json.loads((folder / "unet" / "config.json").read_text())["sample_size"]
    blocks = json.loads((folder / "vae" / "config.json").read_text())["block_out_channels"]
    return (size if isinstance(size, int) else size[0]) * 2 ** (len(blocks) - 1)


def guidance(name: str) -> float:
    """The guidance scale that suits a model."""
    return 3.0 if models.find(name)[0] == models.MINI else 7.5


def fast(name: str) -> bool:
    """Whether a model brings weights for few steps."""
    return (models.find(name)[0] / models.FAST_LORA).is_file()
