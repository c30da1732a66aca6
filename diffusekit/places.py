"""Where model files lie on this machine: ./models, the folders that the user names, and A1111, Forge and ComfyUI.

Only names of folders and files are read here, and of files in folders of mixed content the headers.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

from . import config, model_files
from .workspace import Workspace, expand

Kind = Literal["model", "lora", "vae", "embedding"]
KINDS: tuple[Kind, ...] = get_args(Kind)
# Names of folders in A1111, Forge, ComfyUI and Stability Matrix, in lower case. Mixed case differs between them.
_FOLDERS: dict[str, Kind] = {
    **dict.fromkeys(("stable-diffusion", "checkpoints", "stablediffusion", "diffusers"), "model"),
    **dict.fromkeys(("lora", "loras", "lycoris"), "lora"),
    **dict.fromkeys(("vae", "vae_approx"), "vae"),
    **dict.fromkeys(("embeddings", "textualinversion"), "embedding"),
}
# Folders of these programs whose files are something else.
_OTHER_FOLDERS = {"controlnet", "clip", "clip_vision", "unet", "diffusion_models", "text_encoders", "text_encoder"}
_OTHER_FOLDERS |= {"upscale_models", "esrgan", "realesrgan", "swinir", "gfpgan", "codeformer", "hypernetworks"}
_OTHER_FOLDERS |= {"style_models", "photomaker", "gligen", "deepbooru", "karlo", "vae-approx", "configs", "outputs"}
_MARKERS = {"stable-diffusion", "checkpoints", "stablediffusion"}  # of a folder whose folders are those of a program
_WEIGHTS = (".safetensors", ".sft")
_PICKLES = (".ckpt", ".pt", ".pth", ".bin")
_ENDINGS: dict[Kind, tuple[str, ...]] = {
    "model": (*_WEIGHTS, ".ckpt"),
    "lora": (*_WEIGHTS, ".pt", ".ckpt"),
    "vae": (*_WEIGHTS, ".pt", ".ckpt"),
    "embedding": (".safetensors", ".pt", ".bin"),
}
_MAX_DEPTH, _MAX_ENTRIES = 6, 20_000
_MAX_YAML = 2**20  # bytes


@dataclass(frozen=True)
class Place:
    """A folder with files of one `kind`, or of any kind if that is None. `origin` is the folder that the user named.

    `is_foreign` says that it is one of another program.
    """

    folder: Path
    kind: Kind | None
    origin: Path
    is_foreign: bool = False


@dataclass(frozen=True)
class FoundFile:
    """A file, or a folder in diffusers layout. `name` is its path below its place: "SDXL/dreamy.safetensors"."""

    path: Path
    kind: Kind
    name: str
    place: Place

    @property
    def stem(self) -> str:
        """The name of the file without folder and ending: "dreamy"."""
        return stem_of(self.path) if self.path.suffix.lower() in (*_WEIGHTS, *_PICKLES) else self.path.name

    @property
    def is_pickle(self) -> bool:
        return self.path.suffix.lower() in _PICKLES


def stem_of(path: Path) -> str:
    """Return a file's name without its ending; that of a VAE may be .vae.safetensors."""
    return path.stem.removesuffix(".vae")


def roots() -> list[Path]:
    """List the folders in which models are looked for: ./models, then those that the user names. They may not exist."""
    return [Workspace().models, *config.model_folders()]


def list_places() -> list[Place]:
    """List the folders below `roots` that hold model files, the first root first."""
    found: dict[tuple[Path, Kind | None], Place] = {}
    for root in roots():
        for place in _places_of(root):
            found.setdefault((_real(place.folder), place.kind), place)
    return list(found.values())


def list_files(kind: Kind) -> list[FoundFile]:
    """List all files of a kind by place and name. The same file in two places is listed once."""
    found: dict[Path, FoundFile] = {}
    for place in list_places():
        for path in _walk(place, kind):
            if _kind_of(path, place) == kind:
                name = path.relative_to(place.folder).as_posix()
                found.setdefault(_real(path), FoundFile(path, kind, name, place))
    return list(found.values())


