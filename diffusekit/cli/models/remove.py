"""`diffusekit models remove`: delete a model from the hub's cache or from your own folders."""

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ...display import format_size
from ...errors import DiskError, ModelError, UsageError
from ..confirmation import confirm
from .options import Name

if TYPE_CHECKING:
    from ...hub_cache import CachedRevision


def command(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
) -> None:
    """Delete a model.

    It lies in the hub's cache, in ./models, or in a folder of DIFFUSEKIT_MODELS. Files in the folders of other
    programs are left to these programs.
    """
    from ... import hub_cache

    if name == "mini":
        raise UsageError("mini is part of diffusekit and cannot be removed", "diffusekit models list shows the others")
    revision = _find_revision(name)
    if revision is None:
        path = _own_path(name)
        confirm(f"{path} ({format_size(_size_of(path))})", yes=yes)
        _delete(path)
        print(path)
        return
    shared = f"revision {revision.commit[:12]} of {revision.name.partition('@')[0]} in the hub's cache"
    confirm(f"{shared} ({format_size(revision.size)})", yes=yes)
    try:
        freed = hub_cache.remove_revision(revision.commit)
    except OSError as error:
        raise DiskError(f"{revision.folder} could not be deleted: {error.strerror}", "check its permissions") from None
    print(revision.folder)
    print(f"freed {format_size(freed)}", file=sys.stderr)


def _find_revision(name: str) -> "CachedRevision | None":
    """The revision in the hub's cache that a name stands for, also one that is not whole."""
    from ... import hub_cache, model_names

    resolved = model_names.resolve(name)
    repo, _, revision = resolved.partition("@")
    folder = hub_cache.find_snapshot(repo, revision or "main") if "/" in repo else None
    return next((each for each in hub_cache.list_revisions() if folder and each.commit == folder.name), None)


def _own_path(name: str) -> Path:
    """The path of a file or folder that may be deleted; raises for what lies in the tree of another program."""
    from ... import model_catalog, places

    entry = model_catalog.describe(name)
    path = entry.description.path
    for kind in places.KINDS:
        for file in places.list_files(kind):
            if file.path.resolve() == path.resolve():
                if file.place.is_foreign:
                    raise UsageError(
                        f"{path} belongs to the program in {file.place.origin}", "delete it there, or with your files"
                    )
                return file.path
    raise ModelError(f"{path} lies outside the folders of models", "delete it yourself; diffusekit models list")


def _size_of(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _delete(path: Path) -> None:
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    except OSError as error:
        message = f"{path} could not be deleted: {error.strerror or error}"
        raise DiskError(message, "check the folder's permissions") from None
