"""The verbs and what they have in common; each is a module of its name, with a `command` or an `app` of several."""

from importlib import import_module
from typing import Annotated

import typer

from .. import __version__

VERBS = (
    "generate",
    "again",
    "invert",
    "serve",
    "info",
    "doctor",
    "models",
    "embeddings",
    "bench",
    "visualise",
)
_ALSO = {"visualize": "visualise"}


def _version(value: bool) -> None:
    if value:
        print(f"diffusekit {__version__}")
        raise typer.Exit


def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None: ...


def command_line(first: str = "") -> typer.Typer:
    """All verbs, or only the one that is the `first` word of a command line: no other is imported then."""
    app = typer.Typer(
        name="diffusekit",
        help="Text to image with Stable Diffusion, and a look at how it works.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        callback=_common,
    )
    known = (*VERBS, *_ALSO)
    for verb in (first,) if first in known else known:
        module = import_module(f".{_ALSO.get(verb, verb)}", __package__)
        if hasattr(module, "app"):
            app.add_typer(module.app, name=verb, hidden=verb in _ALSO)
        else:
            app.command(verb)(module.command)
    return app
