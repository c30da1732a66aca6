"""Optimize the vectors of a token for every text encoder: one AdamW step at a time, through frozen networks.

Works on one device or several, with a batch in one chunk or, when memory is short, in several. The batch is the same.
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from accelerate import Accelerator

from .. import text
from ..errors import Diverged, OutOfMemory
from ..models import Model
from ..schedule import make_scheduler
from ..settings import InvertSettings
from .batches import Batches
from .checkpoint import OptimizerState, VectorState
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
        placeholders: Sequence[Placeholder],
        batches: Batches,
        settings: InvertSettings,
        accelerator: Accelerator,
    ):
        """`placeholders` are the vectors for each text encoder of the model."""
        self.placeholders = tuple(placeholders)
        self._model, self._batches, self._settings, self._accelerator = model, batches, settings, accelerator
        self.usual_learning_rates = tuple(
            RATE * each.typical_norm / math.sqrt(each.vectors.shape[1]) for each in self.placeholders
        )
        self.learning_rates = tuple(settings.learning_rate or usual for usual in self.usual_learning_rates)
        self.chunks = 1
        pairs = zip(self.placeholders, self.learning_rates, strict=True)
        self._adamw = torch.optim.AdamW([{"params": [p.vectors], "lr": rate} for p, rate in pairs], weight_decay=0.0)
        # The gradient passes through the text encoders, so they work in full precision.
        self._encoders = [e if e.dtype == torch.float32 else copy.deepcopy(e).float() for e in model.text_encoders]
        alpha_bar = make_scheduler("ddim", model.scheduler_config).alphas_cumprod
        self._alpha_bar = alpha_bar.to(model.placement.device)

    def step(self, number: int) -> float:
        """Learn from batch `number`, and return its mean loss.

        Raises `OutOfMemory`, and `Diverged` before a value that is not finite reaches the vectors.
        """
        world, rank = self._accelerator.num_processes, self._accelerator.process_index
        size = self._settings.batch
        samples = list(range(number * size, (number + 1) * size)[rank::world])
        value = self._gradient_within_memory(samples)
        if world > 1:
            value = self._add_up_processes(value)
        gradients = [each.vectors.grad for each in self.placeholders]
        if not (math.isfinite(value) and all(g is not None and bool(g.isfinite().all()) for g in gradients)):
            raise self._diverged(number, "the loss or its gradient is not a number")
        try:
            self._adamw.step()
            self._check(number)
            for each in self.placeholders:
                each.clip_norms()
        except (OverflowError, RuntimeError) as error:  # PyTorch refuses numbers that float32 cannot hold
            if "overflow" not in str(error) and "too large" not in str(error):
                raise
            raise self._diverged(number, "the step is larger than the largest number") from None
        if not self._is_finite():
            raise self._diverged(number, "the vectors are not finite")
        return value

    def _add_up_processes(self, value: float) -> float:
        """Add up the gradients and the losses of all processes; return the loss."""
        for each in self.placeholders:
            each.vectors.grad = self._accelerator.reduce(each.vectors.grad, "sum")  # type: ignore[assignment]
        total = self._accelerator.reduce(torch.tensor(value, device=self.placeholders[0].vectors.device), "sum")
        return float(total)  # type: ignore[arg-type]

    def compute_gradient(self, samples: list[int]) -> float:
        """Set the gradient of all vectors from samples of a batch; return their part of the batch's mean loss."""
        vectors, total = [each.vectors for each in self.placeholders], 0.0
        for each in vectors:
            each.grad = torch.zeros_like(each)
        size = max(-(-len(samples) // self.chunks), 1)
        for start in range(0, len(samples), size):
            batch = self._batches.batch(samples[start : start + size])
            cond = text.encode_ids(self._encoders, batch.ids.unbind(1), batch.vector_index.unbind(1), vectors)
            cond = replace(cond, size_ids=batch.size_ids)
            losses = loss(self._model.unet, cond, batch, self._alpha_bar, self._model.prediction_type)
            share = losses.sum() / self._settings.batch
            share.backward()
            total += float(share.detach())
        for each in self.placeholders if self._settings.pull else ():
            distance = ((each.vectors - each.start) / each.typical_norm).pow(2).sum()
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
        if not self._is_finite():
            raise self._diverged(number, "the vectors are not finite")
        if (ratio := max(each.mean_norm() / each.typical_norm for each in self.placeholders)) > 100:
            raise self._diverged(number, f"the norm of the vectors grew to {ratio:.3g} times the usual one")
        if number == 9 and min(each.distance() for each in self.placeholders) < 1e-6:
            raise self._diverged(number, "the vectors have not moved in ten steps")

    def _is_finite(self) -> bool:
        return all(bool(each.vectors.isfinite().all()) for each in self.placeholders)

    def _diverged(self, number: int, reason: str) -> Diverged:
        rates, usual = (
            " and ".join(dict.fromkeys(f"{rate:.3g}" for rate in each))
            for each in (self.learning_rates, self.usual_learning_rates)
        )
        return Diverged(
            f"training diverged at step {number + 1}: {reason} (learning rate {rates})",
            f"the usual `learning_rate` for this model is {usual}",
        )

    # --- state, for checkpoints --------------------------------------------------------------

    def state(self) -> OptimizerState:
        """Everything that the next step depends on."""
        encoders = []
        for each in self.placeholders:
            moments, zeros = self._adamw.state.get(each.vectors, {}), torch.zeros_like(each.vectors)
            first, second = moments.get("exp_avg", zeros), moments.get("exp_avg_sq", zeros)
            encoders.append(VectorState(each.vectors, each.start, first, second))
        return OptimizerState(tuple(encoders), self.chunks)

    @torch.no_grad()
    def restore(self, state: OptimizerState, step: int) -> None:
        """Go back to a state after `step` steps."""
        for placeholder, saved in zip(self.placeholders, state.encoders, strict=True):
            device = placeholder.vectors.device
            placeholder.vectors.copy_(saved.vectors)
            placeholder.start = saved.start.to(device)
            self._adamw.state[placeholder.vectors] = {
                "step": torch.tensor(float(step)),
                "exp_avg": saved.first_moment.to(device),
                "exp_avg_sq": saved.second_moment.to(device),
            }
        self.chunks = state.chunks
