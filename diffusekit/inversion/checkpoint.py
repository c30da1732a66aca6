"""Checkpoints of a run: everything it needs to continue bit-exactly, in one small file without pickles."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from .. import atomic
from ..errors import FileRefused, UsageError
from ..settings import InvertSettings
from .selection import Selection

log = logging.getLogger(__name__)

KEEP = 3  # checkpoints of a run
_TENSORS = ("rows", "start", "first_moment", "second_moment", "best")  # names in the file


@dataclass(frozen=True, eq=False)
class OptimizerState:
    """The vectors, where they started, and AdamW's moments, all (k, D) float32.

    `chunks` is the number of pieces that a batch is computed in.
    """

    vectors: torch.Tensor
    start: torch.Tensor
    first_moment: torch.Tensor
    second_moment: torch.Tensor
    chunks: int = 1


@dataclass(eq=False)
class TrainingState:
    """A run after `step` steps: the vectors (k, D) of its best evaluation, and how they were chosen.

    `pending_loss` is the loss of the last step when its validation has not taken place, or does not count for a
    longer run. `image_counts` are the validation images of the token alone and of edit prompts.
    """

    best_vectors: torch.Tensor
    step: int = 0
    smoothed_loss: float | None = None
    selection: Selection = field(default_factory=Selection)
    pending_loss: float | None = None
    image_counts: tuple[int, ...] | None = None


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A run as it is saved. `identity` is what must be the same for the run to continue."""

    identity: dict[str, Any]
    training: TrainingState
    optimizer: OptimizerState


def write(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint and remove all but the newest few."""
    training, optimizer = checkpoint.training, checkpoint.optimizer
    values = (
        optimizer.vectors,
        optimizer.start,
        optimizer.first_moment,
        optimizer.second_moment,
        training.best_vectors,
    )
    tensors = {name: t.detach().cpu().clone().contiguous() for name, t in zip(_TENSORS, values, strict=True)}
    state = {"smoothed": training.smoothed_loss, **asdict(training.selection), "pieces": optimizer.chunks}
    newer = {"pending_loss": training.pending_loss, "image_counts": training.image_counts}
    state |= {name: value for name, value in newer.items() if value is not None}
    metadata = {"step": training.step, "identity": checkpoint.identity, "told": state}
    metadata["sum"] = _checksum(tensors, metadata)
    data = save(tensors, {"diffusekit": json.dumps(metadata)})
    path = atomic.write_atomic(folder / f"{training.step:06}.safetensors", data, read)
    atomic.crash_point("before tidying")
    for old in _files(folder)[:-KEEP]:
        old.unlink(missing_ok=True)
    return path


def read(path: Path) -> Checkpoint:
    """Read a checkpoint; raises `FileRefused` when it is damaged."""
    try:
        with safe_open(path, "pt") as file:
            metadata = json.loads((file.metadata() or {})["diffusekit"])
            tensors = {name: file.get_tensor(name) for name in _TENSORS}
        if metadata.pop("sum") != _checksum(tensors, metadata):
            raise ValueError("its checksum differs")
        state = metadata["told"]
        selection = Selection(**{f.name: state[f.name] for f in fields(Selection) if f.name in state})
        *vectors, best = tensors.values()
        return Checkpoint(
            identity=metadata["identity"],
            training=TrainingState(
                best_vectors=best,
                step=metadata["step"],
                smoothed_loss=state.get("smoothed"),
                selection=selection,
                pending_loss=state.get("pending_loss"),
                image_counts=tuple(state["image_counts"]) if "image_counts" in state else None,
            ),
            optimizer=OptimizerState(*vectors, chunks=state.get("pieces", 1)),
        )
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise FileRefused(f"the checkpoint {path} is damaged: {error}", "it is not used") from None


def latest(folder: Path) -> Checkpoint | None:
    """Read the newest intact checkpoint. Damaged ones are renamed to `.damaged`.

    Raises `FileRefused` when there are checkpoints and none can be read.
    """
    files = _files(folder)
    for path in reversed(files):
        try:
            return read(path)
        except FileRefused as error:
            with contextlib.suppress(FileNotFoundError):  # another process has renamed it
                path.replace(path.with_suffix(".damaged"))
            log.warning("%s; using the one before", error.message)
    if files:
        raise FileRefused(f"no checkpoint in {folder} can be read", "set `overwrite` to start again")
    return None


def keep_interval(settings: InvertSettings, saved: Checkpoint | None) -> InvertSettings:
    """Keep the validation interval of a run to be resumed, unless the settings give one.

    Runs of 0.5.0 and earlier always have one.
    """
    every = saved.identity.get("preview_every") if saved else None
    return settings if settings.preview_every is not None else settings.model_copy(update={"preview_every": every})


def check_same_run(old: dict[str, Any], new: dict[str, Any]) -> None:
    """Raise `UsageError` naming the first difference between two runs' identities."""
    for key in sorted((old.keys() | new.keys()) - {"model"}):  # `model_weights` says whether it is the same one
        was, now = old.get(key), new.get(key)
        if was != now:
            raise UsageError(
                f"the interrupted run was another one: {key.replace('_', ' ')} was {was!r} and is {now!r}",
                "resume with the earlier value, or set `overwrite` to start again",
            )


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("[0-9]*.safetensors"))


def _checksum(tensors: dict[str, torch.Tensor], metadata: dict[str, Any]) -> str:
    """SHA-256 of everything in a checkpoint, so that a flipped bit is noticed."""
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name in _TENSORS:
        digest.update(tensors[name].numpy().tobytes())
    return digest.hexdigest()
