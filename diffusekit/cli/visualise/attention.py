"""`diffusekit visualise attention`: which word drew what."""

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
    words: Annotated[
        list[str] | None,
        typer.Option(
            "--word",
            metavar="WORD",
            show_default=False,
            help="A word of the prompt; may be given several times. Default: all.",
        ),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Which word drew what: where the model looked for each word, over the picture.

    A .png or .jpg shows the mean of all steps, .webp .apng .gif .mp4 a film of them, .json the numbers.
    """
    resolved = resolve_settings(GenerateSettings, "visualise", settings | {"prompt": prompt})
    manner.check(*STILL, *FILM)
    with quiet_libraries():
        from ...pipeline import Generation
        from ...visualise import attention_maps

        watching = attention_maps.AttentionMapRecorder(Generation(resolved, [prompt]))
        running = watching.generation
        asked = attention_maps.find_words(running.model, prompt, words or (), running.tokens)
        run_recorder(watching, show=not quiet)
        exhibit = attention_maps.render(watching.traces[0], watching.attention_maps[0], asked)
        manner.write(exhibit, "attention")
