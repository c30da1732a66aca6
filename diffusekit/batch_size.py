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


def fit_batch(model: Model, size: tuple[int, int, int], batch: int) -> int:
    """Return the largest batch up to `batch` that the model's memory plan has room for, for latents of `size`.

    Raises `OutOfMemory` when one image does not fit into a `memory` that the user set.
    """
    return model.plan.fitting_batch(*_pixels(model, size), batch) if model.plan else batch


def find_problem(model: Model, size: tuple[int, int, int], batch: int, asked: int | None) -> str:
    """Say what the memory plan changes about images of this size: smaller batches, tiles. "" if nothing."""
    if model.plan is None:
        return ""
    problems = []
    if asked is not None and batch < asked and model.plan.fitting_batch(*_pixels(model, size), asked) < asked:
        problems.append(f"batches of {batch}, not {asked}")
    if tile := model.plan.choose_decode(*_pixels(model, size), 1)[1]:
        problems.append(f"decoding in tiles of {tile} pixels, whose seams may be visible")
    return f"to save memory: {'; '.join(problems)}" if problems else ""


def _pixels(model: Model, size: tuple[int, int, int]) -> tuple[int, int]:
    """Width and height in pixels of an image with latents of `size`."""
    return size[2] * model.vae_scale_factor, size[1] * model.vae_scale_factor
