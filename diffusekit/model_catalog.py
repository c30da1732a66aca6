"""All models that are here, described: the embedded one, those in the user's folders, those in the hub's cache."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from . import hub, hub_cache, model_files, model_names, places
from .model_files import Description
from .version import __version__


@dataclass(frozen=True)
class CatalogEntry:
    """A model, LoRA, VAE or embedding that is here.

    `name` is the shortest name that stands for it, `place` says where it lies, in words. `revision` is the commit of a
    model of the hub, with the branches and tags `refs` that point to it. `file` is set for what lies in a folder of the
    user's.
    """

    name: str
    description: Description
    place: str
    revision: str = ""
    refs: tuple[str, ...] = ()
    file: places.FoundFile | None = None


def list_entries(kind: places.Kind = "model") -> list[CatalogEntry]:
    """List what is here of a kind, also what cannot be loaded: its description has a `problem`."""
    found = [*_embedded(kind)]
    for name, file in model_names.short_names(kind).items():
        found.append(CatalogEntry(name, describe_path(name, file.path), str(file.place.origin), file=file))
    if kind == "model":
        for each in hub_cache.list_revisions():
            description = describe_path(each.name, each.folder)
            found.append(CatalogEntry(each.name, description, "hub cache", each.commit, each.refs))
    return found


def describe(name: str) -> CatalogEntry:
    """Describe the model, LoRA, VAE or embedding of a name. Nothing is fetched.

    Raises `ModelError` for a name that nothing has. What cannot be loaded has a `problem`.
    """
    if name == "mini":
        return next(_embedded("model"))
    path = _path_of(name)
    if path is not None:
        return CatalogEntry(name, describe_path(name, path), str(path.parent))
    place = hub.locate(name, fetch=False)
    where = "hub cache" if place.revision else str(place.folder.parent)
    return CatalogEntry(place.name, describe_path(place.name, place.folder), where, place.revision)


def describe_path(name: str, path: Path) -> Description:
    """Describe a file or folder, once for each state of its files."""
    try:
        inside = sorted(path.rglob("*")) if path.is_dir() else [path]
        state = tuple((str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in inside if p.is_file())
    except OSError:
        return model_files.describe(name, path)
    return replace(_describe(path, state), name=name)


@lru_cache(maxsize=1024)
def _describe(path: Path, _state: tuple[object, ...]) -> Description:
    return model_files.describe(path.name, path)


def _embedded(kind: places.Kind) -> Iterator[CatalogEntry]:
    if kind == "model":
        description = replace(describe_path("mini", hub.MINI), label="embedded model", defaults=None)
        yield CatalogEntry("mini", description, "embedded", f"diffusekit-{__version__}")


def _path_of(name: str) -> Path | None:
    """Return the path that a name stands for, if it is one here; None for an id on the hub."""
    resolved = Path(model_names.resolve(name))
    try:
        if resolved.expanduser().exists():
            return resolved.expanduser()
    except (OSError, ValueError, RuntimeError):
        return None
    for kind in places.KINDS[1:]:
        if found := model_names.find_file(kind, name):
            return found.path
    return None
