"""Textual inversion: learn the vectors of a new token from a few images, with the model frozen.

An Image is Worth One Word (Gal et al., 2022). `Inversion` yields its progress after every step, like the denoising
loop: the caller decides about progress bars, checkpoints on demand, and stopping.
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from .. import embeddings, models
from ..embeddings import LearnedToken
from ..errors import Diverged, UsageError
from ..options import InvertOptions
from ..settings import InvertSettings, validate
from ..workspace import Workspace
from . import base_model, checkpoint, dataset, placeholder, token_metadata
from .batches import Batches, usable_captions
from .captions import mark_token
from .checkpoint import Checkpoint, TrainingState
from .determinism import Determinism
from .encoded_dataset import encode
from .evaluation import Evaluation, EvaluationStopped, Evaluator
from .optimizer import EmbeddingOptimizer
from .progress import LOG_EVERY, Measures, TrainingProgress
from .report import describe_exactness, write_report
from .run_folder import INIT_STEP, RunFolder
from .validation_plan import choose as choose_plan

log = logging.getLogger(__name__)


class Inversion:
    """One run. Iterate for its `TrainingProgress`; afterwards `result` is the learned token, already saved.

    To stop early, stop iterating or call `stop`, then call `save_checkpoint` and `close`. A run with `resume` then
    continues bit-exactly. A finished run with `resume` and more `steps` is trained further.
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

        Raises `DataSetError`, `UsageError`, `ModelError`, and `FileRefused` when no checkpoint can be read.
        """
        images = Path(settings.pictures)
        self.name = embeddings.safe_name(settings.name or images.resolve().name)
        self.folder = RunFolder(output or Workspace().embeddings, self.name)
        self.folder.check(images, resume=resume, overwrite=overwrite)
        self.dataset = dataset.collect(images, strict=strict)
        if fault := embeddings.token_error(settings.token):
            raise UsageError(f"the token {settings.token!r} {fault}", "for example S* or <my-cat>")
        self._determinism = Determinism(enabled=settings.deterministic)
        self._accelerator = Accelerator(
            cpu=settings.device == "cpu", log_with=list(settings.trackers) or None, project_dir=str(self.folder.path)
        )
        self.is_main, self.process_count = self._accelerator.is_main_process, self._accelerator.num_processes
        self.settings, self.model = base_model.load(settings, self._accelerator)
        self.result: LearnedToken | None = None
        self._is_stopped = False
        self._state_to_save: TrainingState | None = None  # when the current one does not count for a longer run
        collected = self.dataset
        try:
            saved = checkpoint.latest(self.folder.checkpoints) if resume else None
            self._determinism.run(lambda: self._prepare(collected, saved))
            self._accelerator.wait_for_everyone()
            if self.is_main:
                self.folder.open(images, resume=resume, overwrite=overwrite)
            self._accelerator.wait_for_everyone()
            self._start(saved, resume=resume)
        except BaseException:
            self.close()
            raise

    # --- preparing ---------------------------------------------------------------------------

    def _prepare(self, data: dataset.DataSet, saved: Checkpoint | None) -> None:
        """Make the initial vectors, the batches, the optimizer and the evaluator."""
        model, settings = self.model, checkpoint.keep_interval(self.settings, saved)
        self.vocabularies = vocabularies = embeddings.make_vocabularies(model)
        if any(settings.token.lower() in each.words for each in vocabularies):
            raise UsageError(
                f"the token {settings.token!r} is a word of the model, which prompts could no longer use",
                "use another `token`, for example S* or <my-cat>",
            )
        init = settings.init or placeholder.guess_init(self.name, vocabularies[0])
        folders = [self.folder.token.parent, Workspace().embeddings]
        vectors, self._init_token = placeholder.create_initial(model, vocabularies, settings, init, folders)
        # a path would say where this machine keeps the token
        init = f"<{self._init_token.name}>" if self._init_token else init
        self.settings = settings = settings.model_copy(update={"init": init})
        encoded = encode(
            model,
            data,
            side=model.native_size,
            crops=settings.crops,
            flip=settings.flip,
            alpha_mask=settings.alpha_mask,
            seed=settings.seed,
        )
        token = self._unnamed_token([each.vectors for each in vectors])
        self.dataset, captions = usable_captions(model, dataset.note_enlarged(data, model.native_size), settings, token)
        self.batches = Batches(model, encoded, captions, token, settings.seed)
        self.optimizer = EmbeddingOptimizer(model, vectors, self.batches, settings, self._accelerator)
        self.measures = Measures(vocabularies, vectors, warns=self.is_main)
        prompt = mark_token(settings.preview or "", settings.token)
        if "{}" not in prompt:
            raise UsageError(
                f"the validation prompt {settings.preview!r} does not contain {settings.token}",
                f'set `preview` to, for example, "a picture of {settings.token}"',
            )
        self.plan = choose_plan(settings)
        photos = [photo.image for photo in self.dataset.photos]
        self.evaluator = Evaluator(model, settings, photos, prompt, self.plan)

    def _start(self, saved: Checkpoint | None, *, resume: bool) -> None:
        """Start from scratch, or where a checkpoint ends."""
        if saved is None:
            self._state = TrainingState(tuple(start.clone() for start in self._start_vectors))
            if resume and self.is_main:
                log.warning("nothing to resume: there is no run in %s; a new one starts", self.folder.path)
        else:
            checkpoint.check_same_run(saved.identity, self.identity())
            self.optimizer.restore(saved.optimizer, saved.training.step)
            self._state = saved.training
            self._go_on()
        counts = (self.plan.token_images, self.plan.edit_images)
        if self._state.image_counts not in (None, counts):
            self._state.selection.baseline = None  # drawn again: scores of as many images as those to come
        self._state.image_counts = counts
        if self.is_main:
            self.folder.rewind(self.step - (self._state.pending_loss is not None))
        if self.settings.trackers:
            self._accelerator.init_trackers("diffusekit", {"name": self.name})

    def _go_on(self) -> None:
        """Check that a finished run is asked for more steps, and let a run that stopped early go on."""
        if not self.folder.is_finished:
            return
        if self.settings.steps <= self.step:
            raise UsageError(
                f"{self.folder.token} is finished: it was trained for {self.step:,} steps",
                f"set `steps` to more than {self.step:,} to train it further, or `overwrite` to start again",
            )
        if self.has_converged:
            self._state.selection.stale = 0
            self.save_checkpoint()
            log.warning(
                "the run had stopped early at step %d; it goes on with its `patience` counted anew, so the token can "
                "differ from that of a run which had these `steps` from the start",
                self.step,
            )

    def identity(self) -> dict[str, Any]:
        """What must be the same for a checkpoint to be resumed. The number of steps may differ.

        `deterministic` may differ too, like the number of threads: both change no more than how numbers are rounded.
        """
        free = {"pictures", "name", "steps", "trackers", "device", "patience", "checkpoint_every", "deterministic"}
        init = {} if self._init_token is None else {"init_sha256": self._init_token.sha256}
        return (
            self.settings.model_dump(mode="json", exclude=free)
            | init
            | {
                "model": self.model.name,
                "model_weights": models.fingerprint(self.model),
                "vae": self.model.vae_sha256 or None,
                "pictures": self.dataset.sha256,
                "device": self.model.placement.device.type,
                "processes": self.process_count,
            }
        )

    # --- the loop ----------------------------------------------------------------------------

    def __iter__(self) -> Iterator[TrainingProgress]:
        settings, state = self.settings, self._state
        if state.selection.baseline is None:
            if self.plan.has_baseline:
                yield self._evaluate_init()
            else:
                state.selection.baseline = {}
        if state.pending_loss is not None and not self._is_stopped:
            yield self._complete_step(state.pending_loss)
        while self.step < settings.steps and not self.has_converged and not self._is_stopped:
            yield self._complete_step(self._take_step())
        if not self._is_stopped:
            self._finish()

    def stop(self) -> None:
        """End the iteration after this step of training or sampling. A signal handler may call this."""
        self._is_stopped = True

    @property
    def step(self) -> int:
        """How many steps have been taken."""
        return self._state.step

    @property
    def learning_rates(self) -> tuple[float, ...]:
        """The learning rate in use for each text encoder: the setting, or the default for its token table."""
        return self.optimizer.learning_rates

    @property
    def _start_vectors(self) -> list[torch.Tensor]:
        return [each.start for each in self.optimizer.placeholders]

    @property
    def has_converged(self) -> bool:
        """Whether the last `patience` evaluations improved nothing."""
        return 0 < self.settings.patience <= self._state.selection.stale

    def _take_step(self) -> float:
        """Optimize the vectors by one step; return the loss."""
        state = self._state
        try:
            loss = self._determinism.run(lambda: self.optimizer.step(state.step))
        except Diverged as error:
            if self.is_main and self.folder.has_checkpoint:
                error.hint += "; the last good checkpoint is kept"
            raise
        state.step += 1
        state.smoothed_loss = loss if state.smoothed_loss is None else 0.98 * state.smoothed_loss + 0.02 * loss
        return loss

    def _complete_step(self, loss: float) -> TrainingProgress:
        """Validate, log and save what is due after a step."""
        state, steps = self._state, self.settings.steps
        is_due, evaluation = self.plan.is_due(self.step, steps), None
        state.pending_loss = loss if is_due else None
        if is_due and not self.plan.is_scheduled(self.step):
            self._state_to_save = copy.deepcopy(state)  # a run with more steps has no validation here
        if is_due:
            try:
                evaluation = self._evaluate()
            except EvaluationStopped:
                return self.measures.progress(state, loss, None)
            state.pending_loss = None
        progress = self.measures.progress(state, loss, evaluation)
        if is_due or self.step % LOG_EVERY == 0:
            self._log(progress)
        if is_due or self.step % self.settings.checkpoint_every == 0:
            self.save_checkpoint()
        return progress

    # --- evaluation --------------------------------------------------------------------------

    def _evaluate_init(self) -> TrainingProgress:
        """Evaluate the init words or token, to compare with."""
        word, tokens = str(self.settings.init), []
        if self._init_token is not None:
            tokens = [self._unnamed_token(self._start_vectors)]
            word = tokens[0].token
        try:
            evaluation = self._evaluate_on_main(word, tokens)
        except EvaluationStopped:
            return self.measures.progress(self._state, math.nan, None)
        self._state.selection.baseline = scores = evaluation.scores()
        if self.is_main:
            self.folder.save_images(INIT_STEP, evaluation.images)
            baseline = scores | {"pairwise": self.evaluator.photo_similarity}
            self.folder.append_log({"step": 0, "baseline": baseline})
        return self.measures.progress(self._state, math.nan, evaluation)

    def _evaluate(self) -> Evaluation:
        """Evaluate the token, and remember its vectors if they are the best so far."""
        vectors, state = [each.vectors for each in self.optimizer.placeholders], self._state
        token = self._unnamed_token(vectors)
        evaluation = self._evaluate_on_main(token.token, [token])
        if state.selection.update(self.step, evaluation.scores()):
            state.best_vectors = tuple(each.detach().clone() for each in vectors)
        if self.is_main:
            self.folder.save_images(self.step, evaluation.images)
        return evaluation

    def _evaluate_on_main(self, word: str, tokens: list[LearnedToken]) -> Evaluation:
        """Evaluate in the first process, and send the result to all. Raises `EvaluationStopped` in all."""

        def evaluate() -> Evaluation | None:
            try:
                return self.evaluator.evaluate(word, tokens, is_stopped=lambda: self._is_stopped)
            except EvaluationStopped:
                return None

        results = [self._determinism.run(evaluate) if self.is_main else None]
        if self.process_count > 1:
            broadcast_object_list(results)
        if results[0] is None:
            self._is_stopped = True
            raise EvaluationStopped
        return results[0]

    # --- log and checkpoints -----------------------------------------------------------------

    def _log(self, progress: TrainingProgress) -> None:
        """Write a line to the log, and to the trackers."""
        entry = self.measures.log_entry(progress, self.learning_rates)
        if self.is_main:
            self.folder.append_log(entry)
        if self.settings.trackers:
            numbers = {key: value for key, value in entry.items() if isinstance(value, float)}
            self._accelerator.log(numbers, step=progress.step)

    def save_checkpoint(self) -> Path | None:
        """Save the run as it is now; return the path, or None in all but the first process."""
        if not self.is_main:
            return None
        saved = Checkpoint(self.identity(), self._state_to_save or self._state, self.optimizer.state())
        return checkpoint.write(self.folder.checkpoints, saved)

    # --- the end -----------------------------------------------------------------------------

    def _finish(self) -> None:
        """Save the best vectors as the learned token, then the report."""
        metadata = token_metadata.describe(
            self.settings,
            self.model,
            self._state.selection,
            start=self._start_vectors,
            learning_rates=self.learning_rates,
            pictures=len(self.dataset.photos),
        ) | self.vocabularies[0].word_metadata(self.name)
        token = replace(self._unnamed_token(self._state.best_vectors), name=self.name, metadata=metadata)
        if self.is_main:
            embeddings.save(token, self.folder.token, overwrite=True)
            token = embeddings.read(self.folder.token)
            self._write_report()  # last: a run that has its report is finished
        self._accelerator.wait_for_everyone()
        self.result = token

    def _write_report(self) -> None:
        write_report(
            self.folder,
            token=self.settings.token,
            prompts=self.evaluator.prompts,
            settings=self.settings.model_dump(mode="json", exclude={"pictures"})
            | {"model": self.model.name, "vae": self.model.vae_name or None}
            | {"clip": models.record_name(self.settings.clip)},
            files=self.dataset.files,
            photos=[photo.image for photo in self.dataset.photos],
            scorer=None if self.evaluator.scorer is None else self.evaluator.scorer.name,
            stopped_early=self.has_converged,
            exactness=describe_exactness(
                self.settings, is_exact=self._determinism.is_exact, processes=self.process_count
            ),
        )

    def _unnamed_token(self, vectors: Sequence[torch.Tensor]) -> LearnedToken:
        """The token during training. It has no other name, so that captions keep all their words."""
        own = tuple(each.detach().float().cpu().clone() for each in vectors)
        return LearnedToken(self.settings.token, self.settings.token, own)

    def close(self) -> None:
        """Release the run's folder and the trackers."""
        if self.settings.trackers:
            self._accelerator.end_training()
        if self.is_main:
            self.folder.close()


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