def _real(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError):  # a loop of links
        return path.absolute()


# --- folders ---------------------------------------------------------------------------------


def _places_of(root: Path) -> Iterator[Place]:
    """Find the folders of a program below `root`, or take it as one folder of mixed content."""
    bases = [root, root / "models", root / "Models", root / "ComfyUI" / "models", root / "Data" / "Models"]
    programs = [base for base in bases if _MARKERS & {name.lower() for name in _folders_in(base)}]
    for base in programs or ([root] if root.is_dir() else []):
        for name in _folders_in(base):
            if kind := _FOLDERS.get(name.lower()):
                yield Place(base / name, kind, root, is_foreign=bool(programs) and root != Workspace().models)
    if not programs:
        if root.is_dir():
            yield Place(root, None, root)
        return
    if (root / "embeddings").is_dir():  # A1111 and Forge have it beside models/
        yield Place(root / "embeddings", "embedding", root, is_foreign=True)
    for folder in (root, root / "ComfyUI"):
        yield from _extra_places(folder / "extra_model_paths.yaml", root)


def _folders_in(folder: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    except OSError:
        return []


def _extra_places(file: Path, root: Path) -> Iterator[Place]:
    """Read ComfyUI's list of more folders. A file that cannot be read, or a line of another kind, has no effect."""
    import yaml

    try:
        if file.stat().st_size > _MAX_YAML:
            return
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return
    for section in content.values() if isinstance(content, dict) else ():
        if isinstance(section, dict):
            yield from _section_places(section, file.parent, root)


def _section_places(section: dict[Any, Any], folder: Path, root: Path) -> Iterator[Place]:
    base = section.get("base_path")
    start = folder / expand(os.path.expandvars(base)) if isinstance(base, str) else folder
    for name, value in section.items():
        kind = _FOLDERS.get(str(name).lower())
        for line in value.splitlines() if kind and isinstance(value, str) else ():
            if line.strip() and (start / line.strip()).is_dir():
                yield Place(start / line.strip(), kind, root, is_foreign=True)


# --- files -----------------------------------------------------------------------------------


def _walk(place: Place, kind: Kind) -> Iterator[Path]:
    """Yield the files of a place that may be of a kind, and for models the folders in diffusers layout."""
    if place.kind not in (None, kind) and not (kind == "vae" and place.kind == "model"):
        return
    waiting, seen, count = [(place.folder, 0)], set(), 0
    while waiting:
        folder, depth = waiting.pop()
        real = _real(folder)
        if real in seen:
            continue
        seen.add(real)
        for entry in _entries(folder):
            count += 1
            if count > _MAX_ENTRIES:
                return
            path = Path(entry.path)
            if entry.is_dir():
                if (path / "model_index.json").is_file():
                    if kind == "model":
                        yield path
                elif depth < _MAX_DEPTH and not _is_apart(entry.name, place):
                    waiting.append((path, depth + 1))
            elif path.suffix.lower() in _ENDINGS[kind]:
                yield path


def _entries(folder: Path) -> Iterable[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted((e for e in entries if not e.name.startswith(".")), key=lambda entry: entry.name)
    except OSError:
        return ()


def _is_apart(name: str, place: Place) -> bool:
    """Whether a folder inside a place of mixed content is a place of its own, or holds other things."""
    return place.kind is None and name.lower() in (_OTHER_FOLDERS | _FOLDERS.keys())


def _kind_of(path: Path, place: Place) -> str:
    """Tell the kind of a file: by its place, or in a folder of mixed content by its header."""
    if path.is_dir():
        return "model"
    is_vae = path.stem.lower().endswith(".vae")
    if place.kind is not None:
        return "vae" if is_vae and place.kind == "model" else place.kind
    if is_vae:
        return "vae"
    try:
        status = path.stat()
    except OSError:
        return ""
    return _kind_by_header(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=4096)
def _kind_by_header(path: Path, _size: int, _time: int) -> str:
    """Tell the kind of a file, once for each state of it. A file that says nothing is listed as a model."""
    return model_files.describe(path.name, path).kind or "model"
