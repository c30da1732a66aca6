"""Where the values of settings come from: flags, the environment, TOML files and recipes."""

import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .errors import UsageError
from .settings import S, ServeSettings, Settings, validate
from .workspace import Workspace

PACKAGE = Path(__file__).parent


def resolve_settings(model: type[S], verb: str, given: Mapping[str, Any]) -> S:
    """Merge the values of all sources into settings.

    The order, strongest first: `given` (the flags), `DIFFUSEKIT_*`, ./diffusekit.toml, the config file in the user's
    folder, the defaults. A `None` in `given` counts as not given. Raises `UsageError`, which names the source.
    """
    values: dict[str, Any] = {}
    for path in config_files():
        table = _read_table(path, verb)
        validate(model, table, f" in {path}")
        values |= table
    environment = _read_environment(model)
    validate(model, environment, " in the environment (DIFFUSEKIT_*)")
    values |= environment | {name: value for name, value in given.items() if value is not None}
    return validate(model, values)


def config_files() -> list[Path]:
    """Return the configuration files that exist, the strongest last."""
    import platformdirs

    paths = (platformdirs.user_config_path("diffusekit") / "config.toml", Path("diffusekit.toml"))
    return [path for path in paths if path.is_file()]


def _read_table(path: Path, verb: str) -> dict[str, Any]:
    """Read the table `[verb]` of a configuration file."""
    tables = _read_toml(path, "check the file's permissions", f"for example:\n[{verb}]\nsteps = 30")
    outside = [name for name, value in tables.items() if not isinstance(value, dict)]
    if outside:
        raise UsageError(f"{path}: {outside[0]!r} is outside a table", f"move it below a line [{verb}]")
    return tables.get(verb, {})


def _read_environment(model: type[Settings]) -> dict[str, str]:
    """Read `DIFFUSEKIT_*`. `DIFFUSEKIT_TOKEN` is the server's bearer token, never the token that is learned."""
    ignored = ("prompt",) if model is ServeSettings else ("prompt", "token")
    fields = {f"DIFFUSEKIT_{name.upper()}": name for name in model.model_fields if name not in ignored}
    return {fields[key]: value for key, value in os.environ.items() if key in fields}


def recipes() -> dict[str, Path]:
    """Return the files of all recipes by name. Recipes in ./training replace bundled ones of the same name."""
    installed = PACKAGE / "recipes"  # exists only in an installed wheel; a checkout has them in training/
    bundled = installed if installed.is_dir() else PACKAGE.parent / "training"
    return {path.stem: path for folder in (bundled, Workspace().recipes) for path in sorted(folder.glob("*.toml"))}


def find_recipe(name: str) -> Path:
    """Return the file of a recipe, given its name or a path that ends in .toml."""
    if name.endswith(".toml"):
        return Path(name)
    known = recipes()
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        suggestion = f"did you mean {near[0]}? " if near else ""
        names = ", ".join(sorted(known))
        raise UsageError(f"unknown recipe {name[:60]!r}", f"{suggestion}the recipes are {names}, or give a TOML file")
    return known[name]


def read_recipe(model: type[Settings], path: Path) -> dict[str, Any]:
    """Read the keys of a recipe, a TOML file without tables. Raises `UsageError` for keys `model` does not have."""
    values = _read_toml(path, "give the path of a recipe", "training/object.toml is an example")
    validate(model, values, f" in {path}")
    return values


def _read_toml(path: Path, unreadable_hint: str, syntax_hint: str) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", unreadable_hint) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not TOML: {error}", syntax_hint) from None
