"""`diffusekit visualise denoise`: the way from noise to a picture, step by step."""

from typing import Annotated, Any

import typer

from ...settings import GenerateSettings, resolve
from ..options import with_settings
from ..progress import quiet_libraries
from .common import Json, Output, Overwrite, Quiet, checked_output, watched, write

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".apng", ".gif", ".mp4", ".json")


@with_settings(GenerateSettings, "prompt", "images", "batch")
def command(
    settings: dict[str, Any],
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="What to draw.")],
    output: Output = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """The way back from noise: latents, what the model believes, what the prompt adds, step by step.

    A .png or .jpg is a contact sheet, .webp .apng .gif .mp4 a film, .json the numbers.
    """
    resolved = resolve(GenerateSettings, "visualise", settings | {"prompt": prompt})
    path = checked_output(output, ENDINGS, overwrite=overwrite)
    with quiet_libraries():
        from ... import visualise
        from ...generate import Stream

        recording = visualise.Recording(Stream(resolved, [prompt]))
        watched(recording, show=not quiet)
        exhibit = visualise.denoising.shown(recording.traces[0])
        write(exhibit, path, "denoise", overwrite=overwrite, as_json=as_json)
