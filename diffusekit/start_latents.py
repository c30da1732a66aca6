"""The latents that a run starts from: noise alone, or an image with the noise of a later step, and its mask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from . import images, latents
from .canvas import ImageCanvas
from .errors import UsageError
from .models import Model
from .sampling import MaskedLatents


@dataclass(frozen=True, eq=False)
class Start:
    """Where a batch enters the loop: `latents` (B, C, h, w), scaled for the scheduler, before `first_step`.

    `masked` is what a mask keeps, and `channels` are the further inputs of an inpainting U-Net.
    """

    latents: torch.Tensor
    first_step: int = 0
    masked: MaskedLatents | None = None
    channels: torch.Tensor | None = None


class LatentSource:
    """What all batches of one run start from. The image is encoded once."""

    def __init__(
        self, model: Model, size: tuple[int, int, int], canvas: ImageCanvas | None = None, *, content: str = ""
    ):
        """`size` are C, h and w of the latents. `content` is what a mask paints over: see `mask_content`.

        Raises `UsageError` for a mask that is too thin to paint any latent.
        """
        self._model, self._size, self._canvas, self._content = model, size, canvas, content
        self._encoded: dict[str, torch.Tensor] = {}
        if not self._mask().any():
            raise UsageError(
                f"the mask paints less than a latent, which is {model.vae_scale_factor} pixels wide",
                "paint more, or set `mask_padding` to draw the area larger",
            )

    def start(self, scheduler: Any, noise: torch.Tensor, first_step: int = 0, *, is_full: bool = False) -> Start:
        """Return the start of a batch from its noise (B, C, h, w).

        From an image, the steps before `first_step` are left out (SDEdit, Meng et al., 2022). With a mask and
        `is_full`, what is painted starts from noise alone, as in diffusers at a strength of 1.
        """
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(first_step)
        begun, masked = noise * scheduler.init_noise_sigma, None
        if self._canvas is not None and not (is_full and self._canvas.mask):
            timesteps = scheduler.timesteps[first_step : first_step + 1].expand(len(noise))
            begun = scheduler.add_noise(self._content_latents(noise).expand_as(noise), noise, timesteps)
        if self._canvas is not None and self._canvas.mask and self._model.task == "text":
            masked = MaskedLatents(self._mask().to(noise), self._encode("original").to(noise), noise)
        channels = self._channels().to(noise.device) if self._model.task == "inpainting" else None
        return Start(begun, first_step, masked, channels)

    def _content_latents(self, noise: torch.Tensor) -> torch.Tensor:
        """Return the latents that get noise: those of the image, or something else where it is painted."""
        assert self._canvas is not None
        if self._content == "fill" and self._canvas.mask:
            return self._encode("fill").to(noise)
        original = self._encode("original").to(noise)
        if self._content in ("noise", "nothing") and self._canvas.mask:
            mask = self._mask().to(noise)
            return (1 - mask) * original + mask * (noise if self._content == "noise" else 0)
        return original

    def _mask(self) -> torch.Tensor:
        """Return which latents are painted, as diffusers decides it: by one pixel of each."""
        painted = torch.ones(1, 1, 1, 1) if self._canvas is None else self._canvas.painted()
        return torch.nn.functional.interpolate(painted, size=self._size[1:])

    def _channels(self) -> torch.Tensor:
        """Return the mask and the latents of the image without what is painted: (1, 1 + C, h, w)."""
        return torch.cat([self._mask(), self._encode("kept").cpu()], 1)

    def _encode(self, name: str) -> torch.Tensor:
        """Return the latents of the image: "original", with the painted area "fill"ed, or only what is "kept"."""
        if name not in self._encoded:
            self._encoded[name] = latents.encode(self._model, self._pixels(name))
        return self._encoded[name]

    def _pixels(self, name: str) -> torch.Tensor:
        if self._canvas is None:  # everything is painted
            factor = self._model.vae_scale_factor
            return torch.zeros(1, 3, *(side * factor for side in self._size[1:]))
        if name == "fill":
            return _tensor(self._canvas.filled())
        pixels = _tensor(self._canvas.pixels())
        return pixels * (1 - self._canvas.painted()) if name == "kept" else pixels


def _tensor(image: Image.Image) -> torch.Tensor:
    return images.to_tensor(image)[None]
