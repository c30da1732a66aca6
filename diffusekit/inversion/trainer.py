"""Textual inversion: learn the vectors of a new token from a few images, with the model frozen.

An Image is Worth One Word (Gal et al., 2022). `Inversion` yields its progress after every step, like the denoising
loop: the caller decides about progress bars, checkpoints on demand, and stopping.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Unpack

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from .. import embeddings, models
from ..device import choose as choose_device
from ..embeddings import LearnedToken, Vocabulary
from ..errors import Diverged, UsageError
from ..options import InvertOptions
from ..settings import InvertSettings, validate
from ..version import __version__
from ..workspace import Workspace
from . import checkpoint, dataset, placeholder
from .batches import Batches, usable_captions
from .captions import mark_token
from .checkpoint import Checkpoint, TrainingState
from .encoded_dataset import encode
from .evaluation import Evaluation, Evaluator
from .optimizer import EmbeddingOptimizer
from .report import write_report
from .run_folder import INIT_STEP, RunFolder

log = logging.getLogger(__name__)

LOG_EVERY = 10  # steps
LONG = 99  # percentile of the token table's norms above which a vector may override the rest of a prompt


@dataclass(frozen=True, eq=False)
class TrainingProgress:
    """A run after `step` steps. `evaluation` is there when validation images were made at this step.

    `smoothed` is a moving average of the loss. `norm` is the mean norm of the vectors, `moved` their mean distance
    from the start in norms of the start, `nearest` the words nearest to the first vector.
    """

    step: int
    loss: float
    smoothed: float
    norm: float
    moved: float
    nearest: tuple[str, ...]
    evaluation: Evaluation | None = None
    best: bool = False


class Inversion:
    """One run. Iterate for its `TrainingProgress`; afterwards `result` is the learned token, already saved.

    To stop early, stop iterating, call `save_checkpoint`, and `close`. A run with `resume` then continues bit-exactly.
    """

    def __init__(
        self,
        settings: InvertSettings,
        output: Path | None = None,
        *,
        resume: bool = False,
        overwrite: bool = False,
        strict: bool = False,
    ):
        """Check and prepare everything, then open the run's folder. With `overwrite`, clear it.

        Raises `DataSetError` for unusable images, `UsageError`, `ModelError`, and `FileRefused` when no checkpoint
        can be read.
        """
        images = Path(settings.pictures)
        self.name = embeddings.safe_name(settings.name or images.resolve().name)
        self.folder = RunFolder(output or Workspace().embeddings, self.name)
        self.folder.check(images, resume=resume, overwrite=overwrite)
        self.dataset = dataset.collect(images, strict=strict)
        if fault := embeddings.token_error(settings.token):
            raise UsageError(f"the token {settings.token!r} {fault}", "for example S* or <my-cat>")
        self._accelerator = Accelerator(
            cpu=settings.device == "cpu", log_with=list(settings.trackers) or None, project_dir=str(self.folder.path)
        )
        self.is_main, self.process_count = self._accelerator.is_main_process, self._accelerator.num_processes
        self.settings, self.model = _complete(settings, self._accelerator)
        self.result: LearnedToken | None = None
        self._nearest: tuple[str, ...] = ()
        self._has_warned = False
        try:
            self._prepare()
            self._accelerator.wait_for_everyone()
            if self.is_main:
                self.folder.open(images, resume=resume, overwrite=overwrite)
            self._accelerator.wait_for_everyone()
            self._start(checkpoint.latest(self.folder.checkpoints) if resume else None)
        except BaseException:
            self.close()
            raise

    # --- preparing ---------------------------------------------------------------------------

    def _prepare(self) -> None:
        """Make the initial vectors, the batches, the optimizer and the evaluator."""
        model, settings = self.model, self.settings
        self.vocabulary = vocabulary = Vocabulary(model)
        if settings.token.lower() in vocabulary.words:
            raise UsageError(
                f"the token {settings.token!r} is a word of the model, which prompts could no longer use",
                "use another `token`, for example S* or <my-cat>",
            )
        init = settings.init or placeholder.guess_init(self.name, vocabulary)
        self.settings = settings = settings.model_copy(update={"init": init})
        vectors = placeholder.create(
            model, vocabulary, init, count=settings.vectors, start=settings.start, norm_bound=settings.norm_bound
        )
        encoded = encode(
            model,
            self.dataset,
            side=model.native_size,
            crops=settings.crops,
            flip=settings.flip,
            alpha_mask=settings.alpha_mask,
            seed=settings.seed,
        )
        token = self._unnamed_token(vectors.vectors)
        self.dataset = dataset.note_enlarged(self.dataset, model.native_size)
        self.dataset, captions = usable_captions(model, self.dataset, settings, token)
        self.batches = Batches(model, encoded, captions, token, settings.seed)
        self.optimizer = EmbeddingOptimizer(model, vocabulary, vectors, self.batches, settings, self._accelerator)
        prompt = mark_token(settings.preview or "", settings.token)
        if "{}" not in prompt:
            raise UsageError(
                f"the validation prompt {settings.preview!r} does not contain {settings.token}",
                f'set `preview` to, for example, "a picture of {settings.token}"',
            )
        self.evaluator = Evaluator(model, settings, [photo.image for photo in self.dataset.photos], prompt)

    def _start(self, saved: Checkpoint | None) -> None:
        """Start from scratch, or where a checkpoint ends."""
        if saved is None:
            self._state = TrainingState(self.optimizer.placeholder.start.clone())
        else:
            checkpoint.check_same_run(saved.identity, self.identity())
            self.optimizer.restore(saved.optimizer, saved.training.step)
            self._state = saved.training
        if self.is_main:
            self.folder.rewind(self.step)
        if self.settings.trackers:
            self._accelerator.init_trackers("diffusekit", {"name": self.name})

    def identity(self) -> dict[str, Any]:
        """What must be the same for a checkpoint to be resumed. The number of steps may differ."""
        free = {"pictures", "name", "steps", "trackers", "device", "patience", "checkpoint_every"}
        return self.settings.model_dump(mode="json", exclude=free) | {
            "model_weights": models.fingerprint(self.model),
            "pictures": self.dataset.sha256,
            "device": self.model.placement.device.type,
            "processes": self.process_count,
        }

    # --- the loop ----------------------------------------------------------------------------

    def __iter__(self) -> Iterator[TrainingProgress]:
        settings, state = self.settings, self._state
        if state.selection.baseline is None:
            yield self._evaluate_init()
        while self.step < settings.steps and not self.has_converged:
            loss = self._take_step()
            every = settings.preview_every or settings.steps
            is_due = self.step == settings.steps or self.step % every == 0
            evaluation = self._evaluate() if is_due else None
            progress = self._progress(loss, evaluation)
            if is_due or self.step % LOG_EVERY == 0:
                self._log(progress)
            if is_due or self.step % settings.checkpoint_every == 0:
                self.save_checkpoint()
            yield progress
        self._finish()

    @property
    def step(self) -> int:
        """How many steps have been taken."""
        return self._state.step

    @property
    def learning_rate(self) -> float:
        """The learning rate in use: the setting, or the default for the model."""
        return self.optimizer.learning_rate

    @property
    def has_converged(self) -> bool:
        """Whether the last `patience` evaluations improved nothing."""
        return 0 < self.settings.patience <= self._state.selection.stale

    def _take_step(self) -> float:
        """Optimize the vectors by one step; return the loss."""
        state = self._state
        try:
            loss = self.optimizer.step(state.step)
        except Diverged as error:
            if self.is_main and self.folder.has_checkpoint:
                error.hint += "; the last good checkpoint is kept"
            raise
        state.step += 1
        state.smoothed_loss = loss if state.smoothed_loss is None else 0.98 * state.smoothed_loss + 0.02 * loss
        return loss

    def _progress(self, loss: float, evaluation: Evaluation | None) -> TrainingProgress:
        vectors, state = self.optimizer.placeholder, self._state
        if evaluation or self.step % LOG_EVERY == 0 or not self._nearest:  # compares with the whole token table
            words = self.vocabulary.nearest(vectors.vectors.detach().cpu(), 3)
            self._nearest = tuple(word for word, _ in words[0])
        return TrainingProgress(
            step=self.step,
            loss=loss,
            smoothed=state.smoothed_loss or loss,
            norm=vectors.mean_norm(),
            moved=vectors.distance(),
            nearest=self._nearest,
            evaluation=evaluation,
            best=evaluation is not None and 0 < self.step == state.selection.best_step,
        )

    # --- evaluation --------------------------------------------------------------------------

    def _evaluate_init(self) -> TrainingProgress:
        """Evaluate the init words, to compare with."""
        evaluation = self._on_main_process(lambda: self.evaluator.evaluate(str(self.settings.init)))
        self._state.selection.baseline = scores = evaluation.scores()
        if self.is_main:
            self.folder.save_images(INIT_STEP, evaluation.images)
            baseline = scores | {"pairwise": self.evaluator.photo_similarity}
            self.folder.append_log({"step": 0, "baseline": baseline})
        return self._progress(math.nan, evaluation)

    def _evaluate(self) -> Evaluation:
        """Evaluate the token, and remember its vectors if they are the best so far."""
        vectors, state = self.optimizer.placeholder.vectors, self._state
        token = self._unnamed_token(vectors)
        evaluation = self._on_main_process(lambda: self.evaluator.evaluate(token.token, [token]))
        if state.selection.update(self.step, evaluation.scores()):
            state.best_vectors = vectors.detach().clone()
        if self.is_main:
            self.folder.save_images(self.step, evaluation.images)
        return evaluation

    def _on_main_process(self, evaluate: Callable[[], Evaluation]) -> Evaluation:
        """Evaluate in the first process, and send the result to all."""
        results = [evaluate() if self.is_main else None]
        if self.process_count > 1:
            broadcast_object_list(results)
        assert results[0] is not None
        return results[0]

    # --- log and checkpoints -----------------------------------------------------------------

    def _log(self, progress: TrainingProgress) -> None:
        """Write a line to the log, and to the trackers."""
        entry: dict[str, Any] = {
            "step": progress.step,
            "loss": round(progress.loss, 6),
            "smoothed": round(progress.smoothed, 6),
            "learning_rate": self.learning_rate,
            "norm": round(progress.norm, 5),
            "moved": round(progress.moved, 5),
            "nearest": list(progress.nearest),
            "percentile": round(self._norm_percentile(), 1),
        }
        if progress.evaluation is not None:
            entry |= progress.evaluation.scores() | ({"best": True} if progress.best else {})
        if self.is_main:
            self.folder.append_log(entry)
        if self.settings.trackers:
            numbers = {key: value for key, value in entry.items() if isinstance(value, float)}
            self._accelerator.log(numbers, step=progress.step)

    def _norm_percentile(self) -> float:
        """The norm percentile of the longest vector. The first one above `LONG` is warned of."""
        percentile = max(self.vocabulary.norm_percentile(self.optimizer.placeholder.vectors.norm(dim=1)))
        if percentile > LONG and not self._has_warned and self.is_main:
            self._has_warned = True
            log.warning(
                "a vector is longer than %.0f %% of the model's words, and may override the rest of a prompt; "
                "with `norm_bound` 1 it stays as long as a typical word",
                LONG,
            )
        return percentile

    def save_checkpoint(self) -> Path | None:
        """Save the run as it is now; return the path, or None in all but the first process."""
        if not self.is_main:
            return None
        saved = Checkpoint(self.identity(), self._state, self.optimizer.state())
        return checkpoint.write(self.folder.checkpoints, saved)

    # --- the end -----------------------------------------------------------------------------

    def _finish(self) -> None:
        """Save the best vectors as the learned token, then the report."""
        token = replace(self._unnamed_token(self._state.best_vectors), name=self.name, metadata=self._metadata())
        if self.is_main:
            embeddings.save(token, self.folder.token, overwrite=True)
            token = embeddings.read(self.folder.token)
            self._write_report()  # last: a run that has its report is finished
        self._accelerator.wait_for_everyone()
        self.result = token

    def _metadata(self) -> dict[str, str]:
        """What the token's file says about its training."""
        settings, selection = self.settings, self._state.selection
        assert selection.baseline is not None
        values: dict[str, Any] = {
            "base_model": Path(settings.model).name,
            "base_hash": models.fingerprint(self.model),
            "init": settings.init,
            "start_vectors": embeddings.encode_vectors((self.optimizer.placeholder.start,)),
            "property": settings.property,
            "pictures": len(self.dataset.photos),
            "seed": settings.seed,
            "learning_rate": round(self.learning_rate, 6),
            "steps": selection.best_step,
            "scores": selection.best | {f"init_{key}": value for key, value in selection.baseline.items()},
            "version": f"diffusekit {__version__}",
            **self.vocabulary.word_metadata(self.name),
        }
        return {k: v if isinstance(v, str) else json.dumps(v, sort_keys=True) for k, v in values.items()}

    def _write_report(self) -> None:
        write_report(
            self.folder,
            token=self.settings.token,
            prompts=self.evaluator.prompts,
            settings=self.settings.model_dump(mode="json", exclude={"pictures"}),
            files=self.dataset.files,
            photos=[photo.image for photo in self.dataset.photos],
            scorer=self.evaluator.scorer and self.evaluator.scorer.name,
            stopped_early=self.has_converged,
        )

    def _unnamed_token(self, vectors: torch.Tensor) -> LearnedToken:
        """The token during training. It has no other name, so that captions keep all their words."""
        return LearnedToken(self.settings.token, self.settings.token, (vectors.detach().float().cpu().clone(),))

    def close(self) -> None:
        """Release the run's folder and the trackers."""
        if self.settings.trackers:
            self._accelerator.end_training()
        if self.is_main:
            self.folder.close()


