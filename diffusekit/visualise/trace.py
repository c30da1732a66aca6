"""Record how an image is made: every step of a generation, in half precision, decoded only when shown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Unpack

import torch
from PIL import Image

from .. import images, latents
from ..embeddings import LearnedToken
from ..errors import ImagesFlagged
from ..models import Model
from ..options import GenerateOptions
from ..pipeline import GeneratedImage, Generation, stream
from ..sampling import Step

_DECODE_BATCH = 4


class StreamOptions(GenerateOptions, total=False):
    """The keyword arguments of `pipeline.stream`, which every visualiser of a prompt takes."""

    model: str | Model
    tokens: Sequence[LearnedToken | str | Path]


@dataclass(frozen=True, eq=False)
class TraceStep:
    """One denoising step of one image. Tensors are (C, h, w), float16, on the CPU.

    `x_t`, `x0`, `eps` and `x_next` are those of `sampling.Step`: x_t = alpha * x0 + sigma * eps.
    `x0_uncond` and `x0_cond` are the x0 of the two predictions that guidance combines, without and with
    the prompt. Both are None when the image was made without guidance.
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

    @classmethod
    def of(cls, step: Step, i: int = 0) -> TraceStep:
        """Copy image `i` of a batched Step."""
        x0_uncond = x0_cond = None
        if len(step.outputs) == 2:
            x0_uncond, x0_cond = (_half(step.x0_and_eps(output)[0][i]) for output in step.outputs)
        return cls(
            index=step.index,
            timestep=step.timestep,
            alpha=step.alpha,
            sigma=step.sigma,
            x_t=_half(step.x_t[i]),
            x0=_half(step.x0[i]),
            eps=_half(step.eps[i]),
            x_next=_half(step.x_next[i]),
            x0_uncond=x0_uncond,
            x0_cond=x0_cond,
        )

    @property
    def snr(self) -> float:
        """Signal-to-noise ratio, (alpha / sigma)²."""
        return (self.alpha / self.sigma) ** 2 if self.sigma else float("inf")

    @property
    def alpha_bar(self) -> float:
        """The signal's share of the variance, alpha² / (alpha² + sigma²)."""
        return self.alpha**2 / (self.alpha**2 + self.sigma**2)

    @cached_property
    def x_t_unit(self) -> torch.Tensor:
        """`x_t` scaled to unit variance, float32: samplers work in different scales, the VAE expects this one."""
        return self.x_t.float() / (self.alpha**2 + self.sigma**2) ** 0.5

    @property
    def guidance(self) -> torch.Tensor | None:
        """What the prompt changes in x0, before the guidance scale multiplies it."""
        if self.x0_uncond is None or self.x0_cond is None:
            return None
        return self.x0_cond.float() - self.x0_uncond.float()

    def numbers(self) -> dict[str, float | int]:
        """The step as plain values. Sizes are root mean squares over all latents."""
        values: dict[str, float | int] = {
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
            values["rms_guidance"] = rms(self.guidance)
        return values


@dataclass(frozen=True, eq=False)
class Trace:
    """A finished image and every step that led to it."""

    model: Model
    result: GeneratedImage
    steps: tuple[TraceStep, ...]

    @property
    def prompt(self) -> str:
        return self.result.record.settings.prompt

    def decode(self, tensors: Sequence[torch.Tensor]) -> Iterator[Image.Image]:
        """Decode latents (C, h, w) to images, a few at a time."""
        for start in range(0, len(tensors), _DECODE_BATCH):
            batch = torch.stack([x.float() for x in tensors[start : start + _DECODE_BATCH]])
            yield from images.to_pil(latents.decode(self.model, batch))


class TraceRecorder:
    """Iterate over the Steps of one or several generations, one after another.

    `traces` holds one Trace for each image that is finished. Recording does not change the images.
    """

    def __init__(self, *generations: Generation):
        self.generations = generations
        self.traces: list[Trace] = []

    @property
    def total(self) -> int:
        """The number of Steps of all generations."""
        return sum(generation.total for generation in self.generations)

    def __iter__(self) -> Iterator[Step]:
        for generation in self.generations:
            yield from self._record(generation)

    def _record(self, generation: Generation) -> Iterator[Step]:
        before = len(self.traces)
        batch: list[list[TraceStep]] = []

        def collect_finished() -> None:
            new = generation.images[len(self.traces) - before :]
            for image, steps in zip(new, batch, strict=False):
                self.traces.append(Trace(generation.model, image, tuple(steps)))

        for step in generation:
            collect_finished()
            if step.index == generation.first_step or len(batch) != len(
                step.x_next
            ):  # a batch starts, or restarts with fewer images
                batch = [[] for _ in step.x_next]
            for i, steps in enumerate(batch):
                steps.append(TraceStep.of(step, i))
            yield step
        if generation.flagged:
            raise ImagesFlagged(len(generation.flagged), len(generation.finished))
        collect_finished()


def record_trace(prompt: str, **options: Unpack[StreamOptions]) -> Trace:
    """Generate one image and record every step: `record_trace("A beautiful galaxy", seed=7).steps`.

    Takes the options of `generate` and raises the same errors.
    """
    options["images"] = 1
    recorder = TraceRecorder(stream(prompt, **options))
    for _ in recorder:
        pass
    return recorder.traces[0]


def rms(x: torch.Tensor) -> float:
    """Root mean square of a tensor."""
    return float(x.float().square().mean().sqrt())


def _half(x: torch.Tensor) -> torch.Tensor:
    return x.detach().to(torch.float16).cpu()
