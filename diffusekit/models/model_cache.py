"""The models in memory: which of them stay, and which make room for the next."""

from __future__ import annotations

import gc
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from ..device import free_memory
from .model import Model, TextModel

M = TypeVar("M", bound=TextModel)
State = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True, eq=False)
class _Entry:
    """A model in memory, and the state of its files when they were read."""

    model: Any
    size: int
    files: tuple[Path, ...]
    state: State | None


class ModelCache:
    """The models in memory, in the order of their use. Callers hold a lock.

    At most `count` stay. When a new one needs memory that is not free, those that were not used for the longest time
    are dropped first. A model whose files have changed is not found again.
    """

    def __init__(self, count: int):
        self._count = count
        self._entries: dict[Hashable, _Entry] = {}

    def find(self, request: Hashable, is_suitable: Callable[[Any], bool] = lambda _: True) -> Any:
        """Return the model of an equal request, None if there is none or it is not suitable."""
        entry = self._entries.pop(request, None)
        if entry is None or entry.state is None or _state(entry.files) != entry.state or not is_suitable(entry.model):
            return None
        self._entries[request] = entry
        return entry.model

    def keep(self, request: Hashable, model: M, files: Iterable[Path]) -> M:
        """Keep a model that was built of `files`."""
        paths = tuple(files)
        self._entries.pop(request, None)
        self._entries[request] = _Entry(model, size_of(model), paths, _state(paths))
        while len(self._entries) > self._count:
            self._drop(self._oldest())
        return model

    def make_room(self, device: torch.device, needed: int, budget: int | None = None) -> None:
        """Drop models on a device until `needed` bytes are free there, or within a `budget` for all of them."""
        while (request := self._oldest(device)) is not None:
            used = sum(entry.size for entry in self._entries.values() if _is_on(entry.model, device))
            if free_memory(device) >= needed and (budget is None or used + needed <= budget):
                return
            self._drop(request)

    def sizes(self) -> list[tuple[str, int]]:
        """Name and bytes of weights of every model in memory, the last used at the end."""
        return [(entry.model.name, entry.size) for entry in self._entries.values()]

    def _oldest(self, device: torch.device | None = None) -> Hashable | None:
        there = (key for key, entry in self._entries.items() if device is None or _is_on(entry.model, device))
        return next(there, None)

    def _drop(self, request: Hashable) -> None:
        entry = self._entries.pop(request)
        kind = entry.model.placement.device.type
        del entry
        gc.collect()  # networks with hooks refer to themselves
        if kind != "cpu":
            getattr(torch, kind).empty_cache()


def size_of(model: TextModel) -> int:
    """Return the bytes of all weights of a model. Weights that two networks share count once."""
    networks = [*model.text_encoders, *((model.unet, model.vae) if isinstance(model, Model) else ())]
    tensors = {id(t): t for network in networks for t in (*network.parameters(), *network.buffers())}
    return sum(tensor.nbytes for tensor in tensors.values())


def _is_on(model: TextModel, device: torch.device) -> bool:
    return model.placement.device == device


def _state(files: tuple[Path, ...]) -> State | None:
    """Return sizes and times of files; None if one of them cannot be read."""
    try:
        return tuple((str(f), stat.st_size, stat.st_mtime_ns) for f, stat in ((f, f.stat()) for f in files))
    except OSError:
        return None
