"""Where LoRA files lie, and which of them a name means."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from .. import places
from ..display import quote
from ..errors import FileRefused, UsageError
from ..workspace import Workspace
from .weights import ENDING, LoraHeader, read_lora_header

PICKLE_ENDINGS = (".pt", ".pth", ".bin", ".ckpt")
NO_PICKLES = "fetch its .safetensors file, or save its tensors with safetensors in a program that you trust it to"
_IN_FOLDER = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors")  # of diffusers, of PEFT


def lora_folder(folder: Path | str | None = None) -> Path:
    """Return the first folder that is searched: `folder`, or loras in the current directory."""
    return Path(folder) if folder else Workspace().loras


def list_files(folder: Path | str | None = None) -> dict[str, Path]:
    """List the LoRA files in `lora_folder(folder)` and below, then those in the places of other models, by name.

    The name is the file's without its ending. Files of one name have their folders in it, and of two places the first
    one counts.
    """
    found: dict[str, Path] = {}
    for files in (_files_in(lora_folder(folder)), _files_of_places()):
        inside = [(relative, path) for relative, path in files if path.suffix.lower() == ENDING]
        count = Counter(_name_of(path) for _, path in inside)
        for relative, path in inside:
            name = _name_of(path)
            found.setdefault(name if count[name] == 1 else relative.removesuffix(ENDING), path)
    return found


def _files_in(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the path below the folder and the whole path of files that may be LoRA files."""
    for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
        relative = path.relative_to(folder)
        is_hidden = any(part.startswith(".") for part in relative.parts)
        if path.suffix.lower() in (ENDING, *PICKLE_ENDINGS) and not is_hidden and path.is_file():
            yield relative.as_posix(), path


def _files_of_places() -> Iterator[tuple[str, Path]]:
    for file in places.list_files("lora"):
        yield file.name, file.path


def _name_of(path: Path) -> str:
    """Return the name of a LoRA: its file's, and for one of the usual names in a folder of its own, the folder's."""
    return path.parent.name if path.name in _IN_FOLDER and path.parent.name else path.stem


def name_of(path: Path) -> str:
    """Return what a record calls a LoRA file, without any folder of this machine."""
    return _name_of(path.absolute())


def find_file(name: str, folder: Path | str | None = None, *, allow_paths: bool = True) -> Path:
    """Return the file that a name means, or a path unless `allow_paths` is off. `folder` is searched first.

    Raises `UsageError` with near names when there is none, and `FileRefused` for a pickle.
    """
    known = list_files(folder)
    for spelling in (name, name.removesuffix(ENDING)):
        if spelling in known:
            return known[spelling]
    if allow_paths and (path := _from_path(name)) is not None:
        return path
    for files in (_files_in(lora_folder(folder)), _files_of_places()):
        for _, path in files:
            if path.suffix.lower() in PICKLE_ENDINGS and name in (path.name, path.stem):
                raise FileRefused(f"{path} is a pickle, which can run code when it is opened", NO_PICKLES)
    several = [other for other in known if other.rpartition("/")[2] == name]
    if several:
        raise UsageError(f"{name} is the name of {len(several)} LoRA files", f"write one of {', '.join(several)}")
    if aliased := [path for path in known.values() if _alias_of(path) == name]:
        return aliased[0]
    near = difflib.get_close_matches(name, known, 3, 0.5)
    available = f"there are: {', '.join(list(known)[:8])}" if known else "put its file there, or give a path"
    raise UsageError(
        f"there is no LoRA {quote(name, 100)} in {lora_folder(folder)} or the folders of models",
        f"did you mean {' or '.join(near)}?" if near else available,
    )


def _from_path(name: str) -> Path | None:
    """Return the file at a path: itself, or the one in a folder of diffusers or PEFT."""
    if not (any(sign in name for sign in "/\\") or name.lower().endswith((ENDING, *PICKLE_ENDINGS))):
        return None
    try:
        path = Path(name).expanduser()
    except RuntimeError:  # ~someone who does not exist
        return None
    if not path.suffix and not _exists(path):
        path = path.with_name(f"{path.name}{ENDING}")
    if not _exists(path):
        return None
    if path.is_dir():
        inside = [path / each for each in _IN_FOLDER if (path / each).is_file()]
        if not inside:
            raise UsageError(f"{path} is a folder without {' or '.join(_IN_FOLDER)}", "give the path of a file")
        return inside[0]
    if path.suffix.lower() in PICKLE_ENDINGS:
        raise FileRefused(f"{path} is a pickle, which can run code when it is opened", NO_PICKLES)
    return path


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # too long, or with characters that no path has
        return False


def _alias_of(path: Path) -> str:
    header = _try_header(path)
    return header.alias if header else ""


def _try_header(path: Path) -> LoraHeader | None:
    try:
        return read_lora_header(path)
    except FileRefused:
        return None


def list_loras(folder: Path | str | None = None) -> dict[str, LoraHeader]:
    """List the files of `list_files` that can be used, with their headers."""
    headers = ((name, _try_header(path)) for name, path in list_files(folder).items())
    return {name: header for name, header in headers if header is not None}
