"""`diffusekit visualise page`: one web page on how a picture came out of noise, to mail or to teach with."""

from typing import Annotated, Any

import typer

from ...config import resolve_settings
from ...settings import GenerateSettings, validate
from ..options import with_group, with_settings
from ..progress import quiet_libraries
from .options import FigureOptions, Quiet, run_recorder


@with_group(FigureOptions, "manner")
@with_settings(GenerateSettings, "prompt", "images", "batch")
def command(
    settings: dict[str, Any],
    manner: FigureOptions,
    prompts: Annotated[
        list[str],
        typer.Argument(metavar="PROMPT [PROMPT]", help="What to draw; two are shown side by side."),
    ],
    quiet: Quiet = False,
) -> None:
    """A self-contained web page: every step, every word, every number of a picture, or of two.

    It needs no network and runs in any browser, on a phone too.
    """
    resolved = resolve_settings(GenerateSettings, "visualise", settings)
    manner.check(".html")
    for prompt in prompts:
        validate(GenerateSettings, {"prompt": prompt})
    with quiet_libraries():
        from ...pipeline import Generation
        from ...visualise import attention_maps
        from ...visualise.lesson import check_prompts, render

        check_prompts(prompts)
        watching = attention_maps.AttentionMapRecorder(Generation(resolved, prompts))
        run_recorder(watching, show=not quiet)
        exhibit = render(watching.traces, watching.generation.tokens, attention_maps=watching.attention_maps)
        manner.write(exhibit, "page")
