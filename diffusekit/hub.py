"""Find and fetch models: the embedded `mini`, a folder in diffusers layout, a one-file checkpoint, or a hub id.

Everything here works on file names and JSON. No weights are read and nothing in a model's folder is run.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import hub_cache, model_files, model_names
from .display import first_line, format_size
from .errors import DiffusekitError, DiskError, ModelError, UsageError
from .model_files import Family
from .version import __version__
from .workspace import expand

MINI = Path(__file__).with_name("mini")
FAST_LORA = "fast.safetensors"  # a LoRA of the U-Net for few steps without guidance, beside model_index.json
_HUB_ID = re.compile(r"(?!\.+/)[\w.-]+/(?!\.+(@|$))[\w.-]+(@(?!.*\.\.)[\w./-]+)?")
_SNAPSHOT = re.compile(
    r".*[/\\]models--(?P<owner>[\w.-]+?)--(?P<name>[\w.-]+)[/\\]snapshots[/\\](?P<commit>[0-9a-f]{40})"
)


@dataclass(frozen=True)
class Location:
    """Where a model is.

    `name` is what records say: mini, a hub id, or the own name of a folder or file, never its path. `folder` is the
    file of a one-file checkpoint. `revision` is the commit on the hub, "" for a local folder or file.
    """

    name: str
    folder: Path
    revision: str


def locate(name: str, *, half: Callable[[], bool] = lambda: False, fetch: bool = True) -> Location:
    """Find a model: embedded, local, in the hub's cache, or fetched from the hub.

    `name` may also be a name in the user's folders (`model_names`) or an alias. `half` says whether half precision is
    needed, and is only called before a download. Without `fetch`, nothing is downloaded.
    Raises `ModelError` for an unknown name, for what is not a model, and for a model that cannot be fetched,
    `DiskError` for a full disk, and `UsageError` for a name of several models.
    """
    if name == "mini":
        return Location("mini", MINI, f"diffusekit-{__version__}")
    if not name.strip():
        raise ModelError("the name of the model is empty", f"available: {_list_installed()}")
    name = model_names.resolve(name)
    path = expand(name)
    if refusal := model_files.refuse(name, path):
        raise refusal
    if "\0" not in name and path.is_dir():
        return _local(path.resolve())
    if "\0" not in name and path.is_file():  # a one-file checkpoint: everything else was refused
        return Location(path.stem, path.resolve(), "")
    if _HUB_ID.fullmatch(name) and path.suffix.lower() not in (".safetensors", ".ckpt", ".gguf", ".pt", ".bin"):
        return _from_hub(name, half, fetch=fetch)
    near = model_names.find_near(name, installed())
    hint = f"{near}available: {_list_installed()}; or a folder, or a hub id like owner/name"
    if len(path.parts) > 1:
        raise ModelError(f"there is no model {name!r}: {_missing_from(path)}", hint)
    raise ModelError(f"there is no model {name!r}{model_names.say_absent_roots()}", hint)


def installed() -> dict[str, Path]:
    """List the models that are here by name: `mini`, those in the user's folders, and those in the hub's cache."""
    local = {name: file.path for name, file in model_names.short_names("model").items() if not file.is_pickle}
    return {"mini": MINI} | local | {each.name: each.folder for each in hub_cache.list_revisions() if not each.problem}


def _list_installed() -> str:
    """The names of the first models that are here."""
    names = list(installed())
    return f"{', '.join(names[:12])}{f' and {len(names) - 12} more' if len(names) > 12 else ''}"


def locate_vae(name: str) -> Path:
    """Return the file or folder of a VAE: a path, a name in the user's folders, or a hub id that is in the cache.

    Raises `ModelError` when there is none, and `UsageError` for a name of several files.
    """
    path = expand(name)
    if "\0" not in name and path.exists():
        return path
    if found := model_names.find_file("vae", name):
        return found.path
    repo, _, revision = name.partition("@")
    if _HUB_ID.fullmatch(name) and (cached := hub_cache.find_snapshot(repo, revision or "main")):
        return cached
    raise model_names.missing("vae", name)


def record_name(name: str) -> str:
    """Return what records call the model `name`: for a folder or file its own name, without its path."""
    path = expand(name)
    if name != "mini" and "\0" not in name and path.is_file():
        return path.stem
    return name if name == "mini" or "\0" in name or not path.is_dir() else _local(path.resolve()).name


def is_current(name: str, folder: Path) -> bool:
    """Whether the model `name` still lies in `folder`: the current folder or a branch of the hub may have changed."""
    path = expand(name)
    if name == "mini" or "\0" in name:
        return True
    if path.exists():
        return path.resolve() == folder
    repo, _, revision = name.partition("@")
    if not _HUB_ID.fullmatch(name):
        return True
    return hub_cache.find_snapshot(repo, revision or "main") in (folder, None)


def _local(folder: Path) -> Location:
    """Return the location of a folder; a snapshot of the hub's cache keeps its id and commit."""
    if match := _SNAPSHOT.fullmatch(str(folder)):
        return Location(f"{match['owner']}/{match['name']}", folder, match["commit"])
    return Location(folder.name or "model", folder, "")


