"""What the name of a model, LoRA, VAE or embedding stands for: a file, a folder, an alias, or an id on the hub.

A file is named by its stem, its file name, its path below its folder, or as A1111 titles it, with `[hash]`. A name
that several files have is refused with the candidates.
"""

from __future__ import annotations

import difflib
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from . import file_hashes, hub_aliases, hub_cache, places
from .errors import ModelError, UsageError
from .places import FoundFile, Kind
from .workspace import expand

log = logging.getLogger(__name__)

_TITLE = re.compile(r"(?P<name>.*?)\s*\[(?P<hash>[0-9a-fA-F]{8,64})\]\s*")
_HASH = re.compile(r"[0-9a-fA-F]{10}|[0-9a-fA-F]{64}")
WORDS: dict[Kind, str] = {"model": "model", "lora": "LoRA", "vae": "VAE", "embedding": "embedding"}


def resolve(name: str) -> str:
    """Return what a model's name stands for: a path, an id on the hub, or the name itself if it is unknown.

    Warns of a repository that was withdrawn from the hub, and returns its successor. Raises `UsageError` for a name
    with several meanings.
    """
    if name == "mini" or not name.strip() or _is_model_path(name):
        return name
    found, alias = find_file("model", name), hub_aliases.ALIASES.get(name.lower())
    if found is not None and alias is not None:
        raise UsageError(
            f"{name!r} is the file {found.path} and an alias of {alias.repo}",
            f"write {found.path.name} for the file, or {alias.repo} for the other",
        )
    if found is not None:
        return str(found.path)
    return alias.id if alias is not None else _successor(name)


def find_file(kind: Kind, name: str) -> FoundFile | None:
    """Find a file of a kind in the user's folders by its name; None if there is none.

    Raises `UsageError` when several files have the name, and `ModelError` when the hash in an A1111 title is not the
    file's.
    """
    title = _TITLE.fullmatch(name)
    wanted, sha = (title["name"], title["hash"].lower()) if title else (name, "")
    wanted = wanted.strip().replace("\\", "/")
    files = places.list_files(kind)
    found = _matches(wanted, files) or _matches(wanted.lower(), files, fold=True)
    if not found and _HASH.fullmatch(wanted):
        found = [file for file in files if file_hashes.known_sha256(file.path).startswith(wanted.lower())]
    if len(found) > 1:  # of dreamy.safetensors and dreamy.ckpt, the first can be loaded
        found = [file for file in found if not file.is_pickle] or found
    if sha and found:
        found = _with_hash(name, found, sha)
    if len(found) > 1:
        raise UsageError(
            f"{name!r} is the name of {len(found)} files: {_join([str(file.path) for file in found])}",
            "give one of these paths",
        )
    return found[0] if found else None


def locate_file(kind: Kind, name: str) -> Path:
    """Return the path of a LoRA, VAE or embedding: a path, or a name in the user's folders.

    Raises `ModelError` with near names when there is none, and what `find_file` raises.
    """
    if _is_path(name) and (path := expand(name)).is_file():
        return path
    if found := find_file(kind, name):
        return found.path
    raise missing(kind, name)


def missing(kind: Kind, name: str) -> ModelError:
    """Return the error for a name that no file has, with near names or the folders that were looked into."""
    names = list(short_names(kind))
    where = _join([str(root) for root in places.roots()])
    hint = f"put it into one of the folders {where}, or give the path of a file"
    if names:
        hint = f"{find_near(name, names)}there are: {', '.join(names[:8])}{', …' if len(names) > 8 else ''}"
    return ModelError(f"there is no {WORDS[kind]} {name[:200]!r} in {where}{say_absent_roots()}", hint)


def find_near(name: str, names: Iterable[str]) -> str:
    """Return the beginning of a hint: "did you mean dreamy? ", or "" when no name is like this one."""
    lowered = {known.lower(): known for known in names}
    near = [lowered[match] for match in difflib.get_close_matches(name.lower(), lowered, 3, 0.6)]
    return f"did you mean {' or '.join(near)}? " if near else ""


def say_absent_roots() -> str:
    """Say which folders that the user named do not exist: "; /mnt/models does not exist"."""
    absent = [str(root) for root in places.roots()[1:] if not root.is_dir()]
    return f"; {_join(absent)} {'do' if len(absent) > 1 else 'does'} not exist" if absent else ""


def short_names(kind: Kind) -> dict[str, FoundFile]:
    """Name every file of a kind as shortly as `find_file` finds it: by its stem, else by more of its path."""
    files = places.list_files(kind)
    taken = {"mini", *hub_aliases.ALIASES} if kind == "model" else set()
    long, short = (
        Counter(name.lower() for file in files for name in spellings(file))
        for spellings in (_long_spellings, _short_spellings)
    )
    named: dict[str, FoundFile] = {}
    for file in files:
        for name in (file.stem, file.path.name, file.name):
            count = long.get(name.lower()) or short[name.lower()]
            if count == 1 and name.lower() not in taken:
                named[name] = file
                break
        else:
            named[str(file.path)] = file
    return named


def _matches(name: str, files: Iterable[FoundFile], *, fold: bool = False) -> list[FoundFile]:
    """The files with a name: of all that match, those that match by the longest spelling."""
    for spellings in (_long_spellings, _short_spellings):
        found = [file for file in files if name in {s.lower() if fold else s for s in spellings(file)}]
        if found:
            return found
    return []


def _long_spellings(file: FoundFile) -> set[str]:
    """The names of a file with its ending."""
    return {file.name, file.path.name}


def _short_spellings(file: FoundFile) -> set[str]:
    """The names of a file without its ending."""
    folder = file.name.rpartition("/")[0]
    return {file.stem, f"{folder}/{file.stem}" if folder else file.stem}


def _with_hash(title: str, files: Sequence[FoundFile], sha: str) -> list[FoundFile]:
    """Keep the files with a hash. Raises `ModelError` when none has it."""
    found, hashes = [], []
    for file in files:
        if file.path.is_dir():
            continue
        hashes.append(file_hashes.old_hash(file.path) if len(sha) == 8 else file_hashes.sha256_of(file.path))
        if hashes[-1].startswith(sha):
            found.append(file)
    if found:
        return found
    raise ModelError(
        f"the hash in {title!r} is not that of {files[0].path}{f', which is {hashes[0][:10]}' if hashes else ''}",
        "leave out the hash to use this file",
    )


def _successor(name: str) -> str:
    """Return the repository that has the files of a withdrawn one, unless the old one is still in the cache."""
    repo, at, revision = name.partition("@")
    successor = hub_aliases.WITHDRAWN.get(repo)
    if successor is None or hub_cache.find_snapshot(repo, revision or "main") is not None:
        return name
    log.warning("%s was withdrawn from the hub; %s has the same files and is used", repo, successor)
    return f"{successor}{at}{revision}"


def _is_model_path(name: str) -> bool:
    """Whether a name is that of a file or folder that exists, and of a folder here only if it is a model."""
    try:
        path = expand(name)
        return path.is_file() or (path.is_dir() and (_is_path(name) or (path / "model_index.json").is_file()))
    except (OSError, ValueError):  # too long, or with characters that no path has
        return False


def _is_path(name: str) -> bool:
    return "\0" not in name and (os.sep in name or "/" in name or name.startswith("~") or bool(Path(name).suffix))


def _join(names: Sequence[str]) -> str:
    shown = list(names[:6])
    if len(names) > 6:
        return f"{', '.join(shown)} and {len(names) - 6} more"
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)