def _complete(settings: InvertSettings, accelerator: Accelerator) -> tuple[InvertSettings, models.Model]:
    """Fill in device, precision and validation prompt, and load the model."""
    device = str(accelerator.device) if accelerator.num_processes > 1 else settings.device
    chosen, dtype = choose_device(device).device, settings.dtype
    if dtype == "auto":
        # bfloat16 has float32's range: gradients do not vanish in it as in float16
        has_bfloat16 = chosen.type == "xpu" or (chosen.type == "cuda" and torch.cuda.is_bf16_supported())
        dtype = "bfloat16" if has_bfloat16 else "float32"
    prompt = (settings.preview or "a picture of {}").replace("{}", settings.token)
    complete = settings.model_copy(update={"device": str(chosen), "dtype": dtype, "preview": prompt})
    return complete, models.load(complete.model, complete.device, complete.dtype)


def invert(
    pictures: str | Path,
    *,
    output: Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    strict: bool = False,
    **settings: Unpack[InvertOptions],
) -> LearnedToken:
    """Learn a token from a folder of images, as in `invert("my_cat", init="cat")`, and save it in `output`.

    Without `output`, that is `embeddings` in the current directory.
    `settings` are the other fields of `InvertSettings`. Raises what `Inversion` raises, and `Diverged`.
    """
    own = validate(InvertSettings, {**settings, "pictures": str(pictures)})
    run = Inversion(own, output, resume=resume, overwrite=overwrite, strict=strict)
    try:
        for _ in run:
            pass
    finally:
        run.close()
    assert run.result is not None
    return run.result
