"""`diffusekit models pull`: fetch a model from the Hugging Face hub."""

from typing import Annotated

import typer

from ...display import format_size
from ...errors import UsageError
from .options import Name


def command(
    name: Name,
    precision: Annotated[
        str,
        typer.Option("--precision", help="half, full, or auto: half on a GPU, full elsewhere."),
    ] = "auto",
) -> None:
    """Fetch a model from the Hugging Face hub into the hub's cache.

    Only the needed precision is fetched. What is here already is kept, and a download that was interrupted continues.
    The SHA-256 of each file with weights is compared with the hub's.
    """
    from ..progress import quiet_libraries

    if precision not in ("auto", "half", "full"):
        raise UsageError(f"`precision` should be auto, half or full, got {precision[:60]!r}", "leave it out for auto")
    with quiet_libraries():
        from ... import hub, model_catalog

        place = hub.pull(name, half=_is_half(precision))
    about = model_catalog.describe_path(place.name, place.folder)
    print(place.folder)
    typer.echo(f"{place.name}: {about.summary()}, {format_size(about.size_on_disk)} on disk", err=True)


def _is_half(precision: str) -> bool:
    if precision != "auto":
        return precision == "half"
    from ...device import choose

    return choose().is_half
