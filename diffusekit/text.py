"""From words to the states the U-Net looks at: prompt, token ids, hidden states; and what was cut.

Knows no weights on words and no learned tokens.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch

from .models import Model

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reading:
    """A prompt as a model reads it: `ids` (T,), begin and end and padding included, and the text
    that did not fit."""

    ids: list[int]
    cut: str


def read(model: Model, prompt: str) -> Reading:
    """Split a prompt into exactly as many token ids as the text encoder has positions (77)."""
    tokenizer = model.tokenizers[0]
    length = model.text_encoders[0].config.max_position_embeddings
    ids = tokenizer(prompt, add_special_tokens=False, verbose=False).input_ids
    kept, rest = ids[: length - 2], ids[length - 2 :]
    padding = [tokenizer.pad_token_id] * (length - 2 - len(kept))
    cut = tokenizer.decode(rest).strip() if rest else ""
    return Reading([tokenizer.bos_token_id, *kept, tokenizer.eos_token_id, *padding], cut)


@torch.no_grad()
def encode(model: Model, prompts: list[str]) -> torch.Tensor:
    """The text encoder's last hidden states (B, T, D), one row per prompt; equal prompts are read once.

    A prompt that is too long is cut, and the log says what was lost.
    """
    different = list(dict.fromkeys(prompts))
    readings = [read(model, prompt) for prompt in different]
    for reading in readings:
        if reading.cut:
            log.warning("the prompt is too long for this model; it does not see: %r", reading.cut)
    ids = torch.tensor([reading.ids for reading in readings], device=model.placement.device)
    states = model.text_encoders[0](ids).last_hidden_state
    if len(different) == len(prompts):
        return states
    return states[[different.index(prompt) for prompt in prompts]]
