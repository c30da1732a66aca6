"""`diffusekit again`: generate an image again from its metadata, changed by flags."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import FileRefused
from ..settings import GenerateSettings, validate
from .generate import OutputOptions, run, split_size
from .options import with_group, with_settings

if TYPE_CHECKING:
    from ..metadata import Record


@with_group(OutputOptions, "options")
@with_settings(GenerateSettings, "prompt")
def command(
    settings: dict[str, Any],
    options: OutputOptions,
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="An image with metadata.")],
    prompt: Annotated[str | None, typer.Option("--prompt", help="Replace the prompt.")] = None,
) -> None:
    """Generate an image again from its metadata.

    The same settings give the same pixels. Flags change settings.
    """
    from ..metadata import read

    metadata = read(image)
    if metadata.settings is None:
        raise FileRefused(f"{image} does not say how it was made", "diffusekit info shows the metadata of an image")
    given = settings | split_size(options.size, settings)
    # the device and the batch size belong to this machine, not to the image
    values = metadata.settings.model_dump(exclude={"device", "batch"}) | given
    if prompt is not None:
        values["prompt"] = prompt
    merged = validate(GenerateSettings, values)
    options.destination(merged.images)
    if metadata.record is not None:
        _warn_about_tokens(metadata.record)
    run(merged, [merged.prompt], options)


def _warn_about_tokens(record: "Record") -> None:
    """Warn when a learned token is not the one that the image was made with."""
    if record.embeddings:
        from ..embeddings import load_token

        for name, sha in record.embeddings.items():
            if load_token(name).sha256 != sha:
                print(f"warning: {name} has been trained again since; the image will differ", file=sys.stderr)
