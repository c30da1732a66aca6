"""Names that the shell completes: models, LoRA, VAE files, embeddings. Install it with --install-completion."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ..errors import DiffusekitError


def complete_model(incomplete: str) -> list[str]:
    """The names of models that begin with what was typed: local files, aliases, and what is in the hub's cache."""
    from ..hub_aliases import ALIASES

    return _begin(incomplete, ["mini", *_local_names("model"), *ALIASES, *_cached_ids()])


def complete_lora(incomplete: str) -> list[str]:
    return _begin(incomplete, _local_names("lora"))


def complete_vae(incomplete: str) -> list[str]:
    return _begin(incomplete, _local_names("vae"))


def complete_embedding(incomplete: str) -> list[str]:
    from ..workspace import Workspace

    own = (path.stem for path in Workspace().embeddings.glob("*.safetensors"))
    return _begin(incomplete, [*own, *_local_names("embedding")])


COMPLETIONS: dict[str, Callable[[str], list[str]]] = {
    "model": complete_model,
    "lora": complete_lora,
    "vae": complete_vae,
    "embedding": complete_embedding,
}


def _begin(incomplete: str, names: Iterable[str]) -> list[str]:
    """The names that begin with what was typed, and paths that do, because a path may be meant, too."""
    found = [name for name in dict.fromkeys(names) if name.lower().startswith(incomplete.lower())]
    return [*sorted(found), *_paths(incomplete)]


def _paths(incomplete: str) -> Iterator[str]:
    """Files and folders that begin with a path that was typed."""
    folder, _, start = incomplete.rpartition("/")
    if not folder and not incomplete.startswith((".", "/")):
        return
    with contextlib.suppress(OSError, ValueError):
        for path in sorted(Path(folder or "/").iterdir()):
            if path.name.startswith(start) and not path.name.startswith("."):
                yield f"{folder}/{path.name}{'/' if path.is_dir() else ''}"


def _local_names(kind: str) -> list[str]:
    from .. import model_names, places

    wanted = places.KINDS[places.KINDS.index(kind)]
    try:
        return list(model_names.short_names(wanted))
    except (DiffusekitError, OSError):  # a configuration file that cannot be read: the verb itself will say so
        return []


def _cached_ids() -> list[str]:
    """The ids in the hub's cache by the names of its folders, which takes no time."""
    from huggingface_hub import constants

    with contextlib.suppress(OSError):
        folders = Path(constants.HF_HUB_CACHE).glob("models--*--*")
        return [folder.name.removeprefix("models--").replace("--", "/", 1) for folder in folders if _has_model(folder)]
    return []


def _has_model(folder: Path) -> bool:
    return any(folder.glob("snapshots/*/model_index.json"))
