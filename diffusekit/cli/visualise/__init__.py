"""`diffusekit visualise` (also `visualize`): see how a picture comes out of noise."""

import typer

from . import denoise

app = typer.Typer(help="See how a picture comes out of noise.", no_args_is_help=True)
app.command("denoise")(denoise.command)
