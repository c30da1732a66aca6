"""`diffusekit embeddings export`: write a learned token in another program's format."""

from pathlib import Path
from typing import Annotated

import typer

from .options import Name, Overwrite


def command(
    name: Name,
    to: Annotated[str, typer.Option("--to", help="Program: diffusers, a1111, kohya or invokeai.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Output file or folder. Default: exports/NAME-PROGRAM.")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write a learned token in another program's format."""
    from ...embeddings import export_token, load_token

    token = load_token(name)
    for path in export_token(token, output or Path("exports") / f"{token.name}-{to}", to, overwrite=overwrite):
        print(path)
