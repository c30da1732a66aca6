"""What a run says after each step: the loss, how the vectors moved, the words nearest to them, and scores."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from ..embeddings import Vocabulary
from .checkpoint import TrainingState
from .evaluation import Evaluation
from .placeholder import Placeholder

log = logging.getLogger(__name__)

LOG_EVERY = 10  # steps
LONG = 99  # percentile of the token table's norms above which a vector may override the rest of a prompt


@dataclass(frozen=True, eq=False)
class TrainingProgress:
    """A run after `step` steps. `evaluation` is there when validation images were made at this step.

    `smoothed` is a moving average of the loss. `norm` is the mean norm of the vectors, `moved` their mean distance
    from the start in norms of the start, `nearest` the words nearest to the first vector.
    """

    step: int
    loss: float
    smoothed: float
    norm: float
    moved: float
    nearest: tuple[str, ...]
    evaluation: Evaluation | None = None
    best: bool = False


class Measures:
    """Measures the vectors of a run, and warns once of a vector that is too long."""

    def __init__(self, vocabulary: Vocabulary, placeholder: Placeholder, *, warns: bool):
        """`warns` is for one of several processes."""
        self._vocabulary, self._placeholder = vocabulary, placeholder
        self._warns = warns
        self._nearest: tuple[str, ...] = ()

    def progress(self, state: TrainingState, loss: float, evaluation: Evaluation | None) -> TrainingProgress:
        """The progress of a run in this state."""
        vectors = self._placeholder
        if evaluation or state.step % LOG_EVERY == 0 or not self._nearest:  # compares with the whole token table
            words = self._vocabulary.nearest(vectors.vectors.detach().cpu(), 3)
            self._nearest = tuple(word for word, _ in words[0])
        return TrainingProgress(
            step=state.step,
            loss=loss,
            smoothed=state.smoothed_loss or loss,
            norm=vectors.mean_norm(),
            moved=vectors.distance(),
            nearest=self._nearest,
            evaluation=evaluation,
            best=evaluation is not None and 0 < state.step == state.selection.best_step,
        )

    def log_entry(self, progress: TrainingProgress, learning_rate: float) -> dict[str, Any]:
        """The line of the log for a step."""
        entry: dict[str, Any] = {
            "step": progress.step,
            "loss": round(progress.loss, 6),
            "smoothed": round(progress.smoothed, 6),
            "learning_rate": learning_rate,
            "norm": round(progress.norm, 5),
            "moved": round(progress.moved, 5),
            "nearest": list(progress.nearest),
            "percentile": round(self._norm_percentile(), 1),
        }
        if progress.evaluation is not None:
            entry |= progress.evaluation.scores() | ({"best": True} if progress.best else {})
        return entry

    def _norm_percentile(self) -> float:
        """The norm percentile of the longest vector. The first one above `LONG` is warned of."""
        percentile = max(self._vocabulary.norm_percentile(self._placeholder.vectors.norm(dim=1)))
        if percentile > LONG and self._warns:
            self._warns = False
            log.warning(
                "a vector is longer than %.0f %% of the model's words, and may override the rest of a prompt; "
                "with `norm_bound` 1 it stays as long as a typical word",
                LONG,
            )
        return percentile
