"""`diffusekit again`: make a picture again from what it says of itself, changed by flags."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import FileRefused
from ..settings import GenerateSettings, validate
from .generate import Manner, run, split_size
from .options import with_group, with_settings

if TYPE_CHECKING:
    from ..metadata import Record


@with_group(Manner, "manner")
@with_settings(GenerateSettings, "prompt")
def command(
    settings: dict[str, Any],
    manner: Manner,
    picture: Annotated[Path, typer.Argument(metavar="PICTURE", help="A picture that says how it was made.")],
    prompt: Annotated[str | None, typer.Option("--prompt", help="Another prompt.")] = None,
) -> None:
    """Make a picture again: the same settings give the same pixels; flags change them."""
    from ..metadata import read

    said = read(picture)
    found = said.settings
    if found is None:
        raise FileRefused(f"{picture} does not say how it was made", "diffusekit info shows what a picture says")
    # where it runs is this machine's affair, not the picture's
    given = settings | split_size(manner.size, settings)
    values = found.model_dump(exclude={"device", "batch"}) | given
    if prompt is not None:
        values["prompt"] = prompt
    merged = validate(GenerateSettings, values)
    manner.destination(merged.images)
    if said.record is not None:
        _warn_of_changes(said.record)
    run(merged, [merged.prompt], manner)


def _warn_of_changes(record: "Record") -> None:
    """Say when a learned token is not the one the picture was made with: its pixels will differ."""
    if record.embeddings:
        from ..embeddings import load_token

        for name, sha in record.embeddings.items():
            if load_token(name).sha256 != sha:
                print(
                    f"warning: {name} has been learned anew since; the picture will differ",
                    file=sys.stderr,
                )
