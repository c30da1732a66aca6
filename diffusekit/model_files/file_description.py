"""Describe a model that is one file."""

from __future__ import annotations

from pathlib import Path

from .description import Description
from .kinds import refuse

# How the refusal of a file begins, and the kind of the file.
_KINDS = (("a LoRA", "lora"), ("a learned token", "embedding"), ("a VAE", "vae"), ("a one-file checkpoint", "model"))


def describe_file(name: str, path: Path) -> Description:
    """Say what a file is, from its header and its first bytes. Raises nothing: a damaged file has a `problem`."""
    error = refuse(str(path), path)
    try:
        size = path.stat().st_size
    except (OSError, ValueError):
        size = 0
    message, hint = (error.message, error.hint) if error else (f"{path} does not exist", "")
    said = message.removeprefix(f"{path} is ")
    kind = next((kind for words, kind in _KINDS if said.startswith(words)), "")
    return Description(name, path, "file", kind, size_on_disk=size, problem=message, hint=hint)
