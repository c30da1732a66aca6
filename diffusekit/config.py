"""Where the values of settings come from: flags, the environment, TOML files and recipes."""

import difflib
import logging
import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .errors import UsageError
from .settings import GenerateSettings, InvertSettings, S, ServeSettings, Settings, validate
from .text_files import decode
from .workspace import Workspace, expand

log = logging.getLogger(__name__)

PACKAGE = Path(__file__).parent
_TABLES = ("generate", "invert", "serve", "visualise")
_MODELS_TABLE, _MODELS_VARIABLE = "models", "DIFFUSEKIT_MODELS"
_ALIASES = {"visualize": "visualise"}
_MODELS_EXAMPLE = 'for example:\n[models]\nfolders = ["/home/me/stable-diffusion-webui"]'
# Settings that a verb replaces by an argument, or does not use.
_WITHOUT_EFFECT = {"invert": ("pictures",), "visualise": ("images", "batch")}


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


def model_folders() -> list[Path]:
    """Return the folders in which the user keeps models: those of DIFFUSEKIT_MODELS, then `[models] folders`.

    The variable lists folders as PATH does. Raises `UsageError` for a table that cannot be read.
    """
    folders = [part for part in os.environ.get(_MODELS_VARIABLE, "").split(os.pathsep) if part.strip()]
    for path in reversed(config_files()):
        table = _read_toml(path, "check the file's permissions", _MODELS_EXAMPLE).get(_MODELS_TABLE, {})
        listed = table.get("folders", []) if isinstance(table, dict) and not table.keys() - {"folders"} else None
        listed = [listed] if isinstance(listed, str) else listed
        if not isinstance(listed, list) or not all(isinstance(folder, str) for folder in listed):
            raise UsageError(
                f"{path}: [{_MODELS_TABLE}] should have only `folders`, a list of paths, got {str(table)[:80]}",
                _MODELS_EXAMPLE,
            )
        folders += listed
    return [expand(folder.strip()) for folder in folders]


def config_files() -> list[Path]:
    """Return the configuration files that exist, the strongest last."""
    import platformdirs

    paths = (platformdirs.user_config_path("diffusekit") / "config.toml", Path("diffusekit.toml"))
    return [path for path in paths if path.is_file()]


def _read_table(path: Path, verb: str) -> dict[str, Any]:
    """Read the table `[verb]` of a configuration file. Warns of what has no effect."""
    tables = _read_toml(path, "check the file's permissions", f"for example:\n[{verb}]\nsteps = 30")
    values: dict[str, Any] = {}
    for name, table in tables.items():
        if not isinstance(table, dict):
            if isinstance(table, list) and all(isinstance(row, dict) for row in table):
                raise UsageError(f"{path}: {name!r} is a list of tables", f"write [{name}] instead of [[{name}]]")
            raise UsageError(f"{path}: {name!r} is outside a table", f"move it below a line [{verb}]")
        if _ALIASES.get(name, name) == verb:
            values |= table
        elif name not in (*_TABLES, *_ALIASES, _MODELS_TABLE):
            log.warning("%s: the table [%s] has no effect%s", path, name, _suggest(name, (*_TABLES, _MODELS_TABLE)))
    for name in _WITHOUT_EFFECT.get(verb, ()):
        if name in values:
            log.warning("%s: %s has no effect in [%s]", path, name, verb)
    return values


def _read_environment(model: type[Settings]) -> dict[str, str]:
    """Read `DIFFUSEKIT_*`; a blank variable counts as not set. Warns of variables that no verb has.

    `DIFFUSEKIT_TOKEN` is the server's bearer token, never the token that is learned.
    """
    every = {name for each in (GenerateSettings, InvertSettings, ServeSettings) for name in each.model_fields}
    known = {f"DIFFUSEKIT_{name.upper()}": name for name in every - {"prompt", "pictures"}}
    found = {key: value for key, value in os.environ.items() if key.upper().startswith("DIFFUSEKIT_")}
    for key in found:
        if key not in known and key not in ("DIFFUSEKIT_DEBUG", _MODELS_VARIABLE):
            log.warning("the variable %s has no effect%s", key, _suggest(key.upper(), [*known, _MODELS_VARIABLE]))
    own = model.model_fields.keys() - (() if model is ServeSettings else {"token"})
    return {known[key]: value for key, value in found.items() if known.get(key) in own and value.strip()}


def _suggest(name: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, names, 1)
    return f"; did you mean {near[0]}?" if near else ""


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
        return tomllib.loads(decode(path.read_bytes(), str(path)))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", unreadable_hint) from None
    except RecursionError:
        raise UsageError(f"{path} is not TOML: it is nested too deeply", syntax_hint) from None
    except ValueError as error:  # also for a number of thousands of digits
        raise UsageError(f"{path} is not TOML: {error}", syntax_hint) from None
