"""How many images go through a network at once when the user does not say."""

from __future__ import annotations

from .models import Model

_ON_GPU = 4
_SMALL, _ON_CPU = 2e10, 8


def choose_batch(model: Model, size: tuple[int, int, int]) -> int:
    """Return the default batch for latents of `size` (C, h, w).

    Every call of a network has a fixed cost. On a CPU that cost counts for small networks and images, so those go in
    batches. Larger ones keep all cores busy with one image, and more at once would only need more memory.
    """
    if model.placement.device.type != "cpu":
        return _ON_GPU
    parameters = sum(p.numel() for p in model.unet.parameters())
    return _ON_CPU if parameters * size[1] * size[2] < _SMALL else 1
