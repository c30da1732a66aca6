"""Textual inversion: learn the vectors of a new token from a few pictures, everything else frozen.

An Image is Worth One Word (Gal et al., 2022). `Inversion` yields after every step, like the denoising loop:
progress, previews and stopping are matters of whoever iterates.
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
from . import checkpoint, dataset, placeholder, report_inputs
from .batches import Batches, usable_captions
from .captions import mark_token
from .evaluation import MIN_GAIN, Evaluation, Evaluator, is_better
from .run_folder import RunFolder
from .train_step import EmbeddingOptimizer

log = logging.getLogger(__name__)

LOG_EVERY = 10
LONG = 99  # percentile of the table's norms above which a vector may drown the rest of a prompt


@dataclass(frozen=True, eq=False)
class TrainingProgress:
    """A run after `step` steps: what a progress display shows. `preview` is there when one was made."""

    step: int
    loss: float
    smoothed: float
    norm: float
    moved: float
    nearest: tuple[str, ...]
    preview: Evaluation | None = None
    best: bool = False


class Inversion:
    """One run: iterate for Moments; then `result` is the learned token, already saved.

    Stop iterating and call `pause` to save a checkpoint that `resume` goes on from, bit by bit.
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
        """Check and prepare everything, then make the run's folder; with `overwrite`, clear it.

        Raises `DataSetError` for unusable pictures, `UsageError`, `ModelError`, and `FileRefused` when no
        checkpoint can be read.
        """
        folder = Path(settings.pictures)
        output = output or Workspace().embeddings
        self.name = embeddings.safe_name(settings.name or folder.resolve().name)
        run = RunFolder(output, self.name)
        run.check(folder, resume=resume, overwrite=overwrite)
        self.dataset = dataset.collect(folder, strict=strict)
        if fault := embeddings.token_error(settings.token):
            raise UsageError(f"the token {settings.token!r} {fault}", "for example S* or <my-cat>")
        self._accelerator = Accelerator(
            cpu=settings.device == "cpu",
            log_with=list(settings.trackers) or None,
            project_dir=str(output / self.name),
        )
        self.is_main = self._accelerator.is_main_process
        self.settings, self.model = _completed(settings, self._accelerator)
        self.result: LearnedToken | None = None
        self._nearest: tuple[str, ...] = ()
        self._warned = False
        self._run = run if self.is_main else None
        try:
            self._prepare()
            self._accelerator.wait_for_everyone()
            if self._run is not None:
                self._run.begin(folder, resume=resume, overwrite=overwrite)
            self._accelerator.wait_for_everyone()
            self._start(checkpoint.latest(run.checkpoints) if resume else None)
        except BaseException:
            self.close()
            raise

    # --- preparing ---------------------------------------------------------------------------

    def _prepare(self) -> None:
        """Start vectors, encoded pictures, captions as ids, the examiner."""
        model, self._vocabulary = self.model, Vocabulary(self.model)
        if self.settings.token.lower() in self._vocabulary.words:
            raise UsageError(
                f"the token {self.settings.token!r} is a word that the model knows already",
                "prompts could no longer say that word; take for example S* or <my-cat>",
            )
        init = self.settings.init or placeholder.guess_init(self.name, self._vocabulary)
        self.settings = settings = self.settings.model_copy(update={"init": init})
        holder = placeholder.create(
            model,
            self._vocabulary,
            init,
            count=settings.vectors,
            start=settings.start,
            norm_bound=settings.norm_bound,
        )
        encoded = dataset.encode(
            model,
            self.dataset,
            side=model.native_size,
            crops=settings.crops,
            flip=settings.flip,
            alpha_mask=settings.alpha_mask,
            seed=settings.seed,
        )
        token = self._draft(holder.vectors)
        self.dataset = dataset.note_enlarged(self.dataset, model.native_size)
        self.dataset, captions = usable_captions(model, self.dataset, settings, token)
        samples = Batches(model, encoded, captions, token, settings.seed)
        self._learner = EmbeddingOptimizer(model, self._vocabulary, holder, samples, settings, self._accelerator)
        prompt = mark_token(settings.preview or "", settings.token)
        if "{}" not in prompt:
            raise UsageError(
                f"the preview prompt {settings.preview!r} does not name {settings.token}",
                f'for example --preview "a picture of {settings.token}"',
            )
        photos = [photo.image for photo in self.dataset.photos]
        self.evaluator = Evaluator(model, settings, photos, prompt)

    def _start(self, state: checkpoint.Checkpoint | None) -> None:
        """From the beginning, or where a checkpoint left off."""
        learner, self.step = self._learner, 0
        self._best = learner.placeholder.start.clone()
        self._told: dict[str, Any] = {
            "smoothed": None,
            "baseline": None,
            "best": {},
            "best_step": 0,
            "peak": 0.0,
            "stale": 0,
            "pieces": 1,
        }
        if state is not None:
            checkpoint.check_same_run(state.identity, self._identity())
            learner.restore(state.step, state.vectors, state.start, state.first_moment, state.second_moment)
            self.step, self._told = state.step, self._told | state.told
            self._best, learner.chunks = state.best.to(learner.placeholder.vectors.device), state.told["pieces"]
        if self._run is not None:
            self._run.rewind(self.step)
        if self.settings.trackers:
            self._accelerator.init_trackers("diffusekit", {"name": self.name})

    def _identity(self) -> dict[str, Any]:
        """What must be the same for a checkpoint to be gone on from. More steps are allowed."""
        free = {"pictures", "name", "steps", "trackers", "device", "patience", "checkpoint_every"}
        return self.settings.model_dump(mode="json", exclude=free) | {
            "model_weights": models.fingerprint(self.model),
            "pictures": self.dataset.sha256,
            "device": self.model.placement.device.type,
            "processes": self._accelerator.num_processes,
        }

    # --- running -----------------------------------------------------------------------------

    def __iter__(self) -> Iterator[TrainingProgress]:
        if self._told["baseline"] is None:
            yield self._baseline()
        while self.step < self.settings.steps and not self.has_converged:
            yield self._advance()
        self._finish()

    @property
    def learning_rate(self) -> float:
        """The effective learning rate."""
        return self._learner.learning_rate

    @property
    def process_count(self) -> int:
        """How many processes learn together."""
        return self._accelerator.num_processes

    @property
    def has_converged(self) -> bool:
        """Whether the last previews scored no better than an earlier one."""
        return 0 < self.settings.patience <= self._told["stale"]

    def _advance(self) -> TrainingProgress:
        """One step, and what is due after it: a preview, a line in the log, a checkpoint."""
        settings, told = self.settings, self._told
        try:
            value = self._learner.step(self.step)
        except Diverged as diverged:
            if self._run is not None and self._run.resumable:
                diverged.hint += "; the last good checkpoint is kept"
            raise
        self.step += 1
        told["pieces"] = self._learner.chunks
        before = told["smoothed"]
        told["smoothed"] = value if before is None else 0.98 * before + 0.02 * value
        every = settings.preview_every
        due = self.step == settings.steps or bool(every and self.step % every == 0)
        moment = self._moment(value, self._look() if due else None)
        if due or self.step % LOG_EVERY == 0:
            self._log(moment)
        if due or self.step % settings.checkpoint_every == 0:
            self.save_checkpoint()
        return moment

    def _moment(self, value: float, preview: Evaluation | None) -> TrainingProgress:
        holder = self._learner.placeholder
        if preview or self.step % LOG_EVERY == 0 or not self._nearest:  # a walk through the whole table
            near = self._vocabulary.nearest(holder.vectors.detach().cpu(), 3)
            self._nearest = tuple(word for word, _ in near[0])
        return TrainingProgress(
            self.step,
            value,
            self._told["smoothed"] or value,
            holder.mean_norm(),
            holder.distance(),
            self._nearest,
            preview,
            best=preview is not None and 0 < self.step == self._told["best_step"],
        )

    def _log(self, moment: TrainingProgress) -> None:
        """A line in the log, and to the trackers."""
        entry: dict[str, Any] = {
            "step": moment.step,
            "loss": round(moment.loss, 6),
            "smoothed": round(moment.smoothed, 6),
            "learning_rate": self._learner.learning_rate,
            "norm": round(moment.norm, 5),
            "moved": round(moment.moved, 5),
            "nearest": list(moment.nearest),
            "percentile": round(self._percentile(), 1),
        }
        if moment.preview is not None:
            entry |= moment.preview.scores() | ({"best": True} if moment.best else {})
        if self._run is not None:
            self._run.append_log(entry)
        if self.settings.trackers:
            numbers = {key: value for key, value in entry.items() if isinstance(value, float)}
            self._accelerator.log(numbers, step=moment.step)

    def _percentile(self) -> float:
        """How many percent of the table's rows are no longer than the longest vector; warns of a long one."""
        found = max(self._vocabulary.norm_percentile(self._learner.placeholder.vectors.norm(dim=1)))
        if found > LONG and not self._warned and self.is_main:
            self._warned = True
            log.warning(
                "a vector is longer than %.0f %% of the model's words, and may drown the rest of a prompt; "
                "norm_bound = 1 keeps it as long as a typical one",
                LONG,
            )
        return found

    # --- looking -----------------------------------------------------------------------------

    def _baseline(self) -> TrainingProgress:
        """What the init words draw, to compare with."""
        preview = self._shared(lambda: self.evaluator.evaluate(str(self.settings.init)))
        self._told["baseline"] = preview.scores()
        if self._run is not None:
            self._run.show("init", preview.images)
            told = preview.scores() | {"pairwise": self.evaluator.photo_similarity}
            self._run.append_log({"step": 0, "baseline": told})
        return self._moment(math.nan, preview)

    def _look(self) -> Evaluation:
        """Preview the token, and remember its vectors if they are the best so far."""
        rows, told = self._learner.placeholder.vectors, self._told
        token = self._draft(rows)
        preview = self._shared(lambda: self.evaluator.evaluate(token.token, [token]))
        scores = preview.scores()
        best = is_better(scores, told["best"], told["baseline"])
        gained = scores.get("editability", 0.0) > told["peak"] + MIN_GAIN
        if best:
            self._best = rows.detach().clone()
            told |= {"best": scores, "best_step": self.step}
        if gained:
            told["peak"] = scores["editability"]
        told["stale"] = 0 if best or gained else told["stale"] + 1
        if self._run is not None:
            self._run.show(f"{self.step:06}", preview.images)
        return preview

    def _shared(self, make: Callable[[], Evaluation]) -> Evaluation:
        """Made once, by the first process, and known to all."""
        made = [make() if self.is_main else None]
        if self._accelerator.num_processes > 1:
            broadcast_object_list(made)
        assert made[0] is not None
        return made[0]

    # --- keeping -----------------------------------------------------------------------------

    def save_checkpoint(self) -> Path | None:
        """Write a checkpoint of the run as it is now; its path, or None in all but the first process."""
        if self._run is None:
            return None
        holder, (first, second) = self._learner.placeholder, self._learner.moments()
        return checkpoint.write(
            self._run.checkpoints,
            checkpoint.Checkpoint(
                self.step, holder.vectors, holder.start, first, second, self._best, self._identity(), self._told
            ),
        )

    def _draft(self, vectors: torch.Tensor) -> LearnedToken:
        """The token while it is learned: it has no name but itself, so captions keep all their words."""
        token = self.settings.token
        return LearnedToken(token, token, (vectors.detach().float().cpu().clone(),))

    def _finish(self) -> None:
        """Save the best vectors as the learned token, then the page about the run."""
        settings, told = self.settings, self._told
        scores = told["best"] | {f"init_{key}": value for key, value in told["baseline"].items()}
        facts: dict[str, Any] = {
            "base_model": Path(settings.model).name,
            "base_hash": models.fingerprint(self.model),
            "init": settings.init,
            "start_vectors": embeddings.encode_vectors((self._learner.placeholder.start,)),
            "property": settings.property,
            "pictures": len(self.dataset.photos),
            "seed": settings.seed,
            "learning_rate": round(self._learner.learning_rate, 6),
            "steps": told["best_step"],
            "scores": scores,
            "version": f"diffusekit {__version__}",
            **self._vocabulary.word_metadata(self.name),
        }
        written = {k: v if isinstance(v, str) else json.dumps(v, sort_keys=True) for k, v in facts.items()}
        token = replace(self._draft(self._best), name=self.name, metadata=written)
        if self._run is not None:
            embeddings.save(token, self._run.token, overwrite=True)
            token = embeddings.read(self._run.token)
            report_inputs.write(self._run, self)  # last: a run that has its page is finished
        self._accelerator.wait_for_everyone()
        self.result = token

    def close(self) -> None:
        """Let go of the run's folder and the trackers."""
        if self.settings.trackers:
            self._accelerator.end_training()
        if self._run is not None:
            self._run.close()


def _completed(settings: InvertSettings, accelerator: Accelerator) -> tuple[InvertSettings, models.Model]:
    """Settings that say where and how the model runs, and the model."""
    device = str(accelerator.device) if accelerator.num_processes > 1 else settings.device
    placed, dtype = choose_device(device).device, settings.dtype
    if dtype == "auto":
        # bfloat16 has float32's range: gradients do not vanish in it as in float16
        half = placed.type == "xpu" or (placed.type == "cuda" and torch.cuda.is_bf16_supported())
        dtype = "bfloat16" if half else "float32"
    preview = (settings.preview or "a picture of {}").replace("{}", settings.token)
    done = settings.model_copy(update={"device": str(placed), "dtype": dtype, "preview": preview})
    return done, models.load(done.model, done.device, done.dtype)


def invert(
    pictures: str | Path,
    *,
    output: Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    strict: bool = False,
    **settings: Unpack[InvertOptions],
) -> LearnedToken:
    """Learn a token from a folder of pictures: `invert("my_cat", init="cat")`; saved below `output`.

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
