"""Choose the best vectors of a run, and notice when training no longer improves them (early stopping)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

MIN_EDITABILITY = 0.9  # of the init words' editability, for a token to be called editable
MIN_GAIN = 0.02  # of editability that counts as progress; less is the noise of four images

Scores = Mapping[str, float]  # "reconstruction" and "editability"; empty without a CLIP


@dataclass
class Selection:
    """The scores of the init words, the best scores so far, and how long nothing has improved.

    `baseline` is None before the first evaluation. `peak` is the highest editability so far, and `stale` the
    number of evaluations in a row that improved nothing. A checkpoint stores these fields under these names.
    """

    baseline: dict[str, float] | None = None
    best: dict[str, float] = field(default_factory=dict)
    best_step: int = 0
    peak: float = 0.0
    stale: int = 0

    def update(self, step: int, scores: Scores) -> bool:
        """Take the scores of a step; return whether they are the best so far."""
        best = is_better(scores, self.best, self.baseline or {})
        more_editable = scores.get("editability", 0.0) > self.peak + MIN_GAIN
        if best:
            self.best, self.best_step = dict(scores), step
        if more_editable:
            self.peak = scores["editability"]
        self.stale = 0 if best or more_editable else self.stale + 1
        return best


def is_better(new: Scores, old: Scores, baseline: Scores) -> bool:
    """Whether scores are better than others. Without scores, the newer ones are.

    Scores are editable if they retain 90 % of the init words' editability. Editable scores are better than others,
    and among them the higher reconstruction is. Among the others it is the higher editability.
    """
    if not old or not new:
        return True
    floor = MIN_EDITABILITY * baseline["editability"]
    new_editable, old_editable = new["editability"] >= floor, old["editability"] >= floor
    if new_editable != old_editable:
        return new_editable
    measure = "reconstruction" if new_editable else "editability"
    return new[measure] > old[measure]
