"""`diffusekit again`: generate an image again from its metadata, changed by flags."""

import logging
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..display import printable
from ..errors import FileRefused
from ..settings import GenerateSettings, validate
from .generate import MaskPath, OutputOptions, StartImagePath, run, split_size
from .options import with_group, with_settings
from .recorded_loras import find_loras
from .recorded_model import find_model, find_vae

if TYPE_CHECKING:
    from ..metadata import ImageMetadata, Record

log = logging.getLogger(__name__)
# What is used in place of a setting that another program's metadata does not give.
_DEFAULTS = {
    "negative_prompt": ("negative prompt", "none is used"),
    "steps": ("number of steps", "the model's default is used"),
    "sampler": ("sampler", "the model's default is used"),
    "guidance_scale": ("guidance scale", "the model's default is used"),
    "seed": ("seed", "a random one is used"),
    "width": ("size", "the model's native size is used"),
}
_MAX_UNUSED = 8  # fields that a warning lists


@with_group(OutputOptions, "options")
@with_settings(GenerateSettings, "prompt")
def command(
    settings: dict[str, Any],
    options: OutputOptions,
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="An image with metadata.")],
    prompt: Annotated[str | None, typer.Option("--prompt", help="Replace the prompt.")] = None,
    start: StartImagePath = None,
    mask: MaskPath = None,
) -> None:
    """Generate an image again from its metadata.

    The same settings give the same pixels. Flags change settings. What the metadata of another program does not say is
    named in a warning. Without a prompt the image is refused, unless --prompt gives one.
    """
    from ..metadata import read

    metadata = read(image)
    if metadata.settings is None:
        raise FileRefused(f"{image} does not say how it was made", "diffusekit info shows the metadata of an image")
    given = settings | split_size(options.size, settings) | ({} if prompt is None else {"prompt": prompt})
    # device, batch size and memory belong to this machine, not to the image; its user says whether it is checked
    own = metadata.settings.model_dump(exclude={"device", "batch", "memory", "no_safety_checker"})
    merged = validate(GenerateSettings, own | given)
    if metadata.record is None:
        _report_differences(image, metadata, merged, given)
        merged = _round_size(merged, given)
    else:
        _check_whole(metadata.record, image, given)
    options.destination(merged.images)
    if metadata.record is not None:
        _warn_about_tokens(metadata.record)
        found = {
            "model": find_model(metadata.record, settings.get("model")),
            "vae": find_vae(metadata.record, settings.get("vae")),
        }
        merged = merged.model_copy(update=found)
        _check_sources(image, metadata.record, start, mask)
    merged = find_loras(merged, _lora_hashes(metadata))
    run(merged, [merged.prompt], options, start, mask)


def _lora_hashes(metadata: "ImageMetadata") -> dict[str, str]:
    """Return the hashes of LoRA files by name, whole from our record or shortened from A1111's text."""
    if metadata.record is not None and metadata.record.loras:
        return metadata.record.loras
    pairs = (pair.rpartition(":") for pair in metadata.parameters.get("Lora hashes", "").split(","))
    return {name.strip(): sha.strip().lower() for name, _, sha in pairs if name.strip() and sha.strip()}


def _check_sources(image: Path, record: "Record", start: Path | None, mask: Path | None) -> None:
    """Refuse to repeat an image without the image and the mask that it was made from, and warn of others."""
    if record.start_image and start is None:
        hint = "give them with --image and --mask" if record.mask else "give it with --image"
        sources = "another image with a mask" if record.mask else "another image"
        raise FileRefused(f"{image} was made from {sources}, which it does not contain", hint)
    if record.mask and mask is None:
        raise FileRefused(f"{image} was made with a mask, which it does not contain", "give it with --mask")
    if record.start_image and start is not None:
        from ..start_image import StartImage

        if StartImage.open(start).sha256 != record.start_image:
            log.warning("%s is not the image that %s was made from; the result will differ", start, image)
    if record.mask and mask is not None:
        from ..mask import Mask

        if Mask.open(mask).sha256 != record.mask:
            log.warning("%s is not the mask that %s was made with; the result will differ", mask, image)


def _report_differences(
    image: Path, metadata: "ImageMetadata", merged: GenerateSettings, given: Collection[str]
) -> None:
    """Name all that another program's metadata does not say, and what is used instead. Refuse an unknown prompt."""
    missing = {name: reason for name, reason in metadata.missing.items() if name not in given}
    if "prompt" in missing:
        raise FileRefused(f"the prompt of {image} is unknown: it {missing['prompt']}", "give it with `prompt`")
    if not merged.prompt:
        log.warning("the prompt of the image is empty; `prompt` gives one")
    for name, (label, instead) in _DEFAULTS.items():
        if name in missing:
            log.warning("the %s of the image %s: %s, unless you give `%s`", label, missing[name], instead, name)
    others = {key: text for key, text in metadata.unused.items() if not (key == "Model" and "model" in given)}
    if unused := [f"{key} {printable(text, limit=40)}" for key, text in others.items()]:
        more = f" and {len(unused) - _MAX_UNUSED} more" if len(unused) > _MAX_UNUSED else ""
        log.warning("not used here, though the image was made with it: %s%s", ", ".join(unused[:_MAX_UNUSED]), more)


def _check_whole(record: "Record", image: Path, given: Collection[str]) -> None:
    """Refuse a record whose prompts were cut when it was written, unless flags replace them."""
    if missing := [name for name in record.shortened if name not in given]:
        names = " and ".join(f"`{name}`" for name in missing)
        raise FileRefused(f"{image} has only the beginning of {names}", "give the whole text with flags")


def _round_size(settings: GenerateSettings, given: Collection[str]) -> GenerateSettings:
    """Round the size of another program's image to one that the model takes, unless a flag gave it."""
    if settings.width is None or settings.height is None or {"width", "height"} & set(given):
        return settings
    from .. import models

    info = models.describe(settings.model)
    width, height = info.nearest_side(settings.width), info.nearest_side(settings.height)
    if (width, height) != (settings.width, settings.height):
        size, near = f"{settings.width}x{settings.height}", f"{width}x{height}"
        log.warning(
            "the size of the image is %s, but sides must be multiples of %d for this model: %s is used, unless "
            "you give `size`",
            size,
            info.size_multiple,
            near,
        )
    return settings.model_copy(update={"width": width, "height": height})


def _warn_about_tokens(record: "Record") -> None:
    """Warn when a learned token is not the one that the image was made with."""
    if record.embeddings:
        from ..embeddings import load_token

        for name, sha in record.embeddings.items():
            if load_token(name).sha256 != sha:
                log.warning("%s has been trained again since; the image will differ", name)
