"""How long a stage trains, on which device and in which precision, and where it keeps its state."""

import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass
class TimeBudget:
    """The progress of a stage, from 0 to 1: by its minutes, or by `steps` if given."""

    minutes: float
    steps: int | None = None
    spent: float = 0.0  # seconds before an interruption
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
class Runtime:
    """Device, precision, random seed, and the folder where stages keep their state and their log."""

    device: torch.device
    work: Path
    seed: int = 0

    @property
    def use_bf16(self) -> bool:
        """Whether bfloat16 is fast here: on CUDA, and on processors that have it in hardware."""
        return self.device.type == "cuda" or torch.ops.mkldnn._is_mkldnn_bf16_supported()

    def autocast(self) -> AbstractContextManager:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.use_bf16)

    def save(self, name: str, state: dict) -> None:
        """Save the state of a stage. An interruption leaves the file of before."""
        self.work.mkdir(parents=True, exist_ok=True)
        temporary = self.work / f"{name}.pt.new"
        torch.save(state, temporary)
        temporary.replace(self.work / f"{name}.pt")

    def load(self, name: str) -> dict | None:
        path = self.work / f"{name}.pt"
        return torch.load(path, weights_only=True, map_location=self.device) if path.exists() else None

    def log(self, message: str) -> None:
        """Print a line with the time and append it to `log.txt`."""
        line = f"{time.strftime('%H:%M:%S')}  {message}"
        print(line, flush=True)
        self.work.mkdir(parents=True, exist_ok=True)
        with (self.work / "log.txt").open("a") as log:
            log.write(line + "\n")
