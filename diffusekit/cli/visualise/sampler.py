"""`diffusekit visualise sampler`: noise schedules and samplers, as plots."""

from functools import partial
from typing import Annotated, Any

import typer

from ...config import resolve_settings
from ...schedule import SAMPLERS
from ...settings import GenerateSettings
from ..options import with_group, with_settings
from ..progress import quiet_libraries
from .options import STILL, FigureOptions, Quiet, run_recorder

Names = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="NAME",
        help=f"Samplers: {', '.join(SAMPLERS)}. Default: six well-known ones.",
        show_default=False,
    ),
]
Prompt = Annotated[str | None, typer.Option("--prompt", help="The prompt of the way. Default: a red cat.")]
NoPath = Annotated[bool, typer.Option("--no-path", help="Only schedules and steps: no network has to run.")]


@with_group(FigureOptions, "manner")
@with_settings(GenerateSettings, "prompt", "images", "batch", "sampler")
def command(
    settings: dict[str, Any],
    manner: FigureOptions,
    names: Names = None,
    prompt: Prompt = None,
    no_path: NoPath = False,
    quiet: Quiet = False,
) -> None:
    """Noise schedules, the steps each sampler takes on them, and the way of the latents from one noise.

    A .png, .jpg or .svg is a drawing, .json the numbers.
    """
    given = settings if prompt is None else settings | {"prompt": prompt}
    resolved = resolve_settings(GenerateSettings, "visualise", given)
    manner.check(*STILL, ".svg")
    own = resolved.model_dump(exclude_unset=True, exclude={"images", "batch", "sampler"})
    with quiet_libraries():
        from ...visualise.samplers import samplers

        exhibit = samplers(names or (), path=not no_path, watch=partial(run_recorder, show=not quiet), **own)
        manner.write(exhibit, "sampler")
