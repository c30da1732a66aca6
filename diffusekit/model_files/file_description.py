"""Describe a model that is one file."""

from __future__ import annotations

from pathlib import Path

from .description import Description
from .kinds import refuse


def describe_file(name: str, path: Path) -> Description:
    """Say what a file is, from its header and its first bytes. Raises nothing: a damaged file has a `problem`."""
    error = refuse(str(path), path)
    try:
        size = path.stat().st_size
    except (OSError, ValueError):
        size = 0
    message, hint = (error.message, error.hint) if error else (f"{path} does not exist", "")
    return Description(name, path, "file", size_on_disk=size, problem=message, hint=hint)
