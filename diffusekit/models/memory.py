"""The memory plan of a model: in which form it fits. It is made of headers and configurations, before any weights.

Weights are counted exactly. What the networks need beside them is estimated, from peaks that were measured with
networks of true size (docs/measurements.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any, Literal

import torch

from ..device import Attention, Placement
from ..display import format_size
from ..errors import OutOfMemory
from ..model_files import read_header
from ..model_files.folder import native_size, vae_scale_factor

Offload = Literal["none", "model", "sequential"]
TILES = (512, 256)  # pixels of a side
_ROWS = 2  # of a U-Net's batch for one image: without the prompt and with it
_UNET, _DECODER, _FIXED = 35, 3, 100_000_000
_FREE_PART = 0.9  # of what is free when the plan is made
_DTYPES = {torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "bfloat16"}
_PREFIXES = {
    "model.diffusion_model.": "unet",
    "first_stage_model.": "vae",
    "cond_stage_model.": "text_encoder",
    "conditioner.embedders.0.": "text_encoder",
    "conditioner.embedders.1.": "text_encoder_2",
}


@dataclass(frozen=True)
class Footprint:
    """What a model needs: numbers of weights by network, of the largest tensor, and facts for its working memory."""

    weights: Mapping[str, int]
    largest: int
    unet: Mapping[str, Any]
    vae: Mapping[str, Any]
    attention: Attention

    def network(self, name: str, dtype: torch.dtype) -> int:
        """Bytes of the weights of a network."""
        upcast = name == "vae" and self.vae.get("force_upcast")
        return self.weights.get(name, 0) * (4 if upcast else dtype.itemsize)

    def denoise(self, width: int, height: int, images: int, dtype: torch.dtype) -> int:
        """Bytes that the U-Net needs beside its weights."""
        scale, rows = vae_scale_factor(self.vae), _ROWS * images
        h, w = height // scale, width // scale
        needed = _UNET * self.unet["block_out_channels"][0] * h * w * rows * dtype.itemsize
        if self.attention == "math":
            level, heads = _finest_attention(self.unet)
            needed += 2 * rows * heads * (h * w >> 2 * level) ** 2 * dtype.itemsize
        return needed + _FIXED

    def decode(self, width: int, height: int, images: int, dtype: torch.dtype) -> int:
        """Bytes that the VAE needs beside its weights."""
        channels, scale = self.vae["block_out_channels"], vae_scale_factor(self.vae)
        size = 4 if self.vae.get("force_upcast") else dtype.itemsize
        needed = _DECODER * channels[min(1, len(channels) - 1)] * width * height * images * size
        if self.attention == "math":
            needed = max(needed, 2 * images * (width * height // scale**2) ** 2 * size)
        return needed + _FIXED


@dataclass(frozen=True)
class MemoryPlan:
    """In which form a model is loaded and used.

    `limit` is in bytes. `offload` is "model" when one network at a time is on the device, and "sequential" when one
    layer at a time is. `tile` is the side in pixels of the tiles in which images of native size are decoded, 0 for
    whole images.
    """

    name: str
    placement: Placement
    footprint: Footprint
    limit: int
    is_forced: bool
    offload: Offload = "none"
    tile: int = 0
    is_other_dtype: bool = False

    @property
    def placement_to_build(self) -> Placement:
        """Where networks are built: on the CPU if they are offloaded."""
        is_offloaded = self.offload != "none"
        return replace(self.placement, device=torch.device("cpu")) if is_offloaded else self.placement

    @property
    def needed(self) -> int:
        """Bytes at the peak of one image of native size."""
        side = native_size(self.footprint.unet, self.footprint.vae)
        text = max(size for name, size in self._sizes().items() if name not in ("unet", "vae"))
        return max(
            self._resident("text") if self.offload == "none" else text,
            self._denoise(side, side, 1),
            self._decode(side, side, 1, self.tile),
        )

    @property
    def resident(self) -> int:
        """Bytes of weights that stay on the device."""
        return sum(self._sizes().values()) if self.offload == "none" else 0

    def fitting_batch(self, width: int, height: int, batch: int) -> int:
        """Return the largest batch up to `batch` whose U-Net fits, at least 1.

        Raises `OutOfMemory` when one image does not fit into a forced limit.
        """
        while batch > 1 and self._denoise(width, height, batch) > self.limit:
            batch -= 1
        smallest = max(self._denoise(width, height, 1), self._decode(width, height, 1, TILES[-1]))
        if self.is_forced and smallest > self.limit:
            raise OutOfMemory(
                f"an image of {width}x{height} needs about {format_size(smallest)} with {self.name}, and `memory` "
                f"allows {format_size(self.limit)}",
                "use a smaller `width` and `height`, or allow more `memory`",
            )
        return batch

    def choose_decode(self, width: int, height: int, images: int) -> tuple[bool, int]:
        """Return whether images are decoded one by one, and the side of tiles in pixels, 0 for whole images."""
        if self._decode(width, height, images, 0) <= self.limit:
            return False, 0
        for tile in (0, *TILES):
            if self._decode(width, height, 1, tile) <= self.limit:
                return images > 1, tile
        return images > 1, TILES[-1]

    def __str__(self) -> str:
        """The plan in one line."""
        parts = {
            "none": "all networks stay there",
            "model": "one network at a time is there (model offload)",
            "sequential": "one layer at a time is there (sequential offload)",
        }
        dtype = f"{_DTYPES[self.placement.dtype]}{', because float32 does not fit' if self.is_other_dtype else ''}"
        decoded = f"images are decoded {f'in tiles of {self.tile} pixels' if self.tile else 'whole'}"
        return (
            f"memory plan of {self.name}: {format_size(self.needed)} of {format_size(self.limit)} on "
            f"{self.placement.device} in {dtype}; {parts[self.offload]}, {decoded}"
        )

    @property
    def is_usual(self) -> bool:
        """Whether everything is as it is without a limit."""
        return self.offload == "none" and not self.tile and not self.is_other_dtype

    def _sizes(self) -> dict[str, int]:
        return {name: self.footprint.network(name, self.placement.dtype) for name in self.footprint.weights}

    def _resident(self, network: str) -> int:
        """Bytes of weights on the device while a network works."""
        if self.offload == "none":
            return sum(self._sizes().values())
        if self.offload == "model":
            return self._sizes().get(network, 0)
        return 2 * self.footprint.largest * (4 if self.footprint.vae.get("force_upcast") else self.dtype.itemsize)

    @property
    def dtype(self) -> torch.dtype:
        return self.placement.dtype

    def _denoise(self, width: int, height: int, images: int) -> int:
        return self._resident("unet") + self.footprint.denoise(width, height, images, self.dtype)

    def _decode(self, width: int, height: int, images: int, tile: int) -> int:
        width, height = (min(side, tile) if tile else side for side in (width, height))
        return self._resident("vae") + self.footprint.decode(width, height, images, self.dtype)


def measure(files: Any, attention: Attention, *, half: bool) -> Footprint:
    """Count the weights of a model in the headers of its files. Raises `ModelError` for a damaged header."""
    tensors = list(_tensors(files, half=half))
    weights: dict[str, int] = dict.fromkeys(files.family.networks, 0)
    for network, size in tensors:
        weights[network] = weights.get(network, 0) + size
    unet, vae = (dict(files.configs[part]) for part in ("unet", "vae"))
    return Footprint(weights, max((size for _, size in tensors), default=0), unet, vae, attention)


def needed_as_usual(footprint: Footprint, placement: Placement) -> int:
    """Bytes at the peak of one image when every network stays on the device."""
    return int(MemoryPlan("", placement, footprint, 0, is_forced=False).needed / _FREE_PART)


def make_plan(name: str, footprint: Footprint, placement: Placement, free: int, forced: int | None) -> MemoryPlan:
    """Choose the form that costs least time and still fits into a `forced` limit, or into what is `free`.

    In this order: as usual; on a GPU one network at a time, then one layer at a time; images decoded in tiles; on a
    CPU bfloat16, unless the user chose the precision. Raises `OutOfMemory` when none fits, before anything is read.
    """
    limit = forced if forced is not None else int(free * _FREE_PART)
    usual = MemoryPlan(name, placement, footprint, limit, is_forced=forced is not None)
    plans = list(_forms(usual))
    if plan := next((plan for plan in plans if plan.needed <= limit), None):
        return plan
    smallest = min(plans, key=lambda plan: plan.needed)
    if forced is None and smallest.resident <= limit:
        return smallest  # working memory is an estimate: try
    allowed = f"`memory` allows {format_size(limit)}" if forced is not None else f"{format_size(free)} are free"
    raise OutOfMemory(
        f"the model {name} needs at least {format_size(smallest.needed)} on {placement.device}, and {allowed}",
        "allow more `memory`, or use a smaller model" if forced is not None else "use a smaller model",
    )


def _forms(usual: MemoryPlan) -> Iterator[MemoryPlan]:
    yield usual
    if usual.placement.device.type in ("cuda", "xpu"):
        yield replace(usual, offload="model")
        yield from (replace(usual, offload="model", tile=tile) for tile in TILES)
        yield from (replace(usual, offload="sequential", tile=tile) for tile in (0, *TILES))
        return
    yield from (replace(usual, tile=tile) for tile in TILES)
    if usual.placement.has_free_dtype and usual.placement.device.type == "cpu":
        smaller = replace(usual, placement=replace(usual.placement, dtype=torch.bfloat16), is_other_dtype=True)
        yield from (replace(smaller, tile=tile) for tile in (0, *TILES))


def _tensors(files: Any, *, half: bool) -> Iterator[tuple[str, int]]:
    """Network and number of weights of every tensor. Those of a file that belong to no network are left out."""
    path: Path = files.path
    if path.is_dir():
        for part in files.family.networks:
            for name in files.weights(part, half=half).names:
                yield from ((part, prod(shape)) for _, shape in read_header(path / part / name).tensors.values())
        return
    for name, (_, shape) in read_header(path).tensors.items():
        part = next((part for prefix, part in _PREFIXES.items() if name.startswith(prefix)), None)
        if part is not None:
            yield part, prod(shape)


def _finest_attention(unet: Mapping[str, Any]) -> tuple[int, int]:
    """Return the finest level of a U-Net that has attention, and its number of heads."""
    blocks = unet.get("down_block_types") or ["CrossAttnDownBlock2D"]
    level = next((i for i, block in enumerate(blocks) if "Attn" in str(block)), 0)
    heads = unet.get("num_attention_heads") or unet.get("attention_head_dim") or 8  # diffusers calls heads a width
    return level, heads if isinstance(heads, int) else heads[min(level, len(heads) - 1)]
