"""Options that several verbs of `diffusekit embeddings` have."""

from typing import Annotated

import typer

from ...errors import UsageError

Name = Annotated[str, typer.Argument(metavar="NAME", help="A learned token: its name in ./embeddings, or a path.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")]
ModelName = Annotated[str | None, typer.Option("--model", help="Model whose vocabulary is searched. Default: mini.")]


def check_name(name: str) -> None:
    """Raise `UsageError` unless `name` is a safe name for a learned token's file."""
    from ...embeddings import name_error, safe_name

    if error := name_error(name):
        raise UsageError(f"the name {name[:120]!r} {error}", f"for example {safe_name(name)}")
