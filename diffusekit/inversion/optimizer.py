"""Optimize the vectors of a token: one AdamW step at a time, through frozen networks.

Works on one device or several, with a batch in one chunk or, when memory is short, in several. The batch is the same.
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
from .checkpoint import OptimizerState
from .loss import loss
from .placeholder import Placeholder

log = logging.getLogger(__name__)

RATE = 1 / 3  # of a typical entry of the token table, per step
_OUT_OF_MEMORY = ("out of memory", "alloc_failed", "out_of_device_memory", "can't allocate memory")


class EmbeddingOptimizer:
    """The vectors, AdamW over them, and the frozen networks that their gradient comes from."""

    def __init__(
        self,
        model: Model,
        vocabulary: Vocabulary,
        placeholder: Placeholder,
        batches: Batches,
        settings: InvertSettings,
        accelerator: Accelerator,
    ):
        self.placeholder = placeholder
        self._model, self._batches, self._settings, self._accelerator = model, batches, settings, accelerator
        self._typical_norm = vocabulary.typical_norm
        self.usual_learning_rate = RATE * self._typical_norm / math.sqrt(placeholder.vectors.shape[1])
        self.learning_rate = settings.learning_rate or self.usual_learning_rate
        self.chunks = 1
        self._adamw = torch.optim.AdamW([placeholder.vectors], lr=self.learning_rate, weight_decay=0.0)
        # The gradient passes through the text encoders, so they work in full precision.
        self._encoders = [e if e.dtype == torch.float32 else copy.deepcopy(e).float() for e in model.text_encoders]
        alpha_bar = make_scheduler("ddim", model.scheduler_config).alphas_cumprod
        self._alpha_bar = alpha_bar.to(model.placement.device)

    def step(self, number: int) -> float:
        """Learn from batch `number`, and return its mean loss.

        Raises `OutOfMemory`, and `Diverged` before a value that is not finite reaches the vectors.
        """
        world, rank = self._accelerator.num_processes, self._accelerator.process_index
        size, vectors = self._settings.batch, self.placeholder.vectors
        samples = list(range(number * size, (number + 1) * size)[rank::world])
        value = self._gradient_within_memory(samples)
        if world > 1:
            vectors.grad = self._accelerator.reduce(vectors.grad, "sum")  # type: ignore[assignment]
            total = self._accelerator.reduce(torch.tensor(value, device=vectors.device), "sum")
            value = float(total)  # type: ignore[arg-type]
        assert vectors.grad is not None
        if not (math.isfinite(value) and bool(vectors.grad.isfinite().all())):
            raise self._diverged(number, "the loss or its gradient is not a number")
        try:
            self._adamw.step()
            self._check(number)
            self.placeholder.clip_norms()
        except (OverflowError, RuntimeError) as error:  # PyTorch refuses numbers that float32 cannot hold
            if "overflow" not in str(error) and "too large" not in str(error):
                raise
            raise self._diverged(number, "the step is larger than the largest number") from None
        if not bool(self.placeholder.vectors.isfinite().all()):
            raise self._diverged(number, "the vectors are not finite")
        return value

    def compute_gradient(self, samples: list[int]) -> float:
        """Set the gradient of the vectors from samples of a batch; return their part of the batch's mean loss."""
        vectors, total = self.placeholder.vectors, 0.0
        vectors.grad = torch.zeros_like(vectors)
        size = max(-(-len(samples) // self.chunks), 1)
        for start in range(0, len(samples), size):
            batch = self._batches.batch(samples[start : start + size])
            cond = text.encode_ids(self._encoders, [batch.ids], [batch.vector_index], [vectors])
            losses = loss(self._model.unet, cond, batch, self._alpha_bar, self._model.prediction_type)
            share = losses.sum() / self._settings.batch
            share.backward()
            total += float(share.detach())
        if self._settings.pull:
            distance = ((vectors - self.placeholder.start) / self._typical_norm).pow(2).sum()
            (distance * self._settings.pull / self._accelerator.num_processes).backward()
        return total

    def _gradient_within_memory(self, samples: list[int]) -> float:
        while True:
            try:
                return self.compute_gradient(samples)
            except RuntimeError as error:
                self._add_chunks(error, len(samples))

    def _add_chunks(self, error: Exception, count: int) -> None:
        """After an out-of-memory error, compute the same batch in twice as many chunks, or give up."""
        message = str(error).lower()
        if not (isinstance(error, torch.OutOfMemoryError) or any(sign in message for sign in _OUT_OF_MEMORY)):
            raise error
        if self.chunks >= count:
            raise OutOfMemory(
                "one image does not fit into memory for training", "set `dtype` to bfloat16, or `device` to cpu"
            ) from error
        if self._model.placement.device.type == "cuda":
            torch.cuda.empty_cache()
        self.chunks = min(self.chunks * 2, count)
        log.warning("out of memory: the batch of %d is computed in %d chunks from now on", count, self.chunks)

    def _check(self, number: int) -> None:
        """Stop a run that went wrong, before any of it is saved."""
        placeholder = self.placeholder
        if not bool(placeholder.vectors.isfinite().all()):
            raise self._diverged(number, "the vectors are not finite")
        if (ratio := placeholder.mean_norm() / self._typical_norm) > 100:
            raise self._diverged(number, f"the norm of the vectors grew to {ratio:.3g} times the usual one")
        if number == 9 and placeholder.distance() < 1e-6:
            raise self._diverged(number, "the vectors have not moved in ten steps")

    def _diverged(self, number: int, reason: str) -> Diverged:
        return Diverged(
            f"training diverged at step {number + 1}: {reason} (learning rate {self.learning_rate:.3g})",
            f"the usual `learning_rate` for this model is {self.usual_learning_rate:.2g}",
        )

    # --- state, for checkpoints --------------------------------------------------------------

    def state(self) -> OptimizerState:
        """Everything that the next step depends on."""
        vectors = self.placeholder.vectors
        moments, zeros = self._adamw.state.get(vectors, {}), torch.zeros_like(vectors)
        first, second = moments.get("exp_avg", zeros), moments.get("exp_avg_sq", zeros)
        return OptimizerState(vectors, self.placeholder.start, first, second, self.chunks)

    @torch.no_grad()
    def restore(self, state: OptimizerState, step: int) -> None:
        """Go back to a state after `step` steps."""
        placeholder, device = self.placeholder, self.placeholder.vectors.device
        placeholder.vectors.copy_(state.vectors)
        placeholder.start = state.start.to(device)
        self._adamw.state[placeholder.vectors] = {
            "step": torch.tensor(float(step)),
            "exp_avg": state.first_moment.to(device),
            "exp_avg_sq": state.second_moment.to(device),
        }
        self.chunks = state.chunks
