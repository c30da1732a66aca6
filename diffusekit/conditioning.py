"""What steers a U-Net: the text states of prompts, and what else a family of models asks for.

`text.encode` makes it, and only `unet_kwargs` opens it: the loop and the training loss pass it through.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch


@dataclass(frozen=True, eq=False)
class Conditioning:
    """B prompts as a U-Net takes them.

    `states` (B, T, D) are the hidden states of one text encoder, or of two side by side. `pooled` (B, P) is the
    pooled state of the last encoder. `size_ids` (B, 6), always float32, are original size, crop and target size
    (SDXL, Podell et al., 2023), see `with_size`. `mask` (B, T) is 1 where the U-Net may attend. `guidance` (B, E) is
    the guidance scale as an input of a guidance-distilled U-Net, see `embed_guidance`.
    """

    states: torch.Tensor
    pooled: torch.Tensor | None = None
    size_ids: torch.Tensor | None = None
    mask: torch.Tensor | None = None
    guidance: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.states)

    @property
    def dtype(self) -> torch.dtype:
        return self.states.dtype

    def __getitem__(self, rows: Sequence[int] | slice | torch.Tensor) -> Conditioning:
        """Select rows of the batch; rows may repeat."""
        return Conditioning(*(None if t is None else t[rows] for t in self._tensors()))  # type: ignore[arg-type]

    def to(self, *device_or_dtype: torch.device | torch.dtype) -> Conditioning:
        """Move all tensors to a device, or cast them to a precision. Sizes stay float32: half precision rounds them."""
        moved = self._tensors()
        for target in device_or_dtype:
            moved = [None if t is None else t.to(target) for t in moved]
        cond = Conditioning(*moved)  # type: ignore[arg-type]
        return cond if self.size_ids is None else replace(cond, size_ids=self.size_ids.to(cond.states.device))

    def with_size(
        self, width: int, height: int, *, original: tuple[int, int] | None = None, crop: tuple[int, int] = (0, 0)
    ) -> Conditioning:
        """Add the size of the image in pixels, as a U-Net of SDXL takes it.

        `original` is the width and height of the picture before it was scaled and cropped, that of the image if None.
        `crop` is the left and the upper edge of the image in the scaled picture.
        """
        before = original or (width, height)
        numbers = [*before[::-1], *crop[::-1], height, width]
        sizes = torch.tensor([numbers], dtype=torch.float32, device=self.states.device)
        return replace(self, size_ids=sizes.expand(len(self), -1))

    def concatenate(self, other: Conditioning) -> Conditioning:
        """Append the rows of `other`, as classifier-free guidance needs them in one batch."""
        pairs = list(zip(self._tensors(), other._tensors(), strict=True))
        assert all((a is None) == (b is None) for a, b in pairs), "both need the same parts"
        return Conditioning(*(None if a is None or b is None else torch.cat([a, b]) for a, b in pairs))  # type: ignore[arg-type]

    def with_zeros(self, rows: Sequence[int]) -> Conditioning:
        """Replace the states and pooled states of some rows by zeros, as SDXL takes an empty negative prompt."""
        keep = torch.ones(len(self), device=self.states.device)
        keep[list(rows)] = 0
        pooled = None if self.pooled is None else self.pooled * keep[:, None].to(self.pooled)
        return replace(self, states=self.states * keep[:, None, None].to(self.states), pooled=pooled)

    def schedule(self) -> ConditioningSchedule:
        """Make a schedule of one prompt per image that never changes."""
        return ConditioningSchedule(((1.0, self),), torch.ones(1, len(self)))

    def unet_kwargs(self) -> dict[str, Any]:
        """Return the keyword arguments of diffusers' U-Net after sample and timestep."""
        kwargs: dict[str, Any] = {"encoder_hidden_states": self.states}
        if self.size_ids is not None:
            kwargs["added_cond_kwargs"] = {"text_embeds": self.pooled, "time_ids": self.size_ids}
        if self.mask is not None:
            kwargs["encoder_attention_mask"] = self.mask
        if self.guidance is not None:
            kwargs["timestep_cond"] = self.guidance
        return kwargs

    def _tensors(self) -> list[torch.Tensor | None]:
        return [getattr(self, each.name) for each in fields(self)]


@dataclass(frozen=True, eq=False)
class ConditioningSchedule:
    """B images, each steered by P prompts at once, over the steps of a run.

    `stages` are pairs of a share of the run, over 0 up to 1, and what steers until then: a `Conditioning` of P B
    rows, the first prompt of all images before the second. `weights` (P, B) say how much each prompt guides.
    """

    stages: tuple[tuple[float, Conditioning], ...]
    weights: torch.Tensor

    def schedule(self) -> ConditioningSchedule:
        """Return the schedule itself, as `Conditioning.schedule` does for a conditioning."""
        return self

    def at(self, share: float) -> Conditioning:
        """Return what steers the step that begins after `share` of the run, at least 0 and below 1."""
        return next(cond for until, cond in self.stages if share < until)

    def with_size(self, width: int, height: int) -> ConditioningSchedule:
        """Add the size of the image in pixels, see `Conditioning.with_size`."""
        stages = tuple((until, cond.with_size(width, height)) for until, cond in self.stages)
        return ConditioningSchedule(stages, self.weights)

    def with_guidance(self, scale: float, width: int) -> ConditioningSchedule:
        """Add a guidance scale as an input of a guidance-distilled U-Net, embedded in `width` numbers."""
        embedded = embed_guidance(scale, width)
        stages = [(until, replace(c, guidance=embedded.to(c.states).expand(len(c), -1))) for until, c in self.stages]
        return ConditioningSchedule(tuple(stages), self.weights)


def embed_guidance(scale: float, width: int) -> torch.Tensor:
    """Embed a guidance scale (width,) as guidance-distilled U-Nets take it: sines and cosines of scale - 1.

    Luo et al., 2023 (latent consistency models).
    """
    half = width // 2
    frequencies = torch.exp(torch.arange(half) * (-math.log(10_000.0) / (half - 1)))
    angles = 1000.0 * (scale - 1) * frequencies
    return torch.nn.functional.pad(torch.cat([angles.sin(), angles.cos()]), (0, width % 2))
