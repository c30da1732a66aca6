"""`diffusekit visualise page`: one web page on how a picture came out of noise, to mail or to teach with."""

from typing import Annotated, Any

import typer

from ...settings import GenerateSettings, checked, resolve
from ..options import with_settings
from ..progress import quiet_libraries
from .common import Json, Output, Overwrite, Quiet, checked_output, watched, write

ENDINGS = (".html", ".json")


@with_settings(GenerateSettings, "prompt", "images", "batch")
def command(
    settings: dict[str, Any],
    prompts: Annotated[
        list[str],
        typer.Argument(metavar="PROMPT [PROMPT]", help="What to draw; two are shown side by side."),
    ],
    output: Output = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """A self-contained web page: every step, every word, every number of a picture, or of two.

    It needs no network and runs in any browser, on a phone too.
    """
    resolved = resolve(GenerateSettings, "visualise", settings)
    path = checked_output(output, ENDINGS, overwrite=overwrite)
    for prompt in prompts:
        checked(GenerateSettings, {"prompt": prompt})
    with quiet_libraries():
        from ...generate import Stream
        from ...visualise import heat, lesson

        lesson.check(prompts)
        watching = heat.Watching(Stream(resolved, prompts))
        watched(watching, show=not quiet)
        exhibit = lesson.exhibit(watching.traces, watching.running.tokens, heats=watching.heats)
        write(exhibit, path, "page", overwrite=overwrite, as_json=as_json)
