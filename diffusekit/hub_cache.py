"""The models in the cache of the Hugging Face hub: which revisions there are, and which can be loaded."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from . import file_hashes, model_files
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


# --- hashes and removal ----------------------------------------------------------------------


@dataclass(frozen=True)
class FileCheck:
    """The hash of one file of a revision, and the one that the hub has for it; `expected` is "" if that is unknown."""

    name: str
    expected: str
    found: str

    @property
    def is_good(self) -> bool:
        return self.expected == self.found

    @property
    def is_known(self) -> bool:
        return bool(self.expected)


def check_files(folder: Path, expected: Mapping[str, str]) -> list[FileCheck]:
    """Read every file of a revision and compare its hash with the hub's.

    The cache stores a file under the hash that the hub has for it, so no network is needed. `expected` are hashes by
    name for what is stored otherwise, as on systems without links. A file SHA256SUMS in the folder counts, too.
    """
    checks, expected = [], {**_read_sums(folder / "SHA256SUMS"), **expected}
    for path in sorted(path for path in folder.rglob("*") if path.is_file() or path.is_symlink()):
        name = path.relative_to(folder).as_posix()
        stored = path.readlink().name if path.is_symlink() else ""
        wanted = stored if re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", stored) else expected.get(name, "")
        found = _hash(path, wanted) if path.exists() else "missing"
        checks.append(FileCheck(name, wanted, found))
    return checks


def _read_sums(file: Path) -> dict[str, str]:
    """Read a file of `sha256sum`: a hash and a name on each line."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return {}
    found = [re.fullmatch(r"([0-9a-f]{64}) [ *](?:\./)?(.+)", line) for line in lines]
    return {match[2]: match[1] for match in found if match}


def check_hashes(name: str, folder: Path, expected: Mapping[str, str]) -> None:
    """Compare files that were just fetched with the hub's SHA-256; a damaged one is deleted and `ModelError` raised."""
    for file, sha256 in expected.items():
        if (found := file_hashes.compute_sha256(folder / file)) != sha256:
            (folder / file).resolve().unlink()
            (folder / file).unlink(missing_ok=True)
            raise ModelError(
                f"{file} of {name} arrived damaged: its SHA-256 is {found[:16]}…, that of the hub is {sha256[:16]}…",
                "try again; the damaged file was deleted",
            )


def _hash(path: Path, wanted: str) -> str:
    """The SHA-256 of a file, or its hash in git if that is what is `wanted`."""
    if len(wanted) != 40:
        return file_hashes.compute_sha256(path)
    data = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def remove_revision(commit: str) -> int:
    """Delete a revision from the cache, with the files that no other revision shares, and return the bytes freed."""
    from huggingface_hub import constants, scan_cache_dir

    strategy = scan_cache_dir(constants.HF_HUB_CACHE).delete_revisions(commit)
    strategy.execute()
    return strategy.expected_freed_size
