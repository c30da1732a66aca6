"""What the file of a learned token says about its training."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from .. import embeddings, models
from ..models import Model
from ..settings import InvertSettings
from ..version import __version__
from .selection import Selection


def describe(
    settings: InvertSettings,
    model: Model,
    selection: Selection,
    *,
    start: Sequence[torch.Tensor],
    learning_rates: Sequence[float],
    pictures: int,
) -> dict[str, str]:
    """Return the metadata of a token that started from the vectors `start` (k, D) and learned from `pictures` images.

    `start` and `learning_rates` have an entry for each text encoder. `selection` says which step the token is of, and
    its scores beside those of the init words.
    """
    rates = list(dict.fromkeys(round(rate, 6) for rate in learning_rates))
    values: dict[str, Any] = {
        "base_model": Path(model.name).name,
        "base_hash": models.fingerprint(model),
        "init": settings.init,
        "start_vectors": embeddings.encode_vectors(tuple(start)),
        "property": settings.property,
        "pictures": pictures,
        "seed": settings.seed,
        "learning_rate": rates[0] if len(rates) == 1 else rates,
        "steps": selection.best_step,
        "scores": selection.best | {f"init_{key}": value for key, value in (selection.baseline or {}).items()},
        "version": f"diffusekit {__version__}",
    }
    return {k: v if isinstance(v, str) else json.dumps(v, sort_keys=True) for k, v in values.items()}
