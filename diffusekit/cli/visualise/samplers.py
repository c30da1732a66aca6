"""`diffusekit visualise samplers` (also `sampler`): noise schedules and samplers, as plots."""

import logging
from typing import Annotated, Any

import typer

from ...config import resolve_settings
from ...schedule import SAMPLERS
from ...settings import GenerateSettings
from ..options import with_group, with_settings
from ..progress import quiet_libraries
from .options import FigureOptions, Quiet, run_recorder

log = logging.getLogger(__name__)
_OF_PATHS = ("prompt", "negative_prompt", "guidance_scale", "seed", "width", "height", "embedding")

Names = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="NAME",
        help=f"Samplers: {', '.join(SAMPLERS)}. Default: six common ones.",
        show_default=False,
    ),
]
Prompt = Annotated[str | None, typer.Option("--prompt", help="Prompt of the paths. Default: a red cat on the grass.")]
NoPath = Annotated[bool, typer.Option("--no-path", help="Plot only schedules and steps. No network has to run.")]


@with_group(FigureOptions, "options")
@with_settings(GenerateSettings, "prompt", "images", "batch", "sampler")
def command(
    settings: dict[str, Any],
    options: FigureOptions,
    names: Names = None,
    prompt: Prompt = None,
    no_path: NoPath = False,
    quiet: Quiet = False,
) -> None:
    """Plot noise schedules, steps and paths of samplers.

    Shows the steps of each sampler, and the path of the latents from the same noise.
    Formats: .png, .jpg and .svg show the plots, .json the numbers.
    """
    given = settings if prompt is None else settings | {"prompt": prompt}
    unused = [name for name in _OF_PATHS if name in given] if no_path else []
    if unused:
        log.warning("no effect with `no_path`, which draws no image: %s", ", ".join(f"`{name}`" for name in unused))
    resolved = resolve_settings(GenerateSettings, "visualise", given)
    own = resolved.model_dump(exclude_unset=True, exclude={"images", "batch", "sampler"})
    with quiet_libraries():
        from ...visualise.figure import STILLS
        from ...visualise.samplers import SamplerRecorder, render

        options.check(*STILLS, ".svg")
        recorder = SamplerRecorder(names or (), path=not no_path, **own)
        run_recorder(recorder, show=not quiet)
        options.write(render(recorder), "samplers")
