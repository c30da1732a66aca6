"""The generate job: images of one or several prompts, saved one by one."""

from __future__ import annotations

import re
import secrets
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from ... import embeddings, hub, lora, model_names
from ...embeddings.names import name_of
from ...errors import ImagesFlagged, UsageError
from ...generated_image import FlaggedImage, GeneratedImage
from ...generation import Generation
from ...lora_request import parse_request
from ...mask import Mask
from ...prompt import parse
from ...settings import GenerateSettings, ServeSettings, validate
from ...start_image import StartImage
from ..models import ServerModels
from ..storage import sources
from .context import JobContext

SOURCES = ("start_image", "mask")


class _Sources(TypedDict, total=False):
    image: StartImage
    mask: Mask


def check(values: Mapping[str, Any], server: ServeSettings) -> dict[str, Any]:
    """Check `GenerateSettings`, or those with `prompts` for `prompt`, against the limits of the server.

    `start_image` and `mask` are ids of `sources`.
    Device and precision are the server's. Raises `UsageError` that begins with the field's name.
    """
    given = {name: value for name, value in values.items() if value is not None}
    ids = {name: str(given.pop(name)) for name in SOURCES if name in given}
    prompts = given.pop("prompts", None)
    if prompts is None:
        prompts = [given.get("prompt", "")]
    if not (isinstance(prompts, (list, tuple)) and prompts):
        raise UsageError("prompts must be a list of texts", 'for example ["a cat", "a dog"]')
    if "prompt" in given and list(prompts) != [given["prompt"]]:
        raise UsageError("prompts and prompt were both given", "leave out one of them")
    decided = ("device", "dtype", "attention", "memory", "no_safety_checker")
    own = {name: getattr(server, name) for name in decided}
    if given.get("no_safety_checker", server.no_safety_checker) != server.no_safety_checker:
        raise UsageError("no_safety_checker is decided when the server is started", "leave it out")
    if given.get("model", server.model) == server.model:  # how the server's own model is loaded
        given = {"vae": server.vae, "prediction_type": server.prediction_type} | given
    settings = validate(GenerateSettings, {"model": server.model} | given | own)
    if settings.seed is None:
        settings = settings.model_copy(update={"seed": secrets.randbelow(2**32)})
    for prompt in prompts:
        validate(GenerateSettings, {"prompt": prompt})
    models = ServerModels(server)
    model = models.resolve(settings.model)
    _check_limits(settings, prompts, server, steps=settings.steps or models.defaults_of(model).steps)
    _check_tokens(settings.embedding, server)
    _check_sources(ids, server)
    _check_vae(settings.vae, server)
    _check_loras(settings, prompts, server)
    complete = settings.model_dump(mode="json") | {"prompts": list(prompts), "model": model} | ids
    del complete["prompt"]
    return complete


def _check_sources(ids: Mapping[str, str], server: ServeSettings) -> None:
    for name, id in ids.items():
        sources.find(server.state, name, id)
    if "mask" in ids and "start_image" not in ids:
        raise UsageError("mask says what of a start image is painted, and there is none", "send the image too")


def _check_limits(settings: GenerateSettings, prompts: Sequence[str], server: ServeSettings, *, steps: int) -> None:
    width, height = settings.width or 1, settings.height or 1
    requested = {
        "prompt": (max(map(len, prompts)), server.max_prompt, "characters"),
        "negative_prompt": (len(settings.negative_prompt), server.max_prompt, "characters"),
        "steps": (steps, server.max_steps, "steps"),
        "images": (settings.images * len(prompts), server.max_images, "images"),
        "width": (width * height, server.max_pixels, "pixels, width times height"),
    }
    for name, (amount, limit, unit) in requested.items():
        if amount > limit:
            raise UsageError(f"{name} asks for {amount:,} {unit}; this server allows {limit:,}", "ask for less")


def _check_vae(name: str | None, server: ServeSettings) -> None:
    """Refuse a VAE that is neither the server's own nor in its folders: a request must not name other files."""
    known = model_names.short_names("vae")
    if name is not None and name != server.vae and name not in known:
        own = f"the server's is {Path(server.vae).name}" if server.vae else "leave it out for the model's own"
        hint = f"{own}; there are: {', '.join(known)}" if known else own
        raise UsageError(f"vae {name[:100]!r} is not one this server has", hint)


