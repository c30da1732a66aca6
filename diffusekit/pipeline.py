"""Prompt to pictures: read the text, draw the noise, walk the loop, decode.

`stream` is the whole way, step by step; `generate` is `stream` run to its end.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from . import images, latents, metadata, models, schedule, text
from .device import make_generators
from .embeddings import LearnedToken, check_compatible, tokens_in_prompts
from .errors import DiffusekitError, OutOfMemory, UsageError
from .sampling import Step, denoise
from .settings import MAX_SEED, GenerateSettings, validate

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class GeneratedImage:
    """A finished picture and how it was made."""

    image: Image.Image
    record: metadata.Record

    def save(self, path: str | Path) -> Path:
        """Write PNG, JPEG or WebP, by the ending, with the record inside; never over another file."""
        return metadata.save(self.image, Path(path), self.record)

    def _repr_png_(self) -> bytes:
        return self.image._repr_png_()  # type: ignore[attr-defined]


@dataclass(frozen=True)
class _Task:
    """One picture to be made."""

    prompt: str
    seed: int


class Generation:
    """Pictures on their way: iterate for Steps; `pictures` holds those that are finished.

    `total` is how many Steps there will be. Stop iterating to cancel: finished pictures stay.
    """

    def __init__(
        self,
        settings: GenerateSettings,
        prompts: Sequence[str],
        tokens: Sequence[LearnedToken] | None = None,
    ):
        """`tokens` are learned tokens at hand; without them, those that the prompts name are found."""
        if tokens is None:
            tokens = tokens_in_prompts([*prompts, settings.negative_prompt], settings.embedding)
        self.tokens = tuple(tokens)
        self.model = models.load(settings.model, settings.device, settings.dtype, fast=settings.fast)
        for token in self.tokens:
            check_compatible(token, self.model)
        self.settings = _completed(settings, self.model).model_copy(
            update={"embedding": tuple(token.name for token in self.tokens)}
        )
        if settings.negative_prompt and self.settings.guidance_scale == 1:
            log.warning("without guidance (a scale of 1) a negative prompt steers nothing")
        self._size = latents.shape(self.model, _known(self.settings.width), _known(self.settings.height))
        seed = _known(self.settings.seed)
        if seed + settings.images > MAX_SEED:
            raise UsageError(f"there are not {settings.images} seeds from {seed} upwards", "use a smaller seed")
        self._tasks = [_Task(p, seed + i) for p in prompts for i in range(settings.images)]
        on_gpu = self.model.placement.device.type != "cpu"
        self._batch = settings.batch if settings.batch is not None else (4 if on_gpu else 1)
        self._evaluations = len(self._scheduler().timesteps)
        self.images: list[GeneratedImage] = []

    @property
    def total(self) -> int:
        done = -(-len(self.images) // self._batch)
        return self._evaluations * (done + -(-(len(self._tasks) - len(self.images)) // self._batch))

    def __iter__(self) -> Iterator[Step]:
        while len(self.images) < len(self._tasks):
            tasks = self._tasks[len(self.images) : len(self.images) + self._batch]
            try:
                yield from self._make(tasks)
            except RuntimeError as error:
                self._smaller(error)

    def preview(self, step: Step) -> list[Image.Image]:
        """What the model believes the pictures will be, at a step."""
        return images.to_pil(latents.decode(self.model, step.x0))

    def _make(self, tasks: list[_Task]) -> Iterator[Step]:
        """One batch: text, noise, the loop, pixels."""
        settings, model = self.settings, self.model
        guidance_scale = _known(settings.guidance_scale)
        cond = text.encode(model, [task.prompt for task in tasks], self.tokens)
        uncond = None
        if guidance_scale != 1:
            uncond = text.encode(model, [settings.negative_prompt] * len(tasks), self.tokens)
        draws = make_generators([task.seed for task in tasks])
        scheduler = self._scheduler()
        start = latents.noise(self._size, draws).to(model.placement.device) * scheduler.init_noise_sigma
        step = None
        for step in denoise(
            model.unet,
            scheduler,
            start,
            cond,
            uncond=uncond,
            guidance_scale=guidance_scale,
            generators=draws,
        ):
            yield step
        assert step is not None
        if not step.x_next.isfinite().all():
            raise DiffusekitError("the picture came out as not-a-number", "try --dtype float32, or another sampler")
        pixels = images.to_pil(latents.decode(model, step.x_next))
        self.images += [GeneratedImage(p, self._record(task)) for p, task in zip(pixels, tasks, strict=True)]

    def _scheduler(self) -> Any:
        scheduler = schedule.make_scheduler(self.settings.sampler, self.model.scheduler_config)
        try:
            scheduler.set_timesteps(self.settings.steps, device=self.model.placement.device)
        except ValueError as error:
            raise UsageError(
                f"{self.settings.sampler} cannot take {self.settings.steps} steps: {error}",
                "use fewer steps",
            ) from None
        return scheduler

    def _record(self, task: _Task) -> metadata.Record:
        own = self.settings.model_copy(update={"prompt": task.prompt, "seed": task.seed, "images": 1})
        hashes = {token.name: token.sha256 for token in self.tokens}
        return metadata.Record.create(own, self.model.revision, self.model.placement, hashes)

    def _smaller(self, error: Exception) -> None:
        """After an out-of-memory error: half the batch, then decode in slices and tiles, then give up."""
        if not isinstance(error, torch.OutOfMemoryError) and "out of memory" not in str(error).lower():
            raise error
        if self.model.placement.device.type == "cuda":
            torch.cuda.empty_cache()
        if self._batch > 1:
            self._batch = -(-self._batch // 2)
            log.warning("out of memory: going on with %d picture(s) at once", self._batch)
        elif not self.model.vae.use_tiling:
            self.model.vae.enable_slicing()
            self.model.vae.enable_tiling()
            log.warning("out of memory: decoding in tiles")
        else:
            raise OutOfMemory("one picture does not fit in memory", "make it smaller, or use --device cpu") from error


def _known(value: Any) -> Any:
    assert value is not None, "settings are completed before they are used"
    return value


def _completed(settings: GenerateSettings, model: models.Model) -> GenerateSettings:
    """Settings with every `None` filled in, so that the record says what really happened."""
    defaults = {
        "seed": secrets.randbelow(2**32),
        "guidance_scale": model.guidance_scale,
        "width": model.native_size,
        "height": model.native_size,
    }
    missing = {name: value for name, value in defaults.items() if getattr(settings, name) is None}
    return settings.model_copy(update=missing)


def stream(prompt: str | Sequence[str], **settings: Any) -> Generation:
    """Start pictures of one or several prompts; iterate the result for their `Step`s.

    `settings` are the fields of `GenerateSettings`. Each prompt gets `images` pictures, with seeds
    from `seed` upwards. Raises `UsageError` for settings that cannot be used and `ModelError`.

    >>> for step in stream("A beautiful galaxy", steps=4, seed=7):
    ...     print(step.index, step.timestep)
    0 999
    1 749
    2 499
    3 249
    """
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    for each in prompts:
        validate(GenerateSettings, settings | {"prompt": each})
    return Generation(validate(GenerateSettings, settings), prompts)


def generate(prompt: str | Sequence[str], **settings: Any) -> list[GeneratedImage]:
    """Make pictures: `generate("A beautiful galaxy", seed=7)[0].save("galaxy.png")`.

    Takes what `stream` takes; returns the pictures in the order of the prompts.
    """
    running = stream(prompt, **settings)
    for _ in running:
        pass
    return running.images
