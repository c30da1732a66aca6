"""One training step at a time: gradients of a few rows through frozen networks, and whether all is well.

Runs on one device or several, in one piece or, when memory is short, in many: the batch is the same. Knows
no files and no previews.
"""

from __future__ import annotations

import copy
import logging
import math

import torch
from accelerate import Accelerator

from .. import text
from ..embeddings import Vocabulary
from ..errors import Diverged, OutOfMemory
from ..models import Model
from ..schedule import make_scheduler
from ..settings import InvertSettings
from .batches import Batches
from .loss import loss
from .placeholder import Placeholder

log = logging.getLogger(__name__)

RATE = 1 / 3  # of a typical entry of the token table, per step
_MEMORY = ("out of memory", "alloc_failed", "out_of_device_memory", "can't allocate memory")


class EmbeddingOptimizer:
    """The rows, their optimizer, and the frozen networks that judge them."""

    def __init__(
        self,
        model: Model,
        vocabulary: Vocabulary,
        holder: Placeholder,
        samples: Batches,
        settings: InvertSettings,
        accelerator: Accelerator,
    ):
        self.model, self.placeholder, self._samples = model, holder, samples
        self._settings, self._accelerator = settings, accelerator
        self._typical = vocabulary.typical_norm
        self.usual_learning_rate = RATE * self._typical / math.sqrt(holder.vectors.shape[1])
        self.learning_rate = settings.learning_rate or self.usual_learning_rate
        self.chunks = 1
        self.optimizer = torch.optim.AdamW([holder.vectors], lr=self.learning_rate, weight_decay=0.0)
        # The rows' gradients pass through the text encoder, so it works in full precision.
        self._encoders = [e if e.dtype == torch.float32 else copy.deepcopy(e).float() for e in model.text_encoders]
        alpha_bar = make_scheduler("ddim", model.scheduler_config).alphas_cumprod
        self._alpha_bar = alpha_bar.to(model.placement.device)

    def step(self, number: int) -> float:
        """Learn from batch `number`; returns its mean loss.

        Raises `Diverged` before anything that is not finite reaches the rows, and `OutOfMemory`.
        """
        world, rank = self._accelerator.num_processes, self._accelerator.process_index
        batch, rows = self._settings.batch, self.placeholder.vectors
        mine = list(range(number * batch, (number + 1) * batch)[rank::world])
        while True:
            try:
                value = self._gradient(mine)
                break
            except RuntimeError as error:
                self._shrink_chunks(error, len(mine))
        if world > 1:
            rows.grad = self._accelerator.reduce(rows.grad, "sum")  # type: ignore[assignment]
            total = self._accelerator.reduce(torch.tensor(value, device=rows.device), "sum")
            value = float(total)  # type: ignore[arg-type]
        assert rows.grad is not None
        if not (math.isfinite(value) and bool(rows.grad.isfinite().all())):
            raise self._diverged(number, "the loss or its gradient is not a number")
        self.optimizer.step()
        self._check(number)
        self.placeholder.clip_norms()
        return value

    def _gradient(self, numbers: list[int]) -> float:
        """Sum the samples' gradients into the rows; returns their part of the mean loss."""
        rows, total = self.placeholder.vectors, 0.0
        rows.grad = torch.zeros_like(rows)
        size = max(-(-len(numbers) // self.chunks), 1)
        for start in range(0, len(numbers), size):
            batch = self._samples.batch(numbers[start : start + size])
            cond = text.encode_ids(self._encoders, [batch.ids], [batch.vector_index], [rows])
            values = loss(self.model.unet, cond, batch, self._alpha_bar, self.model.prediction_type)
            part = values.sum() / self._settings.batch
            part.backward()
            total += float(part.detach())
        if self._settings.pull:
            distance = ((rows - self.placeholder.start) / self._typical).pow(2).sum()
            (distance * self._settings.pull / self._accelerator.num_processes).backward()
        return total

    def _shrink_chunks(self, error: Exception, count: int) -> None:
        """After an out-of-memory error: the same batch in twice as many pieces, or give up."""
        words = str(error).lower()
        full = isinstance(error, torch.OutOfMemoryError) or any(sign in words for sign in _MEMORY)
        if not full:
            raise error
        if self.chunks >= count:
            raise OutOfMemory(
                "one picture does not fit in memory for training",
                "use --dtype bfloat16 or --device cpu",
            ) from error
        if self.model.placement.device.type == "cuda":
            torch.cuda.empty_cache()
        self.chunks = min(self.chunks * 2, count)
        log.warning("out of memory: going on with the same batch of %d in %d pieces", count, self.chunks)

    def _check(self, number: int) -> None:
        """Stop a run that went wrong, before anything of it is kept."""
        placeholder = self.placeholder
        if not bool(placeholder.vectors.isfinite().all()):
            raise self._diverged(number, "the vectors are not finite")
        if (times := placeholder.mean_norm() / self._typical) > 100:
            raise self._diverged(number, f"the vectors grew to {times:.3g} times the usual length")
        if number == 9 and placeholder.distance() < 1e-6:
            raise self._diverged(number, "the vectors have not moved in ten steps")

    def _diverged(self, number: int, what: str) -> Diverged:
        return Diverged(
            f"training went wrong at step {number + 1}: {what} (learning rate {self.learning_rate:.3g})",
            f"the usual rate for this model is {self.usual_learning_rate:.2g}",
        )

    # --- the optimizer's state, for checkpoints ----------------------------------------------

    def moments(self) -> tuple[torch.Tensor, torch.Tensor]:
        """AdamW's first and second moment of the rows, (k, D) each."""
        state = self.optimizer.state.get(self.placeholder.vectors, {})
        zeros = torch.zeros_like(self.placeholder.vectors)
        return state.get("exp_avg", zeros), state.get("exp_avg_sq", zeros)

    @torch.no_grad()
    def restore(
        self, step: int, rows: torch.Tensor, start: torch.Tensor, first: torch.Tensor, second: torch.Tensor
    ) -> None:
        """Go back to where rows and optimizer were after `step` steps."""
        holder, device = self.placeholder, self.placeholder.vectors.device
        holder.vectors.copy_(rows)
        holder.start = start.to(device)
        self.optimizer.state[holder.vectors] = {
            "step": torch.tensor(float(step)),
            "exp_avg": first.to(device),
            "exp_avg_sq": second.to(device),
        }
