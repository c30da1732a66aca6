"""Find, fetch and verify models: the embedded `mini`, a folder in diffusers layout, or a Hugging Face hub id.

Everything here works on file names and JSON. No weights are read and nothing in a model's folder is run.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from .display import first_line
from .errors import ModelError
from .version import __version__

MINI = Path(__file__).with_name("mini")
FAST_LORA = "fast.safetensors"  # a LoRA of the U-Net for few steps without guidance, beside model_index.json
PIPELINES = ("StableDiffusionPipeline",)
_NETWORKS = ("text_encoder", "unet", "vae")
_PARTS = ("tokenizer", "text_encoder", "unet", "vae", "scheduler")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")


def locate(name: str) -> tuple[Path, str]:
    """Return (folder, revision) of a model: embedded, local, in the hub's cache, or fetched from the hub.

    Raises `ModelError` for an unknown name and for a model that cannot be fetched.
    """
    if name == "mini":
        return MINI, f"diffusekit-{__version__}"
    if (path := Path(name).expanduser()).is_dir():
        return path.resolve(), ""
    if not _HUB_ID.fullmatch(name) or path.suffix in (".safetensors", ".ckpt"):
        raise ModelError(
            f"there is no model {name!r}",
            f"available: {', '.join(installed())}; or a folder, or a hub id like owner/name",
        )
    return _from_hub(name)


def installed() -> dict[str, Path]:
    """List the models that need no network by name: `mini` and those in the hub's cache."""
    from huggingface_hub import constants, scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    models = {"mini": MINI}
    try:
        repos = scan_cache_dir(constants.HF_HUB_CACHE).repos
    except CacheNotFound:
        return models
    for repo in sorted(repos, key=lambda repo: repo.repo_id):
        for revision in repo.revisions:
            if repo.repo_type == "model" and (revision.snapshot_path / "model_index.json").exists():
                models[repo.repo_id] = revision.snapshot_path
    return models


def verify(name: str, folder: Path) -> None:
    """Raise `ModelError` unless the folder holds every part of a supported pipeline."""
    try:
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
        pipeline = index["_class_name"]
    except (OSError, ValueError, KeyError, TypeError):
        raise ModelError(
            f"{folder} is not a model in diffusers layout (no readable model_index.json)",
            "give the folder that holds model_index.json, unet/, vae/, text_encoder/ and tokenizer/",
        ) from None
    if pipeline not in PIPELINES:
        raise ModelError(f"{name} is a {pipeline}, which is not supported", f"supported: {', '.join(PIPELINES)}")
    missing = [part for part in _PARTS if not (folder / part).is_dir()]
    if missing:
        raise ModelError(f"the model {name} has no {' and no '.join(missing)}", "fetch the whole model again")


def weight_variant(folder: Path, *, half: bool) -> str | None:
    """Return the `variant` of a network's weights to load: "fp16", or None for the full files.

    Half-precision files are chosen when `half` is set or when there are no others. Raises `ModelError` when
    there are no safetensors, or when an index names a file outside the folder.
    """
    names = sorted(path.name for path in folder.glob("*.safetensors"))
    if not names:
        raise ModelError(
            f"{folder} holds no .safetensors weights",
            "only safetensors are loaded, because pickles can run code; convert the model first",
        )
    for index in folder.glob("*.safetensors.index*.json"):
        shards = json.loads(index.read_text()).get("weight_map", {}).values()
        if any(Path(shard).name != shard or "\\" in shard or ":" in shard for shard in shards):
            raise ModelError(f"{index} names a file outside its folder", "do not use this model")
    full = [name for name in names if ".fp16." not in name]
    return "fp16" if not full or (half and len(full) < len(names)) else None


def _from_hub(name: str) -> tuple[Path, str]:
    from huggingface_hub import constants, snapshot_download

    repo, _, revision = name.partition("@")
    revision = revision or "main"
    try:
        cached = snapshot_download(repo, revision=revision, allow_patterns=["model_index.json"], local_files_only=True)
        if _is_complete(folder := Path(cached)):
            return folder, folder.name
    except Exception:  # not in the cache: every reason has its own type
        pass
    hint = f"available without a network: {', '.join(installed())}"
    if constants.HF_HUB_OFFLINE:
        raise ModelError(f"the model {name} is not in the cache, and HF_HUB_OFFLINE is set", hint)
    try:
        folder = Path(snapshot_download(repo, revision=revision, allow_patterns=_files_to_fetch(repo, revision)))
    except Exception as error:
        reason = first_line(error)
        raise ModelError(f"the model {name} could not be fetched from {constants.ENDPOINT}: {reason}", hint) from error
    return folder, folder.name


def _is_complete(folder: Path) -> bool:
    """Whether a cached model has all parts; an interrupted download leaves some out."""
    parts = all((folder / part).is_dir() for part in _PARTS)
    return parts and all(any((folder / part).glob("*.safetensors")) for part in _NETWORKS)


def _files_to_fetch(repo: str, revision: str) -> list[str]:
    """List the files of a hub model that are needed: configurations, and one precision of the weights."""
    from huggingface_hub import HfApi

    files = [s.rfilename for s in HfApi().model_info(repo, revision=revision).siblings or []]
    needed = [f for f in files if f == "model_index.json" or (f.startswith(_PARTS) and f.endswith((".json", ".txt")))]
    for part in _NETWORKS:
        weights = [f for f in files if f.startswith(f"{part}/") and f.endswith(".safetensors") and "non_ema" not in f]
        full = [f for f in weights if ".fp16." not in f]
        needed += full or weights
    return needed
