"""`diffusekit embeddings remove`: delete a learned token."""

import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from ...errors import DiskError, FileRefused
from ..confirmation import confirm
from .options import Name


def command(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    run: Annotated[bool, typer.Option("--run", help="Also delete the folder of its training run.")] = False,
) -> None:
    """Delete the file of a learned token."""
    from ...embeddings.lookup import path_of
    from ...inversion.run_folder import RunFolder

    path = path_of(name)
    _check_learned(path)
    its = RunFolder(path.parent, path.stem)
    paths = [path, *([its.path] if run and its.is_run else [])]
    description = " and ".join(str(path) for path in paths)
    if run and not its.is_run:
        print(f"{path.stem} has no folder of a training run", file=sys.stderr)
    confirm(description, yes=yes)
    for path in paths:
        _delete(path)
        print(path)
    print(f"deleted {description}", file=sys.stderr)


def _check_learned(path: Path) -> None:
    """Raise `FileRefused` unless the path is a learned token, or a damaged one in ./embeddings."""
    from ...embeddings import list_files, read

    if path.resolve() in [known.resolve() for known in list_files()]:
        return
    try:
        read(path)
    except FileRefused as refused:
        hint = "only learned tokens can be removed; diffusekit embeddings list shows them"
        raise FileRefused(f"nothing was deleted: {refused.message}", hint) from None


def _delete(path: Path) -> None:
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    except OSError as error:
        message = f"{path} could not be deleted: {error.strerror or error}"
        raise DiskError(message, "check the folder's permissions") from None
