"""`diffusekit visualise denoise`: the way from noise to a picture, step by step."""

from typing import Annotated, Any

import typer

from ...config import resolve_settings
from ...settings import GenerateSettings
from ..options import with_group, with_settings
from ..progress import quiet_libraries
from .options import FILM, STILL, FigureOptions, Quiet, run_recorder


@with_group(FigureOptions, "manner")
@with_settings(GenerateSettings, "prompt", "images", "batch")
def command(
    settings: dict[str, Any],
    manner: FigureOptions,
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="What to draw.")],
    quiet: Quiet = False,
) -> None:
    """The way back from noise: latents, what the model believes, what the prompt adds, step by step.

    A .png or .jpg is a contact sheet, .webp .apng .gif .mp4 a film, .json the numbers.
    """
    resolved = resolve_settings(GenerateSettings, "visualise", settings | {"prompt": prompt})
    manner.check(*STILL, *FILM)
    with quiet_libraries():
        from ... import visualise
        from ...pipeline import Generation
        from ...visualise import reverse

        recording = visualise.TraceRecorder(Generation(resolved, [prompt]))
        run_recorder(recording, show=not quiet)
        exhibit = reverse.render(recording.traces[0])
        manner.write(exhibit, "denoise")
