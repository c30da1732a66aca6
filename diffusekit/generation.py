"""A run of the pipeline: encode the text, draw the noise, run the loop, decode, for one batch after the other."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from . import defaults, images, latents, metadata, models, prompt_encoder, schedule
from .batch_size import choose_batch, find_problem, fit_batch
from .canvas import canvas_of, find_unused
from .device import make_generators
from .embeddings import LearnedToken, check_compatible, tokens_in_prompts
from .errors import DiffusekitError, OutOfMemory, UsageError
from .generated_image import FlaggedImage, GeneratedImage
from .lora import LoraSelection
from .mask import Mask
from .models import Model
from .prompt import ParsedPrompt, parse
from .prompt_check import check_prompts
from .sampling import Step, denoise
from .settings import MAX_SEED, GenerateSettings
from .start_image import StartImage
from .start_latents import LatentSource, Start
from .workspace import Workspace

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Task:
    """One image to generate."""

    prompt: str
    seed: int


class Generation:
    """A run of the pipeline: iterate for its `Step`s; `images` holds the finished images.

    `finished` also has those that the model's safety checker flagged, in the order of the prompts and seeds.
    `total` is the number of Steps of the whole run. Stop iterating to cancel; finished images stay.
    `warnings` are the sentences that this run warned of. Each of them is logged too.
    """

    def __init__(
        self,
        settings: GenerateSettings,
        prompts: Sequence[str],
        tokens: Sequence[LearnedToken] | None = None,
        *,
        model: Model | None = None,
        folder: str | Path | None = None,
        image: StartImage | None = None,
        seeds: Sequence[int] | None = None,
        mask: Mask | None = None,
        lora_folder: str | Path | None = None,
    ):
        """Without `tokens`, those that the prompts name are found; without `model`, that of the settings is loaded.

        `folder` has learned tokens, `lora_folder` LoRA files. `seeds` are the first seeds of the prompts.
        Raises `UsageError` for a `mask` that does not fit the `image`.
        """
        if tokens is None:
            folder = folder or Workspace().embeddings
            tokens = tokens_in_prompts([*prompts, settings.negative_prompt], settings.embedding, folder)
        self.tokens = tuple(tokens)
        self.model = model or models.load_for(settings)
        self.warnings: list[str] = list(self.model.warnings)
        for token in self.tokens:
            check_compatible(token, self.model)
        self.loras = LoraSelection.of(settings, prompts, self.model, lora_folder)
        self._image, self._mask, self._tiled = image, mask, False
        self._canvas = canvas_of(settings, self.model, image, mask)
        self.settings = self._complete(settings)
        self._warn_of_settings(prompts, folder, given=settings)
        self._size = latents.shape(self.model, _known(self.settings.width), _known(self.settings.height))
        self._source = LatentSource(self.model, self._size, self._canvas, content=settings.mask_content)
        self._tasks = _list_tasks(prompts, seeds or [_known(self.settings.seed)] * len(prompts), settings.images)
        self._batch = self._fit_batch(settings.batch)
        scheduler = self._scheduler()
        self.first_step = self._find_first_step(scheduler)
        self._evaluations = len(scheduler.timesteps) - self.first_step
        self._warn_of_steps()
        self._checker = None if settings.no_safety_checker else self.model.safety_checker
        self.finished: list[GeneratedImage | FlaggedImage] = []

    @property
    def images(self) -> list[GeneratedImage]:
        """The images that are finished and were not flagged."""
        return [image for image in self.finished if isinstance(image, GeneratedImage)]

    @property
    def flagged(self) -> list[FlaggedImage]:
        """The images that the model's safety checker flagged."""
        return [image for image in self.finished if isinstance(image, FlaggedImage)]

    def _complete(self, settings: GenerateSettings) -> GenerateSettings:
        """Fill in what was not given, with what suits the model and its LoRA, and the names that records use."""
        complete = defaults.complete(settings, self.model, self._canvas, lora=self.loras.defaults)
        return complete.model_copy(update=self._names())

    def _names(self) -> dict[str, Any]:
        """Return the settings that name files, as records have them: without paths."""
        tokens, vae = tuple(token.name for token in self.tokens), self.model.vae_name or None
        return {"embedding": tokens, "lora": self.loras.settings, "model": self.model.name, "vae": vae}

    @property
    def is_guided(self) -> bool:
        """Whether every step evaluates the U-Net with and without the prompt (classifier-free guidance)."""
        return self.settings.guidance_scale != 1 and not self.model.is_guidance_distilled

    @property
    def total(self) -> int:
        done = len(self.finished)
        if self.loras.is_uniform:
            batches = -(-done // self._batch) + -(-(len(self._tasks) - done) // self._batch)
        else:
            batches = position = 0
            while position < len(self._tasks):
                position += len(self._batch_from(position))
                batches += 1
        return self._evaluations * batches

    def __iter__(self) -> Iterator[Step]:
        while (done := len(self.finished)) < len(self._tasks):
            try:
                yield from self._run(self._batch_from(done))
            except RuntimeError as error:
                self._save_memory(error)

    def _fit_batch(self, asked: int | None) -> int:
        """Return the batch size that was asked for, or a default, as far as there is memory; warn of what changes."""
        batch = asked if asked is not None else choose_batch(self.model, self._size)
        batch = fit_batch(self.model, self._size, max(min(batch, len(self._tasks)), 1))
        if problem := find_problem(self.model, self._size, batch, asked):
            self._warn(problem)
        return batch

    def _batch_from(self, position: int) -> list[_Task]:
        """Return the next batch: all of its prompts use the same LoRA files."""
        tasks = self._tasks[position : position + self._batch]
        return list(takewhile(lambda task: self.loras.are_equal(task.prompt, tasks[0].prompt), tasks))

    def _warn_of_steps(self) -> None:
        """Warn of a number of steps that spoils images. A run from an image starts at its own noise level."""
        if not self.first_step:
            sampler, suited = _known(self.settings.sampler), self.loras.defaults or self.model.defaults
            fewest = 1 if suited.kind and sampler == suited.sampler else None
            noise = defaults.noise_config(self.settings, self.model)
            for problem in schedule.find_problems(sampler, noise, _known(self.settings.steps), fewest=fewest):
                self._warn(problem)

    def _warn(self, message: str) -> None:
        """Keep and log a warning about this run, once. It names settings in backquotes."""
        if message not in self.warnings:
            self.warnings.append(message)
            log.warning("%s", message)

    def _warn_of_settings(self, prompts: Sequence[str], folder: str | Path | None, *, given: GenerateSettings) -> None:
        """Say what a model of few steps decided, and everything in the prompts that has no effect."""
        chosen = defaults.explain(given, self.settings, self.model, lora=self.loras.defaults)
        for sentence in (*chosen, *self.loras.warnings):
            self._warn(sentence)
        negative = self.settings.negative_prompt
        why = "the model is guidance-distilled" if self.model.is_guidance_distilled else "`guidance_scale` 1"
        for name in ("negative_prompt", "guidance_rescale"):
            if getattr(self.settings, name) and not self.is_guided:
                self._warn(f"`{name}` has no effect without guidance ({why})")
        for sentence in find_unused(self.settings, self._canvas):
            self._warn(sentence)
        for sentence in check_prompts(
            self.model,
            prompts,
            self.tokens,
            negative_prompt=negative if self.is_guided else "",
            folder=folder,
            syntax=self.settings.prompt_syntax,
        ):
            self._warn(sentence)

    def preview(self, step: Step) -> list[Image.Image]:
        """Decode x0 of a step: what the model predicts the images of the batch to be. A flagged one is black."""
        decoded = self._decode(step.x0)
        flags = self._checker.flag(decoded) if self._checker else [False] * len(decoded)
        return [Image.new("RGB", i.size) if flag else i for i, flag in zip(decoded, flags, strict=True)]

    @property
    def prompts(self) -> list[str]:
        """The prompts of the run, each once."""
        return list(dict.fromkeys(task.prompt for task in self._tasks))

    def parse(self, prompt: str) -> ParsedPrompt:
        """Parse a prompt in the syntax of the settings."""
        return parse(prompt, _known(self.settings.steps), syntax=self.settings.prompt_syntax)

    def _run(self, tasks: list[_Task]) -> Iterator[Step]:
        """Generate one batch and append its images."""
        settings, model = self.settings, self.model
        guidance_scale, steps = _known(settings.guidance_scale), _known(settings.steps)
        scale = guidance_scale if self.is_guided else 1.0
        parsed = [self.parse(task.prompt) for task in tasks]
        negatives = [parse(settings.negative_prompt, steps, syntax=settings.prompt_syntax, is_negative=True)]
        if scale == 1 and all(len(each.parts) == 1 for each in parsed):
            negatives = []
        adapter = self.loras.adapter(tasks[0].prompt)
        with adapter.applied_to_text():
            cond, uncond = prompt_encoder.encode(model, parsed, negatives * len(tasks), self.tokens)
        if model.family.takes_size:
            width, height = _known(settings.width), _known(settings.height)
            cond = cond.with_size(width, height)
            uncond = uncond and uncond.with_size(width, height)
        if model.is_guidance_distilled:
            width = model.unet.config.time_cond_proj_dim
            cond = cond.with_guidance(guidance_scale, width)
            uncond = uncond and uncond.with_guidance(guidance_scale, width)
        scheduler, generators = self._scheduler(), make_generators([task.seed for task in tasks])
        start = self._start(scheduler, generators)
        step = None
        for step in denoise(
            adapter.adapt(model.unet),
            scheduler,
            start.latents,
            cond,
            uncond=uncond,
            guidance_scale=scale,
            guidance_rescale=settings.guidance_rescale,
            first_step=start.first_step,
            generators=generators,
            masked=start.masked,
            channels=start.channels,
        ):
            yield step
        assert step is not None
        if not step.x_next.isfinite().all():
            raise DiffusekitError("the latents contain NaN or infinity", "set `dtype` to float32, or another `sampler`")
        self._finish(self._decode(step.x_next), tasks)

    def _finish(self, decoded: list[Image.Image], tasks: list[_Task]) -> None:
        """Append the images of a batch, without the pixels of those that are flagged."""
        flags = self._checker.flag(decoded) if self._checker else [False] * len(decoded)
        for image, task, is_flagged in zip(decoded, tasks, flags, strict=True):
            record = self._record(task)
            self.finished.append(FlaggedImage(record) if is_flagged else GeneratedImage(image, record))
            if is_flagged:
                self._warn(f"the safety checker of {self.model.name} flagged the image of `seed` {task.seed}")

    def _start(self, scheduler: Any, generators: list[torch.Generator]) -> Start:
        """Start from pure noise, or from the start image with the noise of a later step."""
        noise = latents.noise(self._size, generators).to(self.model.placement.device)
        return self._source.start(scheduler, noise, self.first_step, is_full=self.settings.strength == 1)

    def _find_first_step(self, scheduler: Any) -> int:
        """Return the step at which a start image enters: 60 % of the steps remain at a strength of 0.6."""
        steps, strength = _known(self.settings.steps), self.settings.strength
        if self._image is None or strength is None:
            return 0
        if not (remaining := int(steps * strength + 1e-6)):
            raise UsageError(
                f"`strength` {strength:g} leaves none of {steps} steps",
                f"set `strength` to at least {1 / steps:.3g}, or use more `steps`",
            )
        return (steps - remaining) * scheduler.order

    def _scheduler(self) -> Any:
        scheduler = schedule.make_scheduler(
            _known(self.settings.sampler), defaults.noise_config(self.settings, self.model)
        )
        schedule.set_steps(scheduler, _known(self.settings.steps), self.model.placement.device)
        return scheduler

    def _decode(self, x: torch.Tensor) -> list[Image.Image]:
        drawn = images.to_pil(latents.decode(self.model, x, tiled=self._tiled))
        return [self._canvas.finish(image) for image in drawn] if self._canvas else drawn

    def _record(self, task: _Task) -> metadata.Record:
        # the budget belongs to this machine, and what followed from it is the record's `dtype`
        update = {"prompt": task.prompt, "seed": task.seed, "images": 1, "memory": None}
        own = self.settings.model_copy(update=update)
        hashes = {token.name: token.sha256 for token in self.tokens}
        return metadata.Record.create(
            own,
            self.model.revision,
            self.model.placement,
            hashes,
            model_hash=self.model.sha256,
            vae_hash=self.model.vae_sha256,
            start_image=self._image.sha256 if self._image else "",
            mask=self._mask.sha256 if self._mask else "",
            safety_checker="passed" if self._checker else "off" if own.no_safety_checker else "",
            loras=self.loras.hashes(task.prompt),
        )

    def _save_memory(self, error: Exception) -> None:
        """After an out-of-memory error: halve the batch, then decode in tiles, then give up."""
        if not isinstance(error, torch.OutOfMemoryError) and "out of memory" not in str(error).lower():
            raise error
        if self.model.placement.device.type == "cuda":
            torch.cuda.empty_cache()
        if self._batch > 1:
            self._batch = -(-self._batch // 2)
            self._warn(f"out of memory: continuing with a batch of {self._batch}")
        elif not self._tiled:
            self._tiled = True
            self._warn("out of memory: decoding in tiles")
        else:
            raise OutOfMemory(
                "one image does not fit in memory", "use a smaller `width` and `height`, or set `device` to cpu"
            ) from error


def _known(value: Any) -> Any:
    assert value is not None, "settings are completed before they are used"
    return value


def _list_tasks(prompts: Sequence[str], seeds: Sequence[int], count: int) -> list[_Task]:
    """List the images: `count` for each prompt, with seeds upwards from that of the prompt."""
    if (first := max(seeds, default=0)) + count > MAX_SEED:
        raise UsageError(
            f"`seed` + `images` exceeds the largest seed, 2^63 - 1: got {first} + {count}", "use a smaller `seed`"
        )
    return [_Task(prompt, seed + i) for prompt, seed in zip(prompts, seeds, strict=True) for i in range(count)]
