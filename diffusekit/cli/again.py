"""`diffusekit again`: make a picture again from what it says of itself, changed by flags."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import FileRefused
from ..metadata import Record, read
from ..settings import GenerateSettings, checked
from .generate import (
    Format,
    Json,
    NoLabel,
    NoMetadata,
    Output,
    Overwrite,
    Quiet,
    Size,
    run,
    split_size,
)
from .options import with_settings
from .output import Destination


@with_settings(GenerateSettings, "prompt")
def command(
    settings: dict[str, Any],
    picture: Annotated[
        Path, typer.Argument(metavar="PICTURE", help="A picture that says how it was made.")
    ],
    prompt: Annotated[str | None, typer.Option("--prompt", help="Another prompt.")] = None,
    size: Size = None,
    output: Output = None,
    format: Format = None,
    overwrite: Overwrite = False,
    no_metadata: NoMetadata = False,
    no_label: NoLabel = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make a picture again: the same settings give the same pixels; flags change them."""
    said = read(picture)
    found = said.settings
    if found is None:
        raise FileRefused(
            f"{picture} does not say how it was made", "diffusekit info shows what a picture says"
        )
    # where it runs is this machine's affair, not the picture's
    values = found.model_dump(exclude={"device", "batch"}) | settings | split_size(size, settings)
    if prompt is not None:
        values["prompt"] = prompt
    merged = checked(GenerateSettings, values)
    destination = Destination(output, format, merged.images, overwrite=overwrite)
    keep = (not no_metadata, not (no_metadata and no_label))
    if said.record is not None:
        _warn_of_changes(said.record)
    run(merged, [merged.prompt], destination, keep=keep, as_json=as_json, quiet=quiet)


def _warn_of_changes(record: Record) -> None:
    """Say when a learned token is not the one the picture was made with: its pixels will differ."""
    if record.embeddings:
        from ..embeddings import find

        for name, sha in record.embeddings.items():
            if find(name).sha256 != sha:
                print(
                    f"warning: {name} has been learned anew since; the picture will differ",
                    file=sys.stderr,
                )
