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
from ..embeddings import key_suffix
from ..errors import FileRefused, UsageError
from ..settings import InvertSettings
from .selection import Selection

log = logging.getLogger(__name__)

KEEP = 3  # checkpoints of a run
_TENSORS = ("rows", "start", "first_moment", "second_moment", "best")  # names in the file, for each text encoder


@dataclass(frozen=True, eq=False)
class VectorState:
    """The vectors for one text encoder, where they started, and AdamW's moments, all (k, D) float32."""

    vectors: torch.Tensor
    start: torch.Tensor
    first_moment: torch.Tensor
    second_moment: torch.Tensor


@dataclass(frozen=True, eq=False)
class OptimizerState:
    """The state of the vectors for each text encoder. `chunks` is the number of pieces of a batch."""

    encoders: tuple[VectorState, ...]
    chunks: int = 1


@dataclass(eq=False)
class TrainingState:
    """A run after `step` steps: the vectors (k, D) of its best evaluation for each encoder, and how they were chosen.

    `pending_loss` is the loss of the last step when its validation has not taken place, or does not count for a
    longer run. `image_counts` are the validation images of the token alone and of edit prompts.
    """

    best_vectors: tuple[torch.Tensor, ...]
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
    rows = [
        value
        for each, best in zip(optimizer.encoders, training.best_vectors, strict=True)
        for value in (each.vectors, each.start, each.first_moment, each.second_moment, best)
    ]
    names = _tensor_names(len(optimizer.encoders))
    tensors = {name: t.detach().cpu().clone().contiguous() for name, t in zip(names, rows, strict=True)}
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
            encoders = sum(name.startswith("rows") for name in file.keys())  # noqa: SIM118
            tensors = {name: file.get_tensor(name) for name in _tensor_names(max(encoders, 1))}
        if metadata.pop("sum") != _checksum(tensors, metadata):
            raise ValueError("its checksum differs")
        state = metadata["told"]
        selection = Selection(**{f.name: state[f.name] for f in fields(Selection) if f.name in state})
        values = list(tensors.values())
        groups = [values[i : i + len(_TENSORS)] for i in range(0, len(values), len(_TENSORS))]
        return Checkpoint(
            identity=metadata["identity"],
            training=TrainingState(
                best_vectors=tuple(group[-1] for group in groups),
                step=metadata["step"],
                smoothed_loss=state.get("smoothed"),
                selection=selection,
                pending_loss=state.get("pending_loss"),
                image_counts=tuple(state["image_counts"]) if "image_counts" in state else None,
            ),
            optimizer=OptimizerState(tuple(VectorState(*group[:-1]) for group in groups), state.get("pieces", 1)),
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
    """Raise `UsageError` naming the first difference between two runs' identities.

    A setting that the version of the earlier run did not have was at its default.
    """
    defaults = {name: field.default for name, field in InvertSettings.model_fields.items()}
    for key in sorted((old.keys() | new.keys()) - {"model"}):  # `model_weights` says whether it is the same one
        was, now = (each.get(key, defaults.get(key)) for each in (old, new))
        if was != now:
            raise UsageError(
                f"the interrupted run was another one: {key.replace('_', ' ')} was {was!r} and is {now!r}",
                "resume with the earlier value, or set `overwrite` to start again",
            )


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("[0-9]*.safetensors"))


def _tensor_names(encoders: int) -> list[str]:
    """Names of the tensors in the file. Those for the first text encoder are the same as when there is only one."""
    return [f"{name}{key_suffix(encoder)}" for encoder in range(encoders) for name in _TENSORS]


def _checksum(tensors: dict[str, torch.Tensor], metadata: dict[str, Any]) -> str:
    """SHA-256 of everything in a checkpoint, so that a flipped bit is noticed. The order of tensors matters."""
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for tensor in tensors.values():
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
