"""`diffusekit visualise denoise`: the reverse process, step by step."""

from typing import Annotated, Any

import typer

from ...config import resolve_settings
from ...settings import GenerateSettings
from ..options import with_group, with_settings
from ..progress import quiet_libraries
from .options import FigureOptions, Quiet, run_recorder


@with_group(FigureOptions, "options")
@with_settings(GenerateSettings, "prompt", "images", "batch")
def command(
    settings: dict[str, Any],
    options: FigureOptions,
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="What to generate.")],
    quiet: Quiet = False,
) -> None:
    """Show the reverse process, step by step.

    Shows latents, predicted noise and predicted image of every step.
    Formats: .png and .jpg show a contact sheet, .webp .apng .gif .mp4 a film, .json the numbers.
    """
    resolved = resolve_settings(GenerateSettings, "visualise", settings | {"prompt": prompt})
    with quiet_libraries():
        from ...pipeline import Generation
        from ...visualise.figure import FILMS, STILLS
        from ...visualise.reverse import render
        from ...visualise.trace import TraceRecorder

        options.check(*STILLS, *FILMS)
        recorder = TraceRecorder(Generation(resolved, [prompt]))
        run_recorder(recorder, show=not quiet)
        options.write(render(recorder.traces[0]), "denoise")
