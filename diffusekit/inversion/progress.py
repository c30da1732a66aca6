"""What a run says after each step: the loss, how the vectors moved, the words nearest to them, and scores."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..embeddings import Vocabulary, key_suffix
from .checkpoint import TrainingState
from .evaluation import Evaluation
from .placeholder import Placeholder

log = logging.getLogger(__name__)

LOG_EVERY = 10  # steps
LONG = 99  # percentile of the token table's norms above which a vector may override the rest of a prompt


@dataclass(frozen=True)
class VectorMeasures:
    """The vectors for one text encoder.

    `norm` is their mean norm, `moved` their mean distance from the start in norms of the start, `nearest` the words
    nearest to the first vector.
    """

    norm: float
    moved: float
    nearest: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class TrainingProgress:
    """A run after `step` steps. `evaluation` is there when validation images were made at this step.

    `smoothed` is a moving average of the loss. `vectors` are the measures for each text encoder.
    """

    step: int
    loss: float
    smoothed: float
    vectors: tuple[VectorMeasures, ...]
    evaluation: Evaluation | None = None
    best: bool = False


class Measures:
    """Measures the vectors of a run, and warns once of a vector that is too long."""

    def __init__(self, vocabularies: Sequence[Vocabulary], placeholders: Sequence[Placeholder], *, warns: bool):
        """Both have one entry for each text encoder. `warns` is for one of several processes."""
        self._encoders = list(zip(vocabularies, placeholders, strict=True))
        self._warns = warns
        self._nearest: list[tuple[str, ...]] = []

    def progress(self, state: TrainingState, loss: float, evaluation: Evaluation | None) -> TrainingProgress:
        """The progress of a run in this state."""
        if evaluation or state.step % LOG_EVERY == 0 or not self._nearest:  # compares with the whole token table
            found = [vocabulary.nearest(p.vectors.detach().cpu()[:1], 3)[0] for vocabulary, p in self._encoders]
            self._nearest = [tuple(word for word, _ in words) for words in found]
        pairs = zip(self._encoders, self._nearest, strict=True)
        return TrainingProgress(
            step=state.step,
            loss=loss,
            smoothed=state.smoothed_loss or loss,
            vectors=tuple(VectorMeasures(p.mean_norm(), p.distance(), nearest) for (_, p), nearest in pairs),
            evaluation=evaluation,
            best=evaluation is not None and 0 < state.step == state.selection.best_step,
        )

    def log_entry(self, progress: TrainingProgress, learning_rates: Sequence[float]) -> dict[str, Any]:
        """The line of the log for a step. What is about a second text encoder has names that end in "_2"."""
        entry: dict[str, Any] = {
            "step": progress.step,
            "loss": round(progress.loss, 6),
            "smoothed": round(progress.smoothed, 6),
        }
        for encoder, (measures, rate) in enumerate(zip(progress.vectors, learning_rates, strict=True)):
            own = {
                "learning_rate": rate,
                "norm": round(measures.norm, 5),
                "moved": round(measures.moved, 5),
                "nearest": list(measures.nearest),
                "percentile": round(self._norm_percentile(encoder), 1),
            }
            entry |= {f"{name}{key_suffix(encoder)}": value for name, value in own.items()}
        if progress.evaluation is not None:
            entry |= progress.evaluation.scores() | ({"best": True} if progress.best else {})
        return entry

    def _norm_percentile(self, encoder: int) -> float:
        """The norm percentile of the longest vector. The first one above `LONG` is warned of."""
        vocabulary, placeholder = self._encoders[encoder]
        percentile = max(vocabulary.norm_percentile(placeholder.vectors.norm(dim=1)))
        if percentile > LONG and self._warns:
            self._warns = False
            log.warning(
                "a vector is longer than %.0f %% of the model's words, and may override the rest of a prompt; "
                "with `norm_bound` 1 it stays as long as a typical word",
                LONG,
            )
        return percentile
