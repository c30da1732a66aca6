"""`diffusekit visualise lesson` (also `page`): one web page that explains how an image was generated."""

from typing import Annotated, Any

import typer

from ...config import resolve_settings
from ...settings import GenerateSettings, validate
from ..options import with_group, with_settings
from ..progress import quiet_libraries
from .options import FigureOptions, Quiet, run_recorder


@with_group(FigureOptions, "options")
@with_settings(GenerateSettings, "prompt", "images", "batch")
def command(
    settings: dict[str, Any],
    options: FigureOptions,
    prompts: Annotated[
        list[str],
        typer.Argument(metavar="PROMPT [PROMPT]", help="What to generate. Two prompts are shown side by side."),
    ],
    quiet: Quiet = False,
) -> None:
    """Write a web page that explains how an image was generated.

    With two prompts it compares two images. The page is one file and shows every step, word and number.
    It needs no network and works in any browser, also on phones.
    """
    resolved = resolve_settings(GenerateSettings, "visualise", settings)
    for prompt in prompts:
        validate(GenerateSettings, {"prompt": prompt})
    with quiet_libraries():
        from ...pipeline import Generation
        from ...visualise.attention_maps import AttentionMapRecorder
        from ...visualise.lesson import check_prompts, render

        options.check(".html")
        recorder = AttentionMapRecorder(Generation(resolved, check_prompts(prompts, syntax=resolved.prompt_syntax)))
        run_recorder(recorder, show=not quiet)
        lesson = render(recorder.traces, recorder.generation.tokens, attention_maps=recorder.attention_maps)
        options.write(lesson, "lesson")
