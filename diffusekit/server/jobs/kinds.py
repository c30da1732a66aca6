"""The kinds of jobs: for each, how its settings are checked and what does it.

A new kind is one entry in `JOB_TYPES`. `check` runs in the thread that submits and returns settings that
leave nothing to chance; `run` runs in the worker and yields wherever it may be stopped.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ... import embeddings, models
from ...embeddings.names import name_of
from ...errors import UsageError
from ...pipeline import GeneratedImage, Generation
from ...settings import GenerateSettings, ServeSettings, validate
from . import invert, visualise
from .context import JobContext


@dataclass(frozen=True)
class JobType:
    """One kind of job."""

    check: Callable[[Mapping[str, Any], ServeSettings], dict[str, Any]]
    run: Callable[[JobContext], Generator[None]]


def check_generate(values: Mapping[str, Any], rules: ServeSettings) -> dict[str, Any]:
    """`GenerateSettings`, or those with `prompts` for `prompt`, within what the server allows.

    Device and precision are the server's. Raises `UsageError` that begins with the field's name.
    """
    given = {name: value for name, value in values.items() if value is not None}
    prompts = given.pop("prompts", None)
    if prompts is None:
        prompts = [given.get("prompt", "")]
    if not (isinstance(prompts, (list, tuple)) and prompts):
        raise UsageError("prompts must be a list of texts", 'for example ["a cat", "a dog"]')
    if "prompt" in given and list(prompts) != [given["prompt"]]:
        raise UsageError("prompts and prompt were both given", "leave one of them out")
    own = {"device": rules.device, "dtype": rules.dtype}
    given = {"model": rules.model, "seed": secrets.randbelow(2**32)} | given | own
    settings = validate(GenerateSettings, given)
    for prompt in prompts:
        validate(GenerateSettings, {"prompt": prompt})
    _within(settings, prompts, rules)
    model = _model(settings.model, rules)
    names = {name_of(path.stem) for path in embeddings.list_files(rules.embeddings)}
    for name in settings.embedding:
        if name.removeprefix("<").removesuffix(">") not in names:
            raise UsageError(
                f"embedding {name[:100]!r} is not one this server has",
                f"there are: {', '.join(sorted(names)) or 'none'}",
            )
    plain = settings.model_dump(mode="json") | {"prompts": list(prompts)}
    del plain["prompt"]
    return plain | {"model": model}


def _within(settings: GenerateSettings, prompts: Sequence[str], rules: ServeSettings) -> None:
    """Raise `UsageError` for a request that asks for more than the server gives."""
    width, height = settings.width or 1, settings.height or 1
    asked = {
        "prompt": (max(map(len, prompts)), rules.max_prompt, "characters"),
        "negative_prompt": (len(settings.negative_prompt), rules.max_prompt, "characters"),
        "steps": (settings.steps, rules.max_steps, "steps"),
        "images": (settings.images * len(prompts), rules.max_images, "pictures"),
        "width": (width * height, rules.max_pixels, "pixels, width times height"),
    }
    for name, (wanted, limit, unit) in asked.items():
        if wanted > limit:
            raise UsageError(
                f"{name} asks for {wanted:,} {unit}, and this server allows {limit:,}",
                "ask for less",
            )


def _model(name: str, rules: ServeSettings) -> str:
    """The name for `load` of a model that a request asks for; raises `UsageError` for strange ones."""
    if name == rules.model:
        return name
    known = known_models(rules)
    if name not in known:
        raise UsageError(f"model {name[:100]!r} is not one this server has", f"there are: {', '.join(known)}")
    return known[name]


def known_models(rules: ServeSettings) -> dict[str, str]:
    """The models that requests may name: what they are called here, and their names for `load`."""
    folder = Path(rules.model)
    own = folder.name if folder.is_dir() else rules.model
    return {own: rules.model} | {name: name for name in models.installed()}


def run_generate(work: JobContext) -> Generator[None]:
    """Make what is left of the pictures, one by one or in batches, and save each when it is finished."""
    values = dict(work.job.settings)
    prompts = values.pop("prompts")
    settings = validate(GenerateSettings, values)
    step, total = 0, len(prompts) * settings.images
    while (passed := work.job.passed) < total:
        part, texts = _rest(settings, prompts, passed)
        work.note(f"loading {settings.model}")
        tokens = embeddings.tokens_in_prompts([*texts, part.negative_prompt], part.embedding, work.embeddings)
        running = Generation(part, texts, tokens)
        share = (total - passed) / (len(texts) * part.images)
        saved, before, steps = 0, step, iter(running)
        while True:
            state = next(steps, None)
            for picture in running.images[saved:]:
                _save(work, picture)
                saved += 1
            if state is None:
                break
            step += 1
            work.report_progress(step, before + round(running.total * share))
            if work.take_skip_request():
                work.skip_images(len(state.x_next))
                break
            work.show_preview(lambda state=state, running=running: running.preview(state))
            yield


def _rest(settings: GenerateSettings, prompts: list[str], passed: int) -> tuple[GenerateSettings, list[str]]:
    """What one Stream can make of the pictures behind the first `passed`: the rest of a prompt's, or
    those of all prompts that are left."""
    first, of_it = divmod(passed, settings.images)
    if not of_it:
        return settings, prompts[first:]
    assert settings.seed is not None
    rest = {"seed": settings.seed + of_it, "images": settings.images - of_it}
    return settings.model_copy(update=rest), [prompts[first]]


def _save(work: JobContext, picture: GeneratedImage) -> None:
    made = picture.record.settings
    words = re.sub(r"[^\w]+", "-", made.prompt.lower(), flags=re.ASCII).strip("-")[:40].strip("-")
    path = work.next_image_path(made.seed or 0, words)
    path.unlink(missing_ok=True)
    work.add_image(picture.save(path))


def check_invert(values: Mapping[str, Any], rules: ServeSettings) -> dict[str, Any]:
    """`learning.check`, of the models that this server has."""
    return invert.check(values, rules, lambda name: _model(name, rules))


def check_visualise(values: Mapping[str, Any], rules: ServeSettings) -> dict[str, Any]:
    """`check_generate` for one picture of one prompt, or of two side by side."""
    return visualise.check(check_generate(dict(values) | {"images": 1}, rules))


JOB_TYPES: dict[str, JobType] = {
    "generate": JobType(check_generate, run_generate),
    "invert": JobType(check_invert, invert.run),
    "visualise": JobType(check_visualise, visualise.run),
}
