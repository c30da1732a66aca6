"""The words of a model, for the page: its own copy of the token table, so that looking never waits for the
worker and never loads a model. Knows no components.
"""

from __future__ import annotations

import json
import threading
from functools import lru_cache
from typing import Any, cast

from ... import models
from ...embeddings import Vocabulary
from ...errors import ModelError
from ...inversion import placeholder

_LOCK = threading.Lock()  # a tokenizer may be used by one at a time
_KEY = "token_embedding.weight"


def vocabulary(model: str) -> Vocabulary:
    """The words of the model of that name for `load`; raises `ModelError` when it has no such table."""
    with _LOCK:
        return _vocabulary(model)


def suggested(model: str, name: str) -> str:
    """The word that a run of this name would start from."""
    return placeholder.words_of(name, vocabulary(model))


@lru_cache(maxsize=2)
def _vocabulary(name: str) -> Vocabulary:
    from transformers import CLIPTokenizer

    folder, _ = models.find(name)
    table = _table(name)
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    return Vocabulary(cast(Any, _Words((tokenizer,), (_Encoder(table),))))


class _Words:
    """As much of a model as words need."""

    def __init__(self, tokenizers: tuple[Any, ...], text_encoders: tuple[Any, ...]):
        self.tokenizers, self.text_encoders = tokenizers, text_encoders


class _Encoder:
    """A text encoder that is a table."""

    def __init__(self, weight: Any):
        self.weight = weight

    def get_input_embeddings(self) -> _Encoder:
        return self


def _table(name: str) -> Any:
    from safetensors import safe_open

    folder, _ = models.find(name)
    for path in sorted((folder / "text_encoder").glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for key in file.keys():  # noqa: SIM118 -- it is no mapping
                if key.endswith(_KEY):
                    return file.get_tensor(key)
    raise ModelError(f"the model {json.dumps(name)} has no table of words", "fetch it again")