def _check_tokens(names: Sequence[str], server: ServeSettings) -> None:
    known = {name_of(path.stem) for path in embeddings.list_files(server.embeddings)}
    known |= {name for name, file in model_names.short_names("embedding").items() if not file.is_pickle}
    for name in names:
        if name.removeprefix("<").removesuffix(">") not in known:
            raise UsageError(
                f"embedding {name[:100]!r} is not one this server has",
                f"there are: {', '.join(sorted(known)) or 'none'}",
            )


def _check_loras(settings: GenerateSettings, prompts: Sequence[str], server: ServeSettings) -> None:
    """Refuse LoRA files that are not in the server's folder, and paths."""
    asked = [("lora", parse_request(text).name) for text in settings.lora]
    for prompt in dict.fromkeys(prompts):
        asked += [("prompt", each.name) for each in parse(prompt, 1, syntax=settings.prompt_syntax).loras]
    for field, name in asked:
        try:
            lora.find_file(name, server.loras, allow_paths=False)
        except UsageError:
            known = ", ".join(lora.list_files(server.loras)) or "none"
            raise UsageError(
                f"{field} asks for the LoRA {name[:100]!r}, which is not on this server", f"there are: {known[:1000]}"
            ) from None


def run(context: JobContext) -> Generator[None]:
    """Generate the images that are left, one by one or in batches, and save each when it is finished."""
    values = dict(context.job.settings)
    prompts = values.pop("prompts")
    opened = _open_sources({name: values.pop(name) for name in SOURCES if name in values}, context)
    settings = validate(GenerateSettings, values)
    step, total = 0, len(prompts) * settings.images
    while (passed := context.job.passed) < total:
        part, texts = _remaining(settings, prompts, passed)
        context.set_note(f"loading {hub.record_name(settings.model)}")
        tokens = embeddings.tokens_in_prompts([*texts, part.negative_prompt], part.embedding, context.embeddings)
        generation = Generation(part, texts, tokens, folder=context.embeddings, lora_folder=context.loras, **opened)
        share = (total - passed) / (len(texts) * part.images)
        saved, before, steps = 0, step, iter(generation)
        while True:
            state = next(steps, None)
            context.add_warnings(generation.warnings)
            for image in generation.finished[saved:]:
                saved += 1
                if isinstance(image, FlaggedImage):
                    context.flag_image()
                else:
                    _save(context, image)
            if state is None:
                break
            step += 1
            context.report_progress(step, before + round(generation.total * share))
            if context.take_skip_request():
                context.skip_images(len(state.x_next))
                break
            context.show_preview(lambda state=state, generation=generation: generation.preview(state))
            yield
    if context.job.flagged and not context.job.pictures:
        raise ImagesFlagged(context.job.flagged, total)


def _open_sources(ids: Mapping[str, str], context: JobContext) -> _Sources:
    """The start image and the mask of a job."""
    opened: _Sources = {}
    if "start_image" in ids:
        opened["image"] = StartImage.open(sources.find(context.state, "start_image", ids["start_image"]))
    if "mask" in ids:
        opened["mask"] = Mask.open(sources.find(context.state, "mask", ids["mask"]))
    return opened


def _remaining(settings: GenerateSettings, prompts: list[str], passed: int) -> tuple[GenerateSettings, list[str]]:
    """What one `Generation` can make of the images after the first `passed`.

    It is the rest of one prompt's images, or all images of the prompts that are left.
    """
    prompt_index, image_index = divmod(passed, settings.images)
    if not image_index:
        return settings, prompts[prompt_index:]
    assert settings.seed is not None
    rest = {"seed": settings.seed + image_index, "images": settings.images - image_index}
    return settings.model_copy(update=rest), [prompts[prompt_index]]


def _save(context: JobContext, image: GeneratedImage) -> None:
    settings = image.record.settings
    words = re.sub(r"[^\w]+", "-", settings.prompt.lower(), flags=re.ASCII).strip("-")[:40].strip("-")
    path = context.next_image_path(settings.seed or 0, words)
    path.unlink(missing_ok=True)
    context.add_image(image.save(path))
