"""The recipes that come with the program, and those of the folder one works in."""

from __future__ import annotations

import difflib
from pathlib import Path

from ..errors import UsageError
from ..workspace import Workspace

_PACKAGE = Path(__file__).parents[1]


def known() -> dict[str, Path]:
    """The recipes by name: those that come with the program, and before them those in ./training."""
    packed = _PACKAGE / "recipes"  # only where it was installed; a checkout has them in training/
    shipped = packed if packed.is_dir() else _PACKAGE.parent / "training"
    return {path.stem: path for folder in (shipped, Workspace().recipes) for path in sorted(folder.glob("*.toml"))}


def find(name: str) -> Path:
    """The file of a recipe, given by its name or as a path that ends in .toml."""
    if name.endswith(".toml"):
        return Path(name)
    recipes = known()
    if name not in recipes:
        near = difflib.get_close_matches(name, recipes, 1)
        raise UsageError(
            f"there is no recipe {name[:60]!r}",
            (f"did you mean {near[0]}? " if near else "")
            + f"the recipes are {', '.join(sorted(recipes))}, or give a TOML file",
        )
    return recipes[name]
