"""`diffusekit embeddings`: manage learned tokens. Each verb is a module of its name with a `command`."""

from importlib import import_module

import typer

app = typer.Typer(help="Manage learned tokens: list, show, import, export, remove.", no_args_is_help=True)
for verb in ("list", "show", "import", "export", "remove", "combine", "interpolate"):
    app.command(verb)(import_module(f".{verb}", __package__).command)  # `import` cannot be imported by statement
