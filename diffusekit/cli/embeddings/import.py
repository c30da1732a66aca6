"""`diffusekit embeddings import`: convert a learned token that another program wrote."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from ...errors import UsageError
from .options import Overwrite, check_name


def command(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="File of any program: .safetensors, .pt, .bin or .png.")],
    name: Annotated[str | None, typer.Option("--name", help="Name of the token. Default: the file's name.")] = None,
    token: Annotated[str | None, typer.Option("--token", help="The word for it in prompts.")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Output folder.")] = Path("embeddings"),
    overwrite: Overwrite = False,
) -> None:
    """Import a learned token that another program wrote.

    Pickles are opened in a sandboxed process.
    """
    from ...embeddings import import_token, save, token_error

    if token is not None and (error := token_error(token)):
        raise UsageError(f"the token {token!r} {error}", "choose a word like S*")
    if name is not None:
        check_name(name)
    imported = import_token(file, token or "")
    metadata = imported.metadata | {"imported_sha256": imported.sha256}
    imported = replace(imported, name=name or imported.name, metadata=metadata)
    print(save(imported, output / f"{imported.name}.safetensors", overwrite=overwrite))
