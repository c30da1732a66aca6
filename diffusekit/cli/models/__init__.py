"""`diffusekit models`: find, fetch, convert, check and remove models. Each verb is a module with a `command`."""

from importlib import import_module

import typer

app = typer.Typer(help="Manage models: list, describe, fetch, convert, remove.", no_args_is_help=True)
for verb in ("list", "info", "pull", "import", "convert", "verify", "remove"):
    app.command(verb)(import_module(f".{verb}", __package__).command)  # `import` cannot be imported by statement
