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

KEEP = 3
_TENSORS = {  # field of a checkpoint: name in the file
    "vectors": "rows",
    "start": "start",
    "first_moment": "first_moment",
    "second_moment": "second_moment",
    "best": "best",
}


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A run after `step` steps. The tensors are (k, D) float32; `best` are the vectors of the best
    preview so far. `told` is what else must survive: scores, smoothed loss, pieces of a batch."""

    step: int
    vectors: torch.Tensor
    start: torch.Tensor
    first_moment: torch.Tensor
    second_moment: torch.Tensor
    best: torch.Tensor
    identity: dict[str, Any]
    told: dict[str, Any] = field(default_factory=dict)


def write(folder: Path, state: Checkpoint) -> Path:
    """Write a checkpoint and remove all but the last few."""
    tensors = {key: getattr(state, name).detach().cpu().clone().contiguous() for name, key in _TENSORS.items()}
    facts = {"step": state.step, "identity": state.identity, "told": state.told}
    facts["sum"] = _checksum(tensors, facts)
    data = save(tensors, {"diffusekit": json.dumps(facts)})
    path = atomic.write_atomic(folder / f"{state.step:06}.safetensors", data, read)
    atomic.crash_point("before tidying")
    for old in _files(folder)[:-KEEP]:
        old.unlink(missing_ok=True)
    return path


def read(path: Path) -> Checkpoint:
    """Read a checkpoint; raises `FileRefused` when it is damaged."""
    try:
        with safe_open(path, "pt") as file:
            facts = json.loads((file.metadata() or {})["diffusekit"])
            tensors = {key: file.get_tensor(key) for key in _TENSORS.values()}
        if facts.pop("sum") != _checksum(tensors, facts):
            raise ValueError("its checksum differs")
        fields = {name: tensors[key] for name, key in _TENSORS.items()}
        return Checkpoint(facts["step"], identity=facts["identity"], told=facts["told"], **fields)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise FileRefused(f"the checkpoint {path} is damaged: {error}", "it is not used") from None


def latest(folder: Path) -> Checkpoint | None:
    """The newest checkpoint that can be read; damaged ones are set aside as `.damaged`.

    Raises `FileRefused` when there are checkpoints and none can be read.
    """
    found = _files(folder)
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


def check_same_run(old: dict[str, Any], new: dict[str, Any]) -> None:
    """Raise `UsageError` naming the first thing that differs between two runs' identities."""
    for key in sorted(old.keys() | new.keys()):
        was, now = old.get(key), new.get(key)
        if was != now:
            raise UsageError(
                f"this is not the run that was interrupted: {key.replace('_', ' ')} was {was!r} and is {now!r}",
                "resume with what it was, or start again with --overwrite",
            )


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("[0-9]*.safetensors"))


def _checksum(tensors: dict[str, torch.Tensor], facts: dict[str, Any]) -> str:
    """SHA-256 of everything in a checkpoint: a flipped bit is found, not trained on."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for key in _TENSORS.values():
        digest.update(tensors[key].numpy().tobytes())
    return digest.hexdigest()
