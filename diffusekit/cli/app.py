"""The verbs and what they have in common."""

from typing import Annotated

import typer

from .. import __version__
from . import again, bench, doctor, embeddings, generate, info, invert, models, serve, visualise

app = typer.Typer(
    name="diffusekit",
    help="Text to image with Stable Diffusion, and a look at how it works.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(value: bool) -> None:
    if value:
        print(f"diffusekit {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None: ...


app.command("generate")(generate.command)
app.command("again")(again.command)
app.command("invert")(invert.command)
app.command("serve")(serve.command)
app.command("info")(info.command)
app.command("doctor")(doctor.command)
app.add_typer(models.app, name="models")
app.add_typer(embeddings.app, name="embeddings")
app.add_typer(bench.app, name="bench")
app.add_typer(visualise.app, name="visualise")
app.add_typer(visualise.app, name="visualize", hidden=True)
