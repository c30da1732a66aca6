"""The verbs of the command line. Each is a module of its name, with a `command`, or an `app` of several commands."""

from importlib import import_module
from typing import Annotated

import typer

from ..version import __version__

VERBS = (
    "generate",
    "again",
    "batch",
    "invert",
    "serve",
    "info",
    "doctor",
    "models",
    "embeddings",
    "bench",
    "visualise",
)
_ALIASES = {"visualize": "visualise"}


def _version(value: bool) -> None:
    if value:
        print(f"diffusekit {__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None: ...


def command_line(first: str = "") -> typer.Typer:
    """Build the command line of all verbs, or only of the verb `first`, so that no other verb is imported."""
    app = typer.Typer(
        name="diffusekit",
        help="Generate images with Stable Diffusion, and see how it works.",
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        callback=_options,
    )
    known = (*VERBS, *_ALIASES)
    for verb in (first,) if first in known else known:
        module = import_module(f".{_ALIASES.get(verb, verb)}", __package__)
        if hasattr(module, "app"):
            app.add_typer(module.app, name=verb, hidden=verb in _ALIASES)
        else:
            app.command(verb)(module.command)
    return app
