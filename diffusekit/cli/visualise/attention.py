"""`diffusekit visualise attention`: where the model looked for each word."""

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
    words: Annotated[
        list[str] | None,
        typer.Option(
            "--word",
            metavar="WORD",
            show_default=False,
            help="A word of the prompt. Can be given several times. Default: all.",
        ),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Show where the model looked for each word.

    Draws the cross-attention map of each word over the image.

    Formats: .png and .jpg show the mean of all steps, .webp .apng .gif .mp4 every step, .json the numbers.
    """
    resolved = resolve_settings(GenerateSettings, "visualise", settings | {"prompt": prompt})
    with quiet_libraries():
        from ...pipeline import Generation
        from ...visualise.attention_maps import AttentionMapRecorder, find_words, render
        from ...visualise.figure import FILMS, STILLS

        options.check(*STILLS, *FILMS)
        recorder = AttentionMapRecorder(Generation(resolved, [prompt]))
        generation = recorder.generation
        indices = find_words(generation.model, generation.parse(prompt), words or (), generation.tokens)
        run_recorder(recorder, show=not quiet)
        options.write(render(recorder.traces[0], recorder.attention_maps[0], indices), "attention")
