"""Checkpoints of a run: everything it needs to go on bit by bit, in one small file without pickles.

Knows no networks: vectors, the optimizer's moments, and what identifies the run.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from .. import atomic
from ..errors import FileRefused, UsageError

log = logging.getLogger(__name__)

KEPT = 3
_TENSORS = ("rows", "start", "first_moment", "second_moment", "best")


@dataclass(frozen=True, eq=False)
class State:
    """A run after `step` steps. The tensors are (k, D) float32; `best` are the vectors of the best
    preview so far. `told` is what else must survive: scores, smoothed loss, pieces of a batch."""

    step: int
    rows: torch.Tensor
    start: torch.Tensor
    first_moment: torch.Tensor
    second_moment: torch.Tensor
    best: torch.Tensor
    identity: dict[str, Any]
    told: dict[str, Any] = field(default_factory=dict)


def write(folder: Path, state: State) -> Path:
    """Write a checkpoint and remove all but the last few."""
    tensors = {name: getattr(state, name).detach().cpu().clone().contiguous() for name in _TENSORS}
    facts = {"step": state.step, "identity": state.identity, "told": state.told}
    facts["sum"] = _sum(tensors, facts)
    data = save(tensors, {"diffusekit": json.dumps(facts)})
    path = atomic.write_atomic(folder / f"{state.step:06}.safetensors", data, read)
    atomic.crash_point("before tidying")
    for old in _found(folder)[:-KEPT]:
        old.unlink(missing_ok=True)
    return path


def read(path: Path) -> State:
    """Read a checkpoint; raises `FileRefused` when it is damaged."""
    try:
        with safe_open(path, "pt") as file:
            facts = json.loads((file.metadata() or {})["diffusekit"])
            tensors = {name: file.get_tensor(name) for name in _TENSORS}
        if facts.pop("sum") != _sum(tensors, facts):
            raise ValueError("its checksum differs")
        return State(facts["step"], identity=facts["identity"], told=facts["told"], **tensors)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise FileRefused(f"the checkpoint {path} is damaged: {error}", "it is not used") from None


def latest(folder: Path) -> State | None:
    """The newest checkpoint that can be read; damaged ones are set aside as `.damaged`.

    Raises `FileRefused` when there are checkpoints and none can be read.
    """
    found = _found(folder)
    for path in reversed(found):
        try:
            return read(path)
        except FileRefused as error:
            with contextlib.suppress(FileNotFoundError):  # another process has done it
                path.replace(path.with_suffix(".damaged"))
            log.warning("%s; going back to the one before", error.message)
    if found:
        raise FileRefused(f"no checkpoint in {folder} can be read", "start from the beginning with --overwrite")
    return None


def same(old: dict[str, Any], new: dict[str, Any]) -> None:
    """Raise `UsageError` naming the first thing that differs between two runs' identities."""
    for key in sorted(old.keys() | new.keys()):
        was, now = old.get(key), new.get(key)
        if was != now:
            raise UsageError(
                f"this is not the run that was interrupted: {key.replace('_', ' ')} was {was!r} and is {now!r}",
                "resume with what it was, or start again with --overwrite",
            )


def _found(folder: Path) -> list[Path]:
    return sorted(folder.glob("[0-9]*.safetensors"))


def _sum(tensors: dict[str, torch.Tensor], facts: dict[str, Any]) -> str:
    """SHA-256 of everything in a checkpoint: a flipped bit is found, not trained on."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name in _TENSORS:
        digest.update(tensors[name].numpy().tobytes())
    return digest.hexdigest()
