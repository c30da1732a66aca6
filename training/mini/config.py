"""Sizes and times: what is trained, how big, on which part of the world, and for how long.

Minutes are shared out over the stages, so that any machine ends with a learning rate of zero.
"""

import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from .world.scenes import FIRST, MANY, WHOLE, Part


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what comes out, but for the seed and the minutes."""

    part: Part
    pictures: int  # rendered, encoded once and kept
    vae_channels: tuple[int, ...]
    unet_channels: tuple[int, ...]
    unet_heads: tuple[int, ...]
    unet_attention: tuple[bool, ...]  # at which resolution pictures look at words
    text_layers: int
    batch: int
    learning_rate: float = 1e-3
    side: int = 128
    latent_channels: int = 6
    text_width: int = 256
    vae_pictures: int = 12_000
    vae_batch: int = 8
    vae_crop: int = 64
    caption_dropout: float = 0.1
    focus: float = 4.0  # how much more an error counts where something stands
    text_until: float = 0.3  # of the U-Net's time; then the text encoder stays as it is
    # shares of the minutes
    vae_share: float = 0.25
    reader_share: float = 0.06
    unet_share: float = 0.6
    decoder_share: float = 0.05
    clip_share: float = 0.04


# Two processor cores, an hour and a half: few subjects, crisp.
_CPU = Recipe(
    part=FIRST,
    pictures=48_000,
    vae_channels=(16, 32, 64, 128),
    unet_channels=(64, 128, 192),
    unet_heads=(2, 4, 6),
    unet_attention=(False, True, True),
    text_layers=3,
    batch=32,
)
RECIPES = {
    "cpu": _CPU,
    # Another sitting (`--from`), of scenes with several things.
    "many": replace(_CPU, part=MANY, batch=48),
    # One large GPU, half an hour: the whole world.
    "gpu": Recipe(
        part=WHOLE,
        pictures=300_000,
        vae_channels=(32, 64, 128, 128),
        unet_channels=(128, 192, 256),
        unet_heads=(4, 6, 8),
        unet_attention=(True, True, True),
        text_layers=3,
        batch=512,
        vae_pictures=40_000,
        vae_batch=128,
    ),
}


@dataclass
class Clock:
    """How far a stage is, from 0 to 1: by the minutes it may take, or by `steps` if given."""

    minutes: float
    steps: int | None = None
    spent: float = 0.0  # seconds of earlier sittings
    step: int = 0

    def __post_init__(self) -> None:
        self.started = time.monotonic()

    @property
    def seconds(self) -> float:
        return self.spent + time.monotonic() - self.started

    @property
    def progress(self) -> float:
        if self.steps is not None:
            return min(self.step / self.steps, 1.0)
        return min(self.seconds / (self.minutes * 60), 1.0)

    def state(self) -> dict[str, float]:
        return {"seconds": self.seconds, "step": self.step}

    def resume(self, state: dict[str, float]) -> None:
        self.spent, self.step = state["seconds"], int(state["step"])
        self.started = time.monotonic()


@dataclass(frozen=True)
class Bench:
    """The machine's side of training: device, precision, and the folder where stages keep their state."""

    device: torch.device
    work: Path
    seed: int = 0

    @property
    def bf16(self) -> bool:
        """Whether bfloat16 is quick here: on CUDA, and on processors that have it in hardware."""
        return self.device.type == "cuda" or torch.ops.mkldnn._is_mkldnn_bf16_supported()

    def autocast(self) -> AbstractContextManager:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    def save(self, name: str, state: dict) -> None:
        """Keep a stage's state: written beside, then renamed."""
        self.work.mkdir(parents=True, exist_ok=True)
        beside = self.work / f"{name}.pt.new"
        torch.save(state, beside)
        beside.replace(self.work / f"{name}.pt")

    def load(self, name: str) -> dict | None:
        path = self.work / f"{name}.pt"
        return torch.load(path, weights_only=True, map_location=self.device) if path.exists() else None

    def say(self, message: str) -> None:
        line = f"{time.strftime('%H:%M:%S')}  {message}"
        print(line, flush=True)
        self.work.mkdir(parents=True, exist_ok=True)
        with (self.work / "log.txt").open("a") as log:
            log.write(line + "\n")


def warm_then_decay(progress: float, step: int, *, warmup: int = 150, flat: float = 0.3) -> float:
    """Learning-rate factor: up over `warmup` steps, flat, then a straight line down to zero."""
    return min((step + 1) / warmup, 1.0) * min((1 - progress) / (1 - flat), 1.0)
