"""What happened on the way to a picture, kept small: latents in half precision, decoded when looked at.

A consumer of `denoise`'s Steps. Knows no files and no drawing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from PIL import Image

from .. import images, latents
from ..models import Model
from ..pipeline import GeneratedImage, Generation, stream
from ..sampling import Step

AT_ONCE = 4  # latents decoded in one go


@dataclass(frozen=True, eq=False)
class TraceStep:
    """One step for one picture; tensors (C, h, w), float16, on the CPU.

    `noised` is what the U-Net was shown (alpha * x0 + sigma * eps), `denoised` (x0) and `noise` (eps)
    what was made of it, `latents` what it became. `without` and `with_prompt` are the x0 of the two
    predictions that guidance combines, None when there was no guidance.
    """

    index: int
    timestep: int
    alpha: float
    sigma: float
    x_t: torch.Tensor
    x0: torch.Tensor
    eps: torch.Tensor
    x_next: torch.Tensor
    x0_uncond: torch.Tensor | None
    x0_cond: torch.Tensor | None

    @property
    def snr(self) -> float:
        """Signal to noise: (alpha / sigma)²."""
        return (self.alpha / self.sigma) ** 2 if self.sigma else float("inf")

    @cached_property
    def x_t_unit(self) -> torch.Tensor:
        """`noised` at unit variance, whatever the sampler's scale: what can be decoded."""
        return self.x_t.float() / (self.alpha**2 + self.sigma**2) ** 0.5

    @property
    def guidance(self) -> torch.Tensor | None:
        """What the prompt adds to x0 before it is multiplied by the guidance scale."""
        if self.x0_uncond is None or self.x0_cond is None:
            return None
        return self.x0_cond.float() - self.x0_uncond.float()

    def numbers(self) -> dict[str, float | int]:
        """The step in numbers; norms are root mean squares over all latents."""
        found: dict[str, float | int] = {
            "step": self.index + 1,
            "timestep": self.timestep,
            "alpha_bar": self.alpha_bar,
            "sigma": self.sigma,
            "snr": self.snr,
            "rms_noised": rms(self.x_t),
            "rms_denoised": rms(self.x0),
            "rms_noise": rms(self.eps),
        }
        if self.guidance is not None:
            found["rms_guidance"] = rms(self.guidance)
        return found

    @property
    def alpha_bar(self) -> float:
        """The signal's share of the variance, alpha² / (alpha² + sigma²)."""
        return self.alpha**2 / (self.alpha**2 + self.sigma**2)


def rms(x: torch.Tensor) -> float:
    """Root mean square of a tensor."""
    return float(x.float().square().mean().sqrt())


@dataclass(frozen=True, eq=False)
class Trace:
    """A finished picture and every moment on its way."""

    model: Model
    result: GeneratedImage
    steps: tuple[TraceStep, ...]

    @property
    def prompt(self) -> str:
        return self.result.record.settings.prompt

    def decode(self, found: Sequence[torch.Tensor]) -> Iterator[Image.Image]:
        """Latents (C, h, w) as pictures, a few at a time."""
        for start in range(0, len(found), AT_ONCE):
            part = torch.stack([x.float() for x in found[start : start + AT_ONCE]])
            yield from images.to_pil(latents.decode(self.model, part))


class TraceRecorder:
    """Iterate for the Steps of a Stream; `traces` holds one Trace for each finished picture.

    Every Step is kept in half precision as it passes; the stream is not changed.
    """

    def __init__(self, generation: Generation):
        self.generation = generation
        self.traces: list[Trace] = []

    @property
    def total(self) -> int:
        return self.generation.total

    def __iter__(self) -> Iterator[Step]:
        kept: list[list[TraceStep]] = []
        for step in self.generation:
            self._finish(kept)
            if step.index == 0 or len(kept) != len(step.x_next):  # a batch begins, or begins again
                kept = [[] for _ in step.x_next]
            for i, moments in enumerate(kept):
                moments.append(trace_step(step, i))
            yield step
        self._finish(kept)

    def _finish(self, kept: list[list[TraceStep]]) -> None:
        """Make traces of the pictures that came out since the last step."""
        new = self.generation.images[len(self.traces) :]
        for picture, moments in zip(new, kept, strict=False):
            self.traces.append(Trace(self.generation.model, picture, tuple(moments)))


def trace_step(step: Step, i: int = 0) -> TraceStep:
    """Picture `i` of a Step, in half precision on the CPU."""
    pair: tuple[Any, ...] = (None, None)
    if len(step.outputs) == 2:
        pair = tuple(_small(step.x0_and_eps(output)[0][i]) for output in step.outputs)
    return TraceStep(
        step.index,
        step.timestep,
        step.alpha,
        step.sigma,
        _small(step.x_t[i]),
        _small(step.x0[i]),
        _small(step.eps[i]),
        _small(step.x_next[i]),
        *pair,
    )


def _small(x: torch.Tensor) -> torch.Tensor:
    return x.detach().to(torch.float16).cpu()


def record_trace(prompt: str, **settings: Any) -> Trace:
    """Make one picture and keep its way: `record("A beautiful galaxy", seed=7).moments`.

    Takes what `generate` takes; raises what it raises.
    """
    settings["images"] = 1
    recording = TraceRecorder(stream(prompt, **settings))
    for _ in recording:
        pass
    return recording.traces[0]
