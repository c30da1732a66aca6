"""When a run makes validation images, and how many, so that they take at most a fifth of it.

The rule counts work and does not measure time, so that it is the same on every machine. A validation image takes 14
steps of 2 evaluations of the U-Net, and decoding. A training sample takes one evaluation and its gradient. An image
therefore takes as long as about 12 samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..settings import InvertSettings

COST = 12  # training samples that take as long as a validation image
TOKEN_IMAGES = 4  # usual number of validation images of the token alone
EDIT_IMAGES = 4  # at most, one of each edit prompt
SHORTEST = 100  # steps between validations, at least
INTERVALS = 5  # of a run that is long enough for more than a validation at its end
LARGEST_SHARE = 0.2  # of a run's work that validation takes


@dataclass(frozen=True)
class ValidationPlan:
    """`every` steps (0: only at the end), `token_images` of the token alone and `edit_images` of edit prompts.

    `has_baseline` says whether the init words are drawn first, to compare with.
    """

    every: int
    token_images: int = TOKEN_IMAGES
    edit_images: int = EDIT_IMAGES
    has_baseline: bool = True

    @property
    def image_count(self) -> int:
        """The number of images of one validation."""
        return self.token_images + self.edit_images

    def is_due(self, step: int, last: int) -> bool:
        """Whether there is a validation after `step`, if `last` is the last step."""
        return step == last or self.is_scheduled(step)

    def is_scheduled(self, step: int) -> bool:
        """Whether there is a validation after `step` however long the run is."""
        return self.every > 0 and step % self.every == 0

    def validations(self, steps: int) -> int:
        """The number of validations of a run, that of the init words included."""
        scheduled = -(-steps // self.every) if self.every else 1
        return scheduled + self.has_baseline

    def share(self, settings: InvertSettings) -> float:
        """The estimated part of the run's work that validation takes."""
        work = COST * self.image_count * self.validations(settings.steps)
        return work / (work + settings.steps * settings.batch)


def choose(settings: InvertSettings) -> ValidationPlan:
    """Plan the validations of a run. What the settings give is kept, the rest is chosen to take at most a fifth.

    A long run has a validation after an interval that does not depend on its length. A run that is continued then has
    the same ones as a run that was longer from the start. A shorter run has images of the init words and at its end,
    the fewer the shorter it is. The shortest have one image at the end, without scores.
    """
    count = settings.preview_images or TOKEN_IMAGES
    usual = ValidationPlan(settings.preview_every or 0, count, min(count, EDIT_IMAGES))
    if settings.preview_every is not None:
        return usual
    regular = ValidationPlan(_interval(settings.batch, usual.image_count), count, usual.edit_images)
    if settings.steps >= INTERVALS * regular.every:
        return regular
    counts = [count] if settings.preview_images else range(TOKEN_IMAGES, 0, -1)
    for count in counts:
        plan = ValidationPlan(0, count, min(count, EDIT_IMAGES))
        if settings.preview_images or plan.share(settings) <= LARGEST_SHARE:
            return plan
    return ValidationPlan(0, 1, 0, has_baseline=False)


def _interval(batch: int, images: int) -> int:
    """Steps between validations that take a sixth of the work, in tens."""
    return max(SHORTEST, 10 * math.ceil(5 * COST * images / batch / 10))
