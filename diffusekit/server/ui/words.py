"""The words of a model, for the page: its own copy of the token table, so that looking never waits for the
worker. Knows no components.
"""

from __future__ import annotations

from functools import lru_cache

from ... import models
from ...embeddings import Vocabulary
from ...inversion import placeholder


@lru_cache(maxsize=2)
def vocabulary(model: str) -> Vocabulary:
    """The words of the model of that name for `load`; raises `ModelError` when it cannot be loaded."""
    return Vocabulary(models.load_text(model))


def suggested(model: str, name: str) -> str:
    """The word that a run of this name would start from."""
    return placeholder.guess_init(name, vocabulary(model))