def _missing_from(path: Path) -> str:
    """Say which folder of a path does not exist."""
    for above in (*reversed(path.parents), path):
        try:
            if not above.exists():
                return f"{above} does not exist"
        except (OSError, ValueError):
            break
    return "it does not exist"


# --- the hub ---------------------------------------------------------------------------------


def pull(name: str, *, half: bool) -> Location:
    """Fetch what is missing of a model of the hub in one precision, also when another precision is here already.

    Raises `UsageError` for a name that is not one of the hub, and what `locate` raises.
    """
    from huggingface_hub import constants

    asked, name = name, model_names.resolve(name)
    if not _HUB_ID.fullmatch(name) or expand(name).exists():
        raise UsageError(f"{asked[:200]!r} is not a model of the hub", "give an id like owner/name, or an alias")
    if constants.HF_HUB_OFFLINE:
        raise ModelError(f"the model {name} cannot be fetched, because HF_HUB_OFFLINE is set", "unset the variable")
    repo, _, revision = name.partition("@")
    folder = _fetch(name, repo, revision or "main", lambda: half, f"available without a network: {_list_installed()}")
    return Location(name, folder, folder.name)


def _from_hub(name: str, half: Callable[[], bool], *, fetch: bool) -> Location:
    """Take a model from the cache if it is whole, else fetch what is missing."""
    from huggingface_hub import constants

    repo, _, revision = name.partition("@")
    revision = revision or "main"
    cached, problem = hub_cache.find_snapshot(repo, revision), None
    if cached is not None:
        if (cached / "model_index.json").is_file():
            model_files.describe_class(name, cached / "model_index.json")
        problem = hub_cache.find_problem(name, cached)
        if not problem and (constants.HF_HUB_OFFLINE or not fetch or not model_files.lacks_checker(cached)):
            return Location(name, cached, cached.name)
    hint = f"available without a network: {_list_installed()}"
    if constants.HF_HUB_OFFLINE or not fetch:
        where = f"is not whole in the cache ({problem})" if problem else "is not in the cache"
        why, hint = (", and HF_HUB_OFFLINE is set", hint) if constants.HF_HUB_OFFLINE else ("", _pull_hint(name))
        raise ModelError(f"the model {name} {where}{why}{_no_folder(name)}", hint)
    try:
        folder = _fetch(name, repo, revision, half, hint)
    except ModelError:
        if cached is None or problem:
            raise
        folder = cached  # only its safety checker is missing
    return Location(name, folder, folder.name)


def _pull_hint(name: str) -> str:
    return f"fetch it: diffusekit models pull {name}"


def _no_folder(name: str) -> str:
    """Say that a name that looks like a hub id could also be a path, and that there is nothing at that path."""
    return "" if "@" in name else f"; there is no folder {name} here either"


