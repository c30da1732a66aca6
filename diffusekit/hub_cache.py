"""The models in the cache of the Hugging Face hub: which revisions there are, and which can be loaded."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from . import model_files
from .errors import ModelError

_SHORT_HASH = re.compile(r"[0-9a-f]{6,39}")


@dataclass(frozen=True)
class CachedRevision:
    """One revision of a model in the cache. `problem` is "" if it can be loaded.

    `name` is what `hub.locate` takes for it: the id alone for the revision that the branch main points to.
    """

    name: str
    commit: str
    refs: tuple[str, ...]
    folder: Path
    size: int
    problem: str


def list_revisions() -> list[CachedRevision]:
    """List the models in diffusers layout that are in the cache, by id; main first, then the newest."""
    from huggingface_hub import constants, scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repos = scan_cache_dir(constants.HF_HUB_CACHE).repos
    except (CacheNotFound, OSError, ValueError):  # a ValueError when it is a file
        return []
    found = []
    for repo in sorted(repos, key=lambda repo: repo.repo_id):
        order = sorted(repo.revisions, key=lambda r: ("main" not in r.refs, -r.last_modified))
        for revision in order:
            folder = revision.snapshot_path
            if repo.repo_type != "model" or not (folder / "model_index.json").exists():
                continue
            refs = tuple(sorted(revision.refs))
            ref = "main" if "main" in refs else next(iter(refs), revision.commit_hash[:12])
            name = repo.repo_id if ref == "main" else f"{repo.repo_id}@{ref}"
            problem = find_problem(name, folder)
            found.append(CachedRevision(name, revision.commit_hash, refs, folder, revision.size_on_disk, problem))
    return found


def find_snapshot(repo: str, revision: str) -> Path | None:
    """Return the folder of a revision in the cache: a branch, a tag, or a commit, also shortened."""
    from huggingface_hub import constants

    root = Path(constants.HF_HUB_CACHE, f"models--{repo.replace('/', '--')}")
    try:
        ref = root / "refs" / revision
        commit = ref.read_text().strip() if ref.is_file() else revision
        snapshots = root / "snapshots"
        if "/" not in commit and (snapshots / commit).is_dir():
            return snapshots / commit
        if _SHORT_HASH.fullmatch(revision):
            near = [folder for folder in snapshots.iterdir() if folder.name.startswith(revision)]
            return near[0] if len(near) == 1 else None
    except (OSError, ValueError):
        return None
    return None


def find_problem(name: str, folder: Path) -> str:
    """Return why a folder cannot be loaded, in a sentence, or "" if it can."""
    try:
        stamp = tuple(
            sorted((str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file())
        )
    except OSError as error:
        return f"{folder} cannot be read: {error.strerror}"
    return _find_problem(name, folder, stamp)


@lru_cache(maxsize=256)
def _find_problem(name: str, folder: Path, _stamp: tuple[object, ...]) -> str:
    """`find_problem`, once for each state of a folder's files."""
    try:
        model_files.read_folder(name, folder)
    except ModelError as error:
        return error.message.replace(f"{folder}/", "")
    return ""