def _fetch(name: str, repo: str, revision: str, half: Callable[[], bool], hint: str) -> Path:
    """Fetch a model: its class first, then its configurations, then one precision of its weights."""
    from huggingface_hub import HfApi, snapshot_download

    def fetch(files: list[str]) -> Path:
        with _download_errors(name, hint):
            return Path(snapshot_download(repo, revision=revision, allow_patterns=files))

    with _download_errors(name, hint):
        siblings = HfApi().model_info(repo, revision=revision, files_metadata=True).siblings or []
    hashes = {sibling.rfilename: lfs.sha256 for sibling in siblings if (lfs := getattr(sibling, "lfs", None))}
    sizes = {sibling.rfilename: sibling.size or 0 for sibling in siblings}
    if "model_index.json" not in sizes:
        raise ModelError(f"{name} is not a model in diffusers layout: {_contents(sizes)}", hint)
    index_file = fetch(["model_index.json"]) / "model_index.json"
    family = model_files.describe_class(name, index_file)
    index = model_files.read_json(index_file)
    parts = (*family.parts, *(model_files.CHECKER_FOLDERS if model_files.names_checker(index) else ()))
    folders = tuple(f"{part}/" for part in parts)
    needed = ["model_index.json", *(f for f in sizes if f.startswith(folders) and f.endswith((".json", ".txt")))]
    weights = _weights_to_fetch(name, family, list(sizes), half=half()) + _checker_weights(needed, list(sizes), half())
    folder = fetch(needed)
    model_files.read_folder(name, folder, weights=False)
    _check_disk(name, sum(sizes[file] for file in weights if not (folder / file).exists()), folder)
    fresh = [file for file in weights if not (folder / file).exists()]
    if fetch([*needed, *weights]) != folder:
        raise ModelError(f"{repo} changed on the hub while {revision} was fetched", "try again")
    hub_cache.check_hashes(name, folder, {file: hashes[file] for file in fresh if file in hashes})
    model_files.read_folder(name, folder)
    return folder


def _weights_to_fetch(name: str, family: Family, files: list[str], *, half: bool) -> list[str]:
    """Choose the weights of every network among the files of a repository, in one precision."""
    needed = []
    for part in family.networks:
        inside = [file.removeprefix(f"{part}/") for file in files if file.startswith(f"{part}/")]
        try:
            chosen = model_files.choose_weights(inside, model_files.stem_of(part), half=half)
        except ModelError as error:
            raise ModelError(f"{name}/{part} {error.message}; nothing was fetched", error.hint) from None
        needed += [f"{part}/{file}" for file in chosen.names]
    return needed


def _checker_weights(needed: list[str], files: list[str], half: bool) -> list[str]:
    """Choose the weights of the safety checker, if it is needed and there are any that can be loaded."""
    if not any(file.startswith("safety_checker/") for file in needed):
        return []
    inside = [file.removeprefix("safety_checker/") for file in files if file.startswith("safety_checker/")]
    try:
        names = model_files.choose_weights(inside, model_files.stem_of("safety_checker"), half=half).names
    except ModelError:
        return []  # only as a pickle: it is refused when images are made
    return [f"safety_checker/{name}" for name in names]


def _contents(sizes: dict[str, int]) -> str:
    """Say what a repository without model_index.json holds."""
    top = sorted(file for file in sizes if "/" not in file)
    models = [file for file in top if file.endswith((".safetensors", ".ckpt", ".gguf", ".bin"))]
    if any("lora" in file.lower() for file in models):
        return f"it holds a LoRA ({models[0]}), which changes a model and is not one"
    if models and "config.json" in sizes:
        return f"it holds one network ({models[0]})"
    if models:
        size = f", {format_size(sizes[models[0]])}" if sizes[models[0]] else ""
        return f"it holds {models[0]}{size}, and files are not fetched one by one: download it and give its path"
    return f"it has no model_index.json, but {', '.join(top[:3]) or 'no files'}"


def _check_disk(name: str, size: int, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if size > free:
        raise DiskError(
            f"the model {name} needs {format_size(size)} more, and the disk of the cache has {format_size(free)} free",
            "free some space, or set HF_HOME to a folder on a larger disk",
        )


@contextmanager
def _download_errors(name: str, hint: str) -> Iterator[None]:
    """Turn whatever a download raises into `ModelError`, or `DiskError` when the disk is full."""
    from huggingface_hub import constants

    try:
        yield
    except DiffusekitError:
        raise
    except Exception as error:  # every reason has its own type
        if getattr(error, "errno", None) == 28:
            raise DiskError(
                f"the disk became full while {name} was fetched", "free some space, then try again"
            ) from error
        reason = _reason(error)
        raise ModelError(
            f"the model {name} could not be fetched from {constants.ENDPOINT}: {reason}{_no_folder(name)}", hint
        ) from error


def _reason(error: Exception) -> str:
    from huggingface_hub import errors

    kinds: list[tuple[Any, str]] = [
        (errors.GatedRepoError, "its owner asks for an agreement first; accept it there, then run `hf auth login`"),
        (errors.RevisionNotFoundError, "it has no such revision"),
        (errors.RepositoryNotFoundError, "there is no such repository, or it is private"),
    ]
    return next((text for kind, text in kinds if isinstance(error, kind)), first_line(error))
